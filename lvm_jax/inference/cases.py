"""Prompts to be answered many at a time, and those that held-out sentences give.

P: images of the prompt, I: images of the answer, N: tokens an image.
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
    """A prompt as codes, and the answer if it is known.

    Attributes:
      name: unique; names the folder of the answers.
      kind: "sequential" or "analogy".
      source, key: where it came from.
      roles: of the prompt's images, then of the answer's.
      prompt_PN: codes of the prompt.
      truth_IN: codes of the answer; no rows where it is unknown.
      sizes: (height, width) of each image of the prompt before it was squashed; empty where that is unknown.
    """

    name: str
    kind: str
    source: str
    key: str
    roles: tuple[str, ...]
    prompt_PN: Int[np.ndarray, "p n"]
    truth_IN: Int[np.ndarray, "i n"]
    sizes: tuple[tuple[int, int], ...] = ()

    def ask(self) -> "Question":
        """What is asked, by the codes themselves."""
        both = np.concatenate([self.prompt_PN, self.truth_IN])
        digest = hashlib.sha256(both.tobytes()).hexdigest()[:16]
        return Question(self.name, self.source, self.key, digest, lambda: self)


@dataclasses.dataclass(frozen=True)
class Question:
    """A case whose content has been read, and which may have been answered by an earlier run.

    It lies between `FileCase` and `Case`: a file's bytes tell whether the answer is there already, and only where it is
    not are they decoded and encoded.

    Attributes:
      name, source, key: see `Case`.
      digest: 16 hex digits of the content.
      case: the prompt as codes.
    """

    name: str
    source: str
    key: str
    digest: str
    case: Callable[[], Case]

    def described(self) -> dict[str, Any]:
        """What the question is, JSON-able: equal for equal questions."""
        return {"name": self.name, "source": self.source, "key": self.key, "codes": self.digest}


def held_out_cases(
    sentences: Iterable[VisualSentence], *, n_images: int, limit: int, context_images: int
) -> list[Case]:
    """Prompts from sentences, in turn from every source and kind until there are `limit` (0: all).

    Videos and turntables hide their last `n_images` images, annotated images their last answer.

    Raises:
      UserError: no sentence can be asked.
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
    for turn in range(max(map(len, groups.values()))):
        for (kind, _, _), members in sorted(groups.items()):
            if turn < len(members) and (not limit or len(cases) < limit):
                cases.append(_hide(members[turn], len(cases), kind, _hidden(kind, n_images)))
    return cases


def _hidden(kind: str, n_images: int) -> int:
    """How many images of a sentence are to be guessed: an annotated image has one answer."""
    return 1 if kind == "analogy" else n_images


def _hide(sentence: VisualSentence, number: int, kind: str, hidden: int) -> Case:
    label = f"{number:03d}-{kind}-{sentence.source}".lower()
    codes = sentence.codes.astype(np.int32)
    return Case(
        name=re.sub(r"[^a-z0-9]+", "-", label).strip("-"),
        kind=kind,
        source=sentence.source,
        key=sentence.key,
        roles=tuple(sentence.roles),
        prompt_PN=codes[:-hidden],
        truth_IN=codes[-hidden:],
    )
