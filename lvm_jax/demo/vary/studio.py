"""What the tab does, without the page: pages to words, and the same question with another picture.

H, W: pixels.
"""

import dataclasses
import difflib
import time
from collections.abc import Sequence

import numpy as np

from lvm_jax.data.image_text.templates import template_of
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.demo.drops import Dropped, Picture, pages_of
from lvm_jax.errors import UserError
from lvm_jax.inference.text_generator import Asked, Reader, TextGenerator, Writing, views_of
from lvm_jax.metrics.repetition import ending_loop
from lvm_jax.reporting.numbers import percent

MAX_SHEETS = 4  # pages at once; of a longer PDF file the first
MAX_BEAMS = 8
MAX_NGRAM = 20
LONGEST = 256  # tokens of an answer at first
_WHITE = 255


@dataclasses.dataclass(frozen=True, eq=False)
class Sheet:
    """A page.

    Attributes:
      name: for people.
      picture: as it was given.
      seen: as the largest tower sees it.
    """

    name: str
    picture: Picture
    seen: Picture


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A held-out page.

    Attributes:
      name: of its source.
      sheet: the page.
      question: that its data ask about it; "" shows the page alone.
      truth: the true answer.
      other: another page of the source, if there is one.
    """

    name: str
    sheet: Sheet
    question: str
    truth: str
    other: Sheet | None = None


@dataclasses.dataclass(frozen=True)
class Said:
    """An answer.

    Attributes:
      text: its words.
      tokens: of them.
      ended: whether the model ended it.
      loop: characters at its end that are one passage, said over and over.
      seconds: that it took.
    """

    text: str
    tokens: int
    ended: bool
    loop: int
    seconds: float

    @property
    def why_it_stopped(self) -> str:
        """In words."""
        why = "ended by the model" if self.ended else f"cut at {self.tokens} tokens"
        loop = f"; its last {self.loop} characters say one passage over and over"
        return why + (loop if self.loop else "")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is said about a sheet.

    Attributes:
      sheet: what the model saw.
      said: its answer.
      what: whether it is the page, or what took its place.
    """

    sheet: Sheet
    said: Said
    what: str = ""


@dataclasses.dataclass(frozen=True)
class How:
    """How to write; see `lvm_jax.inference.text_generator.Writing`."""

    longest: int = LONGEST
    beams: int = 1
    no_repeat: int = 0


class Studio:
    """A model that reads pages, ready to be asked.

    Args:
      model: towers and a decoder.
      tokenizer: its text tokenizer.

    Attributes:
      context: tokens of question and answer together.
      asks: whether the model was trained with questions.

    Raises:
      UserError: the two do not match, or have weights that are not finite.
    """

    def __init__(self, model: Reader, tokenizer: TextTokenizer) -> None:
        views = views_of(model.config)
        self._view = max(views.values(), key=lambda view: view.height * view.width)
        self._generator = TextGenerator(model, tokenizer, views=views)
        self.context = self._generator.context
        self.asks = template_of(tokenizer).asks

    def sheet(self, name: str, picture: Picture) -> Sheet:
        """A picture as a page."""
        return Sheet(name, picture, self._view.of(picture, None))

    def sheets(self, files: Sequence[Dropped], room: int) -> tuple[Sheet, ...]:
        """The pages of files.

        Args:
          files: images and PDF files; of these the first pages.
          room: pages at most.

        Raises:
          UserError: there is no room for them, or see `pages_of`.
        """
        if len(files) > room:
            raise UserError(
                f"{len(files)} files: there is room for {room} of {MAX_SHEETS} pages; drop fewer, or remove some"
            )
        found: list[Sheet] = []
        for number, file in enumerate(files):
            left = room - len(found) - (len(files) - number - 1)  # one for each that follows
            found += [self.sheet(name, picture) for name, picture in pages_of(file, left)]
        return tuple(found)

    def read(self, picture: Picture, question: str, how: How) -> Said:
        """What a picture says, or an answer to a question about it.

        Raises:
          UserError: an option is out of range.
          UnknownCharacters, BadConversation: the tokenizer lacks a character of the question, or it is too long.
        """
        asked = Asked.of([picture], question if self.asks else "")
        longest = min(how.longest, self._generator.room(asked))
        writing = Writing(longest, beams=how.beams, no_repeat=how.no_repeat)
        started = time.monotonic()
        (written,) = self._generator([asked], writing)
        seconds = time.monotonic() - started
        loop = ending_loop(written.text)
        return Said(written.text, len(written.ids), written.ended, loop, seconds)


def blank_like(picture: Picture) -> Picture:
    """A white page of the same size."""
    return np.full_like(picture, _WHITE)


def alike(text: str, other: str) -> float:
    """The share of characters that two texts have in common, in order; 1: they are equal."""
    return difflib.SequenceMatcher(None, text, other, autojunk=False).ratio()


def how_much_changed(own: Answer, others: Sequence[Answer]) -> str:
    """Says in words what other pictures did to the answer."""
    same = [other.what for other in others if other.said.text == own.said.text]
    if len(same) == len(others):
        return f"The answer is the same with {' and with '.join(same)}: it does not come from the picture."
    shares = ", ".join(
        f"{percent(alike(own.said.text, other.said.text))} with {other.what}" for other in others
    )
    only = f", though not with {' and '.join(same)}" if same else ""
    return (
        f"The answer changes with the picture{only}. Characters in common with the first: {shares}."
    )


def agreement(text: str, truth: str) -> str:
    """Compares an answer with the truth in words."""
    if " ".join(text.split()) == " ".join(truth.split()):
        return "equal to the truth"
    return f"{percent(alike(text, truth))} of its characters agree with the truth"
