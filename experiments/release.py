r"""Packs the models of a finished run into a folder of at most 60 MB, with a model card and checksums.

  python experiments/release.py --workdir=RUN --output=release/lvm --archive=lvm_jax-release.tar.gz

Which training is there says whose run it is:

  lvm       LVM: tokenizer/ and lvm/, shards/, corpus/, evaluation/, prompts/
  two       Vary: tiny/ and two/, shards/, evaluation/tiny and evaluation/two
  unified   Unified: tokenizer/ and unified/, pools/, evaluation/pictures and evaluation/words

The trainings that these began from, such as lines/ before tiny/, are found by their configurations, and the card tells
them. You choose the stored type of the weights; the card says what it costs on held-out data.
"""

from pathlib import Path

from absl import flags

from lvm_jax import cli
from lvm_jax.parallel import runtime
from lvm_jax.release.folder import write_archive
from lvm_jax.release.pack import pack
from lvm_jax.release.systems import open_run
from lvm_jax.weights.model_folder import STORED_DTYPES

_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "folder of a finished run")
_OUTPUT = flags.DEFINE_string(
    "output", None, "folder to write, such as release/lvm; it must not exist", required=True
)
_ARCHIVE = flags.DEFINE_string("archive", None, "a .tar.gz to write too")
_NAME = flags.DEFINE_string(
    "name", None, "title of the model card; default: A small model of the run's system"
)
_TOKENIZER_DTYPE = flags.DEFINE_enum(
    "tokenizer_dtype",
    None,
    STORED_DTYPES,
    "of the image tokenizer's weights, where there is one; rounding moves codes; default: float32",
)
_MODEL_DTYPE = flags.DEFINE_enum(
    "model_dtype", "bfloat16", STORED_DTYPES, "of the weights of what answers"
)
_LICENCES = flags.DEFINE_string(
    "licences", None, "list of the data's licences; default: LICENSES.md of the workdir or corpus"
)


def main() -> None:
    """Packs the models and prints what the stored types cost."""
    runtime.initialize()
    run = open_run(_WORKDIR.value, _MODEL_DTYPE.value, _TOKENIZER_DTYPE.value)
    name = _NAME.value or f"A small model of {run.system}"
    for change in pack(run, _OUTPUT.value, name=name, licences=_LICENCES.value):
        print(change.in_words())
    if _ARCHIVE.value:
        archive = Path(_ARCHIVE.value)
        print(f"{write_archive(Path(_OUTPUT.value), archive, run.system)}  {archive}")
    print(f"read {Path(_OUTPUT.value) / 'MODEL_CARD.md'}")


if __name__ == "__main__":
    cli.run(main)
