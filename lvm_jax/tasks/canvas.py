"""What the tasks of MAE-VQGAN and SegGPT share: rows of pairs, decoded to pictures, and what of them is hidden.

They read the rows that the in-context decoder reads, so that all of them learn from the same pairs in the same order.
Pools keep codes, not pixels: the tokenizer, which is not trained, decodes them within the step.

Shapes: B rows, L tokens of a row, P pairs of a row, N codes of a picture, H W pixels, C channels, T patches.
"""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from lvm_jax.analysis.flops import count_flops
from lvm_jax.data.in_context.sequences import SequenceFormat
from lvm_jax.errors import UserError
from lvm_jax.metrics.states import Mean
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.tasks.base import Batch, State

# What training hides: the answer to the query, or patches at random.
Hiding = Literal["answer", "random"]
PAIRS = 2  # of a row: an example and a query


class Pairs(NamedTuple):
    """The pairs of a batch, the query last.

    Attributes:
      codes_BP2N: of pictures and their masks.
      pixels_BP2HWC: the same decoded, in [0, 1].
      counted_B: 1, or 0 for rows of padding.
    """

    codes_BP2N: Int[Array, "B P 2 N"]
    pixels_BP2HWC: Float[Array, "B P 2 H W C"]
    counted_B: Float[Array, " B"]


class CanvasTask(abc.ABC):
    """Trains a network to fill what is hidden of an example and a query with their masks.

    Args:
      config: of the network.
      vqgan: the image tokenizer; it may be abstract, to compile a step.
      tx: the optimizer.
      hiding: what training hides; losses outside of training are of the answer.
      share: of the patches that are hidden at random, in (0, 1).

    Raises:
      UserError: the network does not fit the tokenizer's pictures.
    """

    name: str
    network: Any  # the class of the networks

    def __init__(
        self,
        config: Any,
        vqgan: VQGAN,
        tx: optax.GradientTransformation,
        *,
        hiding: Hiding = "answer",
        share: float = 0.75,
    ) -> None:
        if not 0 < share < 1:
            raise UserError(f"config.hiding.share is {share}: it must lie between 0 and 1")
        self.check_fits(config, vqgan)
        self.config, self.tx, self.hiding, self.share = config, tx, hiding, share
        self.form = SequenceFormat.of_masks(vqgan.codebook_size, vqgan.tokens_per_image)
        self._tokenizer, weights = nnx.split(vqgan)
        self.constants: Mapping[str, Any] = {"vqgan": weights}
        self._graphdef, self._params = nnx.split(self.network.abstract(config))

    @staticmethod
    @abc.abstractmethod
    def check_fits(config: Any, vqgan: VQGAN) -> None:
        """Raises a UserError unless the network's canvas is made of the tokenizer's pictures."""

    @abc.abstractmethod
    def loss_of(
        self, model: Any, pairs: Pairs, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """(sum, weight) of the loss; without a key the answer is hidden."""

    def init(self, key: jax.Array) -> State:
        """Fresh parameters and moments at step 0."""
        params = nnx.state(self.network(self.config, rngs=nnx.Rngs(key)), nnx.Param)
        return {"step": jnp.zeros((), jnp.int32), "params": params, "opt": self.tx.init(params)}

    def step(self, state: State, batch: Batch, key: jax.Array) -> tuple[State, dict[str, Mean]]:
        """One update by the gradient of the loss, averaged over what is hidden in the global batch."""
        pairs = self._pairs(batch)

        def mean(params: nnx.State) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            model = nnx.merge(self._graphdef, params)
            total, weight = self.loss_of(model, pairs, self._key(key))
            return total / jnp.maximum(weight, 1.0), (total, weight)

        grads, sums = jax.grad(mean, has_aux=True)(state["params"])
        updates, opt = self.tx.update(grads, state["opt"], state["params"])
        params: Any = optax.apply_updates(state["params"], updates)
        metrics = {"loss": Mean(*sums), "grad_norm": Mean(optax.tree.norm(grads), 1.0)}
        return {"step": state["step"] + 1, "params": params, "opt": opt}, metrics

    def loss(self, params: nnx.State, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """(sum, weight) of the answers' loss: global fp32 scalars."""
        return self.loss_of(nnx.merge(self._graphdef, params), self._pairs(batch), None)

    def model(self, state: State) -> Any:
        """The network with the state's parameters."""
        return nnx.merge(self._graphdef, state["params"])

    def shown_at_random(self, key: jax.Array, rows: int, patches: int) -> Int[Array, "B K"]:
        """Of each row the patches that are not hidden, in a random order."""
        order_BT = jnp.argsort(jax.random.uniform(key, (rows, patches)), axis=1)
        return order_BT[:, : patches - math.ceil(self.share * patches)]

    def _key(self, key: jax.Array) -> jax.Array | None:
        """The key that training gives to `loss_of`."""
        return key if self.hiding == "random" else None

    def _pairs(self, batch: Batch) -> Pairs:
        """The rows' pairs as codes and as pictures; padding has some codes, and does not count."""
        form, B = self.form, len(batch["tokens"])
        N, image = form.tokens_per_image, form.words.vocabulary["image"]
        tokens_BPL = batch["tokens"].reshape(B, PAIRS, form.pair_length) - image.start
        first, second = 1, N + 2  # each after the delimiter that begins it
        codes_BP2N = jnp.stack(
            [tokens_BPL[..., at : at + N] for at in (first, second)], axis=2
        ).clip(0, len(image) - 1)
        weights = batch.get("constants", self.constants)["vqgan"]
        vqgan = nnx.merge(self._tokenizer, weights)
        pixels = vqgan.decode(codes_BP2N.reshape(-1, N))
        pixels_BP2HWC = pixels.reshape(B, PAIRS, 2, *pixels.shape[1:])
        counted_B = (batch["segment_ids"][:, -1] > 0).astype(jnp.float32)
        return Pairs(codes_BP2N, pixels_BP2HWC, counted_B)

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The rows of an in-context loader: tokens and segment_ids are read, the rest is not."""
        shape = (global_batch, PAIRS * self.form.pair_length)
        names = ("tokens", "segment_ids", "positions", "attributes")
        dtypes = dict.fromkeys(names, jnp.int32) | {"loss_weights": jnp.float32}
        spec = {name: jax.ShapeDtypeStruct(shape, dtype) for name, dtype in dtypes.items()}
        return spec | {"question": jax.ShapeDtypeStruct((), jnp.int32)}

    def flops_per_batch(self, global_batch: int) -> float:
        """Three passes of the network, and one of the tokenizer's decoder."""
        row = self.batch_spec(1) | {"constants": self.constants}
        # A kernel of attention does not say what it multiplies.
        plain = dataclasses.replace(self.config, attention="chunked")
        graphdef = nnx.graphdef(self.network.abstract(plain))

        def forward(params: nnx.State, row: Batch) -> jax.Array:
            model, key = nnx.merge(graphdef, params), self._key(jax.random.key(0))
            return self.loss_of(model, self._pairs(row), key)[0]

        decoding = count_flops(lambda row: self._pairs(row).pixels_BP2HWC, row)
        return (3 * count_flops(forward, self._params, row) - 2 * decoding) * global_batch

    def items_per_batch(self, global_batch: int) -> tuple[str, int]:
        """Rows: an example and a query each."""
        return "rows", global_batch
