"""A run of LVM as a release: tokenizer and decoder, and held-out prompts as pictures.

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
from lvm_jax.evaluation.lvm.perplexity import NextTokenEvaluator
from lvm_jax.evaluation.lvm.scoring import Scorer
from lvm_jax.evaluation.tokenizer.images import held_out_squares
from lvm_jax.evaluation.tokenizer.reconstruction import ReconstructionEvaluator
from lvm_jax.inference.defaults import read_defaults
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.release import folder as release_folder
from lvm_jax.release.card import CardParts
from lvm_jax.release.cost import Change
from lvm_jax.release.lvm_card import card_parts
from lvm_jax.release.stored import StoredTypes
from lvm_jax.reporting.inputs import RunFiles
from lvm_jax.reporting.trainings import told

# A prompt keeps only its last images, so that a decoder with a context of 8 images can answer it too.
MAX_PROMPT = 7


@dataclasses.dataclass(frozen=True)
class Measured:
    """How many held-out sentences and images to measure on, evenly spread; 0 takes all."""

    sentences: int = 512
    images: int = 256


class LvmRun:
    """See `lvm_jax.release.pack.Run`.

    Args:
      workdir: W of the quickstart, or of its commands run by hand.
      types: of the stored weights.
      measured: the cost of these types.

    Raises:
      UserError: the run is not finished.
    """

    system = release_folder.LVM

    def __init__(
        self, workdir: str | Path, types: StoredTypes, measured: Measured = Measured()
    ) -> None:
        self._run = run = Path(workdir)
        self._files = RunFiles.load(run)
        self.trainings = {"tokenizer": told(run / "tokenizer"), "decoder": told(run / "lvm")}
        self._types, self._measured = types, measured
        self._exact = _load(run / "tokenizer/model", run / "lvm/model")
        self._store = SentenceStore(run / "shards", "validation")
        self.manifest = self._store.manifest
        self.licences = [run / "corpus/LICENSES.md", run / "LICENSES.md"]

    def save(self, folder: Path) -> None:
        """The models, and the prompts that the run answered."""
        vqgan, model = self._exact
        self._types.save_pair(folder, vqgan, model)
        if drawing := read_defaults(self._run / "lvm/model"):
            drawing.save(folder / "decoder")
        for record in self._files.prompts["prompts"]:
            _write_prompt(self._run / "prompts", record, folder / "prompts")

    def cost(self, folder: Path) -> list[Change]:
        """Both decoders on the codes of the shards, and both tokenizers on pictures."""
        exact, rounded = self._exact, _load(folder / "tokenizer", folder / "decoder")
        sentences = read_sentences(self._store, self._measured.sentences)
        next_token = NextTokenEvaluator(sentences, exact[0].codebook_size)
        losses = [
            next_token.run(Scorer(model, vqgan.codebook_size, batch_size=4))["code_loss"]
            for vqgan, model in (exact, rounded)
        ]
        listed = self._run / "corpus/validation.txt"
        images_MHWC = held_out_squares(
            self._run / "corpus",
            self._run / "tokenizer/model",
            exact[0].config.resolution,
            self._measured.images,
            held_out=str(listed) if listed.exists() else None,
        )
        reconstruction = ReconstructionEvaluator(images_MHWC)
        made = [reconstruction.reconstruct(vqgan) for vqgan, _ in (exact, rounded)]
        psnr = [reconstruction.score(one)["psnr"] for one in made]
        equal = float(np.mean(made[0].codes_MN == made[1].codes_MN))
        return [
            Change(f"decoder, nats a code, {len(sentences)} sentences", *map(float, losses)),
            Change(f"tokenizer, PSNR in dB, {len(images_MHWC)} images", *map(float, psnr)),
            Change("share of the codes that stay the same", None, equal),
        ]

    def card(self) -> CardParts:
        """See `lvm_jax.release.lvm_card`."""
        return card_parts(self._files, self._exact, self._types, self.trainings)


def _load(tokenizer: Path, decoder: Path) -> tuple[VQGAN, Decoder]:
    return VQGAN.from_pretrained(tokenizer), Decoder.from_pretrained(decoder)


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
