"""What a composer is, and what composers share: grouping items, taking pictures of an item, crops."""

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from data_pipelines.items import Item, Kind, Picture, Text, Value, pictures, refuse_other_kinds
from lvm_jax.errors import UserError

Groups = list[tuple[str, ...]]
T = TypeVar("T")


class Unfit(Exception):
    """Item number `position` of a group cannot be used: it lacks a role, or its clip is too short."""

    def __init__(self, position: int, why: str):
        super().__init__(why)
        self.position = position
        self.why = why


class Composer(Protocol):
    """Makes one type of visual sentence. Today's composers take pictures and refuse other kinds of values."""

    @property
    def max_images(self) -> int:
        """The most values in a sentence."""
        ...

    @property
    def max_items(self) -> int:
        """The most items that a sentence needs; this many items make at least one sentence."""
        ...

    def group(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """One pass over `keys`: a group of item keys per sentence. If there are enough for one, no key is lost."""
        ...

    def compose(
        self, items: Sequence[Item], rng: np.random.Generator
    ) -> tuple[Sequence[Value], str]:
        """The values of one sentence, in order, and their layout, such as `image,depth,image,depth`.

        Raises:
          Unfit: an item lacks something that this sentence needs.
          UserError: this composer does not take a role's kind of values.
        """
        ...


class OneItem:
    """Base class of composers whose sentences each show one item."""

    @property
    def max_items(self) -> int:
        """See `Composer`."""
        return 1

    def group(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """See `Composer`."""
        return permuted_groups(keys, 1, rng)


def permuted_groups(keys: Sequence[str], size: int, rng: np.random.Generator) -> Groups:
    """Each key once, in groups of `size`, the last one completed by other keys. Too few keys make no group."""
    if len(keys) < size:
        return []
    order = shuffled(keys, rng)
    return [filled(order[i : i + size], size, keys, rng) for i in range(0, len(order), size)]


def class_groups(
    keys: Sequence[str], class_of: str, size: int, fewest: int, rng: np.random.Generator
) -> Groups:
    """Groups of at most `size` keys of one class; groups of different classes alternate at random.

    Args:
      keys: of items.
      class_of: a regular expression for whole keys; its first group is the class. Keys that do not match are not used.
      size: of a group; a class with fewer keys makes one smaller group.
      fewest: keys that a class needs to be used.
      rng: of every draw.
    """
    classes: dict[str, list[str]] = {}
    for key in keys:
        match = re.fullmatch(class_of, key)
        if match:
            classes.setdefault(match[1], []).append(key)
    groups: Groups = []
    # Sorted, so that the draws do not depend on the order in which the keys name the classes.
    for name in sorted(classes):
        members = classes[name]
        if len(members) >= fewest:
            groups += permuted_groups(members, min(size, len(members)), rng)
    return shuffled(groups, rng)


def shuffled(things: Sequence[T], rng: np.random.Generator) -> list[T]:
    """The things in a random order."""
    return [things[int(i)] for i in rng.permutation(len(things))]


def filled(
    group: list[str], size: int, keys: Sequence[str], rng: np.random.Generator
) -> tuple[str, ...]:
    """Completes a short last group with other keys: a pass shows every item, and no sentence shows one twice."""
    if len(group) == size:
        return tuple(group)
    # Sorted: a set's order changes between processes, and the draw must not.
    others = sorted(set(keys) - set(group))
    return (*group, *shuffled(others, rng)[: size - len(group)])


def images_of(items: Sequence[Item], position: int, role: str) -> list[Picture]:
    """All pictures of one role of item number `position`.

    Raises:
      Unfit: it has no such role.
      UserError: the role holds values that are not pictures.
    """
    item = items[position]
    if role not in item:
        raise Unfit(position, f"it has no {role!r}; it has {', '.join(sorted(item))}")
    return pictures(item[role], f"role {role!r}", "a sentence of pictures")


def of_role(item: Item, role: str, kind: Kind, taker: str) -> Sequence[Value]:
    """The values of a role of a sentence's only item, at least one of them.

    Args:
      item: of the sentence.
      role: of the values.
      kind: that they must have.
      taker: names the composer's result in a message, such as `a conversation`.

    Raises:
      Unfit: it has no such role, or nothing in it.
      UserError: the role holds values of another kind.
    """
    if not item.get(role):
        raise Unfit(0, f"it has no {role!r}; it has {', '.join(sorted(item))}")
    refuse_other_kinds(item[role], (kind,), f"role {role!r}", taker)
    return item[role]


def words_of_role(item: Item, role: str, taker: str) -> str:
    """The first text of a role; arguments and errors as in `of_role`."""
    (text, *_) = of_role(item, role, Kind.TEXT, taker)
    assert isinstance(text, Text)
    return text.words


def first_of_each(items: Sequence[Item], position: int, roles: Sequence[str]) -> list[Picture]:
    """The first picture of each role of one item."""
    return [images_of(items, position, role)[0] for role in roles]


def aligned(items: Sequence[Item], position: int, roles: Sequence[str]) -> list[Picture]:
    """`first_of_each`, if all of them have one size.

    Raises:
      Unfit: they have not.
    """
    found = first_of_each(items, position, roles)
    sizes = [f"{x.shape[1]}x{x.shape[0]} pixels" for x in found]
    for role, size in zip(roles, sizes, strict=True):
        if size != sizes[0]:
            raise Unfit(position, f"its {roles[0]!r} is {sizes[0]}, its {role!r} {size}")
    return found


def random_crop(
    images: list[Picture], smallest: float | None, rng: np.random.Generator
) -> list[Picture]:
    """The same square window of each picture, in relative coordinates; None keeps them whole."""
    if smallest is None:
        return images
    # Relative, because an image and its annotation may have different sizes.
    fraction, top, left = rng.uniform(smallest, 1.0), rng.random(), rng.random()
    return [_square(image, fraction, top, left) for image in images]


def _square(image: Picture, fraction: float, top: float, left: float) -> Picture:
    height, width = image.shape[:2]
    side = max(1, round(fraction * min(height, width)))
    y, x = round(top * (height - side)), round(left * (width - side))
    return image[y : y + side, x : x + side]


def check_class_of(class_of: str) -> None:
    """Refuses what is no regular expression with a group."""
    try:
        groups = re.compile(class_of).groups
    except re.error as error:
        raise UserError(f"class_of is no regular expression: {error}") from error
    if not groups:
        raise UserError(f"class_of is {class_of!r}: it needs a (group) for the class")


def check_crop(crop: float | None) -> None:
    """Refuses a crop that is not a fraction."""
    if crop is not None and not 0 < crop <= 1:
        raise UserError(
            f"crop is {crop}: it is a fraction of the short side, above 0 and at most 1"
        )


def check_positive(name: str, value: int) -> None:
    """Refuses a count below 1."""
    if value < 1:
        raise UserError(f"{name} is {value}: it must be at least 1")
