"""A source of your own, and shards made from it: clips that lie on disk as NumPy arrays.

python docs/examples/add_source.py
"""

import dataclasses
import pathlib
import tempfile

import numpy as np
from flax import nnx

from data_pipelines.build.recipe import Entry, Recipe
from data_pipelines.build_uvd import build
from data_pipelines.sentences import Video
from data_pipelines.sources.base import BadItem, Item
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.errors import UserError
from lvm_jax.models import VQGAN, presets


# --8<-- [start:source]
@dataclasses.dataclass(frozen=True)
class ArrayClips:
    """Every `KEY.npy` of a folder: uint8 (frames, height, width, 3).

    A source is a small frozen dataclass of paths and options, because Beam pickles it to its workers.
    """

    root: str
    name: str = "array_clips"
    licence: str = "unknown"
    origin: str = "made up"
    category: int = 3  # an unlabelled video

    def keys(self) -> list[str]:
        """Sorted and unique; the split of an item follows from its key."""
        keys = sorted(path.stem for path in pathlib.Path(self.root).glob("*.npy"))
        if not keys:
            raise UserError(f"{self.root} holds no clips: put .npy files there")
        return keys

    def load(self, key: str) -> Item:
        """The frames of one clip, RGB, of any size."""
        try:
            frames = np.load(pathlib.Path(self.root) / f"{key}.npy")
        except (OSError, ValueError) as error:
            # Not an error of the run: it is counted, named, and skipped up to the recipe's limit.
            raise BadItem(key, "cannot be read") from error
        return {"frame": list(frames)}


# --8<-- [end:source]


# --8<-- [start:build]
def make_shards(folder: pathlib.Path) -> Manifest:
    """Shards of 4-frame sentences, under a tokenizer with random weights."""
    clips = ArrayClips(str(folder / "clips"))
    recipe = Recipe(
        name="mine",
        entries=(Entry("clips", clips, Video(n_frames=4, strides=(1, 2))),),
        image_size=16,
        train_shards=1,
        validation_fraction=0.25,
        max_bad_items=1,
    )
    VQGAN(presets.vqgan("debug"), rngs=nnx.Rngs(0)).save_pretrained(folder / "tokenizer")
    return build(recipe, str(folder / "tokenizer"), folder / "shards")


# --8<-- [end:build]


def main(folder: pathlib.Path) -> Manifest:
    """Draws eight clips, writes them, and builds the shards; one clip is broken."""
    (folder / "clips").mkdir()
    for number in range(8):
        clip = np.random.default_rng(number).integers(0, 256, (10, 20, 24, 3), dtype=np.uint8)
        np.save(folder / "clips" / f"clip{number}.npy", clip)
    (folder / "clips" / "clip3.npy").write_bytes(b"cut short")
    return make_shards(folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        print(main(pathlib.Path(made)).sources)
