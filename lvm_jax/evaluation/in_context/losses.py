"""What examples and query are worth to the true answer: its loss as it is, and under each control.

It draws nothing, so it tells long before drawn answers do whether a decoder reads its context.

B: rows, L: tokens of a row.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from lvm_jax.data.in_context.sequences import Question, Row, SequenceFormat, stacked
from lvm_jax.data.step_loader import slice_of_batch
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.in_context.episodes import Episode, check_episodes, controls_of
from lvm_jax.evaluation.in_context.scores import Scores, summary, where
from lvm_jax.parallel.sharding import BatchPlacement, constrain

Loss = Callable[[Any, Mapping[str, jax.Array]], tuple[jax.Array, jax.Array]]


class LossControls:
    """NAME/loss in nats a token for "right" and each control; uses_NAME/loss is what NAME costs, as a negative number.

    Args:
      loss: (params, batch) -> (sum, weight), such as `DecoderTask.loss`.
      episodes: of one question.
      form: how they become rows.
      room: pairs that a row has room for.
      placement: the mesh, and the number of rows at once.

    Raises:
      UserError: see `check_episodes`.
    """

    name = "controls"

    def __init__(
        self,
        loss: Loss,
        episodes: Sequence[Episode],
        form: SequenceFormat,
        room: int,
        placement: BatchPlacement,
    ) -> None:
        question = episodes[0].question if episodes else Question.SEGMENTATION
        check_episodes(episodes, question)
        self._form, self._room, self._placement = form, room, placement
        controls = controls_of(episodes, form.category_room > 0)
        # Words that begin with their class are no control of the whole answer.
        if not form.category_room:
            controls = {name: one for name, one in controls.items() if name != "class_only"}
        self._told = {name: control.to(episodes) for name, control in controls.items()}
        changed = {name: control.change(episodes) for name, control in controls.items()}
        self._rows = {
            name: [self._row(episode) for episode in some]
            for name, some in {"right": list(episodes), **changed}.items()
        }

        def of_rows(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
            def of_row(row: Mapping[str, jax.Array]) -> jax.Array:
                total, weight = loss(params, {name: x[None] for name, x in row.items()})
                return total / weight

            # Whole on every device, so that every host can read all of it.
            return constrain(jax.lax.map(of_row, batch), None)

        self._losses = jax.jit(of_rows)

    def run(self, subject: Any) -> Result:
        """The losses of parameters on the mesh."""
        scores = {name: self._scores(subject, rows) for name, rows in self._rows.items()}
        scores |= {name: where(told, scores[name]) for name, told in self._told.items()}
        return summary(scores, [name for name in scores if name != "right"], "right")

    def _scores(self, params: Any, rows: Sequence[Row]) -> list[Scores]:
        count, found = self._placement.global_batch, []
        mine = slice_of_batch(count, jax.process_index(), jax.process_count())
        for at in range(0, len(rows), count):
            some = list(rows[at : at + count])
            some += [some[-1]] * (count - len(some))
            fed = self._placement.put(stacked(some[mine.start : mine.stop]))
            losses_B: Float32[np.ndarray, " B"] = np.asarray(self._losses(params, fed))
            found += [{"loss": float(value)} for value in losses_B]
        return found[: len(rows)]

    def _row(self, episode: Episode) -> Row:
        """The row in which only the answer to the query counts."""
        row = self._form.row([*episode.examples, episode.query], self._room)
        asked = len(episode.examples) * self._form.pair_length + sum(self._form.spans[:-1])
        row.loss_weights[:asked] = 0
        return row
