"""Scores sentences token by token under a decoder, for every evaluation of next-token prediction.

B: sentences of a batch, T: inputs of a row, T1: T + 1, with the last label, I: images of a sentence, N: tokens per
image, V: vocabulary, D: hidden size.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.errors import UserError
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.parallel.sharding import constrain
from lvm_jax.vocabulary import Vocabulary
from lvm_jax.weights.model_folder import check_finite


@dataclasses.dataclass(frozen=True)
class SentenceScore:
    """A decoder's predictions for one sentence: each token given BOS and all tokens before it.

    Attributes:
      nll_IN: negative log-likelihood of each code in nats, with the softmax over the whole vocabulary.
      hit_IN: whether the code was the most likely id.
      eos_nll: the same for the end of the sentence; None if the context is full before it.
    """

    nll_IN: Float[np.ndarray, "I N"]
    hit_IN: Bool[np.ndarray, "I N"]
    eos_nll: float | None


class Scorer:
    """Scores sentences in batches of similar length, on the mesh set by `jax.set_mesh` if there is one.

    Each sentence has its own row, from BOS to EOS as in training. Rows are padded to a power of two of images, so that
    a data set compiles a few programs and not one for each length.

    Args:
      model: the decoder.
      codebook_size: of the tokenizer that made the sentences.
      context_images: the longest sentence that the model reads; by default what fits `max_position_embeddings`.
      batch_size: rows of the longest length at once; batches of shorter rows are larger, with as many tokens.

    Raises:
      UserError: weights are not finite.
    """

    def __init__(
        self,
        model: Decoder,
        codebook_size: int,
        *,
        context_images: int | None = None,
        batch_size: int = 4,
    ) -> None:
        check_finite(model, "the decoder")
        self.vocabulary = Vocabulary.lvm(codebook_size)
        self.batch_size = batch_size
        self._context_images = context_images
        self._max_tokens = model.config.max_position_embeddings
        self._graphdef, self._state = nnx.split(model)

    def __call__(self, sentences: Sequence[VisualSentence]) -> list[SentenceScore]:
        """Scores each sentence, in order.

        Raises:
          UserError: there is no sentence, or one is longer than the model's context.
        """
        if not sentences:
            raise UserError(
                "0 sentences to evaluate: the split is empty; choose another or build larger shards"
            )
        longest = self.context_images(sentences[0].codes.shape[1])
        groups: dict[int, list[int]] = {}
        for index, sentence in enumerate(sentences):
            images = len(sentence.codes)
            if images > longest:
                raise UserError(
                    f"sentence {sentence.key} has {images} images: the model reads {longest}; "
                    "evaluate on shards of shorter sentences"
                )
            # A power of two may exceed the context; the context itself is then the largest shape.
            bucket = min(1 << (images - 1).bit_length(), longest)
            groups.setdefault(bucket, []).append(index)
        scores: dict[int, SentenceScore] = {}
        for bucket, indices in sorted(groups.items()):
            # A short batch keeps all its rows as padding: its number of rows is a shape, which would compile again.
            rows = self.batch_size * max(1, longest // bucket)
            for start in range(0, len(indices), rows):
                chosen = indices[start : start + rows]
                batch = [sentences[i] for i in chosen]
                scores.update(zip(chosen, self._score_batch(batch, bucket, rows)))
        return [scores[index] for index in range(len(sentences))]

    def context_images(self, tokens_per_image: int) -> int:
        """The longest sentence that the model reads, in images."""
        return self._context_images or self._max_tokens // tokens_per_image

    def _score_batch(
        self, batch: Sequence[VisualSentence], images: int, rows: int
    ) -> list[SentenceScore]:
        tokens_per_image = batch[0].codes.shape[1]
        # BOS is only an input and EOS only a label. If the context is full, EOS does not fit (as in training).
        length = min(
            images * tokens_per_image + 1, self.context_images(tokens_per_image) * tokens_per_image
        )
        ids = self.vocabulary
        tokens_BT1 = np.full((rows, length + 1), ids.pad, np.int32)
        for row, sentence in zip(tokens_BT1, batch):
            sequence = [ids.bos, *sentence.codes.reshape(-1).tolist(), ids.eos][: length + 1]
            row[: len(sequence)] = sequence
        nll_BT, hit_BT = jax.device_get(_score(self._graphdef, self._state, tokens_BT1))
        scores = []
        for nll_T, hit_T, sentence in zip(nll_BT, hit_BT, batch):
            shape, size = sentence.codes.shape, sentence.codes.size
            eos_nll = float(nll_T[size]) if size < length else None
            scores.append(
                SentenceScore(nll_T[:size].reshape(shape), hit_T[:size].reshape(shape), eos_nll)
            )
        return scores


@functools.partial(jax.jit, static_argnames="graphdef")
def _score(
    graphdef: Any, state: Any, tokens_BT1: Int[Array, "B T1"]
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """NLL and hit of each label. The decoder is causal, so padding after a sentence cannot change them."""
    model = nnx.merge(graphdef, state)
    labels_BT = tokens_BT1[:, 1:]
    hidden_BTD = model.hidden(tokens_BT1[:, :-1])

    def row(hidden_and_labels: tuple[Float[Array, "T D"], Int[Array, " T"]]) -> tuple[Array, Array]:
        hidden_TD, labels_T = hidden_and_labels
        logits_TV = model.logits(hidden_TD[None])[0]
        logprobs_TV = jax.nn.log_softmax(logits_TV, axis=-1)
        nll_T = -jnp.take_along_axis(logprobs_TV, labels_T[:, None], axis=-1)[:, 0]
        return nll_T, jnp.argmax(logits_TV, axis=-1) == labels_T

    # One row's logits at a time, since (B, T, V) would not fit in memory. Replicated, so every host has the result.
    nll_BT, hit_BT = jax.lax.map(row, (hidden_BTD, labels_BT))
    return constrain(nll_BT, None, None), constrain(hit_BT, None, None)
