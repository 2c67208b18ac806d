"""Reads many pages in batches and writes what they say beside their pictures; a run that was stopped goes on.

OUT/NAME.txt has the answer, OUT/NAME.png the page, OUT/NAME.json how it was made, OUT/pages.json all of that.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath
from flax import nnx
from tqdm import tqdm

from lvm_jax import files
from lvm_jax.errors import BadData
from lvm_jax.inference.page_files import SUMMARY, Page
from lvm_jax.inference.prompt_batches import module_fingerprint
from lvm_jax.inference.text_generator import Asked, Reader, TextGenerator, Writing, Written
from lvm_jax.metrics.repetition import ending_loop
from lvm_jax.pictures.crops import crops_of
from lvm_jax.reporting.figures import save_png

RENDERED = 1600  # pixels of the longer side of a PDF page, before a tower's view scales it

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What to ask of every page.

    Attributes:
      question: such as "What does it say?"; "" shows the page alone.
      crops: into how many a large page is cut at most, for a model that was trained on several pictures; 1: not cut.
      writing: how answers are written.
      batch_size: pages answered at once.
    """

    question: str = ""
    crops: int = 1
    writing: Writing = Writing()  # noqa: RUF009 - frozen
    batch_size: int = 4

    def described(self, model: Reader, tokenizer_fingerprint: str) -> Record:
        """All that answers depend on besides the page."""
        assert isinstance(model, nnx.Module)
        # The batch size counts: it changes the rounding of matrix products, and so may change a token.
        asked = json.loads(json.dumps(dataclasses.asdict(self)))
        weights = {"model": module_fingerprint(model, model.config)}
        return weights | {"tokenizer": tokenizer_fingerprint} | asked


def read_pages(
    pages: Sequence[Page],
    generator: TextGenerator,
    reading: Reading,
    output: epath.Path,
    identity: Mapping[str, Any],
) -> list[Record]:
    """Answers the question about every page; a page already answered under the same identity is left alone.

    A page that cannot be read is named in a warning and in its record; the others go on.

    Args:
      pages: from `list_pages`.
      generator: of the model.
      reading: see `Reading`.
      output: the folder.
      identity: from `Reading.described`, with whatever else answers depend on.

    Returns:
      the records, in order: `name`, `file`, `number`, `text`, `ended`, `loop` (characters at the end that say one
      passage over and over), or `error`.
    """
    output.mkdir(parents=True, exist_ok=True)
    fingerprint = functools.lru_cache(maxsize=8)(_fingerprint)  # a file's pages come together
    records: list[Record] = []
    with tqdm(total=len(pages), desc="pages", unit="page") as progress:
        for start in range(0, len(pages), reading.batch_size):
            batch = pages[start : start + reading.batch_size]
            wanted = [
                {"request": dict(identity), "name": page.name, "file": str(page.file)}
                | {"number": page.number, "content": fingerprint(page.file)}
                for page in batch
            ]
            records += _read_batch(batch, wanted, generator, reading, output)
            progress.update(len(batch))
    told = [{name: v for name, v in record.items() if name != "request"} for record in records]
    files.write_json(output / SUMMARY, {"request": dict(identity), "pages": told})
    return records


def _read_batch(
    batch: Sequence[Page],
    wanted: Sequence[Record],
    generator: TextGenerator,
    reading: Reading,
    output: epath.Path,
) -> list[Record]:
    """The records of a batch; one missing answer repeats all, since a smaller batch may round differently."""
    known = [files.read_json(output / f"{page.name}.json") or {} for page in batch]
    if all({k: record.get(k) for k in what} == what for record, what in zip(known, wanted)):
        return known
    pictures, errors = {}, {}
    for page in batch:
        try:
            pictures[page.name] = page.picture(RENDERED)
        except BadData as error:
            errors[page.name] = str(error)
            logging.warning("%s", error)
    height, width = generator.view_size
    asked = [
        Asked.of(crops_of(picture, reading.crops, height=height, width=width), reading.question)
        for picture in pictures.values()
    ]
    answers = dict(zip(pictures, generator(asked, reading.writing) if asked else []))
    records = []
    for page, what in zip(batch, wanted):
        record = what | {"error": errors[page.name]} if page.name in errors else what
        path = output / page.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if page.name in answers:
            record = record | _told(answers[page.name])
            save_png(path.with_name(f"{path.name}.png"), pictures[page.name])
            files.write(path.with_name(f"{path.name}.txt"), answers[page.name].text + "\n")
        # Last: it says that the others are whole.
        files.write_json(path.with_name(f"{path.name}.json"), record)
        records.append(record)
    return records


def _fingerprint(file: epath.Path) -> str:
    """Of the content; "" of a file that cannot be opened: `Page.picture` says why."""
    try:
        return files.fingerprint(file)
    except OSError:
        return ""


def _told(written: Written) -> Record:
    return {"text": written.text, "ended": written.ended, "loop": ending_loop(written.text)}
