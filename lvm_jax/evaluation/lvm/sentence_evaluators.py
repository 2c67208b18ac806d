"""The evaluators that read held-out sentences, for decoders in training and finished ones."""

from lvm_jax.data.sentences.held_out import read_sentences
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.evaluation.base import Evaluator
from lvm_jax.evaluation.lvm.in_context import AnnotationPerplexityEvaluator, InContextEvaluator
from lvm_jax.evaluation.lvm.perplexity import NextTokenEvaluator
from lvm_jax.evaluation.lvm.scoring import Scorer


def sentence_evaluators(
    held_out: SentenceStore,
    *,
    max_sentences: int = 0,
    context_sentences: int = 0,
    shots: int = 5,
    train: SentenceStore | None = None,
    train_sentences: int = 0,
) -> dict[str, Evaluator[Scorer]]:
    """Makes the evaluators: name -> evaluator, in the order of a report.

    Args:
      held_out: the split to score.
      max_sentences: of the split, evenly spread; 0 takes all.
      context_sentences: of each curve of `in_context` and each type of `annotations`; 0 takes all.
      shots: pairs before an annotation.
      train: the training split, to fit the baselines on; see `NextTokenEvaluator`.
      train_sentences: of that split, evenly spread; 0 takes all.
    """
    sentences = read_sentences(held_out, max_sentences)
    fitted_on = [] if train is None else read_sentences(train, train_sentences)
    evaluators: list[Evaluator[Scorer]] = [
        NextTokenEvaluator(sentences, held_out.manifest.codebook_size, fitted_on),
        InContextEvaluator(sentences, max_sentences=context_sentences),
        AnnotationPerplexityEvaluator(sentences, shots=shots, max_sentences=context_sentences),
    ]
    return {evaluator.name: evaluator for evaluator in evaluators}
