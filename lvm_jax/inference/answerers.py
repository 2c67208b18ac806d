"""Reads whatever answers by masks from its folder: a decoder of the unified recipe, a MAE-VQGAN, a SegGPT."""

from collections.abc import Callable, Mapping

from etils import epath

from lvm_jax.data.in_context.format_folder import has_format, read_format
from lvm_jax.errors import UserError
from lvm_jax.inference.canvas_answers import MaeVqganAnswerer, SegGptAnswerer
from lvm_jax.inference.in_context_pictures import InContextGenerator, MaskAnswerer
from lvm_jax.models.canvas import mae_vqgan, seggpt
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.weights import model_folder

_Read = Callable[[epath.PathLike, VQGAN], MaskAnswerer]


def _mae_vqgan(folder: epath.PathLike, vqgan: VQGAN) -> MaskAnswerer:
    return MaeVqganAnswerer(mae_vqgan.MaeVqgan.from_pretrained(folder), vqgan)


def _seggpt(folder: epath.PathLike, vqgan: VQGAN) -> MaskAnswerer:
    return SegGptAnswerer(seggpt.SegGpt.from_pretrained(folder), vqgan)


# By the model_type of config.json; "seggpt" is transformers'.
_NETWORKS: Mapping[str, _Read] = {
    mae_vqgan.MODEL_TYPE: _mae_vqgan,
    seggpt.MODEL_TYPE: _seggpt,
    "seggpt": _seggpt,
}


def read_answerer(folder: epath.PathLike, vqgan: VQGAN) -> MaskAnswerer:
    """The model of a folder, ready to answer.

    Args:
      folder: as the recipes "unified" and "in_context_peers" export it.
      vqgan: the image tokenizer.

    Raises:
      UserError: it holds no such model, or one of another tokenizer.
    """
    if has_format(folder):
        return InContextGenerator(Decoder.from_pretrained(folder), vqgan, read_format(folder))
    kind = str(model_folder.read_config(folder).get("model_type"))
    if kind not in _NETWORKS:
        known = ", ".join(_NETWORKS)
        raise UserError(
            f"{folder}/config.json has model_type={kind!r} and no in_context.json lies beside it: name a folder of the "
            f"recipe 'unified', or one of {known}"
        )
    return _NETWORKS[kind](folder, vqgan)
