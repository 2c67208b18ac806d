"""The tab of models that read pages: drop a picture or a PDF file, choose a question, read the answer."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from lvm_jax.demo.tab import Action, Control, Progress, Slider, Upload
from lvm_jax.demo.vary import view
from lvm_jax.demo.vary.models import Found, find_model
from lvm_jax.demo.vary.studio import (
    LONGEST,
    MAX_BEAMS,
    MAX_NGRAM,
    MAX_SHEETS,
    Answer,
    Example,
    How,
    Sheet,
    Studio,
    blank_like,
)
from lvm_jax.errors import UserError

_READING = "Reading. The first time with such a question takes a few seconds longer."
ANOTHER, BLANK = "another picture", "a blank one"


@dataclasses.dataclass(frozen=True)
class Desk:
    """The state of the tab.

    Attributes:
      sheets: the pages.
      example: that the page is, as long as it is unchanged.
      question: what is asked; "" shows the page alone.
      answers: of the first sheets, in order.
      swapped: the answer to the first sheet, then those to other pictures in its place.
    """

    sheets: tuple[Sheet, ...] = ()
    example: Example | None = None
    question: str = ""
    answers: tuple[Answer, ...] = ()
    swapped: tuple[Answer, ...] = ()


class VaryTab:
    """See `lvm_jax.demo.tab.Tab`.

    Args:
      found: the model, and questions to begin with.
    """

    title = "Read a page"

    def __init__(self, found: Found) -> None:
        self.studio = studio = Studio(found.model, found.tokenizer)
        self._examples = [
            Example(
                each.source.replace("_", " "),
                studio.sheet(each.source, each.asked.picture()),
                each.asked.question if studio.asks else "",
                each.asked.answers[0],
                each.other and studio.sheet(f"another of {each.source}", each.other.picture()),
            )
            for each in found.held_out
        ]
        self._questions = [*filter(None, dict.fromkeys(one.question for one in self._examples))]
        self.empty = Desk(question=next(iter(self._questions), ""))
        self.purpose = (
            "Drop a picture with text or a chart, or a PDF file, and the model writes down what it says. "
            + ("" if studio.asks else "This model was trained without questions: it has only one.")
        )
        self.examples = view.examples_row(self._examples)
        self.controls: Sequence[Control] = (
            Slider("Most tokens", 1, studio.context, min(LONGEST, studio.context)),
            Slider("Beams", 1, MAX_BEAMS, 1),
            Slider("N-gram block", 0, MAX_NGRAM, 0),
        )
        data = [("Data", found.data_words)] if found.data_words else []
        self.label: Sequence[tuple[str, str]] = (("Model", found.model_words), *data)
        self.actions: Sequence[Action] = (
            Action("read", "Read", self._read, _READING),
            Action("swap-picture", "Swap the picture", self._swap, _READING),
        )

    @classmethod
    def find(cls, release: epath.PathLike, workdirs: Sequence[epath.PathLike]) -> "VaryTab | None":
        """The tab of a release or a run; None if there is neither; errors as in `find_model`."""
        found = find_model(release, workdirs)
        return None if found is None else cls(found)

    def start_from(self, desk: Desk, index: int) -> Desk:
        """The example's page and its question."""
        del desk
        example = self._examples[index]
        return Desk((example.sheet,), example, example.question)

    def upload(self, desk: Desk, dropped: Upload) -> Desk:
        """The pages with the dropped ones behind them; they take the place of an example."""
        kept = () if desk.example else desk.sheets
        room = MAX_SHEETS - len(kept)
        return Desk((*kept, *self.studio.sheets(dropped.files, room)), question=desk.question)

    def click(self, desk: Desk, event: Mapping[str, Any]) -> Desk:
        """Removes a page, or chooses a question, which may be typed."""
        index = int(event["index"])
        changed = dataclasses.replace(desk, answers=(), swapped=())
        match event["do"]:
            case "clear":
                return Desk(question=desk.question)
            case "remove" if 0 <= index < len(desk.sheets):
                left = desk.sheets[:index] + desk.sheets[index + 1 :]
                return Desk(left, question=desk.question)
            case "ask" if 0 <= index < len(self._questions):
                return dataclasses.replace(changed, question=self._questions[index])
            case "type":
                return dataclasses.replace(changed, question=str(event["value"]).strip())
            case other:
                raise UserError(f"the page has no {other!r} {index + 1}: load it again")

    def prompt(self, desk: Desk) -> str:
        """The pages, and the question."""
        sheets = view.sheets_row(desk.sheets, desk.example is not None, MAX_SHEETS)
        if not self.studio.asks:
            return sheets
        return sheets + view.questions_row(self._questions, desk.question)

    def answers(self, desk: Desk) -> str:
        """The answers beside the pages, and those to other pictures."""
        example = desk.example
        truth = example.truth if example and example.question == desk.question else None
        return view.answers_rows(desk.answers, truth) + view.swapped_rows(desk.swapped)

    def _read(self, desk: Desk, *values: float) -> Iterator[Progress]:
        how = _checked(desk, values)
        desk = dataclasses.replace(desk, answers=(), swapped=())
        count = len(desk.sheets)
        for number, sheet in enumerate(desk.sheets, 1):
            said = self.studio.read(sheet.picture, desk.question, how)
            desk = dataclasses.replace(desk, answers=(*desk.answers, Answer(sheet, said)))
            yield Progress(desk, f"Reading page {number + 1} of {count}." if number < count else "")

    def _swap(self, desk: Desk, *values: float) -> Iterator[Progress]:
        how = _checked(desk, values)
        own, *_ = desk.sheets
        blank = self.studio.sheet(BLANK, blank_like(own.picture))
        shown = [("the picture", own), (BLANK, blank)]
        if other := self._another(desk):
            shown.insert(1, (ANOTHER, other))
        desk = dataclasses.replace(desk, swapped=())
        for number, (what, sheet) in enumerate(shown, 1):
            answer = Answer(sheet, self.studio.read(sheet.picture, desk.question, how), what)
            desk = dataclasses.replace(desk, swapped=(*desk.swapped, answer))
            yield Progress(desk, f"Now with {shown[number][0]}." if number < len(shown) else "")

    def _another(self, desk: Desk) -> Sheet | None:
        """Another page of the example's source; of a page of the user's, the second one, or else an example."""
        if desk.example:
            return desk.example.other
        if len(desk.sheets) > 1:
            return desk.sheets[1]
        return self._examples[0].sheet if self._examples else None


def _checked(desk: Desk, values: Sequence[float]) -> How:
    """How to write, once there is something to read."""
    if not desk.sheets:
        raise UserError("0 pages: drop a picture or a PDF file, or start from an example")
    longest, beams, no_repeat = map(int, values)
    return How(longest, beams, no_repeat)
