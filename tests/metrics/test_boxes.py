"""Boxes and dense captions: hand cases, and DenseCap's published evaluation written anew as plain loops."""

import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.metrics.boxes import METEORS, OVERLAPS, Regions, dense_captions, overlaps


def alike(said, shown):
    """The best share of equal words: a stand-in for METEOR."""
    return [
        max(len({*a.split()} & {*b.split()}) / len({*a.split()} | {*b.split()}) for b in texts)
        for a, texts in zip(said, shown)
    ]


def box_iou(a, b, more):
    width = min(a[2], b[2]) - max(a[0], b[0]) + more
    height = min(a[3], b[3]) - max(a[1], b[1]) + more
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x[2] - x[0] + more) * (x[3] - x[1] + more) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def slow_map(pictures, min_scores):
    records, total = [], 0
    for picture in pictures:
        left = list(range(len(picture.true_boxes)))
        groups = []
        while left:
            near = {
                i: [
                    j
                    for j in left
                    if box_iou(picture.true_boxes[i], picture.true_boxes[j], 1) >= 0.7
                ]
                for i in left
            }
            group = max(near.values(), key=len)
            groups.append(group)
            left = [i for i in left if i not in group]
        total += len(groups)
        means = [np.mean([picture.true_boxes[i] for i in group], axis=0) for group in groups]
        used = set()
        for d in sorted(range(len(picture.boxes)), key=lambda d: -picture.confidences[d]):
            ious = [box_iou(picture.boxes[d], mean, 1) for mean in means]
            best = max(range(len(ious)), key=ious.__getitem__, default=None)
            if best is None or ious[best] == 0:
                records.append((picture.confidences[d], 0.0, False, -1.0))
                continue
            texts = [picture.true_captions[i] for i in groups[best]]
            score = alike([picture.captions[d]], [texts])[0]
            records.append((picture.confidences[d], ious[best], best not in used, score))
            used.add(best)
    records.sort(key=lambda record: -record[0])
    values = []
    for least in OVERLAPS:
        for score in min_scores:
            right = [ok and iou >= least and found > score for _, iou, ok, found in records]
            points = []
            for percent in range(101):
                best = 0.0
                for k in range(1, len(right) + 1):
                    if 100 * sum(right[:k]) >= percent * total:
                        best = max(best, sum(right[:k]) / k)
                points.append(best)
            values.append(sum(points) / 101)
    return sum(values) / len(values)


def random_picture(rng: np.random.Generator, count: int, found: int) -> Regions:
    words = ["red", "blue", "cat", "dog", "tree", "car"]

    def boxes(n):
        low = rng.integers(0, 40, (n, 2))
        return np.concatenate([low, low + rng.integers(8, 40, (n, 2))], 1).astype(float)

    def texts(n):
        return [" ".join(rng.choice(words, 3)) for _ in range(n)]

    true = boxes(count)
    true = np.concatenate([true, true[: count // 2] + 1])  # some regions have two captions
    near = true[rng.integers(0, len(true), found)] + rng.integers(-6, 7, (found, 4))
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    return Regions(
        near, texts(found), rng.permutation(found * 7)[:found] / 7, true, texts(len(true))
    )


def test_overlaps_of_boxes():
    a = np.array([[0.0, 0, 2, 2], [5, 5, 5, 5]])
    b = np.array([[1.0, 0, 3, 2], [0, 0, 2, 2], [9, 9, 10, 10]])
    np.testing.assert_allclose(overlaps(a, b), [[1 / 3, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(overlaps(a[:1], b, inclusive=True), [[6 / 12, 1, 0]])


def test_dense_captions_are_the_published_ones():
    rng = np.random.default_rng(0)
    pictures = [random_picture(rng, 4, 9), random_picture(rng, 2, 5), random_picture(rng, 3, 0)]
    # Confidences are ranked over all pictures, so they must differ between them.
    for number, picture in enumerate(pictures):
        picture.confidences[:] += number / 50
    found = dense_captions(pictures, alike)
    assert found.captions == pytest.approx(slow_map(pictures, METEORS), abs=1e-9)
    assert found.boxes == pytest.approx(slow_map(pictures, [-2.0]), abs=1e-9)
    assert 0 < found.captions < found.boxes < 1
    other = dense_captions(pictures, alike, min_scores=(0.0, *METEORS)).captions
    assert other == pytest.approx(slow_map(pictures, [0.0, *METEORS]), abs=1e-9)


def test_dense_captions_by_hand():
    true = np.array([[0.0, 0, 9, 9], [20, 20, 29, 29]])
    boxes = np.array([[0.0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 29, 29], [50, 50, 60, 60]])
    picture = Regions(
        boxes, ["cat", "cat", "car", "dog"], np.array([0.9, 0.8, 0.7, 0.6]), true, ["cat", "dog"]
    )
    found = dense_captions([picture], alike)
    # The second finds a region that is taken, the third says something else, the last touches nothing.
    assert found.captions == pytest.approx(51 / 101)  # recall 0 to 50% at precision 1
    assert found.boxes == pytest.approx((51 + 50 * 2 / 3) / 101)
    with pytest.raises(UserError, match="1 pictures have 0 true boxes"):
        dense_captions([Regions(boxes, ["a"] * 4, np.zeros(4), true[:0], [])], alike)


def test_corners_are_pixels_of_their_box():
    # 5 x 5 of 5 x 10 pixels overlap by exactly one half; between corners it would be 16 of 36.
    halves = Regions(
        np.array([[0.0, 0, 4, 4]]), ["a"], np.ones(1), np.array([[0.0, 0, 4, 9]]), ["a"]
    )
    assert dense_captions([halves], alike).boxes == pytest.approx(3 / 5)
