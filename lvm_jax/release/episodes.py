"""Held-out episodes of a release as pictures and words.

FOLDER/NAME/examples/0.png  with 0.mask.png or 0.txt   pairs; `generate.py --prompt=FOLDER/NAME` reads them
FOLDER/NAME/queries/query.png                          the picture whose answer is wanted
FOLDER/NAME/truth/query.txt                            the true words; of a mask only what it is of
FOLDER/NAME/truth/query.mask.png                       the true mask
FOLDER/NAME/rival/                                     the same about another thing in the query's picture, if known
"""

import re
from collections.abc import Sequence

import numpy as np
from etils import epath
from jaxtyping import UInt8

from lvm_jax import files
from lvm_jax.data.in_context.pool_record import PoolRecord
from lvm_jax.data.in_context.sequences import Pair, Question
from lvm_jax.data.in_context.words import Words
from lvm_jax.evaluation.in_context.held_out import HeldOutEpisode, TrainedRows
from lvm_jax.inference.codec import decode_codes
from lvm_jax.inference.in_context_folder import MASK, read_folder, read_words, written
from lvm_jax.inference.in_context_pictures import Example, InContextGenerator
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.annotation_maps import mask_to_rgb, rgb_to_mask
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.reporting.figures import save_png

_QUERY = "query"
_RIVAL = "rival"


def write_episodes(
    episodes: Sequence[HeldOutEpisode], vqgan: VQGAN, rows: TrainedRows, folder: epath.PathLike
) -> None:
    """Writes episodes as the tokenizer shows them, with the words that the rows of training have."""
    for number, episode in enumerate(episodes):
        about = re.sub(r"[^a-z0-9]+", "-", episode.query.class_name.lower()).strip("-")
        name = f"{number:03d}-{episode.question.name.lower()}-{about}"
        _write(episode, vqgan, rows, epath.Path(folder) / name)


def read_episodes(folder: epath.PathLike, generator: InContextGenerator) -> list[HeldOutEpisode]:
    """All episodes of a folder, by name, encoded again.

    Raises:
      UserError: a file is missing or damaged.
    """
    return [_read(path, generator) for path in files.named(folder, "*") if path.is_dir()]


def _write(episode: HeldOutEpisode, vqgan: VQGAN, rows: TrainedRows, root: epath.Path) -> None:
    query = episode.query
    stems = [root / "examples" / str(number) for number in range(len(episode.examples))]
    answers = [*zip(episode.examples, stems), (query, root / "truth" / _QUERY)]
    for record, stem in answers:
        stem.parent.mkdir(parents=True, exist_ok=True)
        if episode.question is Question.CAPTIONING:
            said = rows.words(record.caption, record.class_name, record.boxes)
            files.write(_beside(stem, ".txt"), written(said))
        else:
            assert record.mask is not None  # or it would not be in the pool
            mask = mask_to_rgb(rgb_to_mask(_decoded(vqgan, record.mask)))
            save_png(_beside(stem, f"{MASK}.png"), mask)
    if episode.question is Question.SEGMENTATION:
        files.write(root / "truth" / f"{_QUERY}.txt", written(Words("", query.class_name)))
    for record, stem in [*zip(episode.examples, stems), (query, root / "queries" / _QUERY)]:
        save_png(_beside(stem, ".png"), _decoded(vqgan, record.picture))
    if episode.rival is not None:
        _write(episode.rival, vqgan, rows, root / _RIVAL)


def _beside(stem: epath.Path, suffix: str) -> epath.Path:
    return stem.with_name(f"{stem.name}{suffix}")


def _decoded(vqgan: VQGAN, codes_N: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    return to_uint8(decode_codes(vqgan, codes_N[None]))[0]


def _read(root: epath.Path, generator: InContextGenerator) -> HeldOutEpisode:
    asked, truth = read_folder(root), root / "truth"
    about = read_words(truth / f"{_QUERY}.txt")
    masks = asked.question is Question.SEGMENTATION
    answer = truth / f"{_QUERY}{MASK}.png" if masks else about
    # Encoded together; the query's own pair is never part of a prompt.
    whole = [*asked.examples, Example(asked.queries[0], answer)]
    (prompt,) = generator.prompts(whole, asked.queries, asked.question)
    *examples, query = (_record(pair, about.category, root.name) for pair in prompt.examples)
    rival = _read(root / _RIVAL, generator) if (root / _RIVAL).is_dir() else None
    return HeldOutEpisode(asked.question, tuple(examples), query, rival)


def _record(pair: Pair, class_name: str, name: str) -> PoolRecord:
    said = pair.answer if isinstance(pair.answer, Words) else Words("")
    return PoolRecord(
        picture=pair.picture,
        class_name=class_name,
        shows=name,
        source=name,
        key=name,
        licence="",
        mask=None if isinstance(pair.answer, Words) else pair.answer,
        caption=said.caption,
        boxes=said.boxes,
    )
