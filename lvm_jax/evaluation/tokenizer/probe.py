"""What can be learnt from a tokenizer's codes: the held-out loss of a small decoder after a fixed budget.

The decoder, its data and its steps are the same for every tokenizer, so the loss compares tokenizers. Sentences are a
pair that shows the task, a query and its answer. Tasks follow from the pictures alone, see `probe_tasks`.

V: pictures, B: sentences of a batch, I: images of a sentence, N: tokens per image, T1: tokens of a row.
"""

import dataclasses
import math

import jax
import numpy as np
import optax
from jaxtyping import Int, UInt8
from tqdm import tqdm

from lvm_jax.data.sentences.visual_sentence import Category, VisualSentence
from lvm_jax.errors import UserError
from lvm_jax.evaluation.base import Result
from lvm_jax.evaluation.lvm.scoring import Scorer
from lvm_jax.evaluation.tokenizer.probe_tasks import TASKS
from lvm_jax.inference.codec import encode_images
from lvm_jax.models.decoder.config import DecoderConfig
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.tasks.decoder import DecoderTask
from lvm_jax.vocabulary import Vocabulary

_IMAGES = 4  # of a sentence: two pairs
_BATCH = 8  # sentences of a step
_SYMMETRIES = 8  # of a square


class ProbeEvaluator:
    """Trains the probe on a tokenizer's codes and scores answers to held-out pictures.

    The decoder has 4 layers, 128 wide, 0.7M parameters beside its tables. A step sees 8 sentences of 4 images: a
    tokenizer of more codes has the same pictures and steps, and more time. Codes of an image and codebooks differ
    between tokenizers, so compare bits an image; nats a code say how sure the decoder is of each.

    Results, over the held-out pictures and averaged over seeds:
      TASK/code_loss: nats a code of the true answer.
      TASK/uses_query: how many more nats it costs behind another picture's query; near 0, the query is not read.
      TASK/bits_per_image: of the answer.
      answers/...: the mean of each over tasks.
      answers/code_loss_deviation: standard deviation over seeds, if there are several.

    Args:
      train_VHWC: pictures of the tokenizer's size to learn from; fewer than `pictures` are turned and mirrored too.
      held_out_VHWC: pictures to score on.
      steps: of training; the learning rate ends with them.
      seeds: decoders to train, each with another initialisation and order.
      pictures: to learn from, at most.
      questions: of each task, at most.

    Raises:
      UserError: fewer than two pictures on a side.
    """

    name = "probe"

    def __init__(
        self,
        train_VHWC: UInt8[np.ndarray, "V H W 3"],
        held_out_VHWC: UInt8[np.ndarray, "V H W 3"],
        *,
        steps: int = 1000,
        seeds: int = 1,
        pictures: int = 1024,
        questions: int = 64,
    ) -> None:
        for side, found in (("to learn from", train_VHWC), ("held out", held_out_VHWC)):
            if len(found) < 2:
                raise UserError(
                    f"the probe has {len(found)} images {side}: it needs 2, and some hundreds say more; "
                    "add images or switch it off with --probe_steps=0"
                )
        self._train, self._held_out = _turned(train_VHWC, pictures), held_out_VHWC[:questions]
        self._steps, self._seeds = steps, seeds

    def run(self, subject: VQGAN) -> Result:
        """Encodes the pictures, then trains and scores a decoder for each seed."""
        train, held_out = _Pairs.of(subject, self._train), _Pairs.of(subject, self._held_out)
        tokens = subject.tokens_per_image
        config = _decoder(subject.codebook_size, tokens)
        scores = [
            _scored(self._trained(config, train, seed), subject.codebook_size, held_out)
            for seed in range(self._seeds)
        ]
        result: Result = {
            "steps": self._steps,
            "tokens": self._steps * _BATCH * _IMAGES * tokens,
            "pictures": len(self._train),
            "questions": len(self._held_out) * len(TASKS),
            "seeds": self._seeds,
        }
        for name in scores[0]:
            result[name] = float(np.mean([score[name] for score in scores]))
        if self._seeds > 1:
            losses = [score["answers/code_loss"] for score in scores]
            result["answers/code_loss_deviation"] = float(np.std(losses, ddof=1))
        return result

    def _trained(self, config: DecoderConfig, pairs: "_Pairs", seed: int) -> Decoder:
        tokens = config.max_position_embeddings
        task = DecoderTask(config, _optimizer(self._steps), seq_len=tokens)
        step, key = jax.jit(task.step, donate_argnums=0), jax.random.key(seed)
        state = jax.jit(task.init)(key)
        for number in tqdm(range(self._steps), desc=f"probe {seed}", unit="step"):
            rng = np.random.default_rng((seed, number))
            rows = _rows(pairs.drawn(rng), Vocabulary.lvm_of_size(config.vocab_size))
            # Whole rows of one sentence: without segments attention needs no mask.
            batch = {"tokens": rows, "loss_weights": np.ones(rows.shape, np.float32)}
            state, _ = step(state, batch, jax.random.fold_in(key, number))
        return task.model(state)


def _decoder(codebook_size: int, tokens_per_image: int) -> DecoderConfig:
    """The probe; written out, since numbers of different days must compare whatever becomes of the presets."""
    ids = Vocabulary.lvm(codebook_size)
    return DecoderConfig(
        vocab_size=ids.size,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=ids.bos,
        eos_token_id=ids.eos,
        pad_token_id=ids.pad,
        initializer_range=0.08,
        rope_theta=1000.0,
        max_position_embeddings=_IMAGES * tokens_per_image,
        remat="none",
    )


def _optimizer(steps: int) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(
        0.0, 5e-3, min(40, steps // 2), decay_steps=steps, end_value=1e-4
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.95, weight_decay=0.01)
    )


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """The codes of every picture's query and answer, by task in the order of `TASKS`."""

    queries: Int[np.ndarray, "tasks V N"]
    answers: Int[np.ndarray, "tasks V N"]

    @classmethod
    def of(cls, vqgan: VQGAN, pictures_VHWC: UInt8[np.ndarray, "V H W 3"]) -> "_Pairs":
        pictures = list(pictures_VHWC)
        plain = encode_images(vqgan, pictures)
        sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for pair_of in TASKS.values():
            for codes, side in zip(sides, zip(*map(pair_of, pictures))):
                # Half of all sides are the pictures themselves: encoded once.
                same = side[0] is pictures[0]
                codes.append(plain if same else encode_images(vqgan, side))
        return cls(*map(np.stack, sides))

    def drawn(self, rng: np.random.Generator) -> Int[np.ndarray, "B I N"]:
        """A batch of sentences: a task and two pictures each."""
        tasks, pictures = len(self.queries), self.queries.shape[1]
        return np.stack(
            [
                self.sentence(task, *rng.choice(pictures, 2, replace=False))
                for task in rng.integers(0, tasks, _BATCH)
            ]
        )

    def sentence(
        self, task: int, shown: int, asked: int, query: int | None = None
    ) -> Int[np.ndarray, "I N"]:
        """The pair of one picture and that of another, whose query may be that of a third."""
        queries, answers = self.queries[task], self.answers[task]
        right = queries[asked if query is None else query]
        return np.stack([queries[shown], answers[shown], right, answers[asked]])


def _rows(
    sentences_BIN: Int[np.ndarray, "B I N"], vocabulary: Vocabulary
) -> Int[np.ndarray, "B T1"]:
    """Sentences as rows: BOS, then the codes."""
    codes = sentences_BIN.reshape(len(sentences_BIN), -1).astype(np.int32)
    return np.pad(codes, ((0, 0), (1, 0)), constant_values=vocabulary.bos)


def _scored(model: Decoder, codebook_size: int, pairs: _Pairs) -> dict[str, float]:
    scorer = Scorer(model, codebook_size, batch_size=_BATCH)
    pictures, tokens = pairs.queries.shape[1:]
    scores: dict[str, list[float]] = {"code_loss": [], "uses_query": [], "bits_per_image": []}
    for task in range(len(TASKS)):
        # The pair shown is that of the picture before; the other query lies half the set away.
        right = _answer_loss(scorer, [pairs.sentence(task, n - 1, n) for n in range(pictures)])
        away = [(n + pictures // 2) % pictures for n in range(pictures)]
        other = _answer_loss(
            scorer, [pairs.sentence(task, n - 1, n, query=q) for n, q in enumerate(away)]
        )
        scores["code_loss"].append(right)
        scores["uses_query"].append(other - right)
        scores["bits_per_image"].append(right * tokens / math.log(2))
    result = {
        f"{task}/{name}": values[number]
        for number, task in enumerate(TASKS)
        for name, values in scores.items()
    }
    return result | {f"answers/{name}": float(np.mean(values)) for name, values in scores.items()}


def _answer_loss(scorer: Scorer, sentences: list[np.ndarray]) -> float:
    """Nats a code of the last images."""
    dtype = np.uint16 if scorer.vocabulary.size < 1 << 16 else np.uint32
    found = [
        VisualSentence(
            codes.astype(dtype),
            "probe",
            Category.ANNOTATED_IMAGE,
            str(i),
            "query,answer,query,answer",
        )
        for i, codes in enumerate(sentences)
    ]
    return float(np.mean([score.nll_IN[-1].mean() for score in scorer(found)]))


def _turned(pictures_VHWC: np.ndarray, count: int) -> UInt8[np.ndarray, "V H W 3"]:
    """`count` pictures: the given ones, then as many of their symmetric copies as it takes, if there are enough."""
    copies = [pictures_VHWC]
    for turn in range(1, min(_SYMMETRIES, math.ceil(count / len(pictures_VHWC)))):
        mirrored = pictures_VHWC[:, :, ::-1] if turn % 2 else pictures_VHWC
        copies.append(np.rot90(mirrored, turn // 2, axes=(1, 2)))
    return np.concatenate(copies)[:count]
