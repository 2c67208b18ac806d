r"""Answers visual prompts: pictures in, pictures out.

  python experiments/generate.py --tokenizer=DIR --model=DIR --output=OUT PROMPT

where PROMPT is one of
  --prompt_images=a.png,b.png,c.png --n_images=2     frames, and what comes next
  --pairs=x1.png:y1.png,x2.png:y2.png --query=q.png  pairs that show a task, and a query
  --shards=DIR                                       held-out sentences whose end is hidden, compared with the truth

OUT/NAME/ holds the pictures of a prompt and strip.png; OUT/prompts.json what was asked and how close the answers are.
Run again, it answers only the prompts that are missing.
"""

import numpy as np
from absl import flags
from etils import epath

from lvm_jax import cli
from lvm_jax.data.manifest import check_compatible
from lvm_jax.data.shards import SentenceStore
from lvm_jax.errors import UserError
from lvm_jax.evaluation.held_out import read_sentences
from lvm_jax.evaluation.prompts import PromptCase, Request, answer_all, held_out_cases
from lvm_jax.inference.engine import Engine
from lvm_jax.inference.prompting import VisualPrompt, check_pair, encode_prompt
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.llama import Llama
from lvm_jax.models.vqgan import VQGAN
from lvm_jax.parallel import runtime

_TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "folder of the VQGAN (config.json, model.safetensors)", required=True
)
_MODEL = flags.DEFINE_string(
    "model", None, "folder of the decoder that was trained with it", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "where the pictures go", required=True)
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
_CANDIDATES = flags.DEFINE_integer("candidates", 2, "independent answers to each prompt")
_TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "of the sampling; 0 takes the likeliest code")
_TOP_K = flags.DEFINE_integer("top_k", 0, "draw from the k likeliest codes; 0 means all")
_TOP_P = flags.DEFINE_float(
    "top_p", 1.0, "draw from the likeliest codes that reach this probability"
)
_SEED = flags.DEFINE_integer("seed", 0, "of all random draws")


def main() -> None:
    """Collects the prompts and answers them."""
    runtime.initialize()
    vqgan, model = VQGAN.from_pretrained(_TOKENIZER.value), Llama.from_pretrained(_MODEL.value)
    check_pair(model, vqgan)
    engine = Engine(model, vqgan.tokens_per_image, vqgan.codebook_size)
    sampling = Sampling(_TEMPERATURE.value, _TOP_K.value, _TOP_P.value)
    request = Request(_N_IMAGES.value, _CANDIDATES.value, sampling, _SEED.value)
    cases = _cases(vqgan, engine)
    output = epath.Path(_OUTPUT.value)
    summary = answer_all(cases, engine, vqgan, request, output, request.described(vqgan, model))
    if summary["means"]:
        print(
            "{n} prompts: {token_accuracy:.1%} of the codes right, {psnr:.1f} dB from the truth; copying the last "
            "comparable image: {copy_token_accuracy:.1%}, {copy_psnr:.1f} dB".format(
                n=len(cases), **summary["means"]
            )
        )
    print(f"the pictures are in {output}")


def _cases(vqgan: VQGAN, engine: Engine) -> list[PromptCase]:
    if sum(map(bool, (_FRAMES.value, _PAIRS.value or _QUERY.value, _SHARDS.value))) != 1:
        raise UserError(
            "name one kind of prompt: --prompt_images, or --pairs with --query, or --shards"
        )
    if _SHARDS.value:
        store = SentenceStore(_SHARDS.value, _SPLIT.value)
        check_compatible(store.manifest, tokenizer_fingerprint=vqgan.fingerprint())
        return held_out_cases(
            read_sentences(
                store, 20 * _PROMPTS.value
            ),  # enough to choose from, also of a huge split
            n_images=_N_IMAGES.value,
            limit=_PROMPTS.value,
            context_images=engine.context_images,
        )
    if _FRAMES.value:
        kind, prompt = "sequential", VisualPrompt.sequential(_FRAMES.value)
    elif not _QUERY.value:
        raise UserError("--pairs needs --query, the image whose answer is wanted")
    else:
        kind, prompt = (
            "analogy",
            VisualPrompt.analogy([p.split(":") for p in _PAIRS.value], _QUERY.value),
        )
    engine.check_request(len(prompt.images), _N_IMAGES.value, _CANDIDATES.value)
    codes = encode_prompt(vqgan, prompt)
    files = ",".join([*_FRAMES.value, *_PAIRS.value, _QUERY.value or ""])
    return [
        PromptCase(
            kind, kind, "files", files, prompt.roles, codes, np.zeros((0, codes.shape[1]), np.int32)
        )
    ]


if __name__ == "__main__":
    cli.run(main)
