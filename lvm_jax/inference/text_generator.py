"""Questions about pictures, answered in words, by a model of towers and a decoder (Vary, GOT-OCR2).

R: questions of a batch, I: pictures of a question, N: image tokens of a picture, T: tokens of a prompt, D: hidden size,
V: vocabulary; H, W: pixels of any picture.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from lvm_jax.data.image_text.conversation import PLACEHOLDER, Conversation, Turn
from lvm_jax.data.image_text.templates import Row, answer_of, render, template_of
from lvm_jax.data.image_text.views import Fit, View
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.errors import UserError
from lvm_jax.inference.beam import Beams
from lvm_jax.inference.generate import Generator, Stop
from lvm_jax.inference.prompting import Image, as_rgb
from lvm_jax.inference.sampling import Sampling
from lvm_jax.inference.text import Prompts, continue_prompts, search_prompts
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.towers.clip_config import ClipVisionConfig
from lvm_jax.weights.memo import WeightsMemo
from lvm_jax.weights.model_folder import check_finite

GREEDY = Sampling(0.0)


class ReaderConfig(Protocol):
    """What of a reader's configuration counts here."""

    @property
    def branches(self) -> Mapping[str, Any]:
        """Name of a picture's view -> the branch that sees it; its `tower` has an `image_size`."""
        ...

    @property
    def image_tokens(self) -> int:
        """N."""
        ...

    @property
    def image_ids(self) -> tuple[int, int, int]:
        """Ids of the patch, the start and the end of a picture."""
        ...


class Reader(Protocol):
    """An NNX module that sees pictures and writes words.

    Attributes:
      decoder: reads embeddings.
      tokenizer_fingerprint: of the text tokenizer that it was trained with; "": unknown.
    """

    decoder: Decoder
    tokenizer_fingerprint: str

    @property
    def config(self) -> ReaderConfig:
        """Its configuration."""
        ...

    def embed(
        self,
        tokens_BT: Int[Array, "B T"],
        images: Mapping[str, jax.Array],
        image_places_BIN: Int[Array, "B I N"],
    ) -> Float[Array, "B T D"]:
        """The decoder's inputs: embedded ids, with the image tokens of uint8 pictures in their places."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """A question.

    Attributes:
      images: uint8 RGB of any sizes.
      conversation: with a placeholder for each picture; its last answer is wanted.
    """

    images: tuple[UInt8[np.ndarray, "H W 3"], ...]
    conversation: Conversation

    @classmethod
    def of(cls, images: Sequence[Image], question: str = "") -> "Asked":
        """One question about pictures, put before it as in training unless it has placeholders of its own.

        Raises:
          UserError: a picture cannot be read.
          BadConversation: the question has placeholders for more or fewer pictures.
        """
        if PLACEHOLDER not in question:
            shown = [PLACEHOLDER] * len(images)
            question = "\n".join([*shown, question] if question else shown)
        conversation = Conversation((Turn(question, None),))
        conversation.check_pictures(len(images))
        return cls(tuple(as_rgb(image) for image in images), conversation)


@dataclasses.dataclass(frozen=True)
class Written:
    """An answer.

    Attributes:
      text: its words.
      ids: its tokens, without the one that ends it.
      ended: whether the model ended it; otherwise it was cut at the longest length.
    """

    text: str
    ids: tuple[int, ...]
    ended: bool


@dataclasses.dataclass(frozen=True)
class Writing:
    """How to write.

    Attributes:
      max_new: tokens of an answer at most; 0: as many as the context holds.
      sampling: greedy by default; unused with beams.
      beams: of a beam search; 1: none.
      length_penalty: see `Beams`.
      no_repeat: no answer has the same n tokens in a row twice; 0 lets it. It breaks tables, which repeat themselves.
      seed: of all random draws.
    """

    max_new: int = 0
    sampling: Sampling = GREEDY
    beams: int = 1
    length_penalty: float = 1.0
    no_repeat: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new < 0 or self.no_repeat < 0:
            raise UserError(
                f"max_new is {self.max_new}, no_repeat is {self.no_repeat}: both must be at least 0"
            )
        self.sampling.filters()
        Beams(self.beams, self.length_penalty, self.no_repeat)
        if self.beams > 1 and self.sampling != GREEDY:
            raise UserError(
                f"beams is {self.beams} with {self.sampling}: a beam search draws nothing, choose one of them"
            )


# A generator holds an unstacked copy of the decoder, rounded to the compute dtype.
_GENERATORS: WeightsMemo[Generator] = WeightsMemo()


class TextGenerator:
    """Answers questions about pictures in words.

    Args:
      model: its generator is built once and kept until its weights change.
      tokenizer: that the model was trained with.
      views: name -> the view that a tower sees; default: `views_of`.
      cache_dtype: how the KV cache is stored, a key of `lvm_jax.models.decoder.kv_cache.CACHE_DTYPES`; by default the
        model's compute dtype.

    Attributes:
      context: tokens of question and answer together.
      view_size: height and width of the largest view.

    Raises:
      UserError: the tokenizer is not the model's, or weights are not finite.
    """

    def __init__(
        self,
        model: Reader,
        tokenizer: TextTokenizer,
        *,
        views: Mapping[str, View] | None = None,
        cache_dtype: str | None = None,
    ) -> None:
        check_tokenizer(model, tokenizer)
        assert isinstance(model, nnx.Module)
        self._model, self._tokenizer = model, tokenizer
        self._views = views or views_of(model.config)
        self.context = model.decoder.config.max_position_embeddings
        sizes = [(view.height, view.width) for view in self._views.values()]
        self.view_size = max(sizes, key=lambda size: size[0] * size[1])

        def build() -> Generator:
            check_finite(model, "the model")
            return Generator(model.decoder.unstacked(), cache_dtype=cache_dtype)

        self._generator = _GENERATORS.of(model, build, key=(model.decoder.config, cache_dtype))
        self._stop = Stop((tokenizer.ids["eos"],), tokenizer.ids["pad"])

    def room(self, asked: Asked) -> int:
        """Tokens of the longest answer that the context has room for, at least one.

        Raises:
          UnknownCharacters: the tokenizer has no token for a character.
          BadConversation: it is too long, or the template cannot show it.
        """
        return self.context - len(self._row(asked).tokens)

    def __call__(self, asked: Sequence[Asked], writing: Writing = Writing()) -> list[Written]:
        """Answers questions as one batch, of any lengths and numbers of pictures.

        An answer does not depend on the others, up to rounding in matrix products of another size.

        Raises:
          UserError: no question, or no room for `max_new` tokens behind the longest.
          UnknownCharacters, BadConversation: see `room`.
        """
        if not asked:
            raise UserError("0 questions to answer: give at least 1")
        rows = [self._row(one) for one in asked]
        rooms = [self.context - len(row.tokens) for row in rows]
        max_new = writing.max_new or min(rooms)
        if max_new > min(rooms):
            raise UserError(
                f"max_new is {max_new} and the longest question has {self.context - min(rooms)} tokens: the context "
                f"has {self.context}, so ask for at most {min(rooms)}"
            )
        if writing.beams > 1 and len(set(rooms)) > 1 and not writing.max_new:
            # The room decides which beams can still win, so each search is of questions that have the same.
            return self._by_room(asked, rooms, writing)
        answers = self._answered(asked, rows, writing, max_new)
        if writing.max_new:
            return answers
        # The longest question sets the room of its batch. What did not end in there is written again without it.
        again = [
            i
            for i, (room, written) in enumerate(zip(rooms, answers, strict=True))
            if room > max_new and not written.ended
        ]
        if again:
            longer = self([asked[i] for i in again], writing)
            for i, written in zip(again, longer, strict=True):
                answers[i] = written
        return answers

    def _by_room(
        self, asked: Sequence[Asked], rooms: Sequence[int], writing: Writing
    ) -> list[Written]:
        answers: dict[int, Written] = {}
        for room in sorted(set(rooms)):
            alike = [i for i, own in enumerate(rooms) if own == room]
            answers |= zip(alike, self([asked[i] for i in alike], writing), strict=True)
        return [answers[i] for i in range(len(asked))]

    def _answered(
        self, asked: Sequence[Asked], rows: Sequence[Row], writing: Writing, max_new: int
    ) -> list[Written]:
        prompts = self._embedded(rows, asked)
        options = {"allowed_V": self._allowed(), "stop": self._stop}
        if writing.beams > 1:
            beams = Beams(writing.beams, writing.length_penalty, writing.no_repeat)
            texts = search_prompts(self._generator, prompts, max_new, beams=beams, **options)
        else:
            texts = continue_prompts(
                self._generator,
                prompts,
                max_new,
                sampling=writing.sampling,
                no_repeat=writing.no_repeat,
                seed=writing.seed,
                **options,
            )
        return [self._written(best, max_new) for best, *_ in texts]

    def _row(self, asked: Asked) -> Row:
        # One token less than the context: an answer needs room for at least one.
        image_tokens = self._model.config.image_tokens
        return render(asked.conversation, self._tokenizer, image_tokens, self.context - 1)

    def _embedded(self, rows: Sequence[Row], asked: Sequence[Asked]) -> Prompts:
        """The prompts as embeddings, of few shapes."""
        prompts = Prompts.of([row.tokens for row in rows], self._stop.pad, longest=self.context)
        pictures = max(len(one.images) for one in asked)
        if not pictures:
            return prompts
        tokens_RT = np.asarray(prompts.inputs)
        # One past the row is no place: there the pictures go that a question does not have.
        places_RIN = np.full(
            (len(rows), pictures, self._model.config.image_tokens), tokens_RT.shape[1], np.int32
        )
        for places, row in zip(places_RIN, rows):
            places[: len(row.image_places)] = row.image_places
        views = {
            name: np.stack([_seen(view, one.images, pictures) for one in asked])
            for name, view in self._views.items()
        }
        graphdef, state = nnx.split(self._model)
        embedded = _embed(graphdef, state, tokens_RT, views, places_RIN)
        return dataclasses.replace(prompts, inputs=embedded)

    def _allowed(self) -> Bool[np.ndarray, " V"]:
        """Words and the end; no other special token, and no row of the vocabulary table without a token."""
        allowed_V = np.zeros(self._model.decoder.config.vocab_size, bool)
        allowed_V[: self._tokenizer.size] = True
        allowed_V[list(self._tokenizer.ids.values())] = False
        if self._tokenizer.unknown is not None:
            allowed_V[self._tokenizer.unknown] = False
        allowed_V[list(self._stop.ids)] = True
        return allowed_V

    def _written(self, ids: Int[np.ndarray, " T2"], max_new: int) -> Written:
        text = answer_of(ids.tolist(), self._tokenizer)
        return Written(text, tuple(ids.tolist()), ended=len(ids) < max_new)


def generate_text(
    model: Reader,
    tokenizer: TextTokenizer,
    images: Image | Sequence[Image],
    prompt: str = "",
    *,
    max_new: int = 0,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    beams: int = 1,
    length_penalty: float = 1.0,
    no_repeat: int = 0,
    seed: int = 0,
    views: Mapping[str, View] | None = None,
) -> str:
    """Answers a question about one or several pictures in words.

    Args:
      model: towers and a decoder.
      tokenizer: that it was trained with.
      images: a picture or several: files, Pillow images or arrays, as `VisualPrompt.sequential` takes them.
      prompt: the question; `<image>` in it stands for the next picture, otherwise the pictures come first.
      max_new: tokens of the answer at most; 0: as many as the context holds.
      temperature, top_k, top_p: see `Sampling`; a temperature of 0 is greedy.
      beams: of a beam search; 1: none.
      length_penalty: see `lvm_jax.inference.beam.Beams`.
      no_repeat: no n tokens in a row come twice; 0 lets it.
      seed: of all random draws.
      views: name -> the view that a tower sees; default: `views_of`.

    Raises:
      UserError: the tokenizer is not the model's, a picture cannot be read, the context has no room, or an option is
        out of range.
      UnknownCharacters: the tokenizer has no token for a character.
      BadConversation: the question has placeholders for more or fewer pictures, or is too long.
    """
    pictures = [images] if isinstance(images, str) or not isinstance(images, Sequence) else images
    writing = Writing(
        max_new, Sampling(temperature, top_k, top_p), beams, length_penalty, no_repeat, seed
    )
    generator = TextGenerator(model, tokenizer, views=views)
    return generator([Asked.of(pictures, prompt)], writing)[0].text


def views_of(
    config: ReaderConfig, *, fit: Fit = "squash", clip_fit: Fit = "crop"
) -> dict[str, View]:
    """The view of each branch. By default as published: a ViTDet sees the whole picture squashed, a CLIP its middle.

    Args:
      config: of the model.
      fit: of ViTDet's view, see `View`.
      clip_fit: of CLIP's.
    """
    return {
        name: View(
            *branch.tower.image_size,
            fit=clip_fit if isinstance(branch.tower, ClipVisionConfig) else fit,
        )
        for name, branch in config.branches.items()
    }


def check_tokenizer(model: Reader, tokenizer: TextTokenizer) -> None:
    """Requires the text tokenizer that a model was trained with.

    Raises:
      UserError: it has another fingerprint, other ids of pictures or none, no template, or ids outside the embedding.
    """
    trained_with = model.tokenizer_fingerprint
    if trained_with and trained_with != tokenizer.fingerprint:
        raise UserError(
            f"the model was trained with the text tokenizer {trained_with}, {tokenizer.folder} is "
            f"{tokenizer.fingerprint}: use the one in the model's folder"
        )
    tokenizer.check_fits(model.decoder.config.vocab_size)
    template_of(tokenizer)  # it names a template, and the tokens that this needs
    names = ("image_patch", "image_start", "image_end")
    for name, id in zip(names, model.config.image_ids):
        if tokenizer.ids[name] != id:
            raise UserError(
                f"{name} {tokenizer.settings.specials[name]!r} of {tokenizer.folder} has id {tokenizer.ids[name]}, the "
                f"model's is {id}: use the tokenizer that it was trained with"
            )


def _seen(
    view: View, images: Sequence[UInt8[np.ndarray, "H W 3"]], count: int
) -> UInt8[np.ndarray, "I H2 W2 3"]:
    """The views of `count` pictures; the background where there is none."""
    pictures = [view.of(image, None) for image in images]
    return np.stack(pictures + [view.empty()] * (count - len(pictures)))


# At module level, keyed by the graph definition: all calls share the compiled programs.
@functools.partial(jax.jit, static_argnames="graphdef")
def _embed(
    graphdef: Any,
    state: Any,
    tokens_RT: Int[Array, "R T"],
    views: Mapping[str, jax.Array],
    places_RIN: Int[Array, "R I N"],
) -> Float[Array, "R T D"]:
    return nnx.merge(graphdef, state).embed(tokens_RT, views, places_RIN)
