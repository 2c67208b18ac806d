"""Finds shard files: by name and folder, and only if none is missing.

A data set is a folder `OUT/NAME/VERSION/` of shards `uvd_NAME-SPLIT.tfrecord-00000-of-00016` with a manifest.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from etils import epath

from lvm_jax import files
from lvm_jax.data.records import manifest as manifests
from lvm_jax.errors import UserError

Shards = epath.PathLike | Sequence[epath.PathLike]
# The prefix is optional: other tools do not write it.
SHARD_NAME = re.compile(
    r"(?:uvd_)?(?P<name>[a-z0-9_]+)-(?P<split>[a-z0-9_]+)\.tfrecord-(?P<index>\d{5})-of-(?P<count>\d{5})"
)


def find_shards(shards: Shards, split: str) -> dict[epath.Path, list[epath.Path]]:
    """Finds the shard files of a split, sorted, by data set folder.

    Args:
      shards: a data set's folder, a folder of data sets, a glob of either or of shard files, or a list of these; a
        string may hold several, separated by commas.
      split: such as "train".

    Raises:
      UserError: nothing matches, a shard of a folder is missing, no data set has the split, or a folder holds several
        versions of one data set.
    """
    entries: list[epath.PathLike]
    if not isinstance(shards, str):
        entries = list(shards) if isinstance(shards, Sequence) else [shards]
    elif epath.Path(shards).exists():  # its name may have a comma
        entries = [shards]
    else:
        entries = [part.strip() for part in shards.split(",") if part.strip()]
    found: dict[epath.Path, set[epath.Path]] = defaultdict(set)
    splits: set[str] = set()
    for path in (path for entry in entries for path in _expand(epath.Path(entry))):
        # Shards that are named one by one may be a subset; a folder must be complete.
        for folder in _one_version_each(path) if path.is_dir() else [path.parent]:
            for file in _complete(folder) if path.is_dir() else [path]:
                match = SHARD_NAME.fullmatch(file.name)
                if match:
                    splits.add(match["split"])
                if match and match["split"] == split:
                    found[folder].add(file)
    if not splits:
        raise UserError(
            f"{listed(entries)} has no shards (uvd_NAME-SPLIT.tfrecord-00000-of-00001): check the path"
        )
    if not found:
        raise UserError(
            f"{listed(entries)} has no split {split!r}: it has {', '.join(sorted(splits))}"
        )
    return {folder: sorted(found[folder]) for folder in sorted(found)}


def data_sets(folder: epath.PathLike) -> list[epath.Path]:
    """The sorted folders with a manifest: this one, or those at `NAME/VERSION` (or `VERSION`) below it."""
    folder, name = epath.Path(folder), manifests.FILE_NAME
    if (folder / name).exists():
        return [folder]
    return sorted(
        path.parent for levels in ("*", "*/*") for path in files.expand(folder / levels / name)
    )


def find_dataset(shards: epath.PathLike) -> epath.Path:
    """Finds the one data set of a folder: `shards` itself, or the only one below it.

    Raises:
      UserError: there is none, or several.
    """
    found = data_sets(shards)
    if len(found) != 1:
        raise UserError(
            f"{shards} holds {len(found)} finished data sets ({listed(found) or 'none'}): give the folder of one"
        )
    return found[0]


def listed(paths: Iterable[object]) -> str:
    """Joins paths for a message."""
    return ", ".join(map(str, paths))


def _expand(path: epath.Path) -> list[epath.Path]:
    """Expands a pattern; a plain path must exist."""
    matches = files.expand(path)
    if not matches:
        raise UserError(f"shards {str(path)!r} match nothing: check the path")
    return matches


def _one_version_each(folder: epath.Path) -> list[epath.Path]:
    """The data sets of a folder; refuses two versions of one, which would show their common sentences twice."""
    found = data_sets(folder)
    versions_of = defaultdict(list)
    for path in found:
        versions_of[path.parent].append(path.name)
    for parent, versions in versions_of.items():
        if len(versions) > 1 and all(map(manifests.VERSION.fullmatch, versions)):
            raise UserError(
                f"{parent} has the versions {', '.join(versions)}: name one, such as {parent / versions[-1]}"
            )
    return found


def _complete(folder: epath.Path) -> list[epath.Path]:
    """All shards of a folder; refuses a folder that lacks some."""
    groups: dict[tuple[str, int], dict[int, epath.Path]] = defaultdict(dict)
    for path in files.named(folder, "*.tfrecord-*"):
        match = SHARD_NAME.fullmatch(path.name)
        if match:
            prefix = path.name.partition(".tfrecord")[0]
            groups[prefix, int(match["count"])][int(match["index"])] = path
    # A second build with another number of shards leaves the old files beside the new ones.
    counts: dict[str, int] = {}
    for (prefix, count), shards in groups.items():
        if counts.setdefault(prefix, count) != count:
            raise UserError(
                f"{folder} has {prefix} in {counts[prefix]} shards and in {count}: delete those that were not meant"
            )
        missing = sorted(set(range(count)) - set(shards))
        if missing:
            raise UserError(
                f"{folder} lacks {len(missing)} of {count} shards of {prefix}, the first is number {missing[0]:05d}: "
                "copy or build them again"
            )
    return [path for shards in groups.values() for path in shards.values()]
