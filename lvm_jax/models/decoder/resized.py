"""A published decoder's weights in one that has other ids or more learned positions.

New rows of the vocabulary begin as the mean of the others, so that their logits are ordinary ones. More positions are
interpolated: position p of P reads between the two published ones around p P0 / P, as in Chen et al. (arXiv
2306.15595), and position 0 stays what it was.

Shapes: V rows of the vocabulary, P positions, D hidden size.
"""

import dataclasses
import functools
from collections.abc import Collection

import numpy as np
from etils import epath
from flax import nnx

from lvm_jax.models.decoder import hf_folder
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.weights.streamed import fill
from lvm_jax.weights.tensor_files import TensorFiles

_ROWS_AT_ONCE = 8192
_POSITIONS = "positions.table"


def load_resized(
    directory: epath.PathLike, config: DecoderConfig, new_ids: Collection[int]
) -> nnx.State:
    """The parameters of a folder, streamed as `fill` does, for a decoder of another vocabulary or with more positions.

    Args:
      directory: holds a decoder that differs from `config` in those only.
      config: the decoder, without adapters.
      new_ids: ids that the folder has no meaning for, even if it has rows for them. Those beyond its vocabulary are new
        anyway.

    Raises:
      UserError: as in `hf_folder.check_fits` and `hf_folder.load`.
    """
    found = hf_folder.load_config(directory)
    theirs = dataclasses.replace(
        config,
        vocab_size=found.vocab_size,
        max_position_embeddings=found.max_position_embeddings,
        bos_token_id=found.bos_token_id,
        eos_token_id=found.eos_token_id,
        pad_token_id=found.pad_token_id,
    )
    hf_folder.check_fits(directory, theirs)
    abstract = nnx.state(Decoder.abstract(theirs))
    with TensorFiles(directory) as files:
        reader = hf_folder.open_reader(files, directory, theirs, abstract)
        resized = _Resized(reader, theirs, config, frozenset(new_ids))
        return fill(nnx.state(Decoder.abstract(config)), resized.read)


class _Resized:
    """Reads slices of the resized parameters, and of all others as they are."""

    def __init__(
        self,
        reader: hf_folder.AnyReader,
        theirs: DecoderConfig,
        ours: DecoderConfig,
        new_ids: frozenset[int],
    ) -> None:
        self._reader, self._theirs, self._ours, self._new_ids = reader, theirs, ours, new_ids
        # Each table's mean is over one reading of it.
        self._mean = functools.cache(self._mean_of_known)

    def read(self, path: str, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
        """The slice `index` of the parameter `path`, whose whole shape is `shape`."""
        if path == "embedding":
            return self._rows(path, *index)
        if path == "head":
            columns, rows = index
            return self._rows(path, rows, columns).T
        if path == _POSITIONS:
            return self._positions(*index)
        return self._reader.read(path, shape, index)

    def _rows(self, path: str, rows: slice, columns: slice) -> np.ndarray:
        known = min(rows.stop, self._theirs.vocab_size)
        block = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32)
        if rows.start < known:
            block[: known - rows.start] = self._their_rows(path, slice(rows.start, known), columns)
        ids = np.arange(rows.start, rows.stop)
        is_new = np.isin(ids, list(self._new_ids)) | (ids >= self._theirs.vocab_size)
        if is_new.any():
            block[is_new] = self._mean(path)[columns]
        block[ids >= self._ours.vocab_size] = 0  # the padding of our table
        return block

    def _their_rows(self, path: str, rows: slice, columns: slice) -> np.ndarray:
        size, width = self._theirs.padded_vocab_size, self._theirs.hidden_size
        if path == "head":
            return self._reader.read(path, (width, size), (columns, rows)).T
        return self._reader.read(path, (size, width), (rows, columns))

    def _mean_of_known(self, path: str) -> np.ndarray:
        first_new = min((*self._new_ids, self._theirs.vocab_size))
        total = np.zeros(self._theirs.hidden_size)
        for start in range(0, first_new, _ROWS_AT_ONCE):
            rows = slice(start, min(first_new, start + _ROWS_AT_ONCE))
            block = self._their_rows(path, rows, slice(0, len(total)))
            total += block.sum(axis=0, dtype=np.float64)
        return (total / max(first_new, 1)).astype(np.float32)

    def _positions(self, rows: slice, columns: slice) -> np.ndarray:
        offset, count = self._theirs.position_offset, self._theirs.max_position_embeddings
        shape = (offset + count, self._theirs.hidden_size)
        table = self._reader.read(_POSITIONS, shape, (slice(0, shape[0]), columns))
        unused, known = table[:offset], table[offset:].astype(np.float32)
        ours = self._ours.max_position_embeddings
        places = np.minimum(np.arange(ours) * (count / ours), count - 1)
        below = places.astype(np.int64)
        share = (places - below)[:, None].astype(np.float32)
        above = np.minimum(below + 1, count - 1)
        between = (1 - share) * known[below] + share * known[above]
        return np.concatenate([unused, between])[rows]
