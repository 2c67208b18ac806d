"""Looks a preset up, and checks the fields that a caller overrides in it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from lvm_jax.errors import UserError

T = TypeVar("T")


def entry(
    what: str, name: str, table: Mapping[str, T], config: type, overrides: Mapping[str, Any]
) -> T:
    """The table's entry of a preset, whose overrides are all fields of its configuration.

    Args:
      what: the kind of preset, for messages.
      name: a key of the table.
      table: of all presets.
      config: the dataclass that the preset fills.
      overrides: field -> value.

    Raises:
      UserError: an unknown preset or field.
    """
    if name not in table:
        raise UserError(f"{what} preset {name!r} does not exist; known: {', '.join(table)}")
    known = [field.name for field in dataclasses.fields(config)]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise UserError(
            f"{what} preset {name!r} has no field {unknown[0]!r}; known: {', '.join(known)}"
        )
    return table[name]
