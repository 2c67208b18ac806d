"""What a block computes for each token alone: LLaMA's SwiGLU, or two layers with ReLU (OPT) or GELU (GPT-2).

A kind of MLP is a class whose instances map (x_BTD, key, tokens) to (y_BTD, losses); `MLPS` names the dense ones, and
`moe` has the mixture of experts. `key` is for random draws in training, and None in evaluation; `tokens` says what a
token is, to those who ask. `losses` are minimised beside the task's loss (such as the load balance of a mixture of
experts), by weights that the task gives, or are only watched: fp32 scalars by name, which the stack sums over its
blocks. They are plain numbers, not (sum, weight) pairs: a load balance is a product of means over tokens, which no sum
over tokens can express.

Shapes: B batch, T tokens, D hidden size, F MLP size.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.linear import bias, matrix
from lvm_jax.models.decoder.lora import Adaptable
from lvm_jax.parallel.sharding import constrain

# Auxiliary losses and measurements by name: fp32 scalars.
Losses = dict[str, Float[Array, ""]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tokens:
    """What an MLP may know of the tokens beside their vectors.

    Attributes:
      attributes_BT: what each token is, as the bits of an integer; see `MoEConfig.router`.
      real_BT: False for padding; None: nothing is.
      whole_rows: the tokens are rows from their first token on, not a piece that decoding adds.
    """

    attributes_BT: Int[Array, "B T"] | None = None
    real_BT: Bool[Array, "B T"] | None = None
    whole_rows: bool = dataclasses.field(default=False, metadata={"static": True})


class MLPClass(Protocol):
    """A class of modules that can be a block's MLP."""

    def __call__(
        self, config: DecoderConfig, *, rngs: nnx.Rngs
    ) -> Callable[[jax.Array, jax.Array | None, Tokens | None], tuple[jax.Array, Losses]]:
        """A fresh MLP."""
        ...


class SwiGLU(Adaptable):
    """down(silu(gate x) * up x) (Shazeer, arXiv 2002.05202, equation 6)."""

    MATRICES: ClassVar[Mapping[str, int]] = {"gate": 1, "up": 1, "down": 1}

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        D, F = config.hidden_size, config.intermediate_size
        self.gate = matrix(rngs, config, (D, F), ("embed", "mlp"))
        self.up = matrix(rngs, config, (D, F), ("embed", "mlp"))
        self.down = matrix(rngs, config, (F, D), ("mlp", "embed"))
        if config.dense_bias:
            self.gate_bias, self.up_bias = bias(F, "mlp"), bias(F, "mlp")
            self.down_bias = bias(D, None)
        self.quantization = config.quantization
        self.add_adapters(config.lora, rngs)

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        key: jax.Array | None = None,
        tokens: Tokens | None = None,
    ) -> tuple[Float[Array, "B T D"], Losses]:
        """Applies the MLP to each token."""
        gate_BTF, up_BTF = (
            constrain(self.product(name, x_BTD), "batch", "seq", "act_mlp")
            for name in ("gate", "up")
        )
        return self.product("down", jax.nn.silu(gate_BTF) * up_BTF), {}


class TwoLayers(Adaptable):
    """down(activation(up x)); a subclass names the activation."""

    MATRICES: ClassVar[Mapping[str, int]] = {"up": 1, "down": 1}

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        D, F = config.hidden_size, config.intermediate_size
        self.up = matrix(rngs, config, (D, F), ("embed", "mlp"))
        self.down = matrix(rngs, config, (F, D), ("mlp", "embed"))
        if config.dense_bias:
            self.up_bias, self.down_bias = bias(F, "mlp"), bias(D, None)
        self.quantization = config.quantization
        self.add_adapters(config.lora, rngs)

    def activation(self, x: jax.Array) -> jax.Array:
        """The function between the two products."""
        raise NotImplementedError

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        key: jax.Array | None = None,
        tokens: Tokens | None = None,
    ) -> tuple[Float[Array, "B T D"], Losses]:
        """Applies the MLP to each token."""
        up_BTF = constrain(self.product("up", x_BTD), "batch", "seq", "act_mlp")
        return self.product("down", self.activation(up_BTF)), {}


class ReLUMLP(TwoLayers):
    """max(x, 0) between the products, as in OPT (Zhang et al., arXiv 2205.01068, section 2.1)."""

    def activation(self, x: jax.Array) -> jax.Array:
        """max(x, 0)."""
        return jax.nn.relu(x)


class TanhGELUMLP(TwoLayers):
    """GELU between the products (Hendrycks and Gimpel, arXiv 1606.08415, section 2), by tanh as in GPT-2."""

    def activation(self, x: jax.Array) -> jax.Array:
        """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
        return jax.nn.gelu(x, approximate=True)


MLPS: Mapping[str, MLPClass] = {"swiglu": SwiGLU, "relu": ReLUMLP, "gelu_tanh": TanhGELUMLP}
