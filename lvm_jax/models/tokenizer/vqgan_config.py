"""The configuration of a VQGAN: its shape."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from lvm_jax.config import from_mapping, to_dict
from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Structure:
    """What differs between the published networks."""

    bias: bool  # of the residual blocks and of the encoder's first convolution
    pool: bool  # average pooling and depth to space, instead of convolution and nearest neighbour
    encoder_out_kernel: int
    more_decoder_blocks: int
    quant_conv: bool


_ARCHITECTURES = {
    "taming": Structure(True, False, encoder_out_kernel=3, more_decoder_blocks=1, quant_conv=True),
    "maskgit": Structure(
        False, True, encoder_out_kernel=1, more_decoder_blocks=0, quant_conv=False
    ),
    # Its networks are others (`patches.py`); of all this, only that no convolution surrounds the quantizer.
    "patches": Structure(
        True, False, encoder_out_kernel=1, more_decoder_blocks=0, quant_conv=False
    ),
}


@dataclasses.dataclass(frozen=True)
class VQGANConfig:
    """The shape of a VQGAN; first open-muse's field names, then ours.

    Attributes:
      resolution: side of the square images.
      num_channels: image channels.
      hidden_channels: the width that `channel_mult` multiplies; with patches, that of both networks.
      channel_mult: width of each stage, finest first; the side halves between stages. With patches all are 1, and their
        number alone counts.
      num_res_blocks: residual blocks per stage (the taming decoder has one more); with patches, of the decoder.
      attn_resolutions: sides at which attention follows each residual block.
      no_attn_mid_block: no attention between the two middle blocks.
      z_channels: channels of the encoder's output.
      num_embeddings: number of codes.
      quantized_embed_dim: dimension of a code.
      architecture: which published network, see `lvm_jax.models.tokenizer.vqgan`; or ours, "patches".
      pixel_range: pixel range inside the network; callers always use [0, 1].
      l2_normalize: compare features and codes on the unit sphere.
      norm_groups: groups of each GroupNorm. Narrow models need fewer than the published 32: groups
        of one channel would erase every channel's mean, and so the brightness of the image.
      dtype: of the convolutions.
      encoder_blocks: with patches, blocks that correct a patch before it is quantised; 0: codes are patches of pixels.
      encoder_reach: with patches, how many cells away the encoder looks; 0: a code depends on its own patch alone.
    """

    resolution: int = 256
    num_channels: int = 3
    hidden_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    no_attn_mid_block: bool = False
    z_channels: int = 256
    num_embeddings: int = 1024
    quantized_embed_dim: int = 256
    architecture: Literal["taming", "maskgit", "patches"] = "taming"
    pixel_range: Literal["0_1", "-1_1"] = "0_1"
    l2_normalize: bool = False
    norm_groups: int = 32
    dtype: Literal["float32", "bfloat16"] = "float32"
    encoder_blocks: int = 0
    encoder_reach: int = 0

    def __post_init__(self):
        self._check_sizes()
        if self.resolution % self.downsampling:
            raise UserError(
                f"resolution {self.resolution} does not halve {len(self.channel_mult) - 1} times: "
                f"it must be a multiple of {self.downsampling}"
            )
        for width in self.widths:
            if width % min(self.norm_groups, width):
                raise UserError(
                    f"width {width} does not split into {self.norm_groups} groups: "
                    "change hidden_channels, channel_mult or norm_groups"
                )
        if self.architecture == "maskgit" and self.z_channels != self.quantized_embed_dim:
            raise UserError(
                f"z_channels {self.z_channels} differs from quantized_embed_dim "
                f"{self.quantized_embed_dim}: the maskgit architecture has no convolution between them"
            )
        if self.architecture == "patches":
            self._check_patches()
        elif self.encoder_blocks or self.encoder_reach:
            raise UserError(
                f"encoder_blocks={self.encoder_blocks}, encoder_reach={self.encoder_reach}: the "
                f"{self.architecture} architecture has neither; set architecture=patches, or both to 0"
            )

    def _check_sizes(self) -> None:
        names = ("resolution", "num_channels", "hidden_channels", "z_channels")
        names += ("num_embeddings", "quantized_embed_dim", "norm_groups")
        least = dict.fromkeys(names, 1) | {"num_res_blocks": int(self.architecture != "patches")}
        for name, smallest in least.items():
            if vars(self)[name] < smallest:
                raise UserError(f"{name}={vars(self)[name]}: it must be at least {smallest}")
        if not self.channel_mult or min(self.channel_mult) < 1:
            raise UserError(
                f"channel_mult={self.channel_mult}: give each of at least one stage a factor of at least 1"
            )

    def _check_patches(self) -> None:
        values = self.num_channels * self.downsampling**2
        if not self.z_channels == self.quantized_embed_dim == values:
            raise UserError(
                f"z_channels={self.z_channels}, quantized_embed_dim={self.quantized_embed_dim}: with patches both are "
                f"the {values} values of a patch of {self.downsampling} x {self.downsampling} pixels"
            )
        if set(self.channel_mult) != {1} or self.attn_resolutions or not self.no_attn_mid_block:
            raise UserError(
                f"channel_mult={self.channel_mult}, attn_resolutions={self.attn_resolutions}, no_attn_mid_block="
                f"{self.no_attn_mid_block}: with patches they are (1, ..., 1), () and True"
            )
        if not 0 <= self.encoder_reach <= self.encoder_blocks:
            raise UserError(
                f"encoder_reach={self.encoder_reach}: each cell of reach takes one of the "
                f"{self.encoder_blocks} encoder_blocks, so it is between 0 and that"
            )

    @property
    def downsampling(self) -> int:
        """Pixels per code along a side (f)."""
        return 2 ** (len(self.channel_mult) - 1)

    @property
    def tokens_per_image(self) -> int:
        """N, codes an image."""
        return (self.resolution // self.downsampling) ** 2

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage, finest first."""
        return tuple(self.hidden_channels * mult for mult in self.channel_mult)

    @property
    def structure(self) -> Structure:
        """The structure that the architecture's name stands for."""
        return _ARCHITECTURES[self.architecture]


# Existing folders call the architecture "layout", and fingerprints are digests of that spelling.
_FIELD, _IN_FILES = "architecture", "layout"
_OF_PATCHES = (
    "encoder_blocks",
    "encoder_reach",
)  # younger than many folders: only patches have them


def to_file(config: VQGANConfig) -> dict[str, Any]:
    """The fields under their names in a folder's config.json."""
    fields = to_dict(config)
    fields[_IN_FILES] = fields.pop(_FIELD)
    if config.architecture != "patches":
        for name in _OF_PATCHES:
            del fields[name]
    return fields


def from_file(fields: Mapping[str, Any], where: str) -> VQGANConfig:
    """The config in a folder's config.json; either name of the architecture will do.

    Args:
      fields: field name -> value, as `to_file` returns them.
      where: what errors call the file.

    Raises:
      UserError: a field is unknown, or a value does not fit.
    """
    ours = {_FIELD if name == _IN_FILES else name: value for name, value in fields.items()}
    return from_mapping(VQGANConfig, ours, where)
