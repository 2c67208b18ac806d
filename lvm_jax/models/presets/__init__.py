"""Tables of all published sizes by name: decoders of all systems, tokenizers, and vision towers."""

from lvm_jax.models.presets.language import gpt2, opt
from lvm_jax.models.presets.lvm import llama
from lvm_jax.models.presets.tokenizer import vqgan
from lvm_jax.models.presets.towers import clip, vitdet
from lvm_jax.models.presets.unified import unified

__all__ = ["clip", "gpt2", "llama", "opt", "unified", "vitdet", "vqgan"]
