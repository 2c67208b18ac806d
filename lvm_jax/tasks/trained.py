"""Which parameters a task trains: a filter splits them into those that the optimizer sees and those that only serve.

A filter is a function of (path, parameter), as Flax NNX's own are. Low-rank adapters are one use of it
(`only_adapters`), towers that stay as they were imported another (`all_but`); they combine with `both`.
"""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.lora import LoRAParam

Path = tuple[Any, ...]
Filter = Callable[[Path, Any], bool]
# `nnx.State` of all parameters where all are trained, else {trained's name: State, frozen's name: State}.
Params = Any


def everything(path: Path, parameter: Any) -> bool:
    """The filter of plain training."""
    del path, parameter
    return True


def only_adapters(path: Path, parameter: Any) -> bool:
    """The filter of low-rank adaptation (arXiv 2106.09685, section 4.1): the matrices themselves are frozen."""
    del path
    return isinstance(parameter, LoRAParam)


def all_but(patterns: Sequence[str]) -> Filter:
    """A filter that freezes what the patterns name.

    Args:
      patterns: paths as checkpoints list them below `params/`, such as "embedding" or "layers/attention". A path stands
        for all that lies below it, and `*` for any characters: "layers/*/query".
    """

    def is_trained(path: Path, parameter: Any) -> bool:
        del parameter
        return not any(_covers(pattern, path) for pattern in patterns)

    return is_trained


def both(one: Filter, other: Filter) -> Filter:
    """A filter that trains what both train."""
    return lambda path, parameter: one(path, parameter) and other(path, parameter)


def check_patterns(patterns: Sequence[str], params: nnx.State) -> None:
    """Requires every pattern of `all_but` to name a parameter.

    Raises:
      UserError: a pattern that matches nothing, which would train silently what somebody meant to freeze.
    """
    paths = [path for path, _ in nnx.to_flat_state(params)]
    for pattern in patterns:
        if not any(_covers(pattern, path) for path in paths):
            folders = dict.fromkeys("/".join(map(str, path[:2])) for path in paths)
            raise UserError(
                f"frozen has {pattern!r}, which no parameter matches: name a path such as {', '.join(folders)}"
            )


class Split:
    """The parameters of a train state, trained and frozen ones apart.

    The optimizer is given the trained ones alone, so frozen ones have neither a gradient nor moments.

    Args:
      params: all parameters, abstract ones too.
      is_trained: which of them are trained. Where that is all, `params` of the state is one `nnx.State`, and the paths
        in its checkpoints are the parameters' own.
      names: of the trained and the frozen ones in the state, and so in checkpoints.

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
        """All parameters, as the state holds them."""
        if self._is_whole:
            return params
        trained, frozen = nnx.split_state(params, self._is_trained, ...)
        return {self._frozen: frozen, self._trained: trained}

    def trained(self, params: Params) -> nnx.State:
        """What the optimizer updates."""
        return params if self._is_whole else params[self._trained]

    def frozen(self, params: Params) -> nnx.State:
        """What stays as it is; empty where all is trained."""
        return nnx.State({}) if self._is_whole else params[self._frozen]

    def updated(self, params: Params, trained: nnx.State) -> Params:
        """`params` with its trained ones replaced."""
        return trained if self._is_whole else {**params, self._trained: trained}

    def together(self, params: Params) -> nnx.State:
        """All parameters as the model knows them: the inverse of `apart`."""
        return params if self._is_whole else nnx.merge_state(*params.values())


def _covers(pattern: str, path: Path) -> bool:
    """Whether the pattern matches the path, or something above it."""
    names = [str(name) for name in path]
    return any(
        fnmatch.fnmatchcase("/".join(names[: end + 1]), pattern.rstrip("/"))
        for end in range(len(names))
    )
