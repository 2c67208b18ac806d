"""What a tab of the page is: its words, its controls, and functions from one state of it to the next. No Gradio here.

A tab never changes a state: it returns another. A `UserError` or `BadData` becomes one line, and the state stays.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from lvm_jax.demo.drops import Dropped


@dataclasses.dataclass(frozen=True)
class Slider:
    """A number between two others."""

    label: str
    low: float
    high: float
    value: float
    step: float = 1


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole number from 0 on; an empty field arrives as None."""

    label: str
    value: int


Control = Slider | Whole


@dataclasses.dataclass(frozen=True)
class Progress:
    """A state on the way.

    Attributes:
      desk: the state.
      busy: what happens next, in words; "" at the end.
    """

    desk: Any
    busy: str = ""


@dataclasses.dataclass(frozen=True)
class Action:
    """A button under the controls.

    Attributes:
      name: the element's id.
      label: what it says.
      run: (state, value of each control) -> states, the last of which is the result.
      busy: what is shown before the first of them.
    """

    name: str
    label: str
    run: Callable[..., Iterator[Progress]]
    busy: str


@dataclasses.dataclass(frozen=True)
class Upload:
    """Files that were dropped at one place.

    Attributes:
      place: what is dropped there, such as "picture".
      index: of the place among those of its kind; -1: a new one.
      files: at least one.
    """

    place: str
    index: int
    files: Sequence[Dropped]


class Tab(Protocol):
    """One system with its models, as the page shows it; `Desk` stands for its own type of state.

    Attributes:
      title: of the tab.
      purpose: in a sentence or two.
      empty: the state of a page just opened.
      examples: HTML of the buttons that start from an example; "" if there are none.
      controls: in the order of the arguments of actions.
      actions: the first is the main one.
      label: (name, words) about models and data.
    """

    title: str
    purpose: str
    empty: Any
    examples: str
    controls: Sequence[Control]
    actions: Sequence[Action]
    label: Sequence[tuple[str, str]]

    def start_from(self, desk: Any, index: int) -> Any:
        """The state after a click on an example."""
        ...

    def upload(self, desk: Any, dropped: Upload) -> Any:
        """The state after files were dropped."""
        ...

    def click(self, desk: Any, event: Mapping[str, Any]) -> Any:
        """The state after a click on a button of the prompt or of the answers; `do` and `index` of the event say which,
        and `value` what was typed into a field or where a box was drawn.
        """
        ...

    def prompt(self, desk: Any) -> str:
        """HTML of what is asked."""
        ...

    def answers(self, desk: Any) -> str:
        """HTML of what is answered."""
        ...
