"""A study's sentences follow from its runs: which variants differ, and whether an order that others found holds."""

import pytest

from lvm_jax.reporting.recipe_findings import difference, findings

# Variant -> its number with seeds 0, 1 and 2.
MEASURED = {
    "plain": (1.0, 2.0, 3.0),
    "better": (2.0, 3.1, 3.9),
    "same": (0.5, 2.5, 3.0),
    "worse": (0.5, 1.4, 2.6),
}


def study(seeds=3, orders=(), measured=MEASURED):
    runs = [
        {"variant": variant, "seed": seed, "numbers": {"n": values[seed]}}
        for variant, values in measured.items()
        for seed in range(seeds)
    ]
    variants = [
        {"variant": v, "numbers": {"n": {"mean": sum(values[:seeds]) / seeds}}}
        for v, values in measured.items()
    ]
    return {"columns": [("score", "n")], "orders": orders, "runs": runs, "variants": variants}


def test_a_difference_is_of_equal_seeds_with_students_interval():
    found = difference(study(), "n", "plain", "better")
    assert (found.mean, found.is_told) == (pytest.approx(1.0), True)
    assert found.margin == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert not difference(study(), "n", "plain", "same").is_told
    alone = difference(study(seeds=1), "n", "plain", "better")
    assert (alone.margin, alone.is_told, str(alone)) == (None, None, "+1.00")
    assert difference(study(), "other", "plain", "better") is None


def test_what_each_variant_changed():
    (sentence,) = findings(study())
    assert sentence == (
        "score: 1.50 (worse) to 3.00 (better). Unlike plain: better +1.00 ± 0.25, worse -0.500 ± 0.25; the other 1 "
        "cannot be told from it."
    )
    (sentence,) = findings(study(seeds=1))
    assert sentence == "score: 0.500 (same) to 2.00 (better)."
    alike = {"plain": (1.0, 1.0, 1.0), "other": (1.0, 1.0, 1.0)}
    assert findings(study(measured=alike)) == ["score: 1.00 in all variants."]


def test_an_order_of_others():
    order = ("As published", "n", "worse", "plain", "better")
    assert findings(study(orders=[order]))[0] == (
        "As published (worse < plain < better) holds: of 3 pairs 3 are in this order, 0 the other way, and 0 cannot be "
        "told."
    )
    order = ("As published", "n", "worse", "plain", "same")
    assert (
        "is not contradicted: of 3 pairs 1 are in this order" in findings(study(orders=[order]))[0]
    )
    order = ("As published", "n", "better", "plain", "same")
    assert (
        "does not hold: of 3 pairs 0 are in this order, 1 the other way (better above plain)"
        in (findings(study(orders=[order]))[0])
    )
    assert findings(study(seeds=1, orders=[order]))[0].endswith(
        "0 of 3 pairs are in this order, by one seed each."
    )
    assert len(findings(study(orders=[("x", "unknown", "worse", "plain")]))) == 1
