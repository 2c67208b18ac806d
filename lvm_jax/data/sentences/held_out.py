"""Held-out sentences: reading a spread of them, and turning them into questions."""

from collections.abc import Sequence

import numpy as np

from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.visual_sentence import Category, VisualSentence, compact_layout
from lvm_jax.data.splits import spread


def read_sentences(store: SentenceStore, limit: int = 0) -> list[VisualSentence]:
    """Reads at most `limit` sentences, evenly spread over a split; all if 0. Skips (and counts) bad records."""
    found = (store.sentence(int(i)) for i in spread(len(store), limit))
    return [sentence for sentence in found if sentence is not None]


def read_each_source(store: SentenceStore, limit: int = 0) -> list[VisualSentence]:
    """Reads at most `limit` sentences of each source, evenly spread over it; all if 0. Skips (and counts) bad records.

    A spread over the whole split would have many sentences of a large source and few of a small one.
    """
    members = [np.flatnonzero(store.origin == number) for number in range(len(store.origins))]
    chosen = np.concatenate([ids[spread(len(ids), limit)] for ids in members])
    found = (store.sentence(int(i)) for i in np.sort(chosen))
    return [sentence for sentence in found if sentence is not None]


def kind_of(sentence: VisualSentence) -> str | None:
    """What prompt a sentence becomes when its last image is hidden.

    Returns:
      "sequential" for videos, annotated videos and turntables; "analogy" for annotated images that show the last role
      at least once before; None for the others.
    """
    roles = sentence.roles
    if len(roles) < 2:
        return None
    if sentence.category == Category.ANNOTATED_IMAGE:
        return "analogy" if roles[-1] in roles[:-1] and len(set(roles)) > 1 else None
    return None if sentence.category == Category.UNLABELLED_IMAGE else "sequential"


def comparable_image(shown: Sequence[str], role: str) -> int:
    """The number of the shown image that the copying baseline answers with: the last of that role, or of all."""
    return max((i for i, other in enumerate(shown) if other == role), default=len(shown) - 1)


def last_images(sentence: VisualSentence, count: int) -> VisualSentence:
    """A sentence of the last `count` images only."""
    return VisualSentence(
        codes=sentence.codes[-count:],
        source=sentence.source,
        category=sentence.category,
        key=f"{sentence.key}[-{count}:]",
        layout=compact_layout(sentence.roles[-count:]),
    )
