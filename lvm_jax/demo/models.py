"""Finds the model that the page uses, and describes it."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from lvm_jax.data.records.manifest import Manifest, check_compatible
from lvm_jax.data.sentences.held_out import read_sentences
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.errors import UserError
from lvm_jax.inference.cases import Case, held_out_cases
from lvm_jax.inference.prompt_files import read_prompts
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.release.folder import exists, verify
from lvm_jax.weights.model_folder import named_parameters

N_EXAMPLES = 12


@dataclasses.dataclass(frozen=True)
class Found:
    """A tokenizer and a decoder, example prompts, and the text of the page's label."""

    vqgan: VQGAN
    model: Decoder
    cases: Sequence[Case]
    model_words: str
    data_words: str


def find_models(release: epath.PathLike, workdir: epath.PathLike) -> Found:
    """Loads the released models if there are any, else those of a finished run.

    Raises:
      UserError: neither exists, or the release is damaged.
    """
    packed, run = epath.Path(release), epath.Path(workdir)
    if exists(release):
        verify(release)
        vqgan, model = _load(packed / "tokenizer", packed / "decoder")
        cases = [prompt.ask().case() for prompt in read_prompts(packed / "prompts", vqgan)]
        manifest = Manifest.load(packed)
        return Found(vqgan, model, cases, described(packed, vqgan, model), data_words(manifest))
    folders = run / "tokenizer/model", run / "lvm/model"
    if not all((folder / "config.json").exists() for folder in folders):
        raise UserError(
            f"no trained model in {run}: run `make quickstart` first, or name another --workdir"
        )
    vqgan, model = _load(*folders)
    store = SentenceStore(run / "shards", "validation")
    check_compatible(store.manifest, tokenizer_fingerprint=vqgan.fingerprint())
    # 20 times as many sentences as examples: enough for every source and kind to be among them.
    cases = held_out_cases(
        read_sentences(store, 20 * N_EXAMPLES),
        n_images=1,
        limit=N_EXAMPLES,
        context_images=model.config.max_position_embeddings // vqgan.tokens_per_image,
    )
    return Found(vqgan, model, cases, described(run, vqgan, model), data_words(store.manifest))


def _load(tokenizer: epath.Path, decoder: epath.Path) -> tuple[VQGAN, Decoder]:
    return VQGAN.from_pretrained(tokenizer), Decoder.from_pretrained(decoder)


def described(folder: epath.Path, vqgan: VQGAN, model: Decoder) -> str:
    """Describes both models in one line."""
    side, n = vqgan.config.resolution, vqgan.tokens_per_image
    images = model.config.max_position_embeddings // n
    parameters = sum(v.size for v in named_parameters(model).values()) / 1e6
    return (
        f"{folder}, a decoder of {parameters:,.1f} million parameters that reads {images} images at once; an image of "
        f"{side} x {side} pixels is {n} codes of {vqgan.codebook_size:,}"
    )


def data_words(manifest: Manifest) -> str:
    """The origins of the data with their licences, without repeats."""
    terms = dict.fromkeys(f"{s['origin']} ({s['licence']})" for s in manifest.sources.values())
    return "; ".join(terms)
