"""What a release answers to the held-out questions in its folder, as one picture; none of them is left out.

  lvm      the last images of a prompt, the answer as the model's defaults draw it, and the truth
  vary     a page, and below it what was read; where that is wrong, the truth too
  unified  the examples, the query, the answer, the truth, and the answer after examples of another thing; first masks,
           then words, with the boxes that they name drawn into the query

P: pictures of a prompt, H, W: pixels of a picture, C: the channels R, G, B.
"""

import math
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
from lvm_jax.reporting.figures import INK, PAPER, PREDICTION, TRUTH, Group, strip

Picture = UInt8[np.ndarray, "H W C"]
Line = tuple[str, tuple[int, int, int]]  # what is written, and its colour

_TEXT = 14
_CELL = 64  # side of a picture in a strip
_LAST_IMAGES = 3  # of a prompt: a pair and the query, or frames
_NO_CHARACTER = "\U0010ffff"  # no font has it


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
    return drawn[system](folder, _font(font))


# ------------------------------------------------------------------------------------------------------- systems


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
    return _grid(panels, columns=3)


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
            right = said.text.strip() in question.answers
            lines = [(said.text, TRUTH if right else PREDICTION)]
            lines += [] if right else [(question.answers[0], INK)]
            panels.append(_stacked([_framed(picture), _written(lines, width + 2, font)]))
        rows.append(
            _stacked(
                [_written([(pages.name.replace("_", " "), INK)], width, font), _grid(panels, 6)]
            )
        )
    return _stacked(rows)


def _unified(folder: Path, font: ImageFont.FreeTypeFont) -> Picture:
    generator = InContextGenerator.from_pretrained(folder / "decoder", folder / "tokenizer")
    masks, words = [], []
    for episode in sorted((folder / "episodes").iterdir()):
        if read_folder(episode).question is Question.SEGMENTATION:
            masks.append(_masks(episode, generator))
        else:
            words.append(_words(episode, generator, font))
    return _stacked([_grid(panels, columns=1) for panels in (masks, words) if panels])


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
    lines: list[Line] = [
        (f"example: {_in_words(example.answer)}", INK) for example in asked.examples
    ]
    lines += [(f"answer: {_in_words(said)}", PREDICTION), (f"truth: {_in_words(truth)}", TRUTH)]
    if (episode / "rival").is_dir():
        lines.append((f"other thing's: {_in_words(answer(episode / 'rival'))}", PREDICTION))
    groups = [
        Group("examples", [as_rgb(example.picture) for example in asked.examples]),
        Group("query", [_boxed(as_rgb(query), ((truth, TRUTH), (said, PREDICTION)))]),
    ]
    return _beside([strip(groups, cell=_CELL), _written(lines, 380, font)])


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


# --------------------------------------------------------------------------------------------------------- paper


def _font(file: str | Path | None) -> ImageFont.FreeTypeFont:
    if file is None:
        font = ImageFont.load_default(_TEXT)
        assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's wheels have FreeType
        return font
    try:
        return ImageFont.truetype(str(file), _TEXT)
    except OSError as error:
        raise UserError(
            f"--font={file} cannot be read ({error}): name a TrueType or OpenType file"
        ) from error


def _written(lines: Sequence[Line], width: int, font: ImageFont.FreeTypeFont) -> Picture:
    """Lines of text, broken where they reach the width."""
    broken = [(part, colour) for text, colour in lines for part in _broken(text, width, font)]
    pitch = _TEXT + 5
    canvas = Image.new("RGB", (width, pitch * len(broken) + 4), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, (text, colour) in enumerate(broken):
        draw.text((0, pitch * number + 2), text, fill=colour, font=font)
    return np.asarray(canvas)


def _broken(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Lines of at most the width, between words where that is possible."""
    _check_characters(text, font)
    lines = []
    for word in text.replace("\n", " / ").split(" "):
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for character in word:
            if font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def _check_characters(text: str, font: ImageFont.FreeTypeFont) -> None:
    def drawn(character: str) -> bytes:
        page = Image.new("L", (3 * _TEXT, 3 * _TEXT))
        ImageDraw.Draw(page).text((_TEXT, _TEXT), character, fill=255, font=font)
        return page.tobytes()

    box = drawn(_NO_CHARACTER)
    lacking = [c for c in dict.fromkeys(text) if c.isprintable() and drawn(c) == box]
    if lacking:
        more = " and others" if len(lacking) > 5 else ""
        raise UserError(
            f"the font {font.getname()[0]} lacks {' '.join(lacking[:5])}{more}: name one that has them with --font"
        )


def _framed(picture: Picture) -> Picture:
    return np.pad(picture, ((1, 1), (1, 1), (0, 0)), constant_values=190)


def _grid(pictures: Sequence[Picture], columns: int) -> Picture:
    """Pictures in rows, all places as large as the largest one."""
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    places = [_placed(p, height + 8, width + 12) for p in pictures]
    blank = _placed(places[0][:0], height + 8, width + 12)
    places += [blank] * (math.ceil(len(places) / columns) * columns - len(places))
    rows = [
        np.concatenate(places[at : at + columns], axis=1) for at in range(0, len(places), columns)
    ]
    return np.concatenate(rows)


def _stacked(pictures: Sequence[Picture]) -> Picture:
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([_placed(picture, picture.shape[0], width) for picture in pictures])


def _beside(pictures: Sequence[Picture]) -> Picture:
    height = max(picture.shape[0] for picture in pictures)
    placed = [_placed(picture, height, picture.shape[1]) for picture in pictures]
    return np.concatenate(placed, axis=1)


def _placed(picture: Picture, height: int, width: int) -> Picture:
    """The picture in the upper left of white paper."""
    paper = np.full((height, width, 3), PAPER, np.uint8)
    paper[: picture.shape[0], : picture.shape[1]] = picture
    return paper
