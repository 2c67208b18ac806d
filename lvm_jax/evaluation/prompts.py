"""Visual prompts with a known answer: held-out sentences whose last images are hidden, answered and compared.

P: images of the prompt, I: images hidden or made, B: candidates, N: tokens an image, H, W: pixels, C: channels.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Float, Int
from tqdm import tqdm

from lvm_jax.config import to_dict
from lvm_jax.data.visual_sentence import VisualSentence
from lvm_jax.errors import UserError
from lvm_jax.evaluation.held_out import comparable_image, kind_of
from lvm_jax.inference.codec import decode_codes, to_uint8
from lvm_jax.inference.engine import Engine
from lvm_jax.inference.sampling import Sampling
from lvm_jax.metrics.image import psnr
from lvm_jax.models.llama import Llama
from lvm_jax.models.vqgan import VQGAN
from lvm_jax.reporting.figures import PREDICTION, TRUTH, Group, save_png, strip

RECORD = "prompt.json"


@dataclasses.dataclass(frozen=True)
class PromptCase:
    """A prompt, and the answer if it is known.

    Attributes:
      name: unique; names its folder.
      kind: "sequential" or "analogy".
      source, key: where it came from.
      roles: of the prompt's images, then of the answer's.
      prompt_PN: codes of the prompt.
      truth_IN: codes of the answer; no rows where it is unknown.
    """

    name: str
    kind: str
    source: str
    key: str
    roles: tuple[str, ...]
    prompt_PN: Int[np.ndarray, "p n"]
    truth_IN: Int[np.ndarray, "i n"]


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of the decoder for every prompt; see `lvm_jax.inference.Engine.generate`."""

    n_images: int = 1
    n_candidates: int = 1
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    seed: int = 0

    def described(self, vqgan: VQGAN, model: Llama) -> dict[str, Any]:
        """Everything the answers depend on besides the prompt, for `prompt.json`."""
        weights = {"tokenizer": vqgan.fingerprint(), "model": decoder_fingerprint(model)}
        return weights | dataclasses.asdict(self)


def held_out_cases(
    sentences: Iterable[VisualSentence], *, n_images: int, limit: int, context_images: int
) -> list[PromptCase]:
    """Prompts from sentences, in turn from every source and kind until there are `limit` (0: all).

    Videos and turntables hide their last `n_images` images, annotated images their last answer.

    Raises:
      UserError: no sentence can be asked.
    """
    groups: dict[tuple[str, str, str], list[VisualSentence]] = {}
    for sentence in sentences:
        kind = kind_of(sentence)
        hidden = 1 if kind == "analogy" else n_images
        if kind and hidden < len(sentence.codes) <= context_images:
            groups.setdefault((kind, sentence.source, sentence.roles[-1]), []).append(sentence)
    if not groups:
        raise UserError(
            f"no held-out sentence has more than {n_images} and at most {context_images} images: lower n_images or "
            "build shards with videos, turntables or annotated images"
        )
    cases: list[PromptCase] = []
    for turn in range(max(map(len, groups.values()))):
        for (kind, source, _), members in sorted(groups.items()):
            if turn < len(members) and (not limit or len(cases) < limit):
                hidden = 1 if kind == "analogy" else n_images
                name = re.sub(
                    r"[^a-z0-9]+", "-", f"{len(cases):03d}-{kind}-{source}".lower()
                ).strip("-")
                cases.append(_hide(members[turn], name, kind, hidden))
    return cases


def decoder_fingerprint(model: Llama) -> str:
    """16 hex digits over the config and evenly spaced weights of every tensor: another training step changes them.

    Unlike the tokenizer's, which guards shards, it reads little: decoders are large.
    """
    digest = hashlib.sha256(json.dumps(to_dict(model.config), sort_keys=True).encode())
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        value = variable[...].reshape(-1)
        digest.update(f"{path} {value.shape}".encode())
        digest.update(np.asarray(value[:: max(1, value.size // 1024)]).tobytes())
    return digest.hexdigest()[:16]


def answer(
    case: PromptCase, engine: Engine, vqgan: VQGAN, request: Request, folder: epath.Path
) -> dict[str, Any]:
    """Answers a prompt and writes its pictures and its strip into `folder`.

    Returns:
      the record: files relative to the parent of `folder`; where the truth is known also `token_accuracy` and `psnr`
      (dB, against the truth as the tokenizer shows it), means over candidates and images, and the same two numbers for
      answering with a copy of the prompt's last comparable image.
    """
    n_images = len(case.truth_IN) or request.n_images
    made_BIN = engine.generate(
        case.prompt_PN,
        n_images,
        n_candidates=request.n_candidates,
        sampling=request.sampling,
        seed=request.seed,
    )
    record: dict[str, Any] = {"kind": case.kind, "roles": list(case.roles)}
    pictures = {f"prompt_{p}": codes_N for p, codes_N in enumerate(case.prompt_PN)}
    for b, made_IN in enumerate(made_BIN):
        pictures |= {f"prediction_{b}_{i}": codes_N for i, codes_N in enumerate(made_IN)}
    pictures |= {f"truth_{i}": codes_N for i, codes_N in enumerate(case.truth_IN)}
    decoded = decode_codes(vqgan, np.stack(list(pictures.values())))
    images = dict(zip(pictures, decoded))
    if len(case.truth_IN):
        record |= _compare(case, made_BIN, images)
    record |= _save(images, case, made_BIN.shape[:2], folder)
    return record


def answer_all(
    cases: Sequence[PromptCase],
    engine: Engine,
    vqgan: VQGAN,
    request: Request,
    output: epath.Path,
    identity: Any,
) -> dict[str, Any]:
    """Answers the prompts into OUTPUT/NAME/ and writes OUTPUT/prompts.json.

    A prompt whose record was written by the same `identity` (see `Request.described`) is not answered again.

    Returns:
      what prompts.json holds: the identity as "request", "means" over prompts whose truth is known, and the records.
    """
    records = []
    for case in tqdm(cases, desc="visual prompts", unit="prompt"):
        path = output / case.name / RECORD
        codes = hashlib.sha256(
            np.concatenate([case.prompt_PN, case.truth_IN]).tobytes()
        ).hexdigest()[:16]
        question = {
            "request": identity,
            "name": case.name,
            "source": case.source,
            "key": case.key,
            "codes": codes,
        }
        record = json.loads(path.read_text()) if path.exists() else {}
        if {name: record.get(name) for name in question} != question:
            record = question | answer(case, engine, vqgan, request, path.parent)
            _write_json(path, record)
        records.append({name: value for name, value in record.items() if name != "request"})
    known = [record for record in records if "psnr" in record]
    names = ("token_accuracy", "copy_token_accuracy", "psnr", "copy_psnr") if known else ()
    means = {name: float(np.mean([record[name] for record in known])) for name in names}
    summary = {"request": identity, "means": means, "prompts": records}
    _write_json(output / "prompts.json", summary)
    return summary


def _hide(sentence: VisualSentence, name: str, kind: str, hidden: int) -> PromptCase:
    codes = sentence.codes.astype(np.int32)
    return PromptCase(
        name,
        kind,
        sentence.source,
        sentence.key,
        tuple(sentence.roles),
        codes[:-hidden],
        codes[-hidden:],
    )


def _compare(
    case: PromptCase, made_BIN: np.ndarray, images: dict[str, np.ndarray]
) -> dict[str, float]:
    n_prompt = len(case.prompt_PN)
    shown, asked = case.roles[:n_prompt], case.roles[n_prompt:]
    copies = [comparable_image(shown, role) for role in asked]
    truth = np.stack([images[f"truth_{i}"] for i in range(len(asked))])
    copied = np.stack([images[f"prompt_{p}"] for p in copies])
    predicted = [
        np.stack([images[f"prediction_{b}_{i}"] for i in range(len(asked))])
        for b in range(len(made_BIN))
    ]
    return {
        "token_accuracy": float(np.mean(made_BIN == case.truth_IN[None])),
        "copy_token_accuracy": float(np.mean(case.prompt_PN[copies] == case.truth_IN)),
        "psnr": _psnr(np.concatenate(predicted), np.concatenate([truth] * len(predicted))),
        "copy_psnr": _psnr(copied, truth),
    }


def _psnr(a: Float[np.ndarray, "m h w c"], b: Float[np.ndarray, "m h w c"]) -> float:
    return float(jnp.mean(psnr(jnp.asarray(a), jnp.asarray(b))))


def _save(
    images: dict[str, np.ndarray], case: PromptCase, made: Sequence[int], folder: epath.Path
) -> dict[str, Any]:
    n_candidates, n_images = made
    pixels = {name: to_uint8(image) for name, image in images.items()}
    prompt = [f"prompt_{p}" for p in range(len(case.prompt_PN))]
    candidates = [[f"prediction_{b}_{i}" for i in range(n_images)] for b in range(n_candidates)]
    truth = [f"truth_{i}" for i in range(len(case.truth_IN))]
    for name, image in pixels.items():
        save_png(folder / f"{name}.png", image)
    groups = [Group("prompt", [pixels[name] for name in prompt])]
    for b, names in enumerate(candidates):
        label = "prediction" if n_candidates == 1 else f"prediction {b + 1}"
        groups.append(Group(label, [pixels[name] for name in names], PREDICTION))
    groups.append(Group("truth", [pixels[name] for name in truth], TRUTH))
    save_png(folder / "strip.png", strip(groups))

    def files(names: list[str]) -> list[str]:
        return [f"{folder.name}/{name}.png" for name in names]

    return {
        "prompt": files(prompt),
        "predictions": [files(names) for names in candidates],
        "truth": files(truth),
        "strip": f"{folder.name}/strip.png",
    }


def _write_json(path: epath.Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)
