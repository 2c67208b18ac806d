"""Decodes chosen frames of a video, and only the groups of pictures that hold one."""

import bisect
import io
from collections.abc import Iterator

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from lvm_jax.errors import BadData
from lvm_jax.pictures.decode import MAX_PIXELS


class BadVideo(BadData, ValueError):
    """The file has no video stream, lacks a frame that it announces, or cannot be shown upright."""


def open_video(content: bytes) -> InputContainer:
    """Opens a file for reading. It can refer to no other file, and its texts may be in any encoding.

    A decoder refuses frames of more than `MAX_PIXELS` before it takes memory for them.
    """
    return av.open(
        io.BytesIO(content),
        "r",
        metadata_errors="replace",
        # A playlist that calls itself a video would be followed to any file or address.
        container_options={"protocol_whitelist": "none"},
    )


def video_stream(container: InputContainer) -> VideoStream:
    """The first video stream that is no cover or thumbnail.

    Raises:
      BadVideo: there is none, or its frames have more than `MAX_PIXELS`.
    """
    still = Disposition.attached_pic | Disposition.timed_thumbnails
    for stream in container.streams.video:
        if stream.disposition & still:
            continue
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            raise BadVideo(f"has frames of {width}x{height}, more than {MAX_PIXELS} pixels")
        # Frames can grow in mid-stream.
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        return stream
    raise BadVideo("holds no video stream")


def every_nth(content: bytes, every: int, count: int) -> Iterator[av.VideoFrame]:
    """Frames 0, every, 2 every, ... of a file's first video stream, at most `count`.

    With `every` above 1, a first pass reads the packets without decoding, to learn when each frame is shown and where a
    decoder can start. Then only the groups of pictures (from one key frame to the next) that hold a wanted frame are
    decoded, up to the last of them. If the packets do not say, the whole file is decoded.

    Raises:
      BadVideo: see its docstring.
      av.error.FFmpegError: a wanted frame, or one before it in its group, is damaged.
    """
    times = _frame_times(content) if every > 1 else None
    with open_video(content) as container:
        if times is None:
            yield from _from_end_to_end(container, every, count)
            return
        shown, begins = times
        wanted = shown[::every][:count]
        groups = [bisect.bisect_right(begins, time) - 1 for time in wanted]
        start = 0
        for i in range(1, len(wanted) + 1):
            # Decoding on into the next group is cheaper than seeking to it.
            if i == len(wanted) or groups[i] > groups[i - 1] + 1:
                yield from _visit(container, begins[groups[start]], wanted[start:i])
                start = i


def _frame_times(content: bytes) -> tuple[list[int], list[int]] | None:
    """Times of all frames, and of those at which a decoder can start; None if the packets do not say."""
    shown, begins = [], []
    with open_video(content) as container:
        for packet in container.demux(video_stream(container)):
            if not packet.size:  # the last one only flushes the decoder
                continue
            if packet.pts is None or packet.is_discard or packet.is_corrupt:
                return None
            shown.append(packet.pts)
            if packet.is_keyframe:
                begins.append(packet.pts)
    # Packets come in decoding order; frames that refer to later ones are shown earlier.
    shown.sort()
    begins.sort()
    # Otherwise times do not identify frames, or no decoder can start before the first one.
    if len(set(shown)) < len(shown) or shown[:1] != begins[:1]:
        return None
    return shown, begins


def _visit(container: InputContainer, begin: int, wanted: list[int]) -> Iterator[av.VideoFrame]:
    """The frames shown at the times `wanted`, decoded from the key frame at `begin`."""
    stream = video_stream(container)
    container.seek(begin, stream=stream)
    found = 0
    for frame in container.decode(stream):
        if frame.pts == wanted[found]:
            yield frame
            found += 1
            if found == len(wanted):
                return
    raise BadVideo(f"has no frame at {wanted[found]}, which its packets announce")


def _from_end_to_end(container: InputContainer, every: int, count: int) -> Iterator[av.VideoFrame]:
    for index, frame in enumerate(container.decode(video_stream(container))):
        if index % every == 0:
            yield frame
            # Here, not at the next kept frame: decoding up to that one would be in vain.
            if index + every >= every * count:
                return
