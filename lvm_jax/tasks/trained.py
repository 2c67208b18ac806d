"""Which parameters a task trains: a filter splits them into trained ones, which the optimizer sees, and frozen ones.

A filter is a function of (path, parameter), like Flax NNX's own. `only_adapters` trains low-rank adapters, `all_but`
freezes imported towers, and `both` combines two filters.
"""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.lora import LoRAParam

Path = tuple[Any, ...]
Filter = Callable[[Path, Any], bool]
# One `nnx.State` if all parameters are trained, else {name of the trained ones: State, name of the frozen ones: State}.
Params = Any


def only_adapters(path: Path, parameter: Any) -> bool:
    """The filter of low-rank adaptation (arXiv 2106.09685, section 4.1): everything but adapters is frozen."""
    del path
    return isinstance(parameter, LoRAParam)


def all_but(patterns: Sequence[str]) -> Filter:
    """A filter that freezes what the patterns name.

    Args:
      patterns: paths as checkpoints list them below `params/`, such as "embedding" or "layers/attention". A path covers
        everything below it, and `*` matches any characters: "layers/*/query".
    """

    def is_trained(path: Path, parameter: Any) -> bool:
        del parameter
        return not any(covers(pattern, path) for pattern in patterns)

    return is_trained


def both(one: Filter, other: Filter) -> Filter:
    """A filter that trains what both filters train."""
    return lambda path, parameter: one(path, parameter) and other(path, parameter)


def check_patterns(patterns: Sequence[str], params: nnx.State) -> None:
    """Requires every pattern of `all_but` to name a parameter.

    Raises:
      UserError: a pattern matches nothing; parameters that someone meant to freeze would be trained.
    """
    paths = [path for path, _ in nnx.to_flat_state(params)]
    for pattern in patterns:
        if not any(covers(pattern, path) for path in paths):
            folders = dict.fromkeys("/".join(map(str, path[:2])) for path in paths)
            raise UserError(
                f"frozen has {pattern!r}, which no parameter matches: name a path such as {', '.join(folders)}"
            )


class Split:
    """Splits the parameters of a train state into trained and frozen ones.

    The optimizer gets the trained ones only, so frozen ones have neither gradients nor moments.

    Args:
      params: all parameters; they may be abstract.
      is_trained: the filter. If it trains all, the state's `params` is one `nnx.State`, and checkpoints use the
        parameters' own paths.
      names: what the state, and so a checkpoint, calls the trained and the frozen ones.

    Raises:
      UserError: nothing is left to train.
    """

    def __init__(
        self, params: nnx.State, is_trained: Filter, names: tuple[str, str] = ("trained", "frozen")
    ) -> None:
        self._is_trained, (self._trained, self._frozen) = is_trained, names
        chosen = [is_trained(path, parameter) for path, parameter in nnx.to_flat_state(params)]
        if not any(chosen):
            raise UserError(
                f"all {len(chosen)} parameters are frozen: leave at least one to train, or evaluate instead"
            )
        self._is_whole = all(chosen)

    def apart(self, params: nnx.State) -> Params:
        """All parameters in the form that the state holds."""
        if self._is_whole:
            return params
        trained, frozen = nnx.split_state(params, self._is_trained, ...)
        return {self._frozen: frozen, self._trained: trained}

    def trained(self, params: Params) -> nnx.State:
        """The parameters that the optimizer updates."""
        return params if self._is_whole else params[self._trained]

    def frozen(self, params: Params) -> nnx.State:
        """The parameters that stay as they are; empty if all are trained."""
        return nnx.State({}) if self._is_whole else params[self._frozen]

    def updated(self, params: Params, trained: nnx.State) -> Params:
        """`params` with its trained ones replaced."""
        return trained if self._is_whole else {**params, self._trained: trained}

    def together(self, params: Params) -> nnx.State:
        """All parameters in the form that the model takes: the inverse of `apart`."""
        return params if self._is_whole else nnx.merge_state(*params.values())


def covers(pattern: str, path: Path) -> bool:
    """Whether a pattern of `all_but` matches the path or any of its parents."""
    names = [str(name) for name in path]
    return any(
        fnmatch.fnmatchcase("/".join(names[: end + 1]), pattern.rstrip("/"))
        for end in range(len(names))
    )
