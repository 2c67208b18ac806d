"""Both sides of the tokenizer benchmarks: our network and the same one in a PyTorch process, on the same images."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from peers.driver import Peer  # benchmarks/ is the script's own folder
from turns import in_turns, timed

from lvm_jax.config import to_dict
from lvm_jax.errors import UserError
from lvm_jax.models.tokenizer.torch_vqgan import to_state_dict
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig
from lvm_jax.parallel.mesh import MeshConfig, make_mesh
from lvm_jax.pictures.pixels import to_float
from lvm_jax.tasks.tokenizer import TokenizerLoss, TokenizerTask

LEARNING_RATE = 1e-4
Turn = Callable[[str, int], dict[str, Any]]


def make(config: VQGANConfig, batch: int) -> tuple[VQGAN, np.ndarray]:
    """A network whose codes spread as widely as its features, and uint8 images, both from a seed."""
    vqgan = VQGAN(config, rngs=nnx.Rngs(0))
    generator = np.random.default_rng(0)
    shape = vqgan.quantizer.codebook[...].shape
    vqgan.quantizer.codebook[...] = jnp.asarray(generator.normal(size=shape).astype(np.float32))
    shape = (batch, config.resolution, config.resolution, config.num_channels)
    return vqgan, generator.integers(0, 256, shape, np.uint8)


def ours(vqgan: VQGAN, images: np.ndarray) -> Turn:
    """A function that runs `encode`, `decode` or `train` some times, compiled before its first answer.

    Every device has all weights and a share of the images.
    """
    mesh = make_mesh(MeshConfig(data=-1, fsdp=1))
    jax.set_mesh(mesh)
    split, whole = (NamedSharding(mesh, spec) for spec in (P("data"), P()))
    graphdef, params = nnx.split(vqgan)
    params = jax.device_put(params, whole)
    x = jax.device_put(to_float(images), split)
    tokens = np.arange(len(x) * vqgan.tokens_per_image, dtype=np.int32) % vqgan.codebook_size
    ids = jax.device_put(tokens.reshape(len(x), -1), split)
    batch = {"images": jax.device_put(images, split)}
    encode = jax.jit(lambda p, x: nnx.merge(graphdef, p).encode(x))
    decode = jax.jit(lambda p, ids: nnx.merge(graphdef, p).decode(ids))
    inference = {"encode": lambda: encode(params, x), "decode": lambda: decode(params, ids)}
    loss = TokenizerLoss(perceptual="none", adversarial_weight=0.0)
    task = TokenizerTask(vqgan.config, optax.adam(LEARNING_RATE), optax.set_to_zero(), loss=loss)
    step = jax.jit(task.step, donate_argnums=0)
    state: Any = None

    def train() -> float:
        nonlocal state
        state, metrics = step(state, batch, jax.random.key(0))
        return float(metrics["loss"].compute())

    def turn(what: str, count: int) -> dict[str, Any]:
        nonlocal state
        if what == "train":
            if state is None:
                state = jax.jit(task.init, out_shardings=whole)(jax.random.key(0))
                state["params"]["generator"] = jax.tree.map(jnp.copy, params)
            losses: list[float] = []
            return {**timed(lambda: losses.extend(train() for _ in range(count))), "losses": losses}
        results: list[Any] = []

        def run() -> list[Any]:
            results.extend(inference[what]() for _ in range(count))
            return results

        seconds = timed(run)
        if what == "encode":
            return {**seconds, "ids": np.asarray(results[-1]).ravel().tolist()}
        return {**seconds, "means": np.mean(results[-1], axis=(1, 2, 3)).tolist()}

    return turn


def theirs(
    folder: pathlib.Path,
    vqgan: VQGAN,
    images: np.ndarray,
    *,
    threads: int,
    device: str = "cpu",
) -> Peer:
    """The PyTorch process with the same network and images, handed over in `folder`.

    Raises:
      UserError: PyTorch's side does not have such a network.
    """
    config = vqgan.config
    if config.architecture != "taming" or config.attn_resolutions or not config.no_attn_mid_block:
        raise UserError(
            f"a tokenizer has architecture={config.architecture}, attn_resolutions={config.attn_resolutions}, "
            f"no_attn_mid_block={config.no_attn_mid_block}: PyTorch's side is taming without attention, such as "
            "lvm-f16-8192"
        )
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    weights: dict[str, Any] = to_state_dict(vqgan)
    np.savez(folder / "weights.npz", **weights)
    np.save(folder / "images.npy", to_float(images))
    arguments = (folder, threads, device, LEARNING_RATE)
    return Peer("torch_vqgan.py", *arguments, keep_freed_memory=device == "cpu")


def turn_of(peer: Peer) -> Turn:
    """A function that asks the peer for one turn."""
    return lambda what, count: peer.ask({"what": what, "count": count})


def images_per_second(
    sides: Mapping[str, Turn], what: str, *, rounds: int, count: int, images: int
) -> dict[str, float]:
    """Median images/s of each side, with `images` per run and `count` runs per turn."""
    medians = in_turns(
        {
            name: lambda turn=turn: {
                "images_per_second": images * count / turn(what, count)["seconds"]
            }
            for name, turn in sides.items()
        },
        rounds,
    )
    return {name: median["images_per_second"] for name, median in medians.items()}
