"""How a decoder's rows are made, kept in its folder: `in_context.json` beside the text tokenizer's two files."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from lvm_jax import files
from lvm_jax.data.in_context.sequences import Question, SequenceFormat
from lvm_jax.data.in_context.words import WordsFormat
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.errors import UserError
from lvm_jax.vocabulary import Vocabulary

FORMAT_FILE = "in_context.json"
_SIZES = {"text", "image", "bins", "tokens_per_image", "category_room"}
_QUESTIONS = "questions"


def save_format(
    folder: epath.PathLike,
    form: SequenceFormat,
    tokenizer: TextTokenizer,
    questions: Sequence[Question],
) -> None:
    """Writes the three files into the folder of a decoder that was taught to answer `questions`."""
    vocabulary, target = form.words.vocabulary, epath.Path(folder)
    sizes = {found.name: len(found) for found in vocabulary.ranges}
    fields = {name: sizes.get(name, 0) for name in ("text", "image", "bins")}
    fields |= {"tokens_per_image": form.tokens_per_image, "category_room": form.category_room}
    names = [question.name.lower() for question in questions]
    tokenizer.save_pretrained(target)
    files.write_json(target / FORMAT_FILE, fields | {_QUESTIONS: names})


def has_format(folder: epath.PathLike) -> bool:
    """Whether a folder is of a decoder that answers in context."""
    return (epath.Path(folder) / FORMAT_FILE).exists()


def read_format(folder: epath.PathLike) -> SequenceFormat:
    """The format of a decoder's rows.

    Raises:
      UserError: the file is missing or damaged, or the text tokenizer beside it is not the vocabulary's.
    """
    found = _read(folder)
    vocabulary = Vocabulary.unified(found["text"], found["image"], found["bins"])
    text = TextTokenizer(folder, vocab_size=found["text"])
    return SequenceFormat(
        WordsFormat(vocabulary, text), found["tokens_per_image"], found["category_room"]
    )


def read_questions(folder: epath.PathLike) -> tuple[Question, ...]:
    """The questions that a decoder was taught to answer.

    Raises:
      UserError: the file is missing or damaged.
    """
    return tuple(Question[name.upper()] for name in _read(folder)[_QUESTIONS])


def _read(folder: epath.PathLike) -> Mapping[str, Any]:
    path = epath.Path(folder) / FORMAT_FILE
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): name the folder of a decoder that the recipe 'unified' trained"
        ) from error
    whole = isinstance(found, dict) and set(found) == _SIZES | {_QUESTIONS}
    known = [question.name.lower() for question in Question]
    if (
        not whole
        or not all(isinstance(found[name], int) for name in _SIZES)
        or not isinstance(found[_QUESTIONS], list)
        or not found[_QUESTIONS]
        or not all(name in known for name in found[_QUESTIONS])
    ):
        raise UserError(
            f"{path} must hold the whole numbers {', '.join(sorted(_SIZES))} and the list {_QUESTIONS} of some of "
            f"{', '.join(known)}: export again"
        )
    return found
