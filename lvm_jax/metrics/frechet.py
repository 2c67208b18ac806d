"""The Frechet distance between two sets of images, on any features.

Heusel et al., arXiv 1706.08500, equation 6. FID uses features of an Inception network. A distance on other features is
named after them (`frechet_vgg16`) and cannot be compared with FID.

Shape suffixes: M images, D features.
"""

import dataclasses

import numpy as np
from jaxtyping import Array, Float

from lvm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Sums that give mean and covariance of features, in float64; merging two subsets gives the whole set."""

    count: int
    sum_D: Float[np.ndarray, " D"]
    outer_DD: Float[np.ndarray, "D D"]

    @classmethod
    def of(cls, features_MD: Float[Array | np.ndarray, "M D"]) -> "Gaussian":
        """The sums over the features of some images."""
        x_MD = np.asarray(features_MD, np.float64)
        return cls(len(x_MD), x_MD.sum(axis=0), x_MD.T @ x_MD)

    def merge(self, other: "Gaussian") -> "Gaussian":
        """The sums over both sets, such as those of two hosts."""
        return Gaussian(
            self.count + other.count, self.sum_D + other.sum_D, self.outer_DD + other.outer_DD
        )

    def moments(self) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, "D D"]]:
        """Mean and unbiased covariance.

        Raises:
          UserError: fewer than two images.
        """
        if self.count < 2:
            raise UserError(f"{self.count} images have no covariance: measure at least 2")
        mean_D = self.sum_D / self.count
        centred_DD = self.outer_DD - self.count * np.outer(mean_D, mean_D)
        return mean_D, centred_DD / (self.count - 1)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|mean a - mean b|^2 + trace(A + B - 2 (A B)^(1/2)); 0 for equal sets.

    The trace of the root is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2). That matrix is symmetric, so
    no complex parts appear, and covariances of few images (without full rank) need no regularisation.
    """
    (mean_a, cov_a), (mean_b, cov_b) = a.moments(), b.moments()
    values, vectors = np.linalg.eigh(cov_a)
    # Rounding makes zero eigenvalues slightly negative; here and below they count as 0.
    root_a = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    both = np.linalg.eigvalsh(root_a @ cov_b @ root_a)
    cross = np.sqrt(np.maximum(both, 0)).sum()
    distance = np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    return float(max(distance, 0.0))
