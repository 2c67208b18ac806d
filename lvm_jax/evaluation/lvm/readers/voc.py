"""VOC2012: foreground segmentation and single object detection."""

import numpy as np
from etils import epath

from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.answer_scores import Picture
from lvm_jax.evaluation.lvm.readers.episodes import draw_support, load_with_ids, read_ids
from lvm_jax.evaluation.lvm.readers.objects import LARGEST_BOX, Boxes, Object
from lvm_jax.evaluation.lvm.visual_benchmark import Episode
from lvm_jax.pictures.annotation_maps import mask_to_rgb
from lvm_jax.pictures.voc import VOC_CLASSES, read_annotation, read_names


class Pascal5i:
    """Foreground segmentation of one class (Pascal-5i): white on black.

    Fold f has classes 5 f .. 5 f + 4 of `VOC_CLASSES`. Queries are all (image, class) pairs of the list in its order,
    starting over when they run out. Support is drawn from the other images of the class in the list.

    Args:
      root: VOC2012.
      fold: 0..3.
      split: a list of ImageSets/Segmentation.

    Raises:
      UserError: the fold is out of range, the list is missing, or no image has a class of the fold.
    """

    def __init__(self, root: epath.PathLike, fold: int, split: str = "val") -> None:
        if fold not in range(4):
            raise UserError(f"fold is {fold}: Pascal-5i has folds 0, 1, 2 and 3")
        self._root = epath.Path(root)
        self._of_class: dict[int, list[str]] = {}
        self._queries: list[tuple[str, int]] = []
        for name in read_names(self._root / "ImageSets" / "Segmentation" / f"{split}.txt"):
            present = np.unique(read_ids(self._root / "SegmentationClass" / f"{name}.png"))
            # Ids start at 1, and 0 is the background: fold f has ids 5 f + 1 .. 5 f + 5.
            for label in present[(present > 5 * fold) & (present <= 5 * fold + 5)].tolist():
                self._of_class.setdefault(label, []).append(name)
                self._queries.append((name, label))
        if not self._queries:
            raise UserError(f"{self._root} has no {split} image of fold {fold}: check the data set")

    def __len__(self) -> int:
        return len(self._queries)

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """See `lvm_jax.evaluation.lvm.readers.episodes.Episodes`."""
        query, label = self._queries[index % len(self._queries)]
        others = [name for name in self._of_class[label] if name != query]
        chosen = draw_support(others, shots, (seed, index), f"class {VOC_CLASSES[label - 1]}")
        pairs = [self._pair(name, label) for name in chosen]
        return Episode(pairs, *self._pair(query, label), key=f"{query}/{VOC_CLASSES[label - 1]}")

    def _pair(self, name: str, label: int) -> tuple[Picture, Picture]:
        picture, ids = load_with_ids(
            self._root / "JPEGImages" / f"{name}.jpg",
            self._root / "SegmentationClass" / f"{name}.png",
        )
        return picture, mask_to_rgb(ids == label)


class VocDetection(Boxes):
    """Single object detection: images of one object that covers less than half of the picture.

    Args:
      root: VOC2012.
      split: a list of ImageSets/Main, such as val or the class's list cat_val.
    """

    def __init__(self, root: epath.PathLike, split: str = "val") -> None:
        base = epath.Path(root)
        objects = {}
        for name in read_names(base / "ImageSets" / "Main" / f"{split}.txt"):
            annotation = base / "Annotations" / f"{name}.xml"
            image = read_annotation(annotation)
            if len(image.objects) != 1:
                continue
            if not image.width * image.height > 0:
                raise UserError(
                    f"{annotation} says no size, which tells how much of the picture the object covers: write it there"
                )
            label, (x0, y0, x1, y1) = image.objects[0]
            if (x1 - x0) * (y1 - y0) < LARGEST_BOX * image.width * image.height:
                file = base / "JPEGImages" / f"{name}.jpg"
                objects[file] = Object(label, (x0, y0, x1, y1))
        super().__init__(objects, base)
