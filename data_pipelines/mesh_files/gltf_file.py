"""The container of a glTF 2.0 file: its JSON, its buffers, and the arrays in them.

Suffixes: N elements of an accessor, C their components.
"""

import base64
import json
import struct
import urllib.parse
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, Int

_MAX_ELEMENTS = 1 << 24  # of an accessor; one without a buffer could claim any number
_TYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32}
_FLOAT = 5126
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
# Without these a file cannot be drawn; what is not known here may change its triangles. Materials' extensions change
# how light falls, not the base colour.
_KNOWN = {
    "KHR_texture_transform",
    "KHR_mesh_quantization",
    "EXT_texture_webp",
    "KHR_lights_punctual",
    "KHR_xmp_json_ld",
}


class BadGltf(ValueError):
    """The file breaks the specification, or needs what is not supported."""


class GltfFile:
    """A glTF file, opened.

    Attributes:
      tree: its JSON.
    """

    def __init__(self, path: epath.PathLike):
        """Reads the JSON and the binary chunk; other files are read when they are asked for.

        Raises:
          BadGltf: cut short, of version 1, or a required extension is not supported.
        """
        self._folder = epath.Path(path).parent
        content = epath.Path(path).read_bytes()
        text, self._chunk = _chunks(content) if content[:4] == b"glTF" else (content, None)
        self.tree: dict[str, Any] = json.loads(text.decode("utf-8-sig"))
        if not isinstance(self.tree, dict):
            raise BadGltf("its JSON is no object")
        version = str(self.tree.get("asset", {}).get("version", ""))
        if not version.startswith("2."):
            raise BadGltf(f"is glTF {version or 'of no version'}: only 2.0 is read; convert it")
        for name in self.tree.get("extensionsRequired", ()):
            if name not in _KNOWN and not name.startswith("KHR_materials_"):
                raise BadGltf(f"requires the extension {name}: export it without")
        self._buffers: dict[int, bytes] = {}

    def get(self, kind: str, index: int) -> dict[str, Any]:
        """Element `index` of a list of the JSON, such as "meshes"."""
        found = self.tree.get(kind, [])
        if not 0 <= index < len(found):
            raise BadGltf(f"refers to number {index} of its {len(found)} {kind}")
        return found[index]

    def view(self, index: int) -> tuple[bytes, int]:
        """The bytes of a buffer view, and its stride (0 if its elements lie close)."""
        view = self.get("bufferViews", index)
        buffer, start = self._buffer(view["buffer"]), view.get("byteOffset", 0)
        end = start + view["byteLength"]
        if not 0 <= start <= end <= len(buffer):
            raise BadGltf(f"buffer view {index} ends at byte {end} of {len(buffer)}")
        return buffer[start:end], view.get("byteStride", 0)

    def load(self, uri: str) -> bytes:
        """The content of a URI: `data:`, or a file beside this one."""
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        if urllib.parse.urlsplit(uri).scheme or uri.startswith("/"):
            raise BadGltf(f"refers to {uri[:80]}: only files beside it are read")
        return (self._folder / urllib.parse.unquote(uri)).read_bytes()

    def has_data(self, index: int) -> bool:
        """Whether an accessor has values of its own; otherwise an extension would give them."""
        accessor = self.get("accessors", index)
        return "bufferView" in accessor or "sparse" in accessor

    def numbers(self, index: int) -> Float[np.ndarray, "N C"]:
        """An accessor as float64, normalised integers as fractions."""
        accessor = self.get("accessors", index)
        values_NC = self._accessor(accessor)
        if not accessor.get("normalized") or values_NC.dtype.kind == "f":
            return values_NC.astype(np.float64)
        # The least of a signed type, -128, is -1 too.
        return np.maximum(values_NC / np.iinfo(values_NC.dtype).max, -1)

    def integers(self, index: int) -> Int[np.ndarray, "N C"]:
        """An accessor of integers, such as indices."""
        values_NC = self._accessor(self.get("accessors", index))
        if values_NC.dtype.kind == "f":
            raise BadGltf(f"accessor {index} holds floats where integers belong")
        return values_NC.astype(np.int64)

    def _accessor(self, accessor: dict[str, Any]) -> np.ndarray:
        count, columns = accessor["count"], _COMPONENTS[accessor["type"]]
        if not 0 <= count <= _MAX_ELEMENTS:
            raise BadGltf(f"an accessor claims {count} elements, the limit is {_MAX_ELEMENTS}")
        if "bufferView" in accessor:
            values_NC = self._array(accessor, accessor["componentType"], count, columns)
        else:
            values_NC = np.zeros((count, columns), _dtype(accessor["componentType"]))
        sparse = accessor.get("sparse")
        if not sparse:
            return values_NC
        where, few = sparse["indices"], sparse["count"]
        if not 0 <= few <= count:
            raise BadGltf(f"a sparse accessor replaces {few} of {count} elements")
        places_N = self._array(where, where["componentType"], few, 1)[:, 0]
        if few and places_N.max() >= count:
            raise BadGltf(f"a sparse accessor replaces element {places_N.max()} of {count}")
        values_NC = values_NC.copy()
        values_NC[places_N] = self._array(sparse["values"], accessor["componentType"], few, columns)
        return values_NC

    def _array(self, where: dict[str, Any], kind: int, count: int, columns: int) -> np.ndarray:
        content, stride = self.view(where["bufferView"])
        dtype = _dtype(kind)
        stride, start = stride or columns * dtype.itemsize, where.get("byteOffset", 0)
        end = start + stride * (count - 1) + columns * dtype.itemsize if count else start
        if not (0 <= start <= end <= len(content) and stride > 0):
            raise BadGltf(f"an accessor ends at byte {end} of {len(content)}")
        return np.ndarray((count, columns), dtype, content, start, (stride, dtype.itemsize))

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            buffer = self.get("buffers", index)
            if "uri" in buffer:
                content = self.load(buffer["uri"])
            elif index == 0 and self._chunk is not None:
                content = self._chunk
            else:
                raise BadGltf(f"buffer {index} has no data")
            if len(content) < buffer["byteLength"]:
                raise BadGltf(
                    f"buffer {index} has {len(content)} bytes of {buffer['byteLength']}: cut short"
                )
            self._buffers[index] = content
        return self._buffers[index]


def _dtype(kind: int) -> np.dtype:
    return np.dtype(np.float32 if kind == _FLOAT else _TYPES[kind]).newbyteorder("<")


def _chunks(content: bytes) -> tuple[bytes, bytes | None]:
    """The JSON and the binary chunk of a GLB; unknown chunks are passed over, as the specification asks."""
    if len(content) < 20:
        raise BadGltf("is cut short")
    _, version, length = struct.unpack_from("<4sII", content)
    if version != 2:
        raise BadGltf(f"is binary glTF {version}: only 2 is read; convert it")
    if length > len(content):
        raise BadGltf(f"has {len(content)} bytes of {length}: cut short")
    found: dict[bytes, bytes] = {}
    start = 12
    while start + 8 <= length:
        size, kind = struct.unpack_from("<I4s", content, start)
        if start + 8 + size > length:
            raise BadGltf(f"a chunk ends at byte {start + 8 + size} of {length}")
        found.setdefault(kind, content[start + 8 : start + 8 + size])
        start += 8 + size
    if b"JSON" not in found:
        raise BadGltf("has no JSON chunk")
    return found[b"JSON"], found.get(b"BIN\0")
