"""Where the records of several files come from: one numbering of the origins that their indices name.

Shape legend: N records.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt16

from lvm_jax.data.mixture import Origin
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.records.record_index import MAX_ORIGINS
from lvm_jax.data.records.shards import SHARD_NAME
from lvm_jax.errors import UserError


def origins_of(
    files: Sequence[RecordFile], category_name: Callable[[int, RecordFile], str]
) -> tuple[list[Origin], UInt16[np.ndarray, " N"]]:
    """The origins of all files, and the number of each record's origin.

    Args:
      files: shards, as `find_shards` found them.
      category_name: of a category's number; it may refuse one that the file must not have.

    Raises:
      UserError: more than `MAX_ORIGINS` origins.
    """
    numbers: dict[Origin, int] = {}
    columns = []
    for file in files:
        match = SHARD_NAME.fullmatch(file.path.name)
        assert match is not None  # find_shards matched it
        # Each index numbers its own origins: give them numbers over all files.
        renumbered = [
            numbers.setdefault(
                Origin(match["name"], source, category_name(category, file)), len(numbers)
            )
            for source, category in file.index.origins
        ]
        if len(numbers) > MAX_ORIGINS:
            raise UserError(
                f"more than {MAX_ORIGINS} sources: `source` names a data set, `key` the item"
            )
        # The extra 0 is for a file of bad records only: it has no origins, but its records all say origin 0.
        columns.append(np.array([*renumbered, 0], np.uint16)[file.index.origin])
    return list(numbers), np.concatenate(columns)
