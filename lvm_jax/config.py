"""From a configuration file to frozen dataclasses: `ml_collections` stops here.

A config file defines `get_config(arg)`; `parse_arg` reads what follows the colon of `--config=file.py:arg`. Below the
launch scripts everything takes a frozen dataclass, which `from_mapping` builds and checks.
"""

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from lvm_jax.errors import UserError

T = TypeVar("T")


def parse_arg(arg: str | None, **defaults: Any) -> dict[str, Any]:
    """Reads `"name,key=value,flag"` into a dict over `defaults`, each value in its default's type.

    An entry without `=` sets the boolean of that name to True. If it comes first and no default has its name, it is
    the value of the first default instead: `parse_arg("3b,runlocal", size="debug", runlocal=False)` gives
    `{"size": "3b", "runlocal": True}`.

    Raises:
      UserError: an unknown name, or a value that its default's type cannot read.
    """
    values = dict(defaults)
    for position, part in enumerate(p.strip() for p in (arg or "").split(",") if p.strip()):
        name, equals, text = part.partition("=")
        if not equals and position == 0 and name not in defaults:
            name, text = next(iter(defaults)), part
        elif not equals:
            text = "true"
        if name not in defaults:
            raise UserError(
                f"config argument {name!r} is not one of {sorted(defaults)}{_nearest(name, defaults)}"
            )
        values[name] = _parse_text(text, type(defaults[name]), f"config argument {name}")
    return values


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str = "config") -> T:
    """Builds the frozen dataclass `cls` from a dict or ConfigDict, nested dataclasses included.

    Args:
      cls: a dataclass type.
      mapping: field name -> value; a missing field takes the dataclass's default.
      where: what errors call the place, such as "config.model".

    Raises:
      UserError: an unknown key (the message suggests the nearest known one), a missing field without default, a value
        of the wrong type, or a number that is not finite.
    """
    if not isinstance(mapping, Mapping) and hasattr(mapping, "to_dict"):
        mapping = mapping.to_dict()  # a ConfigDict
    if not isinstance(mapping, Mapping):
        raise UserError(f"{where} is {mapping!r}: it must hold the keys of {cls.__name__}")
    _check_finite(mapping, where)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # pyright: ignore[reportArgumentType]
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in mapping.items():
        if key not in fields:
            raise UserError(
                f"{where}.{key} does not exist in {cls.__name__}{_nearest(key, fields)}"
            )
        values[key] = _coerce(value, hints[key], f"{where}.{key}")
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if name not in values and required:
            raise UserError(f"{where}.{name} is missing: {cls.__name__} has no default for it")
    return cls(**values)


def to_dict(config: Any) -> Any:
    """Converts a dataclass to plain dicts, lists and scalars, ready for JSON."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_dict(value) for value in config]
    return config


def defaults(cls: type) -> dict[str, Any]:
    """The defaults of a dataclass's fields, and of those of dataclasses in it, as `to_dict` would give them.

    Fields without a default are absent, even within a part that has none itself.
    """
    found, hints = {}, typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            found[field.name] = to_dict(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = to_dict(field.default_factory())
        elif dataclasses.is_dataclass(hint := hints[field.name]) and isinstance(hint, type):
            found[field.name] = defaults(hint)
    return found


def differences(old: Any, new: Any, where: str = "config") -> list[str]:
    """Lists the leaves in which two plain nested dicts differ: `config.seed: 0 -> 1`. NaN equals NaN."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        missing = "(absent)"
        return [
            line
            for key in keys
            for line in differences(old.get(key, missing), new.get(key, missing), f"{where}.{key}")
        ]
    return [] if _same(old, new) else [f"{where}: {old!r} -> {new!r}"]


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    both_nan = all(isinstance(x, float) and math.isnan(x) for x in (old, new))
    return both_nan or old == new


def _check_finite(value: Any, where: str) -> None:
    """Refuses NaN and infinity at any depth: every check of a range lets NaN through."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} is {value}: give a finite number")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_finite(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_finite(item, f"{where}[{i}]")


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """Checks `value` against a type hint: nested dataclasses, Literal, Optional, tuples, mappings, and int -> float."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_mapping(hint, value, where)  # pyright: ignore[reportArgumentType]
    if origin is typing.Literal:
        if value not in args:
            raise UserError(f"{where} is {value!r}: it must be one of {', '.join(map(repr, args))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        # The first type that fits wins, in the order of the annotation.
        first, *rest = [a for a in args if a is not type(None)]
        try:
            return _coerce(value, first, where)
        except UserError:
            if not rest:
                raise
            return _coerce(value, rest[0] if len(rest) == 1 else typing.Union[tuple(rest)], where)  # noqa: UP007
    if origin in (tuple, list):
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise UserError(f"{where} is {value!r}: it must be a sequence")
        items = args if origin is tuple and args[-1] is not Ellipsis else args[:1] * len(value)
        if len(items) != len(value):
            raise UserError(f"{where} is {value!r}: it must have {len(items)} values")
        return origin(
            _coerce(v, item, f"{where}[{i}]")
            for i, (v, item) in enumerate(zip(value, items, strict=True))
        )
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        value = value.to_dict() if hasattr(value, "to_dict") else value
        if not isinstance(value, Mapping):
            raise UserError(f"{where} is {value!r}: it must be a mapping of names to values")
        item = args[1] if args else Any
        return {key: _coerce(v, item, f"{where}.{key}") for key, v in value.items()}
    if typing.is_typeddict(hint):
        wanted = typing.get_type_hints(hint)
        if not isinstance(value, Mapping) or set(value) != set(wanted):
            raise UserError(f"{where} is {value!r}: it must have the keys {', '.join(wanted)}")
        return {key: _coerce(value[key], wanted[key], f"{where}.{key}") for key in value}
    # Python counts bool as int, but `lr = True` is a mistake.
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise UserError(f"{where} is above {sys.float_info.max:g}: give less") from error
    if isinstance(hint, type) and (
        not isinstance(value, hint) or (hint is int and isinstance(value, bool))
    ):
        raise UserError(
            f"{where} is {value!r} ({type(value).__name__}): it must be of type {hint.__name__}"
        )
    return value


def _parse_text(text: str, kind: type, where: str) -> Any:
    if kind is bool:
        if text.lower() in ("true", "false", "1", "0"):
            return text.lower() in ("true", "1")
        raise UserError(f"{where} is {text!r}: it must be true or false")
    try:
        value = text if kind is type(None) else kind(text)
    except ValueError as error:
        raise UserError(f"{where} is {text!r}: it must be of type {kind.__name__}") from error
    _check_finite(value, where)
    return value
