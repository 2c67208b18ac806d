"""Checks a data set of shards against its own manifest, and draws a page of its sentences.

    python -m data_pipelines.verify --shards=SHARDS --tokenizer=MODEL --page=page.png

reads every record and exits with a non-zero status at the first fault: a wrong CRC, a code out of range, a layout with
the wrong number of images, a key used twice, an item in two splits, or a count or tokenizer that contradicts the
manifest. Of image-text records the facets, such as texts and fonts, must not be in two splits either, and of pools the
photographs, whatever source shows them. The page of a pool shows rows: pairs of a picture and its mask or words.

Shape legend: M images of all sentences, N codes of an image; H, W of the page.
"""

import collections
import contextlib
import dataclasses
import json
from collections.abc import Iterator

import numpy as np
from absl import flags
from etils import epath
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from data_pipelines.build.encoding import RecordSummary, encoding_named
from data_pipelines.build.plan import key_items
from data_pipelines.pool_page import drawn_rows, pool_page
from data_pipelines.text_page import text_page
from lvm_jax import cli
from lvm_jax.data.image_text.record import ImageText, decode_image_text
from lvm_jax.data.image_text.store import ENCODING as IMAGE_TEXT_ENCODING
from lvm_jax.data.in_context.pool import ENCODING as POOL_ENCODING
from lvm_jax.data.records.example import CorruptRecord
from lvm_jax.data.records.manifest import FILE_NAME, SENTENCE_ENCODING, Manifest, check_compatible
from lvm_jax.data.records.record_file import RecordFile
from lvm_jax.data.records.shards import find_dataset, find_shards
from lvm_jax.data.sentences.sentence_record import decode_example
from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.errors import UserError
from lvm_jax.inference.codec import decode_codes
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.reporting.figures import save_png

LABEL_HEIGHT = 14
GAP = 4
SMALLEST_SIDE = 96  # of a picture on the page, pixels: the longest role fits above it


@dataclasses.dataclass(frozen=True)
class Report:
    """What the shards hold: sentences and images (values) per split and per source."""

    sentences: dict[str, int]
    images: dict[str, int]
    source_sentences: dict[str, int]
    source_images: dict[str, int]


def verify(folder: epath.PathLike, tokenizer: VQGAN | None = None) -> Report:
    """Reads every record of the data set in `folder`.

    Args:
      folder: the one with `manifest.json`.
      tokenizer: checked against the manifest, unless None.

    Raises:
      UserError: names the first disagreement between the manifest, an index and the records.
    """
    folder = epath.Path(folder)
    manifest = Manifest.load(folder)
    if tokenizer is not None:
        check_compatible(
            manifest,
            codebook_size=tokenizer.codebook_size,
            tokenizer_fingerprint=tokenizer.fingerprint(),
            tokens_per_image=tokenizer.tokens_per_image,
        )
    found = Report({}, {}, collections.Counter(), collections.Counter())
    keys: set[str] = set()
    split_of_item: dict[tuple[str, str], str] = {}
    split_of_facet: dict[tuple[str, str], str] = {}
    lengths: dict[str, list[int]] = {}
    for split in manifest.splits:
        shards = split_shards(folder, manifest, split)
        found.sentences[split] = found.images[split] = 0
        lengths[split] = []
        for shard in shards:
            before = found.sentences[split]
            for sentence in _summaries(shard, manifest):
                where = f"{shard.path.name}, sentence {sentence.key!r}"
                _check_source(sentence, manifest, where)
                if sentence.key in keys:
                    raise UserError(f"{where}: its key occurs twice; build the shards again")
                keys.add(sentence.key)
                _check_split(sentence, split, split_of_item, split_of_facet, where)
                found.sentences[split] += 1
                found.images[split] += sentence.values
                found.source_sentences[sentence.source] += 1
                found.source_images[sentence.source] += sentence.values
            lengths[split].append(found.sentences[split] - before)
    _check_counts(found, manifest, folder)
    _check_tfds(folder, lengths)
    return found


def split_shards(folder: epath.Path, manifest: Manifest, split: str) -> list[RecordFile]:
    """The record files of a split, in order.

    Raises:
      UserError: there are fewer files than the manifest says, or more.
    """
    count = manifest.splits[split]["shards"]
    paths = find_shards(folder, split)[folder]
    if len(paths) != count:
        raise UserError(
            f"{folder} has {len(paths)} shards of {split!r}, the manifest says {count}: build them again"
        )
    schema = encoding_named(manifest.encoding).schema(manifest)
    return [RecordFile(path, schema) for path in paths]


def render_page(sentences: list[VisualSentence], tokenizer: VQGAN) -> UInt8[np.ndarray, "H W 3"]:
    """Decoded sentences, one per row, under their source and key; each image under its role."""
    enlarged = -(-SMALLEST_SIDE // tokenizer.config.resolution)  # small pictures, whole pixels
    size = enlarged * tokenizer.config.resolution
    font = ImageFont.load_default(LABEL_HEIGHT - 4)
    titles = [f"{sentence.source}: {sentence.key}" for sentence in sentences]
    width = max(len(sentence.codes) for sentence in sentences) * (size + GAP)
    width = max(width, *(4 + int(font.getlength(title)) for title in titles))
    row_height = size + 2 * LABEL_HEIGHT + GAP
    page = Image.new("RGB", (width, row_height * len(sentences)), "white")
    draw = ImageDraw.Draw(page)
    # One call for all sentences: one by one, each batch size would compile a program of its own.
    codes_MN = np.concatenate([sentence.codes for sentence in sentences])
    pictures = iter(to_uint8(decode_codes(tokenizer, codes_MN)))
    for row, sentence in enumerate(sentences):
        top = row * row_height
        draw.text((2, top), titles[row], fill="black", font=font)
        for column, role in enumerate(sentence.roles):
            left = column * (size + GAP)
            draw.text((left + 2, top + LABEL_HEIGHT), role, fill="dimgray", font=font)
            picture = Image.fromarray(
                np.kron(next(pictures), np.ones((enlarged, enlarged, 1), np.uint8))
            )
            page.paste(picture, (left, top + 2 * LABEL_HEIGHT))
    return np.asarray(page)


def sample(folder: epath.PathLike, count: int, seed: int) -> list[VisualSentence]:
    """Up to `count` sentences, drawn from all splits without repetition.

    Raises:
      UserError: the data set does not hold visual sentences.
    """
    manifest = Manifest.load(folder)
    if manifest.encoding != SENTENCE_ENCODING:
        raise UserError(
            f"{folder} is in the encoding {manifest.encoding!r}: a page shows {SENTENCE_ENCODING!r} or "
            f"{IMAGE_TEXT_ENCODING!r}; omit --page"
        )
    return [
        _decode(shard, i, manifest) for shard, i in _drawn_places(folder, manifest, count, seed)
    ]


def sample_image_text(folder: epath.PathLike, count: int, seed: int) -> list[ImageText]:
    """The same of a data set of image-text records."""
    records = []
    for shard, i in _drawn_places(folder, Manifest.load(folder), count, seed):
        with _told(shard, i):
            records.append(decode_image_text(shard[i]))
    return records


def _drawn_places(
    folder: epath.PathLike, manifest: Manifest, count: int, seed: int
) -> list[tuple[RecordFile, int]]:
    splits = [split_shards(epath.Path(folder), manifest, split) for split in manifest.splits]
    places = [(shard, i) for shards in splits for shard in shards for i in range(len(shard))]
    return [places[i] for i in np.random.default_rng(seed).permutation(len(places))[:count]]


def main() -> None:
    """The command line."""
    args = flags.FLAGS
    if args.page and not args.page.lower().endswith(".png"):
        raise UserError(f"--page is {args.page}: the page is a PNG, so name it PAGE.png")
    folder = find_dataset(args.shards)
    manifest = Manifest.load(folder)
    tokenizer = None
    if manifest.encoding == IMAGE_TEXT_ENCODING:
        if args.tokenizer:
            fingerprint = TextTokenizer(args.tokenizer).fingerprint
            check_compatible(manifest, tokenizer_fingerprint=fingerprint)
    elif args.tokenizer:
        tokenizer = VQGAN.from_pretrained(args.tokenizer)
    else:
        raise UserError(
            "--tokenizer is missing: name the folder of the VQGAN that wrote the shards"
        )
    found = verify(folder, tokenizer)
    for split, sentences in found.sentences.items():
        print(f"{split}: {sentences} sentences, {found.images[split]} images")
    for source, sentences in sorted(found.source_sentences.items()):
        print(f"  {source}: {sentences} sentences, {found.source_images[source]} images")
    if args.page:
        if tokenizer is None:
            records = sample_image_text(folder, args.rows, args.seed)
            page = text_page(records, args.font)
        elif manifest.encoding == POOL_ENCODING:
            records = drawn_rows(folder, list(manifest.splits), args.rows, args.seed)
            page = pool_page(records, tokenizer)
        else:
            records = sample(folder, args.rows, args.seed)
            page = render_page(records, tokenizer)
        save_png(args.page, page)
        print(f"{args.page}: {len(records)} sentences at random")
    print(f"{folder}: every record is what the manifest says")


def _define_flags() -> None:
    flags.DEFINE_string("shards", None, "the OUTPUT of build_uvd, or the NAME/VERSION below it")
    flags.DEFINE_string(
        "tokenizer",
        "",
        "folder of the VQGAN that wrote the shards; of image-text shards the text tokenizer, or none",
    )
    flags.DEFINE_string("page", None, "a PNG to draw some sentences on")
    flags.DEFINE_string("font", "DejaVuSans", "of the words on a page of image-text records")
    flags.DEFINE_integer("rows", 16, "sentences on the page", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "picks the sentences of the page", lower_bound=0)


def _summaries(shard: RecordFile, manifest: Manifest) -> Iterator[RecordSummary]:
    read = encoding_named(manifest.encoding).read
    for i in tqdm(range(len(shard)), desc=shard.path.name, unit="sentence", leave=False):
        with _told(shard, i):
            summary = read(shard[i], manifest)
        yield summary


def _decode(shard: RecordFile, i: int, manifest: Manifest) -> VisualSentence:
    with _told(shard, i):
        return decode_example(
            shard[i],
            codebook_size=manifest.codebook_size,
            tokens_per_image=manifest.tokens_per_image,
        )


@contextlib.contextmanager
def _told(shard: RecordFile, i: int) -> Iterator[None]:
    """Turns a corrupt record into a one-line error that names it."""
    try:
        yield
    except CorruptRecord as error:
        raise UserError(
            f"{shard.path.name}, record {i}: {error}; build that shard again"
        ) from error


def _check_source(sentence: RecordSummary, manifest: Manifest, where: str) -> None:
    info = manifest.sources.get(sentence.source)
    if info is None:
        raise UserError(f"{where}: its source {sentence.source!r} is not in the manifest")
    if info["category"] != sentence.category:
        raise UserError(
            f"{where}: its category is {sentence.category}, the manifest says {info['category']}"
        )


def _check_split(
    sentence: RecordSummary,
    split: str,
    split_of_item: dict[tuple[str, str], str],
    split_of_facet: dict[tuple[str, str], str],
    where: str,
) -> None:
    # By source: two sources may both have an item `0001.png`, and those are different files.
    for item in key_items(sentence.key):
        other = split_of_item.setdefault((sentence.source, item), split)
        if other != split:
            raise UserError(
                f"{where}: item {item!r} is in {other!r} too; an item belongs to one split"
            )
    for facet in sentence.facets:
        other = split_of_facet.setdefault((sentence.source, facet), split)
        if other != split:
            raise UserError(
                f"{where}: {facet!r} is in {other!r} too; it must be in one split: give its entry together=HELD_OUT"
            )
    # Not by source: several annotate the same photographs.
    other = split_of_facet.setdefault(("", sentence.shows), split) if sentence.shows else split
    if other != split:
        raise UserError(
            f"{where}: {sentence.shows!r} is shown in {other!r} too; a photograph must be in one split: give all "
            "entries that show it the same items, and together=ONE_PICTURE"
        )


def _check_counts(found: Report, manifest: Manifest, folder: epath.Path) -> None:
    claims = [
        (f"{what} of {kind} {name!r}", info[what], counts.get(name, 0))
        for kind, infos, tables in (
            ("split", manifest.splits, {"sentences": found.sentences, "images": found.images}),
            (
                "source",
                manifest.sources,
                {"sentences": found.source_sentences, "images": found.source_images},
            ),
        )
        for name, info in infos.items()
        for what, counts in tables.items()
    ]
    for what, said, counted in claims:
        if said != counted:
            raise UserError(f"{folder / FILE_NAME} says {said} {what}, the shards hold {counted}")


def _check_tfds(folder: epath.Path, lengths: dict[str, list[int]]) -> None:
    # TFDS finds an example's shard by these lengths.
    path = folder / "dataset_info.json"
    if not path.exists():
        raise UserError(f"{path} does not exist: run build_uvd again to write it")
    said = {
        split["name"]: list(map(int, split["shardLengths"]))
        for split in json.loads(path.read_text())["splits"]
    }
    if said != lengths:
        raise UserError(f"{path} says shard lengths {said}, the shards hold {lengths}")


if __name__ == "__main__":
    _define_flags()
    cli.run(main, required_flags=("shards",))
