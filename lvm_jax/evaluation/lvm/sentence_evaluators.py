"""The evaluators that read held-out sentences, for decoders in training and finished ones."""

from collections.abc import Callable, Container, Mapping

from lvm_jax.data.sentences.held_out import read_sentences
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.evaluation.base import Evaluator
from lvm_jax.evaluation.lvm.controls import ControlsEvaluator
from lvm_jax.evaluation.lvm.in_context import AnnotationPerplexityEvaluator, InContextEvaluator
from lvm_jax.evaluation.lvm.perplexity import NextTokenEvaluator
from lvm_jax.evaluation.lvm.scoring import Scorer
from lvm_jax.evaluation.lvm.sentence_tasks import read_for_tasks

OF_SENTENCES = (
    NextTokenEvaluator.name,
    ControlsEvaluator.name,
    InContextEvaluator.name,
    AnnotationPerplexityEvaluator.name,
)


def sentence_evaluators(
    held_out: SentenceStore,
    *,
    names: Container[str] = OF_SENTENCES,
    max_sentences: int = 0,
    control_sentences: int = 64,
    context_sentences: int = 0,
    shots: int = 5,
    train: SentenceStore | None = None,
    train_sentences: int = 0,
) -> dict[str, Evaluator[Scorer]]:
    """Makes the evaluators: name -> evaluator, in the order of `OF_SENTENCES`.

    Args:
      held_out: the split to score.
      names: which of `OF_SENTENCES` to make; data that none of them needs is not read.
      max_sentences: of the split, evenly spread, for all but `controls`; 0 takes all.
      control_sentences: of each task of `controls`, evenly spread over its source; 0 takes all.
      context_sentences: of each curve of `in_context` and each type of `annotations`; 0 takes all.
      shots: pairs before an annotation.
      train: the training split, to fit the baselines on; see `NextTokenEvaluator`.
      train_sentences: of that split, evenly spread; 0 takes all.
    """
    sentences = read_sentences(held_out, max_sentences)

    def next_token() -> Evaluator[Scorer]:
        fitted_on = [] if train is None else read_sentences(train, train_sentences)
        return NextTokenEvaluator(sentences, held_out.manifest.codebook_size, fitted_on)

    def controls() -> Evaluator[Scorer]:
        of_each = read_for_tasks(held_out, control_sentences)
        return ControlsEvaluator(of_each, max_sentences=control_sentences)

    def in_context() -> Evaluator[Scorer]:
        return InContextEvaluator(sentences, max_sentences=context_sentences)

    def annotations() -> Evaluator[Scorer]:
        return AnnotationPerplexityEvaluator(
            sentences, shots=shots, max_sentences=context_sentences
        )

    makers: Mapping[str, Callable[[], Evaluator[Scorer]]] = {
        NextTokenEvaluator.name: next_token,
        ControlsEvaluator.name: controls,
        InContextEvaluator.name: in_context,
        AnnotationPerplexityEvaluator.name: annotations,
    }
    return {name: makers[name]() for name in OF_SENTENCES if name in names}
