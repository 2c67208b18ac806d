"""Simple scenes and clips, drawn when they are asked for: hundreds a second, so that none need be shown twice.

Keys read `disc-red/000123`: the scene has a disc, in any colour, and another thing that is red. So a composer's
`class_of` can gather scenes that share a class, `([a-z]+)-.*`, or a colour, `[a-z]+-([a-z]+)/.*`. Seed and key decide
everything; scenes of other keys or seeds are other scenes.

Shape legend: H, W pixels, of the ground at twice the picture's size.
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from data_pipelines.chance import hash64
from data_pipelines.hues import HUES
from data_pipelines.items import PictureItem
from data_pipelines.sources.backgrounds import background, list_backgrounds
from data_pipelines.synthetic.annotations import ANNOTATIONS
from data_pipelines.synthetic.drawn import SUPERSAMPLING, Drawing, draw
from data_pipelines.synthetic.drawn_scenes import clip, random_drawing, turns
from data_pipelines.synthetic.grounds import random_ground
from data_pipelines.synthetic.outlines import CLASS_IDS, OUTLINES
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures.resize import resize_and_crop

Role = Literal["segmentation", "instances", "depth", "normals", "edges", "boxes", "keypoints"]
_LEAST_SIZE = 16
_ON_PHOTOGRAPHS = 0.5  # share of the grounds, if there are photographs
_IN_CIRCLE = 0.5  # what turns must not leave the picture


@dataclasses.dataclass(frozen=True)
class DrawnScenes:
    """`scenes` scenes of two to five things: `{"image": [x], "segmentation": [s], ...}`.

    Things are of ten kinds and eight hues (`OUTLINES`, `HUES`), at least 12 pixels wide at 64 pixels. `segmentation`
    has the palette's colours by kind, `instances` by thing. Depth, normals, edges, boxes and keypoints are exact and
    drawn as for rendered scenes.

    Attributes:
      scenes: how many.
      roles: what to draw beside the image.
      size: of the square picture, pixels.
      backgrounds: a folder of photographs; half of the scenes then stand on a piece of one. Empty: none do.
      seed: of the scenes.
    """

    scenes: int = 10_000
    roles: tuple[Role, ...] = ("segmentation",)
    size: int = 64
    backgrounds: str = ""
    seed: int = 0
    name: str = "drawn"
    licence: str = "Apache-2.0"
    origin: str = "drawn by data_pipelines.synthetic.drawn"
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self):
        _check("scenes", self.scenes, self.size)

    @property
    def root(self) -> str:
        """Names the scenes: entries of one seed show the same ones, and must hold out the same."""
        return f"drawn scenes of seed {self.seed}"

    def keys(self) -> list[str]:
        """`kind-hue/number`; see `Source`."""
        return _keys(self.scenes)

    def load(self, key: str) -> PictureItem:
        """One scene; see `Source`."""
        rng = np.random.default_rng([self.seed, hash64(key)])
        ground = _ground(rng, self.size, self.backgrounds, key)
        frame = draw(random_drawing(rng, ground, *_named(key)), self.size)
        drawn = {role: [ANNOTATIONS[role](frame, CLASS_IDS)] for role in self.roles}
        return {"image": [frame.image], **drawn}


@dataclasses.dataclass(frozen=True)
class DrawnClips:
    """`clips` clips of drawn scenes: `{"frame": [...], "segmentation": [...]}`, or `{"view": [...]}`.

    Attributes:
      clips: how many.
      motion: `bounce`: each thing moves at constant speed, and back from the picture's edges; its frames are in the
        role `frame`. `turn`: all things go once around the picture's centre in equal steps, in the role `view`.
      n_frames: of a clip; of a turn, the views once around.
      roles: what to draw beside each frame; each takes about a tenth of the frame's time.
      size, backgrounds, seed: as in `DrawnScenes`.
    """

    clips: int = 1000
    motion: Literal["bounce", "turn"] = "bounce"
    n_frames: int = 16
    roles: tuple[Role, ...] = ()
    size: int = 64
    backgrounds: str = ""
    seed: int = 0
    name: str = "drawn_clips"
    licence: str = "Apache-2.0"
    origin: str = "drawn by data_pipelines.synthetic.drawn"
    category: int = Category.UNLABELLED_VIDEO

    def __post_init__(self):
        _check("clips", self.clips, self.size)
        if self.n_frames < 2:
            raise UserError(f"n_frames is {self.n_frames}: a clip needs at least 2")

    @property
    def root(self) -> str:
        """As in `DrawnScenes`."""
        return f"drawn clips of seed {self.seed}, motion {self.motion}"

    def keys(self) -> list[str]:
        """`kind-hue/number`; see `Source`."""
        return _keys(self.clips)

    def load(self, key: str) -> PictureItem:
        """One clip; see `Source`."""
        rng = np.random.default_rng([self.seed, hash64(key)])
        ground = _ground(rng, self.size, self.backgrounds, key)
        item: PictureItem = {}
        for drawing in self._drawings(rng, ground, key):
            frame = draw(drawing, self.size)
            item.setdefault("view" if self.motion == "turn" else "frame", []).append(frame.image)
            for role in self.roles:
                item.setdefault(role, []).append(ANNOTATIONS[role](frame, CLASS_IDS))
        return item

    def _drawings(
        self, rng: np.random.Generator, ground: UInt8[np.ndarray, "H W 3"], key: str
    ) -> list[Drawing]:
        if self.motion == "turn":
            return turns(random_drawing(rng, ground, *_named(key), room=_IN_CIRCLE), self.n_frames)
        return clip(random_drawing(rng, ground, *_named(key)), rng, self.n_frames)


def _check(name: str, count: int, size: int) -> None:
    if count < 1 or size < _LEAST_SIZE:
        raise UserError(
            f"{name} is {count}, size {size}: there must be at least 1, of at least {_LEAST_SIZE} pixels"
        )


def _keys(count: int) -> list[str]:
    kinds, hues = list(OUTLINES), list(HUES)
    # All pairs of kind and hue in turn, so that each is as frequent as the others in any number of keys.
    return sorted(
        f"{kinds[i % len(kinds)]}-{hues[i // len(kinds) % len(hues)]}/{i:06d}" for i in range(count)
    )


def _named(key: str) -> tuple[str, str]:
    """The kind and the hue that a key promises."""
    kind, _, hue = key.partition("/")[0].partition("-")
    return kind, hue


def _ground(
    rng: np.random.Generator, size: int, backgrounds: str, key: str
) -> UInt8[np.ndarray, "H W 3"]:
    side = SUPERSAMPLING * size
    if not backgrounds or rng.random() >= _ON_PHOTOGRAPHS:
        return random_ground(rng, side)
    names = list_backgrounds(backgrounds)
    photograph = background(backgrounds, names[int(rng.integers(len(names)))], 2 * side, key)
    if min(photograph.shape[:2]) < side:
        return resize_and_crop(photograph, side, "random", rng)
    y, x = (int(rng.integers(length - side + 1)) for length in photograph.shape[:2])
    return np.ascontiguousarray(photograph[y : y + side, x : x + side])
