"""Tables of all published sizes by name: decoders of LVM and of text, and tokenizers."""

from lvm_jax.models.presets.language import gpt2, opt
from lvm_jax.models.presets.lvm import llama
from lvm_jax.models.presets.tokenizer import vqgan

__all__ = ["gpt2", "llama", "opt", "vqgan"]
