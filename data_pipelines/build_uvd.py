r"""Raw data -> sentences -> encoded shards.

    python -m data_pipelines.build_uvd --config=data_pipelines/configs/quickstart.py --config.root=CORPUS \
        --tokenizer=MODEL --output=SHARDS

writes `SHARDS/NAME/VERSION/`: shards, indices, `manifest.json` and the metadata that TFDS needs to open the folder. If
it was stopped or killed, the same command writes the missing shards. It runs on this machine's cores unless Beam's own
options, given in one flag, choose a cluster:

    --beam="--runner=DataflowRunner --project=P --region=R --temp_location=gs://B/tmp"
"""

import dataclasses
import logging
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence

from absl import flags
from etils import epath
from ml_collections import config_flags
from tqdm import tqdm

from data_pipelines import near_duplicates
from data_pipelines.build import plan as plan_lib
from data_pipelines.build.encoding import Encoder, shared_encoder
from data_pipelines.build.plan import PlannedSentence
from data_pipelines.build.recipe import Recipe, from_config
from data_pipelines.build.shard_writer import (
    ShardSummary,
    ShardTask,
    needs_space,
    read_summary,
)
from lvm_jax import cli, config, files
from lvm_jax.data.records import manifest as manifest_lib
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.errors import UserError

NOTES = "build"  # folder beside the shards, for the recipe and the summaries
DUPLICATES = "near_duplicates.json"


def build(
    recipe: Recipe,
    tokenizer: str,
    output: epath.PathLike,
    *,
    batch_size: int = 64,
    beam_flags: Sequence[str] = (),
) -> Manifest:
    """Writes the missing shards, then the manifest, and returns it.

    Args:
      recipe: what to write.
      tokenizer: folder of the encoding's model, a VQGAN by default; every worker must be able to read it.
      output: the data set becomes `output/NAME/VERSION`.
      batch_size: values per call of the encoder.
      beam_flags: Beam's pipeline options.

    Raises:
      UserError: the output belongs to another recipe or tokenizer, the encoding does not fit the recipe, there are too
        many bad items, a split is empty, or the disk is full.
    """
    encoder = shared_encoder(tokenizer, batch_size, recipe.encoding)
    encoder.check(recipe)
    folder = manifest_lib.dataset_folder(output, recipe.name, recipe.version)
    keys = plan_lib.item_keys(recipe)
    duplicates = _near_duplicates(recipe, keys, folder)
    plans = plan_lib.plan(recipe, keys, duplicates.left_out if duplicates else {})
    fingerprint = plan_lib.fingerprint(recipe, plans, encoder.fingerprint)
    with needs_space(folder):
        _claim(folder, recipe, encoder.fingerprint, fingerprint)
        if duplicates:
            files.write_json(folder / NOTES / DUPLICATES, dataclasses.asdict(duplicates))
    tasks = _tasks(recipe, plans, folder)
    missing = _missing(tasks, fingerprint, recipe.max_bad_items)
    print(
        f"{folder}: {sum(map(len, plans.values()))} sentences in {len(tasks)} shards, "
        f"{len(tasks) - len(missing)} of them already written"
    )
    for leftover in [*files.leftovers(folder), *files.leftovers(folder / NOTES)]:
        leftover.unlink()  # from a killed run
    if missing:
        # A manifest vouches for a whole data set, so it must not stand beside missing shards.
        (folder / manifest_lib.FILE_NAME).unlink(missing_ok=True)
        _write_shards(missing, recipe, tokenizer, batch_size, fingerprint, beam_flags)
    summaries = {}
    for task in tasks:
        summary = read_summary(task, fingerprint)
        if summary is None:
            raise UserError(f"{task.path} was not written: run the same command again")
        summaries[task] = summary
    _report_bad_items(summaries.values(), recipe.max_bad_items)
    manifest = _manifest(recipe, summaries, encoder)
    lengths = {
        split: [sum(s.sentences.values()) for task, s in summaries.items() if task.split == split]
        for split in plans
    }
    # The manifest comes last: readers take a folder that has one for a finished data set.
    with needs_space(folder):
        manifest_lib.write_tfds_metadata(
            folder, recipe.name, recipe.version, lengths, encoder.schema
        )
        manifest.save(folder)
    return manifest


def main() -> None:
    """The command line."""
    args = flags.FLAGS
    recipe = from_config(args.config)
    manifest = build(
        recipe,
        args.tokenizer,
        args.output,
        batch_size=args.batch_size,
        beam_flags=[*_local_workers(args.workers), *shlex.split(args.beam)],
    )
    for name, split in manifest.splits.items():
        # Words become tokens when they are read, and their number depends on the tokenizer.
        tokens = split["images"] * manifest.tokens_per_image
        counted = f", {tokens} tokens" if tokens else ""
        print(
            f"  {name}: {split['sentences']} sentences, {split['images']} images{counted}, "
            f"{split['shards']} shards"
        )
    for name, source in sorted(manifest.sources.items()):
        print(f"  {name} (category {source['category']}): {source['sentences']} sentences")


def _define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "a file of data_pipelines/configs, or your own")
    flags.DEFINE_string(
        "tokenizer",
        "",
        "folder of the trained VQGAN; with the encoding image_text of a text tokenizer, or none",
    )
    flags.DEFINE_string("output", None, "the data set becomes OUTPUT/NAME/VERSION")
    flags.DEFINE_integer("batch_size", 64, "images encoded at a time", lower_bound=1)
    flags.DEFINE_integer(
        "workers", os.cpu_count(), "threads; each writes one shard at a time", lower_bound=1
    )
    flags.DEFINE_string("beam", "", "Beam's own options, such as '--runner=FlinkRunner'")


def _local_workers(workers: int) -> list[str]:
    # Threads suffice: image decoding and XLA release the interpreter's lock.
    return [f"--direct_num_workers={workers}", "--direct_running_mode=multi_threading"]


@dataclasses.dataclass(frozen=True)
class _Duplicates:
    """The near-duplicates among a recipe's items, as noted beside its shards.

    Attributes:
      items: a digest of the recipe and its items; for any other digest the note is void.
      left_out: item set -> key that goes -> key that stays.
    """

    items: str
    left_out: dict[str, dict[str, str]]


def _near_duplicates(
    recipe: Recipe, keys: Mapping[str, list[str]], folder: epath.Path
) -> _Duplicates | None:
    """Near-duplicates, read from `folder` if noted there for the same items; None if the recipe keeps them."""
    if recipe.near_duplicates is None:
        return None
    # Hashing decodes every item, so a resumed build reads the note of the first run.
    items = plan_lib.items_digest(recipe, keys)
    noted = files.read_json(folder / NOTES / DUPLICATES)
    if noted is not None and noted["items"] == items:
        return _Duplicates(**noted)
    found = near_duplicates.duplicates_of_recipe(recipe, keys, os.cpu_count() or 1)
    return _Duplicates(items, found)


def _claim(folder: epath.Path, recipe: Recipe, tokenizer: str, fingerprint: str) -> None:
    """Marks `folder` as this plan's; refuses one that belongs to another plan."""
    (folder / NOTES).mkdir(parents=True, exist_ok=True)
    mine = {"fingerprint": fingerprint, "tokenizer": tokenizer, "recipe": recipe.identity}
    path = folder / NOTES / "recipe.json"
    found = files.read_json(path)
    if found is None:
        files.write_json(path, mine)
    elif found["fingerprint"] != fingerprint:
        keys = ("tokenizer", "recipe")
        changes = config.differences(
            {key: found[key] for key in keys}, {key: mine[key] for key in keys}, "build"
        )
        raise UserError(
            f"{folder} was made by recipe {found['fingerprint']} with tokenizer {found['tokenizer']}, this is recipe "
            f"{fingerprint} with tokenizer {tokenizer} ({changes[0] if changes else 'the items of a source changed'}): "
            "give another --output, or delete that folder"
        )


def _tasks(
    recipe: Recipe, plans: dict[str, list[PlannedSentence]], folder: epath.Path
) -> list[ShardTask]:
    tasks = []
    for split, planned in plans.items():
        count = min(recipe.shards(split), len(planned))  # no empty shards
        for index in range(count):
            tasks.append(
                ShardTask(
                    path=str(folder / manifest_lib.shard_name(recipe.name, split, index, count)),
                    summary=str(folder / NOTES / f"{split}-{index:05d}.json"),
                    split=split,
                    # The plan is shuffled, so any deal mixes; this one keeps the shards within one sentence of equal.
                    sentences=tuple(planned[index::count]),
                )
            )
    return tasks


def _missing(tasks: list[ShardTask], fingerprint: str, max_bad_items: int) -> list[ShardTask]:
    """The shards to write: absent or given up; after too many bad items also those with some, maybe fixed by now."""
    summaries = [read_summary(task, fingerprint) for task in tasks]
    too_many = len(_bad_items(s for s in summaries if s)) > max_bad_items
    return [
        task
        for task, summary in zip(tasks, summaries, strict=True)
        if summary is None or not summary.complete or (too_many and summary.bad_items)
    ]


def _write_shards(
    tasks: list[ShardTask],
    recipe: Recipe,
    tokenizer: str,
    batch_size: int,
    fingerprint: str,
    beam_flags: Sequence[str],
) -> None:
    logging.disable(logging.WARNING)  # Beam warns about cloud clients that are not installed
    # Imported late: a build that has nothing left to write works without Beam.
    try:
        from data_pipelines.build import beam_runner
    except ImportError as error:
        raise UserError(
            f"Beam cannot be imported ({error}): pip install 'lvm_jax[pipelines]'"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    writing = beam_runner.WriteShards(recipe, tokenizer, batch_size, fingerprint)
    with tqdm(total=sum(len(task.sentences) for task in tasks), unit="sentence") as bar:
        beam_runner.write_shards(tasks, writing, beam_flags, on_sentence=lambda n: bar.update(n))


def _bad_items(summaries: Iterable[ShardSummary]) -> dict[str, str]:
    return {name: why for summary in summaries for name, why in summary.bad_items.items()}


def _report_bad_items(summaries: Iterable[ShardSummary], limit: int) -> None:
    bad = _bad_items(summaries)
    named = "; ".join(f"{name} ({why})" for name, why in sorted(bad.items())[:5])
    if len(bad) > limit:
        raise UserError(
            f"at least {len(bad)} bad items, the limit config.max_bad_items is {limit}: {named}; mend or remove "
            "them, or raise the limit, and run the same command again"
        )
    if bad:
        print(f"skipped {len(bad)} bad items (limit {limit}): {named}")


def _manifest(
    recipe: Recipe, summaries: dict[ShardTask, ShardSummary], encoder: Encoder
) -> Manifest:
    splits: dict[str, manifest_lib.SplitInfo] = {}
    for task, summary in summaries.items():
        split = splits.setdefault(task.split, {"sentences": 0, "images": 0, "shards": 0})
        split["sentences"] += sum(summary.sentences.values())
        split["images"] += sum(summary.images.values())
        split["shards"] += 1
    for name, split in splits.items():
        if not split["sentences"]:
            raise UserError(
                f"split {name!r} is empty: every one of its sentences needs a bad item; mend them"
            )
    sources: dict[str, manifest_lib.SourceInfo] = {
        entry.source.name: {
            "category": int(entry.source.category),
            "licence": entry.source.licence,
            "origin": entry.source.origin,
            "sentences": sum(s.sentences.get(entry.source.name, 0) for s in summaries.values()),
            "images": sum(s.images.get(entry.source.name, 0) for s in summaries.values()),
        }
        for entry in recipe.entries
    }
    return Manifest(
        **encoder.manifest_fields(), splits=splits, sources=sources, encoding=recipe.encoding
    )


if __name__ == "__main__":
    _define_flags()
    cli.run(main, required_flags=("config", "output"))
