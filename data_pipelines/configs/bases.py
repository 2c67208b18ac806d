"""What recipes of one kind have in common; a recipe changes what it needs, and names its entries."""

from typing import Any

import ml_collections

from data_pipelines.documents import HELD_OUT


def of_pool(name: str, size: int, *, small: bool) -> ml_collections.ConfigDict:
    """A pool of drawn pictures for in-context pairs.

    Args:
      name: of the data set.
      size: of a picture in pixels, the tokenizer's.
      small: few shards.
    """
    config = ml_collections.ConfigDict()
    config.name = name
    config.version = "1.0.0"
    config.encoding = "pool"
    config.image_size = size
    config.max_images = 1
    config.train_shards = 2 if small else 8
    config.validation_shards = 1
    config.validation_fraction = 0.1 if small else 0.02
    config.seed = 0
    config.max_bad_items = 0  # nothing that is drawn can be bad
    return config


def of_words(name: str, *, small: bool, shards: int) -> ml_collections.ConfigDict:
    """Pictures with their words, one in a record.

    Args:
      name: of the data set.
      small: few shards.
      shards: of the training split otherwise.
    """
    config = ml_collections.ConfigDict()
    config.name = name
    config.version = "1.0.0"
    config.image_size = 0  # pictures keep their size: the view of a tower fits them
    config.encoding = "image_text"
    config.max_images = 1
    config.train_shards = 2 if small else shards
    config.validation_shards = 1
    config.seed = 0
    config.max_bad_items = 0  # what a font cannot write, or what does not fit, is a mistake
    return config


def asked(source: dict[str, Any], *questions: str) -> dict[str, Any]:
    """An entry of rendered items, each with one of the questions; the held-out items are the validation split."""
    composer = {"kind": "ask", "questions": questions}
    return {"source": source, "composer": composer, "together": HELD_OUT}
