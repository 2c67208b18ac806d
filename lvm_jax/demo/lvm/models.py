"""Finds the tokenizer and the decoder that the tab uses, and describes them."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from lvm_jax.data.records.manifest import Manifest, check_compatible
from lvm_jax.data.sentences.held_out import read_sentences
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.visual_sentence import period_of
from lvm_jax.demo.words import millions, origins_in_words
from lvm_jax.inference.cases import Case, held_out_cases
from lvm_jax.inference.defaults import Defaults, read_defaults
from lvm_jax.inference.prompt_files import read_prompts
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.release import folder as release_folder

N_EXAMPLES = 12
_MADE = ("tokenizer/model", "lvm/model")  # by a run
DRAWING = Defaults(temperature=0.8, top_p=0.95, candidates=4)  # of a model without generation.json


@dataclasses.dataclass(frozen=True)
class Found:
    """A tokenizer and a decoder, example prompts, and the text of the page's label.

    Attributes:
      vqgan, model: the two.
      cases: prompts to start from.
      others: for each of them, another prompt of its task, whose query can take the place of its own; None if there is
        none, or if it is no prompt of pairs.
      drawing: how answers are drawn at first.
      model_words, data_words: the text.
    """

    vqgan: VQGAN
    model: Decoder
    cases: Sequence[Case]
    others: Sequence[Case | None]
    drawing: Defaults
    model_words: str
    data_words: str


def find_models(release: epath.PathLike, workdirs: Sequence[epath.PathLike]) -> Found | None:
    """Loads the released models if there are any, else those of the first finished run; None if there is neither.

    Args:
      release: folder of the releases of all systems.
      workdirs: of runs.

    Raises:
      UserError: the release is damaged, or a run's shards are of another tokenizer.
    """
    if released := release_folder.find(release, release_folder.LVM):
        return _released(epath.Path(released))
    runs = map(epath.Path, workdirs)
    run = next(
        (run for run in runs if all((run / f / "config.json").exists() for f in _MADE)), None
    )
    return None if run is None else _of_run(run)


def _released(folder: epath.Path) -> Found:
    vqgan, model = _load(folder / "tokenizer", folder / "decoder")
    cases = [prompt.ask().case() for prompt in read_prompts(folder / "prompts", vqgan)]
    return Found(
        vqgan,
        model,
        cases,
        others_of(cases),
        read_defaults(folder / "decoder") or DRAWING,
        described(folder, vqgan, model),
        origins_in_words(Manifest.load(folder)),
    )


def _of_run(run: epath.Path) -> Found:
    folders = [run / made for made in _MADE]
    vqgan, model = _load(*folders)
    store = SentenceStore(run / "shards", "validation")
    check_compatible(store.manifest, tokenizer_fingerprint=vqgan.fingerprint())
    # 20 times as many sentences as examples: enough for every source and kind to be among them.
    cases = held_out_cases(
        read_sentences(store, 20 * N_EXAMPLES),
        n_images=1,
        limit=2 * N_EXAMPLES,  # the second half only lends its queries
        context_images=model.config.max_position_embeddings // vqgan.tokens_per_image,
    )
    return Found(
        vqgan,
        model,
        cases[:N_EXAMPLES],
        others_of(cases)[:N_EXAMPLES],
        read_defaults(folders[1]) or DRAWING,
        described(run, vqgan, model),
        origins_in_words(store.manifest),
    )


def others_of(cases: Sequence[Case]) -> list[Case | None]:
    """For each prompt of pairs the next one of its task with another query, in a circle; None where there is none."""
    return [
        next((c for c in (*cases[i:], *cases[:i]) if _swaps(case, c)), None)
        for i, case in enumerate(cases)
    ]


def _swaps(case: Case, other: Case) -> bool:
    """Whether the query of `other` can take the place of that of `case`, a prompt of pairs."""
    if case.kind != "analogy" or period_of(case.roles) != 2 or not len(other.truth_IN):
        return False
    # Prompts from files are all of one source; their names begin with a number and go on with the task.
    same = case.roles[-2:] == other.roles[-2:] and _task(case) == _task(other)
    return same and not np.array_equal(case.prompt_PN[-1], other.prompt_PN[-1])


def _task(case: Case) -> str:
    return f"{case.source} {case.name.lstrip('0123456789-')}"


def _load(tokenizer: epath.Path, decoder: epath.Path) -> tuple[VQGAN, Decoder]:
    return VQGAN.from_pretrained(tokenizer), Decoder.from_pretrained(decoder)


def described(folder: epath.Path, vqgan: VQGAN, model: Decoder) -> str:
    """Describes both models in one line."""
    side, n = vqgan.config.resolution, vqgan.tokens_per_image
    images = model.config.max_position_embeddings // n
    return (
        f"{folder}, a decoder of {millions(model)} parameters that reads {images} images at once; an image of "
        f"{side} x {side} pixels is {n} codes of {vqgan.codebook_size:,}"
    )
