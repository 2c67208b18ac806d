"""SAM's ViTDet tower, and behind it the convolutions that merge its 64 x 64 patches into 256 tokens.

The tower of Vary's new vision vocabulary (arXiv 2312.06109, section 3.2.1): a plain vision transformer whose blocks
attend within windows, but for a few that attend over the whole grid (Li et al., arXiv 2203.16527, section 3; Kirillov
et al., arXiv 2304.02643, appendix A), a neck, and two convolutions of stride 2.

Shapes: B batch, H W image, C channels, h w grid of patches, T = h * w patches, D width, O channels of the neck,
N tokens, M width of a token.
"""

from typing import Any, Self

import jax.numpy as jnp
from etils import epath
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.models.decoder.norms import LayerNorm
from lvm_jax.models.stacking import stack
from lvm_jax.models.tokenizer.vqgan_layers import Conv
from lvm_jax.models.towers import folders, published_vitdet
from lvm_jax.models.towers.activations import gelu
from lvm_jax.models.towers.block import Block, BlockShape, run_stack
from lvm_jax.models.towers.patches import PatchEmbedding, check_images
from lvm_jax.models.towers.vitdet_config import MERGE_SIDE, VitDetConfig
from lvm_jax.models.towers.windows import GridAttention
from lvm_jax.parallel.sharding import constrain

MODEL_TYPE = "vitdet"
NECK_EPS = 1e-6


class VitDet(nnx.Module):
    """`model(images_BHWC)` gives the tokens of normalised images, in raster order and the compute dtype.

    Blocks with windows and global blocks alternate, so the stack repeats a period of them: two with windows and a
    global one, four times, in SAM's ViT-B. A scan compiles one period. If nothing repeats the period is the tower.
    """

    def __init__(self, config: VitDetConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        width, dtype = config.hidden_size, config.dtype
        self.patches = PatchEmbedding(
            config.num_channels, width, config.patch_size, use_bias=True, dtype=dtype, rngs=rngs
        )
        positions = jnp.zeros((*config.grid, width), jnp.float32)
        self.positions = nnx.Param(positions, axes=(None, None, "embed"))
        repeats = config.num_hidden_layers // config.period
        self.layers = stack(lambda rngs: Period(config, rngs=rngs), repeats, rngs)
        self.neck = Neck(config, rngs=rngs)
        self.merge = Merge(config, rngs=rngs)

    def __call__(self, images_BHWC: Float[Array, "B H W C"]) -> Float[Array, "B N M"]:
        """Tokens of images.

        Args:
          images_BHWC: normalised as the tower was trained; see `VitDetConfig.image_size`.

        Raises:
          UserError: the images' size is not the configuration's, or they are not floats.
        """
        merged = self.merge(self.features(images_BHWC))
        return merged.reshape(merged.shape[0], -1, merged.shape[-1])

    def features(self, images_BHWC: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 O"]:
        """What SAM's image encoder gives: the neck's output on the grid of patches."""
        config = self.config
        check_images(images_BHWC, config.image_size, config.num_channels)
        x_BhwD = self.patches(images_BHWC) + self.positions[...].astype(config.dtype)[None]
        x_BTD = x_BhwD.reshape(x_BhwD.shape[0], -1, config.hidden_size)
        x_BTD = run_stack(
            self.layers,
            constrain(x_BTD, "batch", None, "act_embed"),
            config.num_hidden_layers // config.period,
            scan=config.scan_layers,
            remat=config.remat,
        )
        return self.neck(x_BTD.reshape(x_BhwD.shape))

    def save_pretrained(self, directory: epath.PathLike, *, dtype: str = "float32") -> None:
        """Writes config.json and model.safetensors.

        Args:
          directory: made if missing.
          dtype: of the stored weights, one of `model_folder.STORED_DTYPES`.

        Raises:
          UserError: the dtype is unknown, or a weight does not fit it.
        """
        folders.save(self, self.config, MODEL_TYPE, directory, dtype)

    @classmethod
    def from_pretrained(
        cls, path: epath.PathLike, *, rngs: nnx.Rngs | None = None, **overrides: Any
    ) -> Self:
        """Reads a folder of `save_pretrained`, or published weights: of SAM, of Vary, of GOT-OCR2.

        Published folders and files may hold more than the tower, such as a mask decoder or a language model. Weights
        are read one parameter at a time; under a mesh (`jax.set_mesh`) every host reads only its devices' slices.

        Args:
          path: a folder, or one file of safetensors or PyTorch.
          rngs: for the merging convolutions, which SAM lacks; None: they must be in the files.
          **overrides: fields of `VitDetConfig` about how to compute (dtype, remat, scan_layers, attention).

        Raises:
          UserError: a file is missing or damaged, a setting is not supported, or tensors do not fit the configuration.
        """
        fields = folders.read_fields(path)
        if fields.get("model_type") == MODEL_TYPE:
            config = folders.read_config(VitDetConfig, fields, path, overrides)
            return folders.load(cls.abstract(config), path)
        with folders.open_files(path) as files:
            format = published_vitdet.find(files.shapes, str(path))
            config = published_vitdet.config(format, fields, files.shapes, str(path))
            config = folders.overridden(config, overrides)
            places = format.places(config)
            fresh = None if rngs is None else Merge(config, rngs=rngs)
            return folders.load_published(
                cls.abstract(config), files, places, format.belongs, str(path), {"merge": fresh}
            )

    @classmethod
    def abstract(cls, config: VitDetConfig) -> Self:
        """The tower with shapes in place of arrays."""
        return nnx.eval_shape(lambda: cls(config, rngs=nnx.Rngs(0)))


class Period(nnx.Module):
    """Consecutive blocks, with windows or global: what the stack repeats."""

    def __init__(self, config: VitDetConfig, *, rngs: nnx.Rngs) -> None:
        shape = BlockShape(
            width=config.hidden_size,
            heads=config.num_attention_heads,
            mlp=config.mlp_dim,
            eps=config.layer_norm_eps,
            deviation=config.initializer_range,
            activation=gelu,
            attention=config.attention,
        )
        self.places = nnx.List(
            Block(shape, GridAttention(shape, config.grid, window, rngs=rngs), rngs=rngs)
            for window in config.windows[: config.period]
        )

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies the blocks in order."""
        for block in self.places:
            x_BTD = block(x_BTD)
        return x_BTD


class Neck(nnx.Module):
    """A 1x1 and a 3x3 convolution to fewer channels, each with a norm over channels behind it."""

    def __init__(self, config: VitDetConfig, *, rngs: nnx.Rngs) -> None:
        channels, dtype = config.output_channels, config.dtype
        self.conv1 = Conv(config.hidden_size, channels, 1, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm1 = LayerNorm(channels, NECK_EPS)
        self.conv2 = Conv(channels, channels, MERGE_SIDE, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm2 = LayerNorm(channels, NECK_EPS)

    def __call__(self, x: Float[Array, "B H W D"]) -> Float[Array, "B H W O"]:
        """Applies the neck on the grid."""
        x = self.norm1(self.conv1(x))
        return self.norm2(self.conv2(x))


class Merge(nnx.Module):
    """3x3 convolutions that thin the grid, without norms and activations between them."""

    def __init__(self, config: VitDetConfig, *, rngs: nnx.Rngs) -> None:
        channels = (config.output_channels, *config.merge_channels)
        self.convs = nnx.List(
            Conv(
                inputs,
                outputs,
                MERGE_SIDE,
                stride=strides,
                use_bias=False,
                dtype=config.dtype,
                rngs=rngs,
            )
            for inputs, outputs, strides in zip(channels, channels[1:], config.merge_strides)
        )

    def __call__(self, x: Float[Array, "B H W O"]) -> Float[Array, "B H2 W2 M"]:
        """Applies the convolutions in order."""
        for conv in self.convs:
            x = conv(x)
        return x
