"""HTML of the pages and of what is said about them, from templates/."""

from collections.abc import Sequence

from lvm_jax.demo.vary.studio import Answer, Example, Sheet, agreement, how_much_changed
from lvm_jax.demo.view import ExampleButton, example_buttons, render


def examples_row(examples: Sequence[Example]) -> str:
    """A button for each held-out page."""
    buttons = [ExampleButton(example.name, [example.sheet.picture]) for example in examples]
    return example_buttons(buttons, "held-out pages")


def sheets_row(sheets: Sequence[Sheet], replaceable: bool, most: int) -> str:
    """The pages as given and as the model sees them, and space for more; `replaceable` ones make room themselves."""
    return render("sheets.html", sheets=sheets, replaceable=replaceable, most=most)


def questions_row(questions: Sequence[str], asked: str) -> str:
    """The questions of the data as buttons, and a field for another one."""
    return render("questions.html", questions=questions, asked=asked)


def answers_rows(answers: Sequence[Answer], truth: str | None) -> str:
    """Each page beside what is said about it, and the truth if it is known."""
    return (
        render("readings.html", answers=answers, truth=truth, agreement=agreement)
        if answers
        else ""
    )


def swapped_rows(answers: Sequence[Answer]) -> str:
    """The answers to the page and to other pictures in its place, and how much they differ."""
    if not answers:
        return ""
    own, *others = answers
    words = how_much_changed(own, others) if others else ""
    return render("swapped_picture.html", answers=answers, words=words)
