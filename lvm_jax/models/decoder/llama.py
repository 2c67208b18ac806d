"""LLaMA: the decoder of LVM (arXiv 2312.00785), and what the configuration's defaults describe."""

from collections.abc import Mapping
from typing import ClassVar

from lvm_jax.models.decoder import hf_folder, hf_llama
from lvm_jax.models.decoder.config import LlamaConfig
from lvm_jax.models.decoder.decoder import Decoder

__all__ = ["Llama", "LlamaConfig"]


class Llama(Decoder):
    """A `Decoder` that reads folders of the Llama family: this project's, Llama-2, Llama-3, OpenLLaMA, Qwen2 and Qwen3.

    By default it has pre-norm RMSNorm, SwiGLU, rotary positions, no biases and an untied head. What Llama 3, Qwen2 and
    Qwen3 do differently is configuration.
    """

    FAMILIES: ClassVar[Mapping[str, hf_folder.Family]] = {
        "llama": hf_llama.LLAMA,
        "qwen2": hf_llama.QWEN2,
        "qwen3": hf_llama.QWEN3,
    }
