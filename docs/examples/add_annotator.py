"""An annotator of your own: a faded picture, whose answer is the picture itself.

python docs/examples/add_annotator.py
"""

import dataclasses
import pathlib
import tempfile

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_pipelines.annotators.base import ImageAnnotator
from data_pipelines.sentences import Pairs
from data_pipelines.sources import Annotated, ImageFolder

Picture = UInt8[np.ndarray, "H W 3"]


# --8<-- [start:annotator]
@dataclasses.dataclass(frozen=True)
class Faded(ImageAnnotator):
    """The picture with its contrast taken away: restoration asks for the way back.

    An annotator sees uint8 RGB and returns uint8 RGB of the same size.

    Attributes:
      least: of the contrast that is left; the rest is drawn.
    """

    least: float = 0.2

    def one(self, image: Picture, rng: np.random.Generator) -> Picture:
        """`rng` follows from the item's key and the role: the same key gives the same picture, on any machine."""
        contrast = rng.uniform(self.least, 0.6)
        return np.round(127.5 + contrast * (image - 127.5)).astype(np.uint8)


# --8<-- [end:annotator]


# --8<-- [start:use]
def faded_pairs(photographs: str, keys: list[str]) -> tuple[list[Picture], str]:
    """The images of one sentence, and its layout: faded, true, faded, true."""
    source = Annotated(ImageFolder(photographs), (("faded", Faded()),))
    composer = Pairs("faded", n_pairs=len(keys), annotation_first=True)
    return composer.compose([source.load(key) for key in keys], np.random.default_rng(0))


# --8<-- [end:use]


def main(folder: pathlib.Path) -> tuple[list[Picture], str]:
    """Two photographs of noise become one sentence."""
    keys = ["a.png", "b.png"]
    for seed, key in enumerate(keys):
        noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / key)
    return faded_pairs(str(folder), keys)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        images, layout = main(pathlib.Path(made))
        print(layout, [image.shape for image in images])
