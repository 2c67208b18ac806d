"""The decoder: token ids, or embeddings, through one stack of pre-norm blocks to logits.

LLaMA (Touvron et al., arXiv 2302.13971), Qwen2, OPT and GPT-2 are configurations of it: norm, positions and MLPs are
modules that the configuration chooses when the decoder is built, and no forward pass checks the family. It works alone,
without a mesh or a trainer.

Shapes: B batch, R prompts, T tokens, D hidden size, N query heads, K key-value heads, H head dimension,
V published vocabulary, P the vocabulary table (V padded), L layers.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jaxtyping import Array, Float, Int

from lvm_jax.models.attention.attend import attend, refuse_dropout
from lvm_jax.models.attention.split import attend_split
from lvm_jax.models.decoder import hf_folder
from lvm_jax.models.decoder.block import Attend, Block, Period
from lvm_jax.models.decoder.config import DecoderConfig, LoRAConfig
from lvm_jax.models.decoder.kv_cache import KVCache, Prefix, Stored, check_dtype
from lvm_jax.models.decoder.linear import (
    ByOutputs,
    by_outputs,
    few_rows,
    linear,
    sequence_is_whole,
    vocabulary_table,
)
from lvm_jax.models.decoder.look_back import LookBack
from lvm_jax.models.decoder.lora import check_targets, merge_adapters, store_by_outputs
from lvm_jax.models.decoder.mlp import MLPS, Losses, MLPClass, Tokens
from lvm_jax.models.decoder.moe import MixtureOfExperts
from lvm_jax.models.decoder.norms import make_norm
from lvm_jax.models.decoder.positions import make_positions
from lvm_jax.models.decoder.stack import make_stack, repeats, run_stack, unstack
from lvm_jax.models.dropout import dropout
from lvm_jax.parallel.sharding import constrain, on_one_cpu
from lvm_jax.weights.model_folder import rounded, to_tensors

# Parameters of norms, which compute in fp32 whatever the decoder's dtype is; so do routers.
_NORM_PARAMETERS = ("scale", "bias")

# Every kind of MLP that `config.mlps` can name.
KINDS: Mapping[str, MLPClass] = {**MLPS, "moe": MixtureOfExperts}


class Decoder(nnx.Module):
    """`model(tokens_BT)` gives fp32 logits over the published vocabulary.

    Args:
      config: the decoder.
      rngs: for its parameters.
      mlps: kind of MLP -> its class, for the kinds that `config.mlps` names; see `lvm_jax.models.decoder.mlp`.

    Attributes:
      tokenizer_fingerprint: `VQGAN.fingerprint()` of the tokenizer whose codes it was trained on; "": unknown.
      FAMILIES: model_type of config.json -> the folders that `from_pretrained` reads.
    """

    FAMILIES: ClassVar[Mapping[str, hf_folder.Family]] = hf_folder.FAMILIES

    def __init__(
        self, config: DecoderConfig, *, rngs: nnx.Rngs, mlps: Mapping[str, MLPClass] = KINDS
    ) -> None:
        self.config = config
        self.tokenizer_fingerprint = ""
        self.embedding = vocabulary_table(rngs, config, ("vocab", "embed"))
        self.look_back = LookBack(config, rngs=rngs) if config.look_back else None
        self.positions = make_positions(config, rngs)
        self.layers = make_stack(config, mlps, rngs)
        check_targets(self.layers, config.lora)
        self.norm = make_norm(config)
        if not config.tie_word_embeddings:
            self.head = vocabulary_table(rngs, config, ("embed", "vocab"))

    def __call__(
        self,
        tokens_BT: Int[Array, "B T"],
        segment_ids_BT: Int[Array, "B T"] | None = None,
        positions_BT: Int[Array, "B T"] | None = None,
        *,
        attributes_BT: Int[Array, "B T"] | None = None,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "B T V"]:
        """Logits of the token that follows each token.

        Args:
          tokens_BT: ids in [0, vocab_size).
          segment_ids_BT: 0 is padding; 1, 2, ... are the sentences of a row, which do not see each other;
            None: the row is one sentence.
          positions_BT: position of each token in its sentence; None counts from the start of the row.
          attributes_BT: what each token is, for MLPs that choose experts by it; see `MoEConfig.router`.
          dropout_key: for the configured dropout, and noise and capacity of experts; None, as in evaluation, drops
            nothing.

        Raises:
          UserError: a row is longer than the learned positions, attention dropout in an implementation without it, or
            attributes are needed and missing.
        """
        return self.logits(
            self.hidden(
                tokens_BT,
                segment_ids_BT,
                positions_BT,
                attributes_BT=attributes_BT,
                dropout_key=dropout_key,
            )
        )

    def hidden(
        self,
        tokens_BT: Int[Array, "B T"],
        segment_ids_BT: Int[Array, "B T"] | None = None,
        positions_BT: Int[Array, "B T"] | None = None,
        *,
        attributes_BT: Int[Array, "B T"] | None = None,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "B T D"]:
        """The normalised last hidden state, the input of `logits`; arguments as in `__call__`."""
        return self.hidden_and_losses(
            tokens_BT,
            segment_ids_BT,
            positions_BT,
            attributes_BT=attributes_BT,
            dropout_key=dropout_key,
        )[0]

    def hidden_and_losses(
        self,
        tokens_BT: Int[Array, "B T"],
        segment_ids_BT: Int[Array, "B T"] | None = None,
        positions_BT: Int[Array, "B T"] | None = None,
        *,
        attributes_BT: Int[Array, "B T"] | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[Float[Array, "B T D"], Losses]:
        """The result of `hidden`, and the MLPs' auxiliary losses: fp32 scalars by name, summed over blocks."""
        return self.transform_and_losses(
            self.embed(tokens_BT),
            segment_ids_BT,
            positions_BT,
            attributes_BT=attributes_BT,
            dropout_key=dropout_key,
        )

    def embed(self, tokens_BT: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Rows of the vocabulary table, in the compute dtype, without positions."""
        # The table's width is gathered first: the devices that split it also split the batch, and the embeddings cannot
        # be split over the same devices both ways.
        table_PD = constrain(self.embedding[...], "vocab", None)
        x_BTD = table_PD[tokens_BT].astype(self.config.dtype)
        return constrain(x_BTD, "batch", "seq", "act_embed")

    def transform(
        self,
        x_BTD: Float[Array, "B T D"],
        segment_ids_BT: Int[Array, "B T"] | None = None,
        positions_BT: Int[Array, "B T"] | None = None,
        *,
        attributes_BT: Int[Array, "B T"] | None = None,
        dropout_key: jax.Array | None = None,
    ) -> Float[Array, "B T D"]:
        """Positions, all blocks and the final norm, for embeddings: inputs need not be token ids."""
        return self.transform_and_losses(
            x_BTD,
            segment_ids_BT,
            positions_BT,
            attributes_BT=attributes_BT,
            dropout_key=dropout_key,
        )[0]

    def transform_and_losses(
        self,
        x_BTD: Float[Array, "B T D"],
        segment_ids_BT: Int[Array, "B T"] | None = None,
        positions_BT: Int[Array, "B T"] | None = None,
        *,
        attributes_BT: Int[Array, "B T"] | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[Float[Array, "B T D"], Losses]:
        """The result of `transform`, and auxiliary losses as in `hidden_and_losses`."""
        if positions_BT is None:
            # Under jit `embed` cannot read positions, but here the length alone tells whether they fit.
            self.positions.check_length(x_BTD.shape[1])
            positions_BT = jnp.arange(x_BTD.shape[1])[None]
        embedding_key = stack_key = None
        if dropout_key is not None:
            embedding_key, stack_key = jax.random.split(dropout_key)
        if self.look_back is not None:
            x_BTD = self.look_back.whole_rows(x_BTD, positions_BT)
        x_BTD = self.positions.embed(x_BTD, positions_BT)
        x_BTD = dropout(x_BTD, self.config.embedding_dropout, embedding_key)
        x_BTD, losses = run_stack(
            self.layers,
            self.config,
            x_BTD,
            self.positions.rotation(positions_BT),
            self._whole_rows(x_BTD.shape[1], segment_ids_BT),
            stack_key,
            Tokens(
                attributes_BT,
                None if segment_ids_BT is None else segment_ids_BT > 0,
                whole_rows=True,
            ),
        )
        return self.norm(x_BTD), losses

    def _whole_rows(self, length: int, segment_ids_BT: Int[Array, "B T"] | None) -> Attend:
        """Attention over whole rows, without a cache."""
        rate = self.config.attention_dropout
        if not sequence_is_whole(length):
            return functools.partial(_attend_split, segment_ids_BT, rate)
        name = self.config.attention
        return lambda q, k, v, key: attend(
            q,
            k,
            v,
            segment_ids_BT=segment_ids_BT,
            implementation=name,
            dropout_rate=rate,
            dropout_key=key,
        )

    def logits(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """The head: fp32 scores over the published vocabulary, from normalised hidden states."""
        tied = self.config.tie_word_embeddings
        table = self.embedding if tied else self.head
        if isinstance(table, ByOutputs):
            logits_BTP = few_rows(x_BTD, table, result=jnp.float32)
        else:
            kernel_DP = table[...].T if tied else table[...]
            logits_BTP = linear(x_BTD, kernel_DP, result=jnp.float32)
        # Constrained before the padding is cut off: P divides over the devices, V need not.
        return constrain(logits_BTP, "batch", "seq", "act_vocab")[..., : self.config.vocab_size]

    def init_cache(
        self, batch: int, max_len: int, *, dtype: str | None = None, prefix: Prefix | None = None
    ) -> KVCache:
        """An empty KV cache for `batch` rows of at most `max_len` tokens.

        Args:
          batch: rows.
          max_len: tokens a row, without those of the prefix.
          dtype: a key of `lvm_jax.models.decoder.kv_cache.CACHE_DTYPES`; default: the compute dtype.
          prefix: from `prefill`; the number of its prompts divides `batch`, and the rows of a prompt share its cache.

        Raises:
          UserError: see `KVCache.empty`.
        """
        config, inputs_BSD = self.config, None
        if self.look_back is not None:
            inputs_BSD = jnp.zeros((batch, max_len, config.hidden_size), config.dtype)
        return KVCache.empty(
            layers=config.num_hidden_layers,
            batch=batch,
            max_len=max_len,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            dtype=dtype or config.dtype,
            prefix=prefix,
            inputs_BSD=inputs_BSD,
        )

    def prefill(
        self,
        inputs: Int[Array, "R T"] | Float[Array, "R T D"],
        lengths_R: Int[Array, "R"],
        *,
        attributes_RT: Int[Array, "R T"] | None = None,
        dtype: str | None = None,
    ) -> Prefix:
        """Reads whole prompts in one pass.

        Args:
          inputs: the prompts from their first token on, right-padded with anything: ids, or embeddings (R, T, D).
          lengths_R: how many tokens each prompt has.
          attributes_RT: as in `__call__`.
          dtype: of the cache, as in `init_cache`.

        Raises:
          UserError: the dtype is unknown, or a prompt is longer than the learned positions.
        """
        dtype = dtype or self.config.dtype
        check_dtype(dtype)
        x_RTD = self.embed(inputs) if inputs.ndim == 2 else inputs.astype(self.config.dtype)
        self.positions.check_length(x_RTD.shape[1])
        positions_1T = jnp.arange(x_RTD.shape[1])[None]
        layers: list[tuple[Stored, Stored]] = []

        # Padding needs no mask: it comes last, so under the causal mask no token of a prompt sees it.
        def keep_and_attend(q_RTNH, k_RTKH, v_RTKH, _):
            layers.append((Stored.of(k_RTKH, dtype), Stored.of(v_RTKH, dtype)))
            return attend(q_RTNH, k_RTKH, v_RTKH, implementation=self.config.attention)

        kept_RTD = None
        if self.look_back is not None:
            kept_RTD, x_RTD = x_RTD, self.look_back.whole_rows(x_RTD, positions_1T)
        self._read(x_RTD, positions_1T, keep_and_attend, attributes_RT)
        return Prefix(tuple(layers), lengths_R, kept_RTD)

    def extend(
        self,
        tokens_BT: Int[Array, "B T"],
        cache: KVCache,
        *,
        attributes_BT: Int[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T V"], KVCache]:
        """Reads T more tokens of every row.

        Args:
          tokens_BT: the ids that follow what the cache holds; positions continue from there.
          cache: from `init_cache` or an earlier call.
          attributes_BT: as in `__call__`.

        Returns:
          logits_BTV of the T tokens, equal to those of a full forward pass, and the updated cache.

        Raises:
          UserError: the tokens do not fit the cache or the learned positions. Inside jit, where the length is unknown,
            the caller must make sure that they fit.
        """
        T = tokens_BT.shape[1]
        cache.check_room(T)
        layers: list[tuple[Stored, Stored]] = []

        def attend_cached(q_BTNH, k_BTKH, v_BTKH, _):
            y_BTNH, layer = cache.attend(len(layers), q_BTNH, k_BTKH, v_BTKH)
            layers.append(layer)
            return y_BTNH

        x_BTD, positions_BT = self.embed(tokens_BT), cache.positions(T)
        if self.look_back is not None:
            cache = cache.with_inputs(x_BTD)
            x_BTD = self.look_back.cached(x_BTD, positions_BT, cache.inputs_at)
        x_BTD = self._read(x_BTD, positions_BT, attend_cached, attributes_BT)
        return self.logits(self.norm(x_BTD)), cache.advance(T, layers)

    def _read(
        self,
        x_BTD: Float[Array, "B T D"],
        positions_BT: Int[Array, "#B T"],
        attend: Attend,
        attributes_BT: Int[Array, "B T"] | None,
    ) -> Float[Array, "B T D"]:
        """All blocks one by one, as a cache needs it: calls `attend` once per layer, in order."""
        x_BTD = self.positions.embed(x_BTD, positions_BT)
        rotate = self.positions.rotation(positions_BT)
        for block in self.blocks():
            x_BTD, _ = block(x_BTD, rotate, attend, tokens=Tokens(attributes_BT))
        return x_BTD

    def blocks(self) -> list[Block | Period]:
        """The periods one by one (single blocks, unless MLPs differ), cut out of the stack if there is one."""
        if isinstance(self.layers, nnx.List):
            return list(self.layers)
        return unstack(self.layers, repeats(self.config))

    def unstacked(self) -> Self:
        """This decoder for `prefill` and `extend` only: blocks in a list, matrices in the compute dtype.

        A loop over tokens then neither copies layers out of the stack nor rounds matrices again. On one CPU device the
        matrices are also stored by their outputs.
        """

        # Rounding in advance changes no result, because every product rounds its matrix to the compute dtype anyway.
        def rounded(path: tuple[Any, ...], variable: nnx.Variable) -> nnx.Variable:
            if path[-1] in _NORM_PARAMETERS or "router" in path:
                return variable
            return variable.replace(variable[...].astype(self.config.dtype))

        graphdef, state = nnx.split(self)
        copy = nnx.merge(graphdef, nnx.map_state(rounded, state))
        copy.layers = nnx.List(copy.blocks())
        if on_one_cpu():
            copy._store_by_outputs()
        return copy

    def _store_by_outputs(self) -> None:
        if self.config.tie_word_embeddings:  # the table is stored so already
            axes = self.embedding.get_metadata()["axes"]
            self.embedding = ByOutputs(self.embedding[...], axes=axes)
        else:
            self.head = by_outputs(self.head)
        store_by_outputs(self.layers)

    def merged(self) -> Self:
        """This decoder with its adapters, if any, merged into their matrices."""
        if not self.config.lora.rank:
            return self
        model = merge_adapters(self, self.config.lora)
        model.config = dataclasses.replace(self.config, lora=LoRAConfig())
        return model

    def save_pretrained(self, directory: epath.PathLike, *, dtype: str = "float32") -> None:
        """Writes config.json and model.safetensors in the family's format, which transformers reads too.

        Adapters are merged into their matrices.

        Args:
          directory: made if missing.
          dtype: of the stored weights, one of `model_folder.STORED_DTYPES`.

        Raises:
          UserError: the dtype is unknown, or no published family describes this decoder.
        """
        model = self.merged()
        tensors = rounded(to_tensors(model), dtype)
        hf_folder.save(directory, model.config, tensors, dtype, self.tokenizer_fingerprint)

    @classmethod
    def from_pretrained(cls, directory: epath.PathLike, **overrides: Any) -> Self:
        """Reads a folder of one of the class's families: this project's, or published weights.

        It reads one parameter at a time. Under a mesh (`jax.set_mesh`) every host reads only its devices' slices,
        straight into their sharding, so no host ever holds the whole model.

        Args:
          directory: holds config.json, and safetensors or PyTorch's .bin files, one or several; local or gs://.
          **overrides: fields of `DecoderConfig` about how to compute (dtype, remat, scan_layers, attention, dropout).

        Raises:
          UserError: no such folder, the decoder does not support the model or a setting, or tensors do not fit the
            configuration.
        """
        config = hf_folder.load_config(
            directory, families=cls.FAMILIES, reader=cls.__name__, **overrides
        )
        graphdef, state = nnx.split(cls.abstract(config))
        model = nnx.merge(graphdef, hf_folder.load(directory, config, state))
        model.tokenizer_fingerprint = hf_folder.load_tokenizer_fingerprint(directory)
        return model

    @classmethod
    def abstract(cls, config: DecoderConfig, *, mlps: Mapping[str, MLPClass] = KINDS) -> Self:
        """The decoder with shapes in place of arrays."""
        return nnx.eval_shape(lambda: cls(config, rngs=nnx.Rngs(0), mlps=mlps))


def _attend_split(segment_ids_BT, rate, q_BTNH, k_BTKH, v_BTKH, key):
    refuse_dropout("of a split sequence", rate, key)
    return attend_split(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT=segment_ids_BT)
