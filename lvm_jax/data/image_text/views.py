"""Views: what a tower sees of a picture. Pixels stay uint8; the model normalises them.

Shape legend: H, W the given picture; H2, W2 the view.
"""

import dataclasses
from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lvm_jax.data.image_text.augment import NO_AUGMENTATION, Augmentation, augment
from lvm_jax.errors import BadData, UserError

Fit = Literal["squash", "pad", "keep", "crop"]
FITS: tuple[Fit, ...] = get_args(Fit)


class TooLarge(BadData):
    """A picture that a view with `fit="keep"` has no room for."""


@dataclasses.dataclass(frozen=True)
class View:
    """How a picture becomes an array of one size.

    Attributes:
      height, width: of the view, in pixels.
      fit: "squash" ignores the aspect ratio, as Vary's new tower; "crop" scales the shorter side and keeps the middle,
        as CLIP; "pad" scales the whole picture into the view; "keep" does not scale: the picture lies at the top left.
      background: RGB around a padded or kept picture.
      augmentation: changes of the picture in training, before it is fitted.
    """

    height: int
    width: int
    fit: Fit = "squash"
    background: tuple[int, ...] = (255, 255, 255)
    augmentation: Augmentation = NO_AUGMENTATION

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise UserError(f"a view is {self.height} x {self.width}: at least one pixel each")
        fit_named(self.fit)
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise UserError(f"background is {self.background}: it must be RGB, 0 to 255 each")

    def of(
        self, picture: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator | None
    ) -> UInt8[np.ndarray, "H2 W2 3"]:
        """The view of a picture; without a generator nothing is augmented.

        Raises:
          TooLarge: `fit` is "keep" and the picture is larger.
        """
        if rng is not None:
            picture = augment(picture, self.augmentation, rng)
        height, width = picture.shape[:2]
        if (height, width) == (self.height, self.width):
            return picture
        if self.fit == "squash":
            return _scaled(picture, self.height, self.width)
        if self.fit == "crop":
            scale = max(self.height / height, self.width / width)
            # Rounding may not make a side shorter than the view.
            tall, wide = (
                max(self.height, round(height * scale)),
                max(self.width, round(width * scale)),
            )
            top, left = (tall - self.height) // 2, (wide - self.width) // 2
            return _scaled(picture, tall, wide)[top : top + self.height, left : left + self.width]
        if self.fit == "pad":
            scale = min(self.height / height, self.width / width)
            picture = _scaled(picture, max(1, round(height * scale)), max(1, round(width * scale)))
        elif height > self.height or width > self.width:
            raise TooLarge(
                f"a picture of {height} x {width} pixels does not fit a view of {self.height} x {self.width} that "
                "keeps its size: choose fit squash, pad or crop"
            )
        return self._laid(picture)

    def empty(self) -> UInt8[np.ndarray, "H2 W2 3"]:
        """What stands for no picture."""
        return self._laid(np.zeros((0, 0, 3), np.uint8))

    def _laid(self, picture: np.ndarray) -> np.ndarray:
        """The picture on the background: in the middle if it was scaled to fit, else at the top left."""
        canvas = np.empty((self.height, self.width, 3), np.uint8)
        canvas[:] = self.background
        height, width = picture.shape[:2]
        top = left = 0
        if self.fit == "pad":
            top, left = (self.height - height) // 2, (self.width - width) // 2
        canvas[top : top + height, left : left + width] = picture
        return canvas


def fit_named(name: str) -> Fit:
    """The fit of this name.

    Raises:
      UserError: there is none.
    """
    for fit in FITS:
        if fit == name:
            return fit
    raise UserError(f"fit is {name!r}: it must be one of {', '.join(FITS)}")


def _scaled(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
