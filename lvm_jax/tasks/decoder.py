"""The next-token task: a decoder learns to predict the token that follows, in visual sentences packed into rows."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from etils import epath
from flax import nnx

from lvm_jax.losses.next_token import chunked_cross_entropy, cross_entropy
from lvm_jax.metrics.states import Mean
from lvm_jax.models.decoder import hf_llama
from lvm_jax.models.decoder.config import LlamaConfig, LoRAConfig, train_flops_per_token
from lvm_jax.models.decoder.llama import Llama
from lvm_jax.models.decoder.lora import LoRAParam
from lvm_jax.tasks.accumulation import cut
from lvm_jax.tasks.base import Batch, State

# Of a batch: arrays of (B, T + 1).
ROWS = ("tokens", "segment_ids", "positions", "loss_weights")


class NextTokenTask:
    """Trains a `Llama` on rows of seq_len + 1 tokens.

    Args:
      config: the decoder.
      tx: the optimizer.
      seq_len: inputs of a row, T; rows have T + 1 tokens, since labels are the tokens one further.
      z_loss: weight of log(Z)^2, which keeps logits from drifting (PaLM, section 5); 0 as published.
      loss_chunk: tokens of a row whose logits are alive at a time; 0 computes all at once.
      accumulation: parts that a batch is computed in, one after the other; the gradient is that of the whole batch.

    With `config.lora` the state's parameters are `{"base": ..., "lora": ...}`: the optimizer knows the second only.
    """

    name = "next_token"

    def __init__(
        self,
        config: LlamaConfig,
        tx: optax.GradientTransformation,
        *,
        seq_len: int,
        z_loss: float = 0.0,
        loss_chunk: int = 0,
        accumulation: int = 1,
    ) -> None:
        self.config, self.tx, self.seq_len = config, tx, seq_len
        self.z_loss, self.loss_chunk, self.accumulation = z_loss, loss_chunk, accumulation
        self.constants: dict[str, jax.Array] = {}
        self._graphdef = nnx.graphdef(Llama.abstract(config))

    def init(self, key: jax.Array) -> State:
        """Fresh parameters and optimizer moments, at step 0."""
        params = nnx.state(Llama(self.config, rngs=nnx.Rngs(key)), nnx.Param)
        trained, frozen = _split(params)
        if frozen is not None:
            params = {"base": frozen, "lora": trained}
        return {"step": jnp.zeros((), jnp.int32), "params": params, "opt": self.tx.init(trained)}

    def load(self, state: State, directory: epath.PathLike) -> State:
        """A fresh state with the weights of a model folder, streamed into their places on the mesh; adapters stay.

        Raises:
          UserError: no such folder, or weights of another decoder.
        """
        plain = dataclasses.replace(self.config, lora=LoRAConfig())
        hf_llama.check_fits(directory, plain)
        weights = hf_llama.load(directory, plain, nnx.state(Llama.abstract(plain)))
        if self.config.lora.rank:
            weights = {**state["params"], "base": weights}
        return {**state, "params": weights}

    def step(self, state: State, batch: Batch, key: jax.Array) -> tuple[State, dict[str, Mean]]:
        """One update by the gradient of the mean loss over all counted labels of the global batch."""
        del key  # no dropout: the published recipe has none
        params = state["params"]
        trained = params["lora"] if self.config.lora.rank else params
        (total, weight), grads = self._gradients(trained, params, batch)
        updates, opt = self.tx.update(grads, state["opt"], trained)
        trained = optax.apply_updates(trained, updates)
        metrics = {"loss": Mean(total, weight), "grad_norm": Mean(optax.tree.norm(grads), 1.0)}
        params = {**params, "lora": trained} if self.config.lora.rank else trained
        return {"step": state["step"] + 1, "params": params, "opt": opt}, metrics

    def _gradients(
        self, trained: nnx.State, params: Any, batch: Batch
    ) -> tuple[tuple[jax.Array, jax.Array], nnx.State]:
        """(sum, weight) of the batch's loss, and the gradient of their quotient, part by part."""
        weight = jnp.maximum(jnp.sum(batch["loss_weights"][:, 1:]), 1.0)

        def share(trained: nnx.State, part: Batch) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            whole = {**params, "lora": trained} if self.config.lora.rank else trained
            total, counted = self.loss(whole, part)
            return total / weight, (total, counted)  # by the weight of all parts

        gradient = jax.grad(share, has_aux=True)
        if self.accumulation == 1:
            grads, sums = gradient(trained, batch)
            return sums, grads
        rows = {name: batch[name] for name in ROWS if name in batch}
        parts = jax.tree.map(lambda x: cut(x, self.accumulation), rows)

        def add(carry: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, carry, gradient(trained, part)), None

        zero = jnp.zeros((), jnp.float32)
        start = (jax.tree.map(jnp.zeros_like, trained), (zero, zero))
        (grads, sums), _ = jax.lax.scan(add, start, parts)
        return sums, grads

    def loss(self, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """The summed weighted cross-entropy in nats, and the sum of the weights; both global, fp32 scalars.

        The batch says what each label weighs: `loss_weights[:, t]` is the weight of predicting token t, and column 0,
        which nothing predicts, is not read. Without segment_ids and positions every row is one sentence, and attention
        needs no mask.
        """
        model = self._merge(params)
        tokens = batch["tokens"]
        sentences = [batch[n][:, :-1] if n in batch else None for n in ("segment_ids", "positions")]
        hidden_BTD = model.hidden(tokens[:, :-1], *sentences)
        labels_BT, weights_BT = tokens[:, 1:], batch["loss_weights"][:, 1:]
        if self.loss_chunk:
            return chunked_cross_entropy(
                hidden_BTD,
                model.logits,
                labels_BT,
                weights_BT,
                chunk=self.loss_chunk,
                z_loss=self.z_loss,
            )
        return cross_entropy(model.logits(hidden_BTD), labels_BT, weights_BT, self.z_loss)

    def model(self, state: State) -> Llama:
        """The decoder with the state's parameters."""
        return self._merge(state["params"])

    def _merge(self, params: Any) -> Llama:
        return nnx.merge(self._graphdef, *(params.values() if self.config.lora.rank else (params,)))

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """tokens, segment_ids and positions, int32, and loss_weights, float32: (B, T + 1) each."""
        shape = (global_batch, self.seq_len + 1)
        dtypes = dict.fromkeys(ROWS, jnp.int32) | {"loss_weights": jnp.float32}
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, dtype in dtypes.items()}

    def flops_per_batch(self, global_batch: int) -> float:
        """Causal convention: attention counts each pair once; the head is counted, the input embedding is not."""
        return train_flops_per_token(self.config, self.seq_len) * self.seq_len * global_batch

    def items_per_batch(self, global_batch: int) -> tuple[str, int]:
        """Positions, padding included: the packing's fill is a number of its own."""
        return "tokens", self.seq_len * global_batch


def _split(params: nnx.State) -> tuple[nnx.State, nnx.State | None]:
    """What is trained, and what is frozen beside adapters; None: there are none, and all is trained."""
    adapters, others = nnx.split_state(params, LoRAParam, ...)
    return (adapters, others) if nnx.to_flat_state(adapters) else (others, None)
