"""The results of a run as sentences; each gives a number and what to compare it with."""

import re
from collections.abc import Mapping
from typing import Any

from lvm_jax.reporting.inputs import RunFiles
from lvm_jax.reporting.numbers import number as n
from lvm_jax.reporting.numbers import percent

KINDS = {
    "sequential": "the last image of videos and turntables",
    "analogy": "the last answer of (image, answer) pairs",
}


def plain_words(files: RunFiles) -> list[str]:
    """All sentences about a run; none claims more than its numbers show."""
    scores = files.results["next_token"]
    sentences = [_tokenizer(files.results), _loss(scores)]
    if "after_first_image/accuracy" in scores:
        ours, copied = (
            scores["after_first_image/accuracy"],
            scores["after_first_image/copy_accuracy"],
        )
        sentences.append(
            f"From the second image of a sentence on, its first guess is right for {percent(ours)} of the codes; "
            f"the code at the same place of the previous image is right for {percent(copied)}."
        )
    for kind, words in KINDS.items():
        contexts, values = context_curve(files.results["in_context"], kind, "corpus_perplexity")
        # From one image of context on: without any, the model has nothing to go by.
        if len(values) > 2:
            sentences.append(
                f"Context: the perplexity of {words} goes from {n(values[1])} with {contexts[1]} image of context "
                f"to {n(values[-1])} with {contexts[-1]}."
            )
    if files.prompts["means"]:
        sentences.append(_prompts(files.prompts))
    return sentences


def context_curve(
    results: Mapping[str, Any], kind: str, value: str
) -> tuple[list[int], list[float]]:
    """Numbers of context images, and the perplexity at each; empty if this kind was not evaluated."""
    pattern = re.compile(rf"{kind}/context_(\d+)/{value}")
    found = {int(match[1]): results[name] for name in results if (match := pattern.fullmatch(name))}
    return sorted(found), [found[context] for context in sorted(found)]


def members_of(scores: Mapping[str, Any], by: str) -> list[str]:
    """The sources or the categories that the next-token scores tell apart; a source's name may have slashes."""
    found = (re.fullmatch(rf"{by}/(.+)/sentences", name) for name in scores)
    return [match[1] for match in found if match]


def _tokenizer(results: Mapping[str, Any]) -> str:
    tokenizer, images = results["tokenizer"], results["reconstruction"]
    size = tokenizer["image_size"]
    return (
        f"The tokenizer turns an image of {size} x {size} pixels into {tokenizer['tokens_per_image']} codes out of "
        f"{n(tokenizer['codebook_size'])} and back: {n(images['psnr'])} dB PSNR and {n(images['ssim'])} SSIM over "
        f"{n(images['images'])} held-out images. They use {percent(images['codebook_usage'])} of the codes, as varied "
        f"as {n(images['code_perplexity'])} codes of equal frequency."
    )


def _loss(scores: Mapping[str, Any]) -> str:
    ours, unigram, copy = (
        scores[name] for name in ("code_loss", "baseline/unigram_entropy", "baseline/copy_loss")
    )
    return (
        f"On {n(scores['sentences'])} held-out sentences the decoder pays {n(ours)} nats a code, "
        f"{_than(ours, unigram)} the {n(unigram)} of the best guess by frequency alone (which has seen the held-out "
        "frequencies), and "
        f"{_than(ours, copy)} the {n(copy)} of copying the previous image where that pays (fitted on the "
        f"{scores['baseline/fitted_on']} split)."
    )


def _prompts(prompts: Mapping[str, Any]) -> str:
    means = prompts["means"]
    count = sum("psnr" in prompt for prompt in prompts["prompts"])
    return (
        f"Over {count} held-out prompts the predicted images are {n(means['psnr'])} dB from the truth, with "
        f"{percent(means['token_accuracy'])} of the codes equal; a copy of the prompt's last comparable image is "
        f"{n(means['copy_psnr'])} dB from it, with {percent(means['copy_token_accuracy'])}."
    )


def _than(ours: float, other: float) -> str:
    return "less than" if ours < other else "no less than"
