"""Next-token loss on held-out sentences, beside baselines that need no network.

There are two units. *Nats a token* counts codes and ends of sentences: `loss`, as in training. *Nats a code* counts
codes alone: `code_loss` and all baselines, which do not predict ends. Compare numbers only within one unit. BOS is
never predicted, so no loss counts it.

N: tokens per image.
"""

import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from lvm_jax.data.sentences.visual_sentence import Category, VisualSentence
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.lvm import baselines
from lvm_jax.evaluation.lvm.scoring import Scorer, SentenceScore

_ANNOTATED = (Category.ANNOTATED_IMAGE, Category.ANNOTATED_VIDEO)


class NextTokenEvaluator:
    """Loss, perplexity and accuracy on held-out sentences: overall, by source, by category and by annotation type.

    `loss` and `perplexity` are in nats a token; results with "code" in their name, and the baselines, in nats a code.

    Args:
      sentences: held out.
      codebook_size: K.
      train_sentences: of the training split, to fit the unigram distribution and the p of the copying baseline.
        Without them the held-out sentences serve, which favours the baselines. `baseline/fitted_on` says which.
    """

    name = "next_token"

    def __init__(
        self,
        sentences: Sequence[VisualSentence],
        codebook_size: int,
        train_sentences: Sequence[VisualSentence] = (),
    ) -> None:
        self._sentences = sentences
        self._codebook_size = codebook_size
        self._train = train_sentences

    def run(self, subject: Scorer) -> Result:
        """Scores the sentences under a decoder."""
        scores = subject(self._sentences)
        result = self._model_results(scores)
        result |= self._baseline_results(scores)
        for prefix, members in _groups(self._sentences).items():
            nll = np.concatenate([scores[i].nll_IN.reshape(-1) for i in members])
            result[f"{prefix}/sentences"] = len(members)
            result[f"{prefix}/code_loss"] = float(nll.mean())
            result[f"{prefix}/code_perplexity"] = math.exp(nll.mean())
        return result | self._annotation_results(scores)

    def _annotation_results(self, scores: Sequence[SentenceScore]) -> Result:
        """Results by annotation type: over the images of that role in sentences of annotated images and videos."""
        of_role: dict[str, list[np.ndarray]] = {}
        for sentence, score in zip(self._sentences, scores):
            if sentence.category in _ANNOTATED:
                for role, nll_N in zip(sentence.roles, score.nll_IN):
                    of_role.setdefault(role, []).append(nll_N)
        result: Result = {}
        for role, images in sorted(of_role.items()):
            result[f"annotation/{role}/images"] = len(images)
            result[f"annotation/{role}/code_loss"] = _mean(images)
        return result

    def _model_results(self, scores: Sequence[SentenceScore]) -> Result:
        codes = np.concatenate([score.nll_IN.reshape(-1) for score in scores])
        ends = [score.eos_nll for score in scores if score.eos_nll is not None]
        loss = float(np.concatenate([codes, np.asarray(ends)]).mean())
        return {
            "sentences": len(scores),
            "tokens": len(codes) + len(ends),
            "loss": loss,
            "perplexity": math.exp(loss),
            "code_loss": float(codes.mean()),
            "code_perplexity": math.exp(codes.mean()),
            "accuracy": float(
                np.concatenate([score.hit_IN.reshape(-1) for score in scores]).mean()
            ),
            "uniform_loss": math.log(self._codebook_size),
        }

    @functools.cached_property
    def _copying(self) -> tuple[list[np.ndarray], Result]:
        """The copying loss of each code, and all results about baselines alone.

        Cached: they are the same for every decoder, and training runs this evaluator many times.
        """
        held_out = baselines.count_codes(self._sentences, self._codebook_size)
        result: Result = {
            "baseline/unigram_entropy": baselines.entropy(held_out),
            "baseline/fitted_on": "train" if self._train else "held-out",
        }
        counts = held_out
        if self._train:
            counts = baselines.count_codes(self._train, self._codebook_size)
            cross_entropy = -(held_out * np.log(baselines.smoothed(counts))).sum() / held_out.sum()
            result["baseline/train_unigram_loss"] = float(cross_entropy)
        copy = baselines.CopyBaseline.fit(
            self._train or self._sentences, baselines.smoothed(counts)
        )
        copy_nll = [copy.nll(sentence) for sentence in self._sentences]
        result["baseline/copy_loss"] = _mean(copy_nll)
        result |= {f"baseline/copy_p/{Category(c).name.lower()}": p for c, p in copy.p_of.items()}
        return copy_nll, result

    def _baseline_results(self, scores: Sequence[SentenceScore]) -> Result:
        copy_nll, result = self._copying
        result = dict(result)
        if any(len(sentence.codes) > 1 for sentence in self._sentences):
            result |= {
                "after_first_image/code_loss": _mean(score.nll_IN[1:] for score in scores),
                "after_first_image/copy_loss": _mean(nll[1:] for nll in copy_nll),
                "after_first_image/accuracy": _mean(score.hit_IN[1:] for score in scores),
                "after_first_image/copy_accuracy": _mean(
                    baselines.copied(sentence) for sentence in self._sentences
                ),
            }
        return result


def _mean(arrays: Iterable[np.ndarray]) -> float:
    """The mean over all entries of all arrays, so a long sentence weighs more than a short one."""
    return float(np.concatenate([array.reshape(-1) for array in arrays]).mean())


def _groups(sentences: Sequence[VisualSentence]) -> dict[str, list[int]]:
    """Prefix of results -> indices of the sentences behind them."""
    groups: dict[str, list[int]] = {}
    for index, sentence in enumerate(sentences):
        groups.setdefault(f"source/{sentence.source}", []).append(index)
        groups.setdefault(f"category/{Category(sentence.category).name.lower()}", []).append(index)
    return dict(sorted(groups.items()))
