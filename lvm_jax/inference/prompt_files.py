"""Reads visual prompts from files: JSON lines in the published formats, or folders.

A line is an object with one of
  "input": [image, ...]                      what the model sees, in order
  "pairs": [[image, answer], ...], "query": image
  "examples": [[image, annotation, ...], ...], "query": [image, ...]
  "parts": [object, ...]                     a composed prompt: objects as above, only the last with a query
and, optionally,
  "target": [image, ...]                     the known answer
  "output": "some/name.png"                  the answers go to the folder some/name
`{"input", "target"}` is the published format for perplexity, `{"input", "output"}` the one for generation.

In a folder, every sub-folder is a prompt: its images, by their numbers (2.png before 10.png). If there is an image
query.*, it comes last and the others are (image, answer) pairs. A sub-folder `target` holds the known answer. A folder
that holds images itself is one prompt.

H, W: pixels of a picture.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import UInt8

from lvm_jax import files
from lvm_jax.errors import UserError
from lvm_jax.inference.cases import Case, Question
from lvm_jax.inference.prompting import VisualPrompt, encode_prompt
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.decode import BadImage, load_image
from lvm_jax.pictures.listing import by_numbers, find_images, list_folder, list_frames

_SHAPES = ({"input"}, {"pairs", "query"}, {"examples", "query"})
_FRONT_PARTS = ({"input"}, {"pairs"}, {"examples"})  # only the last of "parts" may have a query
_OPTIONAL = {"target", "output"}
_TARGET = "target"  # the folder of a prompt's known answer


@dataclasses.dataclass(frozen=True)
class FileCase:
    """A prompt whose pictures are still files, so that thousands can be checked before the first is read.

    Attributes:
      name: of the folder for its answers.
      origin: the line or folder it came from, for messages.
      fields: the line's object, with resolved paths.
      vqgan: encodes the pictures.
    """

    name: str
    origin: str
    fields: dict[str, Any]
    vqgan: VQGAN

    def files(self) -> list[str]:
        """The files of the prompt and the answer, in order."""
        return [str(file) for field in self.fields.values() for file in _flat(field)]

    def check(self, context_images: int) -> None:
        """Requires a well-formed prompt with room for an answer, and files that exist; reads none of them.

        Raises:
          UserError: otherwise.
        """
        # Composing blank pictures counts the images and finds a malformed prompt without reading a file.
        blank = np.zeros((1, 1, 3), np.uint8)
        shown = {name: _map(field, lambda _: blank) for name, field in self.fields.items()}
        length = len(self._compose(shown).images)
        if self._truth(shown).images and not length:
            # Answers are scored beside a copy of an image before them.
            raise UserError(
                f"{self.origin} has a target and 0 images before it: give at least 1, or leave the target out"
            )
        if length >= context_images:
            raise UserError(
                f"{self.origin} has {length} images: at most {context_images - 1} leave room for a prediction in the "
                f"context of {context_images} images"
            )
        for file in self.files():
            path = epath.Path(file)
            if not path.exists() or path.is_dir():
                wrong = "is a folder" if path.exists() else "does not exist"
                raise UserError(
                    f"{self.origin}: {file} {wrong}: correct the path; in a .jsonl it starts at --prompt_base"
                )

    def ask(self) -> Question:
        """Reads every file once. If a picture changes, so does the question.

        `Question.case` decodes and encodes the pictures; it raises a UserError for a file that is not a picture.
        """
        shown = self.files()
        contents = {file: epath.Path(file).read_bytes() for file in dict.fromkeys(shown)}
        # The same files as frames or as pairs are different questions, so the digest starts with their nesting.
        nesting = {name: _map(field, lambda _: 1) for name, field in self.fields.items()}
        digest = hashlib.sha256(json.dumps(nesting).encode())
        for file in shown:
            digest.update(hashlib.sha256(contents[file]).digest())
        key = ",".join(shown)
        return Question(
            self.name, "files", key, digest.hexdigest()[:16], lambda: self._case(contents, key)
        )

    def _case(self, contents: Mapping[str, bytes], key: str) -> Case:
        def picture(file: str) -> UInt8[np.ndarray, "H W 3"]:
            try:
                return load_image(contents[str(file)], fit=True)
            except BadImage as error:
                raise UserError(
                    f"{self.origin}: the prompt image {file}: {error.why}: give a readable jpg, png or webp file"
                ) from error

        shown = {name: _map(field, picture) for name, field in self.fields.items()}
        prompt, truth = self._compose(shown), self._truth(shown)
        return Case(
            name=self.name,
            kind="analogy" if "query" in self._last() else "sequential",
            source="files",
            key=key,
            roles=(*prompt.roles, *self._asked(len(truth.images))),
            prompt_PN=encode_prompt(self.vqgan, prompt),
            truth_IN=encode_prompt(self.vqgan, truth),
            sizes=tuple((image.shape[0], image.shape[1]) for image in prompt.images),
        )

    def _compose(self, fields: Mapping[str, Any]) -> VisualPrompt:
        if "parts" in fields:
            return VisualPrompt.composed(self._compose(part) for part in fields["parts"])
        try:
            if "query" not in fields and "input" not in fields:
                return VisualPrompt.annotations(fields.get("pairs") or fields["examples"])
            if "pairs" in fields:
                return VisualPrompt.analogy(fields["pairs"], fields["query"])
            if "examples" in fields:
                return VisualPrompt.annotations(fields["examples"], fields["query"])
            return VisualPrompt.sequential(fields["input"])
        except UserError as error:
            raise UserError(f"{self.origin}: {error}") from error

    def _truth(self, fields: Mapping[str, Any]) -> VisualPrompt:
        try:
            return VisualPrompt.sequential(fields.get("target", []))
        except UserError as error:
            raise UserError(f"{self.origin}: target: {error}") from error

    def _asked(self, count: int) -> list[str]:
        """The roles of the known answer's images."""
        last = self._last()
        if "examples" in last:
            known = len(_flat(last["query"]))
            return [f"annotation_{known + i}" for i in range(count)]
        return ["answer" if "pairs" in last else "frame"] * count

    def _last(self) -> dict[str, Any]:
        """The object to continue: the prompt itself, or the last of a composed one."""
        return self.fields["parts"][-1] if "parts" in self.fields else self.fields


def read_prompts(
    source: epath.PathLike, vqgan: VQGAN, base: epath.PathLike | None = None
) -> list[FileCase]:
    """Lists the prompts of a .jsonl file or a folder.

    Args:
      source: see the module docstring.
      vqgan: encodes the pictures later, when the prompt is asked.
      base: where relative paths in a .jsonl file start; by default the folder of the file.

    Raises:
      UserError: no prompt, a line in an unknown format, two prompts with one name, or a folder that could be one prompt
        or several.
    """
    path = epath.Path(source)
    if path.is_dir():
        cases = [_of_folder(folder, vqgan) for folder in _prompts_in(path)]
    elif path.exists():
        cases = _of_lines(path, vqgan, epath.Path(base or path.parent))
    else:
        raise UserError(
            f"--prompt {path} does not exist: give a .jsonl file or a folder of folders"
        )
    if not cases:
        raise UserError(f"{path} holds 0 prompts: give lines, or sub-folders of images")
    seen: dict[str, str] = {}
    for case in cases:
        if case.name in seen:
            raise UserError(
                f"{case.origin} and {seen[case.name]} would both write {case.name}: change one output"
            )
        seen[case.name] = case.origin
    return cases


def split_pair(text: str) -> list[str]:
    """Splits `image:answer` at its colon; those of gs:// and of a drive, C:/, belong to the paths.

    If file names have colons too, the split counts whose two files exist.

    Raises:
      UserError: there is no such split, or several.
    """
    splits = [[text[:i], text[i + 1 :]] for i in _colons_between_paths(text)]
    splits = [pair for pair in splits if all(pair)]
    if len(splits) > 1:
        splits = [pair for pair in splits if all(epath.Path(file).exists() for file in pair)]
    if len(splits) != 1:
        raise UserError(
            f"--pairs has {text!r}, which is no image:answer of two files: write such names in a .jsonl for --prompt"
        )
    return splits[0]


def _colons_between_paths(text: str) -> Iterator[int]:
    for i, letter in enumerate(text):
        store = text[i + 1 : i + 3] == "//"
        one_letter = i == 1 or (i > 1 and text[i - 2] == ":")
        drive = one_letter and text[i - 1].isalpha() and text[i + 1 : i + 2] in ("/", "\\")
        if letter == ":" and not store and not drive:
            yield i


def _of_lines(path: epath.Path, vqgan: VQGAN, base: epath.Path) -> list[FileCase]:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # Windows begins with a mark
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}): save it as UTF-8") from error
    cases = []
    # Not splitlines: JSON may have U+2028 and its like inside a name.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        origin = f"{path.name} line {number}"
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise UserError(f"{origin} is not JSON ({error}): write one object a line") from error
        _check_fields(fields, origin)
        name = _folder_name(fields.pop("output", f"{number - 1:05d}"), origin)
        paths = {k: _map(v, lambda file: _below(base, file)) for k, v in fields.items()}
        cases.append(FileCase(name, origin, paths, vqgan))
    return cases


def _check_fields(fields: Any, origin: str) -> None:
    parts = fields.get("parts") if isinstance(fields, dict) else None
    if isinstance(parts, list) and parts:
        rest = {name: value for name, value in fields.items() if name != "parts"}
        _check_part(rest, (set(),), _OPTIONAL, origin)
        for number, part in enumerate(parts, 1):
            shapes = _SHAPES if number == len(parts) else _FRONT_PARTS
            _check_part(part, shapes, set(), f"{origin}, part {number}")
    else:
        _check_part(fields, _SHAPES, _OPTIONAL, origin)


def _check_part(fields: Any, shapes: Sequence[set[str]], optional: set[str], origin: str) -> None:
    if not isinstance(fields, dict) or set(fields) - optional not in shapes:
        found = sorted(fields) if isinstance(fields, dict) else type(fields).__name__
        raise UserError(
            f'{origin} has {found}: it needs "input", or "pairs" and "query", or "examples" and "query", or "parts" of '
            'which only the last has a query; "target" and "output" are optional beside them'
        )
    for name, value in fields.items():
        single = name == "output" or (name == "query" and "pairs" in fields)
        listed = isinstance(value, list) != single
        if not listed or not all(isinstance(file, str) for file in _flat(value)):
            raise UserError(
                f"{origin}: {name} is {value!r}: give {'one path' if single else 'a list of paths'}"
            )


def _below(base: epath.Path, file: str) -> str:
    """The path that a line means; epath would put even gs:// below `base`."""
    return str(base / file) if files.is_local(file) else file


def _folder_name(output: str, origin: str) -> str:
    """The output path without its extension; refuses a path that would leave the output folder."""
    name = re.sub(r"\.(png|jpe?g|webp)$", "", output, flags=re.IGNORECASE)
    # A part that begins with a dot may be "..", or hidden.
    if any(part[:1] in ("", ".") for part in name.split("/")) or re.search(r"[\\\0-\37]", name):
        raise UserError(
            f"{origin}: output {output!r} must be a relative path, of names that do not begin with a dot and have no "
            "backslash or control character"
        )
    return name


def _prompts_in(folder: epath.Path) -> list[epath.Path]:
    """The folders of prompts: itself if it holds images, else those in it."""
    inside = [path for path in list_folder(folder) if path.is_dir()]
    if not list_frames(folder):
        return inside
    if others := [path.name for path in inside if path.name != _TARGET]:
        raise UserError(
            f"{folder} holds images, as a prompt does, and the folder {others[0]}, as a folder of prompts does: move "
            "one of them away"
        )
    return [folder if folder.name else folder.resolve()]  # "." has no name


def _of_folder(folder: epath.Path, vqgan: VQGAN) -> FileCase:
    target = folder / _TARGET
    shown = [str(file) for file in list_frames(folder)]
    if not shown:
        raise UserError(f"{folder} holds no images: each folder of --prompt is a prompt, of images")
    queries = [file for file in shown if epath.Path(file).stem == "query"]
    rest = [file for file in shown if file not in queries]
    fields: dict[str, Any] = {"input": shown}
    if queries:
        if len(queries) > 1 or len(rest) % 2:
            raise UserError(
                f"{folder} has {len(queries)} queries and {len(rest)} other images: give one query.* and pairs"
            )
        fields = {"pairs": [rest[i : i + 2] for i in range(0, len(rest), 2)], "query": queries[0]}
    if target.is_dir():
        fields["target"] = sorted(find_images(target), key=by_numbers)
    return FileCase(_folder_name(folder.name, str(folder)), str(folder), fields, vqgan)


def _flat(field: Any) -> list[Any]:
    """All paths of a field in order, at any nesting."""
    if isinstance(field, dict):
        field = list(field.values())
    if not isinstance(field, list):
        return [field]
    return [file for item in field for file in _flat(item)]


def _map(field: Any, change: Callable[[str], Any]) -> Any:
    """Applies `change` to every path of a field and keeps the nesting."""
    if isinstance(field, dict):
        return {name: _map(item, change) for name, item in field.items()}
    return [_map(item, change) for item in field] if isinstance(field, list) else change(field)
