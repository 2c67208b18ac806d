r"""Measures which way of drawing answers is best for a model, and writes it down as the model's default.

  python experiments/sampling_study.py --tokenizer=DIR --model=DIR --shards=DIR --output=OUT

For each task of the held-out sentences it tries greedy drawing, every temperature with every top-p, and the mean and
the likeliest of several candidates. One half of a task's sentences chooses, the other half reports. OUT/results.json
and OUT/results.md have the scores, beside copying, the nearest pair, the mean answer and the query itself.

OUT/generation.json is the best way over all tasks. --write_default puts it into the folder of the decoder, where
generate.py and the page look for it.
"""

from absl import flags
from etils import epath

from lvm_jax import cli, files
from lvm_jax.data.records.manifest import check_compatible
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.evaluation import about
from lvm_jax.evaluation.lvm.models import load_pair
from lvm_jax.evaluation.lvm.sampling_study import StudyConfig, study
from lvm_jax.evaluation.lvm.sentence_tasks import read_for_tasks
from lvm_jax.evaluation.lvm.visual_benchmark import Subject
from lvm_jax.inference.images import Engine
from lvm_jax.parallel import runtime
from lvm_jax.reporting.sampling import as_markdown

_TOKENIZER = flags.DEFINE_string("tokenizer", None, "folder of the VQGAN", required=True)
_MODEL = flags.DEFINE_string("model", None, "folder of the decoder", required=True)
_SHARDS = flags.DEFINE_string("shards", None, "folder of token shards", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "where the results go", required=True)
_SPLIT = flags.DEFINE_string("split", "validation", "split of the shards")
_TEMPERATURES = flags.DEFINE_multi_float(
    "temperature", [0.4, 0.6, 0.8, 1.0], "to try; give it several times"
)
_TOP_PS = flags.DEFINE_multi_float("top_p", [0.95, 1.0], "to try with each temperature")
_CANDIDATES = flags.DEFINE_integer("candidates", 8, "draws of each way", lower_bound=2)
_SENTENCES = flags.DEFINE_integer(
    "sentences", 32, "of each task, half to choose and half to report; 0 takes all", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "of all draws")
_BATCH = flags.DEFINE_integer("batch_size", 8, "prompts answered at once", lower_bound=1)
_WRITE_DEFAULT = flags.DEFINE_bool(
    "write_default", False, "write generation.json into the decoder's folder too"
)


def main() -> None:
    """Reads the sentences, tries every way, and writes the best."""
    runtime.initialize()
    config = StudyConfig(
        temperatures=_TEMPERATURES.value,
        top_ps=_TOP_PS.value,
        candidates=_CANDIDATES.value,
        max_sentences=_SENTENCES.value,
        seed=_SEED.value,
        batch_size=_BATCH.value,
    )
    vqgan, model = load_pair(_TOKENIZER.value, _MODEL.value)
    store = SentenceStore(_SHARDS.value, _SPLIT.value)
    check_compatible(store.manifest, tokenizer_fingerprint=vqgan.fingerprint())
    subject = Subject(Engine(model, vqgan.tokens_per_image, vqgan.codebook_size), vqgan)
    done = study(read_for_tasks(store, _SENTENCES.value), subject, config)
    results = {
        "environment": about.environment(),
        "tokenizer": about.described(vqgan),
        "seed": config.seed,
        "candidates": config.candidates,
        **done.results,
    }
    output = epath.Path(_OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    files.write_json(output / "results.json", results)
    (output / "results.md").write_text(as_markdown(results))
    done.default.save(output)
    if _WRITE_DEFAULT.value:
        done.default.save(_MODEL.value)
    print(f"best over all tasks: {results['default']}; the tables are in {output / 'results.md'}")


if __name__ == "__main__":
    cli.run(main)
