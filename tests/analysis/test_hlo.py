import pytest

from lvm_jax.analysis import hlo

TEXT = """HloModule m, is_scheduled=true

%body (p: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %p = (s32[], /*index=1*/bf16[4,8]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%p), index=1
  ROOT %t = (s32[], bf16[4,8]{1,0:T(8,128)(2,1)S(1)}) tuple(%i, /*index=1*/%x)
}

%condition (p.1: (s32[], bf16[4,8])) -> pred[] {
  %p.1 = (s32[], bf16[4,8]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(22)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  ROOT %lt = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (a: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %a = (s32[], bf16[4,8]{1,0}) parameter(0)
  ROOT %loop = (s32[], bf16[4,8]{1,0}) while(%a), condition=%condition, body=%body
}
"""


def test_shapes_operands_and_memory_are_read_past_layouts_and_comments():
    module = hlo.parse(TEXT)
    body = module.computations["body"]
    assert module.entry.name == "main"
    assert body.root.operands == ("i", "x")
    assert body.instructions["x"].shapes == (hlo.Shape("bf16", (4, 8), in_hbm=False),)
    assert [s.in_hbm for s in module.entry.root.shapes] == [True, True]
    assert module.entry.root.bytes == 4 + 2 * 32


def test_the_trips_of_a_loop_come_from_the_compiler_or_from_its_condition():
    loop = hlo.parse(TEXT).entry.root
    assert hlo.parse(TEXT).trip_count(loop) == 22
    stated = TEXT.replace(
        "body=%body\n", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}\n'
    )
    assert hlo.parse(stated).trip_count(hlo.parse(stated).entry.root) == 7
    for other in (("constant(22)", "parameter(1)"), ("direction=LT", "direction=GE")):
        unknown = hlo.parse(TEXT.replace(*other))
        with pytest.raises(ValueError, match="loop has no known number of trips"):
            unknown.trip_count(unknown.entry.root)


def test_a_text_without_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule m\n")
