"""Checks that the configurations of towers share."""

from collections.abc import Mapping
from typing import Any

from lvm_jax.errors import UserError

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "dtype": ("float32", "bfloat16"),
    "remat": ("none", "full", "dots"),
    "attention": ("auto", "xla", "chunked", "splash", "cudnn"),
}


def check_grid(image_size: tuple[int, int], patch: int) -> None:
    """Requires patches to divide both sides of an image.

    Raises:
      UserError: they do not.
    """
    wrong = len(image_size) != 2 or min(image_size) < 1
    if wrong or patch < 1 or any(side % patch for side in image_size):
        raise UserError(
            f"image_size={image_size} does not divide into patches of patch_size={patch}: "
            "give a height and a width that are multiples of it"
        )


def check_sizes(sizes: Mapping[str, int], width: int, heads: int) -> None:
    """Requires positive sizes, and heads that divide the width.

    Raises:
      UserError: names the first that is wrong.
    """
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name}={size}: it must be at least 1")
    if width % heads:
        raise UserError(f"num_attention_heads={heads} must divide hidden_size={width}")


def check_choices(config: Any) -> None:
    """Requires known values for how to compute.

    Raises:
      UserError: names the first that is not.
    """
    fields = vars(config)
    for name, known in _CHOICES.items():
        if fields[name] not in known:
            raise UserError(f"{name}={fields[name]!r} does not exist; known: {', '.join(known)}")
