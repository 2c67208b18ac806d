"""What a video file may hold: frames come as players show them, and whatever cannot be shown is a bad item."""

import io
import itertools
import struct

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.sources import BadItem, VideoFolder
from data_pipelines.sources.shown_frames import to_rgb
from data_pipelines.sources.video_frames import every_nth, open_video, video_stream

QUARTERS = np.zeros((32, 48, 3), np.uint8)
QUARTERS[:16, :24] = (200, 0, 0)
QUARTERS[:16, 24:] = (0, 200, 0)
QUARTERS[16:, :24] = (0, 0, 200)


def video(pictures, form="mp4", codec="mpeg4", pix_fmt="yuv420p", group=4, times=None, **metadata):
    """The bytes of a video of pictures (H, W, 3 or 4)."""
    target = io.BytesIO()
    with av.open(target, "w", format=form) as sink:
        sink.metadata.update(metadata)
        stream = sink.add_stream(codec, rate=10)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.gop_size = pix_fmt, group
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(
                picture, format="rgb24" if picture.shape[2] == 3 else "rgba"
            )
            if times:
                frame.pts = times[i]
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode())
    return target.getvalue()


def greys(count, size=(32, 48)):
    return [np.full((*size, 3), 8 * i, np.uint8) for i in range(count)]


def shown(tmp_path, content, name="a.mp4", **options):
    (tmp_path / name).write_bytes(content)
    return VideoFolder(str(tmp_path), **options).load(name)["frame"]


def with_matrix(content, a, b, c, d):
    start = content.index(b"tkhd") + 4 + 40
    matrix = [round(65536 * x) for x in (a, b, 0, c, d, 0, 0, 0)]
    return content[:start] + struct.pack(">9i", *matrix, 1 << 30) + content[start + 36 :]


def moved(picture, a, b, c, d):
    """Pixel (x, y) goes to (a x + c y, b x + d y), and all of them to where the least x and y are 0."""
    places = {
        (a * x + c * y, b * x + d * y): picture[y, x] for y, x in np.ndindex(picture.shape[:2])
    }
    left, top = (min(place[i] for place in places) for i in (0, 1))
    target = np.zeros((picture.shape[:: 1 if a else -1] if a else (48, 32, 3)), np.uint8)
    for (x, y), colour in places.items():
        target[y - top, x - left] = colour
    return target


EIGHT = [
    matrix
    for one, other in itertools.product((1, -1), repeat=2)
    for matrix in ((one, 0, 0, other), (0, one, other, 0))
]


@pytest.mark.parametrize("matrix", EIGHT)
@pytest.mark.parametrize("every", [1, 5])
def test_all_eight_display_matrices_are_applied_seeking_or_not(matrix, every, tmp_path):
    frames = shown(tmp_path, with_matrix(video([QUARTERS] * 11), *matrix), every=every)
    assert len(frames) == (11 if every == 1 else 3)
    expected = moved(QUARTERS, *matrix)
    for frame in frames:
        assert frame.shape == expected.shape
        # Edges blur in the codec; a wrong orientation moves whole quarters.
        assert (np.abs(frame.astype(int) - expected) > 40).mean() < 0.05


def test_matrices_of_scale_and_a_degree_are_upright_and_a_skew_one_is_named(tmp_path):
    content = video([QUARTERS] * 2)
    plain = shown(tmp_path, content)
    for matrix in ((2, 0, 0, 2), (1, 0.01, -0.01, 1), (0, 0, 0, 0)):
        np.testing.assert_array_equal(shown(tmp_path, with_matrix(content, *matrix)), plain)
    for matrix in ((0.87, 0.5, -0.5, 0.87), (1, 0, 0, 0), (1, 0.5, 0, 1)):
        with pytest.raises(BadItem, match=r"a.mp4: has the display matrix .*: encode the video"):
            shown(tmp_path, with_matrix(content, *matrix))


@pytest.mark.parametrize("short_side", [256, 16])
def test_alpha_is_composited_on_white(short_side, tmp_path):
    picture = np.zeros((32, 48, 4), np.uint8)
    picture[:, :24] = (200, 0, 0, 255)
    picture[:, 24:] = (0, 0, 200, 0)
    content = video([picture] * 2, "mov", "qtrle", "argb")
    frame = shown(tmp_path, content, "a.mov", short_side=short_side)[1]
    third = frame.shape[1] // 3
    assert (frame[:, :third] == (200, 0, 0)).all()
    assert (frame[:, -third:] == 255).all()
    pages = [Image.new("RGBA", (20, 10), (50 * i, 0, 0, 255)) for i in range(3)]
    for page in pages:
        page.paste((0, 0, 0, 0), (10, 0, 20, 10))
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:], disposal=2)
    frames = VideoFolder(str(tmp_path), short_side=short_side).load("a.gif")["frame"]
    assert [tuple(frame[5, 2]) for frame in frames] == [(50 * i, 0, 0) for i in range(3)]
    assert all((frame[:, 12:] == 255).all() for frame in frames)


@pytest.mark.parametrize("size", [(33, 47), (1, 9), (17, 2)])
def test_odd_sizes_lose_no_line(size, tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(3)]
    frames = shown(tmp_path, video(pictures, "matroska", "ffv1", "bgr0"), "a.mkv")
    np.testing.assert_array_equal(frames, pictures)


def test_frames_of_a_variable_rate_are_counted_not_timed(tmp_path):
    times = [0, 1, 2, 10, 11, 30, 31, 32, 60, 61, 90]
    content = video(greys(11), "matroska", times=times)
    everything = shown(tmp_path, content, "a.mkv")
    assert len(everything) == 11
    np.testing.assert_array_equal(shown(tmp_path, content, "a.mkv", every=3), everything[::3])


def test_missing_times_are_no_obstacle(tmp_path):
    content = video(greys(11), "m4v")  # a bare stream, without a container
    everything = shown(tmp_path, content, "a.m4v")
    assert len(everything) == 11
    np.testing.assert_array_equal(shown(tmp_path, content, "a.m4v", every=3), everything[::3])


def with_cover(n_frames):
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as sink:
        cover = sink.add_stream("mjpeg", rate=10)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        stream = sink.add_stream("mpeg4" if n_frames else "aac", rate=10 if n_frames else 8000)
        if n_frames:
            stream.width, stream.height = 48, 32
        sink.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))))
        sink.mux(cover.encode())
        if n_frames:
            for picture in greys(n_frames):
                sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        else:
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate = 8000
            sink.mux(stream.encode(sound))
        sink.mux(stream.encode())
    return target.getvalue()


@pytest.mark.parametrize("every", [1, 2])
def test_a_cover_is_no_video(every, tmp_path):
    frames = shown(tmp_path, with_cover(6), every=every)
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * len(range(0, 6, every))
    with pytest.raises(BadItem, match=r"a.mp4: holds no video stream"):
        shown(tmp_path, with_cover(0), every=every)


def test_texts_in_another_encoding_are_no_obstacle(tmp_path):
    content = video(greys(3), "avi", title="Cafe!")
    assert b"Cafe!" in content
    assert len(shown(tmp_path, content.replace(b"Cafe!", b"Caf\xe9!"), "a.avi")) == 3


def test_a_playlist_leads_to_no_other_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.mp4").write_bytes(video(greys(3)))
    with pytest.raises(BadItem, match=r"^a.mp4: cannot be decoded after 0 frames"):
        shown(tmp_path, b"ffconcat version 1.0\nfile secret.mp4\n")


def test_a_frame_beyond_the_limit_is_refused_before_it_takes_memory(tmp_path):
    content = video(greys(2), "avi", "rawvideo", "bgr24")
    # AVI tells the size twice: in its main header and in the stream's BITMAPINFOHEADER.
    place = content.index(b"strf") + 8 + 4
    huge = content[:place] + struct.pack("<ii", 20000, 10000) + content[place + 8 :]
    with pytest.raises(
        BadItem, match=r"a.avi: has frames of 20000x10000, more than 80000000 pixels"
    ):
        shown(tmp_path, huge, "a.avi")


@pytest.mark.parametrize("codec", ["mpeg4", "libx264", "libvpx"])
def test_what_is_read_equals_a_full_decode(codec):
    content = video(greys(23), "matroska", codec)
    with open_video(content) as container:
        everything = [to_rgb(frame, 256) for frame in container.decode(video_stream(container))]
    assert len(everything) == 23
    for every in (1, 2, 7):
        frames = [to_rgb(frame, 256) for frame in every_nth(content, every, 99)]
        np.testing.assert_array_equal(frames, everything[::every])


WHOLE = {
    "a.mp4": video([QUARTERS] * 6),
    "a.mkv": video([QUARTERS] * 6, "matroska", "libx264"),
    "a.avi": video([QUARTERS] * 6, "avi", "mjpeg", "yuvj420p"),
    "a.webm": video([QUARTERS] * 6, "webm", "libvpx"),
}


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_whatever_is_damaged_only_a_bad_item_leaves(name, tmp_path):
    whole = WHOLE[name]
    changes = st.lists(
        st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=6
    )

    @settings(max_examples=40, derandomize=True, deadline=None)
    @given(changes, st.integers(0, len(whole)), st.booleans())
    def damage(changes, size, cut):
        content = bytearray(whole)
        for place, value in changes:
            content[place] = value
        for every in (1, 2):
            try:
                frames = shown(
                    tmp_path, bytes(content[:size] if cut else content), name, every=every
                )
            except BadItem as error:
                assert error.key == name  # noqa: PT017 - whether it is bad depends on the damage
                continue
            assert all(frame.dtype == np.uint8 and frame.ndim == 3 for frame in frames)

    damage()
