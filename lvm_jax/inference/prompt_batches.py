"""Many visual prompts: answered in batches, written as pictures, and compared with the answer where it is known.

P: images of the prompt, I: images hidden or made, B: candidates, N: tokens an image, H, W: pixels, C: channels.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Float, Int
from tqdm import tqdm

from lvm_jax import files
from lvm_jax.config import to_dict
from lvm_jax.data.sentences.held_out import comparable_image, kind_of
from lvm_jax.data.sentences.visual_sentence import VisualSentence
from lvm_jax.errors import UserError
from lvm_jax.inference.codec import decode_codes
from lvm_jax.inference.engine import Engine
from lvm_jax.inference.sampling import Sampling
from lvm_jax.metrics.image import psnr
from lvm_jax.models.decoder.llama import Llama
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.pictures.resize import stretch
from lvm_jax.reporting.figures import PREDICTION, TRUTH, Group, save_png, strip

RECORD = "prompt.json"


class Case(Protocol):
    """A prompt that may still have to be read and encoded."""

    @property
    def name(self) -> str:
        """Unique; names its folder."""
        ...

    def question(self) -> dict[str, Any]:
        """What the prompt is, JSON-able: equal for equal prompts, cheap to say."""
        ...

    def load(self) -> "PromptCase":
        """The prompt as codes."""
        ...


@dataclasses.dataclass(frozen=True)
class PromptCase:
    """A prompt, and the answer if it is known.

    Attributes:
      name: unique; names its folder.
      kind: "sequential", "analogy" or "file".
      source, key: where it came from.
      roles: of the prompt's images, then of the answer's.
      prompt_PN: codes of the prompt.
      truth_IN: codes of the answer; no rows where it is unknown.
      sizes: (height, width) of each image of the prompt before it was squashed; empty where that is unknown.
    """

    name: str
    kind: str
    source: str
    key: str
    roles: tuple[str, ...]
    prompt_PN: Int[np.ndarray, "p n"]
    truth_IN: Int[np.ndarray, "i n"]
    sizes: tuple[tuple[int, int], ...] = ()

    def question(self) -> dict[str, Any]:
        """See `Case`."""
        both = np.concatenate([self.prompt_PN, self.truth_IN])
        codes = hashlib.sha256(both.tobytes()).hexdigest()[:16]
        return {"name": self.name, "source": self.source, "key": self.key, "codes": codes}

    def load(self) -> "PromptCase":
        """Itself."""
        return self


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of the decoder for every prompt; see `lvm_jax.inference.Engine.generate_batch`.

    Attributes:
      n_images: to make where the answer is not known; else as many as it has.
      n_candidates: answers to each prompt.
      sampling: see `Sampling`.
      seed: of all random draws.
      aspect: "square" writes pictures as the decoder sees them; "original" stretches them back to the size of the
        images they came from, and answers to that of the last image of the prompt.
    """

    n_images: int = 1
    n_candidates: int = 1
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    seed: int = 0
    aspect: str = "square"

    def __post_init__(self) -> None:
        if self.aspect not in ("square", "original"):
            raise UserError(f"aspect is {self.aspect!r}: it must be 'square' or 'original'")

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
    case: PromptCase,
    made_BIN: Int[np.ndarray, "b i n"],
    vqgan: VQGAN,
    folder: epath.Path,
    aspect: str = "square",
) -> dict[str, Any]:
    """Writes the pictures of a prompt and its answers, and their strip, into `folder`.

    Returns:
      the record: files relative to the output folder; where the truth is known also `token_accuracy` and `psnr` (dB,
      against the truth as the tokenizer shows it), means over candidates and images, and the same two numbers for
      answering with a copy of the prompt's last comparable image.
    """
    record: dict[str, Any] = {"kind": case.kind, "roles": list(case.roles)}
    pictures = {f"prompt_{p}": codes_N for p, codes_N in enumerate(case.prompt_PN)}
    for b, made_IN in enumerate(made_BIN):
        pictures |= {f"prediction_{b}_{i}": codes_N for i, codes_N in enumerate(made_IN)}
    pictures |= {f"truth_{i}": codes_N for i, codes_N in enumerate(case.truth_IN)}
    decoded = decode_codes(vqgan, np.stack(list(pictures.values())))
    images = dict(zip(pictures, decoded))
    if len(case.truth_IN):
        record |= _compare(case, made_BIN, images)
    record |= _save(images, case, made_BIN.shape[:2], folder, aspect)
    return record


def answer_all(
    cases: Sequence[Case],
    engine: Engine,
    vqgan: VQGAN,
    request: Request,
    output: epath.Path,
    identity: Any,
    *,
    batch_size: int = 1,
) -> dict[str, Any]:
    """Answers the prompts into OUTPUT/NAME/ and writes OUTPUT/prompts.json.

    A prompt whose record was written by the same `identity` (see `Request.described`) is not written again. The batches
    are those of the whole list also in a run that continues, so its answers are the same to the byte.

    Returns:
      what prompts.json holds: the identity as "request", "means" over prompts whose truth is known, and the records.
    """
    identity = identity | {"batch_size": batch_size}
    records: dict[str, dict[str, Any]] = {}
    output.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(cases), desc="visual prompts", unit="prompt") as progress:
        for start in range(0, len(cases), batch_size):
            batch = cases[start : start + batch_size]
            questions = {case.name: {"request": identity} | case.question() for case in batch}
            records |= {name: _read_record(output / name / RECORD) for name in questions}
            open_names = [
                name
                for name, question in questions.items()
                if {field: records[name].get(field) for field in question} != question
            ]
            if open_names:
                for case, made_BIN in _answers([case.load() for case in batch], engine, request):
                    if case.name in open_names:
                        folder = output / case.name
                        record = questions[case.name] | answer(
                            case, made_BIN, vqgan, folder, request.aspect
                        )
                        files.write_json(folder / RECORD, record)
                        records[case.name] = record
            progress.update(len(batch))
    known = [record for record in records.values() if "psnr" in record]
    names = ("token_accuracy", "copy_token_accuracy", "psnr", "copy_psnr") if known else ()
    means = {name: float(np.mean([record[name] for record in known])) for name in names}
    listed = [
        {field: value for field, value in record.items() if field != "request"}
        for record in records.values()
    ]
    summary = {"request": identity, "means": means, "prompts": listed}
    files.write_json(output / "prompts.json", summary)
    return summary


def _answers(
    cases: Sequence[PromptCase], engine: Engine, request: Request
) -> Iterator[tuple[PromptCase, Int[np.ndarray, "b i n"]]]:
    """The cases with their answers, those that ask for equally many images in one batch."""
    counts = [len(case.truth_IN) or request.n_images for case in cases]
    for count in sorted(set(counts)):
        asked = [case for case, wanted in zip(cases, counts) if wanted == count]
        made_RBIN = engine.generate_batch(
            [case.prompt_PN for case in asked],
            count,
            n_candidates=request.n_candidates,
            sampling=request.sampling,
            seed=request.seed,
        )
        yield from zip(asked, made_RBIN)


def _read_record(path: epath.Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


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
    images: dict[str, np.ndarray],
    case: PromptCase,
    made: Sequence[int],
    folder: epath.Path,
    aspect: str,
) -> dict[str, Any]:
    n_candidates, n_images = made
    pixels = {name: to_uint8(image) for name, image in images.items()}
    prompt = [f"prompt_{p}" for p in range(len(case.prompt_PN))]
    candidates = [[f"prediction_{b}_{i}" for i in range(n_images)] for b in range(n_candidates)]
    truth = [f"truth_{i}" for i in range(len(case.truth_IN))]
    if aspect == "original" and case.sizes:
        sizes = dict(zip(prompt, case.sizes))
        pixels = {n: stretch(x, sizes.get(n, case.sizes[-1])) for n, x in pixels.items()}
    for name, image in pixels.items():
        save_png(folder / f"{name}.png", image)
    groups = [Group("prompt", [pixels[name] for name in prompt])]
    for b, names in enumerate(candidates):
        label = "prediction" if n_candidates == 1 else f"prediction {b + 1}"
        groups.append(Group(label, [pixels[name] for name in names], PREDICTION))
    groups.append(Group("truth", [pixels[name] for name in truth], TRUTH))
    save_png(folder / "strip.png", strip(groups))

    def paths(names: list[str]) -> list[str]:
        return [f"{case.name}/{name}.png" for name in names]

    return {
        "prompt": paths(prompt),
        "predictions": [paths(names) for names in candidates],
        "truth": paths(truth),
        "strip": f"{case.name}/strip.png",
    }
