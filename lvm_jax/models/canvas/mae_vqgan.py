"""MAE-VQGAN: a masked autoencoder that fills the hidden patches of a canvas with codes of an image tokenizer.

Bar et al., Visual Prompting via Image Inpainting, arXiv 2209.00647, section 3.2: the encoder and the decoder of MAE (He
et al., arXiv 2111.06377) with a head over codes in place of pixels.

Shapes: B batch, H W canvas, C channels, T patches in raster order, K patches that are shown, D width, V codes.
"""

from typing import Any, Self

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jaxtyping import Array, Float, Int

from lvm_jax.models.canvas import published_mae
from lvm_jax.models.canvas.mae_vqgan_config import MaeVqganConfig
from lvm_jax.models.canvas.positions import waves
from lvm_jax.models.decoder.hf_config import TOKENIZER
from lvm_jax.models.decoder.norms import LayerNorm
from lvm_jax.models.stacking import stack
from lvm_jax.models.towers import folders
from lvm_jax.models.towers.activations import gelu
from lvm_jax.models.towers.block import Block, BlockShape, Dense, SelfAttention, run_stack
from lvm_jax.models.towers.patches import PatchEmbedding, check_images
from lvm_jax.parallel.sharding import constrain

MODEL_TYPE = "mae_vqgan"


class MaeVqgan(nnx.Module):
    """`model(canvas_BHWC, shown_BK)` gives the logits of each patch's code; the encoder sees the shown patches only.

    Attributes:
      tokenizer_fingerprint: `VQGAN.fingerprint()` of the tokenizer whose codes it was trained on; "": unknown.
    """

    def __init__(self, config: MaeVqganConfig, *, rngs: nnx.Rngs) -> None:
        self.config, self.tokenizer_fingerprint = config, ""
        D, narrow = config.hidden_size, config.decoder_hidden_size
        eps, deviation = config.layer_norm_eps, config.initializer_range
        self.patches = PatchEmbedding(
            config.num_channels, D, config.patch_size, use_bias=True, dtype=config.dtype, rngs=rngs
        )
        self.cls = nnx.Param(_drawn(D, deviation, rngs), axes=("embed",))
        encoder, decoder = _shapes(config)
        self.layers = stack(lambda rngs: _block(encoder, rngs), config.num_hidden_layers, rngs)
        self.norm = LayerNorm(D, eps)
        self.narrow = Dense((D, narrow), ("embed", None), deviation=deviation, rngs=rngs)
        self.hidden = nnx.Param(_drawn(narrow, deviation, rngs), axes=("embed",))
        self.decoder_layers = stack(
            lambda rngs: _block(decoder, rngs), config.decoder_num_hidden_layers, rngs
        )
        self.decoder_norm = LayerNorm(narrow, eps)
        self.head = Dense(
            (narrow, config.codes),
            ("embed", "vocab"),
            bias_axis="vocab",
            deviation=deviation,
            rngs=rngs,
        )

    def __call__(
        self, canvas_BHWC: Float[Array, "B H W C"], shown_BK: Int[Array, "B K"]
    ) -> Float[Array, "B T V"]:
        """fp32 logits of the code of each patch, the shown ones included.

        Args:
          canvas_BHWC: normalised by ImageNet's mean and deviation. What its hidden patches hold does not matter.
          shown_BK: which patches the encoder sees, in any order, each once.

        Raises:
          UserError: the canvas has another size, or is not float.
        """
        seen_BKD = self._encoded(canvas_BHWC, shown_BK)
        return self._decoded(seen_BKD, shown_BK)

    def _encoded(self, canvas_BHWC: jax.Array, shown_BK: jax.Array) -> jax.Array:
        """CLS and the shown patches after the encoder."""
        config = self.config
        check_images(canvas_BHWC, config.image_size, config.num_channels)
        x_BhwD = self.patches(canvas_BHWC)
        B, D = x_BhwD.shape[0], config.hidden_size
        places_TD = jnp.asarray(waves(config.grid, D), config.dtype)
        x_BTD = x_BhwD.reshape(B, -1, D) + places_TD[None]
        shown_BKD = jnp.take_along_axis(x_BTD, shown_BK[..., None], axis=1)
        cls_B1D = jnp.broadcast_to(self.cls[...].astype(config.dtype), (B, 1, D))
        x_BKD = constrain(jnp.concatenate([cls_B1D, shown_BKD], axis=1), "batch", None, "act_embed")
        x_BKD = run_stack(
            self.layers,
            x_BKD,
            config.num_hidden_layers,
            scan=config.scan_layers,
            remat=config.remat,
        )
        return self.norm(x_BKD)

    def _decoded(self, seen_BKD: jax.Array, shown_BK: jax.Array) -> jax.Array:
        """Logits of all patches; those that are not shown begin as one learned vector."""
        config = self.config
        y_BKD = self.narrow(seen_BKD)
        B, _, D = y_BKD.shape
        places_TD = waves(config.grid, D)
        hidden_BTD = jnp.broadcast_to(
            self.hidden[...].astype(config.dtype), (B, places_TD.shape[0], D)
        )
        rows_B1 = jnp.arange(B)[:, None]
        y_BTD = hidden_BTD.at[rows_B1, shown_BK].set(y_BKD[:, 1:])
        y_BTD = y_BTD + jnp.asarray(places_TD, config.dtype)[None]
        y_BTD = jnp.concatenate([y_BKD[:, :1], y_BTD], axis=1)  # CLS has no place
        y_BTD = run_stack(
            self.decoder_layers,
            constrain(y_BTD, "batch", None, "act_embed"),
            config.decoder_num_hidden_layers,
            scan=config.scan_layers,
            remat=config.remat,
        )
        logits_BTV = self.head(self.decoder_norm(y_BTD[:, 1:]).astype(jnp.float32))
        return constrain(logits_BTV, "batch", None, "act_vocab")

    def save_pretrained(self, directory: epath.PathLike, *, dtype: str = "float32") -> None:
        """Writes config.json and model.safetensors.

        Args:
          directory: made if missing.
          dtype: of the stored weights, one of `model_folder.STORED_DTYPES`.

        Raises:
          UserError: the dtype is unknown, or a weight does not fit it.
        """
        beside = {TOKENIZER: self.tokenizer_fingerprint}
        folders.save(self, self.config, MODEL_TYPE, directory, dtype, beside)

    @classmethod
    def from_pretrained(cls, path: epath.PathLike, **overrides: Any) -> Self:
        """Reads a folder of `save_pretrained`, or of transformers' ViTMAEForPreTraining with a head over codes.

        Args:
          path: holds config.json, and safetensors or PyTorch's .bin files.
          **overrides: fields of `MaeVqganConfig` about how to compute (dtype, remat, scan_layers, attention).

        Raises:
          UserError: a file is missing or damaged, a setting is not supported, the head is over pixels, or tensors do
            not fit the configuration.
        """
        fields = folders.read_fields(path)
        if fields.get("model_type") == MODEL_TYPE:
            fingerprint = str(fields.pop(TOKENIZER, None) or "")
            config = folders.read_config(MaeVqganConfig, fields, path, overrides)
            model = folders.load(cls.abstract(config), path)
            model.tokenizer_fingerprint = fingerprint
            return model
        with folders.open_files(path) as files:
            config = published_mae.config(fields, files.shapes, str(path))
            config = folders.overridden(config, overrides)
            places = published_mae.places(config)
            return folders.load_published(
                cls.abstract(config), files, places, published_mae.belongs, str(path), {}
            )

    @classmethod
    def abstract(cls, config: MaeVqganConfig) -> Self:
        """The model with shapes in place of arrays."""
        return nnx.eval_shape(lambda: cls(config, rngs=nnx.Rngs(0)))


def _drawn(size: int, deviation: float, rngs: nnx.Rngs) -> jax.Array:
    return deviation * jax.random.normal(rngs.params(), (size,), jnp.float32)


def _shapes(config: MaeVqganConfig) -> tuple[BlockShape, BlockShape]:
    """Of the encoder's blocks and of the decoder's."""
    sizes = (
        (config.hidden_size, config.num_attention_heads, config.intermediate_size),
        (
            config.decoder_hidden_size,
            config.decoder_num_attention_heads,
            config.decoder_intermediate_size,
        ),
    )
    encoder, decoder = (
        BlockShape(
            width=width,
            heads=heads,
            mlp=mlp,
            eps=config.layer_norm_eps,
            deviation=config.initializer_range,
            activation=gelu,
            attention=config.attention,
        )
        for width, heads, mlp in sizes
    )
    return encoder, decoder


def _block(shape: BlockShape, rngs: nnx.Rngs) -> Block:
    return Block(shape, SelfAttention(shape, rngs=rngs), rngs=rngs)
