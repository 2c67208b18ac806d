"""Answers visual prompts: `from lvm_jax.inference import VisualPrompt, generate_images`."""

from lvm_jax.inference.image_generator import ImageGenerator, generate_images
from lvm_jax.inference.images import Engine
from lvm_jax.inference.prompting import VisualPrompt, encode_prompt
from lvm_jax.inference.sampling import Sampling

__all__ = [
    "Engine",
    "ImageGenerator",
    "Sampling",
    "VisualPrompt",
    "encode_prompt",
    "generate_images",
]
