r"""Converts the published code's token files to shards, and back.

    python -m data_pipelines.convert_jsonl --jsonl='tokens/*.jsonl' --output=SHARDS --name=videos --source=kinetics \
        --category=unlabelled_video --layout=frame --tokenizer=MODEL

reads lines of `{"tokens": base64 of little-endian int32}` without BOS or EOS (LVM, tokenize_examples) and writes
`SHARDS/NAME/VERSION/`; int64 needs --token_dtype. Flags give what these files do not say: where the sentences come
from, their category, and the roles of their images (`--layout=image,depth` repeats until each image has a role). Bad
lines are named and skipped, up to a limit.

    python -m data_pipelines.convert_jsonl --shards=SHARDS/NAME/VERSION --split=train --jsonl=train.jsonl

goes back: the same sentences in the same order, to the bit.

Shape legend: M images of a sentence, N codes of an image, L codes of a sentence, M x N.
"""

import base64
import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import IO
from urllib.parse import quote

import numpy as np
from absl import flags
from etils import epath
from jaxtyping import UInt16
from tqdm import tqdm

from lvm_jax import cli, files
from lvm_jax.data.records import manifest as manifests
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.records.record_index import index_path
from lvm_jax.data.records.shards import find_dataset
from lvm_jax.data.sentences.sentence_record import SENTENCES, SentenceWriter
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.sentences.visual_sentence import (
    Category,
    VisualSentence,
    compact_layout,
    expand_layout,
)
from lvm_jax.data.splits import stable_fraction
from lvm_jax.errors import UserError

MAX_LINE_BYTES = 1 << 26  # 49,000 images of 256 tokens
PART = ".part-"
TOKEN_DTYPES = ("int32", "int64")
_SHOWN = 3  # bad lines in a message


class BadLine(Exception):
    """Says why a line is not a sentence."""


@dataclasses.dataclass(frozen=True)
class Target:
    """The name of the shards, and what they say about every sentence.

    Attributes:
      name, version: the data set becomes OUTPUT/NAME/VERSION.
      source, category, licence, origin: of the sentences; see `manifest.SourceInfo`.
      layout: roles, repeated to the length of each sentence.
      fingerprint, codebook_size, image_size, tokens_per_image: of the tokenizer that made the tokens.
      validation: share of sentences to hold out, by a stable hash of their keys.
      sentences_per_shard: the last shard of a split may have fewer.
      max_bad_lines: how many may be skipped; one more is an error.
      token_dtype: of the numbers in a line, one of `TOKEN_DTYPES`; None: int32, and lines that look like int64 are bad.
    """

    name: str
    source: str
    category: Category
    layout: str
    fingerprint: str
    codebook_size: int
    image_size: int
    tokens_per_image: int
    version: str = "1.0.0"
    licence: str = "unknown"
    origin: str = "unknown"
    validation: float = 0.0
    sentences_per_shard: int = 100_000
    max_bad_lines: int = 16
    token_dtype: str | None = None


def from_jsonl(paths: Sequence[epath.PathLike], output: epath.PathLike, target: Target) -> Manifest:
    """Writes a data set, line by line. Manifest and shard names appear only when it is complete.

    Raises:
      UserError: there is no good line, too many are bad, or the data set already exists.
    """
    folder = manifests.dataset_folder(output, target.name, target.version)
    if (folder / manifests.FILE_NAME).exists():
        raise UserError(f"{folder} is already there: name another --version, or delete it")
    roles = expand_layout(target.layout)
    folder.mkdir(parents=True, exist_ok=True)
    # This run may write fewer shards, and would not overwrite all of them.
    for of_a_killed_run in [*files.named(folder, f"{PART}*"), *files.leftovers(folder)]:
        of_a_killed_run.unlink()
    bad: list[str] = []
    splits = {"train": _Split(folder, "train", target.sentences_per_shard)}
    if target.validation:
        splits["validation"] = _Split(folder, "validation", target.sentences_per_shard)
    with contextlib.ExitStack() as stack:
        for split in splits.values():
            stack.enter_context(split)
        for key, line in _lines([epath.Path(path) for path in paths]):
            try:
                codes = parse_line(
                    line, target.codebook_size, target.tokens_per_image, target.token_dtype
                )
                sentence = _sentence(codes, key, roles, target)
            except BadLine as error:
                bad.append(f"{key}: {error}")
                if len(bad) > target.max_bad_lines:
                    raise UserError(
                        f"more bad lines than --max_bad_lines={target.max_bad_lines}; the last is {bad[-1]}; "
                        f"{_first(bad)}"
                    ) from error
                continue
            # By the key alone: a sentence keeps its split when other files are added.
            held_out = stable_fraction(key) < target.validation
            splits["validation" if held_out else "train"].write(sentence)
    for split in splits.values():
        if not split.lengths:
            raise UserError(
                f"split {split.name!r} has no sentence: {_first(bad)}; give longer files or another --validation"
            )
    for line in bad:
        print(f"skipped {line}")
    if bad:
        print(f"skipped {len(bad)} bad lines of at most {target.max_bad_lines}")
    return _finish(folder, target, splits)


def to_jsonl(folder: epath.PathLike, split: str, path: epath.PathLike) -> int:
    """Writes a split as the published code's lines, in the order of the shards; returns how many.

    Raises:
      UserError: a record is bad: the way back must lose nothing.
    """
    store = SentenceStore(folder, split, max_corrupt=0)
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        for i in tqdm(range(len(store)), unit="sentence"):
            sentence = store.sentence(i)
            assert sentence is not None  # with no bad record allowed
            file.write(format_line(sentence.codes.reshape(-1)))
    return len(store)


def _first(bad: Sequence[str]) -> str:
    """Why lines were bad, in one line of text."""
    return f"{len(bad)} bad lines, first {'; '.join(bad[:_SHOWN])}" if bad else "no line was bad"


def format_line(codes: UInt16[np.ndarray, " L"]) -> bytes:
    """A line as the published scripts write it."""
    text = base64.b64encode(codes.astype("<i4").tobytes()).decode()
    return (json.dumps({"tokens": text}) + "\n").encode()


def parse_line(
    line: bytes, codebook_size: int, tokens_per_image: int, token_dtype: str | None = None
) -> UInt16[np.ndarray, "M N"]:
    """The codes of a line.

    Args:
      line: one object of JSON.
      codebook_size: of the tokenizer.
      tokens_per_image: N.
      token_dtype: see `Target`.

    Raises:
      BadLine: the line is not in the published format.
    """
    # `_bounded_lines` cuts longer lines at this length, so one of exactly this length may be cut too.
    if len(line) >= MAX_LINE_BYTES:
        raise BadLine(f"it is longer than {MAX_LINE_BYTES} bytes")
    try:
        text = json.loads(line)["tokens"]
        raw = base64.b64decode(text, validate=True)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"not JSON with base64 ({error})") from error
    except (KeyError, TypeError) as error:
        raise BadLine('not an object with "tokens"') from error
    dtype = np.dtype(token_dtype or "int32").newbyteorder("<")
    if not raw or len(raw) % (dtype.itemsize * tokens_per_image):
        raise BadLine(
            f"{len(raw)} bytes are no whole images of {tokens_per_image} {dtype.name} tokens"
        )
    tokens = np.frombuffer(raw, dtype)
    # The upper half of an int64 code is 0. Blank images of code 0 are left alone: both readings have the same codes.
    if token_dtype is None and tokens.any() and not tokens[1::2].any():
        raise BadLine(
            "every second int32 is 0, as in int64 tokens: set --token_dtype=int64, or =int32 if they are"
        )
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= codebook_size:
        wrong = low if low < 0 else high
        raise BadLine(
            f"token {wrong} is no code: codes are 0..{codebook_size - 1} (read as {dtype.name}: see --token_dtype)"
        )
    # Wide enough: the command refuses tokenizers of more than 1 << 16 codes.
    return tokens.astype(np.uint16).reshape(-1, tokens_per_image)


class _Split:
    """Writes the shards of a split under hidden names: a shard's name needs their number, known only at the end."""

    def __init__(self, folder: epath.Path, name: str, sentences_per_shard: int):
        self.name, self.lengths, self.images = name, [], 0
        self._folder, self._per_shard = folder, sentences_per_shard
        self._writer: SentenceWriter | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "_Split":
        self._stack.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._stack.__exit__(*error)

    def part(self, number: int) -> epath.Path:
        """The hidden name of a shard."""
        return self._folder / f"{PART}{self.name}-{number:05d}"

    def write(self, sentence: VisualSentence) -> None:
        """Appends a sentence, to a new shard if this one is full."""
        if self._writer is None or len(self._writer) == self._per_shard:
            self._stack.close()
            self._writer = self._stack.enter_context(SentenceWriter(self.part(len(self.lengths))))
            self.lengths.append(0)
        self._writer.add(sentence)
        self.lengths[-1] += 1
        self.images += len(sentence.codes)


def _sentence(codes: np.ndarray, key: str, roles: list[str], target: Target) -> VisualSentence:
    if len(codes) % len(roles):
        raise BadLine(f"{len(codes)} images are no multiple of the {len(roles)} roles of --layout")
    layout = compact_layout(roles * (len(codes) // len(roles)))
    # As build_uvd writes keys, NAME/PASS/ITEM: `verify` takes the items out of them.
    full_key = f"{target.name}/0/{quote(key, safe='')}"
    return VisualSentence(codes, target.source, target.category, full_key, layout)


def _lines(paths: Sequence[epath.Path]) -> Iterator[tuple[str, bytes]]:
    """The lines of all files, each with its `FILE:NUMBER`, from 1."""
    names = [path.name for path in paths]
    same = sorted({name for name in names if names.count(name) > 1})
    if same:
        raise UserError(
            f"{same[0]} is the name of {names.count(same[0])} files: keys are FILE:LINE, rename them"
        )
    with tqdm(total=sum(path.stat().length for path in paths), unit="B", unit_scale=True) as bar:
        for path in paths:
            with path.open("rb") as file:
                for number, line in enumerate(_bounded_lines(file), start=1):
                    bar.update(len(line))
                    yield f"{path.name}:{number}", line


def _bounded_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file, long ones cut off: a file without line ends must not fill the memory."""
    while line := file.readline(MAX_LINE_BYTES):
        yield line
        rest = line
        while len(rest) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES)


def _finish(folder: epath.Path, target: Target, splits: dict[str, _Split]) -> Manifest:
    """Gives the shards their names, then writes the metadata and, last, the manifest."""
    for split in splits.values():
        for number in range(len(split.lengths)):
            part = split.part(number)
            name = manifests.shard_name(target.name, split.name, number, len(split.lengths))
            # The index first: a shard that has its name then has its index.
            index_path(part).replace(index_path(folder / name))
            part.replace(folder / name)
    manifest = Manifest(
        tokenizer_fingerprint=target.fingerprint,
        codebook_size=target.codebook_size,
        image_size=target.image_size,
        tokens_per_image=target.tokens_per_image,
        splits={
            name: {
                "sentences": sum(split.lengths),
                "images": split.images,
                "shards": len(split.lengths),
            }
            for name, split in splits.items()
        },
        sources={
            target.source: {
                "category": int(target.category),
                "licence": target.licence,
                "origin": target.origin,
                "sentences": sum(sum(split.lengths) for split in splits.values()),
                "images": sum(split.images for split in splits.values()),
            }
        },
    )
    manifests.write_tfds_metadata(
        folder,
        target.name,
        target.version,
        {name: split.lengths for name, split in splits.items()},
        SENTENCES,
    )
    manifest.save(folder)
    return manifest


def _target() -> Target:
    args = flags.FLAGS
    fields = {
        "fingerprint": args.tokenizer_fingerprint,
        "codebook_size": args.codebook_size,
        "image_size": args.image_size,
        "tokens_per_image": args.tokens_per_image,
    }
    if args.tokenizer:
        # Imported late: without --tokenizer no model code is loaded.
        from lvm_jax.models.tokenizer.vqgan import VQGAN

        vqgan = VQGAN.from_pretrained(args.tokenizer)
        fields = {
            "fingerprint": vqgan.fingerprint(),
            "codebook_size": vqgan.codebook_size,
            "image_size": vqgan.config.resolution,
            "tokens_per_image": vqgan.tokens_per_image,
        }
    if fields["codebook_size"] > 1 << 16:
        raise UserError(
            f"the tokenizer has {fields['codebook_size']} codes: token files are converted to uint16, at most 65536"
        )
    if not fields["fingerprint"]:
        raise UserError("no tokenizer given: set --tokenizer, or --tokenizer_fingerprint")
    if not args.name or not args.source:
        raise UserError("--name and --source are needed to write shards")
    return Target(
        **fields,
        name=args.name,
        source=args.source,
        category=Category[args.category.upper()],
        layout=args.layout,
        version=args.version,
        licence=args.licence,
        origin=args.origin,
        validation=args.validation,
        sentences_per_shard=args.sentences_per_shard,
        max_bad_lines=args.max_bad_lines,
        token_dtype=args.token_dtype,
    )


def main() -> None:
    """The command line."""
    args = flags.FLAGS
    if bool(args.shards) == bool(args.output):
        raise UserError("give either --output to write shards, or --shards to read them")
    if args.shards:
        count = to_jsonl(find_dataset(args.shards), args.split, args.jsonl)
        print(f"{args.jsonl}: {count} sentences of split {args.split!r}")
        return
    paths = files.expand(args.jsonl)
    if not paths:
        raise UserError(f"--jsonl={args.jsonl} matches no file: check the path")
    manifest = from_jsonl(paths, args.output, _target())
    for name, split in manifest.splits.items():
        print(
            f"{name}: {split['sentences']} sentences, {split['images']} images, {split['shards']} shards"
        )


def _define_flags() -> None:
    flags.DEFINE_string("jsonl", None, "the published code's token files, or a glob of them")
    flags.DEFINE_string("output", None, "the data set becomes OUTPUT/NAME/VERSION")
    flags.DEFINE_string("shards", None, "the way back: a data set's folder")
    flags.DEFINE_string("split", "train", "the way back: which split")
    flags.DEFINE_string("name", None, "of the data set")
    flags.DEFINE_string("version", "1.0.0", "of the data set")
    flags.DEFINE_string("source", None, "where the images come from")
    flags.DEFINE_enum(
        "category", "unlabelled_image", [c.name.lower() for c in Category], "of the sentences"
    )
    flags.DEFINE_string("layout", "image", "roles of the images, repeated to fill a sentence")
    flags.DEFINE_string("licence", "unknown", "of the images")
    flags.DEFINE_string("origin", "unknown", "where they were published")
    flags.DEFINE_string("tokenizer", None, "folder of the VQGAN that made the tokens")
    flags.DEFINE_string("tokenizer_fingerprint", None, "without that folder: its fingerprint,")
    flags.DEFINE_integer("codebook_size", 8192, "its codes,", lower_bound=1, upper_bound=1 << 16)
    flags.DEFINE_integer("image_size", 256, "its pixels,", lower_bound=1)
    flags.DEFINE_integer("tokens_per_image", 256, "and its tokens", lower_bound=1)
    flags.DEFINE_float("validation", 0.0, "share held out by hash", lower_bound=0, upper_bound=0.99)
    flags.DEFINE_integer("sentences_per_shard", 100_000, "at most this many", lower_bound=1)
    flags.DEFINE_enum(
        "token_dtype", None, TOKEN_DTYPES, "of the numbers; default: int32, and int64 is recognised"
    )
    flags.DEFINE_integer("max_bad_lines", 16, "how many may be skipped", lower_bound=0)


if __name__ == "__main__":
    _define_flags()
    cli.run(main, required_flags=("jsonl",))
