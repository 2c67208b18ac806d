"""Image-text shards to batches.

A batch holds arrays of this process's rows, T + 1 tokens each:

| name | type | meaning |
|---|---|---|
| tokens, segment_ids, positions | int32 (B, T + 1) | segment 0 is padding; a row has one conversation |
| loss_weights | float32 (B, T + 1) | `[:, t]` is the weight of predicting token t |
| image_places | int32 (B, I, N) | where the patches of each picture stand in `tokens`; T + 1, which is no place, |
|  |  | where there is no picture: a scatter with `mode="drop"` skips it |
| one name a view, such as images | uint8 (B, I, H, W, 3) | the pictures; the view's background where there is none |

Shape legend: B rows of this process, T inputs of a row, I pictures of a row, N patches of a picture; H, W of a view.
"""

import dataclasses
import threading
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Int64

from lvm_jax.data.image_text.conversation import BadConversation
from lvm_jax.data.image_text.order import RecordOrder
from lvm_jax.data.image_text.record import FORMATS, ImageText
from lvm_jax.data.image_text.store import ImageTextStore
from lvm_jax.data.image_text.templates import Row, render, template_of
from lvm_jax.data.image_text.views import TooLarge, View
from lvm_jax.data.mixture import make_mixture
from lvm_jax.data.records.manifest import Manifest
from lvm_jax.data.records.shards import Shards
from lvm_jax.data.step_loader import HostBatch, StepLoader, slice_of_batch
from lvm_jax.data.text_tokenizer import TextTokenizer, UnknownCharacters
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import BadImage, load_image

_ARRAYS = ("tokens", "segment_ids", "positions", "loss_weights", "image_places")


@dataclasses.dataclass(frozen=True)
class RowShape:
    """The sizes of a batch's arrays.

    Attributes:
      seq_len: inputs of a row, T.
      max_images: pictures of a row, I. A conversation with more of them is counted as bad.
      image_tokens: patches of a picture, N.
      views: name of the array -> the view that a tower sees.
    """

    seq_len: int
    max_images: int
    image_tokens: int
    views: Mapping[str, View]

    def __post_init__(self) -> None:
        sizes = {
            "seq_len": self.seq_len,
            "max_images": self.max_images,
            "image_tokens": self.image_tokens,
        }
        for name, value in sizes.items():
            if value < 1:
                raise UserError(f"{name} is {value}: it must be at least 1")
        clash = sorted(set(_ARRAYS) & set(self.views))
        if clash or not self.views:
            raise UserError(
                f"the views are {sorted(self.views) or 'none'}: name at least one, and none of {', '.join(_ARRAYS)}"
            )


class RowMaker:
    """Records to the arrays of a row; thread-safe.

    Args:
      store: the records.
      tokenizer: of the words.
      shape: of the row.

    Raises:
      UserError: the shards were made for another tokenizer, or its settings do not fit its template.
    """

    def __init__(self, store: ImageTextStore, tokenizer: TextTokenizer, shape: RowShape):
        fingerprint = store.manifest.tokenizer_fingerprint
        # Records hold words, not ids: shards are for one tokenizer only if their recipe asked for it.
        if fingerprint and fingerprint != tokenizer.fingerprint:
            raise UserError(
                f"the shards were checked with the text tokenizer {fingerprint}, {tokenizer.folder} is "
                f"{tokenizer.fingerprint}: use that one, or build the shards without --tokenizer, for any"
            )
        template_of(tokenizer)
        self._store, self._tokenizer, self.shape = store, tokenizer, shape
        self._truncated: set[int] = set()
        self._lock = threading.Lock()

    @property
    def truncated(self) -> int:
        """How many different records this process has cut so far."""
        return len(self._truncated)

    def make(self, i: int, seed: tuple[int, ...] | None) -> HostBatch:
        """The arrays of record `i` without the axis B; of a bad record, which is counted, those of an empty row.

        Args:
          i: number of the record in the store.
          seed: of the augmentations; None leaves pictures as they are.

        Raises:
          UserError: more bad records than the store allows.
        """
        record = self._store.record(i)
        if record is None:
            return self.empty()
        try:
            return self._filled(i, record, seed)
        except (BadConversation, UnknownCharacters, BadImage, TooLarge) as error:
            self._store.count_corrupt(i, f"record {record.key!r}: {error}")
            return self.empty()

    def empty(self) -> HostBatch:
        """A row of padding, whose loss weighs nothing."""
        shape, length = self.shape, self.shape.seq_len + 1
        images = {
            name: np.repeat(view.empty()[None], shape.max_images, axis=0)
            for name, view in shape.views.items()
        }
        return {
            "tokens": np.full(length, self._tokenizer.ids["pad"], np.int32),
            "segment_ids": np.zeros(length, np.int32),
            "positions": np.zeros(length, np.int32),
            "loss_weights": np.zeros(length, np.float32),
            "image_places": np.full((shape.max_images, shape.image_tokens), length, np.int32),
            **images,
        }

    def _filled(self, i: int, record: ImageText, seed: tuple[int, ...] | None) -> HostBatch:
        shape = self.shape
        if len(record.images) > shape.max_images:
            raise BadConversation(
                f"it has {len(record.images)} pictures, a row has room for {shape.max_images}: raise max_images"
            )
        row = render(record.conversation, self._tokenizer, shape.image_tokens, shape.seq_len + 1)
        if row.truncated:
            with self._lock:
                self._truncated.add(i)
        arrays = self.empty()
        self._put(row, arrays)
        for number, content in enumerate(record.images):
            picture = load_image(content, formats=FORMATS)
            for place, (name, view) in enumerate(shape.views.items()):
                rng = None
                if seed is not None:
                    rng = np.random.default_rng((*seed, number, place))
                arrays[name][number] = view.of(picture, rng)
        return arrays

    @staticmethod
    def _put(row: Row, arrays: HostBatch) -> None:
        length = len(row.tokens)
        arrays["tokens"][:length] = row.tokens
        arrays["segment_ids"][:length] = 1
        arrays["positions"][:length] = np.arange(length)
        arrays["loss_weights"][:length] = row.loss_weights
        arrays["image_places"][: len(row.image_places)] = row.image_places


class ImageTextLoader(StepLoader):
    """Endless training batches; the batch of step s is a pure function of the shards, the arguments and s.

    A bad record (damaged, of words that the tokenizer lacks, too many pictures) is counted and logged, and its row is
    padding: the result is the same on any number of processes.

    Attributes:
      records_per_pass: records of a pass; with weights, a group's as often as its weight says.
    """

    def __init__(
        self,
        shards: Shards,
        split: str,
        tokenizer: TextTokenizer,
        shape: RowShape,
        global_batch: int,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        *,
        weights: Mapping[str, float] | None = None,
        max_characters: int = 0,
        max_corrupt: int = 16,
        threads: int = 1,
        prefetch: int = 2,
    ):
        """Opens the shards and reads their indices.

        Args:
          shards: see `find_shards`.
          split: such as "train".
          tokenizer: of the words; its settings name the template.
          shape: of the rows.
          global_batch: rows a step, over all processes.
          seed: of the order and the augmentations.
          process_index: which slice of the global batch this process reads.
          process_count: number of slices.
          weights: of data sets and sources, see `mixture`; None: every record once a pass.
          max_characters: leaves out records whose answers are longer, so that a run can begin with short ones; 0: none.
          max_corrupt: how many bad records each process may meet.
          threads: threads that read ahead; 0 reads on demand.
          prefetch: batches to read ahead, at least one a thread.

        Raises:
          UserError: unusable shards, weights, or tokenizer; or no record is left.
        """
        store = ImageTextStore(shards, split, max_corrupt=max_corrupt)
        self._rows = RowMaker(store, tokenizer, shape)
        self._store = store
        used = store.turns > 0
        if max_characters:
            used &= store.characters <= max_characters
        available = np.bincount(store.origin[used], minlength=len(store.origins))
        mixture = make_mixture(store.origins, available, weights or {})
        group = np.array(mixture.group_of, np.int64)[store.origin]
        self._order = RecordOrder(np.where(used, group, -1), mixture.rates(available), seed)
        super().__init__(
            seed=seed,
            global_batch=global_batch,
            process_index=process_index,
            process_count=process_count,
            threads=threads,
            prefetch=prefetch,
        )

    @property
    def manifest(self) -> Manifest:
        """The manifest of all data sets together."""
        return self._store.manifest

    @property
    def records_per_pass(self) -> int:
        """See the class."""
        return self._order.records_per_pass

    @property
    def corrupt(self) -> int:
        """How many different bad records this process has met so far."""
        return self._store.corrupt

    @property
    def truncated(self) -> int:
        """How many different records this process has cut to the length of a row so far."""
        return self._rows.truncated

    def batch_at(self, step: int) -> HostBatch:
        """This process's rows of `step`."""
        places = self.indices_at(step)
        records = self._order.records(places).tolist()
        rows = [
            # By the place, not the record: a page is augmented anew in every pass.
            self._rows.make(record, (self.seed, place))
            for record, place in zip(records, places, strict=True)
        ]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


class ImageTextEvalLoader:
    """A split once, in order, without augmentation; a new iteration starts at the beginning.

    Every process yields the same number of batches of one shape; rows of segment 0 fill up the last ones.
    """

    def __init__(
        self,
        shards: Shards,
        split: str,
        tokenizer: TextTokenizer,
        shape: RowShape,
        global_batch: int,
        process_index: int = 0,
        process_count: int = 1,
        *,
        max_records: int = 0,
        max_corrupt: int = 16,
    ):
        """Opens the shards; arguments and errors as in `ImageTextLoader`.

        `max_records`: reads the first records only, which a recipe has shuffled; 0: all.
        """
        self._slice = slice_of_batch(global_batch, process_index, process_count)
        self.store = ImageTextStore(shards, split, max_corrupt=max_corrupt)
        self._rows = RowMaker(self.store, tokenizer, shape)
        self._global_batch = global_batch
        self._records = min(len(self.store), max_records or len(self.store))

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self._records // self._global_batch)

    def __iter__(self) -> Iterator[HostBatch]:
        for batch, _ in self.with_origins():
            yield batch

    def with_origins(self) -> Iterator[tuple[HostBatch, Int64[np.ndarray, " B"]]]:
        """Batches, and of each row the number of its origin in `store.origins`; 0 for padding."""
        for first in range(0, self._records, self._global_batch):
            numbers = range(first + self._slice.start, first + self._slice.stop)
            real = [i for i in numbers if i < self._records]
            rows = [self._rows.make(i, None) for i in real]
            rows += [self._rows.empty() for _ in range(len(numbers) - len(real))]
            origin = np.zeros(len(numbers), np.int64)
            origin[: len(real)] = self.store.origin[real]
            yield {name: np.stack([row[name] for row in rows]) for name in rows[0]}, origin
