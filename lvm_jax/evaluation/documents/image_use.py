"""Does the model look at its pictures? Its loss with the right one, another row's, and a blank one.

A model that has memorised its texts has the same loss with all three. The share of image tokens' variation that lies
between images shows the same from the inside: it falls to nothing when training switches the pictures off.

Shapes: B rows of a batch, I pictures of a row, N tokens of a picture, D width, K kinds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lvm_jax.evaluation.base import Result
from lvm_jax.metrics import states as metric_states
from lvm_jax.metrics.states import Mean
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.tasks.image_text import PLACES, ImageTextTask

_WHITE = 255
KIND = "kind"


class ImageUse:
    """Losses of held-out rows with the right picture, another row's and a blank one, in nats a token, by kind.

    Results: `loss`, `loss_other_image`, `loss_blank_image`; the same as `KIND/...` where there are several kinds; and
    `share_between_images`, in [0, 1]: of the variance of image tokens, how much lies between images at one place.
    A row that is alone in its batch has no other picture: it counts in the other losses only.

    Args:
      task: gives the losses.
      batches: (host-local rows, kind of each); every iteration starts from the beginning.
      kinds: their names; the number of a row's kind is its place here.
      placement: the mesh, and the shape of the batches.
    """

    name = "image_use"

    def __init__(
        self,
        task: ImageTextTask,
        batches: Callable[[], Iterable[tuple[Mapping[str, np.ndarray], np.ndarray]]],
        kinds: Sequence[str],
        placement: BatchPlacement,
    ) -> None:
        self._task, self._batches = task, batches
        self._kinds, self._placement = tuple(kinds), placement
        self._measured = jax.jit(self._measure)

    def run(self, subject: Any) -> Result:
        """The numbers for the parameters of a state; empty if there are no rows."""
        total: dict[str, Mean] | None = None
        sums: Any = None
        for rows, kind_B in self._batches():
            batch = self._placement.put({**rows, KIND: kind_B.astype(np.int32)})
            losses, spread = self._measured(subject, batch)
            total = metric_states.merge(total, losses)
            sums = spread if sums is None else jax.tree.map(jnp.add, sums, spread)
        if total is None:
            return {}
        # A kind that the rows lack has no loss, and a single row none with another's picture.
        counted = {name: mean for name, mean in jax.device_get(total).items() if mean.weight > 0}
        return {
            **metric_states.compute(counted),
            "share_between_images": between_images(*map(np.asarray, jax.device_get(sums))),
        }

    def _measure(self, params: Any, batch: Any) -> tuple[dict[str, Mean], Any]:
        counted = {"": jnp.ones(len(batch[KIND]), bool)}
        if len(self._kinds) > 1:
            counted |= {f"{kind}/": batch[KIND] == k for k, kind in enumerate(self._kinds)}
        pictures = [*self._task.vision.branches]
        found: dict[str, Mean] = {}
        for name, change in (
            ("loss", _same),
            ("loss_other_image", _next),
            ("loss_blank_image", _blank),
        ):
            shown = {**batch, **{view: change(batch[view], batch) for view in pictures}}
            rows = counted
            if change is _next:
                several = jnp.sum(_real(batch)) > 1
                rows = {kind: rows_B & several for kind, rows_B in counted.items()}
            losses = self._task.losses(params, shown, rows)
            found |= {f"{kind}{name}": mean for kind, mean in losses.items()}
        return found, self._spread(params, batch)

    def _spread(self, params: Any, batch: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Number of real pictures, and sums over them of their tokens and of the tokens' squares, (N, D)."""
        tokens_BIND = self._task.image_tokens(params, batch).astype(jnp.float32)
        # Absent pictures have no place in their row.
        real_BI = batch[PLACES][:, :, 0] < batch["tokens"].shape[1]
        real = real_BI.astype(jnp.float32)
        total_ND = jnp.einsum("BI,BIND->ND", real, tokens_BIND)
        squares_ND = jnp.einsum("BI,BIND->ND", real, jnp.square(tokens_BIND))
        return jnp.sum(real), total_ND, squares_ND


def between_images(count: np.ndarray, total_ND: np.ndarray, squares_ND: np.ndarray) -> float:
    """The variance of tokens over images at one place, as a share of that over images and places.

    Args:
      count: of images.
      total_ND: sum of their tokens.
      squares_ND: sum of the tokens' squares.
    """
    mean_ND, square_ND = (
        x.astype(np.float64) / max(float(count), 1.0) for x in (total_ND, squares_ND)
    )
    between = np.mean(square_ND - np.square(mean_ND))
    whole = np.mean(square_ND.mean(axis=0) - np.square(mean_ND.mean(axis=0)))
    return float(np.clip(between / whole, 0.0, 1.0)) if whole > 0 else 0.0


def _same(images: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    del batch
    return images


def _next(images: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Each row sees the pictures of the next one, wherever padding and bad records, which take no part, lie between."""
    real_B = _real(batch)
    order_B = jnp.argsort(~real_B, stable=True)
    following_B = order_B[jnp.cumsum(real_B) % jnp.maximum(jnp.sum(real_B), 1)]
    return images[jnp.where(real_B, following_B, jnp.arange(len(images)))]


def _real(batch: Mapping[str, jax.Array]) -> jax.Array:
    """Which rows hold a record."""
    return jnp.any(batch["segment_ids"] > 0, axis=1)


def _blank(images: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    del batch
    return jnp.full_like(images, _WHITE)
