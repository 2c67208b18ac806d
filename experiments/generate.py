r"""Answers visual prompts: pictures in, pictures out.

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
"""

import dataclasses
from collections.abc import Sequence

from absl import flags
from etils import epath

from lvm_jax import cli
from lvm_jax.data.in_context.format_folder import has_format, read_format
from lvm_jax.data.in_context.sequences import Question
from lvm_jax.data.records.manifest import check_compatible
from lvm_jax.data.sentences.held_out import read_sentences
from lvm_jax.data.sentences.sentence_store import SentenceStore
from lvm_jax.errors import UserError
from lvm_jax.inference.cases import Case, held_out_cases
from lvm_jax.inference.defaults import ANSWERS, Defaults, read_defaults
from lvm_jax.inference.image_generator import ImageGenerator
from lvm_jax.inference.in_context_folder import FolderRequest, answer_folder, read_folder
from lvm_jax.inference.in_context_pictures import InContextGenerator
from lvm_jax.inference.prompt_batches import Request, answer_all, decoder_fingerprint
from lvm_jax.inference.prompt_files import FileCase, read_prompts, split_pair
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.decoder.kv_cache import CACHE_DTYPES
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.parallel import runtime

_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "folder of the VQGAN (config.json, model.safetensors)", required=True
)
_MODEL = flags.DEFINE_string(
    "model", None, "folder of the decoder that was trained with it", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "where the pictures go", required=True)
_PROMPT = flags.DEFINE_string("prompt", None, "a .jsonl file, or a folder of prompts")
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
    "prompts", 12, "how many sentences of the shards to ask; 0 asks all"
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


def main() -> None:
    """Collects the prompts and answers them."""
    runtime.initialize()
    if has_format(_MODEL.value):
        answer_in_context()
    else:
        answer_visual_prompts()


def answer_in_context() -> None:
    """Answers the queries of a folder from its examples."""
    if not _PROMPT.value:
        raise UserError(
            f"{_MODEL.value} answers in context: name --prompt, a folder with examples/ and queries/"
        )
    if _ANSWER.value:
        raise UserError(f"--answer={_ANSWER.value} is for visual prompts: leave it out")
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
    answer_folder(generator, questions, request, epath.Path(_OUTPUT.value), identity)
    print(f"the answers are in {_OUTPUT.value}")


def answer_visual_prompts() -> None:
    """Answers prompts of pictures with pictures."""
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
    flagged = {
        "temperature": _TEMPERATURE.value, "top_k": _TOP_K.value, "top_p": _TOP_P.value, "min_p": _MIN_P.value,
        "candidates": _CANDIDATES.value, "answer": _ANSWER.value,
    }  # fmt: skip
    given = {name: value for name, value in flagged.items() if value is not None}
    return dataclasses.replace(read_defaults(_MODEL.value) or _DEFAULTS, **given)


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
