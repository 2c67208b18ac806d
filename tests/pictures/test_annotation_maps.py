"""What is drawn by a convention is read back, up to the rounding of 8 bits and some noise."""

import numpy as np
import pytest

from lvm_jax.errors import UserError
from lvm_jax.pictures import annotation_maps as maps


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_palette_colours_are_far_apart():
    p = maps.PALETTE.astype(float)
    distance = np.linalg.norm(p[:, None] - p[None], axis=-1) + 1e3 * np.eye(len(p))
    assert distance.min() > 60


def test_larger_palettes_extend_smaller_ones_and_stay_apart():
    p = maps.palette(256)
    np.testing.assert_array_equal(p[:17], maps.PALETTE)
    np.testing.assert_array_equal(p[:92], maps.palette(92))
    distance = np.linalg.norm(p[:, None].astype(float) - p[None], axis=-1) + 1e3 * np.eye(256)
    assert distance.min() > 38
    for n_ids in (2, 21, 151, 256):
        ids = rng().integers(0, n_ids, (9, 11))
        noisy = maps.ids_to_rgb(ids, n_ids).astype(int) + rng(1).integers(-10, 11, (9, 11, 3))
        noisy = np.clip(noisy, 0, 255).astype(np.uint8)
        np.testing.assert_array_equal(maps.rgb_to_ids(noisy, n_ids), ids)
    for wrong in (1, 257):
        with pytest.raises(UserError, match=f"n_ids is {wrong}"):
            maps.palette(wrong)


def test_ids_survive_colours_and_noise():
    ids = np.arange(len(maps.PALETTE)).reshape(1, -1)
    rgb = maps.ids_to_rgb(ids)
    np.testing.assert_array_equal(maps.rgb_to_ids(rgb), ids)
    noise = np.random.default_rng(0).integers(-17, 18, rgb.shape)
    noisy = np.clip(rgb.astype(int) + noise, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(maps.rgb_to_ids(noisy), ids)
    assert maps.rgb_to_ids(rgb, n_ids=3).max() == 2


def test_an_id_without_a_colour_of_its_own_is_an_error_unless_colours_may_repeat():
    for ids, n_ids, wrong in (([17], 17, 17), ([-1, 3], 17, -1), ([0, 21], 21, 21)):
        with pytest.raises(UserError, match=f"id {wrong} has no colour: n_ids is {n_ids}"):
            maps.ids_to_rgb(np.array(ids), n_ids)
    assert maps.cycled(np.array([0, 16, 17, 32, 33])).tolist() == [0, 16, 1, 16, 1]
    assert maps.ids_to_rgb(np.zeros((0, 3), np.int32)).shape == (0, 3, 3)


def test_depth_survives_grey():
    depth = np.linspace(maps.DEPTH_NEAR, maps.DEPTH_FAR, 999, dtype=np.float32)[None]
    rgb = maps.depth_to_rgb(depth)
    assert (np.diff(rgb[0, :, 0].astype(int)) <= 0).all()
    half_level = (maps.DEPTH_FAR - maps.DEPTH_NEAR) / 255 / 2
    np.testing.assert_allclose(maps.rgb_to_depth(rgb), depth, atol=half_level * 1.01)
    outside = maps.depth_to_rgb(np.array([[0.1, 99.0, np.inf]], np.float32))
    assert outside[0, :, 0].tolist() == [255, 0, 0]


def test_normals_survive_colours():
    normals = rng().normal(size=(20, 20, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[0] = 0
    back = maps.rgb_to_normals(maps.normals_to_rgb(normals))
    np.testing.assert_allclose(back, normals, atol=0.01)
    assert maps.normals_to_rgb(np.zeros((1, 1, 3))).tolist() == [[[128, 128, 128]]]


def test_flow_survives_colours_and_is_cut_at_its_scale():
    flow = rng().uniform(-0.125, 0.125, (13, 7, 2)).astype(np.float32)
    back = maps.rgb_to_flow(maps.flow_to_rgb(flow))
    np.testing.assert_allclose(back, flow, atol=0.125 / 255 * 1.01)
    fast = maps.rgb_to_flow(maps.flow_to_rgb(np.array([[[0.5, -0.5]]])))
    np.testing.assert_allclose(fast, [[[0.125, -0.125]]], atol=1e-6)
    still = maps.flow_to_rgb(np.zeros((1, 1, 2)))
    np.testing.assert_allclose(maps.rgb_to_flow(still), 0, atol=0.125 / 255 * 1.01)
    coarse = maps.rgb_to_flow(maps.flow_to_rgb(flow * 4, largest=0.5), largest=0.5)
    np.testing.assert_allclose(coarse, flow * 4, atol=0.5 / 255 * 1.01)


def test_the_nearest_colour_is_that_of_the_smallest_distance():
    rgb, colours = (
        rng(i).integers(0, 256, (n, 3), dtype=np.uint8) for i, n in enumerate((999, 40))
    )
    distance = ((rgb[:, None].astype(int) - colours) ** 2).sum(-1)
    np.testing.assert_array_equal(maps.nearest(rgb, colours), distance.argmin(-1))
    assert maps.nearest(rgb, np.repeat(colours[:1], 3, axis=0)).max() == 0


def test_masks_are_what_is_nearer_to_white():
    rgb = rng().integers(96, 160, (40, 40, 3), dtype=np.uint8)
    black_or_white = maps.nearest(rgb, [(0, 0, 0), (255, 255, 255)])
    np.testing.assert_array_equal(maps.rgb_to_mask(rgb), black_or_white == 1)
    mask = rgb[..., 0] > 128
    np.testing.assert_array_equal(maps.rgb_to_mask(maps.mask_to_rgb(mask)), mask)


def test_regions_come_largest_first_with_their_box_and_centre():
    mask = np.zeros((8, 12), bool)
    mask[1:3, 1:3] = mask[3, 3] = True  # joined by a corner
    mask[5:8, 6:11] = True
    assert maps.regions(mask) == [
        (15, (6, 5, 11, 8), (8.5, 6.5)),
        (5, (1, 1, 4, 4), (pytest.approx(2.3), pytest.approx(2.3))),
    ]
    assert [region.area for region in maps.regions(mask, neighbours=4)] == [15, 4, 1]
    assert maps.regions(np.zeros((3, 3), bool)) == []
