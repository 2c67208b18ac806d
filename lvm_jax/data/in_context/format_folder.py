"""How a decoder's rows are made, kept in its folder: `in_context.json` beside the text tokenizer's two files."""

import json

from etils import epath

from lvm_jax import files
from lvm_jax.data.in_context.sequences import SequenceFormat
from lvm_jax.data.in_context.words import WordsFormat
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.errors import UserError
from lvm_jax.vocabulary import Vocabulary

FORMAT_FILE = "in_context.json"
_KEYS = {"text", "image", "bins", "tokens_per_image", "category_room"}


def save_format(folder: epath.PathLike, form: SequenceFormat, tokenizer: TextTokenizer) -> None:
    """Writes the three files into a decoder's folder."""
    vocabulary, target = form.words.vocabulary, epath.Path(folder)
    sizes = {found.name: len(found) for found in vocabulary.ranges}
    fields = {name: sizes.get(name, 0) for name in ("text", "image", "bins")}
    fields |= {"tokens_per_image": form.tokens_per_image, "category_room": form.category_room}
    tokenizer.save_pretrained(target)
    files.write_json(target / FORMAT_FILE, fields)


def has_format(folder: epath.PathLike) -> bool:
    """Whether a folder is of a decoder that answers in context."""
    return (epath.Path(folder) / FORMAT_FILE).exists()


def read_format(folder: epath.PathLike) -> SequenceFormat:
    """The format of a decoder's rows.

    Raises:
      UserError: the file is missing or damaged, or the text tokenizer beside it is not the vocabulary's.
    """
    path = epath.Path(folder) / FORMAT_FILE
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): name the folder of a decoder that the recipe 'unified' trained"
        ) from error
    whole = isinstance(found, dict) and set(found) == _KEYS
    if not whole or not all(isinstance(value, int) for value in found.values()):
        raise UserError(
            f"{path} must hold the whole numbers {', '.join(sorted(_KEYS))}: export again"
        )
    vocabulary = Vocabulary.unified(found["text"], found["image"], found["bins"])
    text = TextTokenizer(folder, vocab_size=found["text"])
    return SequenceFormat(
        WordsFormat(vocabulary, text), found["tokens_per_image"], found["category_room"]
    )
