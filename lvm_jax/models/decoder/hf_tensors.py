"""Reads a decoder's parameters from the tensors of a family's folder, slice by slice, and converts them back.

Shapes: V published vocabulary, P the vocabulary table (V padded), D hidden size, L repeats of a stacked parameter.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.hf_family import HEAD, Family, Place
from lvm_jax.weights.tensor_files import Tensors

_LAYERS = "layers."  # our paths inside blocks begin so


def tensor_shapes(
    family: Family,
    config: DecoderConfig,
    parameters: Mapping[str, tuple[int, ...]],
    prefix: str | None = None,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors in a folder.

    Args:
      family: of the folder.
      config: the decoder.
      parameters: shapes of our parameters by dotted path; those of blocks are stacked.
      prefix: one of the family's; default: the one that we write.
    """
    prefix = family.prefixes[0] if prefix is None else prefix
    table = (config.vocab_size, config.hidden_size)
    shapes: dict[str, tuple[int, ...]] = {prefix + family.embedding: table}
    if not config.tie_word_embeddings:
        shapes[HEAD] = table
    for path, place in family.top.items():
        shapes[prefix + place.name] = parameters[path]
    for path, place in family.block.items():
        repeats, *inner = parameters[_LAYERS + path]
        shape = their_shape(place, tuple(inner))
        for layer in range(repeats):
            shapes[prefix + family.layer.format(layer) + place.name] = shape
    return shapes


def their_shape(place: Place, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a layer's tensor, from that of our parameter."""
    outputs = math.prod(shape[place.inputs :]) * place.pieces
    if not place.inputs:
        return (outputs,)
    inputs = math.prod(shape[: place.inputs])
    return (outputs, inputs) if place.transposed else (inputs, outputs)


def to_hugging_face(
    family: Family, config: DecoderConfig, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Their tensors from ours: renamed, unstacked, transposed, fused, and cut to V rows; values do not change.

    Args:
      family: of the folder.
      config: the decoder.
      tensors: our parameters by dotted path; those of blocks are stacked.
    """
    rows, prefix = config.vocab_size, family.prefixes[0]
    theirs = {prefix + family.embedding: tensors["embedding"][:rows]}
    if not config.tie_word_embeddings:
        theirs[HEAD] = tensors["head"][:, :rows].T
    for path, place in family.top.items():
        theirs[prefix + place.name] = tensors[path]
    fused: dict[str, dict[int, np.ndarray]] = {}
    for path, place in family.block.items():
        for layer, tensor in enumerate(tensors[_LAYERS + path]):
            name = prefix + family.layer.format(layer) + place.name
            fused.setdefault(name, {})[place.piece] = matrix_of(place, tensor)
    for name, pieces in fused.items():
        # Fused tensors are (inputs, outputs), and vectors have outputs only, so outputs are the last axis.
        inner = [pieces[piece] for piece in range(len(pieces))]
        theirs[name] = inner[0] if len(inner) == 1 else np.concatenate(inner, axis=-1)
    return theirs


def matrix_of(place: Place, tensor: np.ndarray) -> np.ndarray:
    """One layer's tensor from our parameter, or our piece of a fused one."""
    if not place.inputs:
        return tensor
    matrix = tensor.reshape(math.prod(tensor.shape[: place.inputs]), -1)
    return matrix.T if place.transposed else matrix


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads slices of our parameters from open files.

    Attributes:
      files: the folder's files.
      family: of the folder.
      config: the decoder.
    """

    files: Tensors
    family: Family
    config: DecoderConfig

    @property
    def prefix(self) -> str:
        """The family's prefix that the files use: exports of the bare model leave out some of it."""
        table = self.family.embedding
        found = (p for p in self.family.prefixes if p + table in self.files.shapes)
        return next(found, self.family.prefixes[0])

    def stored_parameters(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that are parameters. Others follow from the configuration: rotary frequencies and
        causal masks in older exports, and the head of a tied decoder.
        """
        tied = {HEAD} if self.config.tie_word_embeddings else set()
        return {
            name: shape
            for name, shape in self.files.shapes.items()
            if name not in tied and not name.endswith(self.family.no_parameters)
        }

    def read(self, path: str, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
        """The slice `index` of our parameter `path`, whose whole shape is `shape`."""
        if path == "embedding":
            return self._read_rows(self.prefix + self.family.embedding, *index)
        if path == "head":
            columns, rows = index
            return self._read_rows(HEAD, rows, columns).T
        if not path.startswith(_LAYERS):
            return self.files.read(self.prefix + self.family.top[path].name, index)
        place = self.family.block[path.removeprefix(_LAYERS)]
        layers, *inner = index
        names = [
            self.prefix + self.family.layer.format(i) for i in range(layers.start, layers.stop)
        ]
        return np.stack(
            [
                read_place(self.files, name + place.name, place, shape[1:], tuple(inner))
                for name in names
            ]
        )

    def _read_rows(self, name: str, rows: slice, columns: slice) -> np.ndarray:
        """Rows of a vocabulary table; zeros beyond its end, where our table is padded."""
        first, last = (min(end, self.config.vocab_size) for end in (rows.start, rows.stop))
        padding = rows.stop - rows.start - (last - first)
        if first == last:
            return np.zeros((padding, columns.stop - columns.start), np.float32)
        block = self.files.read(name, (slice(first, last), columns))
        return np.pad(block, ((0, padding), (0, 0)))


def read_place(
    files: Tensors,
    name: str,
    place: Place,
    shape: tuple[int, ...],
    index: tuple[slice, ...],
) -> np.ndarray:
    """A slice of one layer's parameter. Their tensor has at most two dimensions; ours has several for each.

    Args:
      files: hold the tensor.
      name: of the tensor.
      place: where in it the parameter lies.
      shape: of the whole parameter.
      index: the slice.
    """
    before = place.piece * math.prod(shape[place.inputs :])  # outputs of the pieces before ours
    columns = _outermost(shape[place.inputs :], index[place.inputs :], before)
    if not place.inputs:
        return files.read(name, (columns,))
    rows = _outermost(shape[: place.inputs], index[: place.inputs])
    block = (
        files.read(name, (columns, rows)).T
        if place.transposed
        else files.read(name, (rows, columns))
    )
    # Of inputs and of outputs, a slice of the outermost dimension is contiguous in the file and was read as such;
    # slices of the inner dimensions are taken here.
    sizes = [
        s.stop - s.start if i in (0, place.inputs) else size
        for i, (s, size) in enumerate(zip(index, shape))
    ]
    cut = [slice(None) if i in (0, place.inputs) else s for i, s in enumerate(index)]
    return block.reshape(sizes)[tuple(cut)]


def _outermost(dims: tuple[int, ...], index: tuple[slice, ...], before: int = 0) -> slice:
    """The slice of their one dimension that covers `index[0]` of our several, shifted by `before`."""
    step = math.prod(dims[1:])
    return slice(before + index[0].start * step, before + index[0].stop * step)
