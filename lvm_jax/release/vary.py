"""A run of Vary as a release: the model of its second stage with its text tokenizer, and held-out pages."""

from collections.abc import Sequence
from pathlib import Path

from lvm_jax.data.image_text.store import ImageTextStore
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.documents.page_evaluator import PageEvaluator
from lvm_jax.evaluation.documents.readers import read_shards
from lvm_jax.inference.text_generator import Asked, TextGenerator
from lvm_jax.models.vision_language.model import VisionLanguage
from lvm_jax.release import folder as release_folder
from lvm_jax.release.card import CardParts
from lvm_jax.release.cost import Change
from lvm_jax.release.pages import write_pages
from lvm_jax.release.vary_card import card_parts
from lvm_jax.reporting.trainings import told
from lvm_jax.reporting.vary_inputs import TWO, VaryFiles
from lvm_jax.reporting.vary_words import SCORES, score_of

PAGES_OF_SET = 6
_SPLIT = "validation"
_AT_ONCE = 32


class VaryRun:
    """See `lvm_jax.release.pack.Run`.

    Args:
      workdir: W of the quickstart, or of its commands run by hand.
      dtype: of the stored weights.
      questions: of each set to measure the cost of this type on; 0 takes all.

    Raises:
      UserError: the run is not finished.
    """

    system = release_folder.VARY

    def __init__(self, workdir: str | Path, dtype: str, questions: int = 64) -> None:
        self._run = run = Path(workdir)
        self._files = VaryFiles.load(run)
        self.trainings = {"model": told(run / TWO)}
        self._dtype, self._questions = dtype, questions
        self._folder = run / TWO / "model"
        self._exact = VisionLanguage.from_pretrained(self._folder)
        self._tokenizer = TextTokenizer(self._folder)
        self._shards = run / "shards"
        self.manifest = ImageTextStore(self._shards, _SPLIT).manifest
        self.licences = [run / "LICENSES.md"]

    def save(self, folder: Path) -> None:
        """The model, its text tokenizer, and pages of each set."""
        self._exact.save_pretrained(folder / "model", dtype=self._dtype)
        self._tokenizer.save_pretrained(folder / "model")
        write_pages(read_shards(self._shards, _SPLIT, most=PAGES_OF_SET), folder / "pages")

    def cost(self, folder: Path) -> list[Change]:
        """The score that counts in each set, of both models; answers are greedy."""
        sets = read_shards(self._shards, _SPLIT, most=self._questions)
        evaluators = [PageEvaluator(s, batch_size=_AT_ONCE, controls=False) for s in sets]
        before, after = (
            self._scores(model, evaluators)
            for model in (self._exact, VisionLanguage.from_pretrained(folder / "model"))
        )
        changes = []
        for pages, exact, stored in zip(sets, before, after, strict=True):
            name = score_of(exact)
            what = f"{pages.name}, {SCORES[name]}, {len(pages.questions)} questions"
            changes.append(
                Change(what, float(exact[f"model/{name}"]), float(stored[f"model/{name}"]))
            )
        return changes

    def card(self) -> CardParts:
        """See `lvm_jax.release.vary_card`."""
        return card_parts(self._files, self._exact, self._dtype, self.trainings)

    def _scores(self, model: VisionLanguage, evaluators: Sequence[PageEvaluator]) -> list[Result]:
        generator = TextGenerator(model, self._tokenizer)

        def read(asked: Sequence[Asked]) -> list[str]:
            return [written.text for written in generator(asked)]

        return [evaluator.run(read) for evaluator in evaluators]
