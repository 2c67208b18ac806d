"""The table of benchmarks: how each is scored, and how its data is read."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from etils import epath

from lvm_jax.data.splits import read_held_out
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.answer_scores import COLORIZATION, JOINTS
from lvm_jax.evaluation.lvm.readers.coco import CocoDetection, CocoKeypoints
from lvm_jax.evaluation.lvm.readers.davis import Davis
from lvm_jax.evaluation.lvm.readers.episodes import Episodes, take
from lvm_jax.evaluation.lvm.readers.folders import AnnotatedFolders, Colorization, class_folders
from lvm_jax.evaluation.lvm.readers.pascal3d import Pascal3D
from lvm_jax.evaluation.lvm.readers.voc import Pascal5i, VocDetection
from lvm_jax.evaluation.lvm.visual_benchmark import Episode
from lvm_jax.pictures.decode import EXTENSIONS


@dataclasses.dataclass(frozen=True)
class Questions:
    """Which questions of a benchmark to ask.

    Attributes:
      episodes: number of questions. They start over with another support when they run out; those of DAVIS, which
        draws none, end there.
      shots: pairs before each query.
      seed: draws the support.
      fold: of Pascal-5i.
      held_out: for scenes, the list of items that training held out; "" means CORPUS/validation.txt.
    """

    episodes: int = 1000
    shots: int = 1
    seed: int = 0
    fold: int = 0
    held_out: str = ""


class Benchmark(NamedTuple):
    """Questions with known answers, and their score.

    Attributes:
      score: a key of `answer_scores.SCORES`, or "joints".
      open: (root of the data set, questions) -> its reader.
    """

    score: str
    open: Callable[[str, Questions], Episodes]


def _scenes(role: str) -> Callable[[str, Questions], Episodes]:
    def opened(root: str, asked: Questions) -> Episodes:
        listing = asked.held_out or epath.Path(root).parent / "validation.txt"
        return AnnotatedFolders(root, role, read_held_out(listing))

    return opened


BENCHMARKS: Mapping[str, Benchmark] = {
    "pascal5i": Benchmark("segmentation", lambda root, asked: Pascal5i(root, asked.fold)),
    "voc_detection": Benchmark("detection", lambda root, _: VocDetection(root)),
    "coco_detection": Benchmark("detection", lambda root, _: CocoDetection(root)),
    "coco_keypoints": Benchmark(JOINTS, lambda root, _: CocoKeypoints(root)),
    "pascal3d": Benchmark(JOINTS, lambda root, _: Pascal3D(root)),
    "colorization": Benchmark(
        COLORIZATION,
        lambda root, _: Colorization([file for file, _ in class_folders(root, EXTENSIONS)]),
    ),
    "davis": Benchmark("segmentation", lambda root, _: Davis(root)),
    "scene_segmentation": Benchmark("classes", _scenes("segmentation")),
    "scene_depth": Benchmark("depth", _scenes("depth")),
    "scene_normals": Benchmark("normals", _scenes("normals")),
    "scene_edges": Benchmark("edges", _scenes("edges")),
    "scene_keypoints": Benchmark("keypoints", _scenes("keypoints")),
}


def benchmark_named(name: str) -> Benchmark:
    """Looks a benchmark up.

    Raises:
      UserError: no benchmark has this name.
    """
    if name not in BENCHMARKS:
        raise UserError(f"benchmark {name!r} does not exist; known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def read_episodes(name: str, root: str, asked: Questions) -> list[Episode]:
    """Reads the questions of a benchmark.

    Raises:
      UserError: the benchmark is unknown, or its reader cannot use the data set.
    """
    reader, count = benchmark_named(name).open(root, asked), asked.episodes
    if isinstance(reader, Davis):
        # It draws nothing: a second round would ask the very same, and standard errors take questions as independent.
        count = min(count, len(reader))
    return take(reader, count, shots=asked.shots, seed=asked.seed)
