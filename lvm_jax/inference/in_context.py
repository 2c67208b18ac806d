"""Answers questions about pictures from examples, as ids: masks as codes, words as text, boxes and a category.

R: prompts, B: candidates of a prompt, N: codes of a picture, T: tokens.

Only what is due can be drawn: codes inside a mask; word pieces, brackets, bins and the pad that ends them inside words.
Prompts that show the very same examples share one cache of them, and candidates share that of their whole prompt.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from lvm_jax.data.in_context.sequences import Pair, Question, Row, SequenceFormat
from lvm_jax.data.in_context.words import Words
from lvm_jax.errors import UserError
from lvm_jax.inference.generate import Attributes, Continuation, Generator, Stop, candidate_keys
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.decoder.kv_cache import check_dtype
from lvm_jax.weights.model_folder import check_finite


@dataclasses.dataclass(frozen=True, eq=False)
class InContextPrompt:
    """Examples and a query.

    Attributes:
      examples: pairs of one question, perhaps none.
      picture: codes of the query.
      question: what is asked; that of the examples.
      category: the name of what is meant, "" leaves it open. It stands before the query where the format has room for
        it, and otherwise begins the words, which then go on from it.
    """

    examples: tuple[Pair, ...]
    picture: Int[np.ndarray, " N"]
    question: Question
    category: str = ""

    @property
    def query(self) -> Pair:
        """The query as a pair whose answer says nothing."""
        answer = Words("") if self.question is Question.CAPTIONING else np.zeros_like(self.picture)
        return Pair(self.picture, answer, self.category)


@dataclasses.dataclass(frozen=True)
class DrawnWords:
    """Words that were drawn.

    Attributes:
      words, broken: as `WordsFormat.parse` reads them.
      log_likelihood: mean of the drawn tokens', the pad that ends them included, in nats; among what may be drawn and
        whatever the sampling. A mean, so that short words do not win by being short.
    """

    words: Words
    broken: int
    log_likelihood: float


class InContextEngine:
    """Continues rows of pairs, on the mesh set by `jax.set_mesh` if there is one.

    Args:
      model: the decoder.
      form: how rows are made; the one that it was trained on.
      cache_dtype: how the KV cache is stored, a key of `lvm_jax.models.decoder.kv_cache.CACHE_DTYPES`; by default the
        model's compute dtype.

    Raises:
      UserError: the vocabulary is not the decoder's, the cache dtype is unknown, or weights are not finite.
    """

    def __init__(
        self, model: Decoder, form: SequenceFormat, *, cache_dtype: str | None = None
    ) -> None:
        if (needed := form.words.vocabulary.size) != model.config.vocab_size:
            raise UserError(
                f"the decoder has {model.config.vocab_size} ids and the format {needed}: use the folder that the "
                "decoder was exported to, with its own format"
            )
        self.cache_dtype = cache_dtype or model.config.dtype
        check_dtype(self.cache_dtype)
        check_finite(model, "the decoder")
        self.form, self.config = form, model.config
        self._by_attributes = "moe" in model.config.mlps and model.config.moe.router == "attribute"
        self._generator = Generator(model.unstacked(), cache_dtype=self.cache_dtype)

    @property
    def most_examples(self) -> int:
        """Examples that leave room for a query and its answer."""
        return self.config.max_position_embeddings // self.form.pair_length - 1

    def masks(
        self,
        prompts: Sequence[InContextPrompt],
        *,
        n_candidates: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Int[np.ndarray, "R B N"]:
        """Draws masks as codes, `n_candidates` of each prompt independently.

        Args:
          prompts: that ask for masks.
          n_candidates: masks of each.
          sampling: see `Sampling`; by default the model's own distribution.
          seed: of all random draws.

        Raises:
          UserError: no prompt or no candidate, a prompt that asks for something else or is too long for the decoder, or
            a pair that does not fit the format.
        """
        ids_RBN, _ = self._drawn(prompts, Question.SEGMENTATION, n_candidates, sampling, seed)
        return ids_RBN - self.form.words.vocabulary["image"].start

    def words(
        self,
        prompts: Sequence[InContextPrompt],
        *,
        n_candidates: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[list[DrawnWords]]:
        """Draws words, `n_candidates` of each prompt independently; arguments and errors as in `masks`."""
        ids_RBN, nats_RB = self._drawn(prompts, Question.CAPTIONING, n_candidates, sampling, seed)
        mean_RB = nats_RB / drawn_tokens(ids_RBN, self.form.words.vocabulary.pad)
        return [
            [
                self._read([*self._begun(prompt), *ids_N], float(mean))
                for ids_N, mean in zip(ids_BN.tolist(), mean_B, strict=True)
            ]
            for prompt, ids_BN, mean_B in zip(prompts, ids_RBN, mean_RB, strict=True)
        ]

    def _read(self, ids: Sequence[int], log_likelihood: float) -> DrawnWords:
        parsed = self.form.words.parse(ids)
        return DrawnWords(parsed.words, parsed.broken, log_likelihood)

    def _drawn(
        self,
        prompts: Sequence[InContextPrompt],
        question: Question,
        n_candidates: int,
        sampling: Sampling | None,
        seed: int,
    ) -> tuple[Int[np.ndarray, "R B N"], Float[np.ndarray, "R B"]]:
        """The ids of the answers and their log likelihoods; words end with pads."""
        self._check(prompts, question, n_candidates)
        rows, N = len(prompts) * n_candidates, self.form.tokens_per_image
        longest = max(prompts, key=lambda prompt: len(self._begun(prompt)))
        if (begun := len(self._begun(longest))) >= N:
            raise UserError(
                f"the category {longest.category!r} has {begun} tokens with its brackets: words have room for {N} with "
                "what follows it, so name it shorter"
            )
        made = [self._row(prompt) for prompt in prompts]
        first = prompts[0].examples
        if len(prompts) > 1 and first and all(prompt.examples is first for prompt in prompts):
            shared = len(first) * self.form.pair_length
            started = self._start_after(shared, made, rows, N - begun)
        else:
            started = self._start(made, rows, N - begun)
        stop, pad = None, self.form.words.vocabulary.pad
        if question is Question.CAPTIONING:
            stop = Stop((pad,), pad)
        filters = (sampling or Sampling()).filters()
        keys_B = candidate_keys(seed, len(prompts), n_candidates)
        allowed_V = self.form.drawable(question)
        ids_BN = np.asarray(started.draw(N - begun, keys_B, filters, allowed_V, stop))
        nats_B = np.asarray(started.rows.log_likelihood_B)
        shape = len(prompts), n_candidates
        return ids_BN.reshape(*shape, -1), nats_B.reshape(shape)

    def _row(self, prompt: InContextPrompt) -> Row:
        """The tokens up to where the answer is drawn."""
        begun, query = self._begun(prompt), prompt.query
        if begun:
            query = dataclasses.replace(query, category="")
        row = self.form.prompt(prompt.examples, query)
        more = np.full(len(begun), self.form.answer_attribute(prompt.question), np.int32)
        return dataclasses.replace(
            row,
            tokens=np.concatenate([row.tokens, np.array(begun, np.int32)]),
            attributes=np.concatenate([row.attributes, more]),
        )

    def _begun(self, prompt: InContextPrompt) -> list[int]:
        """The ids that words begin with: those of the category, if it stands nowhere else."""
        is_free = prompt.question is Question.CAPTIONING and not self.form.category_room
        return self.form.words.category(prompt.category) if is_free and prompt.category else []

    def _start(self, rows: Sequence[Row], count: int, slots: int) -> Continuation:
        """Reads whole prompts; all candidates of a prompt share its cache."""
        lengths_R = np.array([len(row.tokens) - 1 for row in rows], np.int32)
        # Padding on the right, which `lengths_R` hides.
        tokens_RT, attributes_RT = (
            _padded([vars(row)[name][:-1] for row in rows], int(lengths_R.max()))
            for name in ("tokens", "attributes")
        )
        next_R, drawn_R = (
            np.array([vars(row)[name][-1] for row in rows]) for name in ("tokens", "attributes")
        )
        attributes = Attributes(attributes_RT, drawn_R) if self._by_attributes else None
        return self._generator.start(
            tokens_RT, lengths_R, next_R, rows=count, slots=slots, attributes=attributes
        )

    def _start_after(
        self, shared: int, rows: Sequence[Row], count: int, slots: int
    ) -> Continuation:
        """Reads the `shared` first tokens of all rows once, then each row's own."""
        lengths = {len(row.tokens) for row in rows}
        if len(lengths) > 1:  # the words of one begin with a longer category
            return self._start(rows, count, slots)
        own, first = lengths.pop() - shared, rows[0]
        examples = dataclasses.replace(
            first, tokens=first.tokens[:shared], attributes=first.attributes[:shared]
        )
        started = self._start([examples], count, own + slots)
        tokens_BT, attributes_BT = (
            np.repeat([vars(row)[name][shared:] for row in rows], count // len(rows), axis=0)
            for name in ("tokens", "attributes")
        )
        started.read(tokens_BT, attributes_BT if self._by_attributes else None)
        return started

    def _check(
        self, prompts: Sequence[InContextPrompt], question: Question, n_candidates: int
    ) -> None:
        if not prompts or n_candidates < 1:
            raise UserError(
                f"{len(prompts)} prompts and {n_candidates} candidates: give at least 1 of both"
            )
        for prompt in prompts:
            questions = {prompt.question, *(pair.question for pair in prompt.examples)}
            if questions != {question}:
                asked = sorted(found.name.lower() for found in questions)
                raise UserError(
                    f"a prompt for {question.name.lower()} has pairs for {', '.join(asked)}: give examples of what is "
                    "asked, masks only or words only"
                )
            if len(prompt.examples) > self.most_examples:
                raise UserError(
                    f"a prompt has {len(prompt.examples)} examples: the decoder's "
                    f"{self.config.max_position_embeddings} positions have room for {max(self.most_examples, 0)} and a "
                    "query; leave some out"
                )


def drawn_tokens(ids_RBN: Int[np.ndarray, "R B N"], pad: int) -> Int[np.ndarray, "R B"]:
    """How many tokens of each answer were drawn: the first pad was, those after it fill the room."""
    return np.minimum((ids_RBN != pad).sum(-1) + 1, ids_RBN.shape[-1])


def _padded(rows: Sequence[Int[np.ndarray, "_"]], length: int) -> Int[np.ndarray, "R T"]:
    found = np.zeros((len(rows), length), np.int32)
    for target, row in zip(found, rows):
        target[: len(row)] = row
    return found
