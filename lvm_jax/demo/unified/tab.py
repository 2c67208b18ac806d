"""The tab of models that answer from examples: up to three pictures with masks or words, and a query."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from etils import epath

from lvm_jax.data.in_context.pool_record import box_problem
from lvm_jax.demo.drops import Dropped, picture_of
from lvm_jax.demo.tab import Action, Control, Progress, Upload
from lvm_jax.demo.unified import view
from lvm_jax.demo.unified.models import MAX_EXAMPLES, Found, find_model
from lvm_jax.demo.unified.studio import (
    MASKS,
    SAID,
    Answer,
    Example,
    Prompt,
    Shot,
    Studio,
    Where,
)
from lvm_jax.errors import UserError

_ANSWERING = "Answering. The first time with as many examples takes a few seconds longer."
TOOLS = ("brush", "box")


@dataclasses.dataclass(frozen=True)
class Desk:
    """The state of the tab.

    Attributes:
      prompt: what is asked.
      tool: that masks are painted with.
      example: that the prompt is, as long as examples and query are unchanged.
      answer: to the prompt.
      swapped: the answer again, then those after other examples.
    """

    prompt: Prompt = Prompt()  # noqa: RUF009 - frozen
    tool: str = TOOLS[0]
    example: Example | None = None
    answer: Answer | None = None
    swapped: tuple[Answer, ...] = ()


class UnifiedTab:
    """See `lvm_jax.demo.tab.Tab`.

    Args:
      found: the decoder, and episodes to begin with.
    """

    title = "From examples"
    purpose = (
        "Show one to three pictures with a mask, or with words, of what you mean; the model finds the same in the last "
        "picture. Paint on an example, or drop its mask."
    )
    empty = Desk()
    controls: Sequence[Control] = ()

    def __init__(self, found: Found) -> None:
        self.studio = Studio(found.generator, found.rows, MAX_EXAMPLES)
        self._examples = [self.studio.example(episode) for episode in found.episodes]
        self.examples = view.examples_row(self._examples)
        data = [("Data", found.data_words)] if found.data_words else []
        self.label: Sequence[tuple[str, str]] = (("Model", found.model_words), *data)
        self.actions: Sequence[Action] = (
            Action("answer", "Answer", self._answer, _ANSWERING),
            Action("swap-examples", "Swap the examples", self._swap, _ANSWERING),
        )

    @classmethod
    def find(
        cls, release: epath.PathLike, workdirs: Sequence[epath.PathLike]
    ) -> "UnifiedTab | None":
        """The tab of a release or a run; None if there is neither; errors as in `find_model`."""
        found = find_model(release, workdirs)
        return None if found is None else cls(found)

    def start_from(self, desk: Desk, index: int) -> Desk:
        """The example's prompt."""
        example = self._examples[index]
        prompt = dataclasses.replace(example.prompt, where=desk.prompt.where)
        return Desk(prompt, desk.tool, example)

    def upload(self, desk: Desk, dropped: Upload) -> Desk:
        """New examples, a query, or a mask of an example, from a file or painted."""
        prompt, files = desk.prompt, dropped.files
        if dropped.place == "example":
            return self._with_examples(desk, files)
        if len(files) > 1:
            raise UserError(f"{len(files)} pictures for the {dropped.place}: drop 1")
        picture = picture_of(files[0])
        if dropped.place == "query":
            (item,) = self.studio.coder.of_pictures([picture])
            return _changed(desk, query=item)
        shot = _shot(prompt, dropped.index)
        if dropped.place == "painted":
            mask = self.studio.mask_of(picture, shot.mask)
        else:
            mask = self.studio.mask_of(picture)
        return _changed(desk, shots=_replaced(prompt, dropped.index, mask=mask))

    def _with_examples(self, desk: Desk, files: Sequence[Dropped]) -> Desk:
        shots = desk.prompt.shots
        room = self.studio.most_examples - len(shots)
        if len(files) > room:
            raise UserError(
                f"{len(files)} pictures: there is room for {room} of {self.studio.most_examples} examples; drop "
                "fewer, or remove some"
            )
        made = tuple(map(Shot, self.studio.coder.of_files(files)))
        return _changed(desk, shots=(*shots, *made))

    def click(self, desk: Desk, event: Mapping[str, Any]) -> Desk:
        """Changes the prompt: removes parts of it, paints a rectangle, types words, chooses question and tool."""
        index, prompt = int(event["index"]), desk.prompt
        match event["do"]:
            case "clear":
                return Desk(Prompt(prompt.question, where=prompt.where), desk.tool)
            case "question":
                question = (MASKS, SAID)[index]
                return _asked_otherwise(desk, question=question)
            case "where":
                return _asked_otherwise(desk, where=get_args(Where)[index])
            case "tool":
                return dataclasses.replace(desk, tool=TOOLS[index])
            case "remove":
                _shot(prompt, index)
                return _changed(desk, shots=prompt.shots[:index] + prompt.shots[index + 1 :])
            case "clear-mask":
                return _changed(desk, shots=_replaced(prompt, index, mask=None))
            case "clear-boxes":
                return _changed(desk, shots=_replaced(prompt, index, boxes=()))
            case "remove-query":
                return _changed(desk, query=None)
            case "box":
                return self._boxed(desk, index, event["value"])
            case "category":
                return _asked_otherwise(desk, category=str(event["value"]).strip())
            case "caption":
                caption = str(event["value"]).strip()
                return _changed(desk, shots=_replaced(prompt, index, caption=caption))
            case other:
                raise UserError(f"the page has no {other!r} {index + 1}: load it again")

    def _boxed(self, desk: Desk, index: int, corners: Sequence[float]) -> Desk:
        """A rectangle: of words a box, of masks all inside it."""
        left, top, right, bottom = map(float, corners)
        box = left, top, right, bottom
        if problem := box_problem(box):
            raise UserError(problem)
        if desk.prompt.question is SAID:
            return _changed(desk, shots=_replaced(desk.prompt, index, boxes=(box,)))
        mask = self.studio.box_mask(box)
        return _changed(desk, shots=_replaced(desk.prompt, index, mask=mask))

    def prompt(self, desk: Desk) -> str:
        """Examples and query."""
        return view.prompt(desk.prompt, self.studio, desk.tool)

    def answers(self, desk: Desk) -> str:
        """The answer beside the truth, and the answers after other examples."""
        query = desk.prompt.query
        if query is None:
            return ""
        return view.answer(desk.answer, query, desk.example) + view.swapped(
            desk.swapped, query, desk.example
        )

    def _answer(self, desk: Desk) -> Iterator[Progress]:
        answer = self.studio.answer(desk.prompt, _own(desk.prompt))
        yield Progress(dataclasses.replace(desk, answer=answer))

    def _swap(self, desk: Desk) -> Iterator[Progress]:
        prompt = desk.prompt
        if not prompt.shots:
            raise UserError("0 examples to swap: drop at least 1, or start from an example")
        changes = [(_own(prompt), prompt), *self._others(desk)]
        changes.append(("without examples", dataclasses.replace(prompt, shots=())))
        desk = dataclasses.replace(desk, swapped=())
        for number, (what, changed) in enumerate(changes, 1):
            answer = self.studio.answer(changed, what)
            desk = dataclasses.replace(desk, swapped=(*desk.swapped, answer))
            left = number < len(changes)
            yield Progress(desk, f"Now {changes[number][0]}." if left else "")

    def _others(self, desk: Desk) -> list[tuple[str, Prompt]]:
        """The prompt with the examples of another thing: the rival of the example, or else another example's."""
        prompt, example = desk.prompt, desk.example
        if example and example.others:
            shots, name = example.others, example.other
        else:
            for each in self._examples:
                if (
                    each.prompt.question is prompt.question
                    and each.prompt.category != prompt.category
                ):
                    shots, name = each.prompt.shots, each.prompt.category
                    break
            else:
                return []
        words = f"after examples of {name}"
        return [(words, dataclasses.replace(prompt, shots=shots, category=name))]


def _own(prompt: Prompt) -> str:
    return f"after its {len(prompt.shots)} examples" if prompt.shots else "without examples"


def _changed(desk: Desk, **changes: Any) -> Desk:
    """The desk with other examples or another query: the answers are gone, and the truth is not known any more."""
    return Desk(dataclasses.replace(desk.prompt, **changes), desk.tool)


def _asked_otherwise(desk: Desk, **changes: Any) -> Desk:
    """The desk with another question about the same pictures; the truth stays that of the question that it had."""
    prompt = dataclasses.replace(desk.prompt, **changes)
    example = desk.example if prompt.question is desk.prompt.question else None
    return Desk(prompt, desk.tool, example)


def _shot(prompt: Prompt, index: int) -> Shot:
    if not 0 <= index < len(prompt.shots):
        raise UserError(f"there is no example {index + 1}: there are {len(prompt.shots)}")
    return prompt.shots[index]


def _replaced(prompt: Prompt, index: int, **changes: Any) -> tuple[Shot, ...]:
    shot = dataclasses.replace(_shot(prompt, index), **changes)
    return (*prompt.shots[:index], shot, *prompt.shots[index + 1 :])
