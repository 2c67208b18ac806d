"""One answered prompt: its pictures, its files, and how close the answer is to the truth.

P: images of the prompt, I: images made for each candidate, I2: images of the truth (I, or 0 where it is unknown),
B: candidates, A: answers that are shown, N: tokens per image, M: images of any kind, H, W: pixels, H2, W2: pixels after
stretching, C: channels.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Float, Int, UInt8

from lvm_jax.data.sentences.held_out import comparable_image
from lvm_jax.inference.cases import Case
from lvm_jax.inference.codec import decode_codes
from lvm_jax.inference.defaults import EACH, answers_of
from lvm_jax.metrics.image import psnr
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.pictures.resize import stretch
from lvm_jax.reporting.figures import PREDICTION, TRUTH, Group, save_png, strip


@dataclasses.dataclass(frozen=True)
class Answer:
    """A case and the decoder's answers to it, as codes and as pictures in [0, 1].

    Attributes:
      case: the prompt.
      made_BIN: codes of the candidates.
      prompt_PHWC, truth_IHWC: decoded pictures of the prompt and the truth.
      made_AIHWC: what is shown of the decoded candidates: all of them, or one that `answer` makes of them.
      answer: see `lvm_jax.inference.defaults.Defaults`.
    """

    case: Case
    made_BIN: Int[np.ndarray, "B I N"]
    prompt_PHWC: Float[np.ndarray, "P H W C"]
    made_AIHWC: Float[np.ndarray, "A I H W C"]
    truth_IHWC: Float[np.ndarray, "I2 H W C"]
    answer: str = EACH

    @classmethod
    def of(
        cls,
        case: Case,
        made_BIN: Int[np.ndarray, "B I N"],
        log_likelihood_B: Float[np.ndarray, " B"],
        vqgan: VQGAN,
        answer: str = EACH,
    ) -> "Answer":
        """Decodes every picture of a case.

        Args:
          case: what was asked.
          made_BIN, log_likelihood_B: from `Engine.generate_scored`.
          vqgan: the tokenizer.
          answer: see `lvm_jax.inference.defaults.Defaults`.
        """
        # One call for all of them: the tokenizer then runs in full batches of few shapes.
        codes = [case.prompt_PN, made_BIN.reshape(-1, made_BIN.shape[-1]), case.truth_IN]
        images = decode_codes(vqgan, np.concatenate(codes))
        prompt, made, truth = np.split(images, np.cumsum([len(part) for part in codes])[:-1])
        made_BIHWC = made.reshape(*made_BIN.shape[:2], *made.shape[1:])
        shown = answers_of(made_BIHWC, log_likelihood_B, answer)
        return cls(case, made_BIN, prompt, shown, truth, answer)

    def scores(self) -> dict[str, float]:
        """Compares the answers, and copies of the prompt's last comparable images, with the truth.

        Returns:
          `token_accuracy`, the mean over all candidates, and `psnr`, the mean over the answers that are shown (dB,
          against the truth encoded and decoded); `copy_token_accuracy` and `copy_psnr` for the copies. Empty when the
          truth is unknown.
        """
        case = self.case
        if not len(case.truth_IN):
            return {}
        shown, asked = case.roles[: len(case.prompt_PN)], case.roles[len(case.prompt_PN) :]
        copies = [comparable_image(shown, role) for role in asked]
        # Both sides went through the tokenizer, so PSNR measures the decoder and not the tokenizer's own loss.
        made_MHWC = np.concatenate(self.made_AIHWC)
        truth_MHWC = np.concatenate([self.truth_IHWC] * len(self.made_AIHWC))
        return {
            "token_accuracy": float(np.mean(self.made_BIN == case.truth_IN[None])),
            "copy_token_accuracy": float(np.mean(case.prompt_PN[copies] == case.truth_IN)),
            "psnr": _psnr(made_MHWC, truth_MHWC),
            "copy_psnr": _psnr(self.prompt_PHWC[copies], self.truth_IHWC),
        }

    def save(self, folder: epath.Path, aspect: str = "square") -> dict[str, Any]:
        """Writes prompt_P.png, prediction_A_I.png, truth_I.png, and strip.png with all of them in a row.

        Args:
          folder: has the case's name.
          aspect: see `lvm_jax.inference.prompt_batches.Request`.

        Returns:
          the files, relative to the parent of `folder`.
        """
        # An answer has no original size; it takes that of the last image of the prompt, usually the query.
        sizes = self.case.sizes if aspect == "original" else ()
        prompt = _shown(self.prompt_PHWC, sizes)
        answers = [_shown(made_IHWC, sizes[-1:]) for made_IHWC in self.made_AIHWC]
        truth = _shown(self.truth_IHWC, sizes[-1:])

        def saved(label: str, pictures: list[np.ndarray]) -> list[str]:
            names = [f"{label}_{number}.png" for number in range(len(pictures))]
            for name, picture in zip(names, pictures):
                save_png(folder / name, picture)
            return [f"{self.case.name}/{name}" for name in names]

        words = f"{self.answer} of {len(self.made_BIN)}" if self.answer != EACH else "prediction"
        save_png(folder / "strip.png", _strip(prompt, answers, truth, words))
        return {
            "prompt": saved("prompt", prompt),
            "predictions": [saved(f"prediction_{a}", made) for a, made in enumerate(answers)],
            "truth": saved("truth", truth),
            "strip": f"{self.case.name}/strip.png",
        }


def _strip(
    prompt: list[np.ndarray], answers: list[list[np.ndarray]], truth: list[np.ndarray], words: str
) -> UInt8[np.ndarray, "H W C"]:
    groups = [Group("prompt", prompt)]
    for number, pictures in enumerate(answers, 1):
        label = words if len(answers) == 1 else f"{words} {number}"
        groups.append(Group(label, pictures, PREDICTION))
    return strip([*groups, Group("truth", truth, TRUTH)])


def _shown(
    images_MHWC: Float[np.ndarray, "M H W C"], sizes: tuple[tuple[int, int], ...]
) -> list[UInt8[np.ndarray, "H2 W2 C"]]:
    """uint8 pictures; `sizes` has one size for each, one for all, or is empty to leave them alone."""
    pictures = list(to_uint8(images_MHWC))
    if not sizes:
        return pictures
    each = sizes if len(sizes) == len(pictures) else sizes * len(pictures)
    return [stretch(picture, size) for picture, size in zip(pictures, each)]


def _psnr(a: Float[np.ndarray, "M H W C"], b: Float[np.ndarray, "M H W C"]) -> float:
    return float(jnp.mean(psnr(jnp.asarray(a), jnp.asarray(b))))
