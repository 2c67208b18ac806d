"""Which records make a row: a query, and examples of its class that show other pictures.

A pool's queries come in rounds: each record is the query once a round, in an order of its own. Examples, their number,
and whether the class is named are drawn for each place, so any place is found without those before it.

Shape legend: R places that are asked for, E the most examples, T the records of a class that are tried at a time.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from lvm_jax.data import shuffle
from lvm_jax.data.in_context.pool import Pool, PoolStore
from lvm_jax.data.in_context.pool_record import BOXED, BOXES, PoolRecord
from lvm_jax.data.in_context.sequences import Pair, Question
from lvm_jax.data.in_context.words import Words
from lvm_jax.errors import UserError

CategoryMode = Literal["none", "examples", "all"]
BoxMode = Literal["none", "image", "text"]
_CATEGORY_MODES: tuple[CategoryMode, ...] = ("none", "examples", "all")
# Streams of random numbers, so that no draw decides another.
_ORDER, _EXAMPLES, _SHOTS, _CATEGORY = range(4)


@dataclasses.dataclass(frozen=True)
class RowStyle:
    """What is drawn for each row, and what of a record is shown.

    Attributes:
      shots: chance of 0, 1, 2, ... examples, relative to each other; as published always three.
      category: chance of each way to write the class before pairs: before "none", before "examples" only, before "all".
        It needs a format with `category_room`.
      say_category: whether words begin with the class in its brackets; only captioning has words.
      boxes: what captioning does with boxes. "text": words say them. "image": the picture has them drawn, in examples
        and in the query, which says where to look; needs a pool with such pictures. "none": neither.
    """

    shots: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0)
    category: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"none": 1.0})
    say_category: bool = True
    boxes: BoxMode = "none"

    def __post_init__(self) -> None:
        unknown = sorted(set(self.category) - set(_CATEGORY_MODES))
        if unknown:
            raise UserError(
                f"category has the mode {unknown[0]!r}: modes are {', '.join(_CATEGORY_MODES)}"
            )
        for name, chances in (("shots", self.shots), ("category", (*self.category.values(),))):
            if not chances or min(chances) < 0 or not sum(chances) > 0:
                raise UserError(
                    f"{name} has the chances {list(chances)}: none may be negative, and one must be above 0"
                )
        if self.boxes not in ("none", "image", "text"):
            raise UserError(f"boxes is {self.boxes!r}: it must be none, image or text")

    @property
    def most_examples(self) -> int:
        """The most examples that a row may have."""
        return max(k for k, chance in enumerate(self.shots) if chance > 0)

    @property
    def names_classes(self) -> bool:
        """Whether a class may stand before a pair."""
        return any(self.category.get(mode, 0) > 0 for mode in ("examples", "all"))


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A row before it is read.

    Attributes:
      query: number of the query's record in the store.
      examples: of its examples, the first first.
      category: before which pairs the class is written.
    """

    query: int
    examples: tuple[int, ...]
    category: CategoryMode


class EpisodeDrawer:
    """Rows of one question; every draw is a pure function of the seed and the place.

    Args:
      store: of the records.
      pool: of the question, made for `style.most_examples` examples.
      style: of the rows.
      seed: of every draw.
      together: rows at so many consecutive places, from a multiple of it on, have equally many examples.

    Raises:
      UserError: a class of the pool has too few pictures, or captioning shows boxes that records of the pool lack.
    """

    def __init__(self, store: PoolStore, pool: Pool, style: RowStyle, seed: int, together: int = 1):
        self._store, self._pool, self._style, self._seed = store, pool, style, seed
        self._together = together
        # Or the search for examples would not end.
        if pool.pictures.min() <= style.most_examples:
            raise UserError(
                f"a class of the pool has {pool.pictures.min()} pictures, the style shows {style.most_examples} "
                "examples and a query: make the pool for as many"
            )
        bit = {"none": 0, "image": BOXED, "text": BOXES}[style.boxes]
        if bit and pool.question is Question.CAPTIONING:
            lacking = int((store.holds[pool.records] & bit == 0).sum())
            if lacking:
                what = "boxes" if bit == BOXES else "pictures with their boxes drawn"
                raise UserError(
                    f"boxes is {style.boxes!r} and {lacking} of {len(pool)} records have no {what}: build the pool "
                    "with them (boxed=True draws them), or use boxes='none'"
                )
        self._begins = pool.begins
        self._shows = store.shows_hash[pool.records]
        self._modes = [mode for mode in _CATEGORY_MODES if style.category.get(mode, 0) > 0]

    def __len__(self) -> int:
        """Queries of a round."""
        return len(self._pool)

    def draw(self, places: Int64[np.ndarray, " R"]) -> list[Drawn]:
        """The rows at places of the endless series."""
        pool, style = self._pool, self._style
        rounds, within = np.divmod(places, len(pool))
        queries = shuffle.shuffled(within, len(pool), self._keys(_ORDER, rounds))
        shots = _chosen(
            np.array(style.shots, np.float64), self._uniform(_SHOTS, places // self._together)
        )
        chances = np.array([style.category[mode] for mode in self._modes], np.float64)
        modes = _chosen(chances, self._uniform(_CATEGORY, places)).tolist()
        examples = self._examples(queries, shots, places)
        return [
            Drawn(query, tuple(pool.records[found].tolist()), self._modes[mode])
            for query, found, mode in zip(
                pool.records[queries].tolist(), examples, modes, strict=True
            )
        ]

    def rivals(self, drawn: Sequence[Drawn]) -> list[Drawn | None]:
        """Rows about something else in the pictures of the same queries: of another class, with examples of that class.

        None where the pool has no other class for the picture.
        """
        order = np.argsort(self._shows, kind="stable")
        places = {record: place for place, record in enumerate(self._pool.records.tolist())}
        queries = np.array([places[one.query] for one in drawn], np.int64)
        found: list[Drawn | None] = [None] * len(drawn)
        for number, query in enumerate(queries.tolist()):
            first, last = (
                np.searchsorted(self._shows, self._shows[query], side, sorter=order)
                for side in ("left", "right")
            )
            beside = order[first:last]
            others = beside[self._pool.class_of[beside] != self._pool.class_of[query]]
            if len(others):
                shots = np.array([len(drawn[number].examples)])
                (examples,) = self._examples(others[:1], shots, np.array([number]))
                found[number] = Drawn(
                    int(self._pool.records[others[0]]),
                    tuple(self._pool.records[examples].tolist()),
                    drawn[number].category,
                )
        return found

    def _examples(
        self,
        queries: Int64[np.ndarray, " R"],
        shots: Int64[np.ndarray, " R"],
        places: Int64[np.ndarray, " R"],
    ) -> list[list[int]]:
        """Places in the pool of each query's examples: the first of its class, in a random order, that show pictures
        which neither the query nor an earlier example shows.
        """
        class_of = self._pool.class_of[queries]
        begins = self._begins[class_of]
        sizes = self._begins[class_of + 1] - begins
        keys = self._keys(_EXAMPLES, places)
        found: list[list[int]] = [[] for _ in queries]
        seen = [{shows} for shows in self._shows[queries].tolist()]
        left, first, tried = np.flatnonzero(shots > 0), 0, int(shots.max(initial=0)) + 2
        while left.size:
            order = np.arange(first, first + tried)
            inside = order < sizes[left, None]
            candidates = begins[left, None] + shuffle.shuffled(
                np.where(inside, order, 0).ravel(),
                np.repeat(sizes[left], tried),
                np.repeat(keys[left], tried),
            ).reshape(inside.shape)
            self._take(candidates, inside, left, shots, found, seen)
            # A class has enough pictures, see `Pool.of`: so this ends.
            left = np.array([r for r in left.tolist() if len(found[r]) < shots[r]], np.int64)
            first, tried = first + tried, 2 * tried
        return found

    def _take(
        self,
        candidates: Int64[np.ndarray, "L T"],
        inside: Bool[np.ndarray, "L T"],
        rows: Int64[np.ndarray, " L"],
        shots: Int64[np.ndarray, " R"],
        found: list[list[int]],
        seen: list[set[int]],
    ) -> None:
        """Adds to each row the candidates that show something new, until it has enough."""
        shows = self._shows[candidates].tolist()
        for n, r in enumerate(rows.tolist()):
            for candidate, show, is_there in zip(
                candidates[n].tolist(), shows[n], inside[n].tolist(), strict=True
            ):
                if is_there and show not in seen[r] and len(found[r]) < shots[r]:
                    found[r].append(candidate)
                    seen[r].add(show)

    def pairs(self, drawn: Drawn, records: Sequence[PoolRecord]) -> list[Pair]:
        """Examples and, last, the query, as a row shows them.

        Args:
          drawn: from `draw`.
          records: of its examples and, last, its query.
        """
        last = len(records) - 1
        return [
            self._pair(
                record,
                drawn.category == "all" or (drawn.category == "examples" and number < last),
            )
            for number, record in enumerate(records)
        ]

    def _pair(self, record: PoolRecord, with_category: bool) -> Pair:
        category, style = record.class_name if with_category else "", self._style
        if self._pool.question is Question.SEGMENTATION:
            assert record.mask is not None  # or it would not be in the pool
            return Pair(record.picture, record.mask, category)
        words = Words(
            record.caption,
            record.class_name if style.say_category else "",
            record.boxes if style.boxes == "text" else (),
        )
        drawn = record.boxed if style.boxes == "image" else record.picture
        assert drawn is not None  # checked by the index
        return Pair(drawn, words, category)

    def _keys(self, stream: int, places: Int64[np.ndarray, " R"]) -> UInt64[np.ndarray, " R"]:
        return shuffle.keys(self._seed, self._pool.question.value, stream, places)

    def _uniform(self, stream: int, places: Int64[np.ndarray, " R"]) -> Float64[np.ndarray, " R"]:
        """Numbers in [0, 1)."""
        return (self._keys(stream, places) >> np.uint64(11)).astype(np.float64) / (1 << 53)


def _chosen(
    chances: Float64[np.ndarray, " K"], uniform: Float64[np.ndarray, " R"]
) -> Int64[np.ndarray, " R"]:
    """The number of the alternative that each number in [0, 1) falls on; never one without a chance."""
    # By their own last number, so that it is exactly 1: NumPy's sum rounds otherwise.
    edges = np.cumsum(chances)
    return np.searchsorted(edges / edges[-1], uniform, side="right")
