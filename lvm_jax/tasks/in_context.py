"""The in-context task: a decoder learns to answer questions about pictures from pairs (arXiv 2312.02520, section 3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lvm_jax.data.in_context.loader import QUESTIONS
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.tasks.base import Batch
from lvm_jax.tasks.decoder import DecoderTask, no_args


def name_of(question: Question) -> str:
    """A question's name in metrics and configurations, such as "segmentation"."""
    return question.name.lower()


def rows_by_question(batch: Batch) -> Mapping[str, jax.Array]:
    """Which rows ask which question, by its name: (B,) bool. The first token's attributes tell."""
    asked_B = batch["attributes"][:, 0]
    return {name_of(question): (asked_B & question.value) > 0 for question in QUESTIONS}


class InContextTask(DecoderTask):
    """`DecoderTask` on rows of pairs: their loss is shown for each question too.

    Args:
      config: the decoder.
      tx: the optimizer; its update gets `task_id` if batches have one question each.
      seq_len: inputs of a row, T.
      questions: that are asked; the optimizer's `task_id` is a place among them.
      one_question: all rows of a batch ask the same, and the batch says what, as the int32 scalar `question`: its place
        among all `QUESTIONS`.
      z_loss, loss_chunk, accumulation: see `DecoderTask`.
    """

    name = "in_context"

    def __init__(
        self,
        config: DecoderConfig,
        tx: optax.GradientTransformation,
        *,
        seq_len: int,
        questions: Sequence[Question] = QUESTIONS,
        one_question: bool = True,
        z_loss: float = 0.0,
        loss_chunk: int = 0,
        accumulation: int = 1,
    ) -> None:
        self._one_question = one_question
        place_of = jnp.array([questions.index(q) if q in questions else -1 for q in QUESTIONS])

        def task_id(batch: Batch) -> Mapping[str, Any]:
            return {"task_id": place_of[batch["question"]]}

        super().__init__(
            config,
            tx,
            seq_len=seq_len,
            z_loss=z_loss,
            loss_chunk=loss_chunk,
            accumulation=accumulation,
            optimizer_args=task_id if one_question else no_args,
            row_names=rows_by_question,
        )

    def batch_spec(self, global_batch: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The arrays of `DecoderTask` with attributes, and perhaps `question`."""
        shape = (global_batch, self.seq_len + 1)
        spec = super().batch_spec(global_batch)
        spec["attributes"] = jax.ShapeDtypeStruct(shape, jnp.int32)
        if self._one_question:
            spec["question"] = jax.ShapeDtypeStruct((), jnp.int32)
        return spec
