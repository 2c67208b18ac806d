"""Reads the files of a family of trainings and fits how the loss falls with size, tokens and compute.

A record describes one finished training of a decoder whose evaluators `next_token`, `in_context` and `annotations` ran
after the last step; `read_run` lists its fields. All of it is JSON-able.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from lvm_jax.analysis.power_law import MIN_POINTS, fit_power_law, frontier
from lvm_jax.config import from_mapping
from lvm_jax.errors import UserError
from lvm_jax.files import read_jsonl
from lvm_jax.models.decoder.config import DecoderConfig, count_parameters, train_flops_per_token

EVERYTHING = "all"  # the mixture of the scaling runs: every sentence once per pass
NEXT_FRAME = "next frame"
_LAST_FRAMES = "evaluation/in_context/sequential/context_"
_ANNOTATION = re.compile(r"evaluation/annotations/(.+)/mean_example_perplexity")
_CATEGORY = re.compile(r"evaluation/next_token/category/(.+)/code_loss")

Record = dict[str, Any]


def read_run(workdir: epath.PathLike) -> Record:
    """Reads the record of a finished training.

    Returns:
      parameters: without the vocabulary tables; `all_parameters` includes them.
      tokens, flops: of the whole training. Every position of a row is a token; attention counts causally.
      train: {"tokens", "loss"}: the training loss as logged.
      loss: held out, in nats a token, over `sentences` with `held_out_tokens` in total.
      unigram_entropy, copy_loss: baselines on the same sentences, in nats a code.
      categories: category -> held-out nats a code.
      perplexity: what is predicted -> mean over examples of exp(mean NLL), as published. Keys are annotation types,
        after the shots, and "next frame", after all frames before it.
      frames: images of context (a string, since JSON keys are strings) -> the same for the last frame.

    Raises:
      UserError: the training is not finished, or ran without these evaluators.
    """
    folder = epath.Path(workdir)
    lines = read_jsonl(folder / "metrics.jsonl")
    # The newest value of each name: evaluations and training losses stand in different lines.
    last = {name: value for line in lines for name, value in line.items()}
    if not (folder / "config.json").exists() or "evaluation/next_token/loss" not in last:
        raise UserError(
            f"{folder} holds no finished training with its evaluation: run experiments/scaling_study.py again"
        )
    config = json.loads((folder / "config.json").read_text())
    model, seq_len = from_mapping(DecoderConfig, config["model"]), config["data"]["seq_len"]
    batch, steps = config["train"]["batch_size"] * seq_len, config["train"]["steps"]
    logged = [line for line in lines if "train/loss" in line]
    frames = {
        name.removeprefix(_LAST_FRAMES).partition("/")[0]: value
        for name, value in last.items()
        if name.startswith(_LAST_FRAMES) and name.endswith("/mean_example_perplexity")
    }
    frames = dict(sorted(frames.items(), key=lambda item: int(item[0])))
    perplexity = _matching(_ANNOTATION, last)
    if frames:
        perplexity[NEXT_FRAME] = list(frames.values())[-1]
    return {
        "parameters": count_parameters(model, embeddings=False),
        "all_parameters": count_parameters(model),
        "tokens": steps * batch,
        "flops": train_flops_per_token(model, seq_len) * steps * batch,
        "train": {
            "tokens": [line["step"] * batch for line in logged],
            "loss": [line["train/loss"] for line in logged],
        },
        "loss": last["evaluation/next_token/loss"],
        "sentences": last["evaluation/next_token/sentences"],
        "held_out_tokens": last["evaluation/next_token/tokens"],
        "unigram_entropy": last["evaluation/next_token/baseline/unigram_entropy"],
        "copy_loss": last["evaluation/next_token/baseline/copy_loss"],
        "shots": last["evaluation/annotations/shots"],
        "categories": _matching(_CATEGORY, last),
        "perplexity": perplexity,
        "frames": frames,
    }


def mean_over_seeds(records: Iterable[Record]) -> list[Record]:
    """One record for each size, length and mixture, in order of first appearance.

    `loss`, `perplexity`, `categories` and `frames` become means over seeds. `seeds` is the number of seeds,
    `loss_spread` the standard deviation of the loss (None for one seed); the other fields are those of the first seed.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[k] for k in ("size", "steps", "mixture")), []).append(record)
    return [
        members[0]
        | {name: _mean([m[name] for m in members]) for name in ("loss", "perplexity", "categories", "frames")}
        | {
            "seeds": len(members),
            "loss_spread": float(np.std([m["loss"] for m in members], ddof=1)) if members[1:] else None,
        }
        for members in groups.values()
    ]  # fmt: skip


def fits(records: Sequence[Record]) -> dict[str, Any]:
    """Power laws of the held-out loss at the end of each run with mixture "all"; None if there are too few points.

    Returns:
      tokens: size -> the fit against training tokens.
      size: the fit against `parameters`, for the longest training.
      compute: the fit against FLOPs along the frontier: the runs that no cheaper run beats.
      frontier: [size, steps] of those runs.
    """
    scaling = [record for record in records if record["mixture"] == EVERYTHING]
    longest = max(record["steps"] for record in scaling)
    best = [
        scaling[i]
        for i in frontier([r["flops"] for r in scaling], [r["loss"] for r in scaling])
    ]  # fmt: skip
    return {
        "tokens": {
            size: _fit([r for r in scaling if r["size"] == size], "tokens")
            for size in dict.fromkeys(record["size"] for record in scaling)
        },
        "size": _fit([r for r in scaling if r["steps"] == longest], "parameters"),
        "compute": _fit(best, "flops"),
        "frontier": [[record["size"], record["steps"]] for record in best],
    }


def _fit(records: Sequence[Record], x: str) -> dict[str, float] | None:
    if len({record[x] for record in records}) < MIN_POINTS:
        return None
    law = fit_power_law([record[x] for record in records], [record["loss"] for record in records])
    return dataclasses.asdict(law)


def _matching(pattern: re.Pattern[str], values: Mapping[str, float]) -> dict[str, float]:
    return {match[1]: values[name] for name in values if (match := pattern.fullmatch(name))}


def _mean(values: Sequence[Any]) -> Any:
    """The mean of numbers, or of mappings key by key."""
    if isinstance(values[0], Mapping):
        return {name: _mean([value[name] for value in values]) for name in values[0]}
    return float(np.mean(values))
