"""The image-text task: predict the next token of a conversation about pictures.

Shape suffixes: B rows of a batch, T inputs of a row, I pictures of a row, N tokens of a picture.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from etils import epath
from flax import nnx

from lvm_jax.metrics.states import Mean
from lvm_jax.models.decoder.mlp import Losses
from lvm_jax.models.towers import clip_config, folders, vitdet_config
from lvm_jax.models.vision_language import own_folder
from lvm_jax.models.vision_language.config import (
    Branch,
    VisionLanguageConfig,
    branch_of,
    projector_of,
)
from lvm_jax.models.vision_language.model import VisionLanguage
from lvm_jax.tasks import trained
from lvm_jax.tasks.base import Batch, State
from lvm_jax.tasks.decoder import ROWS, DecoderTask

PLACES = "image_places"


class ImageTextTask(DecoderTask):
    """Trains towers, projectors and decoder together, or what is not frozen of them.

    Pictures arrive as uint8; the model normalises them. With `config.decoder.lora` the decoder trains its adapters
    only, and towers and projectors as ever. Frozen towers have neither gradients nor moments.

    Args:
      config: the model.
      tx: the optimizer.
      seq_len: inputs of a row, T.
      max_images: pictures of a row, I.
      **options: as in `DecoderTask`; patterns of `frozen` are paths such as "vitdet/tower".

    Raises:
      UserError: as in `DecoderTask`.
    """

    name = "image_text"  # checkpoints carry it

    def __init__(
        self,
        config: VisionLanguageConfig,
        tx: optax.GradientTransformation,
        *,
        seq_len: int,
        max_images: int,
        **options: Any,
    ) -> None:
        self.vision, self.max_images = config, max_images
        self.rows = (*ROWS, PLACES, *config.branches)
        super().__init__(config.decoder, tx, seq_len=seq_len, **options)

    def load(self, state: State, directory: epath.PathLike) -> State:
        """A fresh state with the weights of one of our folders, streamed into their shards; adapters stay fresh.

        Raises:
          UserError: no such folder, or it holds another model.
        """
        plain = own_folder.without_adapters(self.vision)
        own_folder.check_fits(directory, plain)
        weights = nnx.state(folders.load(VisionLanguage.abstract(plain), directory), nnx.Param)
        return self.replaced(state, (), weights)

    def replaced(self, state: State, at: trained.Path, weights: nnx.State) -> State:
        """The state with the parameters below the path `at` replaced, adapters apart."""
        params = dict(nnx.to_flat_state(self._split.together(state["params"])))
        params |= {(*at, *path): value for path, value in nnx.to_flat_state(weights)}
        whole = nnx.from_flat_state(list(params.items()))
        return {**state, "params": self._split.apart(whole)}

    def losses(
        self, params: trained.Params, batch: Batch, rows: Mapping[str, jax.Array]
    ) -> dict[str, Mean]:
        """The loss of some rows of a batch, in nats a token.

        Args:
          params: of the state.
          batch: as in `step`.
          rows: name -> which rows it counts, (B,) bool.
        """
        model = self._merge(params)
        hidden_BTD, _ = self._read(model, batch, None)
        return {
            name: Mean(
                *self._cross_entropy(
                    model, hidden_BTD, batch, batch["loss_weights"] * counted_B[:, None]
                )
            )
            for name, counted_B in rows.items()
        }

    def image_tokens(self, params: trained.Params, batch: Batch) -> jax.Array:
        """The image tokens of a batch, (B, I, N, D); those of a row's absent pictures too."""
        return self._merge(params).image_tokens(batch)

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """That of `DecoderTask`; `image_places` int32 (B, I, N); the pictures of each branch, uint8 (B, I, H, W, C)."""
        shape = (global_batch, self.max_images)
        places = {PLACES: jax.ShapeDtypeStruct((*shape, self.vision.image_tokens), jnp.int32)}
        for name, branch in self.vision.branches.items():
            tower = branch.tower
            pictures = (*shape, *tower.image_size, tower.num_channels)
            places[name] = jax.ShapeDtypeStruct(pictures, jnp.uint8)
        return super().batch_spec(global_batch) | places

    def flops_per_batch(self, global_batch: int) -> float:
        """That of `DecoderTask`, and of towers and projectors for `max_images` pictures a row.

        A frozen tower runs forward only, any other three times as much.
        """
        seen = sum(self._picture_flops(*item) for item in self.vision.branches.items())
        return super().flops_per_batch(global_batch) + seen * self.max_images * global_batch

    def _picture_flops(self, name: str, branch: Branch) -> float:
        config = projector_of(self.vision, branch)
        tower_trained, projector_trained = (
            self._trains(branch_of(name), part) for part in ("tower", "projector")
        )
        tower, forward = branch.tower, 2.0 * config.inputs * config.outputs
        # A product's own gradient, and that of its input, cost as much as the product.
        projector = forward * (1 + projector_trained + tower_trained)
        if isinstance(tower, clip_config.ClipVisionConfig):
            seen = clip_config.forward_flops(tower)
        else:
            seen = vitdet_config.forward_flops(tower)
        return (3 if tower_trained else 1) * seen + tower.tokens_per_image * projector

    def _trains(self, *at: str) -> bool:
        """Whether any parameter below a path is trained."""
        paths = nnx.to_flat_state(self._split.trained(self._split.apart(self._params)))
        return any(path[: len(at)] == at for path, _ in paths)

    def _splitter(self, is_trained: trained.Filter) -> trained.Split:
        if self.config.lora.rank:
            is_trained = trained.both(_adapters_of_the_decoder, is_trained)
        return trained.Split(self._params, is_trained)

    def _make(self, key: jax.Array) -> nnx.Module:
        return VisionLanguage(self.vision, rngs=nnx.Rngs(key))

    def _read(
        self, model: Any, batch: Batch, dropout_key: jax.Array | None
    ) -> tuple[jax.Array, Losses]:
        return model.hidden_and_losses(
            batch["tokens"][:, :-1],
            batch,
            batch[PLACES],
            batch["segment_ids"][:, :-1],
            batch["positions"][:, :-1],
            dropout_key=dropout_key,
        )

    def _decoder(self, model: Any) -> Any:
        if isinstance(model, nnx.State):
            return model.get("decoder", nnx.State({}))
        return model.decoder


def _adapters_of_the_decoder(path: trained.Path, parameter: Any) -> bool:
    return path[0] != "decoder" or trained.only_adapters(path, parameter)
