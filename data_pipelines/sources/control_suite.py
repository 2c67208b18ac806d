"""Clips of moving simulated bodies, with depth and segmentation, from the dm_control suite.

Shape legend: H, W of a frame.
"""

import atexit
import dataclasses
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int32

from data_pipelines.chance import hash64
from data_pipelines.items import PictureItem
from data_pipelines.sources.base import BadItem
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps

# One task for each body and scene that look different.
TASKS = (
    *("acrobot/swingup", "ball_in_cup/catch", "cartpole/swingup", "cheetah/run", "dog/run"),
    *("finger/spin", "fish/swim", "hopper/hop", "humanoid/run", "humanoid_CMU/run"),
    *("manipulator/bring_ball", "pendulum/swingup", "point_mass/easy", "quadruped/run"),
    *("reacher/easy", "stacker/stack_4", "swimmer/swimmer6", "walker/walk"),
)
# These see little or nothing of the body.
_UNUSED_CAMERAS = ("egocentric", "eye", "eyes", "global", "fixed_top")
_PACE, _REACH = (0.3, 1.5), (0.3, 1.0)  # of an actuator: swings per second, fraction of its range


@dataclasses.dataclass(frozen=True)
class DmControlClips:
    """`episodes` clips of each task: `{"frame": [...], "depth": [...], "segmentation": [...]}`.

    Needs dm_control (`pip install 'lvm_jax[mujoco]'`, Apache-2.0). Draws without a display, by EGL unless the variable
    MUJOCO_GL says `osmesa`. Each actuator swings at its own pace, so that motion can be guessed from earlier frames.
    The key, `walker/walk/003`, decides start, paces, colours and which of the model's cameras is used. Depth is grey,
    255 d0 / d with d0 the clip's nearest point, so it is known up to scale. Each body part has a palette colour; the
    world is background. To hold out whole domains, set an entry's `together="([^/]+)/.*"`.

    Attributes:
      tasks: `domain/task` of the suite.
      episodes: clips per task.
      n_frames: of a clip.
      every: seconds from one frame to the next.
      size: of a frame, pixels.
      annotations: what to draw beside the frames; each takes as long as the frames.
      seed: of the clips.
    """

    tasks: tuple[str, ...] = TASKS
    episodes: int = 10
    n_frames: int = 48
    every: float = 0.08
    size: int = 256
    annotations: tuple[Literal["depth", "segmentation"], ...] = ("depth", "segmentation")
    seed: int = 0
    name: str = "dm_control"
    licence: str = "Apache-2.0"
    origin: str = "the dm_control suite"
    category: int = Category.ANNOTATED_VIDEO

    def __post_init__(self):
        if not self.tasks or min(self.episodes, self.n_frames, self.size) < 1 or self.every <= 0:
            raise UserError(
                f"tasks is {self.tasks}, episodes {self.episodes}, n_frames {self.n_frames}, size {self.size}, every "
                f"{self.every}: tasks may not be empty, every must be above 0, the others at least 1"
            )

    def keys(self) -> list[str]:
        """`domain/task/episode`; see `Source`."""
        return sorted(f"{task}/{i:03d}" for task in self.tasks for i in range(self.episodes))

    def load(self, key: str) -> PictureItem:
        """One clip; see `Source`."""
        return _drawing.submit(self._draw, key).result()

    def _draw(self, key: str) -> PictureItem:
        rng = np.random.default_rng([self.seed, hash64(key) >> 32])
        env, renderer = _stage(key.rpartition("/")[0], self.size)
        env.task.random.seed(int(rng.integers(2**31)))
        env.reset()
        model, data = env.physics.model, env.physics.data.ptr
        # The suite has only one pair of colours.
        model.mat_rgba[:, :3] = rng.uniform(0.2, 1.0, model.mat_rgba[:, :3].shape)
        camera = _camera(model, rng)
        action = _swings(env.action_spec(), rng)
        tick = env.control_timestep()
        steps = max(1, round(self.every / tick))
        item: PictureItem = {"frame": []}
        depths: list[Float32[np.ndarray, "H W"]] = []
        # One shot before any step, so n_frames need one interval fewer.
        for step in range((self.n_frames - 1) * steps + 1):
            if step:
                _step(env, action(step * tick), key)
            if step % steps:
                continue
            renderer.update_scene(data, camera)
            item["frame"].append(renderer.render())
            if "depth" in self.annotations:
                renderer.enable_depth_rendering()
                depths.append(renderer.render())
                renderer.disable_depth_rendering()
            if "segmentation" in self.annotations:
                renderer.enable_segmentation_rendering()
                parts_HW = _parts(renderer.render(), model)
                item.setdefault("segmentation", []).append(maps.ids_to_rgb(maps.cycled(parts_HW)))
                renderer.disable_segmentation_rendering()
        if depths:
            # One scale for the whole clip: scaled frame by frame, still objects would flicker.
            nearest = min(float(depth_HW.min()) for depth_HW in depths)
            item["depth"] = [maps.level_to_rgb(nearest / depth_HW) for depth_HW in depths]
        return item


# An OpenGL context belongs to the thread that made it, so one thread does all the drawing.
_drawing = ThreadPoolExecutor(1, thread_name_prefix="dm_control")


@functools.cache  # building one takes as long as drawing a hundred frames
def _stage(task: str, size: int) -> tuple[Any, Any]:
    """The environment of a task, and the `mujoco.Renderer` that draws it."""
    # MuJoCo picks a backend when it is imported, and by default one that needs a window.
    os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco  # pyright: ignore[reportMissingImports]
        from dm_control import suite  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UserError("dm_control is not installed: pip install 'lvm_jax[mujoco]'") from error
    except Exception as error:  # each OpenGL library has its own
        raise UserError(
            f"dm_control cannot draw with MUJOCO_GL={os.environ['MUJOCO_GL']} ({error}): install libegl1, or "
            "libosmesa6 and set MUJOCO_GL=osmesa"
        ) from error
    domain, _, name = task.partition("/")
    if (domain, name) not in suite.ALL_TASKS:
        known = ", ".join(f"{d}/{n}" for d, n in suite.ALL_TASKS if d == domain)
        raise UserError(
            f"tasks has {task!r}: the suite has {known or 'no such domain, see dm_control.suite.ALL_TASKS'}"
        )
    env = suite.load(domain, name)
    model = env.physics.model
    model.vis.quality.offsamples = model.vis.quality.shadowsize = 0  # draws several times as fast
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    renderer = mujoco.Renderer(model.ptr, size, size)
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    atexit.register(_stage.cache_clear)  # before the OpenGL library shuts down
    return env, renderer


def _camera(model: Any, rng: np.random.Generator) -> int:
    """One of the model's cameras that show the body."""
    names = [model.id2name(i, "camera") for i in range(model.ncam)]
    useful = [i for i, name in enumerate(names) if name not in _UNUSED_CAMERAS]
    return useful[int(rng.integers(len(useful)))]


def _swings(spec: Any, rng: np.random.Generator) -> Callable[[float], np.ndarray]:
    """Seconds -> an action; every actuator swings to and fro."""
    pace, phase, reach = (rng.uniform(*ends, spec.shape) for ends in (_PACE, (0, 1), _REACH))
    middle, half = (spec.maximum + spec.minimum) / 2, (spec.maximum - spec.minimum) / 2

    def action(seconds: float) -> np.ndarray:
        return middle + half * reach * np.sin(2 * np.pi * (pace * seconds + phase))

    return action


def _step(env: Any, action: np.ndarray, key: str) -> None:
    from dm_control.rl import control  # pyright: ignore[reportMissingImports]

    try:
        last = env.step(action).last()
    except control.PhysicsError as error:
        raise BadItem(key, f"its physics are unstable ({error})") from error
    if last:
        raise BadItem(key, "ends before its frames: ask for fewer, or for shorter steps")


def _parts(seen_HW2: np.ndarray, model: Any) -> Int32[np.ndarray, "H W"]:
    """The body that each pixel shows, 1 for a skin; 0 for the world, anything else, or nothing."""
    from mujoco import mjtObj as kinds  # pyright: ignore[reportMissingImports]

    ids_HW, kinds_HW = seen_HW2[..., 0], seen_HW2[..., 1]
    # Ids count per object type; clipped, because those of other types may exceed the geoms.
    bodies_HW = np.asarray(model.geom_bodyid)[np.clip(ids_HW, 0, model.ngeom - 1)]
    parts_HW = np.where(kinds_HW == int(kinds.mjOBJ_GEOM), bodies_HW, 0)
    return np.where(kinds_HW == int(kinds.mjOBJ_SKIN), 1, parts_HW).astype(np.int32)
