"""Loads the models to evaluate from their folders."""

from etils import epath

from lvm_jax.inference.image_generator import check_pair
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN


def load_pair(tokenizer: epath.PathLike, model: epath.PathLike) -> tuple[VQGAN, Decoder]:
    """Loads a tokenizer and the decoder that was trained on its codes.

    Raises:
      UserError: a folder has no model, or the decoder was trained on another tokenizer's codes.
    """
    vqgan, decoder = VQGAN.from_pretrained(tokenizer), Decoder.from_pretrained(model)
    check_pair(decoder, vqgan)
    return vqgan, decoder
