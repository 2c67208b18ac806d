"""The decoder task: predict the next token, in sentences packed into rows.

Shape suffixes: B rows of a batch, T inputs of a row, D hidden size.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from etils import epath
from flax import nnx

from lvm_jax.errors import UserError
from lvm_jax.losses.next_token import chunked_cross_entropy, cross_entropy
from lvm_jax.metrics.states import Mean
from lvm_jax.models.decoder import hf_folder
from lvm_jax.models.decoder.config import DecoderConfig, LoRAConfig, train_flops_per_token
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.decoder.mlp import Losses
from lvm_jax.parallel.sharding import partition_spec, split_mesh
from lvm_jax.tasks import trained
from lvm_jax.tasks.accumulation import cut
from lvm_jax.tasks.base import Batch, State
from lvm_jax.tasks.code_noise import CodeNoise

# The arrays of a batch, each (B, T + 1); only decoders that choose experts by attributes need the last one.
ROWS = ("tokens", "segment_ids", "positions", "loss_weights", "attributes")

# Maps the whole batch to extra arguments of the optimizer's update, such as the id of the task it belongs to.
OptimizerArgs = Callable[[Batch], Mapping[str, Any]]


# Name -> (sum of weighted losses, sum of weights).
Sums = dict[str, tuple[jax.Array, jax.Array]]

# Maps a batch to names, and which rows bear each of them, (B,) bool: their losses are shown by name.
RowNames = Callable[[Batch], Mapping[str, jax.Array]]


def no_args(batch: Batch) -> Mapping[str, Any]:
    """The hook for optimizers that need only gradients and parameters."""
    del batch
    return {}


def no_names(batch: Batch) -> Mapping[str, jax.Array]:
    """The hook for batches whose rows are all alike."""
    del batch
    return {}


class DecoderTask:
    """Trains a decoder on rows of seq_len + 1 tokens.

    Args:
      config: the decoder.
      tx: the optimizer. It may be an `optax.GradientTransformationExtraArgs`, see `optimizer_args`.
      seq_len: inputs of a row, T. Rows have T + 1 tokens, because labels are the tokens shifted by one.
      z_loss: weight of log(Z)^2, which keeps logits from drifting (PaLM, arXiv 2204.02311, section 5); 0 as published.
        A step's loss contains it, `loss` does not.
      loss_chunk: how many tokens of a row have their logits in memory at a time; 0 computes all at once.
      accumulation: microbatches that a batch is computed in; the gradient is that of the whole batch.
      frozen: patterns of the paths of parameters not to train (see `lvm_jax.tasks.trained.all_but`). With `config.lora`
        the optimizer trains adapters only, and the patterns can freeze some of those too.
      optimizer_args: called with the whole batch in every step; its result is passed to `tx.update` as keyword
        arguments. `lambda batch: {"task_id": batch["task_id"][0]}` hands over a task id from the batch.
      row_names: names rows of a batch, of which it sees the arrays of `ROWS`; their loss is shown as loss/NAME.
      noise: replaces codes that a step reads, not its labels; default: none.

    The state's parameters are one `nnx.State` if all are trained, else `{"frozen": ..., "trained": ...}`, or with
    adapters `{"base": ..., "lora": ...}`.

    Raises:
      UserError: a pattern of `frozen` matches no parameter, nothing is left to train, or there is no microbatch.
    """

    name = "next_token"  # checkpoints carry it
    rows: tuple[str, ...] = ROWS  # what accumulation cuts into microbatches

    def __init__(
        self,
        config: DecoderConfig,
        tx: optax.GradientTransformation,
        *,
        seq_len: int,
        z_loss: float = 0.0,
        loss_chunk: int = 0,
        accumulation: int = 1,
        frozen: Sequence[str] = (),
        optimizer_args: OptimizerArgs = no_args,
        row_names: RowNames = no_names,
        noise: CodeNoise = CodeNoise(),  # noqa: B008 - frozen
    ) -> None:
        if accumulation < 1:
            raise UserError(f"accumulation is {accumulation}: it must be at least 1")
        self.config, self.tx, self.seq_len = config, optax.with_extra_args_support(tx), seq_len
        self.z_loss, self.loss_chunk, self.accumulation = z_loss, loss_chunk, accumulation
        self.optimizer_args, self.row_names, self.noise = optimizer_args, row_names, noise
        self.constants: dict[str, jax.Array] = {}
        # Blocks with experts: what these hand up is summed over them, and shown as their mean.
        repeats = config.num_hidden_layers // len(config.mlps)
        self._mixtures = float(config.mlps.count("moe") * repeats)
        self._by_attributes = self._mixtures > 0 and config.moe.router == "attribute"
        abstract = nnx.eval_shape(lambda: self._make(jax.random.key(0)))
        self._graphdef, self._params = nnx.graphdef(abstract), nnx.state(abstract, nnx.Param)
        trained.check_patterns(frozen, self._params)
        self._split = self._splitter(trained.all_but(frozen))

    def _splitter(self, is_trained: trained.Filter) -> trained.Split:
        """How parameters are split, given the filter of those that are not frozen by name."""
        if not self.config.lora.rank:
            return trained.Split(self._params, is_trained)
        is_trained = trained.both(trained.only_adapters, is_trained)
        return trained.Split(self._params, is_trained, names=("lora", "base"))

    def init(self, key: jax.Array) -> State:
        """Fresh parameters, and fresh moments of the trained ones, at step 0."""
        params = self._split.apart(nnx.state(self._make(key), nnx.Param))
        opt = self.tx.init(self._split.trained(params))
        return {"step": jnp.zeros((), jnp.int32), "params": params, "opt": opt}

    def load(self, state: State, directory: epath.PathLike) -> State:
        """A fresh state with the weights of a model folder, streamed into their shards; adapters stay fresh.

        Raises:
          UserError: no such folder, or it holds another decoder.
        """
        plain = dataclasses.replace(self.config, lora=LoRAConfig())
        hf_folder.check_fits(directory, plain)
        weights = hf_folder.load(directory, plain, nnx.state(Decoder.abstract(plain)))
        if self.config.lora.rank:  # folders have no adapters: fresh ones join the weights
            params = nnx.to_flat_state(self._split.together(state["params"]))
            adapters = [(path, p) for path, p in params if trained.only_adapters(path, p)]
            weights = nnx.merge_state(weights, nnx.from_flat_state(adapters))
        return {**state, "params": self._split.apart(weights)}

    def step(self, state: State, batch: Batch, key: jax.Array) -> tuple[State, dict[str, Mean]]:
        """One update by the gradient of the loss, averaged over all counted labels of the global batch.

        Raises:
          UserError: the mesh splits the sequence, and rows do not divide.
        """
        if (mesh := split_mesh()) is not None:
            # `constrain` would leave odd rows whole, and each device of `context` would compute all of them.
            partition_spec(("seq",), (self.seq_len,), mesh, name="a row's inputs")
        (losses, beside), grads = self._gradients(state["params"], batch, key)
        now = self._split.trained(state["params"])
        updates, opt = self.tx.update(grads, state["opt"], now, **self.optimizer_args(batch))
        moved: Any = optax.apply_updates(now, updates)
        params = self._split.updated(state["params"], moved)
        metrics = {name: Mean(*loss) for name, loss in losses.items()}
        metrics |= {"grad_norm": Mean(optax.tree.norm(grads), 1.0)}
        metrics |= {name: Mean(value, self._mixtures) for name, value in beside.items()}
        return {"step": state["step"] + 1, "params": params, "opt": opt}, metrics

    def _gradients(
        self, params: trained.Params, batch: Batch, key: jax.Array
    ) -> tuple[tuple[Sums, Losses], nnx.State]:
        """The batch's loss and those of named rows, losses beside them, and the gradient of what is minimised.

        That is the loss over its weight, plus the auxiliary losses by their weights. A load balance is not a sum over
        rows: with accumulation it is the mean of those of the microbatches.
        """
        weight = jnp.maximum(jnp.sum(batch["loss_weights"][:, 1:]), 1.0)

        def share(
            now: nnx.State, rows: Batch, key: jax.Array
        ) -> tuple[jax.Array, tuple[Sums, Losses]]:
            whole = self._split.updated(params, now)
            losses, beside = self._losses(whole, rows, dropout_key=key, z_loss=self.z_loss)
            beside = {name: value / self.accumulation for name, value in beside.items()}
            # Divided by the whole batch's weight, not the microbatch's: microbatches have different numbers of labels,
            # and a mean of their means would weigh labels unequally.
            minimised = losses["loss"][0] / weight
            for name, factor in self.config.moe.loss_weights().items():
                if name in beside:
                    minimised += factor * beside[name]
            return minimised, (losses, beside)

        gradient, now = jax.grad(share, has_aux=True), self._split.trained(params)
        if self.accumulation == 1:
            grads, sums = gradient(now, batch, key)
            return sums, grads
        # Only the arrays of rows are cut: a batch may hold others, which `optimizer_args` reads.
        rows = {name: batch[name] for name in self.rows if name in batch}
        microbatches = jax.tree.map(lambda x: cut(x, self.accumulation), rows)

        def add(carry: Any, microbatch: tuple[Batch, jax.Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, carry, gradient(now, *microbatch)), None

        keys = jax.random.split(key, self.accumulation)
        first = (jax.tree.map(lambda x: x[0], microbatches), keys[0])
        shapes = jax.eval_shape(lambda microbatch: gradient(now, *microbatch), first)
        start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (grads, sums), _ = jax.lax.scan(add, start, (microbatches, keys))
        return sums, grads

    def loss(
        self, params: trained.Params, batch: Batch, *, dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The sum of the weighted cross-entropy in nats and the sum of the weights: global fp32 scalars.

        `loss_weights[:, t]` of the batch is the weight of predicting token t; column 0, which nothing predicts, is not
        read. Without segment_ids and positions every row is one sentence, and attention needs no mask. Without a
        dropout key nothing is dropped, as in evaluation.
        """
        return self._losses(params, batch, dropout_key=dropout_key, z_loss=0.0)[0]["loss"]

    def _losses(
        self, params: trained.Params, batch: Batch, *, dropout_key: jax.Array | None, z_loss: float
    ) -> tuple[Sums, Losses]:
        """The loss and those of named rows, and the auxiliary losses of the decoder's MLPs."""
        model = self._merge(params)
        hidden_BTD, beside = self._read(model, self._with_noise(batch, dropout_key), dropout_key)
        weights, named = batch["loss_weights"], self.row_names(batch)
        shares = [weights, *(weights * rows_B[:, None] for rows_B in named.values())]
        totals_G, counted_G = self._cross_entropy(
            model, hidden_BTD, batch, jnp.stack(shares), z_loss
        )
        names = ["loss", *(f"loss/{name}" for name in named)]
        return {name: (totals_G[g], counted_G[g]) for g, name in enumerate(names)}, beside

    def _with_noise(self, batch: Batch, key: jax.Array | None) -> Batch:
        """What the decoder reads of a batch; without a key, as in evaluation, the batch itself."""
        if not self.noise.share or key is None:
            return batch
        # Another key than dropout's: both would draw from the same bits. The model splits its key in two, and piece i
        # of a split is fold_in(key, i).
        tokens = self.noise(batch["tokens"], jax.random.fold_in(key, 2))
        return {**batch, "tokens": tokens}

    def _cross_entropy(
        self,
        model: Any,
        hidden_BTD: jax.Array,
        batch: Batch,
        weights: jax.Array,
        z_loss: float = 0.0,
    ) -> tuple[jax.Array, jax.Array]:
        """(sum, weight) of the loss of the batch's tokens by these weights, (B, T + 1) or groups of them."""
        labels_BT, weights_GBT = batch["tokens"][:, 1:], weights[..., 1:]
        logits = self._decoder(model).logits
        if self.loss_chunk:
            return chunked_cross_entropy(
                hidden_BTD,
                logits,
                labels_BT,
                weights_GBT,
                chunk=self.loss_chunk,
                z_loss=z_loss,
            )
        return cross_entropy(logits(hidden_BTD), labels_BT, weights_GBT, z_loss)

    def model(self, state: State) -> Any:
        """The model with the state's parameters: here a `Decoder`."""
        return self._merge(state["params"])

    def _merge(self, params: trained.Params) -> Any:
        return nnx.merge(self._graphdef, self._split.together(params))

    # What a task with more than a decoder replaces: the model, how it reads a batch, and where its decoder is.

    def _make(self, key: jax.Array) -> nnx.Module:
        """A fresh model."""
        return Decoder(self.config, rngs=nnx.Rngs(key))

    def _read(
        self, model: Any, batch: Batch, dropout_key: jax.Array | None
    ) -> tuple[jax.Array, Losses]:
        """The last hidden state of each of the T inputs, and auxiliary losses."""
        segments, positions, attributes = (
            batch[name][:, :-1] if name in batch else None
            for name in ("segment_ids", "positions", "attributes")
        )
        return model.hidden_and_losses(
            batch["tokens"][:, :-1],
            segments,
            positions,
            attributes_BT=attributes,
            dropout_key=dropout_key,
        )

    def _decoder(self, model: Any) -> Any:
        """The decoder within a model or, from a state of parameters, its own."""
        return model

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """tokens, segment_ids, positions (int32), loss_weights (float32), perhaps attributes: (B, T + 1) each."""
        shape = (global_batch, self.seq_len + 1)
        dtypes = dict.fromkeys(ROWS, jnp.int32) | {"loss_weights": jnp.float32}
        if not self._by_attributes:
            del dtypes["attributes"]
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, dtype in dtypes.items()}

    def flops_per_batch(self, global_batch: int) -> float:
        """Causal convention: attention counts each pair once; the head counts, the input embedding does not.

        A frozen matrix has no gradient of its own, which saves a third of a weight's six FLOPs per token.
        """
        per_token = train_flops_per_token(self.config, self.seq_len)
        # With adapters the formula already counts frozen weights as such.
        if not self.config.lora.rank:
            per_token -= 2.0 * self._frozen_products()
        return per_token * self.seq_len * global_batch

    def items_per_batch(self, global_batch: int) -> tuple[str, int]:
        """Positions, padding included; how well rows are filled is reported separately."""
        return "tokens", self.seq_len * global_batch

    def _frozen_products(self) -> float:
        """Frozen weights that each token is multiplied with: neither norms nor tables that are only looked up."""
        frozen = self._decoder(self._split.frozen(self._split.apart(self._params)))
        total = 0.0
        for path, parameter in nnx.to_flat_state(frozen):
            axes = parameter.get_metadata()["axes"]
            looked_up = path[0] == "positions" or (
                path[0] == "embedding" and not self.config.tie_word_embeddings
            )
            if looked_up or len([axis for axis in axes if axis != "layers"]) < 2:
                continue
            padded = "vocab" in axes  # the formula counts the published rows only
            rows = self.config.padded_vocab_size if padded else 1
            held = parameter.size // rows * (self.config.vocab_size if padded else 1)
            total += held * self._share_used(path, axes)
        return total

    def _share_used(self, path: trained.Path, axes: tuple[str | None, ...]) -> float:
        """Of a matrix's weights, how many a token is multiplied with, as `train_flops_per_token` counts them."""
        moe = self.config.moe
        if "router" in path and self._by_attributes:
            return 0.0
        if "experts" in axes:
            return (1 if moe.mix == "weights" else moe.top_k) / moe.experts
        return 1.0
