"""What held-out sentences ask for: their tasks, such as `scenes: image -> depth` or `walks: next frame`."""

import collections
from collections.abc import Sequence

from lvm_jax.data.sentences.held_out import last_images, read_each_source
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.visual_sentence import Category, VisualSentence, period_of
from lvm_jax.evaluation.lvm.changed_sentences import Sentences

_ANNOTATED = (Category.ANNOTATED_IMAGE, Category.ANNOTATED_VIDEO)
_SEQUENCES = (Category.UNLABELLED_VIDEO, Category.OBJECT_3D)

# A source may have several tasks, and only a sentence that has been read says which: so more are read than are wanted.
_TASKS_OF_A_SOURCE = 8


def read_for_tasks(store: SentenceStore, limit: int) -> Sentences:
    """Reads sentences enough for `limit` of each task, evenly spread over its source; 0 reads all."""
    return read_each_source(store, _TASKS_OF_A_SOURCE * limit)


def by_task(sentences: Sequence[VisualSentence]) -> dict[str, Sentences]:
    """The sentences of pairs and the sequences, by the name of their task; those of neither kind are dropped."""
    tasks = collections.defaultdict(list)
    for sentence in sentences:
        roles = sentence.roles
        period = period_of(roles)
        if sentence.category in _ANNOTATED and 1 < period < len(roles):
            asked = f"{', '.join(roles[: period - 1])} -> {roles[period - 1]}"
            tasks[f"{sentence.source}: {asked}"].append(sentence)
        elif sentence.category in _SEQUENCES and period == 1 < len(roles):
            tasks[f"{sentence.source}: next {roles[0]}"].append(sentence)
    return tasks


def equally_long(same: Sentences) -> Sentences:
    """Sentences of a task, cut to as many images as at least half of them have, without the shorter ones."""
    images = sorted(len(s.codes) for s in same)[(len(same) - 1) // 2]
    return [last_images(s, images) for s in same if len(s.codes) >= images]
