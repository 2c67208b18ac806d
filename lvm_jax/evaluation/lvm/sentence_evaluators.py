"""The evaluators that read held-out sentences: the same for a decoder in training, and for a finished one."""

from collections.abc import Sequence

from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.evaluation.base import Evaluator
from lvm_jax.evaluation.lvm.in_context import AnnotationPerplexityEvaluator, InContextEvaluator
from lvm_jax.evaluation.lvm.perplexity import NextTokenEvaluator
from lvm_jax.evaluation.lvm.scoring import Scorer


def sentence_evaluators(
    sentences: Sequence[VisualSentence],
    codebook_size: int,
    *,
    train_sentences: Sequence[VisualSentence] = (),
    context_sentences: int = 0,
    shots: int = 5,
) -> dict[str, Evaluator[Scorer]]:
    """The evaluators by name, in the order of a report.

    Args:
      sentences: held out.
      codebook_size: K.
      train_sentences: of the training split, which the baselines are fitted on; see `NextTokenEvaluator`.
      context_sentences: of each curve of `in_context` and each type of `annotations`; 0 takes all.
      shots: pairs before an annotation.
    """
    evaluators: list[Evaluator[Scorer]] = [
        NextTokenEvaluator(sentences, codebook_size, train_sentences),
        InContextEvaluator(sentences, max_sentences=context_sentences),
        AnnotationPerplexityEvaluator(sentences, shots=shots, max_sentences=context_sentences),
    ]
    return {evaluator.name: evaluator for evaluator in evaluators}
