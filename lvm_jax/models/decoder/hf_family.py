"""What Hugging Face's folders of one family have in common: names of settings, names of tensors, what is fixed.

A family is data. `hf_llama`, `hf_opt` and `hf_gpt2` fill it in, `hf_folder` reads and writes any of them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from lvm_jax.models.decoder.config import DecoderConfig

# The head of an untied decoder, in every family, without the prefix of the other tensors.
HEAD = "lm_head.weight"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one of our parameters lies among their tensors.

    Attributes:
      name: of their tensor, behind the prefix of the model or of a layer.
      inputs: how many of our dimensions, the first ones, are inputs of a product. Theirs has one dimension for all
        inputs and one for all outputs; 0: it is no matrix, and has our shape.
      transposed: theirs is (outputs, inputs), as torch.nn.Linear stores it; otherwise (inputs, outputs).
      piece: which of `pieces` equal pieces of their outputs is ours, for tensors that fuse several of our parameters.
      pieces: how many of our parameters share the tensor.
    """

    name: str
    inputs: int = 0
    transposed: bool = True
    piece: int = 0
    pieces: int = 1


@dataclasses.dataclass(frozen=True)
class Family:
    """One layout of folders.

    Attributes:
      name: how messages call it.
      model_type: in config.json.
      architecture: the class of transformers that opens the folder.
      structure: fields of `DecoderConfig` that all its members share; they tell families apart on saving.
      grouped: key-value heads may be fewer than query heads.
      fields: field of `DecoderConfig` -> setting of config.json.
      fixed: settings with the one value that the decoder computes.
      special: settings that `read` looks at.
      ignored: settings without a meaning for the weights, beside those of `hf_config.IGNORED`.
      read: (contents of config.json, fields found so far, where) -> further fields.
      write: configuration -> settings beside `fields` and `fixed`.
      prefixes: of all tensors but the head: the one that is written, then others that are read.
      embedding: their vocabulary table.
      top: our parameter -> its place, for what lies outside the blocks.
      layer: prefix of a layer's tensors, with {} for its number.
      block: our parameter of a block -> its place.
      no_parameters: ends of names of tensors that are stored and follow from the configuration.
    """

    name: str
    model_type: str
    architecture: str
    structure: Mapping[str, Any]
    grouped: bool
    fields: Mapping[str, str]
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
        """Whether a decoder is one of the family."""
        fields = vars(config)
        same = all(fields[name] == value for name, value in self.structure.items())
        return same and (self.grouped or config.num_key_value_heads == config.num_attention_heads)


def named(*names: str) -> dict[str, str]:
    """Settings that config.json calls as we do."""
    return {name: name for name in names}
