"""The model card of a release; every number is from the files of the run or measured while packing."""

from collections.abc import Mapping
from typing import Any

from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.decoder.hf_folder import family_of
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.reporting import answers, controls, demands, markdown
from lvm_jax.reporting.inputs import RunFiles
from lvm_jax.reporting.numbers import number as n
from lvm_jax.reporting.numbers import percent
from lvm_jax.reporting.sections import CATEGORIES
from lvm_jax.reporting.words import plain_words
from lvm_jax.weights.model_folder import named_parameters


def model_card(
    name: str,
    files: RunFiles,
    models: tuple[VQGAN, Decoder],
    stored: Mapping[str, str],
    cost: Mapping[str, Any],
) -> str:
    """Writes the card as Markdown.

    Args:
      name: of the release.
      files: of the run.
      models: the tokenizer and the decoder.
      stored: the stored type of the weights of "tokenizer" and "decoder".
      cost: the fields of `lvm_jax.release.pack.Cost`.
    """
    parts = [
        f"# {name}\n",
        # First of all: a reader of the scores has to know which answers ignore what was asked.
        f"{controls.headline(files.results.get('controls'))}\n",
        _what(models, stored),
        *_demands(files),
        "## Load\n",
        _LOAD.format(layout=_THEIRS if family_of(models[1].config) else _OURS),
        "## Data\n",
        *_data(files),
        "## Recipe\n",
        *_recipe(files),
        "## Scores, on what was held out\n",
        *_scores(files),
        "## What the stored type costs\n",
        markdown.table(
            ("held out", "as trained", "as stored"),
            [
                (
                    f"decoder, nats a code, {n(cost['sentences'])} sentences",
                    *map(_fine, cost["code_loss"]),
                ),
                (f"tokenizer, PSNR in dB, {n(cost['images'])} images", *map(_fine, cost["psnr"])),
                ("codes that stay the same", "", percent(cost["codes_equal"])),
            ],
        ),
        "## Limits\n",
        _limits(files, models),
    ]
    return "\n".join(parts)


_LOAD = """```python
from lvm_jax.inference import VisualPrompt, generate_images
from lvm_jax.models import VQGAN, Llama

vqgan, model = VQGAN.from_pretrained("release/tokenizer"), Llama.from_pretrained("release/decoder")
images = generate_images(model, vqgan, VisualPrompt.sequential(["1.png", "2.png"]))
```

`sha256sum -c SHA256SUMS` inside the folder checks the files. {layout}
"""
_THEIRS = "`release/decoder` is in Hugging Face's layout, which transformers opens."
_OURS = "`release/decoder` is in this project's layout: no other library has such a decoder."


def _what(models: tuple[VQGAN, Decoder], stored: Mapping[str, str]) -> str:
    vqgan, model = models
    sizes = [sum(v.size for v in named_parameters(m).values()) / 1e6 for m in models]
    side, tokens = vqgan.config.resolution, vqgan.tokens_per_image
    return (
        f"A tokenizer ({sizes[0]:.2f} million parameters, {stored['tokenizer']}) that turns {side} x {side} pixels "
        f"into {tokens} codes of {n(vqgan.codebook_size)} and back, and a LLaMA ({sizes[1]:.2f} million "
        f"parameters, {stored['decoder']}) that predicts the next code and reads "
        f"{model.config.max_position_embeddings // tokens} images at once. They are asked with pictures: "
        "frames, or (image, answer) pairs and a query.\n"
    )


def _demands(files: RunFiles) -> list[str]:
    """What is demanded of a release, what is missed first; nothing if neither controls nor answers were measured."""
    found = demands.demands(files.results)
    return ["## What is demanded of it\n", demands.as_markdown(found)] if found else []


def _data(files: RunFiles) -> list[str]:
    parts = []
    for manifest in files.manifests.values():
        rows = [
            (
                source,
                CATEGORIES.get(info["category"], info["category"]),
                n(info["sentences"]),
                n(info["images"]),
                info["licence"],
                info["origin"],
            )
            for source, info in sorted(manifest["sources"].items())
        ]
        parts.append(
            markdown.table(("source", "kind", "sentences", "images", "licence", "origin"), rows)
        )
    return parts


def _recipe(files: RunFiles) -> list[str]:
    """The main settings of both configurations, and the commands if the run recorded them."""
    parts = []
    for title, config in files.configs.items():
        train, optimizer = config["train"], config.get("optimizer") or config.get("generator", {})
        settings = "".join(f", {key} {value}" for key, value in optimizer.items())
        title = f"{title[0].upper()}{title[1:]}"
        begun = ", begins from the first stage" if config.get("init_from") else ""
        shares = config.get("data", {}).get("weights")
        parts.append(
            f"{title}: {train['steps']} steps of {train['batch_size']}{begun}{settings}"
            f"{f'; shares of the sources {shares}' if shares else ''}.\n"
        )
    if files.stages:
        rows = [
            (stage, n(done["seconds"]), f"`{done['command']}`")
            for stage, done in files.stages.items()
        ]
        parts.append(markdown.table(("step", "seconds", "command"), rows))
    environment = ", ".join(f"{k} {v}" for k, v in files.results["environment"].items())
    return [*parts, f"Scored with: {environment}.\n"]


def _scores(files: RunFiles) -> list[str]:
    tokens = files.results["next_token"]
    rows = [
        ("uniform over the codes", tokens["uniform_loss"]),
        ("frequency of the held-out codes (unigram entropy)", tokens["baseline/unigram_entropy"]),
        ("copying the previous image", tokens["baseline/copy_loss"]),
        ("this decoder", tokens["code_loss"]),
    ]
    words = "\n".join(f"- {sentence}" for sentence in plain_words(files))
    measured, drawn = (files.results.get(name) for name in ("controls", "answers"))
    ceilings = files.results.get("ceilings", {})
    return [
        words + "\n",
        markdown.table(("nats a held-out code", ""), [(a, n(b)) for a, b in rows]),
        *(["### Controls\n", controls.as_markdown(measured)] if measured else ()),
        *(["### Answers\n", answers.as_markdown(drawn, ceilings)] if drawn else ()),
    ]


def _limits(files: RunFiles, models: tuple[VQGAN, Decoder]) -> str:
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
        name.split("/")[1]
        for name, loss in tokens.items()
        if name.startswith("source/")
        and name.endswith("/code_loss")
        and loss > tokens["baseline/copy_loss"]
    )
    if weak:
        lines.append(
            f"It pays more nats a code than copying does on average on: {', '.join(weak)}."
        )
    lines.append(
        "It knows the data above and little else; nothing here was checked for bias or for harm."
    )
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _fine(value: float) -> str:
    return f"{value:.5f}"
