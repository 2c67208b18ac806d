"""Our own digests of a checkpoint's files, because Orbax restores a flipped byte without a word.

A list of digests is a text file in the checkpoint's folder. Its first line is the CRC32C of the second, which is JSON:
path of a file -> [bytes, CRC32C of each 16 MiB]. The 16 MiB let all cores share a large file. A list is renamed into
place, so it is whole or absent.
"""

import concurrent.futures
import json
from collections.abc import Iterable

import google_crc32c
from etils import epath

from lvm_jax import files

CONTENTS = "digests.txt"  # what the folder holds before the commit
COMMIT = "digests.commit.txt"  # what the commit adds or rewrites
_LISTS = (CONTENTS, COMMIT)
_PIECE = 16 << 20
_THREADS = 8


def files_of(folder: epath.PathLike) -> list[str]:
    """Paths of the files below `folder`, relative to it and sorted, without the lists themselves."""
    found = []
    for path in epath.Path(folder).iterdir():
        if path.is_dir():
            found += [f"{path.name}/{name}" for name in files_of(path)]
        elif path.name not in _LISTS:
            found.append(path.name)
    return sorted(found)


def write(folder: epath.PathLike, names: Iterable[str], list_name: str) -> None:
    """Writes the list of `names` into `folder`, atomically."""
    folder = epath.Path(folder)
    line = json.dumps(_digests(folder, sorted(names)))
    files.write(folder / list_name, f"{google_crc32c.value(line.encode()):08x}\n{line}\n")


def damaged(folder: epath.PathLike, part: int = 0, parts: int = 1) -> list[str]:
    """Files of `folder` that are missing or differ from what was written, each with what is wrong.

    Args:
      folder: a committed checkpoint.
      part: which share of the files to read; the lists are read in any case.
      parts: number of shares, such as the number of hosts.
    """
    folder = epath.Path(folder)
    expected: dict[str, list[int]] = {}
    wrong = []
    for list_name in _LISTS:
        path = folder / list_name
        if not path.exists():
            # A process killed right after the commit leaves no second list; all that was trained is in the first.
            wrong += [f"{list_name} (missing)"] if list_name == CONTENTS else []
            continue
        listed = _read(path)
        if listed is None:
            wrong.append(f"{list_name} (its digest differs)")
        expected.update(listed or {})
    mine = sorted(expected)[part::parts]
    found = _digests(folder, [name for name in mine if (folder / name).exists()])
    return wrong + [
        f"{name} ({_difference(found.get(name), expected[name])})"
        for name in mine
        if found.get(name) != expected[name]
    ]


def _digests(folder: epath.Path, names: Iterable[str]) -> dict[str, list[int]]:
    sizes = {name: (folder / name).stat().length for name in names}
    pieces = [(name, start) for name, size in sizes.items() for start in range(0, size, _PIECE)]
    digests = {name: [size] for name, size in sizes.items()}
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for (name, _), crc in zip(pieces, pool.map(lambda p: _crc(folder / p[0], p[1]), pieces)):
            digests[name].append(crc)
    return digests


def _crc(path: epath.Path, start: int) -> int:
    with path.open("rb") as file:
        file.seek(start)
        return google_crc32c.value(file.read(_PIECE))


def _difference(found: list[int] | None, expected: list[int]) -> str:
    if found is None:
        return "missing"
    if found[0] != expected[0]:
        return f"{found[0]} bytes instead of {expected[0]}"
    return "its digest differs"


def _read(path: epath.Path) -> dict[str, list[int]] | None:
    """The files of a list, or None if the list itself is damaged."""
    head, _, line = path.read_bytes().partition(b"\n")
    if head != b"%08x" % google_crc32c.value(line.removesuffix(b"\n")) or not line.endswith(b"\n"):
        return None
    return json.loads(line)
