"""Folders of files: pictures to colour, images with annotations beside them, and class folders of videos."""

from collections.abc import Sequence

from etils import epath

from lvm_jax.data.splits import is_listed
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lvm.answer_scores import Picture
from lvm_jax.evaluation.lvm.readers.episodes import draw_support, load
from lvm_jax.evaluation.lvm.visual_benchmark import Episode
from lvm_jax.pictures.annotation_maps import grey
from lvm_jax.pictures.decode import EXTENSIONS
from lvm_jax.pictures.listing import list_folder

VIDEO_EXTENSIONS = (".mp4", ".webm", ".mkv", ".avi", ".mov")


class Colorization:
    """Grey pictures to colour: the centre squares of any image files.

    Args:
      files: for example from `class_folders`. Queries follow this order; support comes from the other files.
    """

    def __init__(self, files: Sequence[epath.PathLike]) -> None:
        self._files = [epath.Path(file) for file in files]

    def __len__(self) -> int:
        return len(self._files)

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """See `lvm_jax.evaluation.lvm.readers.episodes.Episodes`."""
        query = self._files[index % len(self._files)]
        others = [file for file in self._files if file != query]
        chosen = draw_support(others, shots, (seed, index), "the folder")
        return Episode([_grey_pair(f) for f in chosen], *_grey_pair(query), key=query.name)


class AnnotatedFolders:
    """Images with an annotation each. Queries are held out; their support is not.

    Args:
      root: has a folder for each item, with image.png and ROLE.png.
      role: the annotation to ask for.
      held_out: paths of the queries relative to the parent of `root`, from `lvm_jax.data.splits.read_held_out`.

    Raises:
      UserError: the folder does not exist, or there is no item to ask for or none to show.
    """

    def __init__(self, root: epath.PathLike, role: str, held_out: frozenset[str]) -> None:
        base, self._role = epath.Path(root), role
        items = [item for item in _folders_of_items(base) if (item / f"{role}.png").exists()]
        asked = [is_listed(f"{base.name}/{item.name}", held_out) for item in items]
        self._queries = [item for item, is_asked in zip(items, asked) if is_asked]
        self._support = [item for item, is_asked in zip(items, asked) if not is_asked]
        if not self._queries or not self._support:
            raise UserError(
                f"{base} has {len(self._queries)} held-out items with {role}.png and {len(self._support)} others: "
                "both are needed"
            )

    def __len__(self) -> int:
        return len(self._queries)

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """See `lvm_jax.evaluation.lvm.readers.episodes.Episodes`."""
        query = self._queries[index % len(self._queries)]
        chosen = draw_support(self._support, shots, (seed, index), "the folder")
        return Episode([self._pair(item) for item in chosen], *self._pair(query), key=query.name)

    def _pair(self, item: epath.Path) -> tuple[Picture, Picture]:
        return load(item / "image.png"), load(item / f"{self._role}.png")


def annotated_items(
    root: epath.PathLike, held_out: frozenset[str] | None = None
) -> list[epath.Path]:
    """The sorted folders of items below `root`, as in `AnnotatedFolders`.

    Args:
      root: has a folder for each item.
      held_out: paths of the wanted items relative to the parent of `root`; None takes all.

    Raises:
      UserError: the folder does not exist, or has no such item.
    """
    base = epath.Path(root)
    items = _folders_of_items(base)
    found = [i for i in items if held_out is None or is_listed(f"{base.name}/{i.name}", held_out)]
    if not found:
        raise UserError(
            f"{base} has {len(items)} folders of items, and 0 that the list of held-out items names as "
            f"{base.name}/NAME: check the folder and the list"
        )
    return found


def class_folders(
    root: epath.PathLike, extensions: Sequence[str] = (*EXTENSIONS, *VIDEO_EXTENSIONS)
) -> list[tuple[epath.Path, str]]:
    """The sorted files of a folder of class folders, with their classes: the format of ImageNet and Kinetics.

    Raises:
      UserError: the folder does not exist or is empty.
    """
    base = epath.Path(root)
    if not base.is_dir():
        raise UserError(f"{base} is not a folder: point at a split, such as ROOT/val")
    found = [
        (file, folder.name)
        for folder in list_folder(base)
        if folder.is_dir()
        for file in list_folder(folder)
        if file.name.lower().endswith(tuple(extensions))
    ]
    if not found:
        raise UserError(f"{base} has no class folder with files ({', '.join(extensions)})")
    return found


def _folders_of_items(base: epath.Path) -> list[epath.Path]:
    if not base.is_dir():
        raise UserError(f"{base} is not a folder: point at one such as CORPUS/scenes")
    return [folder for folder in list_folder(base) if folder.is_dir()]


def _grey_pair(file: epath.Path) -> tuple[Picture, Picture]:
    picture = load(file)
    side = min(picture.shape[:2])
    y, x = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    colour = picture[y : y + side, x : x + side]
    return grey(colour), colour
