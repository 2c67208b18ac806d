"""SegGPT: paints the hidden part of a column of masks, from that of the pictures.

Wang et al., SegGPT, arXiv 2304.03284, on Painter (arXiv 2212.02499, section 3.2): a plain vision transformer that reads
pictures and masks as two streams, which become one after a few blocks. All blocks attend globally, as the published
code does in effect.

A column is a canvas of two cells: the prompt above its query. Stochastic depth is left out.

Shapes: B batch, E examples of a query, H W a column in pixels, C channels, h w grid of patches, T = h * w, D width.
"""

from typing import Any, Self

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jaxtyping import Array, Bool, Float

from lvm_jax.models.canvas import published_seggpt
from lvm_jax.models.canvas.positions import resampled
from lvm_jax.models.canvas.seggpt_config import SegGptConfig
from lvm_jax.models.decoder.norms import LayerNorm
from lvm_jax.models.stacking import stack
from lvm_jax.models.tokenizer.vqgan_layers import Conv
from lvm_jax.models.towers import folders
from lvm_jax.models.towers.activations import gelu
from lvm_jax.models.towers.block import Block, BlockShape, Dense, Mix, run_stack
from lvm_jax.models.towers.patches import PatchEmbedding, check_images
from lvm_jax.models.towers.windows import GridAttention
from lvm_jax.parallel.sharding import constrain

MODEL_TYPE = "lvm_seggpt"


class SegGpt(nnx.Module):
    """`model(pictures, masks, hidden_BT)` paints columns of masks, those of E examples of a query together."""

    def __init__(self, config: SegGptConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        D, deviation = config.hidden_size, config.initializer_range

        def drawn(*shape: int) -> jax.Array:
            return deviation * jax.random.normal(rngs.params(), shape, jnp.float32)

        self.patches = PatchEmbedding(
            config.num_channels, D, config.patch_size, use_bias=True, dtype=config.dtype, rngs=rngs
        )
        self.hidden, self.of_pictures, self.of_masks, self.semantic, self.instance = (
            nnx.Param(drawn(D), axes=("embed",)) for _ in range(5)
        )
        side = config.pretrain_image_size // config.patch_size
        # The first is CLS's, which pre-training had and nothing reads.
        self.positions = nnx.Param(drawn(side**2 + 1, D), axes=(None, "embed"))
        self.layers = stack(lambda rngs: _block(config, rngs), config.num_hidden_layers, rngs)
        self.norm = LayerNorm(D, config.layer_norm_eps)
        self.head = Head(config, rngs=rngs)

    def __call__(
        self,
        pictures: Float[Array, "B E H W C"],
        masks: Float[Array, "B E H W C"],
        hidden_BT: Bool[Array, "B T"],
        *,
        semantic: bool = False,
    ) -> Float[Array, "B E H W C"]:
        """The columns of masks as painted, in fp32 and normalised as what is given.

        The examples of a query see each other only by the mean of what attention gives to the query's patches, in every
        block (feature ensemble, arXiv 2304.03284, section 3.3): the query's halves are then all the same.

        Args:
          pictures: columns, normalised by ImageNet's mean and deviation; the query is repeated for each example.
          masks: as coloured pictures, normalised alike. What their hidden patches hold does not matter.
          hidden_BT: patches of the masks that are to be painted.
          semantic: masks mark a class; otherwise one thing.

        Raises:
          UserError: columns have another size, or are not floats.
        """
        config, (B, E) = self.config, pictures.shape[:2]
        read_BSETD = self._embedded(pictures, masks, hidden_BT, semantic)
        x = read_BSETD.reshape(B * 2 * E, *read_BSETD.shape[3:])
        mix = None if E == 1 else _mean_of_queries(E)
        x = self._through(x, 0, config.merge_index + 1, mix)
        x = x.reshape(B, 2, E, *x.shape[1:]).mean(axis=1).reshape(B * E, *x.shape[1:])
        features, done = [], config.merge_index + 1
        for index in config.intermediate_hidden_state_indices:
            x = self._through(x, done, index + 1 - done, mix)
            features.append(self.norm(x))
            done = index + 1
        painted = self.head(jnp.concatenate(features, axis=-1))
        return painted.reshape(B, E, *painted.shape[1:])

    def hidden_pixels(self, hidden_BT: Bool[Array, "B T"]) -> Bool[Array, "B H W"]:
        """Which pixels lie in hidden patches."""
        hidden_Bhw = hidden_BT.reshape(-1, *self.config.grid)
        for axis in (1, 2):
            hidden_Bhw = jnp.repeat(hidden_Bhw, self.config.patch_size, axis=axis)
        return hidden_Bhw

    def _embedded(
        self, pictures: jax.Array, masks: jax.Array, hidden_BT: jax.Array, semantic: bool
    ) -> jax.Array:
        """The streams of pictures and of masks, (B, 2, E, T, D)."""
        config, (B, E) = self.config, pictures.shape[:2]
        both = jnp.stack([pictures, masks], axis=1)
        flat = both.reshape(-1, *both.shape[3:])
        check_images(flat, config.image_size, config.num_channels)
        dtype, D = config.dtype, config.hidden_size
        x = self.patches(flat).reshape(B, 2, E, -1, D)
        hidden_D = self.hidden[...].astype(dtype)
        shown = jnp.where(hidden_BT[:, None, :, None], hidden_D[None, None, None], x[:, 1])
        kind_D = (self.semantic if semantic else self.instance)[...]
        streams_SD = jnp.stack([self.of_pictures[...], self.of_masks[...]]) + kind_D[None]
        places_TD = self._places()
        added = streams_SD[:, None, None] + places_TD[None, None]
        return jnp.stack([x[:, 0], shown], axis=1) + added.astype(dtype)[None]

    def _places(self) -> jax.Array:
        side = self.config.pretrain_image_size // self.config.patch_size
        learned = self.positions[...][1:].reshape(side, side, -1)
        return resampled(learned, self.config.grid).reshape(-1, learned.shape[-1])

    def _through(self, x: jax.Array, first: int, count: int, mix: Mix | None) -> jax.Array:
        config = self.config
        return run_stack(
            self.layers,
            constrain(x, "batch", None, "act_embed"),
            count,
            first=first,
            mix=mix,
            scan=config.scan_layers,
            remat=config.remat,
        )

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
        """Reads a folder of `save_pretrained`, or of transformers' SegGptForImageSegmentation.

        Args:
          path: holds config.json, and safetensors or PyTorch's .bin files.
          **overrides: fields of `SegGptConfig` about how to compute (dtype, remat, scan_layers, attention).

        Raises:
          UserError: a file is missing or damaged, a setting is not supported, or tensors do not fit the configuration.
        """
        fields = folders.read_fields(path)
        if fields.get("model_type") == MODEL_TYPE:
            config = folders.read_config(SegGptConfig, fields, path, overrides)
            return folders.load(cls.abstract(config), path)
        config = folders.overridden(published_seggpt.config(fields, str(path)), overrides)
        with folders.open_files(path) as files:
            places = published_seggpt.places(config)
            return folders.load_published(
                cls.abstract(config), files, places, lambda _: True, str(path), {}
            )

    @classmethod
    def abstract(cls, config: SegGptConfig) -> Self:
        """The model with shapes in place of arrays."""
        return nnx.eval_shape(lambda: cls(config, rngs=nnx.Rngs(0)))


class Head(nnx.Module):
    """From features of patches to pixels: a linear layer, a 3x3 convolution, norm, GELU, a 1x1 convolution."""

    def __init__(self, config: SegGptConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        inputs = config.hidden_size * len(config.intermediate_hidden_state_indices)
        channels, dtype = config.decoder_hidden_size, config.dtype
        self.spread = Dense(
            (inputs, config.patch_size**2 * channels),
            ("embed", "mlp"),
            bias_axis="mlp",
            deviation=config.initializer_range,
            rngs=rngs,
        )
        self.conv = Conv(channels, channels, 3, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(channels, config.layer_norm_eps)
        self.out = Conv(channels, config.num_channels, 1, dtype="float32", rngs=rngs)

    def __call__(self, features_BTF: Float[Array, "B T F"]) -> Float[Array, "B H W C"]:
        """Pixels of columns."""
        (h, w), side = self.config.grid, self.config.patch_size
        x = self.spread(features_BTF).reshape(-1, h, w, side, side, self.config.decoder_hidden_size)
        x = x.swapaxes(2, 3).reshape(-1, h * side, w * side, x.shape[-1])
        return self.out(gelu(self.norm(self.conv(x))).astype(jnp.float32))


def _mean_of_queries(examples: int) -> Mix:
    """Replaces what the query's patches get by its mean over consecutive rows, which are its examples."""

    def mix(y_RTD: jax.Array) -> jax.Array:
        R, T, D = y_RTD.shape
        prompt, query = jnp.split(y_RTD.reshape(R // examples, examples, T, D), 2, axis=2)
        query = jnp.broadcast_to(query.mean(axis=1, keepdims=True), query.shape)
        return jnp.concatenate([prompt, query], axis=2).reshape(R, T, D)

    return mix


def _block(config: SegGptConfig, rngs: nnx.Rngs) -> Block:
    shape = BlockShape(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        mlp=config.mlp_dim,
        eps=config.layer_norm_eps,
        deviation=config.initializer_range,
        activation=gelu,
        attention=config.attention,
    )
    return Block(shape, GridAttention(shape, config.grid, 0, rngs=rngs), rngs=rngs)
