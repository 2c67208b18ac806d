"""Texts to render: the ones that ship with the repository, or files of one's own.

A text is a line of a file: a sentence, a paragraph or a word.
"""

import functools
import re
from pathlib import Path

import numpy as np
from etils import epath

from data_pipelines import assets
from lvm_jax.errors import UserError
from lvm_jax.pictures.listing import list_files

# The texts in data_pipelines/assets/texts, by name.
OWN = {"english": "english.txt", "words": "words.txt", "han": "han.txt"}
# Han, Kana, and the punctuation and full-width forms that go with them.
_UNSPACED = re.compile(
    "[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)

PUNCTUATION = ".,:;!?'\"，。、：；！？"


@functools.lru_cache(maxsize=8)
def read_texts(name: str) -> tuple[str, ...]:
    """The lines of texts, without empty ones.

    Args:
      name: "english" (414 sentences), "words" (586 common words), "han" (50 sentences), a text file in UTF-8, or a
        folder of `.txt` files.

    Raises:
      UserError: no such file or folder, no text in it, or it is not UTF-8.
    """
    if name in OWN:
        paths = [epath.Path(Path(assets.ROOT) / "texts" / OWN[name])]
    elif epath.Path(name).is_dir():
        paths = [epath.Path(name) / key for key in list_files(name, (".txt",), "texts")]
    else:
        paths = [epath.Path(name)]
    lines = [" ".join(line.split()) for path in paths for line in _read(path).splitlines()]
    found = tuple(dict.fromkeys(line for line in lines if line))
    if not found:
        raise UserError(f"{name} holds no text: every line of it is empty")
    return found


def _read(path: epath.Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}): convert it") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: texts are {', '.join(OWN)}, a text file or a folder of .txt files"
        ) from error


def words_of(text: str) -> tuple[list[str], str]:
    """The pieces between which a line may break, and what stands between them: words and a space.

    A text with Han or Kana breaks between any two characters, also inside the Latin words that it quotes.
    """
    if _UNSPACED.search(text):
        return list(text), ""
    return text.split(), " "


def label_of(texts: tuple[str, ...], most: int, rng: np.random.Generator) -> str:
    """One to three whole words, or characters of Han, together no longer than `most` characters if there are any.

    Raises:
      UserError: the texts have no word that is short enough.
    """
    label = ""
    wanted = int(rng.integers(1, 4))
    for _ in range(50):
        words, between = words_of(texts[int(rng.integers(len(texts)))])
        word = words[int(rng.integers(len(words)))].strip(PUNCTUATION)
        longer = f"{label}{between}{word}" if label else word
        if word and len(longer) <= most:
            label, wanted = longer, wanted - 1
        if not wanted:
            break
    if not label:
        raise UserError(
            f"the texts have no words of at most {most} characters: give others, or a larger chart"
        )
    return label
