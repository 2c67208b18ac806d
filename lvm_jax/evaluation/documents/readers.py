"""Readers of page sets in their public formats.

| reader | format |
|---|---|
| `read_pages` | Fox, GOT-OCR2.0: a JSON list of {image, conversations}, and a folder of pictures |
| `read_docvqa` | DocVQA: SPLIT_v1.0*.json {data: [{questionId, question, image, answers}]}, pictures beside it |
| `read_chartqa` | ChartQA: SPLIT/SPLIT_human.json and SPLIT_augmented.json [{imgname, query, label}], SPLIT/png/ |
| `read_sroie` | SROIE's third task: img/NAME.jpg, and key/NAME.json or entities/NAME.txt, a JSON object each |
| `read_shards` | our own image-text shards: the first question of each record |
"""

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from lvm_jax.data.image_text.conversation import (
    PLACEHOLDER,
    BadConversation,
    Conversation,
    picture_paths,
)
from lvm_jax.data.image_text.record import FORMATS
from lvm_jax.data.image_text.store import ImageTextStore
from lvm_jax.data.records.shards import Shards
from lvm_jax.data.splits import spread
from lvm_jax.errors import UserError
from lvm_jax.evaluation.documents.answer_scores import Kind
from lvm_jax.evaluation.documents.page_questions import PageQuestion, PageSet
from lvm_jax.metrics.answers import parse_dict
from lvm_jax.pictures.decode import EXTENSIONS, load_image
from lvm_jax.pictures.listing import list_folder

FIELDS_QUESTION = "Give {} as a Python dict."


def read_pages(annotations: epath.PathLike, images: epath.PathLike) -> list[PageSet]:
    """A page set of Fox or GOT-OCR2.0: one picture and one answer each.

    Args:
      annotations: the JSON file, such as en_page_ocr.json.
      images: the folder of its pictures, such as en_pdf_png.

    Raises:
      UserError: a file is missing, or an entry is not of this format.
    """
    path, base = epath.Path(annotations), epath.Path(images)
    questions = []
    for number, entry in enumerate(_list(_read(path), path)):
        where = f"{path} entry {number}"
        try:
            pictures = picture_paths(entry)
            turn, *_ = Conversation.of(entry.get("conversations")).turns
        except (BadConversation, AttributeError) as error:
            raise UserError(f"{where}: {error}: it must be {{image, conversations}}") from error
        if len(pictures) != 1 or turn.answer is None:
            raise UserError(
                f"{where} has {len(pictures)} pictures and {'an' if turn.answer else 'no'} answer: give one of each"
            )
        asked = turn.question.replace(PLACEHOLDER, "").strip()
        questions.append(_question(where, base / pictures[0], asked, [turn.answer]))
    return [PageSet(path.stem, Kind.TEXT, tuple(questions))]


def read_docvqa(annotations: epath.PathLike) -> list[PageSet]:
    """DocVQA's questions; `annotations` is such as DocVQA/val/val_v1.0.json.

    Raises:
      UserError: the file is missing or of another format, or the split has no answers.
    """
    path = epath.Path(annotations)
    content = _read(path)
    entries = _list(content.get("data") if isinstance(content, dict) else None, path)
    questions = [
        _question(
            f"{path} question {_field(entry, 'questionId', path, number)}",
            path.parent / str(_field(entry, "image", path, number)),
            str(_field(entry, "question", path, number)),
            [str(answer) for answer in entry.get("answers", [])],
        )
        for number, entry in enumerate(entries)
    ]
    return [PageSet(path.stem, Kind.PHRASE, tuple(questions))]


def read_chartqa(split: epath.PathLike) -> list[PageSet]:
    """ChartQA's two sets of a split; `split` is such as ChartQA/test.

    Raises:
      UserError: a file is missing or of another format.
    """
    folder = epath.Path(split)
    sets = []
    for part in ("human", "augmented"):
        path = folder / f"{folder.name}_{part}.json"
        questions = tuple(
            _question(
                f"{path} entry {number}",
                folder / "png" / str(_field(entry, "imgname", path, number)),
                str(_field(entry, "query", path, number)),
                [str(_field(entry, "label", path, number))],
            )
            for number, entry in enumerate(_list(_read(path), path))
        )
        sets.append(PageSet(part, Kind.NUMBER, questions))
    return sets


def read_sroie(root: epath.PathLike) -> list[PageSet]:
    """SROIE's receipts: company, date, address and total of each, asked for as a dict.

    Raises:
      UserError: a folder is missing, a truth is no object, or a receipt has no picture.
    """
    folder = epath.Path(root)
    found = [folder / name for name in ("key", "entities") if (folder / name).is_dir()]
    if not found or not (folder / "img").is_dir():
        raise UserError(
            f"{folder} has no img with key or entities: point at one split of SROIE's third task"
        )
    pictures = {
        path.stem: path
        for path in list_folder(folder / "img")
        if path.name.lower().endswith(EXTENSIONS)
    }
    questions = []
    for path in list_folder(found[0]):
        truth = _read(path)
        if not isinstance(truth, dict) or not truth:
            raise UserError(f"{path} is {str(truth)[:40]!r}: it must be an object of fields")
        if path.stem not in pictures:
            raise UserError(f"{path} has no picture img/{path.stem}.jpg: download them again")
        asked = FIELDS_QUESTION.format(", ".join(truth))
        questions.append(_question(str(path), pictures[path.stem], asked, [repr(truth)]))
    return [PageSet("sroie", Kind.FIELDS, tuple(questions))]


def read_shards(shards: Shards, split: str, *, most: int = 0) -> list[PageSet]:
    """The sources of image-text shards, a set each; answers that are dicts are scored by their fields.

    A picture that is in the shards for every epoch is asked about once.

    Args:
      shards: see `find_shards`.
      split: such as "validation".
      most: records of each source, evenly spread; 0 takes all.

    Raises:
      UserError: no shards of this encoding, or no record with one picture.
    """
    store = ImageTextStore(shards, split)
    by_source: dict[str, list[int]] = {}
    for i, origin in enumerate(store.origin.tolist()):
        if store.pictures[i] == 1:
            by_source.setdefault(store.origins[origin].source, []).append(i)
    if not by_source:
        raise UserError(f"the split {split!r} has no record with one picture: name another")
    sets = []
    for source, numbers in by_source.items():
        chosen = [numbers[i] for i in spread(len(numbers), most)] if most else numbers
        asked = dict(_of_record(store, i) for i in chosen)
        questions = tuple(asked.values())
        dicts = all(parse_dict(question.answers[0]) is not None for question in questions)
        sets.append(PageSet(source, Kind.FIELDS if dicts else Kind.TEXT, questions))
    return sets


def _of_record(store: ImageTextStore, i: int) -> tuple[tuple[str, str], PageQuestion]:
    """What makes its question another one, and the question."""
    record = store.record(i)
    if record is None:
        raise UserError(
            f"record {i} is damaged: scores without it would be others; build the shards again"
        )
    turn = record.conversation.turns[0]
    assert turn.answer is not None  # as the record's schema has it
    asked = turn.question.replace(PLACEHOLDER, "").strip()
    load = functools.partial(load_image, record.images[0], formats=FORMATS)
    # By its content: several records may ask about one picture, and it is no other page for any of them.
    page = hashlib.sha256(record.images[0]).hexdigest()
    return (page, asked), PageQuestion(record.key, page, load, asked, (turn.answer,))


def _question(key: str, file: epath.Path, asked: str, answers: Sequence[str]) -> PageQuestion:
    load = functools.partial(load_image, file, fit=True)
    return PageQuestion(key, str(file), load, asked, tuple(answers))


def _read(path: epath.Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): download it again") from error


def _list(content: Any, path: epath.Path) -> list[Any]:
    if not isinstance(content, list) or not content:
        raise UserError(f"{path} holds no list of entries: is it a file of this data set?")
    return content


def _field(entry: Any, name: str, path: epath.Path, number: int) -> Any:
    if not isinstance(entry, dict) or name not in entry:
        raise UserError(f"{path} entry {number} has no {name!r}: is it a file of this data set?")
    return entry[name]
