"""LLaMA: the decoder of LVM (arXiv 2312.00785), of which the configuration's defaults speak."""

from collections.abc import Mapping
from typing import ClassVar

from lvm_jax.models.decoder import hf_folder, hf_llama
from lvm_jax.models.decoder.config import LlamaConfig
from lvm_jax.models.decoder.decoder import Decoder

__all__ = ["Llama", "LlamaConfig"]


class Llama(Decoder):
    """A `Decoder` whose folders are of the Llama family: this project's, Llama-2, Llama-3, OpenLLaMA or Qwen2.

    Pre-norm RMSNorm, SwiGLU, rotary positions, no biases and an untied head by default; by configuration also what
    Llama 3 and Qwen2 do otherwise.
    """

    FAMILIES: ClassVar[Mapping[str, hf_folder.Family]] = {
        "llama": hf_llama.LLAMA,
        "qwen2": hf_llama.QWEN2,
    }
