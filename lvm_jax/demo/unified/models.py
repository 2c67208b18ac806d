"""Finds a decoder that answers from examples, and held-out episodes to begin with."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from lvm_jax.data.in_context.format_folder import has_format
from lvm_jax.data.in_context.pool import PoolStore
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.demo.words import millions, origins_in_words
from lvm_jax.evaluation.in_context.held_out import HeldOutEpisode, TrainedRows, held_out_episodes
from lvm_jax.inference.in_context_pictures import InContextGenerator
from lvm_jax.release import folder as release_folder
from lvm_jax.release.episodes import read_episodes
from lvm_jax.release.unified import ROWS

MAX_EXAMPLES = 3
_MADE = ("tokenizer/model", "unified/model")  # by a run
_SPLIT = "validation"


@dataclasses.dataclass(frozen=True)
class Found:
    """A decoder with its tokenizers, episodes to begin with, and the text of the tab's label.

    Attributes:
      generator: answers.
      rows: what words say.
      episodes: of both questions in turn; none without pools or a release.
      model_words, data_words: the text; "" if nothing is known about the data.
    """

    generator: InContextGenerator
    rows: TrainedRows
    episodes: Sequence[HeldOutEpisode]
    model_words: str
    data_words: str


def find_model(release: epath.PathLike, workdirs: Sequence[epath.PathLike]) -> Found | None:
    """Loads the released decoder if there is one, else that of the first workdir that has one; None if none has.

    Args:
      release: folder of the releases of all systems.
      workdirs: of runs.

    Raises:
      UserError: the release is damaged, or a run's folder or pools are.
    """
    if released := release_folder.find(release, release_folder.UNIFIED):
        return _released(epath.Path(released))
    run = next(filter(_is_run, map(epath.Path, workdirs)), None)
    return None if run is None else _of_run(run)


def _released(folder: epath.Path) -> Found:
    model = folder / "decoder"
    generator = InContextGenerator.from_pretrained(model, folder / "tokenizer")
    rows = TrainedRows.read(folder / ROWS, generator.engine.form)
    episodes = read_episodes(folder / "episodes", generator)
    data_words = origins_in_words(Manifest.load(folder))
    return Found(generator, rows, episodes, _described(model, generator), data_words)


def _of_run(run: epath.Path) -> Found:
    tokenizer, model = (run / made for made in _MADE)
    generator = InContextGenerator.from_pretrained(model, tokenizer)
    rows = TrainedRows.read(run / "unified/config.json", generator.engine.form)
    pools = run / "pools"
    episodes, data_words = [], ""
    if pools.exists() and generator.engine.most_examples > 0:
        episodes = held_out_episodes(pools, generator, rows)
        data_words = origins_in_words(PoolStore(pools, _SPLIT).manifest)
    return Found(generator, rows, episodes, _described(model, generator), data_words)


def _described(model: epath.Path, generator: InContextGenerator) -> str:
    side, codes = generator.vqgan.config.resolution, generator.vqgan.tokens_per_image
    return (
        f"{model}, a decoder of {millions(generator.model)} parameters that reads {generator.engine.most_examples} "
        f"examples and a query; a picture of {side} x {side} pixels is {codes} codes"
    )


def _is_run(run: epath.Path) -> bool:
    tokenizer, model = (run / made for made in _MADE)
    return has_format(model) and (tokenizer / "config.json").exists()
