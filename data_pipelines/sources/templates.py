"""File names as templates: `JPEGImages/{key}.jpg` leads from a key to its file and back.

A role's template is relative to the source's root; `{key}` may contain slashes. Templates of clips also have `{frame}`
in the file name, as in `JPEGImages/480p/{key}/{frame}.jpg`.
"""

import re
from collections.abc import Sequence

from etils import epath

from data_pipelines.sources.base import BadItem, child_folders
from lvm_jax.errors import UserError
from lvm_jax.pictures.listing import existing_folder, list_files, list_folder

Roles = tuple[tuple[str, ...], ...]  # (role, template)


def check_roles(roles: Roles, fields: Sequence[str]) -> None:
    """Refuses roles that are not (role, template), and templates that lack or repeat a `{field}` of `fields`."""
    if not roles or any(len(role) != 2 for role in roles):
        raise UserError(f"roles is {roles}: it must hold (role, template) pairs")
    names = [role for role, _ in roles]
    if len(set(names)) != len(names):
        raise UserError(f"roles names one of {', '.join(names)} twice: name each once")
    for role, template in roles:
        if sorted(re.findall(r"\{(\w*)\}", template)) != sorted(fields):
            wanted = " and ".join(f"{{{field}}}" for field in fields)
            raise UserError(f"the template of {role!r} is {template!r}: it must hold {wanted} once")


def list_keys(root: str, template: str) -> list[str]:
    """Sorted keys of the files that match a template of `{key}`.

    Raises:
      UserError: no file matches.
    """
    folder = existing_folder(root, "files of the roles")
    # Lists only below the folder that the template fixes: the rest of the root may be large.
    fixed = template[: template.index("{")].rpartition("/")[0]
    suffix = template.rpartition("}")[2]
    pattern = re.escape(template).replace(r"\{key\}", "(.+)")
    found = []
    if (folder / fixed).is_dir():
        names = list_files(
            folder / fixed, (suffix.lower(),), f"files like {template}", others=False
        )
        paths = (f"{fixed}/{name}" if fixed else name for name in names)
        found = [match[1] for path in paths if (match := re.fullmatch(pattern, path))]
    if not found:
        raise UserError(f"{root} holds no {template}: correct the template or the root")
    return sorted(found)


def list_clips(root: str, template: str) -> list[str]:
    """Sorted names of the folders that may hold frames of a template of `{key}` and `{frame}`.

    Raises:
      UserError: there is none.
    """
    folder = existing_folder(root, "clips")
    parent = folder / template[: template.index("{key}")].rpartition("/")[0]
    names = child_folders(parent) if parent.is_dir() else []
    if not names:
        raise UserError(f"{root} holds no {template}: correct the template or the root")
    return names


def list_frames(root: str, template: str, key: str) -> dict[str, epath.Path]:
    """Frame -> its file, for one clip; empty if it has none.

    Raises:
      BadItem: the folder cannot be listed.
    """
    parent, _, name = template.replace("{key}", key).rpartition("/")
    folder = epath.Path(root) / parent
    pattern = re.escape(name).replace(r"\{frame\}", "(.+)")
    try:
        paths = list_folder(folder) if folder.is_dir() else []
    except OSError as error:
        raise BadItem(key, f"cannot be listed ({error})") from error
    # Hidden names: macOS leaves a ._1.png beside each 1.png that it copies.
    shown = [path for path in paths if not path.name.startswith(".")]
    matches = {path: re.fullmatch(pattern, path.name) for path in shown}
    return {match[1]: path for path, match in matches.items() if match}
