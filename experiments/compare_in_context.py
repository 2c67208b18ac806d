r"""Compares models that segment from examples, on the same episodes: the unified decoder, MAE-VQGAN, SegGPT.

python experiments/compare_in_context.py --tokenizer=TOKENIZER --shards=POOLS --output=OUT \
    --models=unified=W1/model,mae_vqgan=W2/model,seggpt=W3/model

OUT/results.json has the scores of each model beside baselines and controls, OUT/results.md a table of them,
OUT/comparison.html a page, and OUT/answers/NAME a good, a middling and a bad answer of each; see docs/unified.md.
MAE-VQGAN has room for one example.
"""

import json
from typing import cast

from absl import flags
from etils import epath

from lvm_jax import cli, files
from lvm_jax.data.in_context.episodes import RowStyle
from lvm_jax.data.in_context.pool import Side
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.evaluation import about
from lvm_jax.evaluation.in_context.comparison import compare, parse_models
from lvm_jax.evaluation.in_context.scoring import PoolQuestions
from lvm_jax.inference.answerers import read_answerer
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.parallel import runtime
from lvm_jax.reporting.comparison_page import as_markdown, write_page

_TOKENIZER = flags.DEFINE_string("tokenizer", None, "folder of the VQGAN", required=True)
_MODELS = flags.DEFINE_list("models", None, "NAME=FOLDER of each model", required=True)
_SHARDS = flags.DEFINE_string("shards", None, "folder of pools", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "where the results go", required=True)
_SPLIT = flags.DEFINE_string("split", "validation", "split of the pools")
_CLASSES = flags.DEFINE_enum("classes", "all", ["seen", "unseen", "all"], "of the pools")
_EXAMPLES = flags.DEFINE_integer("examples", 1, "pairs before a query", lower_bound=0)
_EPISODES = flags.DEFINE_integer("episodes", 256, "queries; 0 takes all", lower_bound=0)
_BATCH = flags.DEFINE_integer("batch_size", 8, "prompts at once", lower_bound=1)


def main() -> None:
    """Scores the models, then writes the results."""
    folders = parse_models(_MODELS.value)
    runtime.initialize()
    output, vqgan = epath.Path(_OUTPUT.value), VQGAN.from_pretrained(_TOKENIZER.value)
    answerers = {name: read_answerer(folder, vqgan) for name, folder in folders.items()}
    asked = PoolQuestions(
        _SHARDS.value,
        RowStyle(shots=(*[0.0] * _EXAMPLES.value, 1.0)),
        questions=(Question.SEGMENTATION,),
        split=_SPLIT.value,
        classes=cast(Side, _CLASSES.value),
        episodes=_EPISODES.value,
        batch_size=_BATCH.value,
    )
    scores = compare(answerers, vqgan, asked, output / "answers")
    text = as_markdown(scores)
    results = {
        "environment": about.environment(),
        "tokenizer": about.described(vqgan),
        "split": _SPLIT.value,
        "classes": _CLASSES.value,
        "examples": _EXAMPLES.value,
        "models": scores,  # by name, which may be any
    }
    output.mkdir(parents=True, exist_ok=True)
    files.write(output / "results.md", text)
    files.write(output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    told = f"{_SPLIT.value}, {_CLASSES.value} classes, {_EXAMPLES.value} examples, no words"
    print(text)
    print(f"open {write_page(scores, told, output)}")


if __name__ == "__main__":
    cli.run(main)
