"""Causal regularisation of a tokenizer: while it trains, a small decoder foretells each code from those before it.

What that decoder (the *prior*) cannot foretell costs the encoder too, so codes become easier to predict at some cost in
reconstruction. After "When Worse is Better" (arXiv 2412.16326), whose causally regularised tokenizer is trained beside
a small causal model. As there, the prediction is a vector and the error a squared one, since ids have no gradient, and
the prior is thrown away at the end. Our choices: the prior's size; that the error is a share of the codes' variance, so
that no encoder gains by small or constant codes and a weight means the same for every tokenizer; and that both the
codes read and the codes foretold pass their gradient on to the features.

Shape suffixes: B images, N tokens an image, T tokens in all, D code dimension, W the prior's width; h w sides of the
latent grid.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from lvm_jax.analysis.flops import count_flops
from lvm_jax.errors import UserError
from lvm_jax.losses import vqgan as losses
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.decoder.linear import linear, matrix
from lvm_jax.models.tokenizer.vqgan_config import VQGANConfig
from lvm_jax.tasks.accumulation import in_microbatches
from lvm_jax.tasks.base import State
from lvm_jax.tasks.tokenizer_config import CausalPriorConfig

_NAME = "prior"  # in params and opt


class CausalPrior(nnx.Module):
    """A decoder over code vectors in raster order.

    Args:
      config: its shape.
      tokenizer: whose codes it reads.
      rngs: of the initialisation.
      attention: how it is computed, as in `DecoderConfig`.
    """

    def __init__(
        self,
        config: CausalPriorConfig,
        tokenizer: VQGANConfig,
        *,
        rngs: nnx.Rngs,
        attention: Literal["auto", "chunked"] = "auto",
    ) -> None:
        width, dim = config.hidden_size, tokenizer.quantized_embed_dim
        shape = DecoderConfig(
            # One id, which stands before the first code; its row of the table is the only one there is.
            vocab_size=1,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            tie_word_embeddings=True,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            initializer_range=1 / math.sqrt(width),
            tokens_per_image=tokenizer.tokens_per_image,
            place_embeddings=True,
            max_position_embeddings=tokenizer.tokens_per_image,
            remat="none",
            attention=attention,
        )
        self.into = matrix(rngs, shape, (dim, width), ("code_dim", "embed"))
        self.decoder = Decoder(shape, rngs=rngs)
        self.out = matrix(rngs, shape, (width, dim), ("embed", "code_dim"))

    def __call__(self, codes_BND: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """What it expects at each place, from the codes before that place alone."""
        first_B1W = self.decoder.embed(jnp.zeros((len(codes_BND), 1), jnp.int32))
        before_BNW = jnp.concatenate([first_B1W, linear(codes_BND[:, :-1], self.into[...])], axis=1)
        return linear(self.decoder.transform(before_BNW), self.out[...])


class CausalRegularizer:
    """The prior within the tokenizer task: its loss, its state, and how it learns.

    Without a weight it adds nothing to the state, and all other methods do nothing.

    Args:
      config: the prior's shape.
      tokenizer: whose codes it reads.
      tx: its optimizer.
      weight: of its loss in the tokenizer's.
      microbatches: how many a batch is computed in.

    Raises:
      UserError: the encoder has nothing that could learn from it.
    """

    def __init__(
        self,
        config: CausalPriorConfig,
        tokenizer: VQGANConfig,
        tx: optax.GradientTransformation,
        weight: float,
        microbatches: int,
    ) -> None:
        if weight and tokenizer.architecture == "patches" and not tokenizer.encoder_blocks:
            raise UserError(
                f"config.loss.causal_weight is {weight} and config.model.encoder_blocks is 0: codes are patches of "
                "pixels, and no weight could make them easier to foretell; set encoder_blocks to 1 or more"
            )
        self._config, self._tokenizer, self._tx = config, tokenizer, tx
        self._weight, self._microbatches = weight, microbatches
        if weight:
            self._graph = nnx.graphdef(nnx.eval_shape(lambda: self._make(jax.random.key(0))))

    def init(self, key: jax.Array, state: State) -> State:
        """The task's state with fresh parameters and moments of the prior, if it has one."""
        if not self._weight:
            return state
        params = nnx.state(self._make(key), nnx.Param)
        return self._into(state, params, self._tx.init(params))

    def params(self, state: State) -> nnx.State:
        """The prior's parameters; empty without one."""
        return state["params"][_NAME] if self._weight else nnx.State({})

    def __call__(
        self, params: nnx.State, codes_BhwD: Float[Array, "B H2 W2 D"]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(weighted loss, scalars to report: `causal`, the share of the codes' variance that is not foretold).

        Call it only with a weight.

        Args:
          params: the prior's.
          codes_BhwD: the chosen codes, whose gradient passes on to the features.
        """
        codes_BND = codes_BhwD.reshape(len(codes_BhwD), -1, codes_BhwD.shape[-1])
        expect = in_microbatches(nnx.merge(self._graph, params), self._microbatches)
        share = losses.divide(losses.unforetold(expect(codes_BND), codes_BND))
        return self._weight * share, {"causal": share}

    def learn(self, state: State, gradients: nnx.State, into: State) -> State:
        """`into`, the task's new state, with the prior after one update.

        Args:
          state: the task's, before the step.
          gradients: of the weighted loss by the prior's parameters.
          into: the new state of all else.
        """
        if not self._weight:
            return into
        # The weight is how much the encoder hears of the prior; the prior itself learns at its own scale.
        own = jax.tree.map(lambda x: x / self._weight, gradients)
        updates, opt = self._tx.update(own, state["opt"][_NAME], state["params"][_NAME])
        params: Any = optax.apply_updates(state["params"][_NAME], updates)
        return self._into(into, params, opt)

    def flops(self) -> float:
        """FLOPs of one forward pass on one image."""
        if not self._weight:
            return 0.0
        shape = (1, self._tokenizer.tokens_per_image, self._tokenizer.quantized_embed_dim)
        # A kernel of attention does not say what it multiplies.
        graph, params = nnx.split(nnx.eval_shape(lambda: self._make(jax.random.key(0), "chunked")))
        codes = jax.ShapeDtypeStruct(shape, jnp.float32)
        return count_flops(lambda p, x: nnx.merge(graph, p)(x), params, codes)

    def _make(self, key: jax.Array, attention: Literal["auto", "chunked"] = "auto") -> CausalPrior:
        rngs = nnx.Rngs(key)
        return CausalPrior(self._config, self._tokenizer, rngs=rngs, attention=attention)

    def _into(self, state: State, params: Any, opt: optax.OptState) -> State:
        return {
            **state,
            "params": {**state["params"], _NAME: params},
            "opt": {**state["opt"], _NAME: opt},
        }
