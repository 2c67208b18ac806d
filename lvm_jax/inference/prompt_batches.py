"""Answers many visual prompts in batches, writes the pictures, and scores the answers whose truth is known.

B: candidates, I: images made for each, N: tokens per image.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Float, Int
from tqdm import tqdm

from lvm_jax import files
from lvm_jax.config import to_dict
from lvm_jax.errors import UserError
from lvm_jax.inference.answers import Answer
from lvm_jax.inference.cases import Case
from lvm_jax.inference.defaults import EACH
from lvm_jax.inference.images import Engine
from lvm_jax.inference.prompt_files import FileCase
from lvm_jax.inference.sampling import Sampling
from lvm_jax.models.decoder.decoder import Decoder
from lvm_jax.models.tokenizer.vqgan import VQGAN

RECORD = "prompt.json"
_SCORES = ("token_accuracy", "copy_token_accuracy", "psnr", "copy_psnr")

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Request:
    """What to ask of the decoder for every prompt; see `lvm_jax.inference.Engine.generate_batch`.

    Attributes:
      n_images: images to make when the answer is unknown; otherwise as many as the answer has.
      n_candidates: answers to each prompt.
      sampling: see `Sampling`.
      answer: what is shown and scored of the candidates; see `lvm_jax.inference.defaults.Defaults`.
      seed: of all random draws.
      aspect: "square" writes pictures as the decoder sees them; "original" stretches them back to the size of the
        original images, and answers to the size of the prompt's last image.
    """

    n_images: int = 1
    n_candidates: int = 1
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    seed: int = 0
    aspect: str = "square"
    answer: str = EACH

    def __post_init__(self) -> None:
        if self.aspect not in ("square", "original"):
            raise UserError(f"aspect is {self.aspect!r}: it must be 'square' or 'original'")

    def described(self, vqgan: VQGAN, model: Decoder) -> dict[str, Any]:
        """All that the answers depend on besides the prompt, for `prompt.json`."""
        weights = {"tokenizer": vqgan.fingerprint(), "model": decoder_fingerprint(model)}
        return weights | dataclasses.asdict(self)


def decoder_fingerprint(model: Decoder) -> str:
    """16 hex digits over the config and about 1024 evenly spaced weights of every tensor; any training step changes it.

    Decoders are large, so it samples. The tokenizer's fingerprint, which guards shards, reads every weight.
    """
    return module_fingerprint(model, model.config)


def module_fingerprint(module: nnx.Module, config: Any) -> str:
    """As `decoder_fingerprint`, of any module; `config` is its dataclass."""
    digest = hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode())
    for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        value = variable[...].reshape(-1)
        digest.update(f"{path} {value.shape}".encode())
        digest.update(np.asarray(value[:: max(1, value.size // 1024)]).tobytes())
    return digest.hexdigest()[:16]


def answer_all(
    cases: Sequence[Case | FileCase],
    engine: Engine,
    vqgan: VQGAN,
    request: Request,
    output: epath.Path,
    identity: Any,
    *,
    batch_size: int = 1,
) -> Record:
    """Answers the prompts into OUTPUT/NAME/ and writes OUTPUT/prompts.json.

    A prompt already answered under the same `identity` (see `Request.described`) is left alone. A resumed run forms
    the same batches as a fresh one, so its answers are equal to the byte.

    Returns:
      the content of prompts.json: the identity as "request", "means" over prompts with a known answer, and the records.

    Raises:
      UserError: OUTPUT/NAME/ holds pictures of the prompt: those of the answer would become part of it. Or see
        `Engine.generate_scored`.
    """
    for case in cases:
        _check_apart(case, output)
    # The batch size is part of the identity: it changes the rounding of matrix products, and so may change a draw.
    identity = identity | {"batch_size": batch_size}
    records: list[Record] = []
    output.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(cases), desc="visual prompts", unit="prompt") as progress:
        for start in range(0, len(cases), batch_size):
            batch = cases[start : start + batch_size]
            records += _answer_batch(batch, engine, vqgan, request, output, identity)
            progress.update(len(batch))
    summary = {
        "request": identity,
        "means": _means(records),
        "prompts": list(map(_listed, records)),
    }
    files.write_json(output / "prompts.json", summary)
    return summary


def _check_apart(case: Case | FileCase, output: epath.Path) -> None:
    if isinstance(case, Case):  # its pictures are no files
        return
    folder = f"{files.real(output / case.name)}/"
    for file in case.files():
        if files.real(file).startswith(folder):
            raise UserError(
                f"{case.origin}: {file} lies where its answer would go, in {output / case.name}: name another output"
            )


def _answer_batch(
    batch: Sequence[Case | FileCase],
    engine: Engine,
    vqgan: VQGAN,
    request: Request,
    output: epath.Path,
    identity: dict[str, Any],
) -> list[Record]:
    """The records of a batch, in order; makes and writes those that are missing."""
    questions = [case.ask() for case in batch]  # reads every file once
    wanted = [{"request": identity} | question.described() for question in questions]
    records = {q.name: _read_record(output / q.name / RECORD) for q in questions}
    missing = {
        question.name: what
        for question, what in zip(questions, wanted)
        if {field: records[question.name].get(field) for field in what} != what
    }
    if missing:
        # One missing answer repeats the whole batch: a smaller batch may round differently and draw other codes.
        for case, made in _generate([q.case() for q in questions], engine, request):
            if case.name in missing:
                folder, answer = output / case.name, Answer.of(case, *made, vqgan, request.answer)
                record = missing[case.name] | {"kind": case.kind, "roles": list(case.roles)}
                record |= answer.scores() | answer.save(folder, request.aspect)
                files.write_json(folder / RECORD, record)
                records[case.name] = record
    return list(records.values())


def _generate(
    cases: Sequence[Case], engine: Engine, request: Request
) -> Iterator[tuple[Case, tuple[Int[np.ndarray, "B I N"], Float[np.ndarray, " B"]]]]:
    """The cases with their answers as codes, and the likelihoods of these; cases that want the same number of images
    share a batch.
    """
    counts = [len(case.truth_IN) or request.n_images for case in cases]
    for count in sorted(set(counts)):
        asked = [case for case, wanted in zip(cases, counts) if wanted == count]
        made = engine.generate_scored(
            [case.prompt_PN for case in asked],
            count,
            n_candidates=request.n_candidates,
            sampling=request.sampling,
            seed=request.seed,
        )
        yield from zip(asked, zip(*made))


def _read_record(path: epath.Path) -> Record:
    return json.loads(path.read_text()) if path.exists() else {}


def _means(records: Sequence[Record]) -> dict[str, float]:
    known = [record for record in records if "psnr" in record]
    return {name: float(np.mean([record[name] for record in known])) for name in _SCORES if known}


def _listed(record: Record) -> Record:
    """A record without its request, which prompts.json states once for all."""
    return {field: value for field, value in record.items() if field != "request"}
