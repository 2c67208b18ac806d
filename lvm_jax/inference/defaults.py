"""How a model's answers are drawn unless somebody asks otherwise: `generation.json` in its folder.

experiments/sampling_study.py measures what is best and writes the file.

B: candidates.
"""

import dataclasses
import difflib
import json

import numpy as np
from etils import epath
from jaxtyping import Float

from lvm_jax import files
from lvm_jax.errors import UserError
from lvm_jax.inference.sampling import Sampling

FILE = "generation.json"
EACH, MEAN, LIKELIEST = "each", "mean", "likeliest"
ANSWERS = (EACH, MEAN, LIKELIEST)


@dataclasses.dataclass(frozen=True)
class Defaults:
    """How answers are drawn, and what is shown of the candidates.

    Attributes:
      temperature, top_k, top_p, min_p: see `Sampling`.
      candidates: independent draws.
      answer: "each" shows every candidate, "mean" the mean of their pixels, "likeliest" the one with the highest
        likelihood under the model's own distribution.

    Raises:
      UserError: a value out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    candidates: int = 1
    answer: str = EACH

    def __post_init__(self) -> None:
        self.sampling.filters()
        if self.candidates < 1:
            raise UserError(f"candidates is {self.candidates}: it must be at least 1")
        if self.answer not in ANSWERS:
            raise UserError(f"answer is {self.answer!r}: it must be one of {', '.join(ANSWERS)}")

    @property
    def sampling(self) -> Sampling:
        """The first four."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p)

    def save(self, folder: epath.PathLike) -> None:
        """Writes FOLDER/generation.json."""
        files.write_json(epath.Path(folder) / FILE, dataclasses.asdict(self))


# What the sampling study of the quickstart's model found best over its tasks.
MEASURED = Defaults(temperature=0.8, top_p=0.95, candidates=8, answer=LIKELIEST)


def read_defaults(folder: epath.PathLike) -> Defaults | None:
    """What FOLDER/generation.json says; None if the model has no such file.

    Raises:
      UserError: the file is damaged, or has an unknown key or a value out of range.
    """
    path = epath.Path(folder) / FILE
    if not path.exists():
        return None
    try:
        given = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): write it again, or remove it") from error
    known = {field.name: type(field.default) for field in dataclasses.fields(Defaults)}
    if not isinstance(given, dict):
        raise UserError(f"{path} is no object: it has the keys {', '.join(known)}")
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1) or [", ".join(known)]
            raise UserError(f"{path} has the key {key!r}; did you mean {near[0]}?")
        wanted = (int, float) if known[key] is float else known[key]
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise UserError(f"{path}: {key} is {value!r}, which is no {known[key].__name__}")
    try:
        return Defaults(**given)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def answers_of(
    pictures: Float[np.ndarray, "B *picture"],
    log_likelihood_B: Float[np.ndarray, " B"],
    answer: str,
) -> Float[np.ndarray, "M *picture"]:
    """What is shown of the candidates: all of them, or one.

    Args:
      pictures: of the candidates, any shape of pixels.
      log_likelihood_B: of the candidates; see `Engine.generate_scored`.
      answer: see `Defaults`.
    """
    if answer == MEAN:
        return pictures.mean(axis=0, keepdims=True)
    if answer == LIKELIEST:
        best = int(np.argmax(log_likelihood_B))
        return pictures[best : best + 1]
    return pictures
