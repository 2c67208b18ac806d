"""A run of unified as a release: image tokenizer, decoder with its text tokenizer, and held-out episodes.

M: pictures, N: codes of a picture.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx

from lvm_jax import files
from lvm_jax.data.in_context.episodes import RowStyle
from lvm_jax.data.in_context.format_folder import read_format, read_questions, save_format
from lvm_jax.data.in_context.loader import InContextEvalLoader
from lvm_jax.data.in_context.pool import PoolStore
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.evaluation.held_out_loss import HeldOutLoss
from lvm_jax.evaluation.in_context.answers import DrawnMasks, MaskEvaluator
from lvm_jax.evaluation.in_context.episodes import Episode
from lvm_jax.evaluation.in_context.held_out import TrainedRows, held_out_episodes
from lvm_jax.evaluation.in_context.scoring import PoolQuestions
from lvm_jax.evaluation.in_context.while_training import episodes_of
from lvm_jax.inference.codec import decode_codes, encode_images
from lvm_jax.inference.in_context_pictures import InContextGenerator
from lvm_jax.parallel.mesh import make_mesh
from lvm_jax.parallel.sharding import BatchPlacement
from lvm_jax.pictures.annotation_maps import rgb_to_mask
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.release import folder as release_folder
from lvm_jax.release.card import CardParts
from lvm_jax.release.cost import Change
from lvm_jax.release.episodes import write_episodes
from lvm_jax.release.stored import StoredTypes
from lvm_jax.release.unified_card import card_parts
from lvm_jax.reporting.trainings import told
from lvm_jax.reporting.unified_inputs import UnifiedFiles
from lvm_jax.tasks.in_context import InContextTask, name_of

ROWS = "rows.json"  # what words of the training's rows say
_SPLIT = "validation"
_AT_ONCE = 8


class UnifiedRun:
    """See `lvm_jax.release.pack.Run`.

    Args:
      workdir: W of the quickstart, or of its commands run by hand.
      types: of the stored weights.
      episodes: of each question to measure the cost of these types on; 0 takes all.

    Raises:
      UserError: the run is not finished.
    """

    system = release_folder.UNIFIED

    def __init__(self, workdir: str | Path, types: StoredTypes, episodes: int = 64) -> None:
        self._run = run = Path(workdir)
        self._files = UnifiedFiles.load(run)
        self.trainings = {"tokenizer": told(run / "tokenizer"), "decoder": told(run / "unified")}
        self._types, self._episodes = types, episodes
        self._model = run / "unified/model"
        self._exact = InContextGenerator.from_pretrained(self._model, run / "tokenizer/model")
        self._rows = TrainedRows.read(run / "unified/config.json", self._exact.engine.form)
        self._pools = run / "pools"
        self.manifest = PoolStore(self._pools, _SPLIT).manifest
        self.licences = [run / "LICENSES.md"]

    def save(self, folder: Path) -> None:
        """Tokenizers and decoder, and episodes to ask."""
        self._types.save_pair(folder, self._exact.vqgan, self._exact.model)
        form, text = read_format(self._model), TextTokenizer(self._model)
        save_format(folder / "decoder", form, text, read_questions(self._model))
        files.write_json(folder / ROWS, {"rows": dataclasses.asdict(self._rows)})
        episodes = held_out_episodes(self._pools, self._exact, self._rows)
        write_episodes(episodes, self._exact.vqgan, self._rows, folder / "episodes")

    def cost(self, folder: Path) -> list[Change]:
        """Losses of the true answers, the IoU of drawn masks, and the codes of held-out pictures."""
        stored = InContextGenerator.from_pretrained(folder / "decoder", folder / "tokenizer")
        asked = self._asked()
        loaders = {q: asked.loader_for(self._exact, q) for q in read_questions(self._model)}
        changes = []
        for question, loader in loaders.items():
            losses = self._losses(loader, (self._exact, stored))
            changes.append(Change(f"{name_of(question)}, nats a token", *losses))
        episodes = {question: episodes_of(loader) for question, loader in loaders.items()}
        if masks := episodes.get(Question.SEGMENTATION):
            ious = [self._iou(generator, masks) for generator in (self._exact, stored)]
            changes.append(Change(f"masks, IoU, {len(masks)} episodes", *ious))
        return [*changes, self._codes(stored, episodes)]

    def card(self) -> CardParts:
        """See `lvm_jax.release.unified_card`."""
        return card_parts(self._files, self._exact, self._types, self.trainings)

    def _asked(self) -> PoolQuestions:
        """Held-out rows of one example, as the evaluation asks them."""
        return PoolQuestions(
            self._pools,
            RowStyle((0.0, 1.0), say_category=self._rows.say_category, boxes=self._rows.boxes),
            classes=self._files.results["pictures"]["classes"],
            episodes=self._episodes,
            batch_size=_AT_ONCE,
        )

    def _losses(
        self, loader: InContextEvalLoader, generators: Sequence[InContextGenerator]
    ) -> list[float]:
        length = 2 * self._exact.engine.form.pair_length - 1
        task = InContextTask(self._exact.engine.config, optax.identity(), seq_len=length)
        placement = BatchPlacement(make_mesh(devices=jax.devices()[:1]), _AT_ONCE)
        held_out = HeldOutLoss(task.loss, loader, placement)
        params = (nnx.state(generator.model, nnx.Param) for generator in generators)
        return [float(held_out.run(one)["loss"]) for one in params]

    def _iou(self, generator: InContextGenerator, episodes: Sequence[Episode]) -> float:
        """Against the truth as the tokenizer of the run shows it."""
        pictures = MaskEvaluator(episodes, batch_size=_AT_ONCE).answers(generator, episodes)
        codes_MN = np.stack([np.asarray(episode.query.answer) for episode in episodes])
        truths = [rgb_to_mask(picture) for picture in self._shown(codes_MN)]
        drawn = DrawnMasks({"model": pictures}, {}, truths, [None] * len(truths))
        return float(np.mean([scores["miou"] for scores in drawn.scores("model")]))

    def _codes(
        self, stored: InContextGenerator, episodes: Mapping[Question, Sequence[Episode]]
    ) -> Change:
        """How many codes of the queries, decoded and encoded again, both tokenizers agree on."""
        codes_MN = np.stack([e.query.picture for some in episodes.values() for e in some])
        pictures = self._shown(codes_MN)
        before, after = (encode_images(g.vqgan, pictures) for g in (self._exact, stored))
        equal = float(np.mean(before == after))
        return Change(f"share of the codes of {len(codes_MN)} pictures that stay", None, equal)

    def _shown(self, codes_MN: np.ndarray) -> np.ndarray:
        return to_uint8(decode_codes(self._exact.vqgan, codes_MN))
