"""What carries a tower's tokens to a decoder's width.

Shapes: B batch, N tokens, I width of a tower's tokens, D width of the decoder.
"""

import dataclasses
from typing import Any, Literal, Self

from etils import epath
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.models.towers import folders
from lvm_jax.models.towers.block import Dense
from lvm_jax.models.towers.checks import check_sizes
from lvm_jax.models.towers.places import Located, Matrix

MODEL_TYPE = "projector"


@dataclasses.dataclass(frozen=True)
class ProjectorConfig:
    """Shape of a projector.

    Attributes:
      inputs: width of the tower's tokens.
      outputs: width of the decoder, or of its share if several towers' tokens are concatenated.
      initializer_range: standard deviation of the matrix at initialisation.
      dtype: of the product; parameters are fp32.
    """

    inputs: int
    outputs: int
    initializer_range: float = 0.02
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        check_sizes({"inputs": self.inputs, "outputs": self.outputs}, self.inputs, 1)


class Projector(nnx.Module):
    """One linear layer with a bias, as in Vary and GOT-OCR2."""

    def __init__(self, config: ProjectorConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.linear = Dense(
            (config.inputs, config.outputs),
            ("vision", "embed"),
            deviation=config.initializer_range,
            rngs=rngs,
        )

    def __call__(self, tokens_BNI: Float[Array, "B N I"]) -> Float[Array, "B N D"]:
        """The tokens in the decoder's width."""
        return self.linear(tokens_BNI.astype(self.config.dtype))

    def save_pretrained(self, directory: epath.PathLike, *, dtype: str = "float32") -> None:
        """Writes config.json and model.safetensors; `dtype`: one of `model_folder.STORED_DTYPES`.

        Raises:
          UserError: the dtype is unknown, or a weight does not fit it.
        """
        folders.save(self, self.config, MODEL_TYPE, directory, dtype)

    @classmethod
    def from_pretrained(cls, path: epath.PathLike, *, prefix: str = "", **overrides: Any) -> Self:
        """Reads a folder of `save_pretrained`, or a projector out of a published checkpoint.

        Args:
          path: a folder, or one file of safetensors or PyTorch.
          prefix: of the projector's weight and bias in a published checkpoint: "model.mm_projector." and
            "model.mm_projector_vary." in Vary, "multi_modal_projector.multimodal_projector." in GOT-OCR2. "": the
            folder is one of ours.
          **overrides: dtype.

        Raises:
          UserError: a file is missing or damaged, or holds no such projector.
        """
        if not prefix:
            fields = folders.read_own_fields(path, MODEL_TYPE)
            config = folders.read_config(ProjectorConfig, fields, path, overrides)
            return folders.load(cls.abstract(config), path)
        with folders.open_files(path) as files:
            outputs, inputs = folders.shape_of(files, f"{prefix}weight", 2, str(path))
            config = folders.overridden(ProjectorConfig(inputs, outputs), overrides)
            places = {
                "linear.kernel": Located(Matrix(1), (f"{prefix}weight",)),
                "linear.bias": Located(Matrix(0), (f"{prefix}bias",)),
            }
            return folders.load_published(
                cls.abstract(config), files, places, lambda t: t.startswith(prefix), str(path), {}
            )

    @classmethod
    def abstract(cls, config: ProjectorConfig) -> Self:
        """The projector with shapes in place of arrays."""
        return nnx.eval_shape(lambda: cls(config, rngs=nnx.Rngs(0)))
