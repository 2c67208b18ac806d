"""Packs the models of a finished run: rounds the weights, measures what rounding costs, and writes the folder.

M: images, N: tokens per image, H, W: pixels, C: the channels R, G, B.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from lvm_jax.data.sentences.held_out import read_sentences
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.visual_sentence import period_of
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.perplexity import NextTokenEvaluator
from lvm_jax.evaluation.lvm.scoring import Scorer
from lvm_jax.evaluation.tokenizer.images import held_out_squares
from lvm_jax.evaluation.tokenizer.reconstruction import ReconstructionEvaluator
from lvm_jax.inference.defaults import read_defaults
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.release import folder as release_folder
from lvm_jax.release.card import model_card
from lvm_jax.reporting.inputs import RunFiles

# A prompt keeps only its last images, so that a decoder with a context of 8 images can answer it too.
MAX_PROMPT = 7


@dataclasses.dataclass(frozen=True)
class Cost:
    """What rounding the weights costs: pairs of (before, after) on the same held-out data.

    Attributes:
      sentences, images: how many were measured.
      code_loss: of the decoder, in nats a code.
      psnr: of the tokenizer, in dB.
      codes_equal: fraction of codes that the rounded tokenizer shares with the exact one.
    """

    sentences: int
    images: int
    code_loss: tuple[float, float]
    psnr: tuple[float, float]
    codes_equal: float


def pack(
    workdir: str | Path,
    output: str | Path,
    *,
    name: str,
    tokenizer_dtype: str,
    decoder_dtype: str,
    sentences: int = 512,
    images: int = 256,
) -> Cost:
    """Writes a release of the models in a workdir whose commands have all run.

    Args:
      workdir: W of the quickstart, or of its commands run by hand.
      output: a folder that does not exist yet.
      name: of the release, for its card.
      tokenizer_dtype, decoder_dtype: "float32", "bfloat16" or "float16".
      sentences, images: how many held-out ones to measure on, evenly spread; 0 takes all.

    Raises:
      UserError: the run is not finished, the output exists, the type cannot hold the weights, or the release is larger
        than 60 MB.
    """
    run, target = Path(workdir), Path(output)
    if target.exists():
        raise UserError(f"{target} exists: remove it, or name another --output")
    files = RunFiles.load(run)
    exact = _load(run / "tokenizer/model", run / "lvm/model")
    store = SentenceStore(run / "shards", "validation")
    # Written beside the target and renamed at the end, so that an interrupted run leaves no half release.
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    exact[0].save_pretrained(partial / "tokenizer", dtype=tokenizer_dtype)
    # The rounded tokenizer has a fingerprint of its own, which the decoder must name to be accepted beside it.
    exact[1].tokenizer_fingerprint = VQGAN.from_pretrained(partial / "tokenizer").fingerprint()
    exact[1].save_pretrained(partial / "decoder", dtype=decoder_dtype)
    if drawing := read_defaults(run / "lvm/model"):
        drawing.save(partial / "decoder")
    rounded = _load(partial / "tokenizer", partial / "decoder")
    cost = _measure(run, store, exact, rounded, sentences, images)
    store.manifest.save(partial)
    for record in files.prompts["prompts"]:
        _write_prompt(run / "prompts", record, partial / "prompts")
    licences = run / "corpus/LICENSES.md"
    if licences.exists():
        shutil.copyfile(licences, partial / licences.name)
    stored = {"tokenizer": tokenizer_dtype, "decoder": decoder_dtype}
    card = model_card(name, files, exact, stored, dataclasses.asdict(cost))
    (partial / "MODEL_CARD.md").write_text(card)
    release_folder.write_checksums(partial)
    partial.rename(target)
    return cost


def _load(tokenizer: Path, decoder: Path) -> tuple[VQGAN, Decoder]:
    return VQGAN.from_pretrained(tokenizer), Decoder.from_pretrained(decoder)


def _measure(
    run: Path,
    store: SentenceStore,
    exact: tuple[VQGAN, Decoder],
    rounded: tuple[VQGAN, Decoder],
    n_sentences: int,
    n_images: int,
) -> Cost:
    """Scores both decoders on the codes of the shards, and both tokenizers on pictures."""
    sentences = read_sentences(store, n_sentences)
    next_token = NextTokenEvaluator(sentences, exact[0].codebook_size)
    losses = [
        next_token.run(Scorer(model, vqgan.codebook_size, batch_size=4))["code_loss"]
        for vqgan, model in (exact, rounded)
    ]
    listed = run / "corpus/validation.txt"
    images_MHWC = held_out_squares(
        run / "corpus",
        run / "tokenizer/model",
        exact[0].config.resolution,
        n_images,
        held_out=str(listed) if listed.exists() else None,
    )
    reconstruction = ReconstructionEvaluator(images_MHWC)
    made = [reconstruction.reconstruct(vqgan) for vqgan, _ in (exact, rounded)]
    psnr = [reconstruction.score(one)["psnr"] for one in made]
    return Cost(
        sentences=len(sentences),
        images=len(images_MHWC),
        code_loss=(float(losses[0]), float(losses[1])),
        psnr=(float(psnr[0]), float(psnr[1])),
        codes_equal=float(np.mean(made[0].codes_MN == made[1].codes_MN)),
    )


def _write_prompt(source: Path, record: dict[str, Any], target: Path) -> None:
    """Copies one of the run's held-out prompts, in the format of `generate.py --prompt`."""
    shown, truth = record["prompt"], record["truth"]
    asked = record["kind"] == "analogy" and len(shown) % 2 == 1 and period_of(record["roles"]) == 2
    shown = shown[-MAX_PROMPT:]
    folder = target / record["name"]
    (folder / "target").mkdir(parents=True)
    for i, file in enumerate(shown):
        last = asked and i == len(shown) - 1
        shutil.copyfile(source / file, folder / ("query.png" if last else f"{i:03d}.png"))
    for i, file in enumerate(truth):
        shutil.copyfile(source / file, folder / "target" / f"{i:03d}.png")
