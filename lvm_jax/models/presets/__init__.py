"""Tables of all published sizes by name: decoders, tokenizers, vision towers, and towers with a decoder."""

from lvm_jax.models.presets.canvas import mae_vqgan, seggpt
from lvm_jax.models.presets.language import gpt2, opt, qwen, vicuna
from lvm_jax.models.presets.lvm import llama
from lvm_jax.models.presets.tokenizer import vqgan
from lvm_jax.models.presets.towers import clip, vitdet
from lvm_jax.models.presets.unified import unified
from lvm_jax.models.presets.vary import vary

__all__ = [
    "clip",
    "gpt2",
    "llama",
    "mae_vqgan",
    "opt",
    "qwen",
    "seggpt",
    "unified",
    "vary",
    "vicuna",
    "vitdet",
    "vqgan",
]
