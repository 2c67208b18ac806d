"""One answered prompt: its pictures, the files they go to, and how close they are to the known answer.

P: images of the prompt, I: images hidden or made, B: candidates, N: tokens an image, H, W: pixels, C: channels.
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
from lvm_jax.metrics.image import psnr
from lvm_jax.models.tokenizer.vqgan import VQGAN
from lvm_jax.pictures.pixels import to_uint8
from lvm_jax.pictures.resize import stretch
from lvm_jax.reporting.figures import PREDICTION, TRUTH, Group, save_png, strip


@dataclasses.dataclass(frozen=True)
class Answer:
    """A case and what the decoder made of it, as codes and as pictures in [0, 1].

    Attributes:
      case: the prompt.
      made_BIN: the codes of the candidates.
      prompt_PHWC, made_BIHWC, truth_IHWC: the codes of prompt, candidates and known answer, decoded.
    """

    case: Case
    made_BIN: Int[np.ndarray, "b i n"]
    prompt_PHWC: Float[np.ndarray, "p h w c"]
    made_BIHWC: Float[np.ndarray, "b i h w c"]
    truth_IHWC: Float[np.ndarray, "i2 h w c"]

    @classmethod
    def of(cls, case: Case, made_BIN: Int[np.ndarray, "b i n"], vqgan: VQGAN) -> "Answer":
        """Decodes all pictures of a case together."""
        codes = [case.prompt_PN, made_BIN.reshape(-1, made_BIN.shape[-1]), case.truth_IN]
        images = decode_codes(vqgan, np.concatenate(codes))
        prompt, made, truth = np.split(images, np.cumsum([len(part) for part in codes])[:-1])
        return cls(
            case, made_BIN, prompt, made.reshape(*made_BIN.shape[:2], *made.shape[1:]), truth
        )

    def scores(self) -> dict[str, float]:
        """How close the candidates are to the known answer, beside copies of the prompt's last comparable images.

        Returns:
          means over candidates and images: `token_accuracy` and `psnr` (dB, against the truth as the tokenizer shows
          it), and `copy_token_accuracy` and `copy_psnr` of the copies; nothing where the answer is not known.
        """
        case = self.case
        if not len(case.truth_IN):
            return {}
        shown, asked = case.roles[: len(case.prompt_PN)], case.roles[len(case.prompt_PN) :]
        copies = [comparable_image(shown, role) for role in asked]
        made_MHWC = np.concatenate(self.made_BIHWC)
        truth_MHWC = np.concatenate([self.truth_IHWC] * len(self.made_BIHWC))
        return {
            "token_accuracy": float(np.mean(self.made_BIN == case.truth_IN[None])),
            "copy_token_accuracy": float(np.mean(case.prompt_PN[copies] == case.truth_IN)),
            "psnr": _psnr(made_MHWC, truth_MHWC),
            "copy_psnr": _psnr(self.prompt_PHWC[copies], self.truth_IHWC),
        }

    def save(self, folder: epath.Path, aspect: str = "square") -> dict[str, Any]:
        """Writes prompt_P.png, prediction_B_I.png, truth_I.png and strip.png, all of them in a row.

        Args:
          folder: named like the case.
          aspect: see `lvm_jax.inference.prompt_batches.Request`.

        Returns:
          the files, relative to the folder above.
        """
        sizes = self.case.sizes if aspect == "original" else ()
        prompt = _shown(self.prompt_PHWC, sizes)
        candidates = [_shown(made_IHWC, sizes[-1:]) for made_IHWC in self.made_BIHWC]
        truth = _shown(self.truth_IHWC, sizes[-1:])

        def saved(label: str, pictures: list[np.ndarray]) -> list[str]:
            names = [f"{label}_{number}.png" for number in range(len(pictures))]
            for name, picture in zip(names, pictures):
                save_png(folder / name, picture)
            return [f"{self.case.name}/{name}" for name in names]

        save_png(folder / "strip.png", _strip(prompt, candidates, truth))
        return {
            "prompt": saved("prompt", prompt),
            "predictions": [saved(f"prediction_{b}", made) for b, made in enumerate(candidates)],
            "truth": saved("truth", truth),
            "strip": f"{self.case.name}/strip.png",
        }


def _strip(
    prompt: list[np.ndarray], candidates: list[list[np.ndarray]], truth: list[np.ndarray]
) -> UInt8[np.ndarray, "h w c"]:
    groups = [Group("prompt", prompt)]
    for number, pictures in enumerate(candidates, 1):
        label = "prediction" if len(candidates) == 1 else f"prediction {number}"
        groups.append(Group(label, pictures, PREDICTION))
    return strip([*groups, Group("truth", truth, TRUTH)])


def _shown(
    images_MHWC: Float[np.ndarray, "m h w c"], sizes: tuple[tuple[int, int], ...]
) -> list[UInt8[np.ndarray, "h2 w2 c"]]:
    """Pictures in bytes, stretched to the size of each, or all to the one size, or not at all."""
    pictures = list(to_uint8(images_MHWC))
    if not sizes:
        return pictures
    each = sizes if len(sizes) == len(pictures) else sizes * len(pictures)
    return [stretch(picture, size) for picture, size in zip(pictures, each)]


def _psnr(a: Float[np.ndarray, "m h w c"], b: Float[np.ndarray, "m h w c"]) -> float:
    return float(jnp.mean(psnr(jnp.asarray(a), jnp.asarray(b))))
