"""LVM weights published on Hugging Face.

`Llama.from_pretrained` reads such a folder as it is. But its config.json has the special ids of text models (BOS 0 or
1, EOS 1 or 2), which here are visual codes: generation would stop at a code in the middle of an image.
"""

import dataclasses
from typing import Any

from etils import epath

from lvm_jax.models.decoder.llama import Llama
from lvm_jax.vocabulary import Vocabulary


def from_published(directory: epath.PathLike, **overrides: Any) -> Llama:
    """Reads a published LVM folder and gives it the special ids of `Vocabulary.lvm_of_size`, which follow its codes.

    `save_pretrained` then writes a folder with which transformers generates correctly.

    Args:
      directory: as in `Llama.from_pretrained`; its vocabulary is the codes and 100 reserved ids.
      **overrides: as in `Llama.from_pretrained`.

    Raises:
      UserError: as in `Llama.from_pretrained`, or the vocabulary has no code.
    """
    model = Llama.from_pretrained(directory, **overrides)
    ids = Vocabulary.lvm_of_size(model.config.vocab_size)
    model.config = dataclasses.replace(
        model.config, bos_token_id=ids.bos, eos_token_id=ids.eos, pad_token_id=ids.pad
    )
    return model
