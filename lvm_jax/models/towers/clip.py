"""CLIP's vision tower (Radford et al., arXiv 2103.00020, section 2.4), the old vocabulary beside Vary's new one.

Shapes: B batch, H W image, C channels, N patches, T = N + 1 tokens with CLS first, D width.
"""

from typing import Any, Self

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.models.decoder.norms import LayerNorm
from lvm_jax.models.stacking import stack
from lvm_jax.models.towers import folders, published_clip
from lvm_jax.models.towers.activations import gelu, quick_gelu
from lvm_jax.models.towers.block import Block, BlockShape, SelfAttention, run_stack
from lvm_jax.models.towers.clip_config import ClipVisionConfig
from lvm_jax.models.towers.patches import PatchEmbedding, check_images
from lvm_jax.parallel.sharding import constrain

MODEL_TYPE = "clip_vision"

ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu}


class ClipVision(nnx.Module):
    """`model(images_BHWC)` gives a token for each patch of normalised images: the output of `feature_layer`."""

    def __init__(self, config: ClipVisionConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        width, dtype = config.hidden_size, config.dtype
        self.patches = PatchEmbedding(
            config.num_channels, width, config.patch_size, use_bias=False, dtype=dtype, rngs=rngs
        )

        def drawn(shape: tuple[int, ...]) -> jax.Array:
            return config.initializer_range * jax.random.normal(rngs.params(), shape, jnp.float32)

        self.cls = nnx.Param(drawn((width,)), axes=("embed",))
        shape = (config.tokens_per_image + 1, width)
        self.positions = nnx.Param(drawn(shape), axes=(None, "embed"))
        self.pre_norm = LayerNorm(width, config.layer_norm_eps)
        self.layers = stack(lambda rngs: _block(config, rngs), config.num_hidden_layers, rngs)
        self.post_norm = LayerNorm(width, config.layer_norm_eps)

    def __call__(self, images_BHWC: Float[Array, "B H W C"]) -> Float[Array, "B N D"]:
        """Tokens of the patches, without CLS and without a last norm.

        Args:
          images_BHWC: normalised with CLIP's mean and deviation; see `ClipVisionConfig.image_size`.

        Raises:
          UserError: the images' size is not the configuration's, or they are not floats.
        """
        return self._after(images_BHWC, self.config.feature_blocks)[:, 1:]

    def pooled(self, images_BHWC: Float[Array, "B H W C"]) -> Float[Array, "B D"]:
        """One vector an image: CLS after all blocks and the last norm. Arguments as in `__call__`."""
        return self.post_norm(self._after(images_BHWC, self.config.num_hidden_layers)[:, 0])

    def _after(self, images_BHWC: jax.Array, blocks: int) -> jax.Array:
        """All tokens after the first `blocks` blocks."""
        config = self.config
        check_images(images_BHWC, config.image_size, config.num_channels)
        x_BhwD = self.patches(images_BHWC)
        B, D = x_BhwD.shape[0], config.hidden_size
        cls_B1D = jnp.broadcast_to(self.cls[...].astype(config.dtype), (B, 1, D))
        x_BTD = jnp.concatenate([cls_B1D, x_BhwD.reshape(B, -1, D)], axis=1)
        x_BTD = self.pre_norm(x_BTD + self.positions[...].astype(config.dtype)[None])
        x_BTD = constrain(x_BTD, "batch", None, "act_embed")
        return run_stack(self.layers, x_BTD, blocks, scan=config.scan_layers, remat=config.remat)

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
    def from_pretrained(cls, path: epath.PathLike, **overrides: Any) -> Self:
        """Reads a folder of `save_pretrained`, or one of transformers with a CLIP vision tower in it.

        Tensors of the text tower are left alone. Weights are read one parameter at a time; under a mesh
        (`jax.set_mesh`) every host reads only its devices' slices.

        Args:
          path: holds config.json, and safetensors or PyTorch's .bin files.
          **overrides: fields of `ClipVisionConfig` about how to compute (dtype, remat, scan_layers, attention).

        Raises:
          UserError: a file is missing or damaged, a setting is not supported, or tensors do not fit the configuration.
        """
        fields = folders.read_fields(path)
        if fields.get("model_type") == MODEL_TYPE:
            config = folders.read_config(ClipVisionConfig, fields, path, overrides)
            return folders.load(cls.abstract(config), path)
        with folders.open_files(path) as files:
            config = published_clip.config(fields, files.shapes, str(path))
            config = folders.overridden(config, overrides)
            prefix = published_clip.find(files.shapes, str(path))
            places = published_clip.places(config, prefix)

            def belongs(tensor: str) -> bool:
                return published_clip.belongs(prefix, tensor)

            return folders.load_published(
                cls.abstract(config), files, places, belongs, str(path), {}
            )

    @classmethod
    def abstract(cls, config: ClipVisionConfig) -> Self:
        """The tower with shapes in place of arrays."""
        return nnx.eval_shape(lambda: cls(config, rngs=nnx.Rngs(0)))


def _block(config: ClipVisionConfig, rngs: nnx.Rngs) -> Block:
    shape = BlockShape(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        mlp=config.intermediate_size,
        eps=config.layer_norm_eps,
        deviation=config.initializer_range,
        activation=ACTIVATIONS[config.hidden_act],
        attention=config.attention,
    )
    return Block(shape, SelfAttention(shape, rngs=rngs), rngs=rngs)
