"""A pre-norm block of a vision transformer: every patch attends to every patch, then each goes through an MLP.

Parameters and norms are fp32, softmax too; the rest is computed in the dtype of the input.

Shapes: B batch, T tokens in raster order, D width, F MLP size, N heads, H head dimension.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.models.attention.attend import attend
from lvm_jax.models.attention.grid_bias import GridBias
from lvm_jax.models.decoder.linear import linear
from lvm_jax.models.decoder.norms import LayerNorm
from lvm_jax.models.stacking import rematerialised
from lvm_jax.parallel.sharding import constrain

# Queries (B, T, N, H) -> what is added to their scores.
Bias = Callable[[jax.Array], GridBias]
# What attention adds to the residual stream (B, T, D), changed.
Mix = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class BlockShape:
    """What all blocks of a tower share.

    Attributes:
      width: D.
      heads: N.
      mlp: F.
      eps: added to the variance of a norm.
      deviation: standard deviation of every matrix at initialisation.
      activation: between the MLP's products.
      attention: "auto", or a key of `lvm_jax.models.attention.attend.IMPLEMENTATIONS`.
    """

    width: int
    heads: int
    mlp: int
    eps: float
    deviation: float
    activation: Callable[[jax.Array], jax.Array]
    attention: str


class Dense(nnx.Module):
    """x kernel + bias.

    Args:
      shape: of the kernel, inputs first.
      axes: logical axes of the kernel.
      inputs: how many of its first dimensions are inputs.
      bias_axis: logical axis of the bias, which is flat, so that weight decay, for matrices only, spares it.
      deviation: of the kernel at initialisation; the bias starts from zero.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        axes: tuple[str | None, ...],
        *,
        inputs: int = 1,
        bias_axis: str | None = None,
        deviation: float,
        rngs: nnx.Rngs,
    ) -> None:
        drawn = jax.random.normal(rngs.params(), shape, jnp.float32)
        self.kernel = nnx.Param(deviation * drawn, axes=axes)
        outputs = math.prod(shape[inputs:])
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32), axes=(bias_axis,))
        self.inputs = inputs

    def __call__(self, x: jax.Array) -> jax.Array:
        """The product with the last dimensions of (B, T, ...), in the dtype of `x`."""
        y = linear(x, self.kernel[...], self.inputs)
        bias = self.bias[...].astype(x.dtype)
        return y + bias.reshape((1, 1, *y.shape[2:]))


class SelfAttention(nnx.Module):
    """Attention of every token to every token, with biases on all projections."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs) -> None:
        D, N, H = shape.width, shape.heads, shape.width // shape.heads

        def projection() -> Dense:
            axes = ("embed", "heads", "head_dim")
            deviation = shape.deviation
            return Dense((D, N, H), axes, bias_axis="heads", deviation=deviation, rngs=rngs)

        self.query, self.key, self.value = projection(), projection(), projection()
        axes = ("heads", "head_dim", "embed")
        self.out = Dense((N, H, D), axes, inputs=2, deviation=shape.deviation, rngs=rngs)
        self.implementation = shape.attention

    def __call__(
        self, x_BTD: Float[Array, "B T D"], bias: Bias | None = None
    ) -> Float[Array, "B T D"]:
        """Attends; `bias` makes what is added to the scores from the queries, which are not scaled yet."""
        q_BTNH, k_BTNH, v_BTNH = (
            constrain(project(x_BTD), "batch", None, "act_heads", None)
            for project in (self.query, self.key, self.value)
        )
        y_BTNH = attend(
            q_BTNH,
            k_BTNH,
            v_BTNH,
            causal=False,
            bias=None if bias is None else bias(q_BTNH),
            implementation=self.implementation,
        )
        return self.out(y_BTNH)


class MLP(nnx.Module):
    """down(activation(up x))."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs) -> None:
        D, F = shape.width, shape.mlp
        deviation = shape.deviation
        self.up = Dense((D, F), ("embed", "mlp"), bias_axis="mlp", deviation=deviation, rngs=rngs)
        self.down = Dense((F, D), ("mlp", "embed"), deviation=deviation, rngs=rngs)
        self.activation = shape.activation

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies the MLP to each token."""
        up_BTF = constrain(self.up(x_BTD), "batch", None, "act_mlp")
        return self.down(self.activation(up_BTF))


class Block(nnx.Module):
    """Attention, then an MLP, each after a norm and added to the residual stream.

    Args:
      shape: of the block.
      attention: what attends, from (B, T, D) to the same.
      rngs: for the other parameters.
    """

    def __init__(
        self,
        shape: BlockShape,
        attention: Callable[[jax.Array], jax.Array],
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.attention_norm = LayerNorm(shape.width, shape.eps)
        self.attention = attention
        self.mlp_norm = LayerNorm(shape.width, shape.eps)
        self.mlp = MLP(shape, rngs=rngs)

    def __call__(
        self, x_BTD: Float[Array, "B T D"], mix: Mix | None = None
    ) -> Float[Array, "B T D"]:
        """The updated residual stream; `mix` changes what attention adds to it."""
        attended_BTD = self.attention(self.attention_norm(x_BTD))
        x_BTD = x_BTD + (attended_BTD if mix is None else mix(attended_BTD))
        x_BTD = constrain(x_BTD, "batch", None, "act_embed")
        x_BTD = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        return constrain(x_BTD, "batch", None, "act_embed")


def run_stack(
    layers: nnx.Module,
    x_BTD: Float[Array, "B T D"],
    count: int,
    *,
    first: int = 0,
    mix: Mix | None = None,
    scan: bool,
    remat: str,
) -> Float[Array, "B T D"]:
    """Applies `count` modules of a stack one after the other, in a scan or an unrolled loop.

    Args:
      layers: from `stacking.stack`.
      x_BTD: the residual stream.
      count: at most as many as the stack has from `first` on.
      first: where to begin.
      mix: given to each of them, see `Block`; None: they get the stream only.
      scan: loop over one compiled module.
      remat: what the backward pass recomputes of each, a key of `stacking.REMAT_POLICIES`.
    """
    graphdef, stacked = nnx.split(layers)
    stacked = jax.tree.map(lambda stack: stack[first : first + count], stacked)

    def one(x_BTD: jax.Array, layer: nnx.State) -> jax.Array:
        module = nnx.merge(graphdef, layer)
        return module(x_BTD) if mix is None else module(x_BTD, mix)

    one = rematerialised(one, remat, scanned=scan)
    if scan:
        return jax.lax.scan(lambda x, layer: (one(x, layer), None), x_BTD, stacked)[0]
    for index in range(count):
        x_BTD = one(x_BTD, jax.tree.map(lambda stack, index=index: stack[index], stacked))
    return x_BTD
