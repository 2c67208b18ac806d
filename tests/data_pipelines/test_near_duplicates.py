"""Near-duplicates: which copies are found, which stay, and that the search in bands misses none."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image
from pipe_fakes import FakePhotos, FakeVideos

from data_pipelines import assets
from data_pipelines.near_duplicates import (
    duplicates_of_sets,
    find_duplicates,
    hash_items,
    perceptual_hash,
)
from data_pipelines.sources import ImageFolder
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import load_image


def bits(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def test_copies_of_photographs_are_near_and_other_photographs_are_not():
    source = ImageFolder(str(assets.ROOT / "photos"))
    photos = [source.load(key)["image"][0] for key in source.keys()[::8]]
    hashes = [perceptual_hash(photo) for photo in photos]
    for photo, mine in zip(photos, hashes, strict=True):
        small = Image.fromarray(photo).resize((150, 100), Image.Resampling.BICUBIC)
        target = io.BytesIO()
        small.save(target, "JPEG", quality=70)
        assert bits(perceptual_hash(load_image(target.getvalue())), mine) <= 4
        assert bits(perceptual_hash(np.round(photo * 0.7).astype(np.uint8)), mine) <= 4
        assert bits(perceptual_hash(photo[:, ::-1]), mine) > 10
    assert min(bits(a, b) for a, b in itertools.combinations(hashes, 2)) >= 16


def test_the_bits_are_the_frequencies_above_their_median():
    grey = np.full((40, 60, 3), 90, np.uint8)
    assert perceptual_hash(grey) == 1 << 63
    wave = np.cos(np.pi * 3 * (np.arange(320) + 0.5) / 320)[None, :, None]
    picture = np.round(128 + 100 * np.tile(wave, (320, 1, 3))).astype(np.uint8)
    assert perceptual_hash(picture) >> 60 & 1  # the third along a row


def test_bands_find_exactly_the_pairs_that_a_full_search_finds():
    rng = np.random.default_rng(0)
    base = [int.from_bytes(rng.bytes(8), "big") for _ in range(40)]
    hashes = {}
    for i in range(200):
        value = base[i % 40]
        for bit in rng.choice(64, rng.integers(0, 9), replace=False):
            value ^= 1 << int(bit)
        hashes[f"{rng.integers(10**9):09d}"] = (value,)
    for distance in (0, 1, 3, 8, 16):
        stay, gone = [], {}
        for key in sorted(hashes):
            near = [o for o in stay if bits(hashes[key][0], hashes[o][0]) <= distance]
            if near:
                gone[key] = near[0]
            else:
                stay.append(key)
        assert find_duplicates(hashes, distance) == gone
        assert gone or distance == 0
    for wrong in (-1, 17):
        with pytest.raises(UserError, match=f"near_duplicates is {wrong}"):
            find_duplicates(hashes, wrong)
        with pytest.raises(UserError, match=f"near_duplicates is {wrong}"):
            duplicates_of_sets(unread(), wrong, 1)


def unread():
    """Readers of which none may be asked for."""
    yield pytest.fail("decodes before it looks at the distance")


def test_clips_are_near_only_if_all_their_frames_are():
    one, two, three = (0, 1, 2), (0, 1, 2**40 - 1), (0, 1)
    assert find_duplicates({"a": one, "b": two, "c": three, "d": one}, 2) == {"d": "a"}


def test_a_set_is_read_once_by_whichever_source_has_a_key_and_bad_items_are_left_to_the_pipeline():
    photos = FakePhotos(count=6, bad=("photo002.png",))
    hashes = hash_items(photos, photos.keys(), threads=2)
    assert sorted(hashes) == [k for k in photos.keys() if k != "photo002.png"]  # noqa: SIM118
    assert all(len(of_item) == 1 for of_item in hashes.values())
    assert len(hash_items(FakeVideos(), ["clip1"], threads=1)["clip1"]) == 3
    readers = [
        ("photos", photos, photos.keys()),
        ("photos", FakePhotos(bad=photos.keys()), photos.keys()[:2]),
    ]
    assert duplicates_of_sets(readers, 0, threads=1) == {"photos": {}}
