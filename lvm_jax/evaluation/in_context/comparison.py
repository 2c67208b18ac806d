"""Several models on the very same episodes of segmentation, as in the paper's Table 4."""

from collections.abc import Mapping, Sequence

from etils import epath

from lvm_jax.data.in_context.sequences import Question, SequenceFormat
from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.in_context.answers import MaskEvaluator
from lvm_jax.evaluation.in_context.scoring import PoolQuestions
from lvm_jax.evaluation.in_context.shown import show_masks
from lvm_jax.evaluation.in_context.while_training import episodes_of
from lvm_jax.inference.in_context_pictures import MaskAnswerer
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.weights.model_folder import parameter_count


def compare(
    answerers: Mapping[str, MaskAnswerer],
    vqgan: VQGAN,
    asked: PoolQuestions,
    folder: epath.PathLike | None = None,
) -> dict[str, Result]:
    """The scores of each model's masks on one list of episodes, and its number of parameters.

    Args:
      answerers: name -> model.
      vqgan: the tokenizer of the pools.
      asked: the episodes; of its questions only segmentation is asked.
      folder: gets FOLDER/NAME/masks-*.png, a good, a middling and a bad answer of each model; None: none are drawn.

    Raises:
      UserError: no model, pools of another tokenizer, or no such episodes.
    """
    if not answerers:
        raise UserError("0 models to compare: name at least one")
    form = SequenceFormat.of_masks(vqgan.codebook_size, vqgan.tokens_per_image)
    episodes = episodes_of(asked.loader(Question.SEGMENTATION, form, vqgan.fingerprint()))
    evaluator = MaskEvaluator(episodes, batch_size=asked.batch_size)
    results: dict[str, Result] = {}
    for name, answerer in answerers.items():
        drawn = evaluator.answer(answerer)
        shown: Result = {}
        if folder is not None:
            (target := epath.Path(folder) / name).mkdir(parents=True, exist_ok=True)
            shown = show_masks(episodes, drawn, vqgan, target)
        size = {"parameters": parameter_count(answerer.model)}
        results[name] = size | evaluator.score(drawn) | shown
    return results


def parse_models(entries: Sequence[str]) -> dict[str, str]:
    """Name -> folder, from "NAME=FOLDER" entries.

    Raises:
      UserError: an entry without a name or a folder, or a name twice.
    """
    found: dict[str, str] = {}
    for entry in entries:
        name, _, folder = entry.partition("=")
        if not name or not folder or name in found:
            raise UserError(
                f"--models has the entry {entry!r}: write NAME=FOLDER, each name once, separated by commas"
            )
        found[name] = folder
    return found
