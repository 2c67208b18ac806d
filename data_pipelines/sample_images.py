r"""Writes pictures of a recipe's sentences as PNGs, to train a tokenizer for them.

    python -m data_pipelines.sample_images --config=data_pipelines/configs/medium.py --config.images=PHOTOS ... \
        --images=20000 --output=PICTURES
    python experiments/train.py --config=experiments/configs/tokenizer.py:PRESET --workdir=DIR \
        --config.data.images=PICTURES --config.data.held_out=PICTURES/validation.txt

They come from the first sentences of the plan. The plan is shuffled over the entries, so each source gets the share
that it has in the shards, and pictures are resized and cropped in the same way; masks are white on black.
`PICTURES/train/ENTRY/NUMBER-PLACE.png` come from the training split, `PICTURES/validation/...` from the validation
split.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from absl import flags
from etils import epath
from ml_collections import config_flags
from PIL import Image
from tqdm import tqdm

from data_pipelines.build.composing import Composed, ItemCache, SentenceMaker, TooManyBadItems
from data_pipelines.build.plan import PlannedSentence, item_keys, plan
from data_pipelines.build.recipe import SPLITS, Recipe, from_config
from data_pipelines.build.shard_writer import needs_space
from data_pipelines.items import drawn, pictures
from data_pipelines.near_duplicates import duplicates_of_recipe
from lvm_jax import cli
from lvm_jax.errors import UserError

HELD_OUT = "validation.txt"  # the list that the tokenizer's training reads


def sample_images(
    recipe: Recipe, output: epath.PathLike, *, images: int, workers: int = 1
) -> dict[str, int]:
    """Writes the pictures of the first sentences of each split; the folder appears when it is complete.

    Args:
      recipe: which sentences.
      output: a folder that does not exist yet.
      images: how many to write in all, if there are as many. `validation_fraction` of them, but at least one sentence,
        come from the validation split. Sentences are written whole, so there may be a few more.
      workers: threads that read items.

    Returns:
      split -> number of pictures written.

    Raises:
      UserError: `output` exists, more items are bad than the recipe allows, a split has no usable sentence, or the disk
        is full.
    """
    target = epath.Path(output)
    if target.exists():
        raise UserError(f"{target} exists: remove it, or name another --output")
    partial = target.with_name(f".{target.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)  # from a run that was stopped
    held_out = max(1, round(recipe.validation_fraction * images))
    wanted = {"train": max(1, images - held_out), "validation": held_out}
    keys = item_keys(recipe)
    # As in the shards: else a copy of a held-out picture could be trained on.
    plans = plan(recipe, keys, duplicates_of_recipe(recipe, keys, workers))
    counts = {}
    with needs_space(target), tqdm(total=images, desc="pictures", unit="picture") as bar:
        for split in SPLITS:
            counts[split] = 0
            for number, sentence in enumerate(_made(recipe, plans[split], workers)):
                folder = partial / split / sentence.entry.name
                folder.mkdir(parents=True, exist_ok=True)
                what = f"sentence {sentence.planned.key!r}"
                images_of_it = pictures(drawn(sentence.values), what, "a sample of images")
                for place, image in enumerate(images_of_it):
                    Image.fromarray(image).save(folder / f"{number:06d}-{place:02d}.png")
                counts[split] += len(images_of_it)
                bar.update(len(images_of_it))
                if counts[split] >= wanted[split]:
                    break
            if not counts[split]:
                raise UserError(f"no sentence of split {split!r} could be made: check its items")
        (partial / HELD_OUT).write_text("validation\n")
        partial.rename(target)
    return counts


def _made(recipe: Recipe, plans: Sequence[PlannedSentence], workers: int) -> Iterator[Composed]:
    """The sentences that can be made, in order; at the end prints what it skipped."""
    maker, bad = SentenceMaker(recipe, ItemCache()), {}
    try:
        with ThreadPoolExecutor(workers) as pool:
            # In chunks: `pool.map` over all would read far ahead of what the caller still wants.
            for begin in range(0, len(plans), 16 * workers):
                chunk = plans[begin : begin + 16 * workers]
                yield from _usable(pool.map(lambda planned: maker.make(planned, bad), chunk))
    except TooManyBadItems as error:
        raise UserError(
            f"{len(bad)} items cannot be used, config.max_bad_items is {recipe.max_bad_items}; such as "
            + "; ".join(f"{key} ({why})" for key, why in sorted(bad.items())[:3])
        ) from error
    finally:
        for key, why in sorted(bad.items()):
            tqdm.write(f"skipped {key}: {why}")


def _usable(sentences: Iterable[Composed | None]) -> Iterator[Composed]:
    return (sentence for sentence in sentences if sentence is not None)


def main() -> None:
    """The command line."""
    args = flags.FLAGS
    recipe = from_config(args.config)
    counts = sample_images(recipe, args.output, images=args.images, workers=args.workers)
    print(f"{args.output}: {counts['train']} pictures to train on, {counts['validation']} held out")
    print(
        f"next: --config.data.images={args.output} --config.data.held_out={args.output}/{HELD_OUT}"
    )


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "a file of data_pipelines/configs, or your own")
    flags.DEFINE_string("output", None, "folder to write; it must not exist")
    flags.DEFINE_integer("images", 20_000, "of both splits together", lower_bound=2)
    flags.DEFINE_integer("workers", os.cpu_count(), "threads that read items", lower_bound=1)
    cli.run(main, required_flags=("config", "output"))
