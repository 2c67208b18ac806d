"""The files in an uncompressed tar, read in place."""

import tarfile
from typing import NamedTuple

from etils import epath

from lvm_jax.errors import UserError


class Place(NamedTuple):
    """Where the bytes of a member lie in its tar."""

    offset: int
    size: int


def list_members(path: epath.PathLike) -> list[tuple[str, Place]]:
    """The files of a tar, in order, each with its place; seeks from header to header and reads no contents.

    Raises:
      UserError: the file is missing, not a tar, compressed or cut short.
    """
    try:
        with epath.Path(path).open("rb") as opened, tarfile.open(fileobj=opened, mode="r:") as tar:
            return [(m.name, Place(m.offset_data, m.size)) for m in tar if m.isfile()]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(
            f"{path} is no whole tar ({error}): copy or build it again, or leave it out; a compressed tar cannot be "
            "indexed"
        ) from error


def read_member(path: epath.PathLike, place: Place) -> bytes:
    """Reads a member of the tar at `path`."""
    with epath.Path(path).open("rb") as opened:
        opened.seek(place.offset)
        return opened.read(place.size)
