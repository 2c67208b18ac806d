"""Where a tower's parameters lie among published tensors, and how a slice of one is read.

A `Form` says how a tensor's dimensions correspond to ours. `Located` adds the tensors' names, one for each block if
ours is stacked over blocks.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from lvm_jax.models.decoder.hf_family import Place
from lvm_jax.models.decoder.hf_tensors import matrix_of, read_place, their_shape
from lvm_jax.weights.tensor_files import Tensors

Shape = tuple[int, ...]
Index = tuple[slice, ...]


class Form(Protocol):
    """How the dimensions of a published tensor correspond to those of our parameter."""

    def shape(self, ours: Shape) -> Shape:
        """The tensor's shape."""
        ...

    def read(self, files: Tensors, tensor: str, shape: Shape, index: Index) -> np.ndarray:
        """A slice of our parameter, whose whole shape is `shape`."""
        ...

    def write(self, ours: np.ndarray) -> np.ndarray:
        """The tensor, or our piece of it along its first dimension; the inverse of `read`."""
        ...


class Same:
    """The tensor has our shape."""

    def shape(self, ours: Shape) -> Shape:
        """The tensor's shape."""
        return ours

    def read(self, files: Tensors, tensor: str, shape: Shape, index: Index) -> np.ndarray:
        """A slice of our parameter."""
        return files.read(tensor, index)

    def write(self, ours: np.ndarray) -> np.ndarray:
        """The tensor."""
        return ours


class Kernel:
    """A convolution's kernel: theirs is OIHW, ours HWIO."""

    def shape(self, ours: Shape) -> Shape:
        """The tensor's shape."""
        return ours[3], ours[2], *ours[:2]

    def read(self, files: Tensors, tensor: str, shape: Shape, index: Index) -> np.ndarray:
        """A slice of our parameter."""
        block = files.read(tensor, (index[3], index[2], *index[:2]))
        return block.transpose(2, 3, 1, 0)

    def write(self, ours: np.ndarray) -> np.ndarray:
        """The tensor."""
        return ours.transpose(3, 2, 0, 1)


@dataclasses.dataclass(frozen=True)
class OneOf:
    """The tensor has first dimensions of 1, for broadcasting.

    Attributes:
      ones: how many.
    """

    ones: int = 1

    def shape(self, ours: Shape) -> Shape:
        """The tensor's shape."""
        return *(1,) * self.ones, *ours

    def read(self, files: Tensors, tensor: str, shape: Shape, index: Index) -> np.ndarray:
        """A slice of our parameter."""
        block = files.read(tensor, (*(slice(0, 1),) * self.ones, *index))
        return block.reshape(block.shape[self.ones :])

    def write(self, ours: np.ndarray) -> np.ndarray:
        """The tensor."""
        return ours.reshape(self.shape(ours.shape))


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A torch.nn.Linear's weight or bias, perhaps fused with others along its outputs.

    Attributes:
      inputs: how many of our first dimensions are inputs; 0: a bias.
      piece: which of the `pieces` equal pieces of the outputs is ours.
      pieces: how many of our parameters share the tensor.
    """

    inputs: int
    piece: int = 0
    pieces: int = 1

    def _place(self, tensor: str) -> Place:
        return Place(tensor, self.inputs, piece=self.piece, pieces=self.pieces)

    def shape(self, ours: Shape) -> Shape:
        """The tensor's shape."""
        return their_shape(self._place(""), ours)

    def read(self, files: Tensors, tensor: str, shape: Shape, index: Index) -> np.ndarray:
        """A slice of our parameter."""
        return read_place(files, tensor, self._place(tensor), shape, index)

    def write(self, ours: np.ndarray) -> np.ndarray:
        """The tensor, or our piece of its outputs."""
        return matrix_of(self._place(""), ours)


@dataclasses.dataclass(frozen=True)
class Located:
    """One of our parameters among their tensors.

    Attributes:
      form: of the tensors.
      tensors: their names: one, or one for each repeat of a stacked parameter.
      stacked: whether our parameter is stacked.
    """

    form: Form
    tensors: tuple[str, ...]
    stacked: bool = False

    def shapes(self, ours: Shape) -> dict[str, Shape]:
        """The tensors' shapes, from that of our parameter."""
        shape = self.form.shape(ours[1:] if self.stacked else ours)
        return dict.fromkeys(self.tensors, shape)

    def read(self, files: Tensors, shape: Shape, index: Index) -> np.ndarray:
        """A slice of our parameter, whose whole shape is `shape`."""
        if not self.stacked:
            return self.form.read(files, self.tensors[0], shape, index)
        layers, *inner = index
        return np.stack(
            [
                self.form.read(files, tensor, shape[1:], tuple(inner))
                for tensor in self.tensors[layers]
            ]
        )


def to_published(
    places: Mapping[str, Located], tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Published tensors from ours: renamed, unstacked, in their shapes, pieces fused; values do not change.

    Args:
      places: our parameter -> where it lies; the pieces of a tensor follow each other.
      tensors: our parameters by dotted path.
    """
    pieces: dict[str, list[np.ndarray]] = {}
    for name, place in places.items():
        repeats = tensors[name] if place.stacked else tensors[name][None]
        for tensor, ours in zip(place.tensors, repeats, strict=True):
            pieces.setdefault(tensor, []).append(place.form.write(ours))
    return {tensor: np.concatenate(found) for tensor, found in pieces.items()}
