r"""Packs the models of a finished run into a folder of at most 60 MB, with a model card and checksums.

  python experiments/release.py --workdir=runs/quickstart --output=release --archive=lvm_jax-release.tar.gz

You choose the stored type of the weights; the card says what it costs on held-out data.
"""

from pathlib import Path

from absl import flags

from lvm_jax import cli
from lvm_jax.parallel import runtime
from lvm_jax.release.folder import write_archive
from lvm_jax.release.pack import pack
from lvm_jax.weights.model_folder import STORED_DTYPES

_WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "folder of a finished run")
_OUTPUT = flags.DEFINE_string("output", "release", "folder to write; it must not exist")
_ARCHIVE = flags.DEFINE_string("archive", None, "a .tar.gz to write too")
_NAME = flags.DEFINE_string("name", "A small large vision model", "title of the model card")
_TOKENIZER_DTYPE = flags.DEFINE_enum(
    "tokenizer_dtype", "float32", STORED_DTYPES, "of the tokenizer's weights; rounding moves codes"
)
_DECODER_DTYPE = flags.DEFINE_enum(
    "decoder_dtype", "bfloat16", STORED_DTYPES, "of the decoder's weights"
)


def main() -> None:
    """Packs the models and prints what the stored types cost."""
    runtime.initialize()
    cost = pack(
        _WORKDIR.value,
        _OUTPUT.value,
        name=_NAME.value,
        tokenizer_dtype=_TOKENIZER_DTYPE.value,
        decoder_dtype=_DECODER_DTYPE.value,
    )
    print("held-out loss {:.4f} -> {:.4f} nats a code".format(*cost.code_loss), end=", ")
    print("PSNR {:.3f} -> {:.3f} dB".format(*cost.psnr), end=", ")
    print(f"{cost.codes_equal:.2%} of the codes stay the same")
    if _ARCHIVE.value:
        archive = Path(_ARCHIVE.value)
        print(f"{write_archive(Path(_OUTPUT.value), archive)}  {archive}")
    print(f"read {Path(_OUTPUT.value) / 'MODEL_CARD.md'}")


if __name__ == "__main__":
    cli.run(main)
