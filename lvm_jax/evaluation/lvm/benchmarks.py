"""The visual tasks by name: what each measures, and how its data is read."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from etils import epath

from lvm_jax.data.splits import read_held_out
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm import readers
from lvm_jax.evaluation.lvm.answer_scores import JOINTS
from lvm_jax.evaluation.lvm.joint_readers import CocoKeypoints, Pascal3D
from lvm_jax.evaluation.lvm.readers import Episodes
from lvm_jax.evaluation.lvm.visual_benchmark import Episode


@dataclasses.dataclass(frozen=True)
class Questions:
    """How a task is asked.

    Attributes:
      episodes: questions.
      shots: pairs that show the task.
      seed: of the support.
      fold: of Pascal-5i.
      held_out: of scenes: the list of what training held out; "": CORPUS/validation.txt.
    """

    episodes: int = 1000
    shots: int = 1
    seed: int = 0
    fold: int = 0
    held_out: str = ""


class Task(NamedTuple):
    """A key of `task_scores.SCORES` or "joints", and the reader of the data set at a root."""

    score: str
    open: Callable[[str, Questions], Episodes]


def _scenes(role: str) -> Callable[[str, Questions], Episodes]:
    def opened(root: str, asked: Questions) -> Episodes:
        listing = asked.held_out or epath.Path(root).parent / "validation.txt"
        return readers.AnnotatedFolders(root, role, read_held_out(listing))

    return opened


TASKS: Mapping[str, Task] = {
    "pascal5i": Task("segmentation", lambda root, asked: readers.Pascal5i(root, asked.fold)),
    "voc_detection": Task("detection", lambda root, _: readers.VocDetection(root)),
    "coco_detection": Task("detection", lambda root, _: readers.CocoDetection(root)),
    "coco_keypoints": Task(JOINTS, lambda root, _: CocoKeypoints(root)),
    "pascal3d": Task(JOINTS, lambda root, _: Pascal3D(root)),
    "colorization": Task(
        "colorization",
        lambda root, _: readers.Colorization([file for file, _ in readers.class_folders(root)]),
    ),
    "davis": Task("segmentation", lambda root, _: readers.Davis(root)),
    "scene_segmentation": Task("classes", _scenes("segmentation")),
    "scene_depth": Task("depth", _scenes("depth")),
    "scene_normals": Task("normals", _scenes("normals")),
    "scene_edges": Task("edges", _scenes("edges")),
    "scene_keypoints": Task("keypoints", _scenes("keypoints")),
}


def task_named(name: str) -> Task:
    """A task of the table.

    Raises:
      UserError: there is none of that name.
    """
    if name not in TASKS:
        raise UserError(f"task {name!r} does not exist; known: {', '.join(TASKS)}")
    return TASKS[name]


def read_episodes(name: str, root: str, asked: Questions) -> list[Episode]:
    """The questions of a task.

    Raises:
      UserError: an unknown task, or a data set that is not as its reader needs it.
    """
    reader = task_named(name).open(root, asked)
    return readers.take(reader, asked.episodes, shots=asked.shots, seed=asked.seed)
