r"""Photographs to shards without the encoder, on one core: the pipeline against a plain Pillow loop, in turns.

    python benchmarks/pipeline_throughput.py --rounds=5

Both decode the same JPEGs of 640 x 480 pixels, crop a random window from each, resize it to 256 x 256 pixels and write
256 fake codes per image. The loop does nothing else. The pipeline also plans and names sentences, finds duplicate
pictures, and writes TFRecords with CRCs, an index and a summary. Sentences are single images, or 8 pairs of two
pictures. CPU time counts.
"""

import os
import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np
from absl import flags
from PIL import Image
from turns import in_turns

from data_pipelines.build.composing import ItemCache
from data_pipelines.build.encoding import VqganEncoder
from data_pipelines.build.plan import plan
from data_pipelines.build.recipe import Entry, Recipe
from data_pipelines.build.shard_writer import ShardTask, ShardWriter
from data_pipelines.sentences import Pairs, SingleImage
from data_pipelines.sources import PairedFiles
from lvm_jax import cli
from lvm_jax.data.records.record_index import Schema
from lvm_jax.data.sentences.sentence_record import schema_of

SIZE, TOKENS, CROP = 256, 256, 0.6
OURS, PEER = "pipeline", "Pillow loop"


class NoEncoder(VqganEncoder):
    """Returns meaningless codes at no cost."""

    def __init__(self) -> None:
        self.schema: Schema = schema_of(8192)  # there is no tokenizer to load

    def encode(self, values):  # noqa: D102 (see `VqganEncoder`)
        return np.zeros((len(values), TOKENS), np.uint16)


def write_photographs(root: pathlib.Path, count: int) -> None:
    """Writes folders `one` and `other` of smooth noise, whose JPEGs are about as large as photographs."""
    rng = np.random.default_rng(0)
    for folder in ("one", "other"):
        (root / folder).mkdir()
        for i in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
            picture = coarse.resize((640, 480), Image.Resampling.BICUBIC)
            picture.save(root / folder / f"{i:05d}.jpg", quality=90)


def recipe_of(root: pathlib.Path, kind: str) -> Recipe:
    """A recipe of single photographs, or of pairs with the other folder."""
    names = ("one",) if kind == "single" else ("one", "other")
    roles = tuple(zip(("image", "depth"), (f"{name}/{{key}}.jpg" for name in names), strict=False))
    source = PairedFiles(root=str(root), roles=roles, name=kind)
    composer = SingleImage(crop=CROP) if kind == "single" else Pairs("depth", 8, crop=CROP)
    return Recipe(name="photographs", entries=(Entry(kind, source, composer),), image_size=SIZE)


def pipeline(root: pathlib.Path, kind: str) -> int:
    """Writes all training sentences to one shard; returns the number of images."""
    recipe = recipe_of(root, kind)
    writer = ShardWriter(recipe, NoEncoder(), "none", ItemCache(), lambda n: None)
    task = ShardTask(
        str(root / "shard"), str(root / "summary.json"), "train", tuple(plan(recipe)["train"])
    )
    return sum(writer.write(task).images.values())


def pillow_loop(root: pathlib.Path, kind: str) -> int:
    """Does the same with as few lines as possible; returns the number of images."""
    rng = np.random.default_rng(0)
    folders = ("one",) if kind == "single" else ("one", "other")
    images = 0
    with (root / "codes").open("wb") as file:
        for name in sorted(path.name for path in (root / "one").iterdir()):
            fraction, top, left = rng.uniform(CROP, 1), rng.random(), rng.random()
            for folder in folders:
                with Image.open(root / folder / name) as opened:
                    picture = opened.convert("RGB")
                side = round(fraction * min(picture.size))
                x, y = round(left * (picture.width - side)), round(top * (picture.height - side))
                window = picture.crop((x, y, x + side, y + side))
                np.asarray(window.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
                file.write(np.zeros(TOKENS, np.uint16).tobytes())
                images += 1
    return images


def rate(
    run: Callable[[pathlib.Path, str], int], root: pathlib.Path, kind: str
) -> dict[str, float]:
    """Images per second of CPU time."""
    begin = time.process_time()
    images = run(root, kind)
    return {"images_per_cpu_second": images / (time.process_time() - begin)}


def main() -> None:
    """Prints every round, and the medians with their ratio."""
    args = flags.FLAGS
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        write_photographs(root, args.photographs)
        for kind in ("single", "pairs"):
            medians = in_turns(
                {
                    OURS: lambda kind=kind: rate(pipeline, root, kind),
                    PEER: lambda kind=kind: rate(pillow_loop, root, kind),
                },
                args.rounds,
            )
            ours, peer = (medians[side]["images_per_cpu_second"] for side in (OURS, PEER))
            print(
                f"{kind}, median: {ours:.0f} and {peer:.0f} images/CPU-s, ratio {ours / peer:.2f}"
            )


if __name__ == "__main__":
    flags.DEFINE_integer("photographs", 400, "of each of two folders", lower_bound=20)
    flags.DEFINE_integer("rounds", 5, "of both", lower_bound=1)
    cli.run(main)
