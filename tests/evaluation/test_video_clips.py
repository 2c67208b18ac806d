"""A clip is frames in a row, the same for the same seed, and its sentence holds their codes in order."""

import numpy as np

from lvm_jax.evaluation.lvm.video_clips import clip_of, tokenize_clip, tokenize_clips
from lvm_jax.inference.codec import encode_images

FRAMES = [np.full((20, 12, 3), n, np.uint8) for n in range(10)]


def test_a_clip_is_in_a_row_and_begins_where_the_seed_says():
    starts = set()
    for seed in range(40):
        clip = clip_of(FRAMES, 4, seed=(0, seed))
        values = [int(frame[0, 0, 0]) for frame in clip]
        assert values == list(range(values[0], values[0] + 4))
        starts.add(values[0])
        again = clip_of(FRAMES, 4, seed=(0, seed))
        assert [int(frame[0, 0, 0]) for frame in again] == values
    assert starts == set(range(7))
    assert clip_of(FRAMES, 11, seed=(0, 0)) is None


def test_the_sentence_of_a_clip(vqgan):
    noise = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    sentence = tokenize_clip(vqgan, list(noise), "climbing/a.mp4")
    assert list(sentence.roles) == ["frame"] * 3
    assert np.array_equal(sentence.codes, encode_images(vqgan, noise))
    assert tokenize_clip(vqgan, FRAMES[:2], "odd sizes").codes.shape == (2, 4)


def test_videos_without_a_clip_are_counted_and_change_no_other_clip(vqgan):
    noise = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
    videos = [("a", 0, noise), ("broken", 1, None), ("short", 2, noise[:3]), ("b", 3, noise)]
    clips = tokenize_clips(vqgan, videos, 4, seed=2)
    assert [sentence.key for sentence in clips.sentences] == ["a", "b"]
    assert (clips.unreadable, clips.too_short) == (1, 1)
    (alone,) = tokenize_clips(vqgan, videos[3:], 4, seed=2).sentences
    assert np.array_equal(alone.codes, clips.sentences[1].codes)
