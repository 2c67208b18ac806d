"""Visual prompts and their answers: `from lvm_jax.inference import VisualPrompt, generate_images`."""

from lvm_jax.inference.engine import Engine
from lvm_jax.inference.prompting import VisualPrompt, encode_prompt, generate_images
from lvm_jax.inference.sampling import Sampling

__all__ = ["Engine", "Sampling", "VisualPrompt", "encode_prompt", "generate_images"]
