"""Questions from a folder of examples and queries, and their answers as files.

    FOLDER/examples/NAME.png  with  NAME.mask.png   a picture and its mask, white on black
    FOLDER/examples/NAME.png  with  NAME.txt        a picture and what is said about it
    FOLDER/queries/*.png                            pictures whose answers are wanted

All examples are of one kind, which is the question. Without any, the question must be named. A NAME.txt has, line by
line and each only if it is known, `category: dog`, `box: LEFT TOP RIGHT BOTTOM` as shares of the picture's edges, and
the caption.

OUT/QUERY/ gets mask_0.png, mask_1.png, ... (black and white) and decoded_0.png, ... (as drawn), or words_0.txt, ...;
OUT/answers.json has the settings, what was asked, and all answers.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath
from tqdm import tqdm

from lvm_jax import files
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.data.in_context.words import Box, Words
from lvm_jax.errors import UserError
from lvm_jax.inference.in_context import DrawnWords
from lvm_jax.inference.in_context_pictures import DrawnMask, Example, InContextGenerator
from lvm_jax.inference.prompting import Image
from lvm_jax.inference.sampling import Sampling
from lvm_jax.pictures.annotation_maps import mask_to_rgb
from lvm_jax.pictures.listing import list_frames
from lvm_jax.reporting.figures import save_png

MASK = ".mask"  # between a mask's name and its suffix


@dataclasses.dataclass(frozen=True)
class FolderQuestions:
    """What a folder asks.

    Attributes:
      question: of all queries.
      examples: in the order of their names.
      queries: files.
    """

    question: Question
    examples: tuple[Example, ...]
    queries: tuple[epath.Path, ...]


@dataclasses.dataclass(frozen=True)
class FolderRequest:
    """How to answer; see `InContextGenerator.segment`.

    Attributes:
      category: of the queries.
      n_candidates: answers to each.
      sampling: see `Sampling`.
      seed: of all random draws.
      batch_size: queries at once.
    """

    category: str = ""
    n_candidates: int = 1
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    seed: int = 0
    batch_size: int = 4


def read_folder(folder: epath.PathLike, question: Question | None = None) -> FolderQuestions:
    """Lists a folder and reads its texts; pictures stay files.

    Args:
      folder: see the module.
      question: what is asked; None: what the examples show.

    Raises:
      UserError: no query, two queries, examples or masks of one name, an example without an answer or with two,
        examples of several kinds or of another than `question`, neither example nor question, or a text that cannot be
        read.
    """
    root = epath.Path(folder)
    queries = _pictures(root / "queries")
    if not queries:
        raise UserError(
            f"{root / 'queries'} has 0 pictures: put those there whose answers are wanted"
        )
    _check_names(queries, "would both be answered in")
    listed = _pictures(root / "examples")
    _check_names(listed, "are both called")
    masks = {path.stem.removesuffix(MASK): path for path in listed if _is_mask(path)}
    pictures = [path for path in listed if not _is_mask(path)]
    if alone := sorted(set(masks) - {path.stem for path in pictures}):
        raise UserError(f"{masks[alone[0]]} has no picture {alone[0]}.png beside it: add it")
    examples = tuple(_example(path, masks.get(path.stem)) for path in pictures)
    asked = {
        Question.CAPTIONING if isinstance(e.answer, Words) else Question.SEGMENTATION
        for e in examples
    }
    if question is not None:
        asked.add(question)
    if len(asked) != 1:
        raise UserError(
            f"{root / 'examples'} has {len(examples)} examples of {len(asked)} questions: give masks only or words "
            "only; --question=segmentation or captioning says what is asked without any, and must fit those there are"
        )
    return FolderQuestions(asked.pop(), examples, tuple(queries))


def answer_folder(
    generator: InContextGenerator,
    questions: FolderQuestions,
    request: FolderRequest,
    output: epath.Path,
    identity: dict[str, Any],
) -> dict[str, Any]:
    """Answers the queries into OUTPUT; returns the content of answers.json.

    Queries that an earlier run answered under the same `identity` are left alone, unless their picture or an example
    has changed since.
    """
    path = output / "answers.json"
    asked = {
        **identity,
        **dataclasses.asdict(request),
        "question": questions.question.name.lower(),
        "examples": [_described(example) for example in questions.examples],
    }
    contents = {query.name: files.fingerprint(query) for query in questions.queries}
    answers = _known(path, asked, contents)
    left = [query for query in questions.queries if query.name not in answers]
    output.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(questions.queries), initial=len(answers), unit="query") as progress:
        for at in range(0, len(left), request.batch_size):
            batch = left[at : at + request.batch_size]
            found = _answered(generator, questions, request, batch)
            for query, candidates in zip(batch, found, strict=True):
                _clear(output / query.stem)
                answers[query.name] = [
                    _save(candidate, output / query.stem, number)
                    for number, candidate in enumerate(candidates)
                ]
            files.write_json(path, {"request": asked, "queries": contents, "answers": answers})
            progress.update(len(batch))
    return {"request": asked, "queries": contents, "answers": answers}


def _described(example: Example) -> dict[str, Any]:
    """An example as JSON; one that has changed gives another."""
    shown = {"picture": example.picture, "answer": example.answer}
    return {
        "name": str(example.picture),
        **{part: _content(value) for part, value in shown.items()},
    }


def _content(shown: Image | Words) -> str:
    if isinstance(shown, Words):
        return written(shown)
    assert isinstance(shown, epath.Path)  # `read_folder` leaves pictures in their files
    return files.fingerprint(shown)


def _known(path: epath.Path, asked: dict[str, Any], contents: dict[str, str]) -> dict[str, Any]:
    """The answers of an earlier run that still hold, by query."""
    before = files.read_json(path) or {}
    if before.get("request") != asked:
        return {}
    then, answers = before.get("queries", {}), before["answers"]
    return {
        n: answers[n] for n, content in contents.items() if n in answers and then.get(n) == content
    }


def read_words(path: epath.Path) -> Words:
    """What a text file says about a picture; see the module.

    Raises:
      UserError: it cannot be read, or a box is not four numbers.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()  # Windows begins with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): write it as UTF-8 text") from error
    category, boxes, caption = "", [], []
    for line in lines:
        name, colon, rest = line.partition(":")
        if colon and name.strip() == "category":
            category = rest.strip()
        elif colon and name.strip() == "box":
            boxes.append(_box(rest, path))
        elif line.strip():
            caption.append(line.strip())
    return Words(" ".join(caption), category, tuple(boxes))


def written(words: Words) -> str:
    """The text of such a file."""
    lines = [f"category: {words.category}"] if words.category else []
    lines += [f"box: {' '.join(f'{corner:.3f}' for corner in box)}" for box in words.boxes]
    return "\n".join([*lines, words.caption.strip()]).strip() + "\n"


def _box(text: str, path: epath.Path) -> Box:
    try:
        left, top, right, bottom = map(float, text.split())
    except ValueError as error:
        raise UserError(
            f"{path} has the box {text.strip()!r}: write LEFT TOP RIGHT BOTTOM as shares of the picture's edges, such "
            "as 0.1 0.2 0.5 0.9"
        ) from error
    return left, top, right, bottom


def _answered(
    generator: InContextGenerator,
    questions: FolderQuestions,
    request: FolderRequest,
    queries: Sequence[epath.Path],
) -> Sequence[Sequence[DrawnMask | DrawnWords]]:
    answer: Callable[..., Sequence[Sequence[DrawnMask | DrawnWords]]] = (
        generator.describe if questions.question is Question.CAPTIONING else generator.segment
    )
    return answer(
        questions.examples,
        queries,
        category=request.category,
        n_candidates=request.n_candidates,
        sampling=request.sampling,
        seed=request.seed,
    )


def _clear(folder: epath.Path) -> None:
    """Removes the answers of an earlier run, which may have had more candidates, or another question."""
    for pattern in ("mask_*.png", "decoded_*.png", "words_*.txt"):
        for path in folder.glob(pattern):
            path.unlink()


def _save(answer: DrawnMask | DrawnWords, folder: epath.Path, number: int) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(answer, DrawnMask):
        save_png(folder / f"mask_{number}.png", mask_to_rgb(answer.mask))
        save_png(folder / f"decoded_{number}.png", answer.picture)
        return {"mask": f"{folder.name}/mask_{number}.png", "share": float(answer.mask.mean())}
    files.write(folder / f"words_{number}.txt", written(answer.words))
    return {**dataclasses.asdict(answer.words), "broken": answer.broken}


def _example(picture: epath.Path, mask: epath.Path | None) -> Example:
    text = picture.parent / f"{picture.stem}.txt"
    if text.exists() == (mask is not None):
        has = "both a mask and a text" if mask else "neither a mask nor a text"
        raise UserError(
            f"{picture} has {has}: put one of {picture.stem}{MASK}.png and {text.name} beside it"
        )
    return Example(picture, read_words(text) if mask is None else mask)


def _check_names(pictures: Sequence[epath.Path], what: str) -> None:
    for one, other in itertools.pairwise(sorted(pictures, key=lambda path: path.stem)):
        if one.stem == other.stem:
            raise UserError(f"{one} and {other} {what} {one.stem}: rename one")


def _pictures(folder: epath.Path) -> list[epath.Path]:
    """The pictures of a folder; none if there is no such folder."""
    return list_frames(folder) if folder.is_dir() else []


def _is_mask(path: epath.Path) -> bool:
    return path.stem.endswith(MASK)
