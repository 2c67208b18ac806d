"""A text tokenizer as a folder: `tokenizer.json`, which the library `tokenizers` reads, and `text_tokenizer.json`.

Any tokenizer of that library will do, one's own or a published one. The second file names the special tokens and the
template of a row:

    {"pad": "<pad>", "eos": "</s>", "bos": "</s>", "image_start": "<img>", "image_patch": "<imgpad>",
     "image_end": "</img>", "template": "opt"}

Only `pad` and `eos` are needed where no row has image tokens and no template, as in the recipe "unified": GPT-2's own
folder will do, with <|endoftext|> for both.

`tokenizers` is imported when a folder is opened: whoever trains on pictures alone needs neither it nor what comes with
it.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from lvm_jax import files
from lvm_jax.config import from_mapping
from lvm_jax.errors import BadData, UserError

TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "text_tokenizer.json"
_SPACE_MARK = "▁"  # how SentencePiece writes a space
_RARE = "\U0001242b"  # a cuneiform number: who spells it spells everything


class UnknownCharacters(BadData):
    """A text with characters that the tokenizer has no token for; the message names them."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `text_tokenizer.json` says: the special tokens as they are spelt, and the template.

    Attributes:
      pad: fills a row behind its last token.
      eos: ends an answer.
      image_start, image_patch, image_end: stand around and for the tokens of a picture; templates need them.
      template: a name of `lvm_jax.data.image_text.templates.TEMPLATES`; "" where no conversation becomes a row.
      bos: begins a row, in templates that have one.
      turn_start: begins a turn, in templates that have one.
      system: what the template says before the first turn; "" leaves that out.
    """

    pad: str
    eos: str
    image_start: str = ""
    image_patch: str = ""
    image_end: str = ""
    template: str = ""
    bos: str = ""
    turn_start: str = ""
    system: str = ""

    @property
    def specials(self) -> dict[str, str]:
        """The special tokens by name; optional ones only if they are named."""
        optional = {
            "image_start": self.image_start,
            "image_patch": self.image_patch,
            "image_end": self.image_end,
            "bos": self.bos,
            "turn_start": self.turn_start,
        }
        named = {name: token for name, token in optional.items() if token}
        return {"pad": self.pad, "eos": self.eos, **named}


class TextTokenizer:
    """Text to ids and back.

    Attributes:
      folder: where it was read from.
      settings: of `text_tokenizer.json`.
      ids: name of a special (`pad`, `eos`, ...) -> its id; optional ones only if the settings name them.
      unknown: id that stands for characters without a token; None if there is none.
      size: the least number of rows that an embedding of its ids must have.
      fingerprint: 16 hex digits of SHA-256 over both files.
    """

    def __init__(self, folder: epath.PathLike, *, vocab_size: int | None = None):
        """Reads the folder.

        Args:
          folder: holds both files.
          vocab_size: rows of the embedding that the ids are for; None checks nothing.

        Raises:
          UserError: a file is missing or damaged; a special token is missing, is not one token, serves as two of the
            picture's, or lies outside the embedding.
        """
        self.folder = epath.Path(folder)
        content, settings = (_read(self.folder / name) for name in (TOKENIZER_FILE, SETTINGS_FILE))
        self._files = {TOKENIZER_FILE: content, SETTINGS_FILE: settings}
        self.settings = _settings(settings, self.folder / SETTINGS_FILE)
        self._tokenizer, self.unknown = _parsed(content, self.folder / TOKENIZER_FILE)
        self.fingerprint = hashlib.sha256(content + b"\0" + settings).hexdigest()[:16]
        self.ids = {
            name: self._special(name, token) for name, token in self.settings.specials.items()
        }
        self._refuse_shared()
        # By the largest id and not the number of tokens: a published file may leave gaps.
        self.size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        if vocab_size is not None:
            self.check_fits(vocab_size)
        # From here on what a user writes is text, even if it is spelt like a special token.
        self._tokenizer.encode_special_tokens = True
        self._marks_first_space = self._leaves_out = False
        with contextlib.suppress(UnknownCharacters):  # it says by itself what it lacks
            marked = self._encoded("a").tokens
            self._marks_first_space = bool(marked) and marked[0].startswith(_SPACE_MARK)
            # Byte-pair encoding without an unknown token leaves out, in silence, what it has no token for.
            self._leaves_out = self.unknown is None and not self._encoded(_RARE).ids

    def check_fits(self, vocab_size: int) -> None:
        """Checks that an embedding has a row for every id.

        Raises:
          UserError: it has not; names the first special token outside it, if there is one.
        """
        for name, id in self.ids.items():
            if id >= vocab_size:
                raise UserError(
                    f"{name} {self.settings.specials[name]!r} of {self.folder} has id {id}, the embedding has "
                    f"{vocab_size} rows: give the decoder a vocab_size of at least {self.size}"
                )
        if self.size > vocab_size:
            raise UserError(
                f"the largest id of {self.folder} is {self.size - 1}, the embedding has {vocab_size} rows: give the "
                f"decoder a vocab_size of at least {self.size}"
            )

    def encode(self, text: str) -> list[int]:
        """The ids of a text that goes on after another one; special tokens are never read out of it.

        A SentencePiece tokenizer marks the beginning of every text with a space. A space that the text itself begins
        with is that one, so a text cut before a space has the ids that it has inside the whole.

        Raises:
          UnknownCharacters: the tokenizer has no token for a character.
        """
        if self._marks_first_space:
            text = text.removeprefix(" ")
        encoded = self._encoded(text)
        if self._lacks_some_of(text, encoded):
            raise UnknownCharacters(
                f"the tokenizer {self.folder} has no token for {self._unknown_in(text)}: use one that has, or leave "
                "such texts out"
            )
        return encoded.ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def save_pretrained(self, folder: epath.PathLike) -> None:
        """Writes both files into `folder`, byte for byte as they were read: the fingerprint stays."""
        target = epath.Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            files.write(target / name, content)

    def _special(self, name: str, token: str) -> int:
        """The id of a special token."""
        where = f"{name} is {token!r} in {self.folder / SETTINGS_FILE}"
        if not token:
            raise UserError(f"{where}: name a token of {TOKENIZER_FILE}")
        id = self._tokenizer.token_to_id(token)
        if id is None:
            pieces = len(self._tokenizer.encode(token, add_special_tokens=False).ids)
            raise UserError(
                f"{where}, which {TOKENIZER_FILE} reads as {pieces} tokens, not one: add it as a special token"
            )
        found = self._tokenizer.get_added_tokens_decoder().get(id)
        if found is None or not found.special:
            raise UserError(
                f"{where}, an ordinary token of {TOKENIZER_FILE}: text could hold it; add it as a special token"
            )
        return id

    def _refuse_shared(self) -> None:
        """Refuses a picture's token that has another meaning too; pad, eos and bos may be one token, as in GPT-2."""
        names: dict[int, str] = {}
        for name, id in self.ids.items():
            other = names.setdefault(id, name)
            if other != name and (name.startswith("image") or other.startswith("image")):
                raise UserError(
                    f"{other} and {name} of {self.folder / SETTINGS_FILE} are both "
                    f"{self.settings.specials[name]!r}: give the picture tokens of its own"
                )

    def _encoded(self, text: str) -> Any:
        """The library's encoding of a text."""
        try:
            return self._tokenizer.encode(text, add_special_tokens=False)
        except TypeError as error:  # half of a surrogate pair is no UTF-8
            raise UnknownCharacters(f"the text is not Unicode: {text[:40]!r}") from error
        # The library raises plain exceptions, such as where a file names no unknown token.
        except Exception as error:
            raise UnknownCharacters(
                f"the tokenizer {self.folder} cannot encode {text[:40]!r} ({error}): use one that can, or leave such "
                "texts out"
            ) from error

    def _lacks_some_of(self, text: str, encoded: Any) -> bool:
        """Whether a character of a text has no token. Blanks need none: some tokenizers split at them."""
        if self.unknown is not None:
            return self.unknown in encoded.ids
        if not self._leaves_out:
            return False
        kept = {place for begin, end in encoded.offsets for place in range(begin, end)}
        return any(place not in kept and not c.isspace() for place, c in enumerate(text))

    def _unknown_in(self, text: str) -> str:
        characters = sorted(c for c in set(text) if self._lacks_some_of(c, self._encoded(c)))
        return ", ".join(map(repr, characters[:8])) + (" and more" if len(characters) > 8 else "")


def save_folder(folder: epath.PathLike, tokenizer_json: str, settings: Settings) -> None:
    """Writes a folder that `TextTokenizer` reads; settings left empty are left out."""
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / TOKENIZER_FILE, tokenizer_json)
    told = {name: value for name, value in dataclasses.asdict(settings).items() if value}
    files.write(folder / SETTINGS_FILE, json.dumps(told, indent=2, ensure_ascii=False) + "\n")


def _read(path: epath.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): a text tokenizer is a folder with {TOKENIZER_FILE} "
            f"and {SETTINGS_FILE}"
        ) from error


def _settings(content: bytes, path: epath.Path) -> Settings:
    try:
        return from_mapping(Settings, json.loads(content), where=str(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}): write it again") from error


def _parsed(content: bytes, path: epath.Path) -> tuple[Any, int | None]:
    """The library's tokenizer, and the id that stands for unknown characters, if it has one."""
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(
            f"{path} is read by the package tokenizers: pip install 'lvm_jax[text]'"
        ) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        model = json.loads(content)["model"]
    # The library raises plain exceptions.
    except Exception as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} is no tokenizer of the package tokenizers ({why})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()  # rows are cut and filled by their template
    if model.get("byte_fallback"):
        return tokenizer, None  # it spells what it does not know in bytes
    if isinstance(model.get("unk_id"), int):
        return tokenizer, model["unk_id"]
    unknown = model.get("unk_token")
    return tokenizer, tokenizer.token_to_id(unknown) if unknown else None
