"""Finds a model that reads pages, and held-out pages to begin with."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from lvm_jax.data.image_text.store import ImageTextStore
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.demo.words import millions, origins_in_words
from lvm_jax.errors import UserError
from lvm_jax.evaluation.documents.page_evaluator import others
from lvm_jax.evaluation.documents.page_questions import PageQuestion, PageSet
from lvm_jax.evaluation.documents.readers import read_shards
from lvm_jax.models.vision_language.model import VisionLanguage
from lvm_jax.release import folder as release_folder
from lvm_jax.release.pages import read_page_sets

EXAMPLES_OF_SOURCE = 3
# Where runs leave a model: the second stage of the quickstart, its first, a run by hand, and that run's own workdir.
_MADE = ("two/model", "tiny/model", "vary/model", "model")
_SPLIT = "validation"


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A held-out question.

    Attributes:
      source: of its data.
      asked: the question.
      other: one about another page with another answer, if there is one.
    """

    source: str
    asked: PageQuestion
    other: PageQuestion | None


@dataclasses.dataclass(frozen=True)
class Found:
    """A model, questions to begin with, and the text of the tab's label.

    Attributes:
      model, tokenizer: the two.
      held_out: the questions, of all sources in turn; none without shards or a release.
      model_words, data_words: the text; "" if nothing is known about the data.
    """

    model: VisionLanguage
    tokenizer: TextTokenizer
    held_out: Sequence[HeldOut]
    model_words: str
    data_words: str


def find_model(release: epath.PathLike, workdirs: Sequence[epath.PathLike]) -> Found | None:
    """Loads the released model if there is one, else that of the first workdir that has one; None if none has.

    Args:
      release: folder of the releases of all systems.
      workdirs: of runs.

    Raises:
      UserError: the release is damaged, or a run's folder or shards are.
    """
    if released := release_folder.find(release, release_folder.VARY):
        folder = epath.Path(released)
        held_out = _in_turns(read_page_sets(folder / "pages"))
        return _load(folder / "model", held_out, origins_in_words(Manifest.load(folder)))
    folders = [epath.Path(run) / made for run in workdirs for made in _MADE]
    folder = next(filter(_reads_pages, folders), None)
    if folder is None:
        return None
    run = next(run for run in map(epath.Path, workdirs) if run in folder.parents)
    return _load(folder, *_held_out(run / "shards"))


def _load(folder: epath.Path, held_out: Sequence[HeldOut], data_words: str) -> Found:
    model, tokenizer = VisionLanguage.from_pretrained(folder), TextTokenizer(folder)
    towers = " and ".join(
        "{} x {}".format(*branch.tower.image_size) for branch in model.config.branches.values()
    )
    words = (
        f"{folder}, {millions(model)} parameters; its {'towers see' if ' and ' in towers else 'tower sees'} {towers} "
        f"pixels (height x width), and it reads and writes {model.decoder.config.max_position_embeddings:,} tokens"
    )
    return Found(model, tokenizer, held_out, words, data_words)


def _reads_pages(folder: epath.Path) -> bool:
    return (folder / "config.json").exists() and VisionLanguage.reads(folder)


def _held_out(shards: epath.Path) -> tuple[list[HeldOut], str]:
    """The first questions of each source in turn, and where the data come from."""
    if not shards.exists():
        return [], ""
    sets = read_shards(shards, _SPLIT, most=EXAMPLES_OF_SOURCE)
    return _in_turns(sets), origins_in_words(ImageTextStore(shards, _SPLIT).manifest)


def _in_turns(sets: Sequence[PageSet]) -> list[HeldOut]:
    """The first questions of each set in turn."""
    sets = [_once(pages) for pages in sets]
    asked = [_with_others(pages, sets) for pages in sets]
    return [each[i] for i in range(EXAMPLES_OF_SOURCE) for each in asked if i < len(each)]


def _once(pages: PageSet) -> PageSet:
    """Without pictures that came before: data of several epochs have them again."""
    by_picture = {question.picture().tobytes(): question for question in reversed(pages.questions)}
    return dataclasses.replace(pages, questions=(*reversed(by_picture.values()),))


def _with_others(pages: PageSet, sets: Sequence[PageSet]) -> list[HeldOut]:
    elsewhere = [q for other in sets if other is not pages for q in other.questions]
    instead: Sequence[PageQuestion | None]
    try:
        instead = others(pages.questions, elsewhere)
    except UserError:  # one page, or one answer to all of them: there is nothing to swap it for
        instead = [None] * len(pages.questions)
    return [
        HeldOut(pages.name, question, other)
        for question, other in zip(pages.questions, instead, strict=True)
    ]
