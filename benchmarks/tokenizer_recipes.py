r"""Our recipe against taming-transformers', on the same images for the same wall time: PSNR, LPIPS, codebook use.

    python benchmarks/tokenizer_recipes.py --images=FOLDER --seconds=600 --seeds=0,1,2

Both train the quickstart's widths at 64 pixels with the recipes of experiments/configs/tokenizer.py, with lengths and
learning rates scaled to this size. The peak rate is the same; it is constant for `taming`, as in its code, and falls
over the steps that fit the time for `lvm`. taming's discriminator starts at --discriminator_start. LPIPS (AlexNet) is
in both losses, and the clock starts after compilation. Held-out images (by hash of their names) are scored. Run it on
an idle machine: the two recipes of a seed run one after the other.
"""

import pathlib
import runpy
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import record  # benchmarks/ is the script's own folder
from absl import flags

from lvm_jax import cli
from lvm_jax.config import from_mapping
from lvm_jax.data.images.held_out_images import load_images
from lvm_jax.data.images.loader import ImageLoader
from lvm_jax.data.images.sources import open_images, split_source
from lvm_jax.data.step_loader import StepLoader
from lvm_jax.errors import UserError
from lvm_jax.evaluation.lpips import installed_lpips
from lvm_jax.evaluation.tokenizer.reconstruction import ReconstructionEvaluator
from lvm_jax.models.tokenizer.discriminator import DiscriminatorConfig
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig
from lvm_jax.tasks.tokenizer import TokenizerLoss, TokenizerStep, TokenizerTask
from lvm_jax.training.optimizer import OptimizerConfig, make_optimizer

CONFIGS = "experiments/configs/tokenizer.py"
SCORES = ("psnr", "ssim", "lpips", "codebook_usage", "code_perplexity")


def make_task(recipe: str, args: Any, steps: int) -> TokenizerTask:
    """A recipe at the benchmark's size, for about `steps` steps."""
    read = runpy.run_path(str(pathlib.Path(__file__).parents[1] / CONFIGS))["get_config"]
    ours = recipe == "lvm"
    config = read(f"small,recipe={recipe}" + (",l2_codes" if ours else ""))
    config.model.resolution = args.resolution
    config.loss.perceptual = args.perceptual
    config.loss.discriminator_start = 0 if ours else args.discriminator_start
    for name in ("generator", "critic"):
        peak = args.learning_rate * (0.25 if ours and name == "critic" else 1.0)
        end = peak / 50 if ours else peak
        config[name].update({"learning_rate": peak, "end_learning_rate": end})
        config[name].update({"warmup_steps": 20 if ours else 0, "decay_steps": max(steps, 21)})
    if ours:
        config.step.update({"ema_decay": 0.99, "revive_after": 50})
    return TokenizerTask(
        from_mapping(VQGANConfig, config.model),
        make_optimizer(from_mapping(OptimizerConfig, config.generator)),
        make_optimizer(from_mapping(OptimizerConfig, config.critic)),
        loss=from_mapping(TokenizerLoss, config.loss),
        discriminator=from_mapping(DiscriminatorConfig, config.discriminator),
        how=from_mapping(TokenizerStep, config.step),
    )


def train(
    task: TokenizerTask, loader: StepLoader, seed: int, seconds: float, steps: int = 0
) -> tuple[Any, int]:
    """Trains for `seconds`, or for `steps`, without compilation; returns the state and the number of steps."""
    constants = jax.device_put(task.constants)

    def one(state: Any, images: jax.Array, constants: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(seed), state["step"])
        return task.step(state, {"images": images, "constants": constants}, key)

    step = jax.jit(one, donate_argnums=0)
    state = jax.jit(task.init)(jax.random.key(seed))
    state, _ = step(state, jnp.asarray(next(loader)["images"]), constants)
    jax.block_until_ready(state)
    begin, done = time.perf_counter(), 1
    while (done < steps) if steps else (time.perf_counter() - begin < seconds):
        state, metrics = step(state, jnp.asarray(next(loader)["images"]), constants)
        loss = float(metrics["loss"].compute())  # also waits for the step
        done += 1
        if not np.isfinite(loss):
            raise UserError(f"the loss is {loss} at step {done}: lower the rate")
    return state, done


def score(recipe: str, seed: int, train_images: Any, held_out: np.ndarray, args: Any) -> dict:
    """Trains a recipe from a seed and scores it."""
    with ImageLoader(train_images, args.resolution, args.batch, seed, "random", True) as loader:
        length = args.steps
        if not length:  # the rate must fall over as many steps as fit the time
            length = 20 * train(make_task(recipe, args, 1000), loader, seed, args.seconds / 20)[1]
        task = make_task(recipe, args, length)
        state, steps = train(task, loader, seed, args.seconds, args.steps)
    evaluator = ReconstructionEvaluator(held_out, lpips_weights=installed_lpips())
    result = evaluator.run(task.export(state))
    return {"steps": steps, **{name: result[name] for name in SCORES}}


def main() -> None:
    """Trains both recipes from each seed, prints each and the means, and with --output writes them as JSON."""
    args = flags.FLAGS
    source = open_images(args.images)
    train_images, held = split_source(source, args.images, None, args.held_out_fraction)
    held_out = load_images(held, args.resolution, max_bad=100)
    print(f"{len(train_images.names)} images to train on, {len(held_out)} held out")
    results: dict[str, list[dict]] = {"taming": [], "lvm": []}
    for seed in map(int, args.seeds):
        for recipe, rows in results.items():
            rows.append(score(recipe, seed, train_images, held_out, args))
            print(f"seed {seed}, {recipe}: {rows[-1]}")
    means = {
        recipe: {name: _mean([row[name] for row in rows]) for name in ("steps", *SCORES)}
        for recipe, rows in results.items()
    }
    for recipe, values in means.items():
        print(f"mean of {len(args.seeds)} seeds, {recipe}: {values}")
    record.write({"means": means, "runs": results, "seconds": args.seconds})


def _mean(values: list[Any]) -> Any:
    """The mean, or the text in place of a number ("not installed")."""
    return values[0] if isinstance(values[0], str) else round(float(np.mean(values)), 4)


if __name__ == "__main__":
    flags.DEFINE_string("images", None, "folder, tars or TFRecords of images")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds of weights and order")
    flags.DEFINE_float("seconds", 600, "of training, each recipe and seed", lower_bound=1)
    flags.DEFINE_integer("steps", 0, "of each run; 0: as many as fit --seconds", lower_bound=0)
    flags.DEFINE_integer("resolution", 64, "side of the images", lower_bound=16)
    flags.DEFINE_integer("batch", 8, "images a step", lower_bound=1)
    flags.DEFINE_integer(
        "discriminator_start", 500, "step of `taming`; `lvm` begins with it", lower_bound=0
    )
    flags.DEFINE_float("learning_rate", 1e-3, "of both recipes", lower_bound=0.0)
    flags.DEFINE_string("perceptual", "lpips-alex", "of both recipes: lpips-alex, gradient, none")
    flags.DEFINE_float("held_out_fraction", 0.1, "of the images")
    cli.run(main, required_flags=["images"])
