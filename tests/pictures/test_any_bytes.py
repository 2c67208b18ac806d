"""Whatever bytes a picture file has, the reader gives a picture or a `BadImage`, as an independent reader does."""

import contextlib
import io
import resource
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, chunk, png, transparent
from PIL import Image

from lvm_jax.pictures.decode import BadImage, load_ids, load_image, load_rgba

# Pillow warns of some damages before it raises, or goes on.
pytestmark = pytest.mark.filterwarnings("ignore")
BOUNDED = settings(max_examples=40, deadline=None, derandomize=True, database=None)
LIMIT = 1_000_000  # pixels


def pixels(height=24, width=37):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 7 % 200, y * 9 % 200, (x + y) * 5 % 200], -1).astype(np.uint8)


def encoded(array, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


TURNED = Image.Exif()
TURNED[0x0112] = 6
WHOLE = {
    "png": encoded(pixels(), "PNG", exif=TURNED),
    "png of few bits": png(pixels()[..., 0] % 16, 4, GREY, transparent(3), interlaced=True),
    "png of 16 bits": png(pixels().astype(int) * 257, 16, RGB, transparent(0, 0, 0)),
    "palette": png(
        pixels()[..., 0] % 4, 2, PALETTE, chunk(b"PLTE", bytes(range(12))), chunk(b"tRNS", b"\0\7")
    ),
    "jpeg": encoded(pixels(), "JPEG", exif=TURNED),
    "progressive": encoded(pixels(), "JPEG", progressive=True),
    "webp": encoded(pixels(), "WEBP", exif=TURNED),
    "lossless": encoded(pixels(), "WEBP", lossless=True),
    "bmp": encoded(pixels(), "BMP"),
    "gif": encoded(
        pixels()[..., 0], "GIF", save_all=True, append_images=[Image.new("L", (37, 24))]
    ),
    "tiff": encoded(pixels(), "TIFF", exif=TURNED),
    "deflated": encoded(pixels()[..., 0], "TIFF", compression="tiff_deflate"),
    "avif": encoded(pixels(), "AVIF"),
    "jpeg 2000": encoded(pixels(), "JPEG2000"),
    "pgm": b"P5 37 24 7\n" + (pixels()[..., 0] % 8).tobytes(),
    "ico": encoded(pixels(), "ICO"),
    "tga": encoded(pixels(), "TGA"),
    "dds": encoded(pixels(), "DDS"),
    "qoi": encoded(pixels(), "QOI"),
    "icns": encoded(pixels(32, 32), "ICNS"),
}


def try_all(content):
    """Every reader gives an array within the limit, or a `BadImage` of one line that people can read."""
    for load, channels in ((load_image, (3,)), (load_rgba, (4,)), (load_ids, ())):
        try:
            loaded = load(content, LIMIT)
        except BadImage as error:
            refused = str(error)
        else:
            refused = ""
            assert loaded.shape[2:] == channels
            assert loaded.shape[0] * loaded.shape[1] <= LIMIT
            assert loaded.dtype == (np.int32 if load is load_ids else np.uint8)
        assert refused.isprintable()


@pytest.mark.parametrize("kind", WHOLE)
@BOUNDED
@given(data=st.data())
def test_damaged_files_are_pictures_or_bad_images(kind, data):
    content = bytearray(WHOLE[kind])
    # Most damage that matters is in the headers.
    places = st.integers(0, min(200, len(content) - 1)) | st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.none() | places)
    try_all(bytes(content[:cut]))


@BOUNDED
@given(
    head=st.sampled_from(
        [
            b"",
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"RIFF\x40\0\0\0WEBP",
            b"BM",
            b"II*\0",
            b"MM\0*",
            b"P5 ",
        ]
    ),
    rest=st.binary(max_size=200),
)
def test_noise_is_a_bad_image(head, rest):
    try_all(head + rest)


@BOUNDED
@given(
    depth=st.sampled_from([1, 2, 4, 8, 16]),
    colour=st.sampled_from([GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA]),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    interlaced=st.booleans(),
    clear=st.booleans(),
    seed=st.integers(0, 999),
)
def test_every_kind_of_png_is_laid_on_white(depth, colour, size, interlaced, clear, seed):
    """Against a plain reading of the specification's rules on the samples themselves."""
    if (depth < 8 and colour in (RGB, GREY_ALPHA, RGB_ALPHA)) or (
        depth == 16 and colour == PALETTE
    ):
        return  # PNG has none
    rng, most = np.random.default_rng(seed), 2**depth - 1
    channels = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}[colour]
    # Few levels, so that some pixels are transparent and others only nearly so.
    levels = rng.integers(0, most + 1, 3)
    samples = levels[rng.integers(0, 3, (*size, channels))]
    chunks = []
    if colour == PALETTE:
        table, opacities = rng.integers(0, 256, (most + 1, 3)), rng.integers(0, 256, most + 1)
        chunks = [chunk(b"PLTE", bytes(table.ravel().tolist()))]
        chunks += [chunk(b"tRNS", bytes(opacities.tolist()))] * clear
        shown = table[samples[..., 0]]
        alpha = opacities[samples[..., 0]] if clear else np.full(size, 255)
    else:
        has_alpha = colour in (GREY_ALPHA, RGB_ALPHA)
        colours = samples[..., :-1] if has_alpha else samples
        shown = np.broadcast_to(colours * 255 / most, (*size, 3))
        alpha = samples[..., -1] * 255 / most if has_alpha else np.full(size, 255)
        if clear and not has_alpha:
            key = colours[0, 0]
            chunks = [transparent(*key.tolist())]
            alpha = np.where((colours == key).all(-1), 0, 255)
    content = png(samples, depth, colour, *chunks, interlaced=interlaced)
    part = alpha[..., None] / 255
    np.testing.assert_allclose(load_image(content), shown * part + 255 * (1 - part), atol=2)
    if colour in (GREY, PALETTE):
        np.testing.assert_array_equal(load_ids(content), samples[..., 0])


@BOUNDED
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF"]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    grey=st.booleans(),
    options=st.sampled_from([{}, {"quality": 70}]),
    seed=st.integers(0, 999),
)
def test_plain_pictures_are_what_opencv_reads(kind, size, grey, options, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    content = encoded(
        picture[..., 0] if grey else picture,
        kind,
        **({} if kind in ("PNG", "BMP", "TIFF") else options),
    )
    other = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    # Decoders of lossy files round in different places.
    difference = np.abs(load_image(content).astype(int) - other)
    assert difference.max() <= (0 if kind in ("PNG", "BMP", "TIFF") else 4)


def claims(width, height):
    """Small files that claim to be large."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, GREY, 0, 0, 0))
    yield png([[0]], 8, GREY).replace(png([[0]], 8, GREY)[8:33], header)
    jpeg = encoded(pixels(), "JPEG")
    yield jpeg.replace(struct.pack(">HH", 24, 37), struct.pack(">HH", height, width))
    progressive = encoded(pixels(), "JPEG", progressive=True)
    yield progressive.replace(struct.pack(">HH", 24, 37), struct.pack(">HH", height, width))
    bmp = encoded(pixels(), "BMP")
    yield bmp.replace(struct.pack("<II", 37, 24), struct.pack("<II", width, height))
    gif = encoded(pixels()[..., 0], "GIF")
    yield gif.replace(struct.pack("<HH", 37, 24), struct.pack("<HH", width, height))
    yield f"P5 {width} {height} 255\n".encode() + b"\0" * 100
    lossless = bytearray(encoded(pixels(), "WEBP", lossless=True))
    bits = min(width, 16384) - 1 | (min(height, 16384) - 1) << 14
    lossless[21:25] = struct.pack("<I", bits)  # behind the byte 0x2f; the 4 upper bits are flags
    yield bytes(lossless)


@pytest.mark.parametrize("size", [(12_000, 12_000), (30_000, 30_000), (65_000, 65_000)])
def test_a_claimed_size_is_checked_before_it_takes_memory(size):
    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = peak()
    for content in claims(*size):
        for load in (load_image, load_rgba, load_ids, lambda x: load_image(x, enough=512)):
            with contextlib.suppress(BadImage):  # a JPEG that ends early is grey from there on
                assert load(content).shape[0] < 2048
    # KiB: the coefficients of the progressive JPEG of 144 megapixels, the only one that has to be read.
    assert peak() - before < 600 << 10
