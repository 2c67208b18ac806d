"""A whole system on two CPU cores, from its data to a report: runs the project's commands one after the other.

python experiments/quickstart.py --workdir=runs/quickstart
python experiments/quickstart.py --system=vary --workdir=runs/quickstart_vary

It prints every command; the README explains them. Stop it whenever you like: the same line continues.
"""

import dataclasses
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_pipelines.configs import vary_quickstart
from lvm_jax import cli, files
from lvm_jax.errors import UserError
from lvm_jax.release import folder as release_folder

_SYSTEM = flags.DEFINE_string("system", "lvm", "what to build: one of the names of CHAINS")
_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "where everything goes")
_RELEASE = flags.DEFINE_string(
    "release", "release", "folder of the releases; LVM's, where it exists, is asked too"
)
_TINY = flags.DEFINE_bool(
    "tiny", False, "a few pictures and steps: shows that the way works, learns nothing"
)
# By which captions of drawn things are compared.
_WORD_SETS = (
    "'colour=red orange yellow green cyan blue purple pink,side=left right,size=small large,"
    "form=disc square triangle star ring cross moon arrow heart hourglass'"
)
# What experiments/sampling_study.py found best for these models.
_DRAWN = "--temperature=0.8 --top_p=0.95 --candidates=8 --answer=likeliest"


@dataclasses.dataclass(frozen=True)
class Command:
    """One command, with its purpose in plain words."""

    name: str
    purpose: str
    line: str


def lvm_commands(w: str, tiny: bool, release: str | None) -> list[Command]:
    """LVM's commands in order. `w` is the workdir, `release` the folder of its released models, if any."""
    few = " --scenes=24 --clips=8 --turntables=8" if tiny else ""
    local = ",runlocal" if tiny else ""
    held_out = " --max_sentences=12" if tiny else ""
    return [
        Command(
            "corpus",
            "real photographs and video from the pack, and rendered scenes with exact annotations",
            f"-m data_pipelines.embedded_corpus --output={w}/corpus --size=32{few}",
        ),
        Command(
            "tokenizer",
            "k-means and a small network turn a 32 x 32 image into 64 codes of 512, and back",
            f"experiments/train.py --config=experiments/configs/tokenizer.py:quickstart,embedded{local} "
            f"--workdir={w}/tokenizer --config.data.images={w}/corpus --config.data.held_out={w}/corpus/validation.txt",
        ),
        Command(
            "shards",
            "the corpus becomes visual sentences, their images become codes (Apache Beam)",
            f"-m data_pipelines.build_uvd --config=data_pipelines/configs/quickstart.py{':runlocal' if tiny else ''} "
            f"--config.root={w}/corpus --tokenizer={w}/tokenizer/model --output={w}/shards",
        ),
        Command(
            "decoder",
            "a LLaMA learns to predict the next code",
            f"experiments/train.py --config=experiments/configs/lvm.py:quickstart{local} "
            f"--workdir={w}/lvm --config.data.shards={w}/shards",
        ),
        Command(
            "evaluation",
            "held-out images and sentences, beside honest baselines",
            f"experiments/evaluate.py --tokenizer={w}/tokenizer/model --model={w}/lvm/model --shards={w}/shards "
            f"--images={w}/corpus --maps={w}/corpus/scenes --probe_steps=0 --output={w}/evaluation --shots=3 "
            f"--answer_sentences={2 if tiny else 16}{held_out}",
        ),
        Command(
            "prompts",
            "visual prompts from held-out sentences, answered with a KV cache",
            f"experiments/generate.py --tokenizer={w}/tokenizer/model --model={w}/lvm/model --shards={w}/shards "
            f"--output={w}/prompts {_DRAWN}",
        ),
        *(_compared(w, release) if release else ()),
        Command("report", "one page with all of it", f"experiments/report.py --workdir={w}"),
    ]


def _compared(w: str, release: str) -> list[Command]:
    """The prompts of a release, answered by its models and by those just trained."""
    asked = f"--prompt={release}/prompts {_DRAWN}"
    return [
        Command(
            "released",
            "the released models answer the prompts that come with them",
            f"experiments/generate.py --tokenizer={release}/tokenizer --model={release}/decoder "
            f"--output={w}/prompts_released {asked}",
        ),
        Command(
            "compared",
            "the models just trained answer the same prompts",
            f"experiments/generate.py --tokenizer={w}/tokenizer/model --model={w}/lvm/model "
            f"--output={w}/prompts_compared {asked}",
        ),
    ]


def vary_commands(w: str, tiny: bool, release: str | None) -> list[Command]:
    """Vary's commands in order; arguments as in `lvm_commands`."""
    del release  # its pages are larger than what these models see
    whole = " ".join(
        f'--whole="{text}"' for text in (*vary_quickstart.QUESTIONS, "user", "assistant")
    )
    tokenizer = f"-m data_pipelines.train_text_tokenizer --shards={w}/shards"
    few = 2 if tiny else 64

    def training(name: str, size: str, tokenizer: str) -> str:
        return (
            f"experiments/train.py --config=experiments/configs/vary.py:{size}{',runlocal' if tiny else ''} "
            f"--workdir={w}/{name} --config.data.shards={w}/shards --config.data.tokenizer={w}/{tokenizer}"
        )

    def reading(name: str) -> str:
        return (
            f"experiments/evaluate_documents.py --model={w}/{name}/model --benchmark=shards --data={w}/shards "
            f"--output={w}/evaluation/{name} --max_questions={few} --batch_size=32 --max_new=40"
        )

    return [
        Command(
            "shards",
            "lines, small charts, shapes and photographs with what they say (Apache Beam)",
            f"-m data_pipelines.build_uvd --output={w}/shards "
            f"--config=data_pipelines/configs/vary_quickstart.py{':runlocal' if tiny else ''}",
        ),
        Command(
            "tokenizer",
            "each character of the texts is a token",
            f"{tokenizer} --output={w}/tokenizer --template=opt",
        ),
        Command(
            "instructions",
            "another for the second stage, in which each question is a token too",
            f"{tokenizer} --output={w}/instructions --template=mpt {whole}",
        ),
        Command(
            "tiny",
            "a new vision vocabulary learns to read, with a small decoder",
            training("tiny", "quickstart", "tokenizer"),
        ),
        Command(
            "two",
            "the new vocabulary, frozen, and an old one in front of another decoder, which gets instructions",
            f"{training('two', 'quickstart-two', 'instructions')} --config.init_from.tower={w}/tiny/model",
        ),
        Command(
            "old",
            "the old vocabulary alone, trained the same way",
            training("old", "quickstart-old", "instructions"),
        ),
        Command("read", "held-out pictures, right ones and others", reading("tiny")),
        Command("read_two", "the same with instructions", f"{reading('two')} --pictures"),
        Command("read_old", "the same by the old vocabulary", f"{reading('old')} --nocontrols"),
        Command("report", "one page with all of it", f"experiments/report.py --workdir={w}"),
    ]


def unified_commands(w: str, tiny: bool, release: str | None) -> list[Command]:
    """Unified's commands in order; arguments as in `lvm_commands`."""
    del release  # its episodes are of other things than these models learn
    local = ",runlocal" if tiny else ""
    things = (
        f"data_pipelines/configs/unified_shapes.py:plain,size=32,classes=colour,count=5000{local}"
    )
    tiles = f"data_pipelines/configs/unified_tiles.py{':runlocal' if tiny else ':size=32'}"
    few = " --images=24" if tiny else " --images=3000"
    pools = f"--tokenizer={w}/tokenizer/model --output={w}/pools"
    asked = (
        f"experiments/evaluate.py --tokenizer={w}/tokenizer/model --model={w}/unified/model "
        f"--shards={w}/pools/unified_shapes --classes=seen --word_sets={_WORD_SETS} --examples=1"
        f"{' --episodes=4' if tiny else ''}"
    )
    return [
        Command(
            "pictures",
            "drawn things in two or three colours, and masks, to train a tokenizer on",
            f"-m data_pipelines.sample_images --config={things} --output={w}/pictures/things{few}",
        ),
        Command(
            "tiles",
            "squares of coloured tiles, for the tokenizer too",
            f"-m data_pipelines.sample_images --config={tiles} --output={w}/pictures/tiles{few}",
        ),
        Command(
            "tokenizer",
            "k-means and a small network turn a 32 x 32 picture into 64 codes of 512, and back",
            f"experiments/train.py --config=experiments/configs/tokenizer.py:quickstart{local} "
            f"--workdir={w}/tokenizer --config.data.images={w}/pictures --config.data.held_out_fraction=0.02"
            f"{'' if tiny else ' --config.train.steps=200 --config.generator.decay_steps=200'}",
        ),
        Command(
            "pool",
            "things become records of codes, masks and words (Apache Beam)",
            f"-m data_pipelines.build_uvd --config={things} {pools}",
        ),
        Command(
            "pool_of_tiles",
            "tiles become records too",
            f"-m data_pipelines.build_uvd --config={tiles} {pools}",
        ),
        Command(
            "words",
            "a text tokenizer of the captions' words",
            f"-m data_pipelines.train_text_tokenizer --pools={w}/pools --output={w}/words --kind=bytes "
            "--vocab_size=512",
        ),
        Command(
            "decoder",
            "a decoder learns to answer from examples, by masks and in words",
            f"experiments/train.py --config=experiments/configs/unified.py:quickstart,experts=dense{local} "
            f"--workdir={w}/unified --config.data.shards={w}/pools --config.data.text_tokenizer={w}/words",
        ),
        Command(
            "evaluation",
            "held-out queries, the example without a word, beside baselines and controls",
            f"{asked} --category=none --output={w}/evaluation/pictures",
        ),
        Command(
            "evaluation_words",
            "the same, the example with the name of what is meant",
            f"{asked} --category=examples --output={w}/evaluation/words",
        ),
        Command("report", "one page with all of it", f"experiments/report.py --workdir={w}"),
    ]


# system -> its commands, of (workdir, tiny, release)
CHAINS: dict[str, Callable[[str, bool, str | None], list[Command]]] = {
    "lvm": lvm_commands,
    "vary": vary_commands,
    "unified": unified_commands,
}


def unfinished(chain: Sequence[Command], finished: Mapping[str, Any]) -> Sequence[Command]:
    """The first command that has not run as it stands, and all behind it, which read what it makes.

    Args:
      chain: all commands in order.
      finished: name of a command -> {"command", "seconds"}.
    """
    for number, command in enumerate(chain):
        if finished.get(command.name, {}).get("command") != command.line:
            return chain[number:]
    return ()


def main() -> None:
    """Runs the commands that are not finished."""
    if _SYSTEM.value not in CHAINS:
        raise UserError(f"--system={_SYSTEM.value} is unknown: choose from {', '.join(CHAINS)}")
    workdir = Path(_WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    record = workdir / "stages.json"  # what ran and for how long, also for the report
    finished = json.loads(record.read_text()) if record.exists() else {}
    with cli.only_one_run(workdir) as lock:
        # Quoted, because a folder's name may have spaces.
        release = _release()
        quoted = release and shlex.quote(release)
        chain = CHAINS[_SYSTEM.value](shlex.quote(str(workdir)), _TINY.value, quoted)
        done = len(chain) - len(unfinished(chain, finished))
        for number, command in enumerate(chain):
            title = f"[{number + 1}/{len(chain)}] {command.name}: {command.purpose}"
            if number < done:
                print(f"{title} (done, {finished[command.name]['seconds']:.0f} s)")
                continue
            print(f"\n{title}\n$ python {command.line}", flush=True)
            start = time.monotonic()
            cli.run_python(command.line, lock)
            seconds = time.monotonic() - start
            finished[command.name] = {"command": command.line, "seconds": round(seconds, 1)}
            files.write_json(record, finished)
    # Not of all that is finished: a release that was asked once may be gone.
    total = sum(finished[command.name]["seconds"] for command in chain)
    print(f"\nall of it took {total / 60:.1f} minutes; open {workdir / 'report.html'}")


def _release() -> str | None:
    """The folder of LVM's release, verified; None with --tiny, whose context is too short for its prompts."""
    if _TINY.value:
        return None
    found = release_folder.find(_RELEASE.value, release_folder.LVM)
    return None if found is None else str(found)


if __name__ == "__main__":
    cli.run(main)
