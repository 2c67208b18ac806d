"""What is flat is called flat, what was not measured is not guessed, and report and card begin with it."""

import json

import pytest

from lvm_jax.reporting import controls


def task(name, query=(), pairs=(), sentences=8):
    """Results of a task of pairs; each difference is (value,) or (value, error)."""
    results = {f"{name}/sentences": sentences, f"{name}/pairs": 3, f"{name}/right": 2.5}
    for use, measured in (("uses_query", query), ("uses_pairs", pairs)):
        results |= dict(zip((f"{name}/{use}", f"{name}/{use}_error"), measured))
    return results


DEPTH = task("scenes: image -> depth", (0.85, 0.04), (-0.001, 0.004))
EDGES = task("scenes: image -> edges", (0.0, 0.0), (0.05, 0.03))
FRAMES = {
    "walks: next frame/sentences": 8,
    "walks: next frame/context": 7,
    "walks: next frame/uses_last": 1.25,
    "walks: next frame/uses_last_error": 0.1,
}


@pytest.mark.parametrize(
    ("difference", "error", "flat"),
    [
        (0.019, 0.001, True),
        (0.021, 0.001, False),
        (0.019, 0.0, True),
        (-0.5, 0.3, True),
        (-0.5, 0.2, False),
        (0.5, 0.26, True),
        (0.5, 0.24, False),
    ],
)
def test_flat_is_below_two_errors_or_a_fiftieth_of_a_nat(difference, error, flat):
    assert controls.is_flat(difference, error) == flat


def test_scores_are_flat_only_by_their_error():
    assert controls.is_flat(0.0, 0.0, 0)
    assert not controls.is_flat(0.001, 0.0004, 0)


def test_each_task_in_plain_words():
    words = controls.plain_words(DEPTH | EDGES | FRAMES | {"left_out": 3})
    assert words == [
        "On scenes: image -> depth the answer depends on the query: another sentence's query costs 0.85 nats a code "
        "(± 0.04); it does not depend on the pairs: shuffling their answers costs 0.00 nats a code (± 0.00).",
        "On scenes: image -> edges the answer does not depend on the query: another sentence's query costs 0.00 nats "
        "a code (± 0.00); it does not depend on the pairs: shuffling their answers costs 0.05 nats a code (± 0.03).",
        "On walks: next frame the answer depends on the image before it: another clip's costs 1.25 nats a code "
        "(± 0.10).",
    ]


def test_the_headline_names_what_is_flat():
    assert controls.headline(DEPTH | EDGES | FRAMES) == (
        "The answer does not depend on the query in 1 of 2 tasks (scenes: image -> edges), on the pairs in 2 of 2 "
        "tasks. The answer depends on the image before it in 1 of 1 task (by 1.25 nats a code)."
    )
    third = task("scenes: image -> boxes", (0.01, 0.001))
    assert "in 2 of 3 tasks (all but scenes: image -> depth)" in controls.headline(
        DEPTH | EDGES | third
    )


def test_what_was_not_measured_is_said():
    alone = task("scenes: image -> depth", pairs=(0.4,), sentences=1)
    assert controls.headline(None) == controls.NOT_MEASURED
    for few in (alone, {"left_out": 2}):
        assert controls.headline(few).startswith("No task has enough held-out sentences")
    assert controls.plain_words(alone) == [
        "On scenes: image -> depth the answer may depend on anything: its sentences are too few to tell."
    ]
    ((header, (row,)),) = controls.tables(alone)
    cells = dict(zip(header, row))
    assert cells["uses query"] is None
    assert cells["uses pairs"] == 0.4
    assert "| 0.400 | – |" in controls.as_markdown(alone)


def test_tables_have_a_row_for_each_task():
    pairs, sequences = controls.tables(DEPTH | EDGES | FRAMES)
    assert [row[0] for row in pairs[1]] == ["scenes: image -> depth", "scenes: image -> edges"]
    assert [row[0] for row in sequences[1]] == ["walks: next frame"]
    cells = dict(zip(pairs[0], pairs[1][0]))
    assert cells["right"] == 2.5
    assert cells["uses query"] == "0.85 ± 0.04"
    assert cells["uses pairs"] == "0.00 ± 0.00, flat"
    assert cells["other task"] is None
    assert json.dumps(cells)


def test_a_source_may_have_slashes():
    assert list(controls.by_task(task("a/b: image -> depth"))) == ["a/b: image -> depth"]
