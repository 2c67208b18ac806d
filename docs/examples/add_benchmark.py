"""A benchmark of your own: questions about discs, whose answers are their masks.

python docs/examples/add_benchmark.py
"""

import numpy as np
from flax import nnx

from lvm_jax.evaluation.lvm.visual_benchmark import BenchmarkEvaluator, Episode, Subject
from lvm_jax.inference import Engine
from lvm_jax.models import VQGAN, Llama, presets
from lvm_jax.pictures.annotation_maps import mask_to_rgb
from lvm_jax.vocabulary import Vocabulary

SIDE = 16


# --8<-- [start:reader]
class Discs:
    """A disc of a random colour on grey, and its mask: white on black.

    A reader has one method. Question `index` is a pure function of (seed, index), so that every host can take its share
    of the questions, and a score is the same wherever it is computed.
    """

    def episode(self, index: int, *, shots: int, seed: int) -> Episode:
        """Question `index`: `shots` pairs, a query, and the true answer."""
        rng = np.random.default_rng((seed, index))
        pairs = [_disc(rng) for _ in range(shots)]
        query, truth = _disc(rng)
        return Episode(pairs, query, truth, key=f"disc {index}")


def _disc(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:SIDE, :SIDE]
    centre, radius = rng.uniform(4, SIDE - 4, 2), rng.uniform(2, 4)
    mask = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    image = np.full((SIDE, SIDE, 3), 128, np.uint8)
    image[mask] = rng.integers(0, 256, 3, dtype=np.uint8)
    return image, mask_to_rgb(mask)


# --8<-- [end:reader]


# --8<-- [start:score]
def score(vqgan: VQGAN, decoder: Llama, questions: int, shots: int) -> dict[str, float | int | str]:
    """IoU of the foreground: the decoder beside the tokenizer's ceiling and three baselines."""
    episodes = [Discs().episode(i, shots=shots, seed=0) for i in range(questions)]
    engine = Engine(decoder, vqgan.tokens_per_image, vqgan.codebook_size)
    return BenchmarkEvaluator("segmentation", episodes).run(Subject(engine, vqgan))


# --8<-- [end:score]


def main() -> dict[str, float | int | str]:
    """Networks with random weights: their scores are bad, and say that the way works."""
    vqgan = VQGAN(presets.vqgan("debug"), rngs=nnx.Rngs(0))
    vocabulary = Vocabulary.lvm(vqgan.codebook_size)
    config = presets.llama(
        "debug",
        vocab_size=vocabulary.size,
        max_position_embeddings=8 * vqgan.tokens_per_image,
        hidden_size=32,
        intermediate_size=32,
    )
    return score(vqgan, Llama(config, rngs=nnx.Rngs(1)), questions=4, shots=2)


if __name__ == "__main__":
    for name, value in main().items():
        print(name, value)
