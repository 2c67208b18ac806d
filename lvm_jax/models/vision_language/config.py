"""What a vision-language model is, before any array exists."""

import dataclasses
from collections.abc import Mapping

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.towers.clip_config import ClipVisionConfig
from lvm_jax.models.towers.projectors import ProjectorConfig
from lvm_jax.models.towers.vitdet_config import VitDetConfig
from lvm_jax.pictures.pixels import IMAGENET_DEVIATION, IMAGENET_MEAN

# Of the three colours, for pixels in [0, 1]. SAM and Vary's tower were trained with ImageNet's.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)

# What a batch calls the pictures as each branch sees them, in the order in which tokens are concatenated.
CLIP, VITDET = "images_clip", "images"
_ATTRIBUTES = {CLIP: "clip", VITDET: "vitdet"}


@dataclasses.dataclass(frozen=True)
class VitDetBranch:
    """The new vocabulary: a ViTDet tower, and how its pictures are normalised.

    Attributes:
      tower: the tower.
      mean: of each colour, for pixels in [0, 1].
      deviation: what remains is divided by it.
    """

    tower: VitDetConfig = VitDetConfig()  # noqa: RUF009 - frozen
    mean: tuple[float, ...] = IMAGENET_MEAN
    deviation: tuple[float, ...] = IMAGENET_DEVIATION

    def __post_init__(self) -> None:
        _check_colours(self)


@dataclasses.dataclass(frozen=True)
class ClipBranch:
    """The old vocabulary: a CLIP tower; fields as in `VitDetBranch`."""

    tower: ClipVisionConfig = ClipVisionConfig()  # noqa: RUF009 - frozen
    mean: tuple[float, ...] = CLIP_MEAN
    deviation: tuple[float, ...] = CLIP_DEVIATION

    def __post_init__(self) -> None:
        _check_colours(self)


Branch = VitDetBranch | ClipBranch


def _check_colours(branch: Branch) -> None:
    colours = branch.tower.num_channels
    if len(branch.mean) != colours or len(branch.deviation) != colours or 0 in branch.deviation:
        raise UserError(
            f"mean={branch.mean}, deviation={branch.deviation}: give a number for each of the {colours} colours, and "
            "no deviation of 0"
        )


@dataclasses.dataclass(frozen=True)
class VisionLanguageConfig:
    """Towers, a linear layer behind each, and a decoder.

    With two branches each linear layer gives half of the decoder's width, and the halves are concatenated, CLIP's first
    (arXiv 2312.06109, section 3.3).

    Attributes:
      decoder: reads image tokens and text.
      vitdet: the new vocabulary; None: the model has none.
      clip: the old vocabulary; None: the model has none.
      image_patch_id: stands in a row where an image token goes.
      image_start_id: before the tokens of an image.
      image_end_id: behind them.
    """

    decoder: DecoderConfig
    vitdet: VitDetBranch | None
    clip: ClipBranch | None
    image_patch_id: int
    image_start_id: int
    image_end_id: int

    def __post_init__(self) -> None:
        branches = self.branches
        if not branches:
            raise UserError("vitdet and clip are both None: a model that sees has at least one")
        counts = {name: branch.tower.tokens_per_image for name, branch in branches.items()}
        if len(set(counts.values())) > 1:
            raise UserError(
                f"the clip tower gives {counts[CLIP]} tokens an image and the vitdet tower {counts[VITDET]}: choose "
                "sizes with equal numbers, or tokens cannot be concatenated"
            )
        if self.decoder.hidden_size % len(branches):
            raise UserError(
                f"decoder hidden_size={self.decoder.hidden_size} does not divide over {len(branches)} branches"
            )
        ids = self.image_ids
        for name, id in zip(("image_patch_id", "image_start_id", "image_end_id"), ids):
            if not 0 <= id < self.decoder.vocab_size:
                raise UserError(
                    f"{name}={id} is not an id below the decoder's vocab_size={self.decoder.vocab_size}"
                )
        if len(set(ids)) < len(ids):
            raise UserError(f"the image ids (patch, start, end) are {ids}: give each its own")

    @property
    def branches(self) -> Mapping[str, Branch]:
        """Name of the pictures in a batch -> the branch that sees them, in the order of concatenation."""
        both = {CLIP: self.clip, VITDET: self.vitdet}
        return {name: branch for name, branch in both.items() if branch is not None}

    @property
    def image_tokens(self) -> int:
        """N, tokens an image."""
        return next(iter(self.branches.values())).tower.tokens_per_image

    @property
    def image_ids(self) -> tuple[int, int, int]:
        """Patch, start, end."""
        return self.image_patch_id, self.image_start_id, self.image_end_id


def branch_of(name: str) -> str:
    """The attribute of the model, and the first part of its parameters' paths, for pictures called `name`."""
    return _ATTRIBUTES[name]


def projector_of(config: VisionLanguageConfig, branch: Branch) -> ProjectorConfig:
    """The linear layer behind a branch's tower."""
    tower, decoder = branch.tower, config.decoder
    return ProjectorConfig(
        inputs=tower.token_width if isinstance(tower, VitDetConfig) else tower.hidden_size,
        outputs=decoder.hidden_size // len(config.branches),
        initializer_range=decoder.initializer_range,
        dtype=decoder.dtype,
    )
