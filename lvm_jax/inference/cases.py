"""Prompts that are answered in batches, and how held-out sentences become such prompts.

P: images of the prompt, I: images of the answer, N: tokens per image.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Int

from lvm_jax.data.sentences.held_out import kind_of
from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Case:
    """A prompt as codes, perhaps with its known answer.

    Attributes:
      name: unique; also the name of the answers' folder.
      kind: "sequential" or "analogy".
      source, key: where it came from.
      roles: those of the prompt's images, then those of the answer's.
      prompt_PN: codes of the prompt.
      truth_IN: codes of the answer; I is 0 when it is unknown.
      sizes: (height, width) of each prompt image before it was squashed to a square; empty when unknown.
    """

    name: str
    kind: str
    source: str
    key: str
    roles: tuple[str, ...]
    prompt_PN: Int[np.ndarray, "P N"]
    truth_IN: Int[np.ndarray, "I N"]
    sizes: tuple[tuple[int, int], ...] = ()

    def ask(self) -> "Question":
        """The question, identified by its codes."""
        # The truth is in the digest too: the scores in the answer's record depend on it.
        both = np.concatenate([self.prompt_PN, self.truth_IN])
        digest = hashlib.sha256(both.tobytes()).hexdigest()[:16]
        return Question(self.name, self.source, self.key, digest, lambda: self)


@dataclasses.dataclass(frozen=True)
class Question:
    """A case that has been read but not yet encoded; an earlier run may already have answered it.

    It sits between `FileCase` and `Case`: the bytes of the files show whether the answer exists. Only if it does not
    are they decoded and encoded.

    Attributes:
      name, source, key: see `Case`.
      digest: 16 hex digits that identify the content.
      case: makes the `Case`; this is the expensive step.
    """

    name: str
    source: str
    key: str
    digest: str
    case: Callable[[], Case]

    def described(self) -> dict[str, Any]:
        """The question as JSON; equal questions give equal JSON."""
        return {"name": self.name, "source": self.source, "key": self.key, "codes": self.digest}


def held_out_cases(
    sentences: Iterable[VisualSentence], *, n_images: int, limit: int, context_images: int
) -> list[Case]:
    """Turns sentences into prompts, taking sources and kinds in turn until there are `limit` (0: all).

    A video or turntable hides its last `n_images` images, an annotated image its last answer.

    Raises:
      UserError: no sentence makes a prompt.
    """
    groups: dict[tuple[str, str, str], list[VisualSentence]] = {}
    for sentence in sentences:
        kind = kind_of(sentence)
        if kind and _hidden(kind, n_images) < len(sentence.codes) <= context_images:
            groups.setdefault((kind, sentence.source, sentence.roles[-1]), []).append(sentence)
    if not groups:
        raise UserError(
            f"no held-out sentence has more than {n_images} and at most {context_images} images: lower n_images or "
            "build shards with videos, turntables or annotated images"
        )
    cases: list[Case] = []
    # Round robin: a small limit must still show every source, not only the first one in the shards.
    for turn in range(max(map(len, groups.values()))):
        for (kind, _, _), members in sorted(groups.items()):
            if turn < len(members) and (not limit or len(cases) < limit):
                cases.append(_hide(members[turn], len(cases), kind, _hidden(kind, n_images)))
    return cases


def _hidden(kind: str, n_images: int) -> int:
    """How many images to hide: an annotated image has one answer, whatever `n_images` says."""
    return 1 if kind == "analogy" else n_images


def _hide(sentence: VisualSentence, number: int, kind: str, hidden: int) -> Case:
    label = f"{number:03d}-{kind}-{sentence.source}".lower()
    codes = sentence.codes.astype(np.int32)  # from uint16: the type that `encode_images` gives
    return Case(
        name=re.sub(r"[^a-z0-9]+", "-", label).strip("-"),
        kind=kind,
        source=sentence.source,
        key=sentence.key,
        roles=tuple(sentence.roles),
        prompt_PN=codes[:-hidden],
        truth_IN=codes[-hidden:],
    )
