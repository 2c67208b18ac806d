r"""Scores a tokenizer and a decoder on held-out data.

  python experiments/evaluate.py --tokenizer=DIR --model=DIR --shards=DIR --images=DIR --output=OUT

  python experiments/evaluate.py --tokenizer=DIR --images=DIR --output=OUT      # a tokenizer alone

  python experiments/evaluate.py --tokenizer=DIR --model=DIR --shards=POOLS --output=OUT     # answers from examples

OUT/results.json has, by name, of the tokenizer: "reconstruction" (PSNR, SSIM, codebook use, and LPIPS and a Frechet
distance if their weights are installed), "codes" (how local and how canonical they are, entropy beside their
neighbours), "probe" (the held-out loss of a small decoder trained for --probe_steps: about three minutes on two cores
for 64 codes an image; 0 switches it off) and, with --maps, "ceilings" (annotation maps encoded and decoded). Of the
decoder: "next_token" (loss and perplexity beside baselines without a network), "controls" (what the query, the pairs
and the frames before are worth, for each task), "in_context" (perplexity against the number of images before) and
"annotations" (perplexity of each annotation type after --shots pairs) and, with --answer_sentences, "answers" (each
task's answers, drawn and scored beside copying, the nearest pair, the mean answer and the query). OUT/results.md has
the same as tables, OUT/reconstructions.png shows images above their reconstructions, and OUT/answers a good, a middling
and a bad answer to each task. For benchmarks on public data sets see
experiments/evaluate_benchmarks.py.

Of a decoder that answers from examples (recipe "unified") it has the scores of drawn masks and words and the losses of
the true ones, beside baselines and controls, and OUT/answers a good, a middling and a bad answer to each question; see
docs/unified.md.
"""

import json
from typing import Any, cast

import numpy as np
from absl import flags
from etils import epath
from jaxtyping import UInt8
from tqdm import tqdm

from lvm_jax import cli, files
from lvm_jax.data.in_context.episodes import BoxMode, RowStyle
from lvm_jax.data.in_context.format_folder import has_format, read_questions
from lvm_jax.data.in_context.pool import Side
from lvm_jax.data.records.manifest import check_compatible
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.splits import read_held_out, spread
from lvm_jax.errors import UserError
from lvm_jax.evaluation import about
from lvm_jax.evaluation.base import Evaluator, Result
from lvm_jax.evaluation.in_context.scoring import PoolQuestions, score
from lvm_jax.evaluation.in_context.while_training import parse_word_sets
from lvm_jax.evaluation.lpips import installed_lpips
from lvm_jax.evaluation.lvm.controls import ControlsEvaluator
from lvm_jax.evaluation.lvm.models import load_pair
from lvm_jax.evaluation.lvm.scoring import Scorer
from lvm_jax.evaluation.lvm.sentence_answers import AnswersEvaluator
from lvm_jax.evaluation.lvm.sentence_evaluators import sentence_evaluators
from lvm_jax.evaluation.lvm.sentence_tasks import read_for_tasks
from lvm_jax.evaluation.lvm.shown_sentences import show_sentences
from lvm_jax.evaluation.lvm.visual_benchmark import Subject
from lvm_jax.evaluation.tokenizer.ceilings import CeilingsEvaluator, held_out_maps
from lvm_jax.evaluation.tokenizer.codes import CodesEvaluator
from lvm_jax.evaluation.tokenizer.images import held_out_squares, probe_squares
from lvm_jax.evaluation.tokenizer.probe import ProbeEvaluator
from lvm_jax.evaluation.tokenizer.reconstruction import ReconstructionEvaluator
from lvm_jax.inference.defaults import MEASURED, read_defaults
from lvm_jax.inference.images import Engine
from lvm_jax.inference.in_context_pictures import InContextGenerator
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.parallel import runtime
from lvm_jax.reporting import answers, controls, unified_scores
from lvm_jax.reporting.figures import save_comparison
from lvm_jax.reporting.markdown import as_markdown

_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "folder of the VQGAN (config.json, model.safetensors)", required=True
)
_MODEL = flags.DEFINE_string(
    "model", None, "folder of the decoder; without one, the tokenizer is scored alone"
)
_SHARDS = flags.DEFINE_string(
    "shards", None, "folder of token shards, written with this tokenizer; goes with --model"
)
_SPLIT = flags.DEFINE_string("split", "validation", "split of the shards to judge the decoder on")
_IMAGES = flags.DEFINE_string("images", None, "folder of images to reconstruct")
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
    "max_images", 256, "images to reconstruct, evenly spread; 0 takes all", lower_bound=0
)
_MAPS = flags.DEFINE_string(
    "maps",
    None,
    "folder of annotated items, ITEM/ROLE.png, such as CORPUS/scenes: the ceilings of its maps. Those that "
    "CORPUS/validation.txt lists, without such a file --held_out; with --held_out_fraction=1 all",
)
_MAX_MAPS = flags.DEFINE_integer(
    "max_maps", 128, "items of --maps, evenly spread; 0 takes all", lower_bound=0
)
_PROBE_STEPS = flags.DEFINE_integer(
    "probe_steps",
    1000,
    "steps of the probe that learns the tokenizer's codes; 0: no probe",
    lower_bound=0,
)
_PROBE_SEEDS = flags.DEFINE_integer("probe_seeds", 1, "probes to train and average", lower_bound=1)
_MAX_SENTENCES = flags.DEFINE_integer(
    "max_sentences", 512, "sentences to score, evenly spread; 0 takes all", lower_bound=0
)
_CONTROL_SENTENCES = flags.DEFINE_integer(
    "control_sentences",
    64,
    "sentences of each task, each scored seven times; 0 takes all",
    lower_bound=0,
)
_TRAIN_SENTENCES = flags.DEFINE_integer(
    "train_sentences",
    2048,
    "sentences of the training split to fit the baselines on; -1 fits them on the held-out ones",
    lower_bound=-1,
)
_CONTEXT_SENTENCES = flags.DEFINE_integer(
    "context_sentences", 48, "sentences of each context curve; 0 takes all", lower_bound=0
)
_SHOTS = flags.DEFINE_integer(
    "shots", 5, "pairs before an annotation whose perplexity is measured", lower_bound=0
)
_ANSWER_SENTENCES = flags.DEFINE_integer(
    "answer_sentences",
    0,
    "sentences of each task to answer; drawn as generation.json in the folder of the decoder says, else with the "
    "likeliest of 8 at temperature 0.8 and top-p 0.95; 0: none",
    lower_bound=0,
)
_ANSWER_CONTROLS = flags.DEFINE_bool(
    "answer_controls",
    False,
    "answer again with other queries and after shuffled answers; three times the time",
)
_BATCH = flags.DEFINE_integer("batch_size", 4, "sentences of full length at once", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("examples", 1, "pairs before a query from a pool", lower_bound=0)
_EPISODES = flags.DEFINE_integer(
    "episodes", 64, "queries of each question; 0 takes all", lower_bound=0
)
_CLASSES = flags.DEFINE_enum("classes", "all", ["seen", "unseen", "all"], "of the pools")
_CATEGORY = flags.DEFINE_enum(
    "category", "none", ["none", "examples", "all"], "pairs of a pool that name their class"
)
_BOXES = flags.DEFINE_enum("boxes", "text", ["none", "image", "text"], "of what a pool describes")
_WORD_SETS = flags.DEFINE_string(
    "word_sets", "", "by which captions are compared, such as 'colour=red blue,side=left right'"
)

_OF_A_TOKENIZER = (
    *(_IMAGES, _HELD_OUT, _HELD_OUT_FRACTION, _MAX_IMAGES),
    *(_MAPS, _MAX_MAPS, _PROBE_STEPS, _PROBE_SEEDS),
)
_OF_SENTENCES = (
    *(_MAX_SENTENCES, _CONTROL_SENTENCES, _TRAIN_SENTENCES, _CONTEXT_SENTENCES),
    *(_SHOTS, _ANSWER_SENTENCES, _ANSWER_CONTROLS),
)
_OF_EXAMPLES = (_EXAMPLES, _EPISODES, _CLASSES, _CATEGORY, _BOXES, _WORD_SETS)


def main() -> None:
    """Runs all evaluators, then writes the results."""
    if bool(_MODEL.value) != bool(_SHARDS.value):
        raise UserError("--model and --shards go together: give both, or neither for a tokenizer")
    from_examples = bool(_MODEL.value) and has_format(_MODEL.value)
    if from_examples:
        cli.refuse((*_OF_A_TOKENIZER, *_OF_SENTENCES), "a decoder that answers from examples")
    elif _MODEL.value:
        cli.refuse(_OF_EXAMPLES, "a decoder of visual sentences")
    else:
        cli.refuse((_SPLIT, _BATCH, *_OF_SENTENCES, *_OF_EXAMPLES), "a tokenizer alone")
    if not _ANSWER_SENTENCES.value:
        cli.refuse([_ANSWER_CONTROLS], "an evaluation without --answer_sentences")
    runtime.initialize()
    output = epath.Path(_OUTPUT.value)
    if _MODEL.value and _SHARDS.value and from_examples:
        found = answers_from_examples(_MODEL.value, _SHARDS.value, output / "answers")
        save_results(found, unified_scores.as_markdown(found), output)
        return
    if not _IMAGES.value:
        raise UserError("--images is missing: name a folder of images to reconstruct")
    asked = None
    if _MODEL.value and _SHARDS.value:
        vqgan, model = load_pair(_TOKENIZER.value, _MODEL.value)
        scorer = Scorer(model, vqgan.codebook_size, batch_size=_BATCH.value)
        held_out = SentenceStore(_SHARDS.value, _SPLIT.value)
        check_compatible(held_out.manifest, tokenizer_fingerprint=vqgan.fingerprint())
        evaluators = _of_sentences(held_out, _SHARDS.value)
        if _ANSWER_SENTENCES.value:
            asked = _of_answers(held_out, model, vqgan, _MODEL.value)
        about_data = {"split": _SPLIT.value}
    else:
        vqgan, scorer, evaluators, about_data = (
            VQGAN.from_pretrained(_TOKENIZER.value),
            None,
            {},
            {},
        )
    images = held_out_squares(
        _IMAGES.value,
        _TOKENIZER.value,
        vqgan.config.resolution,
        _MAX_IMAGES.value,
        held_out=_HELD_OUT.value,
        fraction=_HELD_OUT_FRACTION.value,
    )
    reconstruction = ReconstructionEvaluator(
        images, lpips_weights=installed_lpips(), vgg_weights=installed_lpips("vgg")
    )
    made = reconstruction.reconstruct(vqgan)
    results: dict[str, Any] = {
        "environment": about.environment(),
        "tokenizer": about.described(vqgan),
        **about_data,
        reconstruction.name: reconstruction.score(made),
    }
    of_codes = _of_tokenizer(_IMAGES.value, images, vqgan.config.resolution)
    for name, evaluator in tqdm(of_codes.items(), desc="tokenizer", unit="evaluator"):
        results[name] = evaluator.run(vqgan)
    for name, evaluator in tqdm(evaluators.items(), desc="evaluation", unit="evaluator"):
        results[name] = evaluator.run(scorer)
    shown = spread(len(images), 16)
    if asked:
        results[AnswersEvaluator.name] = _answered(*asked, output / AnswersEvaluator.name)
    save_comparison(
        made.originals_MHWC[shown], made.decoded_MHWC[shown], output / "reconstructions.png"
    )
    save_results(results, _as_markdown(results), output)


def answers_from_examples(model: str, pools: str, shown: epath.Path) -> dict[str, Any]:
    """The scores of a decoder that answers from examples; pictures of some answers go to `shown`."""
    style = RowStyle(
        shots=(*[0.0] * _EXAMPLES.value, 1.0),
        category={_CATEGORY.value: 1.0},
        boxes=cast(BoxMode, _BOXES.value),
    )
    generator = InContextGenerator.from_pretrained(model, _TOKENIZER.value)
    asked = PoolQuestions(
        pools,
        style,
        read_questions(model),
        split=_SPLIT.value,
        classes=cast(Side, _CLASSES.value),
        episodes=_EPISODES.value,
        sets=parse_word_sets(_WORD_SETS.value),
        batch_size=_BATCH.value,
    )
    about_data = {
        "split": _SPLIT.value,
        "classes": _CLASSES.value,
        "examples": _EXAMPLES.value,
        "category_words": _CATEGORY.value,
        "boxes": _BOXES.value,
    }
    tokenizer = about.described(generator.vqgan)
    found = score(generator, asked, shown)
    return {"environment": about.environment(), "tokenizer": tokenizer, **about_data, **found}


def save_results(results: dict[str, Any], text: str, output: epath.Path) -> None:
    """Writes the results as JSON and as tables."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.md").write_text(text)
    files.write(output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    print(f"the results are in {output / 'results.md'}")


def _as_markdown(results: dict[str, Any]) -> str:
    """All results as tables; those of controls and answers by task, since as one list they would hide the rest."""
    by_task = ControlsEvaluator.name, AnswersEvaluator.name
    text = as_markdown({k: v for k, v in results.items() if k not in by_task})
    if measured := results.get(ControlsEvaluator.name):
        text += f"\n## controls\n\n{controls.as_markdown(measured)}"
    if measured := results.get(AnswersEvaluator.name):
        ceilings = results.get(CeilingsEvaluator.name, {})
        text += f"\n## answers\n\n{answers.as_markdown(measured, ceilings)}"
    return text


def _of_tokenizer(
    folder: str, images: UInt8[np.ndarray, "M H W 3"], resolution: int
) -> dict[str, Evaluator[VQGAN]]:
    """The evaluators of the codes; their data is read before any of them runs."""
    found: list[Evaluator[VQGAN]] = [CodesEvaluator(images)]
    if _MAPS.value:
        # The corpus of the maps says which items are held out; --held_out may be of other images.
        beside = epath.Path(_MAPS.value).parent / "validation.txt"
        listing = beside if beside.exists() else _HELD_OUT.value or beside
        held_out = None if _HELD_OUT_FRACTION.value == 1 else read_held_out(listing)
        of_role = held_out_maps(_MAPS.value, resolution, held_out, _MAX_MAPS.value)
        found.append(CeilingsEvaluator(of_role))
    if _PROBE_STEPS.value:
        learnt, asked = probe_squares(
            folder,
            _TOKENIZER.value,
            resolution,
            held_out=_HELD_OUT.value,
            fraction=_HELD_OUT_FRACTION.value,
        )
        found.append(
            ProbeEvaluator(learnt, asked, steps=_PROBE_STEPS.value, seeds=_PROBE_SEEDS.value)
        )
    return {evaluator.name: evaluator for evaluator in found}


def _of_answers(
    held_out: SentenceStore, model: Decoder, vqgan: VQGAN, folder: str
) -> tuple[AnswersEvaluator, Subject]:
    evaluator = AnswersEvaluator(
        read_for_tasks(held_out, _ANSWER_SENTENCES.value),
        max_sentences=_ANSWER_SENTENCES.value,
        drawing=read_defaults(folder) or MEASURED,
        controls=_ANSWER_CONTROLS.value,
    )
    return evaluator, Subject(Engine(model, vqgan.tokens_per_image, vqgan.codebook_size), vqgan)


def _answered(evaluator: AnswersEvaluator, subject: Subject, folder: epath.Path) -> Result:
    """The scores of the answers; FOLDER gets a good, a middling and a bad one to each task."""
    answered = evaluator.answer(subject)
    return evaluator.score(answered) | show_sentences(answered, folder)


def _of_sentences(held_out: SentenceStore, shards: str) -> dict[str, Any]:
    """The evaluators of a decoder."""
    return dict(
        sentence_evaluators(
            held_out,
            max_sentences=_MAX_SENTENCES.value,
            control_sentences=_CONTROL_SENTENCES.value,
            context_sentences=_CONTEXT_SENTENCES.value,
            shots=_SHOTS.value,
            train=SentenceStore(shards, "train") if _TRAIN_SENTENCES.value >= 0 else None,
            train_sentences=_TRAIN_SENTENCES.value,
        )
    )


if __name__ == "__main__":
    cli.run(main)
