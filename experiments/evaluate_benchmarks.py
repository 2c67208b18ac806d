r"""Scores a decoder on a visual task in context, with the tokenizer's ceiling and three baselines beside it.

  python experiments/evaluate_benchmarks.py --tokenizer=DIR --model=DIR --output=OUT --task=TASK --data=ROOT

  TASK                       ROOT                                     measures
  pascal5i (--fold=0..3)     VOC2012                                  foreground segmentation, mIoU
  voc_detection              VOC2012                                  single object detection, mIoU
  coco_detection             COCO, with annotations/                  the same
  colorization               class folders, such as ImageNet/val      MSE of normalised pixels, LPIPS
  coco_keypoints             COCO, with annotations/                  joints of a single person, PCK
  pascal3d                   PASCAL3D+                                keypoints of a single object, PCK
  davis                      DAVIS                                    foreground of the last frame, mIoU
  scene_ROLE (--held_out)    CORPUS/scenes of the embedded corpus     segmentation (mIoU over classes), depth, normals,
                                                                      edges, keypoints (PCK), against exact truth

OUT/TASK.json and OUT/TASK.md have the scores; OUT/TASK.html shows them with the best, middle and worst answers, whose
pictures are in OUT/TASK/.
"""

import math
from collections.abc import Sequence

from absl import flags
from etils import epath

from lvm_jax import cli, files
from lvm_jax.evaluation.lvm.answer_scores import States, worst_to_best
from lvm_jax.evaluation.lvm.benchmarks import TASKS, Questions, read_episodes
from lvm_jax.evaluation.lvm.visual_benchmark import Episode, Subject, VisualTaskEvaluator
from lvm_jax.evaluation.tokenizer.reconstruction import installed_lpips
from lvm_jax.inference.image_generator import check_pair
from lvm_jax.inference.images import Engine
from lvm_jax.metrics.states import compute
from lvm_jax.models.decoder.llama import Llama
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.parallel import runtime
from lvm_jax.reporting.benchmark_page import Case, task_page
from lvm_jax.reporting.figures import PREDICTION, TRUTH, Group, save_png, strip
from lvm_jax.reporting.markdown import as_markdown

_TOKENIZER = flags.DEFINE_string("tokenizer", None, "folder of the VQGAN", required=True)
_MODEL = flags.DEFINE_string("model", None, "folder of the decoder", required=True)
_TASK = flags.DEFINE_enum("task", None, list(TASKS), "see above", required=True)
_DATA = flags.DEFINE_string("data", None, "root of the data set", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "where the results go", required=True)
_FOLD = flags.DEFINE_integer("fold", 0, "of Pascal-5i")
_HELD_OUT = flags.DEFINE_string(
    "held_out",
    None,
    "of scenes: the list of what training held out; default: CORPUS/validation.txt",
)
_EPISODES = flags.DEFINE_integer("episodes", 1000, "questions", lower_bound=1)
_SHOTS = flags.DEFINE_integer("shots", 1, "pairs that show the task", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of the support and of the draws")
_CASES = flags.DEFINE_integer(
    "cases", 3, "questions to show of the best, the middle and the worst each", lower_bound=1
)
_BATCH = flags.DEFINE_integer("batch_size", 8, "questions answered at once", lower_bound=1)


def main() -> None:
    """Reads the episodes, answers and scores them."""
    runtime.initialize()
    vqgan, model = VQGAN.from_pretrained(_TOKENIZER.value), Llama.from_pretrained(_MODEL.value)
    check_pair(model, vqgan)
    engine = Engine(model, vqgan.tokens_per_image, vqgan.codebook_size)
    engine.check_request(2 * _SHOTS.value + 1, 1, 1)
    asked = Questions(
        _EPISODES.value, _SHOTS.value, _SEED.value, _FOLD.value, held_out=_HELD_OUT.value or ""
    )
    episodes = read_episodes(_TASK.value, _DATA.value, asked)
    evaluator = VisualTaskEvaluator(
        TASKS[_TASK.value].score,
        episodes,
        seed=_SEED.value,
        batch_size=_BATCH.value,
        lpips_weights=installed_lpips(),
    )
    subject = Subject(engine, vqgan)
    described = {
        "shots": _SHOTS.value, "seed": _SEED.value, "fold": _FOLD.value, "tokenizer": vqgan.fingerprint(),
    }  # fmt: skip
    each = evaluator.each(subject)
    results = {_TASK.value: described | evaluator.result(each)}
    output = epath.Path(_OUTPUT.value)
    cases = [
        _case(group, rank, index, each[index], episodes, evaluator, subject)
        for group, indices in _chosen(worst_to_best(evaluator.name, each)).items()
        for rank, index in enumerate(indices, 1)
    ]
    page = task_page(_TASK.value, results[_TASK.value], cases)
    files.write(output / f"{_TASK.value}.html", page)
    (output / f"{_TASK.value}.md").write_text(as_markdown(results))
    files.write_json(output / f"{_TASK.value}.json", results)
    print(f"the results are in {output / _TASK.value}.html")


def _chosen(order: Sequence[int]) -> dict[str, list[int]]:
    """The best, middle and worst questions of those from worst to best; none twice."""
    count = min(_CASES.value, len(order) // 3) or min(1, len(order))
    best, worst = list(order[: -count - 1 : -1]), list(order[:count])
    between = order[count : len(order) - count]
    first = (len(between) - count) // 2
    groups = {"best": best, "middle": list(between[first : first + count])}
    return groups | ({"worst": worst} if len(order) > count else {})


def _case(
    group: str,
    rank: int,
    index: int,
    states: States,
    episodes: Sequence[Episode],
    evaluator: VisualTaskEvaluator,
    subject: Subject,
) -> Case:
    """Draws a question and its answers into OUT/TASK/GROUP_RANK.png."""
    episode, answers = episodes[index], evaluator.answers(subject, index)
    groups = [
        Group("support", [picture for pair in episode.support for picture in pair]),
        Group("query", [episode.query]),
        Group("model", [answers["model"]], PREDICTION),
        Group("ceiling", [answers["tokenizer_ceiling"]]),
        Group("truth", [episode.truth], TRUTH),
    ]
    path = epath.Path(_OUTPUT.value) / _TASK.value / f"{group}_{rank}.png"
    save_png(path, strip(groups))
    scores = {name: None if math.isnan(v) else v for name, v in compute(states).items()}
    return Case(group, episode.key, path, scores)


if __name__ == "__main__":
    cli.run(main)
