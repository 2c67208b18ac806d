"""Answers in pictures, `from lvm_jax.inference import VisualPrompt, generate_images`, and in words, `generate_text`."""

from lvm_jax.inference.image_generator import ImageGenerator, generate_images
from lvm_jax.inference.images import Engine
from lvm_jax.inference.prompting import VisualPrompt, encode_prompt
from lvm_jax.inference.sampling import Sampling
from lvm_jax.inference.text_generator import TextGenerator, generate_text

__all__ = [
    "Engine",
    "ImageGenerator",
    "Sampling",
    "TextGenerator",
    "VisualPrompt",
    "encode_prompt",
    "generate_images",
    "generate_text",
]
