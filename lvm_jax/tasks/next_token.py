"""The next-token task: a decoder learns to predict the token that follows, in visual sentences packed into rows."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lvm_jax.losses.next_token import chunked_cross_entropy, cross_entropy, label_weights
from lvm_jax.metrics.states import Mean
from lvm_jax.models.llama import Llama
from lvm_jax.models.llama_config import LlamaConfig, train_flops_per_token
from lvm_jax.tasks.base import Batch, State


class NextTokenTask:
    """Trains a `Llama` on rows of seq_len + 1 tokens.

    Args:
      config: the decoder.
      tx: the optimizer.
      seq_len: inputs of a row, T; rows have T + 1 tokens, since labels are the tokens one further.
      z_loss: weight of log(Z)^2, which keeps logits from drifting (PaLM, section 5); 0 as published.
      loss_chunk: tokens of a row whose logits are alive at a time; 0 computes all at once.
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
    ) -> None:
        self.config, self.tx, self.seq_len = config, tx, seq_len
        self.z_loss, self.loss_chunk = z_loss, loss_chunk
        self.constants: dict[str, jax.Array] = {}
        self._graphdef = nnx.graphdef(nnx.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0))))

    def init(self, key: jax.Array) -> State:
        """Fresh parameters and optimizer moments, at step 0."""
        params = nnx.state(Llama(self.config, rngs=nnx.Rngs(key)), nnx.Param)
        return {"step": jnp.zeros((), jnp.int32), "params": params, "opt": self.tx.init(params)}

    def step(self, state: State, batch: Batch, key: jax.Array) -> tuple[State, dict[str, Mean]]:
        """One update by the gradient of the mean loss over all counted labels of the global batch."""
        del key  # no dropout: the published recipe has none

        def loss_fn(params: nnx.State) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            total, weight = self.loss(params, batch)
            return total / jnp.maximum(weight, 1.0), (total, weight)

        (_, (total, weight)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state["params"])
        updates, opt = self.tx.update(grads, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        metrics = {"loss": Mean(total, weight), "grad_norm": Mean(optax.tree.norm(grads), 1.0)}
        return {"step": state["step"] + 1, "params": params, "opt": opt}, metrics

    def loss(self, params: nnx.State, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Summed cross-entropy in nats, and the number of counted labels; both global, fp32 scalars."""
        tokens, segment_ids = batch["tokens"], batch["segment_ids"]
        model = nnx.merge(self._graphdef, params)
        hidden_BTD = model.hidden(tokens[:, :-1], segment_ids[:, :-1], batch["positions"][:, :-1])
        labels_BT, weights_BT = tokens[:, 1:], label_weights(segment_ids)
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
        return nnx.merge(self._graphdef, state["params"])

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """tokens, segment_ids, positions: int32 (B, T + 1)."""
        row = jax.ShapeDtypeStruct((global_batch, self.seq_len + 1), jnp.int32)
        return {"tokens": row, "segment_ids": row, "positions": row}

    def flops_per_batch(self, global_batch: int) -> float:
        """Causal convention: attention counts each pair once; the head is counted, the input embedding is not."""
        return train_flops_per_token(self.config, self.seq_len) * self.seq_len * global_batch

    def items_per_batch(self, global_batch: int) -> tuple[str, int]:
        """Positions, padding included: the packing's fill is a number of its own."""
        return "tokens", self.seq_len * global_batch
