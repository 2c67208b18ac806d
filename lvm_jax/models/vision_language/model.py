"""Towers and a decoder as one model: pictures become image tokens, which take their places among those of the text.

Vary (arXiv 2312.06109, section 3) and GOT-OCR2 are configurations of it. Training and generation place image tokens by
the same `embed`. It works alone, without a mesh or a trainer.

Shapes: B batch, I images of a row, H W C an image, M = B * I images, N tokens of an image, T tokens of a row,
D width of the decoder, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jaxtyping import Array, Float, Int

from lvm_jax.errors import UserError
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.decoder.mlp import Losses
from lvm_jax.models.towers import folders
from lvm_jax.models.towers.clip import ClipVision
from lvm_jax.models.towers.clip_config import ClipVisionConfig
from lvm_jax.models.towers.projectors import Projector, ProjectorConfig
from lvm_jax.models.towers.vitdet import VitDet
from lvm_jax.models.vision_language import got_ocr2_folder, own_folder, published
from lvm_jax.models.vision_language.config import (
    CLIP,
    VITDET,
    Branch,
    VisionLanguageConfig,
    projector_of,
)
from lvm_jax.parallel.sharding import constrain
from lvm_jax.pictures.pixels import to_float
from lvm_jax.weights.model_folder import read_config, rounded, to_tensors


class Seeing(nnx.Module):
    """One branch: pictures through their tower and a linear layer."""

    def __init__(self, branch: Branch, projector: ProjectorConfig, *, rngs: nnx.Rngs) -> None:
        tower = branch.tower
        if isinstance(tower, ClipVisionConfig):
            self.tower: ClipVision | VitDet = ClipVision(tower, rngs=rngs)
        else:
            self.tower = VitDet(tower, rngs=rngs)
        self.projector = Projector(projector, rngs=rngs)
        self.mean, self.deviation = branch.mean, branch.deviation

    def __call__(self, images_MHWC: jax.Array) -> Float[Array, "M N D2"]:
        """Tokens of pictures, uint8."""
        mean, deviation = (
            jnp.asarray(x, jnp.float32)[None, None, None] for x in (self.mean, self.deviation)
        )
        return self.projector(self.tower((to_float(images_MHWC) - mean) / deviation))


class VisionLanguage(nnx.Module):
    """`model(tokens_BT, images, image_places_BIN)` gives fp32 logits.

    Attributes:
      clip, vitdet: the branches; None: the model has no such branch.
      decoder: reads the embeddings.
      tokenizer_fingerprint: of the text tokenizer that it was trained with; "": unknown.
    """

    def __init__(self, config: VisionLanguageConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.tokenizer_fingerprint = ""

        def seeing(branch: Branch | None) -> Seeing | None:
            if branch is None:
                return None
            return Seeing(branch, projector_of(config, branch), rngs=rngs)

        self.clip, self.vitdet = seeing(config.clip), seeing(config.vitdet)
        self.decoder = Decoder(config.decoder, rngs=rngs)

    def __call__(
        self,
        tokens_BT: Int[Array, "B T"],
        images: Mapping[str, jax.Array],
        image_places_BIN: Int[Array, "B I N"],
        segment_ids_BT: Int[Array, "B T"] | None = None,
        positions_BT: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B T V"]:
        """Logits of the token that follows each token; arguments as in `embed` and `Decoder.__call__`."""
        hidden_BTD, _ = self.hidden_and_losses(
            tokens_BT, images, image_places_BIN, segment_ids_BT, positions_BT
        )
        return self.decoder.logits(hidden_BTD)

    def hidden_and_losses(
        self,
        tokens_BT: Int[Array, "B T"],
        images: Mapping[str, jax.Array],
        image_places_BIN: Int[Array, "B I N"],
        segment_ids_BT: Int[Array, "B T"] | None = None,
        positions_BT: Int[Array, "B T"] | None = None,
        *,
        dropout_key: jax.Array | None = None,
    ) -> tuple[Float[Array, "B T D"], Losses]:
        """The normalised last hidden state and auxiliary losses, as `Decoder.hidden_and_losses` gives them."""
        return self.decoder.transform_and_losses(
            self.embed(tokens_BT, images, image_places_BIN),
            segment_ids_BT,
            positions_BT,
            dropout_key=dropout_key,
        )

    def embed(
        self,
        tokens_BT: Int[Array, "B T"],
        images: Mapping[str, jax.Array],
        image_places_BIN: Int[Array, "B I N"],
    ) -> Float[Array, "B T D"]:
        """The decoder's inputs: rows of its vocabulary table, with image tokens in their places.

        `Decoder.transform` takes them in training, `Decoder.prefill` in generation.

        Args:
          tokens_BT: ids.
          images: pictures as `image_tokens` takes them.
          image_places_BIN: where in the row each token of each image goes; T or more: nowhere, for rows with fewer
            images.

        Raises:
          UserError: see `image_tokens`.
        """
        tokens_BIND = self.image_tokens(images)
        B, D = len(tokens_BT), tokens_BIND.shape[-1]
        # Rows are whole here: a place may lie on any device of a split sequence.
        x_BTD = constrain(self.decoder.embed(tokens_BT), "batch", None, "act_embed")

        def put(x_TD: jax.Array, places: jax.Array, new: jax.Array) -> jax.Array:
            return x_TD.at[places].set(new, mode="drop")

        # Mapped over rows, so that each device fills its own.
        flat = image_places_BIN.reshape(B, -1), tokens_BIND.reshape(B, -1, D).astype(x_BTD.dtype)
        return constrain(jax.vmap(put)(x_BTD, *flat), "batch", "seq", "act_embed")

    def image_tokens(self, images: Mapping[str, jax.Array]) -> Float[Array, "B I N D"]:
        """The image tokens of all branches, concatenated.

        Args:
          images: for each branch its pictures, uint8 (B, I, H, W, C), by the name in `VisionLanguageConfig.branches`;
            the model normalises them.

        Raises:
          UserError: a branch has no pictures, or they are not uint8 or not of its tower's size.
        """
        tokens = [self._seen(name, images) for name in self.config.branches]
        return jnp.concatenate(tokens, axis=-1)

    def _seen(self, name: str, images: Mapping[str, jax.Array]) -> Float[Array, "B I N D2"]:
        branch = {CLIP: self.clip, VITDET: self.vitdet}[name]
        assert branch is not None  # the configuration names those that there are
        if name not in images:
            raise UserError(f"there are no pictures {name!r}, found: {', '.join(images) or 'none'}")
        pictures = images[name]
        if pictures.dtype != jnp.uint8 or pictures.ndim != 5:
            raise UserError(
                f"the pictures {name!r} are {pictures.dtype} {pictures.shape}: give uint8 (batch, images, height, "
                "width, colours); the model normalises them"
            )
        B, I = pictures.shape[:2]  # noqa: E741
        tokens_MND = branch(pictures.reshape(B * I, *pictures.shape[2:]))
        return tokens_MND.reshape(B, I, *tokens_MND.shape[1:])

    def merged(self) -> Self:
        """This model with its decoder's adapters, if any, merged into their matrices."""
        if not self.config.decoder.lora.rank:
            return self
        model = nnx.merge(*nnx.split(self))
        model.decoder = self.decoder.merged()
        model.config = own_folder.without_adapters(self.config)
        return model

    def save_pretrained(self, directory: epath.PathLike, *, dtype: str = "float32") -> None:
        """Writes config.json and model.safetensors in our format; adapters are merged into their matrices.

        Args:
          directory: made if missing.
          dtype: of the stored weights, one of `model_folder.STORED_DTYPES`.

        Raises:
          UserError: the dtype is unknown, or a weight does not fit it.
        """
        model = self.merged()
        tensors = rounded(to_tensors(model), dtype)
        own_folder.save(directory, model.config, tensors, self.tokenizer_fingerprint)

    def save_got_ocr2(self, directory: epath.PathLike, *, dtype: str = "float32") -> None:
        """Writes a folder that transformers' GotOcr2ForConditionalGeneration opens; arguments as in `save_pretrained`.

        Raises:
          UserError: GotOcr2 has no such model, or as in `save_pretrained`.
        """
        model = self.merged()
        got_ocr2_folder.save(directory, model.config, rounded(to_tensors(model), dtype))

    @classmethod
    def reads(cls, directory: epath.PathLike) -> bool:
        """Whether a folder holds such a model, by its config.json.

        Raises:
          UserError: it has none.
        """
        kinds = (own_folder.MODEL_TYPE, *published.READERS)
        return read_config(directory).get("model_type") in kinds

    @classmethod
    def from_pretrained(cls, directory: epath.PathLike, **overrides: Any) -> Self:
        """Reads a folder of `save_pretrained`, or a published one of GOT-OCR2 or Vary.

        Weights are read one parameter at a time; under a mesh (`jax.set_mesh`) every host reads only its devices'
        slices.

        Args:
          directory: holds config.json and the tensors.
          **overrides: fields about how to compute, for decoder and towers: dtype, remat, scan_layers, attention.

        Raises:
          UserError: a file is missing or damaged, or tensors do not fit the configuration.
        """
        fields = read_config(directory)
        if fields.get("model_type") != own_folder.MODEL_TYPE:
            parts = published.read(directory, fields, overrides)
            model = cls.abstract(parts.config)
            for name, (tower, projector) in parts.branches.items():
                seeing = {"vitdet": model.vitdet, "clip": model.clip}[name]
                assert seeing is not None  # the configuration is made from these parts
                seeing.tower, seeing.projector = tower, projector
            model.decoder = nnx.merge(nnx.graphdef(model.decoder), parts.decoder)
            return model
        config = own_folder.load_config(directory, **overrides)
        model = folders.load(cls.abstract(config), directory)
        model.tokenizer_fingerprint = own_folder.load_fingerprint(directory)
        return model

    @classmethod
    def abstract(cls, config: VisionLanguageConfig) -> Self:
        """The model with shapes in place of arrays."""
        return nnx.eval_shape(lambda: cls(config, rngs=nnx.Rngs(0)))
