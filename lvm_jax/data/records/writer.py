"""Writing a record file and its index, so that a reader sees either both, whole, or neither."""

from types import TracebackType
from typing import IO, Self

import google_crc32c
from etils import epath

from lvm_jax import files
from lvm_jax.data.records.framing import MAX_RECORD_BYTES, frame
from lvm_jax.data.records.record_index import BARE, Facts, IndexBuilder, Schema, write_index
from lvm_jax.errors import UserError


class TFRecordWriter:
    """Writes a record file and its index; neither has its final name before both are complete.

    Use it as a context manager. A normal exit syncs and renames the index, then the data; an exception removes what
    was written and leaves an older file as it was.

        with TFRecordWriter("images.tfrecord-00000-of-00016") as writer:
            writer.write(record)

    Args:
      path: of the record file, local or remote (gs://, which needs the extra `gs`).
      schema: what the index says of each record.
    """

    def __init__(self, path: epath.PathLike, schema: Schema = BARE):
        self.path = epath.Path(path)
        self._schema = schema
        self._temporary = files.temporary_name(self.path)
        self._file: IO[bytes] | None = None
        self._index = IndexBuilder(schema)
        self._position = 0

    def __len__(self) -> int:
        """Number of records written."""
        return len(self._index)

    def __enter__(self) -> Self:
        self._file = self._temporary.open("wb")
        return self

    def write(self, record: bytes, facts: Facts | None = None) -> None:
        """Appends one record.

        Args:
          record: its data.
          facts: what the schema would find in `record`; saves parsing it, if the caller knows.

        Raises:
          UserError: the record is longer than `MAX_RECORD_BYTES`, or the writer is not open.
        """
        if self._file is None:
            raise UserError(
                f"{self.path} is not open: write inside `with TFRecordWriter(path) as writer`"
            )
        if len(record) > MAX_RECORD_BYTES:
            raise UserError(
                f"a record of {len(record)} bytes exceeds {MAX_RECORD_BYTES}: split it into several"
            )
        framed = frame(record)
        self._file.write(framed)
        found = self._schema.describe(record) if facts is None else facts
        self._index.add(self._position, google_crc32c.value(framed), found)
        self._position += len(framed)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        file, self._file = self._file, None
        assert file is not None  # __enter__ opened it
        try:
            if kind is None:
                files.sync(file, self.path)
            file.close()
            if kind is None:
                write_index(self.path, self._index.finish(self._position))
                # The data get their name last: a shard that can be seen is complete and has its index.
                self._temporary.replace(self.path)
                files.sync_folder(self.path.parent)
        finally:
            self._temporary.unlink(missing_ok=True)
