import pickle

import av
import numpy as np
import pytest
from PIL import Image

from data_pipelines import assets
from data_pipelines.annotators import Canny, Holes, Noise, OpticalFlow
from data_pipelines.sources import (
    SOURCES,
    Annotated,
    AnnotatedImages,
    BadItem,
    FrameFolders,
    ImageFolder,
    VideoFolder,
    video_frames,
)
from lvm_jax.errors import UserError


def save(path, value=0, size=(12, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def save_video(path, n_frames, size=(48, 32)):
    """Frame i is grey of level 40 + 16 i; the codec is lossy, by less than half a step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=10)
        stream.width, stream.height = size
        for i in range(n_frames):
            picture = np.full((size[1], size[0], 3), 40 + 16 * i, np.uint8)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode())


def test_image_folder_lists_sorted_relative_keys(tmp_path):
    for name in ("b.png", "a/2.JPG", "a/1.webp", ".hidden.png", ".part/3.png", "notes.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no image")
        else:
            save(tmp_path / name, 50)
    source = ImageFolder(str(tmp_path))
    assert source.keys() == ["a/1.webp", "a/2.JPG", "b.png"]
    (image,) = source.load("a/1.webp")["image"]
    assert image.shape == (8, 12, 3)
    assert image.dtype == np.uint8
    assert abs(int(image.mean()) - 50) <= 2


MADE = {"doom", "dm_control", "drawn", "drawn_clips", "mosaics"}  # they read no files
FOLDERS = sorted(set(SOURCES) - MADE)


@pytest.mark.parametrize("kind", FOLDERS)
def test_empty_and_absent_folders_are_user_errors(kind, tmp_path):
    with pytest.raises(UserError, match="holds no"):
        SOURCES[kind](str(tmp_path)).keys()
    with pytest.raises(UserError, match=r"nowhere is not a folder"):
        SOURCES[kind](str(tmp_path / "nowhere")).keys()


@pytest.mark.parametrize("kind", FOLDERS)
def test_sources_pickle_and_carry_their_licence(kind):
    source = SOURCES[kind]("/data", name="mine", licence="CC0-1.0", origin="a shelf")
    assert pickle.loads(pickle.dumps(source)) == source
    assert (source.name, source.licence, source.origin) == ("mine", "CC0-1.0", "a shelf")
    assert SOURCES[kind]("/data").category in (1, 2, 3, 4, 5)


def test_bad_item_pickles():
    error = pickle.loads(pickle.dumps(BadItem("a/b.png", "is broken")))
    assert (error.key, error.why, str(error)) == ("a/b.png", "is broken", "a/b.png: is broken")


def test_truncated_image_is_a_bad_item(tmp_path):
    save(tmp_path / "ok.png")
    content = (tmp_path / "ok.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    folder = ImageFolder(str(tmp_path))
    assert folder.keys() == ["cut.png", "ok.png", "text.jpg"]
    assert "image" in folder.load("ok.png")
    for key in ("cut.png", "text.jpg"):
        with pytest.raises(BadItem, match=f"^{key}: ") as caught:
            folder.load(key)
        assert caught.value.key == key


def test_large_images_are_brought_down(tmp_path):
    save(tmp_path / "x.png", 200, size=(120, 60))
    assert ImageFolder(str(tmp_path), short_side=30).load("x.png")["image"][0].shape == (30, 60, 3)
    assert ImageFolder(str(tmp_path), short_side=80).load("x.png")["image"][0].shape == (60, 120, 3)
    with pytest.raises(UserError, match="short_side is 0"):
        ImageFolder(str(tmp_path), short_side=0)


def test_annotators_add_roles_that_follow_from_key_and_role(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for name in ("x.png", "y.png"):
        Image.fromarray(noise).save(tmp_path / name)
    roles = (("edges", Canny()), ("masked", Holes()), ("noisy", Noise()))
    source = Annotated(ImageFolder(str(tmp_path), licence="CC0-1.0"), roles)
    item = source.load("x.png")
    assert set(item) == {"image", "edges", "masked", "noisy"}
    assert {images[0].shape for images in item.values()} == {(40, 60, 3)}
    again, other = source.load("x.png"), source.load("y.png")
    for role in item:
        np.testing.assert_array_equal(item[role][0], again[role][0])
    assert (item["masked"][0] != other["masked"][0]).any()
    alone = Annotated(source.source, roles[1:2]).load("x.png")
    np.testing.assert_array_equal(alone["masked"][0], item["masked"][0])
    assert (source.category, source.licence, source.name) == (2, "CC0-1.0", "images")
    assert pickle.loads(pickle.dumps(source)) == source
    with pytest.raises(UserError, match="has 'image' already"):
        Annotated(source.source, (("image", Canny()),)).load("x.png")


def test_annotators_of_a_clip_see_its_frames(tmp_path):
    save_video(tmp_path / "long.mp4", n_frames=5)
    save_video(tmp_path / "one.mp4", n_frames=1)
    source = Annotated(VideoFolder(str(tmp_path)), (("edges", Canny()), ("flow", OpticalFlow())))
    item = source.load("long.mp4")
    assert {role: len(images) for role, images in item.items()} == dict.fromkeys(
        ("frame", "edges", "flow"), 5
    )
    assert source.category == 4
    with pytest.raises(BadItem, match=r"one.mp4: has 1 frame: motion needs 2"):
        source.load("one.mp4")


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_video_frames_come_in_order(suffix, tmp_path):
    save_video(tmp_path / "in" / f"clip.{suffix}", n_frames=11)
    source = VideoFolder(str(tmp_path))
    (key,) = source.keys()
    frames = source.load(key)["frame"]
    assert len(frames) == 11
    assert all(frame.shape == (32, 48, 3) and frame.dtype == np.uint8 for frame in frames)
    np.testing.assert_allclose([frame.mean() for frame in frames], 40 + 16 * np.arange(11), atol=7)


def test_video_limits(tmp_path):
    save_video(tmp_path / "clip.mp4", n_frames=14)
    few = VideoFolder(str(tmp_path), max_frames=3, every=4, short_side=16).load("clip.mp4")["frame"]
    assert [frame.shape for frame in few] == [(16, 24, 3)] * 3
    np.testing.assert_allclose([frame.mean() for frame in few], [40, 104, 168], atol=7)
    with pytest.raises(UserError, match="every is 0"):
        VideoFolder(str(tmp_path), every=0)


def save_grouped_video(path, codec, n_frames, group, b_frames=0):
    """Frame i is grey of level 8 i, with a key frame every `group`."""
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream(codec, rate=10)
        stream.width, stream.height = 48, 32
        stream.gop_size, stream.max_b_frames = group, b_frames
        stream.pix_fmt = "yuv420p"
        for i in range(n_frames):
            picture = np.full((32, 48, 3), 8 * i, np.uint8)
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "codec", "b_frames"),
    [
        ("a.mp4", "mpeg4", 0),
        ("a.mp4", "libx264", 2),
        ("a.mkv", "libx264", 2),
        ("a.webm", "libvpx", 0),
        ("a.avi", "mpeg4", 0),
    ],
)
def test_seeking_gives_the_frames_that_decoding_all_gives(name, codec, b_frames, tmp_path):
    save_grouped_video(tmp_path / name, codec, n_frames=30, group=5, b_frames=b_frames)
    everything = VideoFolder(str(tmp_path)).load(name)["frame"]
    assert len(everything) == 30
    for every, count in ((2, 99), (3, 4), (7, 99), (11, 3), (29, 2), (40, 5)):
        frames = VideoFolder(str(tmp_path), every=every, max_frames=count).load(name)["frame"]
        expected = everything[::every][:count]
        assert len(frames) == len(expected)
        np.testing.assert_array_equal(frames, expected)


def test_seeking_decodes_only_the_groups_that_are_wanted(tmp_path, monkeypatch):
    save_grouped_video(tmp_path / "a.mp4", "libx264", n_frames=30, group=3)
    decoded = []
    visit = video_frames._visit

    class Counting:
        def __init__(self, container):
            self.streams, self.seek, self._container = container.streams, container.seek, container

        def decode(self, stream):
            for frame in self._container.decode(stream):
                decoded.append(frame.pts)
                yield frame

    monkeypatch.setattr(
        video_frames, "_visit", lambda container, *more: visit(Counting(container), *more)
    )
    frames = VideoFolder(str(tmp_path), every=14).load("a.mp4")["frame"]
    np.testing.assert_allclose([f.mean() for f in frames], [0, 112, 224], atol=7)
    assert len(decoded) <= 1 + 3 + 2, "at most 0; 12, 13, 14; 27, 28"


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
@pytest.mark.parametrize("every", [1, 4])
def test_a_video_with_a_broken_tail_gives_the_frames_it_has_or_is_named(name, every, tmp_path):
    save_grouped_video(tmp_path / name, "mpeg4", n_frames=30, group=5)
    content = (tmp_path / name).read_bytes()
    source = VideoFolder(str(tmp_path), every=every)
    whole = source.load(name)["frame"]
    kept = []
    for part in (0.5, 0.7, 0.9):
        (tmp_path / name).write_bytes(content[: int(part * len(content))])
        try:
            frames = source.load(name)["frame"]
        except BadItem:
            continue
        kept.append(len(frames))
        np.testing.assert_array_equal(frames[:-1], whole[: len(frames) - 1])
    assert kept, "no cut gave a frame"
    assert kept == sorted(kept)


def test_sideways_recording_is_turned_upright(tmp_path):
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, :24, 0] = 200  # the left half is red
    with av.open(str(tmp_path / "phone.mp4"), "w") as sink:
        stream = sink.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 48, 32
        stream.set_display_rotation(-90)  # to be shown turned clockwise, as phones write it
        for _ in range(3):
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode())
    frame = VideoFolder(str(tmp_path)).load("phone.mp4")["frame"][0]
    assert frame.shape == (48, 32, 3)
    assert frame[:20, :, 0].mean() > 150  # what was left is above
    assert frame[28:, :, 0].mean() < 50


def test_animation_is_a_video(tmp_path):
    pages = [Image.new("RGB", (20, 10), (50 * i, 0, 0)) for i in range(4)]
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:], duration=100)
    frames = VideoFolder(str(tmp_path)).load("a.gif")["frame"]
    assert len(frames) == 4
    np.testing.assert_allclose([f[..., 0].mean() for f in frames], [0, 50, 100, 150], atol=4)


def test_undecodable_video_is_a_bad_item(tmp_path):
    save_video(tmp_path / "ok.mp4", n_frames=5)
    content = (tmp_path / "ok.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.webm").write_text("not a video")
    (tmp_path / "empty.avi").write_bytes(b"")
    source = VideoFolder(str(tmp_path))
    assert source.keys() == ["cut.mp4", "empty.avi", "ok.mp4", "text.webm"]
    for key in ("cut.mp4", "empty.avi", "text.webm"):
        with pytest.raises(BadItem, match=f"^{key}: "):
            source.load(key)


def test_frame_folders_without_and_with_modalities(tmp_path):
    for i in range(3):
        save(tmp_path / "plain" / f"{i:03d}.png", 10 * i)
        save(tmp_path / "both" / "image" / f"{i:03d}.png", 10 * i)
        save(tmp_path / "both" / "segmentation" / f"{i:03d}.png", 100 + i)
        save(tmp_path / "uneven" / "image" / f"{i:03d}.png")
    save(tmp_path / "uneven" / "depth" / "000.png")
    save(tmp_path / ".half" / "000.png")
    (tmp_path / "bare").mkdir()
    source = FrameFolders(str(tmp_path))
    assert source.keys() == ["bare", "both", "plain", "uneven"]
    assert [f[0, 0, 0] for f in source.load("plain")["frame"]] == [0, 10, 20]
    both = source.load("both")
    assert [f[0, 0, 0] for f in both["segmentation"]] == [100, 101, 102]
    assert [f[0, 0, 0] for f in both["frame"]] == [0, 10, 20]
    views = FrameFolders(str(tmp_path), role="view", category=5).load("plain")
    assert list(views) == ["view"]
    with pytest.raises(BadItem, match=r"uneven: .*1 of depth, 3 of image"):
        source.load("uneven")
    with pytest.raises(BadItem, match=r"bare: .*0 of frame"):
        source.load("bare")
    with pytest.raises(BadItem, match="gone"):
        source.load("gone")
    save(tmp_path / "twice" / "image" / "000.png")
    save(tmp_path / "twice" / "frame" / "000.png")
    with pytest.raises(BadItem, match="twice: has the folders image and frame, which are one role"):
        source.load("twice")


def test_frames_come_in_the_order_of_their_numbers(tmp_path):
    for i in (0, 5, 30, 100):  # by name: 0, 100, 30, 5
        save(tmp_path / "k" / f"frame{i}.png", i)
    frames = FrameFolders(str(tmp_path)).load("k")["frame"]
    assert [f[0, 0, 0] for f in frames] == [0, 5, 30, 100]


def test_annotated_images(tmp_path):
    for role in ("image", "depth", "segmentation"):
        save(tmp_path / "k1" / f"{role}.png", len(role))
    save(tmp_path / "k2" / "image.png")
    source = AnnotatedImages(str(tmp_path))
    assert source.keys() == ["k1", "k2"]
    item = source.load("k1")
    assert {role: images[0][0, 0, 0] for role, images in item.items()} == {
        "image": 5,
        "depth": 5,
        "segmentation": 12,
    }
    depths = AnnotatedImages(str(tmp_path), roles=("image", "depth"))
    assert set(depths.load("k1")) == {"image", "depth"}
    with pytest.raises(BadItem, match=r"k2: has no depth\.png"):
        depths.load("k2")
    save(tmp_path / "k1" / "depth.webp")
    with pytest.raises(BadItem, match=r"k1: has both depth\.png and depth\.webp: remove one"):
        depths.load("k1")
    assert set(AnnotatedImages(str(tmp_path), roles=("image",)).load("k1")) == {"image"}


def test_pack_names_every_file_and_licence():
    items = assets.load_pack()
    on_disk = {
        path.relative_to(assets.ROOT).as_posix()
        for folder in ("photos", "videos")
        for path in (assets.ROOT / folder).iterdir()
    }
    assert {item.file for item in items} == on_disk
    assert len(items) == len(on_disk)
    assert (assets.ROOT / "LICENSES.md").read_text(encoding="utf-8") == assets.licences_table(items)
    free = ("public domain", "CC0-1.0", "CC-BY-", "Apache-2.0", "BSD-", "MIT")
    for item in items:
        assert item.licence.startswith(free), item
        assert "SA" not in item.licence
        assert all((item.subject, item.author, item.origin, item.package)), item
    assert sum(item.path.stat().st_size for item in items) <= 4_000_000


def test_pack_decodes():
    photos = ImageFolder(str(assets.ROOT / "photos"))
    assert len(photos.keys()) >= 60
    for key in photos.keys()[::16]:
        (image,) = photos.load(key)["image"]
        assert min(image.shape[:2]) == 192
    videos = VideoFolder(str(assets.ROOT / "videos"))
    keys = videos.keys()
    assert len(keys) >= 10
    segments = {item.path.name: item.frames for item in assets.load_pack() if item.frames}
    for key in keys:
        frames = videos.load(key)["frame"]
        assert len(frames) == len(range(*segments[key]))
        assert min(frames[0].shape[:2]) == 128
