"""Our FLOPs beside XLA's own count, on programs of which it counts all but the trips of loops."""

import jax
import jax.numpy as jnp
import pytest

from lvm_jax.analysis.costs import program_cost
from lvm_jax.analysis.flops import count_flops


def both_counts(function, *shapes):
    """(ours, XLA's) of a compiled function."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = jax.jit(function).lower(*arguments).compile()
    return program_cost(compiled.as_text()).flops, compiled.cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", ((7, 96), (96, 5))),
        ("bij,bkj->bik", ((3, 7, 16), (3, 5, 16))),
        ("bthd,bshd->bhts", ((2, 4, 3, 8), (2, 6, 3, 8))),
        ("abi,cab->ic", ((4, 6, 5), (9, 4, 6))),
    ],
)
def test_products(equation, shapes):
    ours, xla = both_counts(lambda a, b: jnp.einsum(equation, a, b), *shapes)
    assert ours == xla > 0


def convolution(**options):
    def convolved(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, dimension_numbers=layout, **{"window_strides": (1, 1)} | options
        )

    return convolved


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((3, 3, 4, 6), {"padding": "VALID"}),
        ((3, 3, 4, 6), {"padding": "SAME"}),
        ((3, 2, 4, 6), {"padding": ((1, 0), (2, 1)), "window_strides": (2, 3)}),
        ((3, 3, 4, 6), {"padding": ((2, 2), (1, 1)), "lhs_dilation": (2, 1)}),
        ((2, 3, 4, 6), {"padding": "VALID", "rhs_dilation": (2, 2)}),
        ((3, 3, 2, 6), {"padding": "SAME", "feature_group_count": 2}),
        ((3, 3, 4, 6), {"padding": "SAME", "batch_group_count": 2}),
    ],
)
def test_convolutions(kernel, options):
    ours, xla = both_counts(convolution(**options), (2, 9, 8, 4), kernel)
    assert ours == xla > 0


def test_gradients_of_a_grouped_convolution():
    convolved = convolution(padding="SAME", feature_group_count=4)

    def gradient(x, kernel):
        return jax.vjp(convolved, x, kernel)[1](jnp.ones((2, 6, 6, 8)))

    ours, _ = both_counts(gradient, (2, 6, 6, 4), (3, 3, 1, 8))
    forward, _ = both_counts(convolved, (2, 6, 6, 4), (3, 3, 1, 8))
    assert ours == 2 * forward


def test_the_body_of_a_loop_counts_once_for_xla_and_every_trip_for_us():
    def looped(x, w):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]

    product, _ = both_counts(jnp.matmul, (8, 16), (16, 16))
    ours, xla = both_counts(looped, (8, 16), (5, 16, 16))
    assert ours == 5 * product
    assert product <= xla < 2 * product  # and the counter of the loop


def test_the_count_of_a_trace_is_that_of_its_program():
    def function(x, w):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0] @ x.T

    shapes = ((8, 16), (5, 16, 16))
    traced = count_flops(function, *(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
    assert traced == both_counts(function, *shapes)[0]


def test_a_loop_without_a_known_end_has_no_count():
    def looped(x):
        return jax.lax.while_loop(lambda x: x[0, 0] < 9.0, lambda x: x @ x, x)

    with pytest.raises(ValueError, match="no known number of trips"):
        count_flops(looped, jnp.ones((4, 4)))
    # A loop of no products has a count all the same.
    assert count_flops(lambda x: jax.lax.while_loop(lambda y: y < 9, lambda y: y + 1, x), 0) == 0
