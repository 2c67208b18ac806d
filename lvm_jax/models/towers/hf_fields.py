"""Settings of a published tower's config.json: which are read, which must have one value, which do not matter."""

from collections.abc import Mapping, Sequence
from typing import Any

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.hf_config import IGNORED, OFF


def checked_fields(
    settings: Mapping[str, Any],
    read: Sequence[str],
    fixed: Mapping[str, Any],
    ignored: Sequence[str],
    where: str,
) -> dict[str, Any]:
    """The settings named in `read`; null is absent.

    Args:
      settings: of config.json, or of its vision_config.
      read: names of those that the caller reads.
      fixed: settings with the only value that the tower supports.
      ignored: settings that do not affect the weights nor what is computed with them.
      where: what errors call the file.

    Raises:
      UserError: a setting has an unsupported value, or is unknown; or these are no settings.
    """
    if not isinstance(settings, Mapping):
        raise UserError(f"{where} has settings {settings!r} of the tower: they must be an object")
    settings = {name: value for name, value in settings.items() if value is not None}
    for name, supported in fixed.items():
        if settings.get(name, supported) != supported:
            raise UserError(
                f"{where} has {name}={settings[name]!r}: only {supported!r} is supported"
            )
    known = {*read, *fixed, *ignored, *IGNORED, "tie_word_embeddings"}
    unread = sorted(
        name for name in set(settings) - known if settings[name] not in OFF.get(name, ())
    )
    if unread:
        raise UserError(
            f"{where} has {unread[0]}={settings[unread[0]]!r}, a setting that the tower does not know: "
            "remove it if the weights do not depend on it"
        )
    return {name: settings[name] for name in read if name in settings}


def side(value: Any, name: str, where: str) -> tuple[int, int]:
    """Height and width from a setting that is one number or two.

    Raises:
      UserError: it is neither.
    """
    pair = (value, value) if isinstance(value, int) else value
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise UserError(f"{where} has {name}={value!r}: it must be one number, or height and width")
    return pair[0], pair[1]
