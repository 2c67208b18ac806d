"""The MLP "moe": a sparse mixture of experts (arXiv 2312.02520), of which each token uses a few.

There is one function and three ways to compute it, which agree to rounding as long as nothing is dropped:

  all experts  every expert reads every token, one expert after the other. What evaluation, prefill and decoding use: it
               drops nothing, so a token's result does not depend on the tokens beside it.
  capacity     experts read only the tokens that chose them (`dispatch`). For training with any router.
  spans        all tokens of a span have the same attributes, hence the same experts: k dense MLPs, or one MLP of merged
               weights. For whole rows with an attribute router.

Shapes: B batch, T tokens, D hidden size, F MLP size, E experts, K experts a token uses, C slots of an expert and row,
N tokens of an expert, S spans.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.dispatch import Slots, slots_of
from lvm_jax.models.decoder.linear import bias, matrix, sequence_is_whole
from lvm_jax.models.decoder.mlp import Losses, Tokens
from lvm_jax.models.decoder.routers import (
    ROUTERS,
    Choice,
    balance_loss,
    choose,
    measured,
    z_loss,
)
from lvm_jax.parallel.sharding import constrain


class MixtureOfExperts(nnx.Module):
    """sum_k g_k down_k(gelu(up_k x)) over the chosen experts; see `MoEConfig`.

    Its losses are "load_balance" and "router_z", and with them come the numbers of `routers.measured` and "dropped",
    the share of choices that found no slot.
    """

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        D, F, E = config.hidden_size, config.intermediate_size, config.moe.experts
        self.config = config.moe
        self.router = ROUTERS[config.moe.router](config, rngs=rngs)
        self.up = matrix(rngs, config, (E, D, F), ("experts", "embed", "mlp"))
        self.down = matrix(rngs, config, (E, F, D), ("experts", "mlp", "embed"))
        self.has_biases = config.dense_bias
        if config.dense_bias:
            # Flat like every bias, so that weight decay spares them; expert after expert, so that they split with them.
            self.up_bias, self.down_bias = bias(E * F, "experts"), bias(E * D, "experts")

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        key: jax.Array | None = None,
        tokens: Tokens | None = None,
    ) -> tuple[Float[Array, "B T D"], Losses]:
        """Applies the experts of each token; noise and dropped tokens need a key.

        Raises:
          UserError: an attribute router without attributes, or a sequence that is split over the mesh.
        """
        tokens = tokens or Tokens()
        if not sequence_is_whole(x_BTD.shape[1]):
            raise UserError(
                "a mixture of experts needs whole rows on each device: set the mesh's context to 1"
            )
        logits_BTE = self.router.logits(x_BTD, tokens.attributes_BT, key)
        choice, real_BT = choose(logits_BTE, self.config), tokens.real_BT
        dropped = jnp.zeros((), jnp.float32)
        if self.config.dispatch == "spans" and tokens.whole_rows:
            y_BTD = self._spans(x_BTD, choice, tokens)
        elif self.config.dispatch == "capacity" and key is not None:
            slots = slots_of(self.config, x_BTD.shape[1])
            taken = Slots.of(choice, slots, real_BT)
            y_BTD, dropped = self._capacity(x_BTD, choice, taken), taken.dropped(real_BT)
        elif self.config.mix == "weights":
            y_BTD = self._all_merged(x_BTD, choice)
        else:
            y_BTD = self._all_experts(x_BTD, choice)
        balance = balance_loss(choice, real_BT, self.config.balance)
        losses = {"load_balance": balance, "router_z": z_loss(choice, real_BT)}
        return y_BTD, losses | measured(choice, real_BT) | {"dropped": dropped}

    def _weights(self, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Matrices and biases of all experts, stacked: (E, D, F), (E, F), (E, F, D), (E, D)."""
        up_EDF, down_EFD = self.up[...].astype(dtype), self.down[...].astype(dtype)
        experts, width, inner = up_EDF.shape
        if not self.has_biases:
            return (
                up_EDF,
                jnp.zeros((experts, inner), dtype),
                down_EFD,
                jnp.zeros((experts, width), dtype),
            )
        up_EF, down_ED = (
            stored[...].astype(dtype).reshape(experts, -1)
            for stored in (self.up_bias, self.down_bias)
        )
        return up_EDF, up_EF, down_EFD, down_ED

    def _all_experts(self, x_BTD: jax.Array, choice: Choice) -> jax.Array:
        gates_EBT = jnp.moveaxis(choice.gates_of_all(), -1, 0)

        @jax.checkpoint
        def add(y_BTD: jax.Array, expert: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            *weights, gate_BT = expert
            out_BTD = _mlp(x_BTD, *weights).astype(jnp.float32)
            # A gate may be NaN, and 0 * NaN is NaN: what the router cannot decide must be seen.
            return y_BTD + out_BTD * gate_BT[..., None], None

        zero_BTD = jnp.zeros(x_BTD.shape, jnp.float32)
        y_BTD, _ = jax.lax.scan(add, zero_BTD, (*self._weights(x_BTD.dtype), gates_EBT))
        return y_BTD.astype(x_BTD.dtype)

    def _all_merged(self, x_BTD: jax.Array, choice: Choice) -> jax.Array:
        """Merged weights without merging any: products with the experts' matrices are mixed, before and after GELU."""
        gates_EBT = jnp.moveaxis(choice.gates_of_all(), -1, 0)
        up_EDF, up_EF, down_EFD, down_ED = self._weights(x_BTD.dtype)

        def mixed(x: jax.Array, kernels: jax.Array, biases: jax.Array) -> jax.Array:
            @jax.checkpoint
            def add(y: jax.Array, expert: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
                kernel, offset, gate_BT = expert
                out = (_matmul(x, kernel) + offset[None, None]).astype(jnp.float32)
                return y + out * gate_BT[..., None], None

            zero = jnp.zeros((*x.shape[:2], kernels.shape[-1]), jnp.float32)
            return jax.lax.scan(add, zero, (kernels, biases, gates_EBT))[0].astype(x.dtype)

        h_BTF = jax.nn.gelu(mixed(x_BTD, up_EDF, up_EF), approximate=True)
        return mixed(h_BTF, down_EFD, down_ED)

    def _capacity(self, x_BTD: jax.Array, choice: Choice, slots: Slots) -> jax.Array:
        batch, _, width = x_BTD.shape
        x_BECD = slots.gather(x_BTD).reshape(batch, self.config.experts, -1, width)
        y_BECD = _at_home(self._each(_abroad(x_BECD)))
        return slots.scatter(y_BECD.reshape(batch, -1, width), choice.gates_BTK)

    def _each(self, x_EBCD: jax.Array) -> jax.Array:
        """Each expert's MLP of its own tokens."""
        up_EDF, up_EF, down_EFD, down_ED = self._weights(x_EBCD.dtype)
        # One matrix an expert: XLA's CPU backend multiplies stacks of matrices as fast as single ones, and is an eighth
        # slower with more dimensions.
        x_END = x_EBCD.reshape(x_EBCD.shape[0], -1, x_EBCD.shape[-1])
        h_ENF = x_END @ up_EDF + up_EF[:, None]
        h_ENF = constrain(h_ENF, "experts", "expert_batch", "act_mlp")
        h_ENF = jax.nn.gelu(h_ENF, approximate=True)
        return (h_ENF @ down_EFD + down_ED[:, None]).reshape(x_EBCD.shape)

    def _spans(self, x_BTD: jax.Array, choice: Choice, tokens: Tokens) -> jax.Array:
        """The experts of each span's first token, in the first row that has one there, for all of its tokens."""
        attributes_BT, real_BT = tokens.attributes_BT, tokens.real_BT
        assert attributes_BT is not None  # the router has read them
        bounds = _bounds(self.config.spans, x_BTD.shape[1])
        starts_S = np.array([start for start, _ in bounds])
        rows_S = 0 if real_BT is None else jnp.argmax(real_BT[:, starts_S], axis=0)
        if self.config.mix == "weights":
            gates_SE = choice.gates_of_all()[rows_S, starts_S]
            # One expert a span, that of its merged weights.
            mlps = [merged[:, None] for merged in self._merged(gates_SE.astype(x_BTD.dtype))]
            gates_SK = jnp.ones((len(bounds), 1), x_BTD.dtype)
        else:
            experts_SK = choice.experts_BTK[rows_S, starts_S]
            mlps = [stored[experts_SK] for stored in self._weights(x_BTD.dtype)]
            gates_SK = choice.gates_BTK[rows_S, starts_S].astype(x_BTD.dtype)
        pieces = []
        for span, (start, stop) in enumerate(bounds):
            experts = zip(*(stored[span] for stored in mlps))
            outputs = [_mlp(x_BTD[:, start:stop], *expert) for expert in experts]
            pieces.append(sum(y * gate for y, gate in zip(outputs, gates_SK[span])))
        said_T = jnp.repeat(
            attributes_BT[rows_S, starts_S],
            np.array([stop - start for start, stop in bounds]),
            total_repeat_length=x_BTD.shape[1],
        )
        agree_BT = attributes_BT == said_T[None]
        if real_BT is not None:  # what padding becomes is of no interest, but must be a number
            agree_BT = agree_BT | ~real_BT
        # Inside jit attributes are unknown, so a wrong span cannot be refused. NaN cannot be overlooked.
        return jnp.where(agree_BT[..., None], jnp.concatenate(pieces, axis=1), jnp.nan)

    def _merged(self, gates_SE: jax.Array) -> list[jax.Array]:
        """One MLP a span, of the experts' weights: as products, which read all weights once, however many spans."""
        spans, experts = gates_SE.shape
        return [
            (gates_SE @ stored.reshape(experts, -1)).reshape(spans, *stored.shape[1:])
            for stored in self._weights(gates_SE.dtype)
        ]


def _bounds(spans: tuple[int, ...], tokens: int) -> list[tuple[int, int]]:
    """Begin and end of the spans of a row, the last of them cut."""
    bounds, start = [], 0
    for length in itertools.cycle(spans):
        if start >= tokens:
            return bounds
        bounds.append((start, min(start + length, tokens)))
        start += length
    return bounds


def _mlp(
    x_BTD: jax.Array, up_DF: jax.Array, up_F: jax.Array, down_FD: jax.Array, down_D: jax.Array
) -> jax.Array:
    h_BTF = constrain(_matmul(x_BTD, up_DF) + up_F[None, None], "batch", "seq", "act_mlp")
    return _matmul(jax.nn.gelu(h_BTF, approximate=True), down_FD) + down_D[None, None]


def _matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # Two matrices, as in `linear`.
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


def _abroad(x_BECD: jax.Array) -> jax.Array:
    """Sends each expert's tokens to the device that holds it: (E, B, C, D).

    Of the two constraints the first says that slots are filled where the tokens lie. Without it the compiler gathers
    the tokens of all devices and fills the slots there.
    """
    x_BECD = constrain(x_BECD, "batch", None, None, None)
    return constrain(x_BECD.swapaxes(0, 1), "experts", "expert_batch", None, None)


def _at_home(y_EBCD: jax.Array) -> jax.Array:
    """The way back: (B, E, C, D)."""
    y_EBCD = constrain(y_EBCD, "experts", "expert_batch", None, None)
    return constrain(y_EBCD.swapaxes(0, 1), "batch", None, None, None)
