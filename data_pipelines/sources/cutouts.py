"""Cut-outs pasted on photographs: real pixels with exact masks, as many as you want.

Shape legend: H, W of the cut-out; its 4 channels are RGBA.
"""

import dataclasses
import functools

import numpy as np
from etils import epath
from jaxtyping import Float32
from PIL import Image as PILImage

from data_pipelines.chance import hash64
from data_pipelines.items import PictureItem
from data_pipelines.sources.backgrounds import background, list_backgrounds
from data_pipelines.sources.base import BadItem
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps
from lvm_jax.pictures.decode import BadImage, load_rgba
from lvm_jax.pictures.listing import list_files
from lvm_jax.pictures.resize import resize_and_crop


@dataclasses.dataclass(frozen=True)
class Cutouts:
    """Each cut-out of `root` on `variants` backgrounds: `{"image": [x], "mask": [m], "box": [b]}`.

    The key, `animals/cat.png#3`, decides place, size, mirroring and background. The mask is the object in white on
    black, the box its bounding box, filled. To hold out whole objects, set an entry's `together="(.*)#[0-9]+"`.

    Attributes:
      root: folder of pictures with an alpha channel, also in sub-folders; a picture without one is a bad item.
      backgrounds: folder of photographs.
      variants: composites per cut-out.
      size: of the square composite, pixels.
      scale: range of the object's long side, a fraction of `size`.
      seed: of every draw.
    """

    root: str
    backgrounds: str = ""
    variants: int = 8
    size: int = 256
    scale: tuple[float, ...] = (0.35, 0.8)
    seed: int = 0
    name: str = "cutouts"
    licence: str = "unknown"
    origin: str = ""
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self):
        if min(self.variants, self.size) < 1:
            raise UserError(
                f"variants is {self.variants}, size {self.size}: they must be at least 1"
            )
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"scale is {self.scale}: it must be (low, high), above 0 and at most 1")

    def keys(self) -> list[str]:
        """`path#variant`; see `Source`."""
        paths = list_files(self.root, (".png", ".webp"), "cut-outs")
        list_backgrounds(self.backgrounds)
        return sorted(f"{path}#{i}" for path in paths for i in range(self.variants))

    def load(self, key: str) -> PictureItem:
        """One composite; see `Source`."""
        rng = np.random.default_rng([self.seed, hash64(key)])
        photographs = list_backgrounds(self.backgrounds)
        chosen = photographs[int(rng.integers(len(photographs)))]
        photograph = background(self.backgrounds, chosen, 2 * self.size, key)
        behind = resize_and_crop(photograph, self.size, "random", rng).astype(np.float32)
        object_HW4 = self._object(key.rpartition("#")[0], key, rng)
        height, width = object_HW4.shape[:2]
        y, x = (int(rng.integers(self.size - side + 1)) for side in (height, width))
        alpha = np.zeros((self.size, self.size, 1), np.float32)
        alpha[y : y + height, x : x + width] = object_HW4[..., 3:] / 255
        pasted = np.zeros_like(behind)
        pasted[y : y + height, x : x + width] = object_HW4[..., :3]
        image = np.round(pasted * alpha + behind * (1 - alpha)).astype(np.uint8)
        # A border pixel counts if the object covers more than half of it.
        inside = alpha[..., 0] > 0.5
        if not inside.any():
            raise BadItem(key, "is transparent everywhere")
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = np.zeros_like(inside)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        return {
            "image": [image],
            "mask": [maps.mask_to_rgb(inside)],
            "box": [maps.mask_to_rgb(box)],
        }

    def _object(
        self, path: str, key: str, rng: np.random.Generator
    ) -> Float32[np.ndarray, "H W 4"]:
        """The cut-out at its size in the composite, without transparent borders, perhaps mirrored."""
        try:
            cut = _cut_out(str(epath.Path(self.root) / path), 2 * self.size)
        except BadImage as error:
            raise BadItem(key, error.why) from error
        long_side = rng.uniform(self.scale[0], self.scale[1]) * self.size
        factor = long_side / max(cut.size)
        width, height = (max(1, round(side * factor)) for side in cut.size)
        resized = np.asarray(cut.resize((width, height), PILImage.Resampling.LANCZOS), np.float32)
        return resized[:, ::-1] if rng.integers(2) else resized


# Kept at twice the needed size: each is used many times.
@functools.lru_cache(maxsize=1024)
def _cut_out(path: str, long_side: int) -> PILImage.Image:
    """RGBA without transparent borders, shrunk.

    Raises:
      BadImage: as `load_rgba`, or the alpha channel is empty.
    """
    cut = PILImage.fromarray(load_rgba(path))
    bounds = cut.getchannel("A").getbbox()
    if bounds is None:
        raise BadImage(path, "is transparent everywhere")
    cut = cut.crop(bounds)
    cut.thumbnail((long_side, long_side), PILImage.Resampling.LANCZOS)
    return cut
