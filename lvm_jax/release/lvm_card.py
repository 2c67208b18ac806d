"""What the card of LVM says: controls, demands, next-token losses and answers beside baselines and ceilings."""

from collections.abc import Mapping, Sequence

from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.decoder.hf_folder import family_of
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.release.card import CardParts, bullets, stored
from lvm_jax.release.stored import StoredTypes
from lvm_jax.reporting import answers, controls, demands, markdown
from lvm_jax.reporting.inputs import RunFiles
from lvm_jax.reporting.numbers import number as n
from lvm_jax.reporting.words import members_of, plain_words

_LOAD = """```python
from lvm_jax.inference import VisualPrompt, generate_images
from lvm_jax.models import VQGAN, Decoder

vqgan = VQGAN.from_pretrained("release/lvm/tokenizer")
model = Decoder.from_pretrained("release/lvm/decoder")
images = generate_images(model, vqgan, VisualPrompt.sequential(["1.png", "2.png"]))
```

{layout}
"""
_THEIRS = "`release/lvm/decoder` is in Hugging Face's layout, which transformers opens."
_OURS = "`release/lvm/decoder` is in this project's layout: no other library has such a decoder."


def card_parts(
    files: RunFiles,
    models: tuple[VQGAN, Decoder],
    types: StoredTypes,
    trainings: Mapping[str, Sequence[str]],
) -> CardParts:
    """What the card says.

    Args:
      files: of the run.
      models: the tokenizer and the decoder.
      types: of the stored weights.
      trainings: see `CardParts`.
    """
    return CardParts(
        headline=controls.headline(files.results.get("controls")),
        what=_what(models, types),
        demands=demands.demands(files.results),
        load=_LOAD.format(layout=_THEIRS if family_of(models[1].config) else _OURS),
        manifests=files.manifests,
        trainings=trainings,
        stages=files.stages,
        workdir=str(files.workdir),
        environment=files.environment,
        scores=_scores(files),
        limits=_limits(files, models),
    )


def _what(models: tuple[VQGAN, Decoder], types: StoredTypes) -> str:
    vqgan, model = models
    side, tokens = vqgan.config.resolution, vqgan.tokens_per_image
    return (
        f"A tokenizer ({stored(vqgan, types.tokenizer)}) that turns {side} x {side} pixels into {tokens} codes of "
        f"{n(vqgan.codebook_size)} and back, and a decoder ({stored(model, types.model)}) that predicts the next code "
        f"and reads {model.config.max_position_embeddings // tokens} images at once. They are asked with pictures: "
        "frames, or (image, answer) pairs and a query."
    )


def _scores(files: RunFiles) -> list[str]:
    tokens = files.results["next_token"]
    rows = [
        ("uniform over the codes", tokens["uniform_loss"]),
        ("frequency of the held-out codes (unigram entropy)", tokens["baseline/unigram_entropy"]),
        ("copying the previous image", tokens["baseline/copy_loss"]),
        ("this decoder", tokens["code_loss"]),
    ]
    measured, drawn = (files.results.get(name) for name in ("controls", "answers"))
    ceilings = files.results.get("ceilings", {})
    return [
        bullets(plain_words(files)),
        markdown.table(("predictor", "nats a held-out code"), [(a, n(b)) for a, b in rows]),
        # The card begins with their headline.
        *(["### Controls\n", controls.details_as_markdown(measured)] if measured else ()),
        *(["### Answers\n", answers.as_markdown(drawn, ceilings)] if drawn else ()),
    ]


def _limits(files: RunFiles, models: tuple[VQGAN, Decoder]) -> list[str]:
    """What it cannot do, going by the numbers."""
    side = models[0].config.resolution
    lines = [
        f"It sees and draws {side} x {side} pixels; what is smaller than a few of them is lost."
    ]
    worse = sorted(
        {
            prompt["source"]
            for prompt in files.prompts["prompts"]
            if "psnr" in prompt and prompt["psnr"] < prompt["copy_psnr"]
        }
    )
    asked = sum("psnr" in prompt for prompt in files.prompts["prompts"])
    if worse:
        lines.append(
            f"Of {asked} prompts that were compared with the truth, a copy of an image of the prompt was nearer to it "
            f"than the answer in some of: {', '.join(worse)}."
        )
    tokens = files.results["next_token"]
    weak = sorted(
        source
        for source in members_of(tokens, "source")
        if tokens[f"source/{source}/code_loss"] > tokens["baseline/copy_loss"]
    )
    if weak:
        lines.append(
            f"It pays more nats a code than copying does on average on: {', '.join(weak)}."
        )
    return lines
