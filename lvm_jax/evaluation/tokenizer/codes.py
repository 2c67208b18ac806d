"""Are a tokenizer's codes easy to learn? How local and how canonical they are, and what neighbours tell of a code.

A decoder predicts an answer's codes from the query's. It can do so by few examples if a code depends on its own cell
alone (local), and if equal patches have equal codes (canonical). Reconstruction measures neither.

M: images, B: pictures made of them, G: codes a side, C: the channels R, G, B, H, W: pixels.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8

from lvm_jax.data.splits import spread
from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.tokenizer.code_entropy import code_entropies
from lvm_jax.inference.codec import encode_images
from lvm_jax.models.tokenizer.vqgan import VQGAN

_CELLS = 4  # tried in each image
_FLAT_LEVELS = (0, 85, 170, 255)  # of each channel: 64 colours
_SMALL_GRID = "needs a grid of at least 4 codes a side"


class CodesEvaluator:
    """Locality, canonicity and entropy of codes.

    Results, all but the entropies shares in [0, 1]:
      local/cell: the code stays when all of the picture outside its cell is another picture's.
      local/window_3x3: the same, with the eight cells around left as they are.
      local/by_chance: the other picture has this code there anyway: what no locality at all would give.
      shift/stays: codes move along when the picture moves by a cell; the outermost codes are not counted.
      shift/by_chance: the code to be expected stood there before the shift.
      flat/codes: different codes in a picture of one colour, mean over 64 colours; 1 is canonical.
      flat/commonest: share of the most common of them.
      tiled/inside, tiled/border: in a picture of equal patches, cells with the most common code; inside, and in the
        outermost cells.
      entropy/unigram, entropy/left, entropy/left_and_upper: nats a code, see `code_entropy`.

    Args:
      images_MHWC: held out, of the tokenizer's size, alike images side by side.
      probed: images to make the pictures for locality and canonicity from, evenly spread; entropies use all.
      seed: draws the cells.
      batch_size: images at once.

    Raises:
      UserError: there are fewer than two images.
    """

    name = "codes"

    def __init__(
        self,
        images_MHWC: UInt8[np.ndarray, "M H W C"],
        *,
        probed: int = 64,
        seed: int = 0,
        batch_size: int = 16,
    ) -> None:
        if len(images_MHWC) < 2:
            raise UserError(
                f"{len(images_MHWC)} images to encode: codes are compared between pictures, so give at least 2"
            )
        self._images, self._seed, self._batch_size = images_MHWC, seed, batch_size
        self._probed = spread(len(images_MHWC), probed)

    def run(self, subject: VQGAN) -> Result:
        """Encodes the images, and pictures made of them."""
        codes_MGG = self._encode(subject, self._images)
        images, codes = self._images[self._probed], codes_MGG[self._probed]
        # Half the set away, as neighbours may show the same scene.
        others = np.roll(np.arange(len(images)), len(images) // 2)
        result: Result = {"images": len(images)}
        result |= self._locality(subject, images, codes, others)
        result |= self._shift(subject, images, codes, others)
        result |= self._flat(subject)
        result |= self._tiled(subject, images)
        entropies = code_entropies(codes_MGG, subject.codebook_size)
        result |= {f"entropy/{name}": value for name, value in entropies.items()}
        return result

    def _encode(self, vqgan: VQGAN, images_BHWC: np.ndarray) -> Int[np.ndarray, "B G G"]:
        side = _codes_a_side(vqgan)
        return encode_images(vqgan, images_BHWC, self._batch_size).reshape(-1, side, side)

    def _locality(
        self, vqgan: VQGAN, images: np.ndarray, codes: np.ndarray, others: np.ndarray
    ) -> Result:
        side = codes.shape[1]
        cell = images.shape[1] // side
        m = np.repeat(np.arange(len(images)), _CELLS)
        y, x = np.random.default_rng(self._seed).integers(0, side, (2, len(m)))
        result: Result = {}
        for name, reach in (("cell", 0), ("window_3x3", 1)):
            mixed = images[others[m]]
            for picture, i, row, column in zip(mixed, m, y, x):
                # A slice may end beyond the picture, but not begin before it.
                rows, columns = (
                    slice(cell * max(0, at - reach), cell * (at + reach + 1))
                    for at in (row, column)
                )
                picture[rows, columns] = images[i][rows, columns]
            found = self._encode(vqgan, mixed)[np.arange(len(m)), y, x]
            result[f"local/{name}"] = float(np.mean(found == codes[m, y, x]))
        result["local/by_chance"] = float(np.mean(codes[others[m], y, x] == codes[m, y, x]))
        return result

    def _shift(
        self, vqgan: VQGAN, images: np.ndarray, codes: np.ndarray, others: np.ndarray
    ) -> Result:
        side = codes.shape[1]
        cell = images.shape[1] // side
        if side < 4:
            return {"shift/stays": _SMALL_GRID, "shift/by_chance": _SMALL_GRID}
        stays, by_chance = [], []
        for axis in (1, 2):
            # What moves in is another picture's: one that wraps around would be the same picture to a network that
            # looks at all of it.
            strip = (*[slice(None)] * axis, slice(0, cell))
            moved = np.roll(images, cell, axis)
            moved[strip] = images[others][strip]
            found, before = self._encode(vqgan, moved), np.roll(codes, 1, axis)
            # Inside means: not at the border, neither before the shift nor after.
            inside = [slice(None), slice(1, -1), slice(1, -1)]
            inside[axis] = slice(2, -1)
            inside = tuple(inside)
            stays += (found[inside] == before[inside]).ravel().tolist()
            by_chance += (codes[inside] == before[inside]).ravel().tolist()
        return {
            "shift/stays": float(np.mean(stays)),
            "shift/by_chance": float(np.mean(by_chance)),
        }

    def _flat(self, vqgan: VQGAN) -> Result:
        size = vqgan.config.resolution
        colours = np.array(list(itertools.product(_FLAT_LEVELS, repeat=3)), np.uint8)
        pictures = np.broadcast_to(colours[:, None, None], (len(colours), size, size, 3))
        codes = self._encode(vqgan, pictures)
        commonest = [np.mean(_is_commonest(grid)) for grid in codes]
        return {
            "flat/codes": float(np.mean([len(np.unique(grid)) for grid in codes])),
            "flat/commonest": float(np.mean(commonest)),
        }

    def _tiled(self, vqgan: VQGAN, images: np.ndarray) -> Result:
        side = _codes_a_side(vqgan)
        cell = images.shape[1] // side
        corners = np.random.default_rng(self._seed).integers(0, side, (len(images), 2)) * cell
        patches = [picture[y : y + cell, x : x + cell] for picture, (y, x) in zip(images, corners)]
        codes = self._encode(vqgan, np.stack([np.tile(p, (side, side, 1)) for p in patches]))
        common = np.stack([_is_commonest(grid) for grid in codes])
        inside = np.zeros((side, side), bool)
        inside[1:-1, 1:-1] = True
        return {
            "tiled/inside": _mean(common[:, inside]),
            "tiled/border": _mean(common[:, ~inside]),
        }


def _codes_a_side(vqgan: VQGAN) -> int:
    return round(vqgan.tokens_per_image**0.5)


def _is_commonest(grid: Int[np.ndarray, "G G"]) -> Bool[np.ndarray, "G G"]:
    values, counts = np.unique(grid, return_counts=True)
    return grid == values[counts.argmax()]


def _mean(shares: Sequence[bool] | np.ndarray) -> float | str:
    """The mean, or why there is none: a grid of one or two codes a side has no inside."""
    return float(np.mean(shares)) if np.size(shares) else "the grid has no such cell"
