"""Answers beside what is as near for free: in words, as a table, and as demands of which the missed come first."""

import pytest

from lvm_jax.reporting import answers, demands


def task(name, metric, better, **scores):
    return {
        f"{name}/{key}": value
        for key, value in {"sentences": 20, "metric": metric, "better": better, **scores}.items()
    }


DEPTH = "scenes: image -> depth"
MASK = "cut: image -> mask"
GREY = "photos: grey -> image"
WALK = "walks: next frame"
DRAWN = {
    **task(DEPTH, "absrel", "less", model=0.08, copy=0.14, nearest=0.13, mean=0.07),
    **task(MASK, "miou", "more", model=0.3, copy=0.2, nearest=0.1, mean=0.1, control_shuffled=0.25),
    **task(GREY, "psnr", "more", model=20.0, copy=11.0, nearest=11.0, mean=13.0, query=18.0),
    **task(WALK, "psnr", "more", model=20.0, copy=25.0, mean=19.0, nearer_than_copy=3),
}
CONTROLS = {
    f"{DEPTH}/uses_query": 0.9,
    f"{MASK}/uses_query": 0.1,
    f"{MASK}/uses_pairs": 0.3,
    f"{WALK}/uses_last": 1.0,
}


def test_less_is_better_where_it_is():
    assert answers.beats({"model": 0.08, "copy": 0.14, "better": "less"}, "copy")
    assert not answers.beats({"model": 0.08, "copy": 0.14, "better": "more"}, "copy")
    assert answers.beats({"model": 0.08, "better": "less"}, "copy") is None


def test_the_headline_names_what_a_copy_beats():
    assert answers.headline(None) == answers.NOT_MEASURED
    assert answers.headline(DRAWN).endswith("in 3 of 4 tasks. Not in: walks: next frame.")


def test_the_table_has_ceilings_and_no_empty_column():
    header, rows = answers.table(DRAWN, {"depth/absrel": 0.03})
    assert header[:4] == ("task", "sentences", "score", "decoder")
    assert header[-1] == "ceiling"
    assert "with another query" not in header
    (depth, *_) = rows
    assert depth[0] == DEPTH
    assert depth[-1] == 0.03
    assert "| scenes: image -> depth | 20 | absrel | 0.0800 |" in answers.as_markdown(DRAWN, {})


def test_pictures_show_every_score_before_a_second_of_one():
    shown = DRAWN | {f"{name}/shown": "x.png" for name in (DEPTH, MASK, GREY, WALK)}
    more = shown | task("a: image -> depth", "absrel", "less", shown="y.png")
    assert list(answers.examples(more, 4)) == [DEPTH, MASK, GREY, WALK]
    assert len(answers.examples(more, 9)) == 5
    values = {"metric": "f1", "best": 0.9, "median": 0.5, "worst": 0.1, "sentences": 8, "copy": 0.2}
    assert answers.words_of("edges", values | {"model": 0.4}) == (
        "edges · f1 0.900 at best, 0.500 in the middle, 0.100 at worst; over 8 sentences 0.400, a copy 0.200"
    )


def test_demands_begin_with_what_is_missed():
    found = demands.demands({"controls": CONTROLS, "answers": DRAWN})
    verdicts = {(demand.task, demand.asked): demand.met for demand in found}
    assert [demand.met for demand in found] == sorted(
        (g.met for g in found), key=[False, None, True].index
    )
    assert verdicts == {
        (DEPTH, "uses_query at least 0.5 nats a code"): True,
        (DEPTH, "absrel better than copy"): True,
        (DEPTH, "absrel better than nearest"): True,
        (DEPTH, "absrel better than mean"): False,
        (MASK, "uses_query at least 0.5 nats a code"): False,
        (MASK, "miou better than copy by 0.15"): False,
        (MASK, "miou better than nearest by 0.15"): True,
        (MASK, "miou better than mean by 0.15"): True,
        (GREY, "psnr better than query"): True,
        (GREY, "psnr better than mean"): True,
        (WALK, "psnr better than copy"): False,
        ("all tasks", found_pairs(found)): False,
    }
    assert demands.as_markdown(found).splitlines()[0] == (
        "Met: 7 of 12. What is missed comes first."
    )
    assert "| **missed** | walks: next frame | psnr better than copy | 20.0, copy 25.0 |" in (
        demands.as_markdown(found)
    )


def found_pairs(found) -> str:
    (demand,) = [demand for demand in found if demand.task == "all tasks"]
    assert demand.measured == f"{MASK} 0.300"
    return demand.asked


def test_what_is_measured_shows_why_it_is_met_or_missed():
    near = task(MASK, "miou", "more", model=0.5496, copy=0.4, nearest=0.54964, mean=0.2)
    measured = {d.asked: (d.met, d.measured) for d in demands.demands({"answers": near})}
    assert measured["miou better than copy by 0.15"] == (
        False,
        "0.550, copy 0.400, better by 0.1496",
    )
    assert measured["miou better than nearest by 0.15"] == (False, "0.54960, nearest 0.54964")
    assert measured["miou better than mean by 0.15"] == (True, "0.550, mean 0.200, better by 0.350")


@pytest.mark.parametrize("missing", ["controls", "answers"])
def test_what_was_not_measured_is_not_met(missing):
    found = demands.demands({"controls": CONTROLS, "answers": DRAWN, missing: None})
    asked = {demand.asked: demand.met for demand in found if demand.task == DEPTH}
    lacking = (
        "uses_query at least 0.5 nats a code" if missing == "controls" else "score better than copy"
    )
    assert asked[lacking] is None
    assert found_asked(found).met is None
    assert demands.demands({}) == []


def found_asked(found):
    return next(demand for demand in found if demand.task == "all tasks")
