"""Picture files that Pillow does not write, byte by byte."""

import struct
import zlib

import numpy as np

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
_ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(samples, depth: int, colour: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A PNG of samples (H, W) or (H, W, C), each of `depth` bits."""
    samples = np.asarray(samples)
    samples = samples.reshape(*samples.shape[:2], _SAMPLES[colour])
    height, width = samples.shape[:2]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    lines = b"".join(_lines(samples[y::dy, x::dx], depth) for y, x, dy, dx in passes)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    body = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(lines)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(body) + chunk(b"IEND", b"")


def transparent(*samples: int) -> bytes:
    """The chunk that names one level, or one colour."""
    return chunk(b"tRNS", struct.pack(f">{len(samples)}H", *samples))


def _lines(samples: np.ndarray, depth: int) -> bytes:
    if not samples.size:
        return b""
    flat = samples.reshape(len(samples), -1)
    if depth == 16:
        packed = flat.astype(">u2").view(np.uint8).reshape(len(flat), -1)
    else:
        bits = flat[..., None] >> np.arange(depth - 1, -1, -1) & 1
        packed = np.packbits(bits.reshape(len(flat), -1).astype(np.uint8), axis=-1)
    return b"".join(b"\0" + line.tobytes() for line in packed)  # filter 0 before each line
