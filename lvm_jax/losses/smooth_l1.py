"""The smooth L1 loss of painted pixels.

Shapes: B batch, H W sides, C channels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def smooth_l1(
    painted_BHWC: Float[Array, "B H W C"],
    truth_BHWC: Float[Array, "B H W C"],
    weights_BHW: Float[Array, "B H W"],
    beta: float,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Weighted e^2 / (2 beta) where |e| < beta, and |e| - beta / 2 elsewhere, as (sum, weight): divide once.

    Girshick, arXiv 1504.08083, equation 3, scaled by beta.

    Args:
      painted_BHWC: predicted, any range.
      truth_BHWC: in the same range.
      weights_BHW: of each pixel; all its channels count alike.
      beta: above 0.
    """
    error = jnp.abs(painted_BHWC.astype(jnp.float32) - truth_BHWC)
    losses = jnp.where(error < beta, jnp.square(error) / (2 * beta), error - beta / 2)
    channels = painted_BHWC.shape[-1]
    return jnp.sum(losses * weights_BHW[..., None]), channels * jnp.sum(weights_BHW)
