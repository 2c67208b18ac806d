"""The tab of the Large Vision Model: drop images into a strip, ask for the next one, continue from an answer."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from lvm_jax.demo.codes import Strip
from lvm_jax.demo.lvm import view
from lvm_jax.demo.lvm.models import Found, find_models
from lvm_jax.demo.lvm.studio import MAX_CANDIDATES, Example, Reply, Studio, moved, removed
from lvm_jax.demo.tab import Action, Control, Progress, Slider, Upload, Whole
from lvm_jax.errors import UserError
from lvm_jax.inference.defaults import Defaults
from lvm_jax.inference.sampling import Sampling

_DRAWING = "Drawing. The first time with as many images takes a few seconds longer."


@dataclasses.dataclass(frozen=True)
class Desk:
    """The state of the tab.

    Attributes:
      strip: the prompt.
      candidates: the latest answers.
      example: the example that the strip is, as long as it is unchanged.
      replies: the latest answers to the example's own query and to another one.
    """

    strip: Strip = ()
    candidates: Strip = ()
    example: Example | None = None
    replies: tuple[Reply, Reply] | None = None


class LvmTab:
    """See `lvm_jax.demo.tab.Tab`.

    Args:
      found: the models, and prompts to start from.
    """

    title = "Next image"
    purpose = (
        "Show the model some images, and it draws the one that comes next. Frames continue; pairs of (image, answer) "
        "set a task for the last image."
    )
    empty = Desk()

    def __init__(self, found: Found) -> None:
        self.studio = studio = Studio(found.vqgan, found.model)
        self._examples = [studio.example(*each) for each in zip(found.cases, found.others)]
        self._drawing = found.drawing
        self.examples = view.examples_row(self._examples)
        self.controls = _controls(found.drawing, len(studio.colours_K3))
        self.label: Sequence[tuple[str, str]] = (
            ("Model", found.model_words),
            ("Data", found.data_words),
        )
        self.actions: Sequence[Action] = (
            Action("ask", "Next image", self._answer, _DRAWING),
            Action("swap", "Swap the query", self._swap, _DRAWING),
        )

    @classmethod
    def find(cls, release: epath.PathLike, workdirs: Sequence[epath.PathLike]) -> "LvmTab | None":
        """The tab of a release or a run; None if there is neither; errors as in `find_models`."""
        found = find_models(release, workdirs)
        return None if found is None else cls(found)

    def start_from(self, desk: Desk, index: int) -> Desk:
        """The example's prompt."""
        del desk
        example = self._examples[index]
        return Desk(example.strip, example=example)

    def upload(self, desk: Desk, dropped: Upload) -> Desk:
        """The strip with the dropped pictures at its end."""
        room, files = self.studio.max_prompt - len(desk.strip), dropped.files
        if len(files) > room:
            raise UserError(f"{len(files)} pictures: there is room for {room}; drop fewer")
        return Desk(self.studio.add(desk.strip, self.studio.coder.of_files(files)))

    def click(self, desk: Desk, event: Mapping[str, Any]) -> Desk:
        """Moves or removes an image, or appends a candidate."""
        index = int(event["index"])
        match event["do"]:
            case "clear":
                return Desk()
            case "remove":
                return Desk(removed(desk.strip, index))
            case "append" if 0 <= index < len(desk.candidates):
                return Desk(self.studio.add(desk.strip, (desk.candidates[index],)))
            case "left" | "right" as way:
                return Desk(moved(desk.strip, index, {"left": -1, "right": 1}[way]))
            case other:
                raise UserError(f"the page has no {other!r} {index + 1}: load it again")

    def prompt(self, desk: Desk) -> str:
        """The strip."""
        return view.strip_table(desk.strip, self.studio)

    def answers(self, desk: Desk) -> str:
        """The candidates, and those of a swapped query."""
        truth = desk.example.truth if desk.example else ()
        return view.candidates_row(desk.candidates, truth) + view.swapped_rows(desk.replies)

    def _sampling(self, temperature: float, top_k: float, top_p: float) -> Sampling:
        return Sampling(temperature, int(top_k), top_p, self._drawing.min_p)

    def _answer(
        self,
        desk: Desk,
        candidates: float,
        temperature: float,
        top_k: float,
        top_p: float,
        seed: float | None,
    ) -> Iterator[Progress]:
        sampling = self._sampling(temperature, top_k, top_p)
        made = self.studio.next_images(desk.strip, int(candidates), sampling, int(seed or 0))
        yield Progress(dataclasses.replace(desk, candidates=made))

    def _swap(
        self,
        desk: Desk,
        candidates: float,
        temperature: float,
        top_k: float,
        top_p: float,
        seed: float | None,
    ) -> Iterator[Progress]:
        if desk.example is None:
            raise UserError(
                "the prompt is no example: start from one of (image, answer) pairs, whose query can be swapped"
            )
        sampling = self._sampling(temperature, top_k, top_p)
        replies = self.studio.swapped(desk.example, int(candidates), sampling, int(seed or 0))
        yield Progress(dataclasses.replace(desk, replies=replies))


def _controls(drawing: Defaults, codes: int) -> Sequence[Control]:
    """How answers are drawn, in the order of the arguments of the actions."""
    return (
        Slider("Candidates", 1, MAX_CANDIDATES, min(drawing.candidates, MAX_CANDIDATES)),
        Slider("Temperature", 0, 2, drawing.temperature, step=0.05),
        Slider("Top-k (0 all)", 0, codes, drawing.top_k),
        Slider("Top-p", 0.05, 1, drawing.top_p, step=0.05),
        Whole("Seed", 0),
    )
