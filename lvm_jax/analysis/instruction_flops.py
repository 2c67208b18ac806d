"""FLOPs of one instruction of a compiled program: products, convolutions, and kernels that are known by their names.

A multiply-add is 2.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from lvm_jax.analysis import hlo

PALLAS = ("tpu_custom_call", "__gpu$xla.gpu.triton")
LIBRARY_PRODUCT, LIBRARY_CONVOLUTION = "__cublas", "__cudnn$conv"
VENDOR = (LIBRARY_PRODUCT, "__cudnn")

# Attention kernels that state no cost: how many products (queries, keys) there are of the width of queries and of the
# width of values, and the axis of T in the queries. The last two are cuDNN's.
ATTENTION_KERNELS = {
    "splash_mha_fwd": (1, 1, -2),
    "splash_mha_dkv": (2, 2, -2),
    "splash_mha_dq": (2, 1, -2),
    "dot_product_attention_fwd": (1, 1, -3),
    "dot_product_attention_bwd": (3, 2, -3),
}


def dot_flops(computation: hlo.Computation, dot: hlo.Instruction) -> float:
    """Of a matrix product."""
    contracted = re.search(r"lhs_contracting_dims=\{([0-9,]*)\}", dot.attributes)
    axes = [int(d) for d in contracted.group(1).split(",") if d] if contracted else []
    return _product(computation, dot, axes)


def _product(
    computation: hlo.Computation, product: hlo.Instruction, contracted: list[int]
) -> float:
    left = computation.operands(product)[0].shapes[0].dims
    return 2.0 * math.prod(product.shapes[0].dims) * math.prod(left[axis] for axis in contracted)


def convolution_flops(computation: hlo.Computation, conv: hlo.Instruction) -> float:
    """Of a convolution.

    Counts only (output, kernel position) pairs that meet an input element. A TPU writes a batched matrix product as a
    convolution whose other pairs fall on padding or holes of dilation.

    Raises:
      ValueError: the text does not say what its dimensions are.
    """
    inputs, kernel = (operand.shapes[0].dims for operand in computation.operands(conv)[:2])
    return _convolution(conv, inputs, kernel, conv.shapes[0].dims)


def _convolution(
    conv: hlo.Instruction,
    inputs: tuple[int, ...],
    kernel: tuple[int, ...],
    outputs: tuple[int, ...],
) -> float:
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", conv.attributes)
    if labels is None:
        raise ValueError(f"convolution {conv.name} has no dim_labels")
    of_input, of_kernel, of_output = labels.groups()
    window = dict(re.findall(r"(\w+)=([\w\-]+)", _braces(conv.attributes, "window")))
    # Whatever the groups: the output has as many rows less, and the kernel as many input channels.
    flops = 2.0 * outputs[of_output.index("b")] * outputs[of_output.index("f")]
    flops *= kernel[of_kernel.index("i")]
    for axis in range(len(of_output) - 2):
        digit = str(axis)
        flops *= _meeting(
            inputs[of_input.index(digit)],
            kernel[of_kernel.index(digit)],
            outputs[of_output.index(digit)],
            {key: value.split("x")[axis] for key, value in window.items()},
        )
    return flops


def _braces(attributes: str, key: str) -> str:
    found = re.search(rf"\b{key}=\{{([^}}]*)\}}", attributes)
    return found.group(1) if found else ""


def _meeting(size: int, taps: int, outputs: int, window: Mapping[str, str]) -> int:
    """Pairs (output, tap) along one dimension that read an input element, and not padding or a hole of dilation."""
    stride, lhs_dilate, rhs_dilate = (
        int(window.get(key, 1)) for key in ("stride", "lhs_dilate", "rhs_dilate")
    )
    low = int(window.get("pad", "0_0").split("_")[0])
    position = np.arange(outputs)[:, None] * stride + np.arange(taps) * rhs_dilate - low
    inside = (position >= 0) & (position <= (size - 1) * lhs_dilate)
    return int(np.sum(inside & (position % lhs_dilate == 0)))


def kernel_flops(computation: hlo.Computation, call: hlo.Instruction) -> float | None:
    """Of a custom call: by its own estimate, or as the attention, product or convolution that it is.

    None: it is a Pallas kernel or a vendor's, and none of these. Any other call, such as one for the partitioner, is 0.
    """
    found = re.search(r'custom_call_target="([^"]*)"', call.attributes)
    target = found.group(1) if found else ""
    if not target.startswith((*PALLAS, *VENDOR)):
        return 0.0
    stated = re.search(r'"cost_estimate": ?\{[^}]*"flops": ?"?(\d+)', call.attributes)
    if stated:
        return float(stated.group(1))
    if target.startswith(LIBRARY_PRODUCT):
        return _library_product(computation, call)
    if target.startswith(LIBRARY_CONVOLUTION):
        return _library_convolution(computation, call, target)
    return _attention(computation, call)


def _library_product(computation: hlo.Computation, call: hlo.Instruction) -> float | None:
    listed = re.search(r'"lhs_contracting_dimensions": ?\[([^\]]*)\]', call.attributes)
    if listed is None:
        return None
    return _product(computation, call, [int(d) for d in re.findall(r"\d+", listed.group(1))])


def _library_convolution(
    computation: hlo.Computation, call: hlo.Instruction, target: str
) -> float | None:
    """cuDNN describes both gradients by the convolution that they are of."""
    one, other = (operand.shapes[0].dims for operand in computation.operands(call)[:2])
    result = call.shapes[0].dims
    arrays = {
        "Forward": (one, other, result),
        "BackwardInput": (result, other, one),
        "BackwardFilter": (one, result, other),
    }
    kind = target.removeprefix(LIBRARY_CONVOLUTION)
    return _convolution(call, *arrays[kind]) if kind in arrays else None


def _attention(computation: hlo.Computation, call: hlo.Instruction) -> float | None:
    label = f"{call.name} {call.attributes}"
    for name, (of_queries, of_values, axis) in ATTENTION_KERNELS.items():
        if name in label:
            operands = [operand.shapes[0] for operand in computation.operands(call)]
            # Behind arrays about the mask come queries, keys and values.
            arrays = [s.dims for s in operands if len(s.dims) >= 3 and s.dtype == "bf16"]
            if len(arrays) < 3:
                return None
            queries, _, values = arrays[:3]
            pairs = (
                math.prod(queries[:-1]) * queries[axis] / (2 if _is_causal(call, operands) else 1)
            )
            return 2.0 * pairs * (of_queries * queries[-1] + of_values * values[-1])
    return None


def _is_causal(call: hlo.Instruction, operands: list[hlo.Shape]) -> bool:
    """cuDNN says so; splash attention then reads the position of each query, as a matrix."""
    said = re.search(r'"mask_type": ?"(\w+)"', call.attributes)
    if said:
        return "CAUSAL" in said.group(1)
    return any(len(s.dims) == 2 and s.dtype == "s32" for s in operands)
