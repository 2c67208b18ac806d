"""VQGAN: images to a grid of discrete codes and back (Esser et al., arXiv 2012.09841).

Two published architectures share these networks:
  taming   that of taming-transformers and open-muse, which the released LVM tokenizer uses: strided
           convolutions down, nearest-neighbour upsampling, one more residual block on each decoder
           level, 1x1 convolutions around the quantizer.
  maskgit  the paper-era LVM tokenizer: bias-free residual blocks, average pooling down, depth to
           space up, equally many blocks on both sides, a 1x1 convolution to the code dimension.
and a third of our own, `patches`, lives in `patches.py`: its codes depend on their own patch alone.

Parameters are fp32, and convolutions compute in `dtype`. Group statistics, attention weights and
code distances are always fp32.

Shape suffixes: B batch, H W image, H2 W2 latent grid or resampled sides (h w in names), C channels, O channels out,
N = H2 * W2 tokens, D code dimension.
"""

import hashlib
import json
from typing import Any

import jax.numpy as jnp
from etils import epath
from flax import nnx
from jaxtyping import Array, Float, Int

from lvm_jax.errors import UserError
from lvm_jax.models.tokenizer import published_vqgan
from lvm_jax.models.tokenizer.patches import PatchDecoder, PatchEncoder
from lvm_jax.models.tokenizer.quantizer import Quantized, VectorQuantizer
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig, from_file, to_file
from lvm_jax.models.tokenizer.vqgan_layers import (
    Attention,
    Conv,
    Downsample,
    GroupNorm,
    ResBlock,
    Upsample,
)
from lvm_jax.weights import model_folder
from lvm_jax.weights.memo import WeightsMemo

MODEL_TYPE = "vqgan"
_FINGERPRINTS: WeightsMemo[str] = WeightsMemo()


class VQGAN(nnx.Module):
    """Image tokenizer.

    Example:
      vqgan = VQGAN(presets.vqgan("lvm-f16-8192"), rngs=nnx.Rngs(0))
      ids_BN = vqgan.encode(images_BHWC)  # float RGB in [0, 1] -> int32, raster order
      images_BHWC = vqgan.decode(ids_BN)  # float RGB in [0, 1]
    """

    def __init__(self, config: VQGANConfig, *, rngs: nnx.Rngs):
        self.config = config
        latent, code = config.z_channels, config.quantized_embed_dim
        in_patches = config.architecture == "patches"
        self.encoder = (PatchEncoder if in_patches else Encoder)(config, rngs=rngs)
        self.decoder = (PatchDecoder if in_patches else Decoder)(config, rngs=rngs)
        self.quantizer = VectorQuantizer(
            config.num_embeddings, code, l2_normalize=config.l2_normalize, rngs=rngs
        )
        if config.structure.quant_conv:
            self.quant_conv = Conv(latent, code, 1, dtype=config.dtype, rngs=rngs)
            self.post_quant_conv = Conv(code, latent, 1, dtype=config.dtype, rngs=rngs)

    @property
    def tokens_per_image(self) -> int:
        """N, codes an image."""
        return self.config.tokens_per_image

    @property
    def codebook_size(self) -> int:
        """K, the number of codes."""
        return self.config.num_embeddings

    def encode(self, images_BHWC: Float[Array, "B H W C"]) -> Int[Array, "B N"]:
        """int32 ids of float RGB images in [0, 1], in raster order.

        Raises:
          UserError: the images' size is not the config's, or they are not floats.
        """
        side, channels = self.config.resolution, self.config.num_channels
        if images_BHWC.ndim != 4 or images_BHWC.shape[1:] != (side, side, channels):
            raise UserError(
                f"images have shape {images_BHWC.shape}: this tokenizer takes "
                f"(batch, {side}, {side}, {channels}); resize them first"
            )
        if not jnp.issubdtype(images_BHWC.dtype, jnp.floating):
            raise UserError(
                f"images are {images_BHWC.dtype}: encode takes floats in [0, 1]; divide by 255"
            )
        return self.quantizer.nearest(self.encode_features(images_BHWC))

    def decode(self, ids_BN: Int[Array, "B N"]) -> Float[Array, "B H W C"]:
        """Float RGB images from ids in raster order, clamped to [0, 1].

        Under jit, ids outside the codebook cannot be detected: the caller must check them.

        Raises:
          UserError: an image does not have `tokens_per_image` ids.
        """
        if ids_BN.ndim != 2 or ids_BN.shape[1] != self.tokens_per_image:
            raise UserError(
                f"ids have shape {ids_BN.shape}: decode takes (batch, {self.tokens_per_image})"
            )
        side = self.config.resolution // self.config.downsampling
        codes_BhwD = self.quantizer.lookup(ids_BN).reshape(ids_BN.shape[0], side, side, -1)
        return jnp.clip(self.decode_features(codes_BhwD), 0, 1)

    def encode_features(self, images_BHWC: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        """fp32 features before quantisation. Sides may be any multiple of `downsampling`."""
        if self.config.pixel_range == "-1_1":
            images_BHWC = 2 * images_BHWC - 1
        z_BhwD = self.encoder(images_BHWC.astype(self.config.dtype))
        if self.config.structure.quant_conv:
            z_BhwD = self.quant_conv(z_BhwD)
        return z_BhwD.astype(jnp.float32)

    def quantize(self, z_BhwD: Float[Array, "B H2 W2 D"]) -> Quantized:
        """The nearest codes of features, with the straight-through gradient."""
        return self.quantizer(z_BhwD)

    def decode_features(self, codes_BhwD: Float[Array, "B H2 W2 D"]) -> Float[Array, "B H W C"]:
        """fp32 images from code vectors, about [0, 1] but not clamped: a loss needs the gradient beyond the range."""
        x = codes_BhwD.astype(self.config.dtype)
        if self.config.structure.quant_conv:
            x = self.post_quant_conv(x)
        images_BHWC = self.decoder(x).astype(jnp.float32)
        return (images_BHWC + 1) / 2 if self.config.pixel_range == "-1_1" else images_BHWC

    def fingerprint(self) -> str:
        """16 hex digits that identify this tokenizer: SHA-256 over its config and weights.

        The compute dtype does not count: shards made in bf16 fit a model used in fp32. Weights are hashed only once, as
        long as they do not change.
        """
        return _FINGERPRINTS.of(self, self._hashed)

    def _hashed(self) -> str:
        digest = hashlib.sha256(json.dumps(self._identity(), sort_keys=True).encode())
        for name, tensor in model_folder.to_tensors(self).items():
            digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
            digest.update(tensor.tobytes())
        return digest.hexdigest()[:16]

    def save_pretrained(self, directory: epath.PathLike, *, dtype: str = "float32") -> None:
        """Writes `config.json` and `model.safetensors` into `directory`.

        Args:
          directory: made if missing.
          dtype: of the stored weights, one of `model_folder.STORED_DTYPES`. A rounded tokenizer is another tokenizer:
            its fingerprint and a few codes differ.
        """
        config = {"model_type": MODEL_TYPE, **to_file(self.config)}
        tensors = model_folder.rounded(model_folder.to_tensors(self), dtype)
        model_folder.save_folder(directory, config, tensors)

    @classmethod
    def from_pretrained(
        cls,
        path: epath.PathLike,
        *,
        dtype: str | None = None,
        config: VQGANConfig | None = None,
    ) -> "VQGAN":
        """Reads a folder of `save_pretrained` or of open-muse, or a PyTorch file with the published names.

        A PyTorch file (a taming-transformers checkpoint, pytorch_model.bin) is read without PyTorch, and no code that
        its pickle names is run.

        Args:
          path: a folder with config.json and weights, or a .ckpt, .pt, .pth or .bin file.
          dtype: to compute in, if not the config's.
          config: of a published model. Default: its config.json; for a file, the config that its tensors' shapes imply,
            with pixels in [-1, 1] and images of 256 as in taming-transformers.

        Raises:
          UserError: a file is missing or damaged, or tensors do not fit the config.
        """
        where = str(path)
        if published_vqgan.is_published(path, MODEL_TYPE):
            config, published = published_vqgan.read_published(path, config)
        else:
            if config is not None:
                raise UserError(f"{where} has its own config: pass none")
            fields = model_folder.read_config(path)
            if fields.pop("model_type", None) != MODEL_TYPE:
                raise UserError(f"{where} does not hold a {MODEL_TYPE}: see its config.json")
            config = from_file(fields, where=f"{where}/config.json")
            published = None
        if dtype is not None:
            config = from_file({**to_file(config), "dtype": dtype}, where)
        abstract = cls.abstract(config)
        if published is None:
            return model_folder.from_tensors(abstract, model_folder.read_tensors(path), where=where)
        shapes = {k: tuple(v.shape) for k, v in model_folder.named_parameters(abstract).items()}
        tensors = published_vqgan.to_ours(config, shapes, published, where)
        return model_folder.from_tensors(abstract, tensors, where=where)

    @classmethod
    def abstract(cls, config: VQGANConfig) -> "VQGAN":
        """The module with shapes in place of arrays; allocates nothing."""
        return nnx.eval_shape(lambda: cls(config, rngs=nnx.Rngs(0)))

    def _identity(self) -> dict[str, Any]:
        fields = to_file(self.config)
        del fields["dtype"]
        return fields


class Encoder(nnx.Module):
    """Maps images to features of `z_channels`."""

    def __init__(self, config: VQGANConfig, *, rngs: nnx.Rngs):
        widths, structure = config.widths, config.structure
        self.conv_in = Conv(
            config.num_channels,
            widths[0],
            3,
            use_bias=structure.bias,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.down = nnx.List()
        channels = widths[0]
        for level, width in enumerate(widths):
            coarsest = level == len(widths) - 1
            downsample = None if coarsest else Downsample(width, config, rngs=rngs)
            blocks = config.num_res_blocks
            self.down.append(Stage(config, level, channels, blocks, downsample, rngs=rngs))
            channels = width
        self.mid = Middle(config, rngs=rngs)
        self.norm_out = GroupNorm(channels, config.norm_groups)
        size = structure.encoder_out_kernel
        self.conv_out = Conv(channels, config.z_channels, size, dtype=config.dtype, rngs=rngs)

    def __call__(self, x_BHWC: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 D"]:
        """Features of images already in the network's pixel range and dtype."""
        x = self.conv_in(x_BHWC)
        for stage in self.down:
            x = stage(x)
        x = self.mid(x)
        return self.conv_out(nnx.silu(self.norm_out(x)))


class Decoder(nnx.Module):
    """Maps features of `z_channels` to images. `up[0]` is the finest level, as published."""

    def __init__(self, config: VQGANConfig, *, rngs: nnx.Rngs):
        widths = config.widths
        blocks = config.num_res_blocks + config.structure.more_decoder_blocks
        self.conv_in = Conv(config.z_channels, widths[-1], 3, dtype=config.dtype, rngs=rngs)
        self.mid = Middle(config, rngs=rngs)
        stages = []
        channels = widths[-1]
        for level in reversed(range(len(widths))):
            upsample = Upsample(widths[level], config, rngs=rngs) if level else None
            stages.append(Stage(config, level, channels, blocks, upsample=upsample, rngs=rngs))
            channels = widths[level]
        self.up = nnx.List(stages[::-1])
        self.norm_out = GroupNorm(channels, config.norm_groups)
        # Small, so that training starts from flat pictures and not from noise that it must unlearn.
        small = nnx.initializers.variance_scaling(0.01, "fan_in", "normal")
        self.conv_out = Conv(
            channels, config.num_channels, 3, kernel_init=small, dtype=config.dtype, rngs=rngs
        )

    def __call__(self, z_BhwD: Float[Array, "B H2 W2 D"]) -> Float[Array, "B H W C"]:
        """Images in the network's pixel range, not clamped."""
        x = self.mid(self.conv_in(z_BhwD))
        for stage in reversed(self.up):
            x = stage(x)
        return self.conv_out(nnx.silu(self.norm_out(x)))


class Stage(nnx.Module):
    """One resolution: residual blocks, each with attention if so configured, then resampling."""

    def __init__(
        self,
        config: VQGANConfig,
        level: int,
        channels: int,
        blocks: int,
        downsample: Downsample | None = None,
        upsample: Upsample | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        width = config.widths[level]
        inputs = [channels] + [width] * (blocks - 1)
        self.block = nnx.List([ResBlock(c, width, config, rngs=rngs) for c in inputs])
        attend = config.resolution // 2**level in config.attn_resolutions
        self.attn = nnx.List([Attention(width, config, rngs=rngs) for _ in inputs if attend])
        self.downsample = downsample
        self.upsample = upsample

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 O"]:
        """Runs the stage."""
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        if self.downsample is not None:
            x = self.downsample(x)
        return x if self.upsample is None else self.upsample(x)


class Middle(nnx.Module):
    """Two residual blocks at the coarsest stage, with attention between them unless configured off."""

    def __init__(self, config: VQGANConfig, *, rngs: nnx.Rngs):
        width = config.widths[-1]
        self.block_1 = ResBlock(width, width, config, rngs=rngs)
        self.attn_1 = None if config.no_attn_mid_block else Attention(width, config, rngs=rngs)
        self.block_2 = ResBlock(width, width, config, rngs=rngs)

    def __call__(self, x: Float[Array, "B H2 W2 C"]) -> Float[Array, "B H2 W2 C"]:
        """Runs the blocks in order."""
        x = self.block_1(x)
        if self.attn_1 is not None:
            x = self.attn_1(x)
        return self.block_2(x)
