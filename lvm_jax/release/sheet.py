"""What a release answers to the held-out questions in its folder, as one picture; none of them is left out.

  lvm      the last images of a prompt, the answer as the model's defaults draw it, and the truth
  vary     a page, and below it what was read; where that is wrong, the truth too
  unified  the examples, the query, the answer, the truth, and the answer after examples of another thing; first masks,
           then words, with the boxes that they name drawn into the query

P: pictures of a prompt, H, W: pixels of a picture, C: the channels R, G, B.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from etils import epath
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from lvm_jax.data.in_context.sequences import Question
from lvm_jax.data.in_context.words import Words
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.errors import UserError
from lvm_jax.inference.answers import Answer
from lvm_jax.inference.defaults import Defaults, read_defaults
from lvm_jax.inference.image_generator import ImageGenerator
from lvm_jax.inference.in_context_folder import MASK, read_folder, read_words
from lvm_jax.inference.in_context_pictures import GREEDY, Example, InContextGenerator
from lvm_jax.inference.prompt_files import read_prompts
from lvm_jax.inference.prompting import as_rgb
from lvm_jax.inference.text_generator import Asked, TextGenerator
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.models.vision_language.model import VisionLanguage
from lvm_jax.pictures.annotation_maps import mask_to_rgb
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.release import folder as release_folder
from lvm_jax.release.pages import read_page_sets
from lvm_jax.reporting import paper
from lvm_jax.reporting.figures import INK, PREDICTION, TRUTH, Group, strip

Picture = UInt8[np.ndarray, "H W C"]

_CELL = 64  # side of a picture in a strip
_LAST_IMAGES = 3  # of a prompt: a pair and the query, or frames


def draw(root: str | Path, system: str, font: str | Path | None = None) -> Picture:
    """Asks the released model of a system what lies in its folder.

    Args:
      root: the folder of all releases.
      system: see `lvm_jax.release.folder`.
      font: a TrueType file for words; None: Pillow's own, which has Latin letters.

    Raises:
      UserError: there is no such release, it is damaged, or the font cannot be read or lacks a character.
    """
    folder = release_folder.find(root, system)
    if folder is None:
        raise UserError(f"{Path(root) / system} has no release: name another folder or system")
    drawn: dict[str, Callable[[Path, ImageFont.FreeTypeFont], Picture]] = {
        release_folder.LVM: _lvm,
        release_folder.VARY: _vary,
        release_folder.UNIFIED: _unified,
    }
    return drawn[system](folder, paper.read_font(font))


def _lvm(folder: Path, font: ImageFont.FreeTypeFont) -> Picture:
    del font  # labels are Latin
    vqgan = VQGAN.from_pretrained(folder / "tokenizer")
    engine = ImageGenerator(Decoder.from_pretrained(folder / "decoder"), vqgan).engine
    drawing = read_defaults(folder / "decoder") or Defaults()
    panels = []
    for file in read_prompts(folder / "prompts", vqgan):
        case = file.ask().case()
        codes, likelihoods = engine.generate_scored(
            [case.prompt_PN],
            len(case.truth_IN),
            n_candidates=drawing.candidates,
            sampling=drawing.sampling,
        )
        answer = Answer.of(case, codes[0], likelihoods[0], vqgan, drawing.answer)
        groups = [
            # The name begins with a number and the kind of the prompt.
            Group(" ".join(case.name.split("-")[2:]), _last(answer.prompt_PHWC)),
            Group("answer", list(to_uint8(answer.made_AIHWC[0])), PREDICTION),
            Group("truth", list(to_uint8(answer.truth_IHWC)), TRUTH),
        ]
        panels.append(strip(groups, cell=_CELL))
    return paper.grid(panels, columns=3)


def _vary(folder: Path, font: ImageFont.FreeTypeFont) -> Picture:
    model, tokenizer = (
        VisionLanguage.from_pretrained(folder / "model"),
        TextTokenizer(folder / "model"),
    )
    generator = TextGenerator(model, tokenizer)
    rows = []
    for pages in read_page_sets(folder / "pages"):
        pictures = [question.picture() for question in pages.questions]
        asked = [
            Asked.of((picture,), question.question)
            for picture, question in zip(pictures, pages.questions)
        ]
        width = max(picture.shape[1] for picture in pictures)
        panels = []
        for picture, question, said in zip(pictures, pages.questions, generator(asked)):
            right = any(said.text.split() == truth.split() for truth in question.answers)
            lines = [(said.text, TRUTH if right else PREDICTION)]
            lines += [] if right else [(question.answers[0], INK)]
            panels.append(
                paper.stacked([paper.framed(picture), paper.written(lines, width + 2, font)])
            )
        title = paper.written([(pages.name.replace("_", " "), INK)], width, font)
        rows.append(paper.stacked([title, paper.grid(panels, columns=6)]))
    return paper.stacked(rows)


def _unified(folder: Path, font: ImageFont.FreeTypeFont) -> Picture:
    generator = InContextGenerator.from_pretrained(folder / "decoder", folder / "tokenizer")
    masks, words = [], []
    for episode in sorted((folder / "episodes").iterdir()):
        if read_folder(episode).question is Question.SEGMENTATION:
            masks.append(_masks(episode, generator))
        else:
            words.append(_words(episode, generator, font))
    return paper.stacked([paper.grid(panels, columns=1) for panels in (masks, words) if panels])


def _masks(episode: Path, generator: InContextGenerator) -> Picture:
    asked = read_folder(episode)
    query = asked.queries[0]
    shown = [as_rgb(part) for e in asked.examples for part in (e.picture, _mask(e))]

    def answer(folder: Path) -> list[Picture]:
        if not folder.is_dir():
            return []
        ((drawn,),) = generator.segment(read_folder(folder).examples, [query], sampling=GREEDY)
        return [mask_to_rgb(drawn.mask)]

    groups = [
        Group("examples", shown),
        Group("query", [as_rgb(query)]),
        Group("answer", answer(episode), PREDICTION),
        Group("truth", [as_rgb(epath.Path(episode / f"truth/query{MASK}.png"))], TRUTH),
        Group("other thing's", answer(episode / "rival"), PREDICTION),
    ]
    return strip(groups, cell=_CELL)


def _words(episode: Path, generator: InContextGenerator, font: ImageFont.FreeTypeFont) -> Picture:
    asked = read_folder(episode)
    query = asked.queries[0]

    def answer(folder: Path) -> Words:
        ((said,),) = generator.describe(read_folder(folder).examples, [query], sampling=GREEDY)
        return said.words

    truth, said = read_words(epath.Path(episode / "truth/query.txt")), answer(episode)
    lines: list[paper.Line] = [
        (f"example: {_in_words(example.answer)}", INK) for example in asked.examples
    ]
    lines += [(f"answer: {_in_words(said)}", PREDICTION), (f"truth: {_in_words(truth)}", TRUTH)]
    if (episode / "rival").is_dir():
        lines.append((f"other thing's: {_in_words(answer(episode / 'rival'))}", PREDICTION))
    groups = [
        Group("examples", [as_rgb(example.picture) for example in asked.examples]),
        Group("query", [_boxed(as_rgb(query), ((truth, TRUTH), (said, PREDICTION)))]),
    ]
    return paper.beside([strip(groups, cell=_CELL), paper.written(lines, 380, font)])


def _last(images_PHWC: Float[np.ndarray, "P H W C"]) -> list[Picture]:
    return list(to_uint8(images_PHWC))[-_LAST_IMAGES:]


def _mask(example: Example) -> epath.Path:
    assert isinstance(example.answer, epath.Path)  # `read_folder` leaves pictures in their files
    return example.answer


def _in_words(words: object) -> str:
    assert isinstance(words, Words)
    return f"{words.category}: {words.caption}" if words.category else words.caption


def _boxed(picture: Picture, said: Sequence[tuple[Words, tuple[int, int, int]]]) -> Picture:
    """The picture as a square cell, with the boxes that were said."""
    canvas = Image.fromarray(picture).resize((_CELL, _CELL), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    for words, colour in said:
        for box in words.boxes:
            draw.rectangle([corner * (_CELL - 1) for corner in box], outline=colour, width=2)
    return np.asarray(canvas)
