"""Does more context help? Perplexity of an image against the number of images before it (LVM, Figure 7), and of
annotations after k examples (Figure 4).

The image to predict is always the last of its sentence; only the number of images that the model reads before it
changes. So the curve shows what context is worth, and not that some frames are easier than others.

S: sentences of a curve.
"""

import collections
import math
from collections.abc import Sequence

import numpy as np

from lvm_jax.data.sentences.held_out import last_images
from lvm_jax.data.sentences.visual_sentence import Category, VisualSentence, period_of
from lvm_jax.data.splits import spread
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.lvm.scoring import Scorer


class InContextEvaluator:
    """Perplexity of the last image for different amounts of context.

    "sequential" covers videos and turntables, with 0, 1, 2, ... images of context. "analogy" covers the last answer in
    sentences of (image, answer) pairs: after nothing, after the query alone, then after 1, 2, ... pairs and the query.
    Every point of a curve uses the same sentences, those of the most common length.

    Results, for each curve and context c, with the softmax over the whole vocabulary:
      CURVE/context_c/mean_example_perplexity: exp(mean NLL) of each image, averaged over images, as published. The
        hardest images dominate it.
      CURVE/context_c/corpus_perplexity: exp of the mean NLL over all tokens.

    Args:
      sentences: held out.
      max_sentences: of each curve, evenly spread; 0 takes all.
    """

    name = "in_context"

    def __init__(self, sentences: Sequence[VisualSentence], *, max_sentences: int = 0) -> None:
        self._curves = {
            "sequential": _of_commonest_length(
                [s for s in sentences if _is_sequence(s)], max_sentences
            ),
            "analogy": _of_commonest_length([s for s in sentences if _is_pairs(s)], max_sentences),
        }

    def run(self, subject: Scorer) -> Result:
        """Scores the last images under a decoder; for a curve without sentences the only result is its count, 0."""
        result: Result = {}
        for curve, sentences in self._curves.items():
            result[f"{curve}/sentences"] = len(sentences)
            # Context grows by whole pairs, so that an analogy always ends with a query: 0, 1, 3, 5, ...
            step = 2 if curve == "analogy" else 1
            images = len(sentences[0].codes) if sentences else 0
            for context in sorted({0, *range(step - 1, images, step)} if sentences else ()):
                scores = subject([last_images(s, context + 1) for s in sentences])
                nll_S = np.array([score.nll_IN[-1].mean() for score in scores], np.float64)
                prefix = f"{curve}/context_{context}"
                result[f"{prefix}/mean_example_perplexity"] = float(np.exp(nll_S).mean())
                result[f"{prefix}/corpus_perplexity"] = math.exp(nll_S.mean())
        return result


class AnnotationPerplexityEvaluator:
    """Perplexity of the last annotation of each type, after k (image, annotation) pairs and the query.

    Results for each annotation type (role), over its sentences of at least k + 1 pairs: ROLE/examples, and
    ROLE/mean_example_perplexity and ROLE/corpus_perplexity as in `InContextEvaluator`.

    Args:
      sentences: held out.
      shots: k; 5 in the paper.
      max_sentences: of each type, evenly spread; 0 takes all.
    """

    name = "annotations"

    def __init__(
        self, sentences: Sequence[VisualSentence], *, shots: int = 5, max_sentences: int = 0
    ) -> None:
        self._shots = shots
        of_role: dict[str, list[VisualSentence]] = {}
        for sentence in sentences:
            if _is_pairs(sentence) and len(sentence.codes) >= 2 * (shots + 1):
                # Cut to k pairs before the query, so that every sentence has the same context.
                short = last_images(sentence, 2 * (shots + 1))
                of_role.setdefault(sentence.roles[-1], []).append(short)
        self._of_role = {
            role: [found[i] for i in spread(len(found), max_sentences)]
            for role, found in sorted(of_role.items())
        }

    def run(self, subject: Scorer) -> Result:
        """Scores the annotations under a decoder; a type without sentences has no results."""
        result: Result = {"shots": self._shots}
        for role, sentences in self._of_role.items():
            nll_S = np.array([score.nll_IN[-1].mean() for score in subject(sentences)], np.float64)
            result[f"{role}/examples"] = len(sentences)
            result[f"{role}/mean_example_perplexity"] = float(np.exp(nll_S).mean())
            result[f"{role}/corpus_perplexity"] = math.exp(nll_S.mean())
        return result


def _is_sequence(sentence: VisualSentence) -> bool:
    categories = (Category.UNLABELLED_VIDEO, Category.OBJECT_3D)
    return sentence.category in categories and len(sentence.codes) > 1


def _is_pairs(sentence: VisualSentence) -> bool:
    paired = len(sentence.codes) > 2 and period_of(sentence.roles) == 2
    return sentence.category == Category.ANNOTATED_IMAGE and paired


def _of_commonest_length(sentences: list[VisualSentence], limit: int) -> list[VisualSentence]:
    """The sentences of the most common length in images; the longest, if several are equally common."""
    counts = collections.Counter(len(sentence.codes) for sentence in sentences)
    if not counts:
        return []
    length = max(counts, key=lambda images: (counts[images], images))
    chosen = [sentence for sentence in sentences if len(sentence.codes) == length]
    return [chosen[i] for i in spread(len(chosen), limit)]
