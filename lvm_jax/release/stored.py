"""The types that weights are stored in."""

import dataclasses
from pathlib import Path

from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN


@dataclasses.dataclass(frozen=True)
class StoredTypes:
    """Names of `lvm_jax.weights.model_folder.STORED_DTYPES`.

    Attributes:
      model: of what answers: a decoder, or towers and a decoder.
      tokenizer: of the image tokenizer. Rounding moves codes.
    """

    model: str = "bfloat16"
    tokenizer: str = "float32"

    def save_pair(self, folder: Path, vqgan: VQGAN, model: Decoder) -> None:
        """Writes FOLDER/tokenizer and FOLDER/decoder, which fit each other.

        Raises:
          UserError: a type cannot hold the weights.
        """
        vqgan.save_pretrained(folder / "tokenizer", dtype=self.tokenizer)
        # The rounded tokenizer has a fingerprint of its own, which the decoder must name to be accepted beside it.
        trained_with = model.tokenizer_fingerprint
        model.tokenizer_fingerprint = VQGAN.from_pretrained(folder / "tokenizer").fingerprint()
        model.save_pretrained(folder / "decoder", dtype=self.model)
        model.tokenizer_fingerprint = trained_with
