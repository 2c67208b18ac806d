"""DAVIS: the foreground of a video's last frame, with earlier frames as support."""

import dataclasses
import functools

import numpy as np
from etils import epath

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.answer_scores import Picture
from lvm_jax.evaluation.lvm.readers.episodes import load_with_ids
from lvm_jax.evaluation.lvm.visual_benchmark import Episode
from lvm_jax.pictures.annotation_maps import mask_to_rgb
from lvm_jax.pictures.listing import list_frames
from lvm_jax.pictures.voc import read_list


@dataclasses.dataclass(frozen=True)
class Davis:
    """Videos with a mask for each frame.

    Args:
      root: DAVIS.
      split: train or val.
      year: of the lists, 2016 or 2017.
    """

    root: epath.PathLike
    split: str = "val"
    year: int = 2017

    @functools.cached_property
    def names(self) -> list[str]:
        """The sequences, in the order of the list."""
        listing = epath.Path(self.root) / "ImageSets" / str(self.year) / f"{self.split}.txt"
        names = [line.split()[0] for line in read_list(listing)]
        # The lists of 2016 name frames: /JPEGImages/480p/bear/00000.jpg
        parts = [name.split("/") for name in names]
        if any(len(of_name) not in (1, 5) for of_name in parts):
            raise UserError(
                f"{listing} has lines that are no sequence and no /JPEGImages/480p/NAME/FRAME: download it again"
            )
        return list(dict.fromkeys(of_name[3 if len(of_name) == 5 else 0] for of_name in parts))

    def __len__(self) -> int:
        return len(self.names)

    def frames(self, name: str) -> list[epath.Path]:
        """The frames of a sequence, by their numbers.

        Raises:
          UserError: the sequence has no folder.
        """
        folder = epath.Path(self.root) / "JPEGImages" / "480p" / name
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist: the data set is not complete")
        return list_frames(folder)

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """Asks for the last frame, with evenly spread earlier frames as support; the seed has no effect."""
        name = self.names[index % len(self.names)]
        frames = self.frames(name)
        if len(frames) <= shots:
            raise UserError(
                f"sequence {name} has {len(frames)} frames: {shots} shots need one more"
            )
        places = np.linspace(0, len(frames) - 1, shots + 1).round().astype(int)
        *support, last = (self._pair(name, frames[i]) for i in places)
        return Episode(support, *last, key=name)

    def _pair(self, name: str, frame: epath.Path) -> tuple[Picture, Picture]:
        mask = epath.Path(self.root) / "Annotations" / "480p" / name / f"{frame.stem}.png"
        picture, ids = load_with_ids(frame, mask)
        return picture, mask_to_rgb(ids > 0)
