"""Tables of all published sizes by name: decoders of LVM, of text and of in-context pairs, and tokenizers."""

from lvm_jax.models.presets.language import gpt2, opt
from lvm_jax.models.presets.lvm import llama
from lvm_jax.models.presets.tokenizer import vqgan
from lvm_jax.models.presets.unified import unified

__all__ = ["gpt2", "llama", "opt", "unified", "vqgan"]
