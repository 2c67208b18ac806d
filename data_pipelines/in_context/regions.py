"""Region descriptions of Visual Genome, each about the class of an object that covers it.

A region describes a part of a photograph in a phrase; which object it is about is not annotated. Of the objects whose
class the source gives, it gets that of the one which it overlaps most, if the two overlap by half. In the first hundred
photographs 8.3% of all regions have one of COCO's classes: 450,000 of 5.4 million, near the paper's 460,000.

Shape legend: R regions and N objects of a photograph.
"""

import collections
import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from data_pipelines.annotators.base import once_per_process
from data_pipelines.in_context.class_names import Classes, ClassNames, class_names
from data_pipelines.in_context.coco_objects import SMALL
from data_pipelines.in_context.keys import object_key, parts_of, picture_id
from data_pipelines.items import Boxes, Item, Text
from data_pipelines.sources.images import read_image
from lvm_jax.data.sentences.visual_sentence import Category
from lvm_jax.errors import UserError
from lvm_jax.metrics.boxes import overlaps
from lvm_jax.pictures.listing import existing_folder


@dataclasses.dataclass(frozen=True)
class Regions:
    """Regions: `{"image", "caption", "boxes", "class", "shows"}`, and `unseen`.

    About half of the photographs are COCO's: these are named as COCO names them, so that both sets agree on their
    split.

    Attributes:
      image_data, regions, objects: json files of version 1.2 or later, below `root`.
      images: folder that holds the folders `VG_100K` and `VG_100K_2`, below `root`; "" for `root` itself.
      synsets, aliases, classes: see `class_names`.
      unseen: names of classes that training must not see; photographs with an object of one are held out.
      match: a regular expression for the files to use, such as "VG_100K/2.jpg"; "" for all.
      overlap: intersection over union that region and object must have.
      fewest: regions that a class must have.
      min_area: pixels of the smallest region.
      pictures: see `CocoObjects`.
    """

    root: str
    image_data: str = "image_data.json"
    regions: str = "region_descriptions.json"
    objects: str = "objects.json"
    images: str = ""
    synsets: str = "coco_to_synset.json"
    aliases: tuple[str, ...] = ()
    classes: Classes = "known"
    unseen: tuple[str, ...] = ()
    match: str = ""
    overlap: float = 0.5
    fewest: int = 100
    min_area: int = SMALL
    pictures: str = "coco"
    name: str = "visual_genome"
    licence: str = "CC-BY-4.0"
    origin: str = "Visual Genome"
    category: int = Category.ANNOTATED_IMAGE

    def __post_init__(self) -> None:
        if not 0 < self.overlap <= 1:
            raise UserError(f"overlap is {self.overlap}: above 0 and at most 1")

    def keys(self) -> list[str]:
        """See `keys`; an object's number is its region's.

        Raises:
          UserError: no such folder or file, one of another format, or no region is left.
        """
        return sorted(self._matched())

    def load(self, key: str) -> Item:
        """One region; see `Source`."""
        names = self._names()
        found = self._matched()[key]
        image = read_image(self._path(found.file), key)
        return {
            "image": [image],
            "caption": [Text(found.phrase)],
            "boxes": [Boxes(np.array([found.box], np.float32), (found.class_name,))],
            "class": [Text(found.class_name)],
            "shows": [Text(picture_id(self.pictures, parts_of(key)[0]))],
            "unseen": [Text(found.class_name)] if names.is_unseen(found.class_name) else [],
        }

    def _path(self, file: str) -> epath.Path:
        """Where a photograph lies: the json files disagree about the folder of some."""
        folder = epath.Path(self.root) / self.images
        others = [folder / name / file.rpartition("/")[2] for name in ("VG_100K", "VG_100K_2")]
        return next((path for path in others if path.is_file()), folder / file)

    def _names(self) -> ClassNames:
        return class_names(self.root, self.synsets, self.aliases, self.unseen, self.classes)

    def _matched(self) -> "dict[str, Region]":
        existing_folder(self.root, "images and annotations")
        return _matched(self)


@dataclasses.dataclass(frozen=True)
class Region:
    """A region that has a class.

    Attributes:
      file: of the photograph, such as "VG_100K/2.jpg".
      box: (x0, y0, x1, y1) in pixels.
      phrase: what it says.
      class_name: of the object that it overlaps most.
    """

    file: str
    box: tuple[float, float, float, float]
    phrase: str
    class_name: str


@once_per_process
def _matched(source: Regions) -> dict[str, Region]:
    """Key -> region, of the classes that have enough."""
    names = source._names()
    try:
        found = dict(_regions_of(source, names))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{source.root}: {source.image_data}, {source.regions} and {source.objects} are not three files of one "
            f"version of Visual Genome, 1.2 or later ({type(error).__name__}: {error})"
        ) from error
    counts = collections.Counter(region.class_name for region in found.values())
    kept = {
        key: region for key, region in found.items() if counts[region.class_name] >= source.fewest
    }
    known = set(names.of_synset.values())
    wrong = sorted(names.unseen - known)
    if wrong:
        raise UserError(
            f"unseen has the class {wrong[0]!r}, which {source.synsets} has not: it has "
            f"{', '.join(sorted(known)[:8])}, ..."
        )
    if not kept:
        raise UserError(
            f"{source.regions} holds no region of a class with at least fewest={source.fewest} of them, of "
            f"{len(found)} that overlap an object: lower fewest or overlap"
        )
    return kept


def _regions_of(source: Regions, names: ClassNames) -> Iterator[tuple[str, Region]]:
    objects = {
        entry.get("image_id", entry.get("id")): entry["objects"]
        for entry in _json(source, source.objects)
    }
    listed = {entry["image_id"]: entry for entry in _json(source, source.image_data)}
    for entry in _json(source, source.regions):
        photograph = listed[entry["id"]]
        file = "/".join(photograph["url"].split("/")[-2:])
        if source.match and not re.fullmatch(source.match, file):
            continue
        known = list(_classed(objects.get(entry["id"], []), names))
        is_held_out = any(names.is_unseen(name) for _, name in known)
        regions = [r for r in entry["regions"] if r["width"] * r["height"] >= source.min_area]
        if not known or not regions:
            continue
        overlaps_RN = overlaps(
            np.array([_box(r["x"], r["y"], r["width"], r["height"]) for r in regions]),
            np.array([box for box, _ in known]),
        )
        for region, overlap_N in zip(regions, overlaps_RN, strict=True):
            best = int(overlap_N.argmax())
            phrase = " ".join(region["phrase"].split())
            if phrase and overlap_N[best] >= source.overlap:
                box = _box(region["x"], region["y"], region["width"], region["height"])
                key = object_key(_picture(photograph), region["region_id"], is_held_out)
                yield key, Region(file, box, phrase, known[best][1])


def _classed(
    objects: list[dict[str, Any]], names: ClassNames
) -> Iterator[tuple[tuple[float, float, float, float], str]]:
    """The boxes and classes of the objects that have a class which the source gives."""
    for entry in objects:
        for synset in entry["synsets"]:
            name = names.name(synset, synset)
            if name:
                yield _box(entry["x"], entry["y"], entry["w"], entry["h"]), name
                break  # an object with several synsets is one object


def _box(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return (float(x), float(y), float(x + width), float(y + height))


def _picture(photograph: dict[str, Any]) -> str:
    coco = photograph.get("coco_id")
    return f"vg_{photograph['image_id']}" if coco is None else f"{int(coco):012d}.jpg"


def _json(source: Regions, name: str) -> Any:
    path = epath.Path(source.root) / name
    if not path.is_file():
        raise UserError(f"{source.root} holds no {name}: download it from Visual Genome")
    return json.loads(path.read_bytes())
