"""A JAX program with the settings of the published LVM code, as a peer in benchmarks/train_step.py.

Its settings (EasyLM/models/llama): layers unrolled; attention and MLP of each under `jax.checkpoint` with
nothing_saveable; attention block by block, 2048 queries against 2048 keys at a time, every block computed whether its
keys are visible or not, with an online softmax whose blocks are checkpointed too; untied fp32 logits of all tokens at
once. The one departure: rotary angles in fp32.

Shapes: B batch, T tokens, N heads, H head dimension, Q blocks of queries, K blocks of keys, C tokens of a block.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

CHUNK = 2048
checkpointed = functools.partial(
    jax.checkpoint, policy=jax.checkpoint_policies.nothing_saveable, prevent_cse=True
)


def make_step(
    config: Any, tx: optax.GradientTransformation
) -> Callable[[Any, Any, jax.Array], tuple[Any, Any, jax.Array]]:
    """The training step: (params, optimizer state, tokens (B, T + 1)) -> (params, optimizer state, loss).

    Args:
      config: a `LlamaConfig`, for the shape of the model.
      tx: the optimizer.
    """

    def loss_of(params: Mapping[str, jax.Array], tokens: jax.Array) -> jax.Array:
        logits = forward(config, params, tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    def step(params: Any, opt: Any, tokens: jax.Array) -> tuple[Any, Any, jax.Array]:
        loss, grads = jax.value_and_grad(loss_of)(params, tokens)
        updates, opt = tx.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt, loss

    return step


def forward(config: Any, params: Mapping[str, jax.Array], tokens_BT: jax.Array) -> jax.Array:
    """fp32 logits of every token; the parameters have Hugging Face's names."""
    x = params["model.embed_tokens.weight"][tokens_BT]
    for i in range(config.num_hidden_layers):
        layer = {
            name.removeprefix(f"model.layers.{i}."): value
            for name, value in params.items()
            if name.startswith(f"model.layers.{i}.")
        }
        x = x + checkpointed(functools.partial(_attention, config))(layer, x)
        x = x + checkpointed(functools.partial(_mlp, config))(layer, x)
    x = _norm(x, params["model.norm.weight"], config.rms_norm_eps)
    return x @ params["lm_head.weight"].T


def _norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + eps) * scale


def _mlp(config: Any, layer: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    x = _norm(x, layer["post_attention_layernorm.weight"], config.rms_norm_eps)
    gate, up = (x @ layer[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
    return (jax.nn.silu(gate) * up) @ layer["mlp.down_proj.weight"].T


def _attention(config: Any, layer: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    B, T, _ = x.shape
    x = _norm(x, layer["input_layernorm.weight"], config.rms_norm_eps)
    q, k, v = (
        (x @ layer[f"self_attn.{name}_proj.weight"].T).reshape(B, T, -1, config.head_dim)
        for name in "qkv"
    )
    angles = np.arange(T)[:, None] / config.rope_theta ** (
        np.arange(0, config.head_dim, 2) / config.head_dim
    )
    q, k = (_rotate(y, jnp.asarray(angles, jnp.float32)[:, None]) for y in (q, k))
    y = _blockwise(q / np.sqrt(config.head_dim), k, v)
    return y.reshape(B, T, -1) @ layer["self_attn.o_proj.weight"].T


def _rotate(x_BTNH: jax.Array, angles_T1F: jax.Array) -> jax.Array:
    first, second = jnp.split(x_BTNH, 2, axis=-1)
    cos, sin = jnp.cos(angles_T1F), jnp.sin(angles_T1F)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _blockwise(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    B, T, N, H = q.shape
    C = min(CHUNK, T)
    starts = jnp.arange(T // C) * C
    q_QBCNH, k_KBCNH, v_KBCNH = (x.reshape(B, T // C, C, N, H).swapaxes(0, 1) for x in (q, k, v))

    def queries(block: tuple[jax.Array, jax.Array]) -> jax.Array:
        q_BCNH, q_start = block

        @checkpointed
        def keys(carry: Any, block: Any) -> tuple[Any, None]:
            total, normaliser, top = carry
            k_BCNH, v_BCNH, k_start = block
            visible = (q_start + jnp.arange(C))[:, None] >= k_start + jnp.arange(C)
            scores = jnp.einsum("bqnh,bknh->bnqk", q_BCNH, k_BCNH)
            scores += jnp.where(visible, 0.0, jnp.finfo(jnp.float32).min)
            new_top = jnp.maximum(top, scores.max(axis=-1))
            weights, shrink = jnp.exp(scores - new_top[..., None]), jnp.exp(top - new_top)
            total = total * shrink[..., None] + jnp.einsum("bnqk,bknh->bnqh", weights, v_BCNH)
            return (total, normaliser * shrink + weights.sum(axis=-1), new_top), None

        start = jnp.zeros((B, N, C, H)), jnp.zeros((B, N, C)), jnp.full((B, N, C), -1e30)
        (total, normaliser, _), _ = jax.lax.scan(keys, start, (k_KBCNH, v_KBCNH, starts))
        return (total / normaliser[..., None]).swapaxes(1, 2)

    y_QBCNH = jax.lax.map(queries, (q_QBCNH, starts))
    return y_QBCNH.swapaxes(0, 1).reshape(B, T, N, H)
