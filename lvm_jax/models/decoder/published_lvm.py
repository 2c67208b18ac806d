"""LVM weights published on Hugging Face.

`Llama.from_pretrained` reads the folder as it is. The exported configurations name text defaults as special ids
(BOS 0 or 1, EOS 1 or 2), which are visual codes: generation would stop at a code in the middle of an image.
"""

import dataclasses
from typing import Any

from etils import epath

from lvm_jax.models.decoder.llama import Llama
from lvm_jax.models.presets import RESERVED_IDS


def from_published(directory: epath.PathLike, **overrides: Any) -> Llama:
    """Reads a published LVM folder and gives it the special ids behind its codes: BOS K, EOS K + 1, PAD K + 2.

    `save_pretrained` then writes a folder that transformers generates from correctly.

    Args:
      directory: as `Llama.from_pretrained`; its vocabulary is K codes and 100 reserved ids.
      **overrides: as `Llama.from_pretrained`.

    Raises:
      UserError: as `Llama.from_pretrained`.
    """
    model = Llama.from_pretrained(directory, **overrides)
    codes = model.config.vocab_size - RESERVED_IDS
    model.config = dataclasses.replace(
        model.config, bos_token_id=codes, eos_token_id=codes + 1, pad_token_id=codes + 2
    )
    return model
