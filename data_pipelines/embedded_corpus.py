"""Builds the embedded corpus: photographs and videos of the pack, and rendered scenes with exact annotations.

  python -m data_pipelines.embedded_corpus --output=runs/quickstart/corpus

  photos/NAME.webp  videos/NAME.mp4                     real, each with its line in LICENSES.md
  scenes/KEY/{image,segmentation,depth,normals,edges,boxes,keypoints}.png
  clips/KEY/{image,segmentation}/000.png ...            frames in motion
  turntables/KEY/000.png ...                            views once around an object
  validation.txt                                        the items held out of all training, one path per line
  corpus.json                                           what is there and how to read it; written last

Stop it at any time; the same command continues. An item depends on the seed and its key alone, so the bytes are the
same however often it was interrupted and with any number of workers.
"""

import collections
import dataclasses
import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image
from tqdm import tqdm

from data_pipelines import assets
from data_pipelines.synthetic import cameras, renderer, scenes, toys
from data_pipelines.synthetic.annotations import ANNOTATIONS
from lvm_jax import cli, files
from lvm_jax.data.splits import stable_fraction
from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps

CLIP_FRAMES = 16
TURNTABLE_VIEWS = 24
HELD_OUT = "validation.txt"
HELD_OUT_FRACTION = 0.12
_COMPLETE = "corpus.json"
_STARTED = ".corpus.started.json"  # the settings of an unfinished corpus
_RENDERED = ("scenes", "clips", "turntables")
_SCENE_ROLES = ("segmentation", "depth", "normals", "edges", "boxes", "keypoints")

Pictures = dict[str, np.ndarray]  # file name within the item's folder -> uint8 RGB


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that the bytes of a corpus depend on.

    Attributes:
      size: side of the rendered pictures, pixels.
      scenes, clips, turntables: how many to render.
      seed: of everything rendered.
    """

    size: int = 64
    scenes: int = 700
    clips: int = 160
    turntables: int = 160
    seed: int = 0

    def __post_init__(self):
        if not 16 <= self.size <= 1024:
            raise UserError(f"size is {self.size}: it must be between 16 and 1024 pixels")
        for name in (*_RENDERED, "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}: it must be 0 or more")


def build(output: Path, settings: Settings, workers: int = 1) -> dict[str, int]:
    """Makes the missing items of the corpus in `output`; returns the number of items of each sort.

    Raises:
      UserError: `output` holds other files, or a corpus with other settings.
    """
    if _is_complete(output, settings):
        print(f"the corpus in {output} is complete: nothing to do")
        return json.loads((output / _COMPLETE).read_text())["counts"]
    output.mkdir(parents=True, exist_ok=True)
    # First of all: it marks the folder as ours, so that a rerun with other settings is refused.
    files.write(output / _STARTED, json.dumps(dataclasses.asdict(settings)))
    for folder in [output, *filter(Path.is_dir, output.iterdir())]:
        for leftover in files.leftovers(folder):
            leftover.unlink()
    _copy_pack(output)
    tasks = []
    for sort in _RENDERED:
        (output / sort).mkdir(exist_ok=True)
        for leftover in (output / sort).glob(".*"):
            shutil.rmtree(leftover)
        keys = (f"{i:05d}" for i in range(getattr(settings, sort)))
        tasks += [(output, settings, sort, k) for k in keys if not (output / sort / k).exists()]
    _render_all(tasks, settings, workers)

    counts = {sort: getattr(settings, sort) for sort in _RENDERED}
    counts |= collections.Counter(Path(item.file).parts[0] for item in assets.load_pack())
    files.write(output / HELD_OUT, "".join(f"{path}\n" for path in held_out(settings)))
    files.write(output / _COMPLETE, json.dumps(_description(settings, counts), indent=2))
    (output / _STARTED).unlink()
    return counts


def held_out(settings: Settings) -> list[str]:
    """The items that nothing trains on: 12% of each sort, chosen by a hash of their names.

    Segments of one film, `NAME_1.mp4` and `NAME_2.mp4`, are near-duplicates, so they share a side.
    """
    paths = [f"{sort}/{i:05d}" for sort in _RENDERED for i in range(getattr(settings, sort))]
    paths += [item.file for item in assets.load_pack()]
    sorts: dict[str, dict[str, list[str]]] = {}
    for path in paths:
        film = re.sub(r"_\d+(?=\.mp4$)", "", path)
        sorts.setdefault(path.split("/")[0], {}).setdefault(film, []).append(path)
    chosen = []
    for films in sorts.values():
        by_hash = sorted(films, key=stable_fraction)
        for film in by_hash[: max(1, round(HELD_OUT_FRACTION * len(films)))]:
            chosen += films[film]
    return sorted(chosen)


def item_rng(settings: Settings, sort: str, key: str) -> np.random.Generator:
    """The generator of one rendered item."""
    return np.random.default_rng([settings.seed, _RENDERED.index(sort), int(key)])


def render_item(settings: Settings, sort: str, key: str) -> Pictures:
    """All pictures of one item of "scenes", "clips" or "turntables"."""
    rng = item_rng(settings, sort, key)
    if sort == "scenes":
        scene, camera = scenes.random_scene(rng), cameras.random_camera(rng)
        frame = renderer.render(scene, camera, settings.size)
        drawn = {role: ANNOTATIONS[role](frame, toys.CLASS_IDS) for role in _SCENE_ROLES}
        return {"image.png": frame.image} | {f"{role}.png": x for role, x in drawn.items()}
    if sort == "clips":
        pictures = {}
        for i, (scene, camera) in enumerate(scenes.clip(rng, CLIP_FRAMES)):
            frame = renderer.render(scene, camera, settings.size)
            pictures[f"image/{i:03d}.png"] = frame.image
            pictures[f"segmentation/{i:03d}.png"] = ANNOTATIONS["segmentation"](
                frame, toys.CLASS_IDS
            )
        return pictures
    # In turn, not at random: even a small corpus then shows every kind of toy.
    kinds = list(toys.KINDS)
    body = toys.random_body(rng, kinds[int(key) % len(kinds)])
    return {
        f"{i:03d}.png": renderer.render(scene, camera, settings.size).image
        for i, (scene, camera) in enumerate(scenes.turntable(body, rng, TURNTABLE_VIEWS))
    }


def _render_all(tasks: list[tuple], settings: Settings, workers: int) -> None:
    sizes = {"scenes": 1, "clips": CLIP_FRAMES, "turntables": TURNTABLE_VIEWS}
    total = sum(getattr(settings, sort) * n for sort, n in sizes.items())
    left = sum(sizes[task[2]] for task in tasks)
    bar = tqdm(total=total, initial=total - left, unit="image", desc="rendering", smoothing=0.1)
    with bar:
        for sort in _results(tasks, workers):
            bar.set_description(f"rendering {sort}")
            bar.update(sizes[sort])


def _results(tasks: list[tuple], workers: int) -> Iterator[str]:
    if workers == 1 or len(tasks) < 2:
        yield from map(_make, tasks)
        return
    os.environ.setdefault(
        "OPENBLAS_NUM_THREADS", "1"
    )  # one thread per worker: the workers fill the cores
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_ignore_interrupt) as pool:
        yield from pool.imap(_make, tasks, chunksize=4)


def _ignore_interrupt() -> None:
    """Ctrl-C reaches the whole process group; only the parent should react."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _make(task: tuple[Path, Settings, str, str]) -> str:
    """Writes one item under a hidden name, then renames it: a visible folder is complete."""
    output, settings, sort, key = task
    hidden = output / sort / f".{key}"
    for name, picture in render_item(settings, sort, key).items():
        path = hidden / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    hidden.rename(output / sort / key)
    return sort


def _copy_pack(output: Path) -> None:
    for item in assets.load_pack():
        target = output / item.file
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            files.write(target, item.path.read_bytes())
    files.write(output / "LICENSES.md", (assets.ROOT / "LICENSES.md").read_bytes())


def _is_complete(output: Path, settings: Settings) -> bool:
    """Whether the corpus is complete; raises UserError if `output` holds anything else."""
    if not output.exists():
        return False
    if not output.is_dir():
        raise UserError(f"--output={output} is a file: name a folder")
    for name in (_COMPLETE, _STARTED):
        if not (output / name).is_file():
            continue
        stored = json.loads((output / name).read_text())
        stored = stored["settings"] if name == _COMPLETE else stored
        for field, value in dataclasses.asdict(settings).items():
            if stored[field] != value:
                raise UserError(
                    f"{output} holds a corpus with {field}={stored[field]}, asked for {field}={value}: "
                    f"ask for {field}={stored[field]}, name another --output, or delete that folder"
                )
        return name == _COMPLETE
    if any(output.iterdir()):
        raise UserError(f"--output={output} holds other files: name a new or an empty folder")
    return False


def _description(settings: Settings, counts: dict[str, int]) -> dict[str, Any]:
    """The contents of corpus.json: settings, counts, and how to read the annotations."""
    return {
        "settings": dataclasses.asdict(settings),
        "counts": counts,
        "classes": {kind: maps.PALETTE[i].tolist() for kind, i in toys.CLASS_IDS.items()},
        "depth": {"near": maps.DEPTH_NEAR, "far": maps.DEPTH_FAR},
        "keypoints": ["top", "centre", "foot"],
    }


def main() -> None:
    """Builds the corpus that the flags ask for."""
    args = flags.FLAGS
    output = Path(args.output)
    settings = Settings(args.size, args.scenes, args.clips, args.turntables, args.seed)
    counts = build(output, settings, args.workers)
    told = ", ".join(f"{count} {sort}" for sort, count in counts.items())
    print(f"corpus: {told} in {output}")


def _define_flags() -> None:
    default = Settings()
    flags.DEFINE_string("output", None, "folder of the corpus")
    flags.DEFINE_integer("size", default.size, "side of the rendered pictures, pixels")
    flags.DEFINE_integer("scenes", default.scenes, "rendered scenes, six annotations each")
    flags.DEFINE_integer("clips", default.clips, "rendered clips of 16 frames, with segmentation")
    flags.DEFINE_integer("turntables", default.turntables, "rendered objects, 24 views around each")
    flags.DEFINE_integer("seed", default.seed, "of everything rendered")
    flags.DEFINE_integer("workers", os.cpu_count(), "processes that render", lower_bound=1)


if __name__ == "__main__":
    _define_flags()
    cli.run(main, required_flags=["output"])
