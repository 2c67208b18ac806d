"""Checks the fields that a caller overrides in a preset."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lvm_jax.errors import UserError


def check_fields(preset: str, config: type, overrides: Mapping[str, Any]) -> None:
    """Requires every override to be a field of the preset's configuration.

    Args:
      preset: what messages call it.
      config: its dataclass.
      overrides: field -> value.

    Raises:
      UserError: an unknown field.
    """
    known = [field.name for field in dataclasses.fields(config)]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise UserError(f"{preset} has no field {unknown[0]!r}; known: {', '.join(known)}")
