"""The models that are judged, read from their folders."""

from etils import epath

from lvm_jax.inference.image_generator import check_pair
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN


def load_pair(tokenizer: epath.PathLike, model: epath.PathLike) -> tuple[VQGAN, Decoder]:
    """A tokenizer, and the decoder that was trained on its codes.

    Raises:
      UserError: a folder without a model, or a decoder that was trained on another tokenizer's codes.
    """
    vqgan, decoder = VQGAN.from_pretrained(tokenizer), Decoder.from_pretrained(model)
    check_pair(decoder, vqgan)
    return vqgan, decoder
