"""`tf.train.Example` without TensorFlow, byte for byte the same.

The message classes come from a descriptor written here, in a descriptor pool of their own: TensorFlow registers the
same names in the default pool, and the two can share a process.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from lvm_jax.errors import BadData

_Field = descriptor_pb2.FieldDescriptorProto
FeatureValue = bytes | int | Sequence[bytes] | Sequence[int]


class CorruptRecord(BadData, ValueError):
    """A record whose bytes are damaged, or do not fit its schema."""


def encode(features: Mapping[str, FeatureValue]) -> bytes:
    """Serializes features, each a bytes or int64 value or a list of them, into a `tf.train.Example`.

    Equal features give equal bytes, whatever the order of the mapping.
    """
    example = _Example()
    for name, value in features.items():
        values = [value] if isinstance(value, bytes | int) else list(value)
        feature = example.features.feature[name]
        if all(isinstance(v, bytes) for v in values):
            feature.bytes_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    # Otherwise protobuf may order map entries as it likes.
    return example.SerializeToString(deterministic=True)


def decode(data: bytes) -> dict[str, list[bytes] | list[int] | list[float]]:
    """Parses the features of a serialized `tf.train.Example`, each a list.

    Raises:
      CorruptRecord: the bytes are not an Example.
    """
    features = _parse(data).features.feature
    decoded = {}
    for name, feature in features.items():
        kind = feature.WhichOneof("kind")
        decoded[name] = list(getattr(feature, kind).value) if kind else []
    return decoded


def _parse(data: bytes) -> Any:
    example = _Example()
    try:
        example.ParseFromString(data)
    except message.DecodeError as error:
        raise CorruptRecord(f"{len(data)} bytes are not a tf.train.Example") from error
    return example


def _message_class() -> Any:
    """Builds `tensorflow.Example` and its inner messages, with TensorFlow's field names and numbers."""
    file = descriptor_pb2.FileDescriptorProto(
        name="lvm_jax/example.proto", package="tensorflow", syntax="proto3"
    )

    def field(
        owner: Any, name: str, number: int, kind: int, type_name: str | None = None, **kwargs: Any
    ) -> None:
        label = _Field.LABEL_REPEATED if kwargs.pop("repeated", False) else _Field.LABEL_OPTIONAL
        owner.field.add(
            name=name, number=number, type=kind, label=label, type_name=type_name, **kwargs
        )

    lists = {
        "BytesList": _Field.TYPE_BYTES,
        "FloatList": _Field.TYPE_FLOAT,
        "Int64List": _Field.TYPE_INT64,
    }
    for name, kind in lists.items():
        field(file.message_type.add(name=name), "value", 1, kind, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, list_name) in enumerate(
        [("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")],
        start=1,
    ):
        field(feature, name, number, _Field.TYPE_MESSAGE, f".tensorflow.{list_name}", oneof_index=0)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, _Field.TYPE_STRING)
    field(entry, "value", 2, _Field.TYPE_MESSAGE, ".tensorflow.Feature")
    field(
        features,
        "feature",
        1,
        _Field.TYPE_MESSAGE,
        ".tensorflow.Features.FeatureEntry",
        repeated=True,
    )
    field(
        file.message_type.add(name="Example"),
        "features",
        1,
        _Field.TYPE_MESSAGE,
        ".tensorflow.Features",
    )

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _message_class()
