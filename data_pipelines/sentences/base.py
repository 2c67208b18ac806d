"""What a composer is, and what composers share: which items stand together, which pictures an item gives, crops."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from data_pipelines.items import Item, Picture, Value, pictures
from lvm_jax.errors import UserError

Groups = list[tuple[str, ...]]
T = TypeVar("T")


class Unfit(Exception):
    """Item number `position` of a group cannot give its pictures: it lacks a role, or its clip is too short."""

    def __init__(self, position: int, why: str):
        super().__init__(why)
        self.position = position
        self.why = why


class Composer(Protocol):
    """What the pipeline asks of every kind of sentence. Today's composers take pictures only, and say so of others."""

    @property
    def max_images(self) -> int:
        """The most values that a sentence can hold."""
        ...

    @property
    def max_items(self) -> int:
        """The most items that a sentence can need; so many make at least one sentence."""
        ...

    def group(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """One pass over `keys`: groups of item keys, a sentence each; no key is lost if there are enough for one."""
        ...

    def compose(
        self, items: Sequence[Item], rng: np.random.Generator
    ) -> tuple[Sequence[Value], str]:
        """The values of one sentence, in order, and their layout, such as `image,depth,image,depth`.

        Raises:
          Unfit: an item lacks what this sentence needs.
          UserError: a role holds values of a kind that this composer does not take.
        """
        ...


class OneItem:
    """What composers share if each of their sentences shows one item."""

    @property
    def max_items(self) -> int:
        """See `Composer`."""
        return 1

    def group(self, keys: Sequence[str], rng: np.random.Generator) -> Groups:
        """See `Composer`."""
        return permuted_groups(keys, 1, rng)


def permuted_groups(keys: Sequence[str], size: int, rng: np.random.Generator) -> Groups:
    """Each key once, in groups of `size`; other keys complete the last group. Too few keys make no group."""
    if len(keys) < size:
        return []
    order = shuffled(keys, rng)
    return [filled(order[i : i + size], size, keys, rng) for i in range(0, len(order), size)]


def shuffled(things: Sequence[T], rng: np.random.Generator) -> list[T]:
    """The things in a random order."""
    return [things[int(i)] for i in rng.permutation(len(things))]


def filled(
    group: list[str], size: int, keys: Sequence[str], rng: np.random.Generator
) -> tuple[str, ...]:
    """Completes a short last group with other keys: a pass shows every item, and no sentence shows one twice."""
    if len(group) == size:
        return tuple(group)
    others = sorted(set(keys) - set(group))
    return (*group, *shuffled(others, rng)[: size - len(group)])


def images_of(items: Sequence[Item], position: int, role: str) -> list[Picture]:
    """All pictures of one role of item number `position`.

    Raises:
      Unfit: it has no such role.
      UserError: the role holds something else than pictures.
    """
    item = items[position]
    if role not in item:
        raise Unfit(position, f"it has no {role!r}; it has {', '.join(sorted(item))}")
    return pictures(item[role], f"role {role!r}", "a sentence of pictures")


def first_of_each(items: Sequence[Item], position: int, roles: Sequence[str]) -> list[Picture]:
    """The first picture of each role of one item."""
    return [images_of(items, position, role)[0] for role in roles]


def random_crop(
    images: list[Picture], smallest: float | None, rng: np.random.Generator
) -> list[Picture]:
    """The same square window, in relative coordinates, of each picture; None keeps them whole."""
    if smallest is None:
        return images
    fraction, top, left = rng.uniform(smallest, 1.0), rng.random(), rng.random()
    return [_square(image, fraction, top, left) for image in images]


def _square(image: Picture, fraction: float, top: float, left: float) -> Picture:
    height, width = image.shape[:2]
    side = max(1, round(fraction * min(height, width)))
    y, x = round(top * (height - side)), round(left * (width - side))
    return image[y : y + side, x : x + side]


def check_crop(crop: float | None) -> None:
    """Refuses a crop that is no fraction."""
    if crop is not None and not 0 < crop <= 1:
        raise UserError(
            f"crop is {crop}: it is a fraction of the short side, above 0 and at most 1"
        )


def check_positive(name: str, value: int) -> None:
    """Refuses a count below 1."""
    if value < 1:
        raise UserError(f"{name} is {value}: it must be at least 1")
