"""Recipes: a config file names one, `experiments/train.py` runs it, and other programs build its task or run.

For a new system, add a module with a `RECIPE` and a line to the table below.
"""

from collections.abc import Mapping
from typing import Any

from lvm_jax.errors import UserError
from lvm_jax.recipes import in_context_peers, lvm, tokenizer, unified, vary
from lvm_jax.recipes.base import Experiment, Recipe, Run

__all__ = ["RECIPES", "Experiment", "Recipe", "Run", "recipe_named"]

RECIPES: Mapping[str, Recipe[Any]] = {
    "lvm": lvm.RECIPE,
    "tokenizer": tokenizer.RECIPE,
    "unified": unified.RECIPE,
    "vary": vary.RECIPE,
    "in_context_peers": in_context_peers.RECIPE,
}


def recipe_named(name: str) -> Recipe[Any]:
    """The recipe called `name`.

    Raises:
      UserError: no recipe has that name.
    """
    if name not in RECIPES:
        raise UserError(f"config.recipe is {name!r}: it must be one of {', '.join(RECIPES)}")
    return RECIPES[name]
