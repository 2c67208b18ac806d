"""Public data sets in the layouts they are downloaded in, as episodes of visual tasks or as lists of frames.

| reader | layout below the root |
|---|---|
| `Pascal5i`, `VocDetection` | VOC2012: JPEGImages/, SegmentationClass/, Annotations/, ImageSets/{Segmentation,Main}/ |
| `CocoDetection` | annotations/instances_SPLIT.json, SPLIT/ |
| `class_folders` | ImageNet: SPLIT/CLASS/*.JPEG; Kinetics: SPLIT/CLASS/*.mp4 |
| `AnnotatedFolders` | KEY/image.png, KEY/ROLE.png: this project's own, such as rendered scenes |
| `Davis` | JPEGImages/480p/NAME/, Annotations/480p/NAME/, ImageSets/YEAR/SPLIT.txt |

Episode i is a pure function of (seed, i), so hosts can take every n-th of them.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol
from xml.etree import ElementTree

import numpy as np
from etils import epath
from jaxtyping import Int, UInt8

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.visual_benchmark import Episode
from lvm_jax.pictures.annotation_maps import grey, mask_to_rgb
from lvm_jax.pictures.coco import read_coco
from lvm_jax.pictures.decode import EXTENSIONS, BadImage, load_ids, load_image

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VIDEO_EXTENSIONS = (".mp4", ".webm", ".mkv", ".avi", ".mov")
_LARGEST_BOX = 0.5  # of the picture, as in the published subset

Picture = UInt8[np.ndarray, "h w 3"]


class Episodes(Protocol):
    """What every reader of a task offers."""

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """Question `index`, with `shots` pairs of support drawn from the seed."""
        ...


def take(
    reader: Episodes, count: int, *, shots: int, seed: int = 0, process: tuple[int, int] = (0, 1)
) -> list[Episode]:
    """This process's part of the first `count` episodes; `process` is (index, number of processes)."""
    index, processes = process
    return [reader.episode(i, shots=shots, seed=seed) for i in range(index, count, processes)]


class Pascal5i:
    """Foreground segmentation of one class (Pascal-5i): white on black.

    Fold f holds classes 5 f .. 5 f + 4 of `VOC_CLASSES`. The queries are all (image, class) of the validation list in
    its order, again from the start when they are used up; support is drawn from the other images of that class and
    list.

    Args:
      root: VOC2012.
      fold: 0..3.
      split: a list of ImageSets/Segmentation.

    Raises:
      UserError: a fold out of range, a missing list, or no image of the fold's classes.
    """

    def __init__(self, root: epath.PathLike, fold: int, split: str = "val") -> None:
        if fold not in range(4):
            raise UserError(f"fold is {fold}: Pascal-5i has folds 0, 1, 2 and 3")
        self._root = epath.Path(root)
        self._of_class: dict[int, list[str]] = {}
        self._queries: list[tuple[str, int]] = []
        for name in read_list(self._root / "ImageSets" / "Segmentation" / f"{split}.txt"):
            present = np.unique(read_ids(self._root / "SegmentationClass" / f"{name}.png"))
            for label in present[(present > 5 * fold) & (present <= 5 * fold + 5)].tolist():
                self._of_class.setdefault(label, []).append(name)
                self._queries.append((name, label))
        if not self._queries:
            raise UserError(f"{self._root} has no {split} image of fold {fold}: check the data set")

    def __len__(self) -> int:
        return len(self._queries)

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """See `Episodes`."""
        query, label = self._queries[index % len(self._queries)]
        others = [name for name in self._of_class[label] if name != query]
        chosen = draw_support(others, shots, (seed, index), f"class {VOC_CLASSES[label - 1]}")
        pairs = [self._pair(name, label) for name in chosen]
        return Episode(pairs, *self._pair(query, label), key=f"{query}/{VOC_CLASSES[label - 1]}")

    def _pair(self, name: str, label: int) -> tuple[Picture, Picture]:
        mask = read_ids(self._root / "SegmentationClass" / f"{name}.png") == label
        return load(self._root / "JPEGImages" / f"{name}.jpg"), mask_to_rgb(mask)


class _Boxes:
    """Single object detection: a filled white box on black. Only images with one object, below half of the picture.

    Attributes:
      boxes: file -> (class, (x0, y0, x1, y1) in pixels).
    """

    def __init__(self, boxes: dict[epath.Path, tuple[str, tuple[float, ...]]], where: str) -> None:
        if not boxes:
            raise UserError(f"{where} has no image of a single small object: check the data set")
        self.boxes = boxes
        self._files = sorted(boxes)

    def __len__(self) -> int:
        return len(self._files)

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """See `Episodes`."""
        query = self._files[index % len(self._files)]
        label = self.boxes[query][0]
        others = [file for file in self._files if self.boxes[file][0] == label and file != query]
        chosen = draw_support(others, shots, (seed, index), f"class {label}")
        return Episode(
            [self._pair(file) for file in chosen], *self._pair(query), key=f"{query.stem}/{label}"
        )

    def _pair(self, file: epath.Path) -> tuple[Picture, Picture]:
        picture = load(file)
        x0, y0, x1, y1 = (round(value) for value in self.boxes[file][1])
        mask = np.zeros(picture.shape[:2], bool)
        mask[y0:y1, x0:x1] = True
        return picture, mask_to_rgb(mask)


class VocDetection(_Boxes):
    """Single object detection on VOC2012; `split` is a list of ImageSets/Main."""

    def __init__(self, root: epath.PathLike, split: str = "val") -> None:
        base = epath.Path(root)
        boxes = {}
        for name in read_list(base / "ImageSets" / "Main" / f"{split}.txt"):
            tree = ElementTree.fromstring((base / "Annotations" / f"{name}.xml").read_text())
            objects = tree.findall("object")
            size = [float(tree.findtext(f"size/{side}", "0")) for side in ("width", "height")]
            if len(objects) != 1:
                continue
            corners = ("xmin", "ymin", "xmax", "ymax")
            x0, y0, x1, y1 = (float(objects[0].findtext(f"bndbox/{c}", "0")) for c in corners)
            box = (x0 - 1, y0 - 1, x1, y1)  # VOC counts pixels from 1, both ends included
            if (box[2] - box[0]) * (box[3] - box[1]) < _LARGEST_BOX * size[0] * size[1]:
                boxes[base / "JPEGImages" / f"{name}.jpg"] = (objects[0].findtext("name", ""), box)
        super().__init__(boxes, str(base))


class CocoDetection(_Boxes):
    """Single object detection on COCO; `split` is such as val2017. Crowds are left out."""

    def __init__(self, root: epath.PathLike, split: str = "val2017") -> None:
        base = epath.Path(root)
        listing = base / "annotations" / f"instances_{split}.json"
        if not listing.exists():
            raise UserError(
                f"{listing} does not exist: point at the folder that holds annotations/"
            )
        images, names = read_coco(listing)
        boxes = {}
        for name, image in images.items():
            found = image.annotations
            if len(found) != 1 or found[0].get("iscrowd"):
                continue
            x, y, width, height = found[0]["bbox"]
            if width * height < _LARGEST_BOX * image.width * image.height:
                label = names[found[0]["category_id"]]
                boxes[base / split / name] = (label, (x, y, x + width, y + height))
        super().__init__(boxes, str(base))


class Colorization:
    """Grey pictures and their colours, of any image files: centre squares.

    Args:
      files: such as those of `class_folders`; queries in this order, support from the others.
    """

    def __init__(self, files: Sequence[epath.PathLike]) -> None:
        self._files = [epath.Path(file) for file in files]

    def __len__(self) -> int:
        return len(self._files)

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """See `Episodes`."""
        query = self._files[index % len(self._files)]
        others = [file for file in self._files if file != query]
        chosen = draw_support(others, shots, (seed, index), "the folder")
        return Episode([_grey_pair(f) for f in chosen], *_grey_pair(query), key=query.name)


class AnnotatedFolders:
    """Images with an annotation each; queries are held out, support is not.

    Args:
      root: holds a folder an item, with image.png and ROLE.png.
      role: the annotation asked for.
      held_out: paths of the queries relative to the parent of `root`, from `lvm_jax.data.splits.read_held_out`.

    Raises:
      UserError: no such folder, or no item on one of the two sides.
    """

    def __init__(self, root: epath.PathLike, role: str, held_out: frozenset[str]) -> None:
        base, self._role = epath.Path(root), role
        if not base.is_dir():
            raise UserError(f"{base} is not a folder: point at one such as CORPUS/scenes")
        items = sorted(folder for folder in base.iterdir() if (folder / f"{role}.png").exists())
        self._queries = [item for item in items if f"{base.name}/{item.name}" in held_out]
        self._support = [item for item in items if f"{base.name}/{item.name}" not in held_out]
        if not self._queries or not self._support:
            raise UserError(
                f"{base} has {len(self._queries)} held-out items with {role}.png and {len(self._support)} others: "
                "both are needed"
            )

    def __len__(self) -> int:
        return len(self._queries)

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """See `Episodes`."""
        query = self._queries[index % len(self._queries)]
        chosen = draw_support(self._support, shots, (seed, index), "the folder")
        return Episode([self._pair(item) for item in chosen], *self._pair(query), key=query.name)

    def _pair(self, item: epath.Path) -> tuple[Picture, Picture]:
        return load(item / "image.png"), load(item / f"{self._role}.png")


@dataclasses.dataclass(frozen=True)
class Davis:
    """Videos with a mask for each frame; `names` are the sequences of a split.

    Args:
      root: DAVIS.
      split: train or val.
      year: 2016 or 2017: which lists.
    """

    root: epath.PathLike
    split: str = "val"
    year: int = 2017

    @functools.cached_property
    def names(self) -> list[str]:
        """The sequences, in the order of the list."""
        listing = epath.Path(self.root) / "ImageSets" / str(self.year) / f"{self.split}.txt"
        names = [line.split()[0] for line in read_list(listing)]
        # The lists of 2016 name frames: /JPEGImages/480p/bear/00000.jpg
        return list(dict.fromkeys(name.split("/")[3] if "/" in name else name for name in names))

    def frames(self, name: str) -> list[epath.Path]:
        """The frames of a sequence, in order."""
        return _images(epath.Path(self.root) / "JPEGImages" / "480p" / name)

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """The last frame's foreground, shown on frames before it, evenly spread; the seed changes nothing."""
        name = self.names[index % len(self.names)]
        frames = self.frames(name)
        if len(frames) <= shots:
            raise UserError(
                f"sequence {name} has {len(frames)} frames: {shots} shots need one more"
            )
        places = np.linspace(0, len(frames) - 1, shots + 1).round().astype(int)
        *support, last = ((load(frames[i]), self._mask(name, frames[i])) for i in places)
        return Episode(support, *last, key=name)

    def _mask(self, name: str, frame: epath.Path) -> Picture:
        ids = read_ids(epath.Path(self.root) / "Annotations" / "480p" / name / f"{frame.stem}.png")
        return mask_to_rgb(ids > 0)


def class_folders(
    root: epath.PathLike, extensions: Sequence[str] = (*EXTENSIONS, *VIDEO_EXTENSIONS)
) -> list[tuple[epath.Path, str]]:
    """The files of a folder of class folders, with their class, sorted: ImageNet's and Kinetics' layout.

    Raises:
      UserError: no such folder, or nothing in it.
    """
    base = epath.Path(root)
    if not base.is_dir():
        raise UserError(f"{base} is not a folder: point at a split, such as ROOT/val")
    found = [
        (file, folder.name)
        for folder in sorted(path for path in base.iterdir() if path.is_dir())
        for file in sorted(folder.iterdir())
        if file.name.lower().endswith(tuple(extensions))
    ]
    if not found:
        raise UserError(f"{base} has no class folder with files ({', '.join(extensions)})")
    return found


def load(file: epath.PathLike) -> Picture:
    """A picture of a data set.

    Raises:
      UserError: it cannot be read; a benchmark may not pass over a picture.
    """
    try:
        return load_image(file)
    except BadImage as error:
        raise UserError(f"the data set is damaged: {error}; download the file again") from error


def read_ids(file: epath.PathLike) -> Int[np.ndarray, "h w"]:
    """The ids of a palette or grey PNG, not its colours; VOC's void is 255, an id of no class.

    Raises:
      UserError: not a picture of ids.
    """
    try:
        return load_ids(file)
    except BadImage as error:
        raise UserError(f"the data set is damaged: {error}; download the file again") from error


def _grey_pair(file: epath.Path) -> tuple[Picture, Picture]:
    picture = load(file)
    side = min(picture.shape[:2])
    y, x = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    colour = picture[y : y + side, x : x + side]
    return grey(colour), colour


def draw_support(candidates: Sequence, shots: int, seed: tuple[int, int], what: str) -> list:
    """`shots` of the candidates without repeats, by the seed.

    Raises:
      UserError: fewer than that; `what` says of what.
    """
    if len(candidates) < shots:
        raise UserError(
            f"{what} has {len(candidates)} images beside the query: lower shots from {shots} to that"
        )
    chosen = np.random.default_rng(seed).choice(len(candidates), shots, replace=False)
    return [candidates[i] for i in chosen]


def read_list(path: epath.Path) -> list[str]:
    """The lines of a list of a data set, empty ones left out.

    Raises:
      UserError: no such file.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: point at the root of the data set")
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def _images(folder: epath.Path) -> list[epath.Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: the data set is not complete")
    return sorted(file for file in folder.iterdir() if file.name.lower().endswith(EXTENSIONS))
