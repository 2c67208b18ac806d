r"""Scores a decoder on a benchmark in context, beside the tokenizer's ceiling and three baselines.

  python experiments/evaluate_benchmarks.py --tokenizer=DIR --model=DIR --output=OUT --benchmark=NAME --data=ROOT

  NAME                       ROOT                                     measures
  pascal5i (--fold=0..3)     VOC2012                                  foreground segmentation, mIoU
  voc_detection              VOC2012                                  single object detection, mIoU
  coco_detection             COCO, with annotations/                  the same
  colorization               class folders, such as ImageNet/val      MSE of normalised pixels, LPIPS
  coco_keypoints             COCO, with annotations/                  joints of a single person, PCK
  pascal3d                   PASCAL3D+                                keypoints of a single object, PCK
  davis                      DAVIS                                    foreground of the last frame, mIoU
  scene_ROLE (--held_out)    CORPUS/scenes of the embedded corpus     segmentation (mIoU over classes), depth, normals,
                                                                      edges, keypoints (PCK), against exact truth

With --controls the decoder also answers every question with another question's query, and after shuffled answers: a
score that stays the same says nothing of what the decoder reads.

OUT/NAME.json and OUT/NAME.md have the scores. OUT/NAME.html shows them with the best, middle and worst answers, whose
pictures are in OUT/NAME/.
"""

from absl import flags
from etils import epath

from lvm_jax import cli, files
from lvm_jax.evaluation.lpips import installed_lpips
from lvm_jax.evaluation.lvm.benchmark_controls import changes, control_states
from lvm_jax.evaluation.lvm.benchmarks import BENCHMARKS, Questions, read_episodes
from lvm_jax.evaluation.lvm.models import load_pair
from lvm_jax.evaluation.lvm.scoring import Scorer
from lvm_jax.evaluation.lvm.shown_answers import show_answers
from lvm_jax.evaluation.lvm.visual_benchmark import BenchmarkEvaluator, Subject
from lvm_jax.inference.images import Engine
from lvm_jax.parallel import runtime
from lvm_jax.reporting.benchmark_page import task_page
from lvm_jax.reporting.markdown import as_markdown

_TOKENIZER = flags.DEFINE_string("tokenizer", None, "folder of the VQGAN", required=True)
_MODEL = flags.DEFINE_string("model", None, "folder of the decoder", required=True)
_BENCHMARK = flags.DEFINE_enum("benchmark", None, list(BENCHMARKS), "see above", required=True)
_DATA = flags.DEFINE_string("data", None, "root of the data set", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "where the results go", required=True)
_FOLD = flags.DEFINE_integer("fold", 0, "of Pascal-5i")
_HELD_OUT = flags.DEFINE_string(
    "held_out",
    None,
    "for scenes, the list of what training held out; default: CORPUS/validation.txt",
)
_EPISODES = flags.DEFINE_integer("episodes", 1000, "questions", lower_bound=1)
_SHOTS = flags.DEFINE_integer("shots", 1, "pairs before each query", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of the support and of the draws")
_CASES = flags.DEFINE_integer(
    "cases", 3, "answers to show of the best, the middle and the worst each", lower_bound=1
)
_CONTROLS = flags.DEFINE_bool(
    "controls", False, "ask again with other queries and shuffled answers; three times the time"
)
_BATCH = flags.DEFINE_integer("batch_size", 8, "questions answered at once", lower_bound=1)


def main() -> None:
    """Reads the questions, answers them, and scores the answers."""
    if _BENCHMARK.value != "pascal5i":
        cli.refuse([_FOLD], f"--benchmark={_BENCHMARK.value}")
    if not _BENCHMARK.value.startswith("scene_"):
        cli.refuse([_HELD_OUT], f"--benchmark={_BENCHMARK.value}")
    runtime.initialize()
    vqgan, model = load_pair(_TOKENIZER.value, _MODEL.value)
    engine = Engine(model, vqgan.tokens_per_image, vqgan.codebook_size)
    # Fails now if the prompts are too long, and not after the data set has been read.
    engine.check_request(2 * _SHOTS.value + 1, 1, 1)
    name, output = _BENCHMARK.value, epath.Path(_OUTPUT.value)
    asked = Questions(
        _EPISODES.value, _SHOTS.value, _SEED.value, _FOLD.value, held_out=_HELD_OUT.value or ""
    )
    evaluator = BenchmarkEvaluator(
        BENCHMARKS[name].score,
        read_episodes(name, _DATA.value, asked),
        seed=_SEED.value,
        batch_size=_BATCH.value,
        lpips_weights=installed_lpips(),
    )
    subject = Subject(engine, vqgan)
    scorer = Scorer(model, vqgan.codebook_size, batch_size=_BATCH.value)
    # First: it refuses questions that cannot be swapped.
    controls = (
        control_states(evaluator, subject, scorer, seed=_SEED.value) if _CONTROLS.value else []
    )
    each = evaluator.each(subject)
    about = {
        "shots": _SHOTS.value, "seed": _SEED.value, "fold": _FOLD.value, "tokenizer": vqgan.fingerprint(),
    }  # fmt: skip
    if controls:
        each = [scores | added for scores, added in zip(each, controls, strict=True)]
        about |= changes(each)
    results = {name: about | evaluator.result(each)}
    answers = show_answers(evaluator, subject, each, output / name, _CASES.value)
    files.write(output / f"{name}.html", task_page(name, results[name], answers))
    (output / f"{name}.md").write_text(as_markdown(results))
    files.write_json(output / f"{name}.json", results)
    print(f"the results are in {output / name}.html")


if __name__ == "__main__":
    cli.run(main)
