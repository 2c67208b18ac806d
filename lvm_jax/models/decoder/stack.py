"""All blocks of a decoder as one module whose parameters have a leading axis, and the loop over them.

A stack repeats one period: a single block, or several with different MLPs. Each place of the period has its own
parameters, stacked over the repeats, because a scan needs arrays of one shape.

Shapes: B batch, T tokens, D hidden size.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.block import Attend, Block, Period, add_losses
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.mlp import Losses, MLPClass, Tokens
from lvm_jax.models.decoder.positions import Rotate
from lvm_jax.models.stacking import rematerialised, stack


def make_stack(
    config: DecoderConfig, mlps: Mapping[str, MLPClass], rngs: nnx.Rngs
) -> Block | Period:
    """Fresh blocks, stacked over the repeats of their period.

    Args:
      config: the decoder.
      mlps: kind of MLP -> its class.
      rngs: for the parameters; every repeat gets its own keys.

    Raises:
      UserError: `config.mlps` names a kind that is not in `mlps`.
    """
    unknown = [kind for kind in config.mlps if kind not in mlps]
    if unknown:
        raise UserError(
            f"mlps={config.mlps} names the MLP {unknown[0]!r}, which does not exist; known: {', '.join(mlps)}"
        )
    classes = [mlps[kind] for kind in config.mlps]

    def period(rngs: nnx.Rngs) -> Block | Period:
        # A period of one is the block itself, which keeps paths such as layers/attention/query.
        if len(classes) == 1:
            return Block(config, classes[0], rngs=rngs)
        return Period(config, classes, rngs=rngs)

    return stack(period, repeats(config), rngs)


def repeats(config: DecoderConfig) -> int:
    """How often the period repeats in the decoder."""
    return config.num_hidden_layers // len(config.mlps)


def unstack(layers: Block | Period, count: int) -> list[Block | Period]:
    """The periods one by one, cut out of a stack of `count`."""
    graphdef, stacked = nnx.split(layers)
    return [
        nnx.merge(graphdef, jax.tree.map(lambda stack, index=index: stack[index], stacked))
        for index in range(count)
    ]


def run_stack(
    layers: Block | Period,
    config: DecoderConfig,
    x_BTD: Float[Array, "B T D"],
    rotate: Rotate,
    attend: Attend,
    dropout_key: jax.Array | None = None,
    tokens: Tokens | None = None,
) -> tuple[Float[Array, "B T D"], Losses]:
    """Applies all blocks, in a scan or an unrolled loop, with the configured rematerialisation.

    Args:
      layers: from `make_stack`.
      config: the decoder.
      x_BTD: embeddings.
      rotate: gives queries and keys their positions.
      attend: attention over whole rows.
      dropout_key: None in evaluation.
      tokens: what MLPs may know of them.

    Returns:
      the residual stream after the last block, and the auxiliary losses summed over all blocks.
    """
    graphdef, stacked = nnx.split(layers)

    def period(x_BTD: jax.Array, layer: nnx.State, key: jax.Array | None) -> Any:
        return nnx.merge(graphdef, layer)(x_BTD, rotate, attend, key, tokens)

    period = rematerialised(period, config.remat, scanned=config.scan_layers)
    count = repeats(config)
    keys = None if dropout_key is None else jax.random.split(dropout_key, count)
    if config.scan_layers:
        x_BTD, losses = jax.lax.scan(lambda x, xs: period(x, *xs), x_BTD, (stacked, keys))
        return x_BTD, {name: jnp.sum(values) for name, values in losses.items()}
    total: Losses = {}
    for index in range(count):
        layer = jax.tree.map(lambda stack, index=index: stack[index], stacked)
        x_BTD, losses = period(x_BTD, layer, None if keys is None else keys[index])
        total = add_losses(total, losses)
    return x_BTD, total
