"""FLOPs of single instructions, in the words of the compilers for TPUs and NVIDIA GPUs."""

import pytest
from test_costs import program

from lvm_jax.analysis.costs import program_cost


def test_a_batched_product_that_a_tpu_writes_as_a_convolution():
    text = program(
        "%a = bf16[4,8,128,96]{3,2,1,0} parameter(0)",
        "%b = bf16[4,8,96,64]{3,2,1,0} parameter(1)",
        "ROOT %c = f32[4,8,128,64]{3,2,1,0} convolution(%a, %b), window={size=4x8 stride=3x7 lhs_dilate=4x8}, "
        "dim_labels=01bf_01io->01bf",
    )
    assert program_cost(text).flops == 2 * 4 * 8 * 128 * 96 * 64


def test_a_convolution_counts_no_products_with_its_padding():
    text = program(
        "%a = f32[2,5,5,3]{3,2,1,0} parameter(0)",
        "%k = f32[3,3,3,7]{3,2,1,0} parameter(1)",
        "ROOT %c = f32[2,5,5,7]{3,2,1,0} convolution(%a, %k), window={size=3x3 pad=1_1x1_1}, "
        "dim_labels=b01f_01io->b01f",
    )
    assert program_cost(text).flops == 2 * 2 * 3 * 7 * 13 * 13  # 5 + 4 + 4 pairs a dimension


def test_a_convolution_of_groups_of_the_batch_counts_each_output_once():
    text = program(
        "%a = f32[2,9,8,4]{3,2,1,0} parameter(0)",
        "%k = f32[3,3,4,6]{3,2,1,0} parameter(1)",
        "ROOT %c = f32[1,9,8,6]{3,2,1,0} convolution(%a, %k), window={size=3x3 pad=1_1x1_1}, "
        "dim_labels=b01f_01io->b01f, batch_group_count=2",
    )
    # As XLA counts it, which writes it anew before it compiles it.
    assert program_cost(text).flops == 2 * 4 * 6 * 25 * 22


QKV = ("q", "k", "v")


def attention(
    name: str, widths=(128, 128, 128), shape="2,8,512,{}", more="", target="tpu_custom_call"
):
    arrays = [
        f"%{x} = bf16[{shape.format(width)}] parameter({i})"
        for i, (x, width) in enumerate(zip(QKV, widths, strict=True))
    ]
    names = ", ".join(f"%{x}" for x in QKV)
    if "positions" in more:
        arrays.append("%positions = s32[512,128] parameter(3)")
        names, more = f"{names}, %positions", ""
    result = f"ROOT %{name} = bf16[{shape.format(widths[2])}] custom-call({names})"
    return program_cost(program(*arrays, f'{result}, custom_call_target="{target}"{more}'))


PAIRS = 2 * 8 * 512 * 512


def test_a_pallas_kernel_counts_by_its_own_estimate():
    stated = ', backend_config={"custom_call_config":{"body":"x","cost_estimate":{"flops":1234,"bytes_accessed":1}}}'
    assert attention("mine", more=stated).flops == 1234


@pytest.mark.parametrize(
    ("name", "of_queries", "of_values"),
    [
        ("splash_mha_fwd_residuals.1", 1, 1),
        ("splash_mha_dkv_no_residuals", 2, 2),
        ("splash_mha_dq_segmented_no_residuals", 2, 1),
    ],
)
def test_splash_attention_counts_the_pairs_that_its_mask_leaves(name, of_queries, of_values):
    widths = (256, 256, 128)  # a bias widens queries and keys
    all_pairs = 2 * PAIRS * (256 * of_queries + 128 * of_values)
    assert attention(name, widths).flops == all_pairs
    assert attention(name, widths, more="positions").flops == all_pairs / 2


@pytest.mark.parametrize(("mask", "share"), [("CAUSAL", 0.5), ("NO_MASK", 1.0)])
def test_attention_of_cudnn(mask, share):
    config = f', backend_config={{"cudnn_fmha_backend_config": {{"mask_type": "{mask}"}}}}'
    cost = attention(
        "dot_product_attention_bwd.2",
        shape="2,512,8,{}",
        more=config,
        target="__cudnn$fmhaSoftmaxBackward",
    )
    assert cost.flops == 5 * 2 * PAIRS * 128 * share


def test_a_product_of_cublas():
    text = program(
        "%a = bf16[4,32,128]{2,1,0} parameter(0)",
        "%b = bf16[4,128,64]{2,1,0} parameter(1)",
        "ROOT %c = (bf16[4,32,64]{2,1,0}, s8[4096]{0}) custom-call(%a, %b), "
        'custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":'
        '{"dot_dimension_numbers":{"lhs_contracting_dimensions":["2"],"lhs_batch_dimensions":["0"]}}}',
    )
    assert program_cost(text).flops == 2 * 4 * 32 * 128 * 64


X, K, Y = "bf16[2,5,5,3]", "bf16[7,3,3,3]", "bf16[2,5,5,7]"


@pytest.mark.parametrize(
    ("kind", "one", "other", "result"),
    [("Forward", X, K, Y), ("BackwardInput", Y, K, X), ("BackwardFilter", X, Y, K)],
)
def test_convolutions_of_cudnn_and_their_gradients(kind, one, other, result):
    text = program(
        f"%a = {one}{{3,2,1,0}} parameter(0)",
        f"%b = {other}{{3,2,1,0}} parameter(1)",
        f"ROOT %c = ({result}{{3,2,1,0}}, u8[0]{{0}}) custom-call(%a, %b), window={{size=3x3 pad=1_1x1_1}}, "
        f'dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$conv{kind}"',
    )
    assert program_cost(text).flops == 2 * 2 * 3 * 7 * 13 * 13


def test_kernels_that_nobody_knows_are_named():
    unknown = attention("mine")
    assert (unknown.flops, unknown.uncounted_kernels) == (0.0, {"mine": 1.0})
    library = attention("fused", target="__cudnn$other")
    assert (library.flops, library.uncounted_kernels) == (0.0, {"fused": 1.0})
    assert not attention("x", target="Sharding").uncounted_kernels


def test_an_attention_kernel_of_other_arrays_is_named():
    text = program(
        "%q = f32[2,8,512,128] parameter(0)",
        'ROOT %splash_mha_fwd = f32[2,8,512,128] custom-call(%q), custom_call_target="tpu_custom_call"',
    )
    assert program_cost(text).uncounted_kernels == {"splash_mha_fwd": 1.0}
