r"""Scores a tokenizer and a decoder on what they have not been trained on.

  python experiments/evaluate.py --tokenizer=DIR --model=DIR --shards=DIR --images=DIR --output=OUT

  python experiments/evaluate.py --tokenizer=DIR --images=DIR --output=OUT      # a tokenizer alone

OUT/results.json has, by name: "reconstruction" (PSNR, SSIM, LPIPS and a Frechet distance where their weights are
installed, codebook use), "next_token" (loss and perplexity beside baselines without a network), "in_context"
(perplexity against the number of images before) and "annotations" (perplexity of each annotation type after --shots
pairs). Tasks on public data sets are in experiments/evaluate_benchmarks.py. OUT/results.md is the same as tables,
OUT/reconstructions.png shows images above their reconstructions.
"""

import json
import platform
from typing import Any

import flax
import jax
from absl import flags
from etils import epath
from tqdm import tqdm

from lvm_jax import cli, files
from lvm_jax.data.images.held_out_images import held_out_images, load_images
from lvm_jax.data.images.sources import Subset
from lvm_jax.data.records.manifest import check_compatible
from lvm_jax.data.sentences.held_out import read_sentences
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.splits import spread
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.in_context import AnnotationPerplexityEvaluator, InContextEvaluator
from lvm_jax.evaluation.lvm.perplexity import NextTokenEvaluator
from lvm_jax.evaluation.lvm.scoring import Scorer
from lvm_jax.evaluation.tokenizer.reconstruction import (
    ReconstructionEvaluator,
    installed_lpips,
    reconstruct,
)
from lvm_jax.inference.image_generator import check_pair
from lvm_jax.models.decoder.llama import Llama
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.parallel import runtime
from lvm_jax.reporting.figures import contact_sheet, save_png
from lvm_jax.reporting.markdown import as_markdown

_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "folder of the VQGAN (config.json, model.safetensors)", required=True
)
_MODEL = flags.DEFINE_string(
    "model", None, "folder of the decoder; without one the tokenizer is scored alone"
)
_SHARDS = flags.DEFINE_string(
    "shards", None, "folder of token shards, written with this tokenizer; goes with --model"
)
_SPLIT = flags.DEFINE_string("split", "validation", "split of the shards to judge the decoder on")
_IMAGES = flags.DEFINE_string("images", None, "folder of images to reconstruct", required=True)
_HELD_OUT = flags.DEFINE_string(
    "held_out",
    None,
    "list of the images that training held out; default: as the tokenizer's training says",
)
_HELD_OUT_FRACTION = flags.DEFINE_float(
    "held_out_fraction",
    None,
    "fraction that training held out by hash; 1 takes all, for images it never saw",
)
_OUTPUT = flags.DEFINE_string("output", None, "where the results go", required=True)
_MAX_IMAGES = flags.DEFINE_integer(
    "max_images", 256, "images to reconstruct, evenly spread; 0 takes all"
)
_MAX_SENTENCES = flags.DEFINE_integer(
    "max_sentences", 512, "sentences to score, evenly spread; 0 takes all"
)
_TRAIN_SENTENCES = flags.DEFINE_integer(
    "train_sentences",
    2048,
    "sentences of the training split to fit the baselines on; -1 fits them on the held-out ones",
)
_CONTEXT_SENTENCES = flags.DEFINE_integer(
    "context_sentences", 48, "sentences a context curve; 0 takes all"
)
_SHOTS = flags.DEFINE_integer(
    "shots", 5, "pairs before an annotation whose perplexity is measured", lower_bound=0
)
_BATCH = flags.DEFINE_integer("batch_size", 4, "sentences of full length at once")


def main() -> None:
    """Evaluates, and writes all results at the end."""
    if bool(_MODEL.value) != bool(_SHARDS.value):
        raise UserError("--model and --shards go together: give both, or neither for a tokenizer")
    runtime.initialize()
    vqgan = VQGAN.from_pretrained(_TOKENIZER.value)
    held_out = held_out_images(
        _IMAGES.value, _TOKENIZER.value, _HELD_OUT.value, _HELD_OUT_FRACTION.value
    )
    chosen = Subset(held_out, spread(len(held_out.names), _MAX_IMAGES.value))
    images = load_images(chosen, vqgan.config.resolution)
    reconstruction = ReconstructionEvaluator(
        images, lpips_weights=installed_lpips(), vgg_weights=installed_lpips("vgg")
    )
    evaluations: list[tuple[Any, Any]] = [(reconstruction, vqgan)]
    if _MODEL.value and _SHARDS.value:
        evaluations += _of_the_decoder(_MODEL.value, _SHARDS.value, vqgan)
    results: dict[str, Any] = {"environment": _environment(), "tokenizer": _described(vqgan)}
    if _MODEL.value:
        results["split"] = _SPLIT.value
    for evaluator, subject in tqdm(evaluations, desc="evaluation", unit="part"):
        results[evaluator.name] = evaluator.run(subject)
    output = epath.Path(_OUTPUT.value)
    shown = images[spread(len(images), 16)]
    rows = [
        ("images, and below them what the codes keep", list(shown)),
        ("", list(reconstruct(vqgan, shown))),
    ]
    save_png(output / "reconstructions.png", contact_sheet(rows))
    (output / "results.md").write_text(as_markdown(results))
    files.write(output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    print(f"the results are in {output / 'results.md'}")


def _of_the_decoder(folder: str, shards: str, vqgan: VQGAN) -> list[tuple[Any, Any]]:
    """The evaluators of the decoder, each with what it judges."""
    model = Llama.from_pretrained(folder)
    check_pair(model, vqgan)
    store = SentenceStore(shards, _SPLIT.value)
    check_compatible(store.manifest, tokenizer_fingerprint=vqgan.fingerprint())
    sentences, train = read_sentences(store, _MAX_SENTENCES.value), []
    if _TRAIN_SENTENCES.value >= 0:
        train = read_sentences(SentenceStore(shards, "train"), _TRAIN_SENTENCES.value)
    scorer = Scorer(model, vqgan.codebook_size, batch_size=_BATCH.value)
    return [
        (NextTokenEvaluator(sentences, vqgan.codebook_size, train), scorer),
        (InContextEvaluator(sentences, max_sentences=_CONTEXT_SENTENCES.value), scorer),
        (
            AnnotationPerplexityEvaluator(
                sentences, shots=_SHOTS.value, max_sentences=_CONTEXT_SENTENCES.value
            ),
            scorer,
        ),
    ]


def _described(vqgan: VQGAN) -> dict[str, str | int]:
    return {
        "fingerprint": vqgan.fingerprint(),
        "image_size": vqgan.config.resolution,
        "tokens_per_image": vqgan.tokens_per_image,
        "codebook_size": vqgan.codebook_size,
    }


def _environment() -> dict[str, str | int]:
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "system": f"{platform.system()} {platform.machine()}",
    }


if __name__ == "__main__":
    cli.run(main)
