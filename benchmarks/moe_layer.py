r"""A layer of experts on one CPU core, forward and backward, in turns with what one could do instead, in one run.

    taskset -c 0 python benchmarks/moe_layer.py --peer_python=OTHER_ENVIRONMENT/bin/python

Width 256, MLP 1,024, 8 experts of which a token uses 2, fp32, 8 rows of 512 tokens. The ways:
  dense         one MLP: the measure of all others
  capacity      token router, gather and scatter, capacity factor 1.25
  spans         attribute router, outputs of two experts mixed
  merged        attribute router, weights of two experts mixed
  all experts   every expert computes every token
  ragged dot    tokens sorted by expert and `jax.lax.ragged_dot`
  mixtral       transformers' Mixtral block with GPT-2's MLPs, in PyTorch
Before any timing, outputs of capacity (without a limit), all experts, ragged dot and Mixtral's block must be equal.
OTHER_ENVIRONMENT has torch and transformers. Run it on an idle machine.
"""

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import record  # benchmarks/ is the script's own folder
from absl import flags
from agreement import require_equal
from flax import nnx
from peers.driver import Peer
from turns import in_turns, timed

from lvm_jax import cli
from lvm_jax.models import presets
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.mlp import TanhGELUMLP, Tokens
from lvm_jax.models.decoder.moe import MixtureOfExperts
from lvm_jax.models.decoder.moe_config import MoEConfig
from lvm_jax.models.decoder.routers import choose
from lvm_jax.parallel import runtime

ROWS, TOKENS, D, F = 8, 512, 256, 1024
SPANS = (256, 256)
EQUAL = ("no limit", "ragged dot")  # to all experts
TOLERANCE = 5e-6  # of the largest output


def config(**moe: object) -> DecoderConfig:
    """One layer of experts."""
    sizes = {"hidden_size": D, "intermediate_size": F, "num_attention_heads": 4}
    chosen = MoEConfig(**{"renormalize": True, **moe})  # pyright: ignore[reportArgumentType]
    return presets.gpt2("debug", **sizes, mlps=("moe",), moe=chosen)


def make(**moe: object) -> tuple[nnx.GraphDef, nnx.State]:
    """Its definition and its parameters."""
    return nnx.split(nnx.jit(lambda: MixtureOfExperts(config(**moe), rngs=nnx.Rngs(0)))())


def forward_of(graphdef: nnx.GraphDef) -> Callable[..., jax.Array]:
    """(parameters, x) -> y, as in training."""
    attributes = jnp.tile(jnp.repeat(jnp.array([5, 9]), jnp.array(SPANS))[None], (ROWS, 1))

    def forward(params: nnx.State, x: jax.Array) -> jax.Array:
        # Made here, not with the module: JAX would start its threads before memory is kept.
        key = jax.random.key(0)
        return nnx.merge(graphdef, params)(x, key, Tokens(attributes, None, True))[0]

    return forward


def ragged(params: Any, x_BTD: jax.Array) -> jax.Array:
    """The same by sorted tokens and grouped products."""
    moe, N = config().moe, ROWS * TOKENS
    x = x_BTD.reshape(N, D)
    choice = choose((x @ params["router"]["gate"][...])[None], moe)
    order = jnp.argsort(choice.experts_BTK.reshape(-1))
    sizes = jnp.bincount(choice.experts_BTK.reshape(-1), length=moe.experts).astype(jnp.int32)
    h = jax.nn.gelu(jax.lax.ragged_dot(x[order // moe.top_k], params["up"][...], sizes))
    y = jax.lax.ragged_dot(h, params["down"][...], sizes)
    y = y * choice.gates_BTK.reshape(-1)[order][:, None]
    return jnp.zeros((N, D)).at[order // moe.top_k].add(y).reshape(x_BTD.shape)


def step_of(forward: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Forward and backward, by parameters and inputs."""

    @jax.jit
    def step(params: nnx.State, x: jax.Array) -> object:
        return jax.grad(lambda p, x: jnp.sum(jnp.square(forward(p, x))), argnums=(0, 1))(params, x)

    return step


def ways() -> dict[str, tuple[Callable[..., jax.Array], nnx.State]]:
    """Name -> forward pass and parameters."""
    token, params = make()
    limitless, _ = make(capacity_factor=0.0)
    everything, _ = make(dispatch="all_experts")
    by_spans = {"router": "attribute", "dispatch": "spans", "spans": SPANS}
    spans, attribute_params = make(**by_spans)
    merged, _ = make(**by_spans, mix="weights")
    dense = dataclasses.replace(config(), mlps=("gelu_tanh",))
    dense_def, dense_params = nnx.split(TanhGELUMLP(dense, rngs=nnx.Rngs(0)))
    return {
        "dense": (lambda p, x: nnx.merge(dense_def, p)(x)[0], dense_params),
        "capacity": (forward_of(token), params),
        "spans": (forward_of(spans), attribute_params),
        "merged": (forward_of(merged), attribute_params),
        "no limit": (forward_of(limitless), params),
        "all experts": (forward_of(everything), params),
        "ragged dot": (ragged, params),
    }


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    runtime.keep_freed_memory()
    record.announce()
    x = jax.random.normal(jax.random.key(1), (ROWS, TOKENS, D))
    made = ways()
    # One forward and backward pass of each way.
    runs: dict[str, Callable[[], Any]] = {
        name: functools.partial(timed, functools.partial(step_of(forward), params, x))
        for name, (forward, params) in made.items()
    }
    expected, *others = (
        jax.jit(made[name][0])(made[name][1], x) for name in ("all experts", *EQUAL)
    )
    for name, found in zip(EQUAL, others, strict=True):
        require_equal(f"{name} and all experts", found, expected, within=TOLERANCE)
    with contextlib.ExitStack() as closing:
        if args.peer_python:
            folder = closing.enter_context(tempfile.TemporaryDirectory())
            weights = f"{folder}/weights.npz"
            layer = made["capacity"][1]
            arrays = {"x": x, "gate": layer["router"]["gate"][...]}
            arrays |= {name: layer[name][...] for name in ("up", "down")}
            host: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
            np.savez(weights, **host)
            peer = closing.enter_context(Peer("torch_moe.py", weights))
            peer.ask({"output": f"{folder}/y.npy"})
            theirs = np.load(f"{folder}/y.npy")
            require_equal("mixtral and all experts", theirs, expected, within=TOLERANCE)
            runs["mixtral"] = lambda: peer.ask({"output": ""})
        medians = in_turns(runs, args.rounds)
    times = {name: median["cpu_seconds"] for name, median in medians.items()}
    for name, found in times.items():
        print(f"{name:12} {1e3 * found:8.1f} CPU ms  {found / times['dense']:5.2f} x dense")
    record.write(medians)


if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 5, "turns of each way", lower_bound=1)
    cli.run(main)
