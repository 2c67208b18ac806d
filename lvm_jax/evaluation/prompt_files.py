"""Visual prompts from files: JSON lines in the published formats, or a folder of folders.

A line is an object with one of
  "input": [image, ...]                      what the model is shown, in order
  "pairs": [[image, answer], ...], "query": image
  "examples": [[image, annotation, ...], ...], "query": [image, ...]
and may have
  "target": [image, ...]                     the known answer
  "output": "some/name.png"                  names the folder of the answers: some/name
`{"input", "target"}` is the published format for perplexity, `{"input", "output"}` the one for generation.

In a folder every sub-folder is a prompt: its images in the order of their names; one called query.* comes last, and
the others are then (image, answer) pairs; a sub-folder `target` holds the known answer.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from etils import epath

from lvm_jax.data.images import find_images
from lvm_jax.errors import UserError
from lvm_jax.evaluation.prompts import PromptCase
from lvm_jax.inference.prompting import VisualPrompt, encode_prompt
from lvm_jax.models.vqgan import VQGAN

_SHAPES = ({"input"}, {"pairs", "query"}, {"examples", "query"})
_OPTIONAL = {"target", "output"}


@dataclasses.dataclass(frozen=True)
class FileCase:
    """A prompt whose pictures are still files.

    Attributes:
      name: names the folder of its answers.
      origin: the line or folder it came from, for messages.
      fields: the object of the line, paths resolved.
      vqgan: encodes it.
    """

    name: str
    origin: str
    fields: dict[str, Any]
    vqgan: VQGAN

    def files(self) -> list[epath.Path]:
        """Every picture of the prompt and the answer, in order."""
        return [epath.Path(file) for part in self.fields.values() for file in _flat(part)]

    def question(self) -> dict[str, Any]:
        """Names and contents of the files: a picture that changes asks anew."""
        digest = hashlib.sha256(json.dumps({k: _count(v) for k, v in self.fields.items()}).encode())
        for file in self.files():
            if not file.exists():
                raise UserError(
                    f"{self.origin}: {file} does not exist: correct the path or --prompt_base"
                )
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return {
            "name": self.name,
            "source": "files",
            "key": ",".join(map(str, self.files())),
            "codes": digest.hexdigest()[:16],
        }

    def load(self) -> PromptCase:
        """Reads and encodes the pictures.

        Raises:
          UserError: a file that is not a picture.
        """
        prompt = self.prompt()
        truth = VisualPrompt.sequential(self.fields.get("target", []))
        return PromptCase(
            self.name,
            "analogy" if "query" in self.fields else "sequential",
            "files",
            self.origin,
            (*prompt.roles, *self._asked(len(truth.images))),
            encode_prompt(self.vqgan, prompt),
            encode_prompt(self.vqgan, truth),
            tuple((image.shape[0], image.shape[1]) for image in prompt.images),
        )

    def prompt(self) -> VisualPrompt:
        """The prompt's pictures."""
        try:
            if "pairs" in self.fields:
                return VisualPrompt.analogy(self.fields["pairs"], self.fields["query"])
            if "examples" in self.fields:
                return VisualPrompt.annotations(
                    self.fields["examples"], _flat(self.fields["query"])
                )
            return VisualPrompt.sequential(self.fields["input"])
        except UserError as error:
            raise UserError(f"{self.origin}: {error}") from error

    def _asked(self, count: int) -> list[str]:
        """The roles of the known answer's images."""
        if "examples" in self.fields:
            known = len(_flat(self.fields["query"]))
            return [f"annotation_{known + i}" for i in range(count)]
        return ["answer" if "pairs" in self.fields else "frame"] * count

    def length(self) -> int:
        """Images of the prompt, known without reading one."""
        return sum(len(_flat(part)) for name, part in self.fields.items() if name != "target")


def read_prompts(
    source: epath.PathLike, vqgan: VQGAN, base: epath.PathLike | None = None
) -> list[FileCase]:
    """The prompts of a .jsonl file or of a folder.

    Args:
      source: see the head of this module.
      vqgan: encodes the pictures when they are asked.
      base: what relative paths of a .jsonl file start from; by default the folder it lies in.

    Raises:
      UserError: no prompt; a line that is not of a known format; two prompts of one name.
    """
    path = epath.Path(source)
    if path.is_dir():
        cases = [_of_folder(folder, vqgan) for folder in sorted(path.iterdir()) if folder.is_dir()]
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


def _of_lines(path: epath.Path, vqgan: VQGAN, base: epath.Path) -> list[FileCase]:
    cases = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        origin = f"{path.name} line {number}"
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise UserError(f"{origin} is not JSON ({error}): write one object a line") from error
        _check_fields(fields, origin)
        name = _folder_name(fields.pop("output", f"{number - 1:05d}"), origin)
        cases.append(FileCase(name, origin, {k: _below(base, v) for k, v in fields.items()}, vqgan))
    return cases


def _check_fields(fields: Any, origin: str) -> None:
    if not isinstance(fields, dict) or set(fields) - _OPTIONAL not in _SHAPES:
        found = sorted(fields) if isinstance(fields, dict) else type(fields).__name__
        raise UserError(
            f'{origin} has {found}: it needs "input", or "pairs" and "query", or "examples" and "query"; '
            '"target" and "output" are optional'
        )
    for name, value in fields.items():
        listed = isinstance(value, list) or name in ("query", "output")
        if not listed or not all(isinstance(file, str) for file in _flat(value)):
            raise UserError(f"{origin}: {name} is {value!r}: give paths of pictures, as a list")


def _folder_name(output: str, origin: str) -> str:
    """The output path without its extension; it stays below the output folder."""
    name = re.sub(r"\.(png|jpe?g|webp)$", "", output, flags=re.IGNORECASE)
    parts = name.split("/")
    if not all(re.fullmatch(r"[\w][\w .+-]*", part) for part in parts):
        raise UserError(f"{origin}: output {output!r} must be a relative path without '..'")
    return name


def _of_folder(folder: epath.Path, vqgan: VQGAN) -> FileCase:
    target = folder / "target"
    shown = [file for file in find_images(folder) if epath.Path(file).parent == folder]
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
        fields["target"] = find_images(target)
    return FileCase(_folder_name(folder.name, str(folder)), str(folder), fields, vqgan)


def _flat(part: Any) -> list[Any]:
    if not isinstance(part, list):
        return [part]
    return [file for item in part for file in _flat(item)]


def _count(part: Any) -> Any:
    """The nesting of a field, without its paths."""
    return [_count(item) for item in part] if isinstance(part, list) else 1


def _below(base: epath.Path, part: Any) -> Any:
    return [_below(base, item) for item in part] if isinstance(part, list) else str(base / part)


def check_lengths(cases: Sequence[FileCase], context_images: int) -> None:
    """Requires room for an image behind every prompt, before anything is read or made.

    Raises:
      UserError: names the first prompt that is too long.
    """
    for case in cases:
        if case.length() >= context_images:
            raise UserError(
                f"{case.origin} has {case.length()} images: at most {context_images - 1} leave room for a "
                f"prediction in the context of {context_images} images"
            )
