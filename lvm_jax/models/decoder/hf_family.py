"""What Hugging Face's folders of one family share: names of settings, names of tensors, fixed values.

A family is data: `hf_llama`, `hf_opt` and `hf_gpt2` fill it in, and `hf_folder` reads and writes any of them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from lvm_jax.models.decoder.config import DecoderConfig

# The head of an untied decoder, in every family; it has no prefix.
HEAD = "lm_head.weight"

# Parts that most families lack: only one whose `structure` names the part has it.
_EXTRAS: Mapping[str, Any] = {
    "qk_norm": False,
    "place_embeddings": False,
    "look_back": 0,
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one of our parameters lies in their tensors.

    Attributes:
      name: of their tensor, after the prefix of the model or of a layer.
      inputs: how many of our first dimensions are inputs of a product. Their tensor has one dimension for all inputs
        and one for all outputs. 0: it is no matrix, and has our shape.
      transposed: their tensor is (outputs, inputs), as in torch.nn.Linear; otherwise (inputs, outputs).
      piece: which of the `pieces` equal pieces of their outputs is ours, if the tensor fuses several parameters.
      pieces: how many of our parameters share the tensor.
    """

    name: str
    inputs: int = 0
    transposed: bool = True
    piece: int = 0
    pieces: int = 1


@dataclasses.dataclass(frozen=True)
class Family:
    """One format of folders.

    Attributes:
      name: what messages call it.
      model_type: as in config.json.
      architecture: the class that opens the folder, of transformers or ours.
      structure: fields of `DecoderConfig` that all its decoders share; on saving they tell families apart.
      grouped: key-value heads may be fewer than query heads.
      fields: field of `DecoderConfig` -> setting of config.json.
      defaults: what transformers assumes for fields that config.json leaves out, where `DecoderConfig` does not.
      fixed: settings with the only value that the decoder supports.
      special: settings that `read` handles.
      ignored: settings that do not affect the weights, beside those of `hf_config.IGNORED`.
      read: (contents of config.json, fields found so far, where) -> further fields.
      write: configuration -> settings beside `fields` and `fixed`.
      prefixes: of all tensors but the head: first the one that we write, then others that we read.
      embedding: their vocabulary table.
      top: our parameter -> its place, outside the blocks.
      layer: prefix of a layer's tensors, with {} for its number.
      block: our parameter of a block -> its place.
      no_parameters: endings of names of stored tensors that follow from the configuration.
    """

    name: str
    model_type: str
    architecture: str
    structure: Mapping[str, Any]
    grouped: bool
    fields: Mapping[str, str]
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any]
    special: tuple[str, ...]
    ignored: tuple[str, ...]
    read: Callable[[Mapping[str, Any], Mapping[str, Any], str], Mapping[str, Any]]
    write: Callable[[DecoderConfig], Mapping[str, Any]]
    prefixes: tuple[str, ...]
    embedding: str
    top: Mapping[str, Place]
    layer: str
    block: Mapping[str, Place]
    no_parameters: tuple[str, ...] = ()

    def describes(self, config: DecoderConfig) -> bool:
        """Whether a decoder belongs to the family."""
        fields = vars(config)
        same = all(fields[name] == value for name, value in {**_EXTRAS, **self.structure}.items())
        return same and (self.grouped or config.num_key_value_heads == config.num_attention_heads)


def named(*names: str) -> dict[str, str]:
    """Settings that have the same name in config.json as here."""
    return {name: name for name in names}
