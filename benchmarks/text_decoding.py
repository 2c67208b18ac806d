r"""Text from pictures on the CPU: this project's generation against transformers' generate, in turns, in one run.

    python benchmarks/text_decoding.py --peer_python=OTHER_ENVIRONMENT/bin/python

An OPT decoder of random weights continues a batch of prompts, each of them image tokens as embeddings and one id, in
fp32 and greedily. Before any timing the ids of all ways must be equal. The ways:
  ours        one prefill, then all tokens in a few dispatches
  dynamic     transformers' generate with its default cache
  static      the same with a static cache
OTHER_ENVIRONMENT has torch and transformers. Run it on an idle machine.
"""

import functools
import pathlib
import tempfile

import jax
import numpy as np
import record  # benchmarks/ is the script's own folder
from absl import flags
from agreement import require_equal
from flax import nnx
from peers.driver import Peer
from turns import in_turns, seconds

from lvm_jax import cli
from lvm_jax.inference.generate import Generator, Stop
from lvm_jax.inference.sampling import Sampling
from lvm_jax.inference.text import Prompts, continue_prompts
from lvm_jax.models import Decoder
from lvm_jax.models.presets.language import opt
from lvm_jax.parallel import runtime

PEERS = ("dynamic", "static")
SPREAD = 0.1  # of the random weights: far enough that rounding does not turn an argmax


def main() -> None:
    """Checks, measures, prints, and with --output writes the numbers as JSON."""
    args = flags.FLAGS
    runtime.keep_freed_memory()
    threads, B, T, new = record.cores(), args.batch, args.image_tokens, args.new
    config = opt(args.preset, initializer_range=SPREAD)
    model = nnx.jit(lambda: Decoder(config, rngs=nnx.Rngs(0)))()
    rng = np.random.default_rng(0)
    embeds_BTD = rng.normal(0, SPREAD, (B, T, config.hidden_size)).astype(np.float32)
    next_B = rng.integers(3, config.vocab_size, B).astype(np.int32)
    generator = Generator(model.unstacked())
    prompts = Prompts(jax.numpy.asarray(embeds_BTD), np.full(B, T, np.int32), next_B)
    # The text may not end: every way draws as many tokens.
    stop = Stop((config.eos_token_id,), config.pad_token_id)
    allowed_V = np.arange(config.vocab_size) != config.eos_token_id
    record.announce()

    def ours(count: int) -> np.ndarray:
        options = {"allowed_V": allowed_V, "stop": stop, "sampling": Sampling(0.0)}
        return np.stack(
            [text for (text,) in continue_prompts(generator, prompts, count, **options)]
        )

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(pathlib.Path(folder))
        np.save(pathlib.Path(folder) / "embeds.npy", embeds_BTD)
        with Peer("torch_text.py", folder, threads) as peer:

            def theirs(way: str, count: int) -> dict:
                question = {"next": next_B.tolist(), "new": count, "way": way}
                return peer.ask(question | {"forbidden": [config.eos_token_id]})

            made = ours(new)
            for way in PEERS:
                require_equal(f"greedy ids of ours and {way}", made, theirs(way, new)["ids"])

            def measure(way: str, count: int) -> dict[str, float]:
                if way == "ours":
                    return {"seconds": seconds(lambda: ours(count))}
                return {"seconds": theirs(way, count)["seconds"]}

            turns = {
                f"{way}, {count} new": functools.partial(measure, way, count)
                for count in (1, new)
                for way in ("ours", *PEERS)
            }
            medians = in_turns(turns, args.rounds)
            versions = record.versions(peer.versions)
    times = {name: median["seconds"] for name, median in medians.items()}
    whole = {way: times[f"{way}, {new} new"] for way in ("ours", *PEERS)}
    read = {way: times[f"{way}, 1 new"] for way in whole}  # the prompts, and one token each
    token = {way: (whole[way] - read[way]) / (new - 1) for way in whole}
    print(
        f"OPT {args.preset}, {B} prompts of {T} image tokens, {new} new tokens each, fp32, {threads} threads, "
        f"{versions}\nours: {B * new / whole['ours']:,.0f} tokens/s; medians of {args.rounds}"
    )
    parts = {"whole": whole, "the prompts": read, "each further token": token}
    for name, part in parts.items():
        ratios = ", ".join(f"{way} {part[way] / part['ours']:.2f}" for way in PEERS)
        print(f"{name}: {part['ours']:.4f} s; as many times faster than: {ratios}")
    record.write({"threads": threads, "versions": versions, "seconds": parts})


if __name__ == "__main__":
    flags.DEFINE_string("preset", "125m", "decoder of lvm_jax.models.presets.language.opt")
    flags.DEFINE_integer("batch", 8, "prompts", lower_bound=1)
    flags.DEFINE_integer("image_tokens", 256, "of a prompt", lower_bound=1)
    flags.DEFINE_integer("new", 128, "tokens of an answer", lower_bound=2)
    flags.DEFINE_integer("rounds", 3, "turns of each way", lower_bound=1)
    cli.run(main, required_flags=["peer_python"])
