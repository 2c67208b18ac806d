"""Composers: layouts, what is beside what, and chance that follows from the seed alone."""

import collections
import itertools

import numpy as np
import pytest

from data_pipelines.sentences import (
    AnnotatedVideo,
    CategoryGroup,
    MultiAnnotation,
    Pairs,
    SingleImage,
    Turntable,
    Unfit,
    Video,
)
from lvm_jax.data.sentences.visual_sentence import expand_layout
from lvm_jax.errors import UserError

KEYS = [f"item{i}" for i in range(10)]
ROLES = ("image", "depth", "edges", "normals", "masked")


def picture(value: int, height: int = 12, width: int = 20) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def annotated(item: int) -> dict[str, list[np.ndarray]]:
    """Item `i` has value 10 i + r in its role number r."""
    return {role: [picture(10 * item + r)] for r, role in enumerate(ROLES)}


def clip(length: int) -> dict[str, list[np.ndarray]]:
    return {
        "frame": [picture(i) for i in range(length)],
        "mask": [picture(100 + i) for i in range(length)],
    }


def values(images: list[np.ndarray]) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    "composer",
    [
        SingleImage(crop=0.4),
        CategoryGroup(3, class_of="(item).*"),
        Pairs("depth", 3),
        MultiAnnotation(("depth", "edges", "normals"), 8),
        Video(4, (1, 2)),
        AnnotatedVideo(3, "mask", order="either"),
        Turntable(5),
    ],
    ids=lambda composer: type(composer).__name__,
)
def test_the_same_seed_plans_and_composes_the_same_and_another_seed_does_not(composer):
    def everything(seed: int) -> list:
        generator = rng(seed)
        groups = composer.group(KEYS, generator)
        told = []
        for group in groups:
            items = [annotated(int(key[-1])) | clip(20) for key in group]
            for item in items:
                item["view"] = item["frame"]
            images, layout = composer.compose(items, generator)
            assert len(expand_layout(layout)) == len(images) <= composer.max_images
            told.append((group, layout, [image.tobytes() for image in images]))
        return told

    assert everything(1) == everything(1)
    assert everything(1) != everything(2)


@pytest.mark.parametrize("composer", [SingleImage(), Pairs("depth", 3), Pairs("depth", 10)])
def test_a_pass_uses_every_item_and_none_twice_in_a_sentence(composer):
    groups = composer.group(KEYS, rng())
    assert {key for group in groups for key in group} == set(KEYS)
    assert all(len(set(group)) == len(group) == len(groups[0]) for group in groups)
    assert len(groups) == -(-len(KEYS) // len(groups[0]))


def test_a_category_group_shows_one_class_and_a_pass_shows_every_image():
    classes = {"cat": 11, "dog": 5, "eel": 2, "fox": 1}
    keys = [f"train/{name}/{i}.jpg" for name, count in classes.items() for i in range(count)]
    composer = CategoryGroup(n_images=4)
    groups = composer.group([*keys, "stray.jpg"], rng())
    for group in groups:
        assert len({key.split("/")[1] for key in group}) == 1
        assert len(set(group)) == len(group) == min(4, classes[group[0].split("/")[1]])
    assert {k for group in groups for k in group} == {k for k in keys if "/fox/" not in k}
    order = [group[0].split("/")[1] for group in groups]
    assert sorted(order) == ["cat"] * 3 + ["dog"] * 2 + ["eel"]
    images, layout = composer.compose([annotated(i) for i in (3, 1, 2, 0)], rng())
    assert (layout, values(images)) == ("image*4", [30, 10, 20, 0])
    assert CategoryGroup(4, fewest=3).group(keys, rng(1)) != groups
    assert not any("/eel/" in k for g in CategoryGroup(4, fewest=3).group(keys, rng()) for k in g)


@pytest.mark.parametrize(
    "composer",
    [
        Pairs("depth", 4),
        Pairs("masked", 3, annotation_first=True),
        Pairs("depth", 3, crop=0.5),
        MultiAnnotation(("depth", "edges", "normals", "masked"), 16),
        MultiAnnotation(("depth",), 6),
        AnnotatedVideo(4, "mask", strides=(1, 2)),
        AnnotatedVideo(4, "mask", order="grouped", strides=(1, 3)),
    ],
    ids=repr,
)
def test_an_annotation_belongs_to_the_image_it_stands_for(composer):
    """Whatever the seed: in the k-th place of its role, an annotation is that of the k-th image."""
    for seed in range(15):
        generator = rng(seed)
        for group in composer.group(KEYS, generator):
            numbers = [int(key[-1]) for key in group]
            items = [annotated(n) | clip(20) for n in numbers]
            images, layout = composer.compose(items, generator)
            shown = collections.defaultdict(list)
            for role, value in zip(expand_layout(layout), values(images), strict=True):
                is_video = role in ("frame", "mask")
                offset = 100 * (role == "mask") if is_video else ROLES.index(role)
                shown[role].append(value - offset)
            told = list(shown.values())
            assert all(of_role == told[0] for of_role in told), (layout, shown)
            if "frame" not in shown:
                assert told[0] == [10 * n for n in numbers]


def test_too_few_items_for_one_sentence_give_none():
    assert Pairs("depth", 11).group(KEYS, rng()) == []


def test_pairs_ask_with_the_image_unless_the_annotation_comes_first():
    items = [annotated(1), annotated(2)]
    images, layout = Pairs("depth", 2).compose(items, rng())
    assert (layout, values(images)) == ("image,depth,image,depth", [10, 11, 20, 21])
    images, layout = Pairs("masked", 2, annotation_first=True).compose(items, rng())
    assert (layout, values(images)) == ("masked,image,masked,image", [14, 10, 24, 20])


def test_a_pair_is_cropped_by_one_square_window():
    ramp = np.arange(24 * 40 * 3, dtype=np.uint16).reshape(24, 40, 3)
    item = {"image": [ramp], "depth": [ramp + 1]}
    for seed in range(20):
        (image, depth), _ = Pairs("depth", 1, crop=0.5).compose([item], rng(seed))
        np.testing.assert_array_equal(image + 1, depth)
        height, width, _ = image.shape
        assert height == width
        assert 12 <= height <= 24


def test_single_image_without_crop_is_the_whole_image():
    images, layout = SingleImage().compose([annotated(3)], rng())
    assert layout == "image"
    assert images[0].shape == (12, 20, 3)


def test_multi_annotation_shows_the_same_roles_of_every_item_in_one_order():
    composer = MultiAnnotation(("depth", "edges", "normals"), 8)
    sizes = set()
    for seed in range(40):
        for group in composer.group(KEYS, rng(seed)):
            items = [annotated(int(key[-1])) for key in group]
            images, layout = composer.compose(items, rng(seed))
            roles = expand_layout(layout)
            m = len(roles) // len(group)
            sizes.add(m)
            assert len(group) == 8 // m
            assert len(set(roles[:m])) == m >= 2
            assert roles == roles[:m] * len(group)
            expected = [10 * int(k[-1]) + ROLES.index(r) for k in group for r in roles[:m]]
            assert values(images) == expected
    assert sizes == {2, 3, 4}


def test_video_takes_its_strides_from_the_list_and_random_starts():
    composer = Video(n_frames=4, strides=(2, 5))
    seen = {tuple(values(composer.compose([clip(30)], rng(seed))[0])) for seed in range(60)}
    strides = {tuple(np.diff(frames)) for frames in seen}
    assert strides == {(2, 2, 2), (5, 5, 5)}
    assert len({frames[0] for frames in seen}) > 10
    assert composer.compose([clip(30)], rng())[1] == "frame*4"


def test_a_short_clip_shrinks_the_stride_to_the_largest_that_fits():
    for seed in range(10):
        frames = values(Video(n_frames=4, strides=(10,)).compose([clip(8)], rng(seed))[0])
        assert set(np.diff(frames)) == {2}
    assert values(Video(n_frames=4, strides=(10,)).compose([clip(4)], rng())[0]) == [0, 1, 2, 3]


def test_every_start_of_a_clip_is_possible_and_none_beyond_its_end():
    starts = [values(Video(2, (3,)).compose([clip(6)], rng(seed))[0]) for seed in range(50)]
    assert {tuple(frames) for frames in starts} == {(0, 3), (1, 4), (2, 5)}


def test_annotated_video_interleaves_or_groups_the_same_frames():
    images, layout = AnnotatedVideo(2, "mask").compose([clip(2)], rng())
    assert (layout, values(images)) == ("frame,mask,frame,mask", [0, 100, 1, 101])
    images, layout = AnnotatedVideo(2, "mask", order="grouped").compose([clip(2)], rng())
    assert (layout, values(images)) == ("frame*2,mask*2", [0, 1, 100, 101])


def test_either_order_occurs():
    composer = AnnotatedVideo(2, "mask", order="either")
    layouts = {composer.compose([clip(2)], rng(seed))[1] for seed in range(20)}
    assert layouts == {"frame,mask,frame,mask", "frame*2,mask*2"}


def test_a_turntable_goes_around_past_its_last_view():
    item = {"view": [picture(i) for i in range(24)]}
    starts = set()
    for seed in range(60):
        images, layout = Turntable(8).compose([item], rng(seed))
        views = values(images)
        starts.add(views[0])
        assert layout == "view*8"
        assert [(b - a) % 24 for a, b in itertools.pairwise(views)] == [1] * 7
    assert max(starts) > 16, "no sentence wrapped around"


@pytest.mark.parametrize(
    ("composer", "items", "position", "words"),
    [
        (Pairs("pose", 2), [annotated(0), annotated(1)], 0, "no 'pose'; it has depth"),
        (Pairs("depth", 2), [annotated(0), {"image": [picture(0)]}], 1, "no 'depth'"),
        (Video(5, (1,)), [clip(4)], 0, "4 frames, 5 are needed"),
        (AnnotatedVideo(5, "mask"), [clip(4)], 0, "4 frames, 5 are needed"),
        (Turntable(5), [{"view": [picture(0)] * 3}], 0, "3 views, 5 are needed"),
        (
            AnnotatedVideo(1, "mask"),
            [{"frame": [picture(0)] * 2, "mask": [picture(0)]}],
            0,
            "2 frames but 1 of 'mask'",
        ),
    ],
)
def test_an_item_that_cannot_give_its_images_is_named(composer, items, position, words):
    with pytest.raises(Unfit, match=words) as caught:
        composer.compose(items, rng())
    assert caught.value.position == position


@pytest.mark.parametrize(
    "make",
    [
        lambda: SingleImage(crop=0.0),
        lambda: SingleImage(crop=1.5),
        lambda: Pairs("depth", 0),
        lambda: CategoryGroup(0),
        lambda: CategoryGroup(class_of="a+"),
        lambda: CategoryGroup(class_of="(a"),
        lambda: MultiAnnotation((), 8),
        lambda: Video(0),
        lambda: Video(4, ()),
        lambda: Video(4, (0,)),
        lambda: Turntable(0),
    ],
)
def test_impossible_composers_are_refused(make):
    with pytest.raises(UserError):
        make()
