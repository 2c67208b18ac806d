r"""Answers visual prompts, pictures in, pictures out; or reads pages, pictures in, words out.

  python experiments/generate.py --tokenizer=DIR --model=DIR --output=OUT PROMPT

where PROMPT is one of
  --prompt=prompts.jsonl                             one prompt per line: {"input": [...], "target" or "output": ...}
  --prompt=FOLDER                                    one prompt per sub-folder, its images sorted by name
  --prompt_images=a.png,b.png,c.png --n_images=2     frames, to be continued
  --pairs=x1.png:y1.png,x2.png:y2.png --query=q.png  pairs that show what to do, and a query
  --shards=DIR                                       held-out sentences with their end hidden, compared with the truth

With a --model that answers in context (recipe "unified"), PROMPT is
  --prompt=FOLDER [--category=dog]                   FOLDER/examples/NAME.png with NAME.mask.png or NAME.txt, and
                                                     FOLDER/queries/*.png; see docs/unified.md

OUT/NAME/ has the pictures of a prompt, and strip.png shows them all in a row. OUT/prompts.json has the settings and
how close the answers are. Run it again and it answers only what is missing. How answers are drawn follows
generation.json in the folder of the decoder, if there is one, and the flags before it. See docs/prompting.md.

With a --model that writes words (recipe "vary", GOT-OCR2) it reads pages:
  python experiments/generate.py --model=DIR --pages=PAGES --output=OUT [--ask="Read the text."]
PAGES is an image, a PDF file, or a folder of both. OUT/NAME.txt has the answer beside the page, OUT/NAME.png, and
OUT/pages.json has all answers and settings. Greedy unless --temperature is given. See docs/vary_answers.md.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags
from etils import epath

from lvm_jax import cli
from lvm_jax.data.image_text.views import FITS, fit_named
from lvm_jax.data.in_context.format_folder import has_format, read_format
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.data.records.manifest import check_compatible
from lvm_jax.data.sentences.held_out import read_sentences
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.data.text_tokenizer import TextTokenizer
from lvm_jax.errors import UserError
from lvm_jax.inference.cases import Case, held_out_cases
from lvm_jax.inference.defaults import ANSWERS, Defaults, read_defaults
from lvm_jax.inference.image_generator import ImageGenerator
from lvm_jax.inference.in_context_folder import FolderRequest, answer_folder, read_folder
from lvm_jax.inference.in_context_pictures import InContextGenerator
from lvm_jax.inference.page_answers import Reading, read_pages
from lvm_jax.inference.page_files import list_pages
from lvm_jax.inference.prompt_batches import Request, answer_all, decoder_fingerprint
from lvm_jax.inference.prompt_files import FileCase, read_prompts, split_pair
from lvm_jax.inference.text_generator import TextGenerator, Writing, views_of
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.decoder.kv_cache import CACHE_DTYPES
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.models.vision_language.model import VisionLanguage
from lvm_jax.parallel import runtime

_TOKENIZER = flags.DEFINE_string(
    "tokenizer",
    None,
    "folder of the VQGAN (config.json, model.safetensors); of a model that writes words the text tokenizer, default: "
    "the model's folder",
)
_MODEL = flags.DEFINE_string(
    "model", None, "folder of the decoder that was trained with it", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "where the pictures go", required=True)
_PROMPT = flags.DEFINE_string("prompt", None, "a .jsonl file, a folder of prompts, or one of them")
_BASE = flags.DEFINE_string(
    "prompt_base", None, "what relative paths in the .jsonl start from; default: its own folder"
)
_FRAMES = flags.DEFINE_list("prompt_images", [], "a sequential prompt: image files, oldest first")
_PAIRS = flags.DEFINE_list("pairs", [], "an analogy prompt: image:answer,image:answer,...")
_QUERY = flags.DEFINE_string("query", None, "the image whose answer is wanted, with --pairs")
_SHARDS = flags.DEFINE_string(
    "shards", None, "folder of token shards: prompts from their sentences"
)
_SPLIT = flags.DEFINE_string("split", "validation", "split of the shards")
_PROMPTS = flags.DEFINE_integer(
    "prompts", 12, "how many sentences of the shards to ask; 0 asks all", lower_bound=0
)
_N_IMAGES = flags.DEFINE_integer("n_images", 1, "images to predict")
# How answers are drawn: a flag, or generation.json in the folder of the decoder, or _DEFAULTS.
_CANDIDATES = flags.DEFINE_integer(
    "candidates", None, "independent answers to each prompt; 2 unless the model says otherwise"
)
_TEMPERATURE = flags.DEFINE_float(
    "temperature",
    None,
    "of the sampling; 0 takes the likeliest code; 1 unless the model says otherwise",
)
_TOP_K = flags.DEFINE_integer("top_k", None, "draw from the k likeliest codes; 0 means all")
_TOP_P = flags.DEFINE_float(
    "top_p", None, "draw from the likeliest codes that reach this probability; 1 means all"
)
_MIN_P = flags.DEFINE_float(
    "min_p", None, "draw from codes at least this fraction as likely as the likeliest; 0 means all"
)
_ANSWER = flags.DEFINE_enum(
    "answer",
    None,
    ANSWERS,
    "each: every candidate, unless the model says otherwise; mean: of their pixels; likeliest: one of them",
)
_DEFAULTS = Defaults(candidates=2)
_GREEDY = Defaults(temperature=0.0)  # of pages
_ASPECT = flags.DEFINE_enum(
    "aspect",
    "square",
    ["square", "original"],
    "pictures as the decoder sees them, or stretched back to the size of the originals",
)
_BATCH = flags.DEFINE_integer("batch_size", 4, "prompts answered at once", lower_bound=1)
_CACHE_DTYPE = flags.DEFINE_enum(
    "cache_dtype",
    None,
    list(CACHE_DTYPES),
    "of the KV cache; default: what the model computes in",
)
_SEED = flags.DEFINE_integer("seed", 0, "of all random draws")
_QUESTION = flags.DEFINE_enum(
    "question",
    None,
    [question.name.lower() for question in Question],
    "what is asked in context; default: what the examples show",
)
_CATEGORY = flags.DEFINE_string("category", "", "name of what is meant in queries in context")
_PAGES = flags.DEFINE_string("pages", None, "an image, a PDF file or a folder of both, to be read")
_ASK = flags.DEFINE_string("ask", "", "the question about every page")
_MAX_PAGES = flags.DEFINE_integer("max_pages", 500, "of a PDF file; a longer one is refused")
_MAX_NEW = flags.DEFINE_integer(
    "max_new", 0, "tokens of an answer in words; 0: as many as the context holds"
)
_BEAMS = flags.DEFINE_integer("beams", 1, "of a beam search for words; 1: none")
_LENGTH_PENALTY = flags.DEFINE_float("length_penalty", 1.0, "of beams; 0 prefers short answers")
_NO_REPEAT = flags.DEFINE_integer(
    "no_repeat", 0, "no answer has the same n tokens twice; 0 lets it, as tables need"
)
_CROPS = flags.DEFINE_integer(
    "crops", 1, "into how many a large page is cut at most, for models trained on several pictures"
)
_FIT = flags.DEFINE_enum("fit", "squash", FITS, "how a page fits the ViTDet tower")
_CLIP_FIT = flags.DEFINE_enum("clip_fit", "crop", FITS, "how a page fits the CLIP tower")

_OF_VISUAL_PROMPTS = (
    *(_BASE, _FRAMES, _PAIRS, _QUERY, _SHARDS, _SPLIT, _PROMPTS),
    *(_N_IMAGES, _ANSWER, _ASPECT),
)
_IN_CONTEXT = (_QUESTION, _CATEGORY)
_OF_PAGES = (
    *(_PAGES, _ASK, _MAX_PAGES, _CROPS, _FIT, _CLIP_FIT),
    *(_MAX_NEW, _BEAMS, _LENGTH_PENALTY, _NO_REPEAT),
)


def main() -> None:
    """Answers in the way of the model."""
    runtime.initialize()
    if VisionLanguage.reads(_MODEL.value):
        unread = (_PROMPT, _CANDIDATES, *_OF_VISUAL_PROMPTS, *_IN_CONTEXT)
        cli.refuse(unread, "a model that writes words")
        read_documents()
    elif has_format(_MODEL.value):
        cli.refuse((*_OF_VISUAL_PROMPTS, *_OF_PAGES), "a model that answers in context")
        answer_in_context()
    else:
        cli.refuse((*_IN_CONTEXT, *_OF_PAGES), "a model of visual sentences")
        answer_visual_prompts()


def answer_in_context() -> None:
    """Answers the queries of a folder from its examples."""
    if not _PROMPT.value:
        raise UserError(
            f"{_MODEL.value} answers in context: name --prompt, a folder with examples/ and queries/"
        )
    if not _TOKENIZER.value:
        raise UserError(
            f"{_MODEL.value} reads pictures as codes: name --tokenizer, the VQGAN it was trained with"
        )
    drawing = _drawing()  # fails on a value out of range before any model is loaded
    question = Question[_QUESTION.value.upper()] if _QUESTION.value else None
    questions = read_folder(_PROMPT.value, question)
    request = FolderRequest(
        _CATEGORY.value, drawing.candidates, drawing.sampling, _SEED.value, _BATCH.value
    )
    model, vqgan = Decoder.from_pretrained(_MODEL.value), VQGAN.from_pretrained(_TOKENIZER.value)
    generator = InContextGenerator(
        model, vqgan, read_format(_MODEL.value), cache_dtype=_CACHE_DTYPE.value
    )
    identity = {"model": decoder_fingerprint(model), "tokenizer": vqgan.fingerprint()}
    identity |= {"cache_dtype": generator.engine.cache_dtype}
    answer_folder(generator, questions, request, epath.Path(_OUTPUT.value), identity)
    print(f"the answers are in {_OUTPUT.value}")


def read_documents() -> None:
    """Reads pages with a model that writes words."""
    if not _PAGES.value:
        raise UserError(
            f"{_MODEL.value} writes words: name --pages, an image, a PDF file or a folder"
        )
    drawing = dataclasses.replace(_GREEDY, **_flagged())
    writing = Writing(
        _MAX_NEW.value,
        drawing.sampling,
        _BEAMS.value,
        _LENGTH_PENALTY.value,
        _NO_REPEAT.value,
        _SEED.value,
    )
    listing = list_pages(_PAGES.value, max_pages=_MAX_PAGES.value, output=_OUTPUT.value)
    tokenizer = TextTokenizer(_TOKENIZER.value or _MODEL.value)
    model = VisionLanguage.from_pretrained(_MODEL.value)
    views = views_of(model.config, fit=fit_named(_FIT.value), clip_fit=fit_named(_CLIP_FIT.value))
    generator = TextGenerator(model, tokenizer, views=views, cache_dtype=_CACHE_DTYPE.value)
    reading = Reading(_ASK.value, _CROPS.value, writing, _BATCH.value)
    identity = reading.described(model, tokenizer.fingerprint)
    identity |= {"cache_dtype": _CACHE_DTYPE.value, "fit": _FIT.value, "clip_fit": _CLIP_FIT.value}
    records = read_pages(listing.pages, generator, reading, epath.Path(_OUTPUT.value), identity)
    bad = [*listing.refused, *(record["error"] for record in records if "error" in record)]
    loops = sum(record.get("loop", 0) > 0 for record in records)
    print(
        f"{sum('text' in record for record in records)} pages read, {loops} answers that end in a loop, {len(bad)} bad "
        f"inputs{': ' if bad else ''}{'; '.join(bad[:3])}{'; ...' if len(bad) > 3 else ''}\n"
        f"the answers are in {_OUTPUT.value}"
    )


def answer_visual_prompts() -> None:
    """Answers prompts of pictures with pictures."""
    if not _TOKENIZER.value:
        raise UserError(
            f"{_MODEL.value} makes pictures: name --tokenizer, the VQGAN it was trained with"
        )
    drawing = _drawing()  # fails on a value out of range before any model is loaded
    request = Request(
        _N_IMAGES.value,
        drawing.candidates,
        drawing.sampling,
        _SEED.value,
        _ASPECT.value,
        drawing.answer,
    )
    vqgan, model = VQGAN.from_pretrained(_TOKENIZER.value), Decoder.from_pretrained(_MODEL.value)
    engine = ImageGenerator(model, vqgan, cache_dtype=_CACHE_DTYPE.value).engine
    engine.check_request(0, _N_IMAGES.value, drawing.candidates)
    cases = _cases(vqgan, engine.context_images)
    output = epath.Path(_OUTPUT.value)
    identity = request.described(vqgan, model) | {"cache_dtype": engine.cache_dtype}
    summary = answer_all(cases, engine, vqgan, request, output, identity, batch_size=_BATCH.value)
    if summary["means"]:
        known = sum("psnr" in record for record in summary["prompts"])
        print(
            "{n} of the prompts have a known answer: {token_accuracy:.1%} of its codes right, {psnr:.1f} dB from it; "
            "copying the last comparable image: {copy_token_accuracy:.1%}, {copy_psnr:.1f} dB".format(
                n=known, **summary["means"]
            )
        )
    print(f"the pictures are in {output}")


def _drawing() -> Defaults:
    """The model's defaults, with what the flags say in their place."""
    return dataclasses.replace(read_defaults(_MODEL.value) or _DEFAULTS, **_flagged())


def _flagged() -> dict[str, Any]:
    """How to draw answers, as far as flags say it."""
    flagged = {
        "temperature": _TEMPERATURE.value, "top_k": _TOP_K.value, "top_p": _TOP_P.value, "min_p": _MIN_P.value,
        "candidates": _CANDIDATES.value, "answer": _ANSWER.value,
    }  # fmt: skip
    return {name: value for name, value in flagged.items() if value is not None}


def _cases(vqgan: VQGAN, context_images: int) -> Sequence[Case | FileCase]:
    """The prompts that the flags ask for; they must be of one kind."""
    given = (_PROMPT.value, _FRAMES.value, _PAIRS.value or _QUERY.value, _SHARDS.value)
    if sum(map(bool, given)) != 1:
        raise UserError(
            "name one kind of prompt: --prompt, or --prompt_images, or --pairs with --query, or --shards"
        )
    if _SHARDS.value:
        return _held_out(_SHARDS.value, vqgan, context_images)
    cases = _from_files(vqgan)
    for case in cases:  # a mistake in the last line should show before the first answer
        case.check(context_images)
    return cases


def _held_out(shards: str, vqgan: VQGAN, context_images: int) -> list[Case]:
    store = SentenceStore(shards, _SPLIT.value)
    check_compatible(store.manifest, tokenizer_fingerprint=vqgan.fingerprint())
    # Enough sentences to include every source and kind, but few even if the split has millions.
    sentences = read_sentences(store, 20 * _PROMPTS.value)
    return held_out_cases(
        sentences, n_images=_N_IMAGES.value, limit=_PROMPTS.value, context_images=context_images
    )


def _from_files(vqgan: VQGAN) -> list[FileCase]:
    if _PROMPT.value:
        return read_prompts(_PROMPT.value, vqgan, _BASE.value)
    if _FRAMES.value:
        return [FileCase("sequential", "--prompt_images", {"input": _FRAMES.value}, vqgan)]
    if not _QUERY.value:
        raise UserError("--pairs needs --query, the image whose answer is wanted")
    fields = {"pairs": [split_pair(pair) for pair in _PAIRS.value], "query": _QUERY.value}
    return [FileCase("analogy", "--pairs", fields, vqgan)]


if __name__ == "__main__":
    cli.run(main)
