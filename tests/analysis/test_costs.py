"""Costs of small programs whose every number is known by hand."""

import pathlib

import pytest
from make_hlo import LAYERS, ROWS, WIDTH

from lvm_jax.analysis.costs import Collective, program_cost

SCAN = (pathlib.Path(__file__).parent / "hlo" / "scan_on_8_devices.txt").read_text()


def program(*lines: str, before: str = "") -> str:
    return before + "\n\nENTRY %main (x: f32[]) -> f32[] {\n  " + "\n  ".join(lines) + "\n}\n"


def test_the_body_of_a_loop_counts_as_often_as_it_runs():
    cost = program_cost(SCAN, 8)
    products = 3  # forward; gradients of weights and of inputs
    assert cost.flops == products * LAYERS * 2 * (ROWS / 8) * WIDTH * WIDTH
    matrix = 4 * WIDTH * WIDTH
    assert (cost.count("all-gather"), cost.payload("all-gather")) == (
        2 * LAYERS,
        2 * LAYERS * matrix,
    )
    assert (cost.count("all-reduce"), cost.payload("all-reduce")) == (LAYERS, LAYERS * matrix)
    assert {c.group for c in cost.collectives} == {tuple(range(8))}
    assert not any(c.asynchronous for c in cost.collectives)
    sent = sum(c.wire_bytes for c in cost.collectives)
    assert sent == pytest.approx(LAYERS * matrix * (2 * 7 / 8 + 2 * 7 / 8))


def test_an_asynchronous_collective_of_a_tpu_counts_once():
    gather = (
        "all-gather(%{p}), channel_id=9, replica_groups=mesh['axis_0'=1,'axis_1'=64] {{'axis_1'}}, "
        'dimensions={{0}}, frontend_attributes={{chain_id="0"}}'
    )
    before = f"""%begin (p0: bf16[2,8]) -> bf16[128,8] {{
  %p0 = bf16[2,8]{{1,0}} parameter(0)
  %g0 = bf16[128,8]{{1,0}} {gather.format(p="p0")}
  ROOT %s = bf16[128,8]{{1,0}} custom-call(%g0), custom_call_target="AsyncCollectiveStart"
}}

%end (p1: bf16[2,8]) -> bf16[128,8] {{
  %p1 = bf16[2,8]{{1,0}} parameter(0)
  %g1 = bf16[128,8]{{1,0}} {gather.format(p="p1")}
  ROOT %d = bf16[128,8]{{1,0}} custom-call(%g1), custom_call_target="AsyncCollectiveDone"
}}"""
    text = program(
        "%x = bf16[2,8]{1,0} parameter(0)",
        "%start = bf16[128,8]{1,0} fusion(%x), kind=kCustom, calls=%begin",
        "ROOT %done = bf16[128,8]{1,0} fusion(%x), kind=kCustom, calls=%end",
        before=before,
    )
    assert program_cost(text).collectives == [
        Collective("all-gather", 2 * 128 * 8, tuple(range(64)), 1.0, asynchronous=True)
    ]


def test_a_scatter_that_a_tpu_writes_as_all_reduce_and_slice():
    before = """%scatter (p0: f32[64,8]) -> f32[16,8] {
  %p0 = f32[64,8]{1,0} parameter(0)
  %sum = f32[64,8]{1,0} all-reduce(%p0), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %part = f32[16,8]{1,0} dynamic-slice(%sum, %zero, %zero), dynamic_slice_sizes={16,8}
}"""
    text = program(
        "%x = f32[64,8]{1,0} parameter(0)",
        "ROOT %f = f32[16,8]{1,0} fusion(%x), kind=kCustom, calls=%scatter",
        before=before,
    )
    (scatter,) = program_cost(text, 8).collectives
    assert (scatter.kind, scatter.group) == ("reduce-scatter", (0, 1, 2, 3))
    assert scatter.wire_bytes == 4 * 64 * 8 * 3 / 4


@pytest.mark.parametrize(
    ("notation", "group"),
    [
        ("{{0,2},{1,3}}", (0, 2)),
        ("[2,4]<=[8]", (0, 1, 2, 3)),
        ("[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("mesh['a'=2,'b'=4] {'a'}", (0, 4)),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", (0, 4)),
        ("{}", tuple(range(8))),
    ],
)
def test_groups_in_every_notation_of_xla(notation, group):
    text = program(
        "%x = f32[64]{0} parameter(0)",
        f"ROOT %r = f32[64]{{0}} all-reduce(%x), replica_groups={notation}, to_apply=%add",
    )
    assert program_cost(text, 8).collectives[0].group == group


def test_a_layer_that_is_cut_out_of_the_stack_is_read_and_the_stack_is_not():
    before = """%cut (p0: f32[22,16,8], p1: s32[]) -> f32[1,16,8] {
  %p0 = f32[22,16,8]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %layer = f32[1,16,8]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,16,8}
}

%put (p2: f32[22,16,8], p3: f32[1,16,8], p4: s32[]) -> f32[22,16,8] {
  %p2 = f32[22,16,8]{2,1,0} parameter(0)
  %p3 = f32[1,16,8]{2,1,0} parameter(1)
  %p4 = s32[] parameter(2)
  ROOT %stack = f32[22,16,8]{2,1,0} dynamic-update-slice(%p2, %p3, %p4, %p4, %p4)
}"""
    text = program(
        "%x = f32[22,16,8]{2,1,0} parameter(0)",
        "%i = s32[]{:S(6)} parameter(1)",
        "%one = f32[1,16,8]{2,1,0} fusion(%x, %i), kind=kLoop, calls=%cut",
        "ROOT %y = f32[22,16,8]{2,1,0} fusion(%x, %one, %i), kind=kLoop, calls=%put",
        before=before,
    )
    layer = 4 * 16 * 8
    assert program_cost(text).hbm_bytes == 2 * layer + 2 * layer


def test_what_stays_on_the_chip_is_no_traffic():
    text = program(
        "%x = f32[16,8]{1,0:T(8,128)S(1)} parameter(0)",
        "%y = f32[16,8]{1,0:T(8,128)S(1)} add(%x, %x)",
        "ROOT %z = f32[16,8]{1,0:T(8,128)} negate(%y)",
    )
    assert program_cost(text).hbm_bytes == 4 * 16 * 8


def test_a_slice_fetched_beside_the_rest_moves_itself_and_not_its_array():
    text = program(
        "%x = f32[64,8]{1,0:T(8,128)} parameter(0)",
        "%s = (f32[64,8]{1,0:T(8,128)}, f32[4,8]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:4],[0:8]}",
        "ROOT %y = f32[4,8]{1,0:T(8,128)S(1)} slice-done(%s)",
    )
    assert program_cost(text).hbm_bytes == 4 * 4 * 8


def test_of_a_condition_the_dearest_branch_counts():
    before = """%cheap (p0: f32[8,8]) -> f32[8,8] {
  ROOT %p0 = f32[8,8]{1,0} parameter(0)
}

%dear (p1: f32[8,8]) -> f32[8,8] {
  %p1 = f32[8,8]{1,0} parameter(0)
  ROOT %d = f32[8,8]{1,0} dot(%p1, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}"""
    text = program(
        "%i = s32[] parameter(0)",
        "%x = f32[8,8]{1,0} parameter(1)",
        "ROOT %y = f32[8,8]{1,0} conditional(%i, %x, %x), branch_computations={%cheap, %dear}",
        before=before,
    )
    assert program_cost(text).flops == 2 * 8**3


def test_kernels_of_a_branch_that_nobody_knows_are_named():
    before = """%one (p0: f32[8,8]) -> f32[8,8] {
  %p0 = f32[8,8]{1,0} parameter(0)
  ROOT %mine = f32[8,8]{1,0} custom-call(%p0), custom_call_target="tpu_custom_call"
}

%other (p1: f32[8,8]) -> f32[8,8] {
  %p1 = f32[8,8]{1,0} parameter(0)
  ROOT %d = f32[8,8]{1,0} dot(%p1, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}"""
    text = program(
        "%i = s32[] parameter(0)",
        "%x = f32[8,8]{1,0} parameter(1)",
        "ROOT %y = f32[8,8]{1,0} conditional(%i, %x, %x), branch_computations={%one, %other}",
        before=before,
    )
    assert program_cost(text).uncounted_kernels == {"mine": 1.0}
