"""What a file's samples mean: depth, transparency, orientation and colour spaces, one case of each."""

import io
import struct

import cv2
import numpy as np
import pytest
from picture_files import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, chunk, png, transparent
from PIL import Image, ImageCms

from lvm_jax.errors import UserError
from lvm_jax.inference.prompting import as_rgb
from lvm_jax.pictures.decode import BadImage, load_ids, load_image, load_rgba, to_rgb


def picture(height=20, width=30):
    """A smooth RGB picture."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 7 % 200, y * 9 % 200, (x + y) % 200], -1).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(*entries, order="<"):
    """An EXIF block of (tag, type, value of at most 4 bytes)."""
    body = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1) + value.ljust(4, b"\0")
        for tag, kind, value in entries
    )
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + mark + struct.pack(f"{order}IH", 8, len(entries)) + body + b"\0" * 4


def short(value, order="<"):
    return struct.pack(f"{order}H", value)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_ids_are_the_levels_that_the_file_stores(depth, interlaced):
    levels = np.arange(13 * 9).reshape(9, 13) * 523 % 2**depth
    ids = load_ids(png(levels, depth, GREY, transparent(1), interlaced=interlaced))
    np.testing.assert_array_equal(ids, levels)
    assert ids.dtype == np.int32
    if depth < 16:
        palette = chunk(b"PLTE", bytes(i * 7 % 256 for i in range(3 * 2**depth)))
        indexed = png(levels, depth, PALETTE, palette, interlaced=interlaced)
        np.testing.assert_array_equal(load_ids(indexed), levels)


@pytest.mark.parametrize("kind", ["P2", "P5"])
@pytest.mark.parametrize("maximum", [7, 20, 255, 300, 1023, 65535])
def test_ids_of_pgm_are_not_scaled_by_its_maximum(kind, maximum):
    levels = np.arange(6).reshape(2, 3) * (maximum // 5)
    body = " ".join(map(str, levels.ravel())).encode()
    if kind == "P5":
        body = levels.astype(">u2" if maximum > 255 else np.uint8).tobytes()
    content = f"{kind}\n3 2\n{maximum}\n".encode() + body
    np.testing.assert_array_equal(load_ids(content), levels)
    expected = np.rint(levels * 255 / maximum)
    np.testing.assert_allclose(load_image(content)[..., 0], expected, atol=0.5)


def tiff(levels, depth):
    """A TIFF of grey samples in one strip."""
    levels = np.asarray(levels)
    bits = levels[..., None] >> np.arange(depth - 1, -1, -1) & 1
    strip = np.packbits(bits.reshape(len(levels), -1).astype(np.uint8), axis=-1).tobytes()
    height, width = levels.shape
    tags = [(256, width), (257, height), (258, depth), (259, 1), (262, 1)]
    tags += [(273, 8 + 2 + 12 * 9 + 4), (277, 1), (278, height), (279, len(strip))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4 + strip


@pytest.mark.parametrize("depth", [2, 4, 12])
def test_grey_tiffs_of_few_or_odd_bits(depth):
    levels = np.arange(16).reshape(2, 8) * 277 % 2**depth
    np.testing.assert_array_equal(load_ids(tiff(levels, depth)), levels)
    expected = np.rint(levels * 255 / (2**depth - 1))
    np.testing.assert_array_equal(load_image(tiff(levels, depth))[..., 0], expected)


def test_masks_have_a_limit_and_no_true_colours():
    with pytest.raises(BadImage, match="30x20 pixels exceed the limit of 599"):
        load_ids(encoded(Image.fromarray(picture()[..., 0])), max_pixels=599)
    with pytest.raises(BadImage, match="mode RGB, no indexed mask"):
        load_ids(encoded(Image.fromarray(picture())))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("depth", "clear", "other"),
    [(1, 1, 0), (2, 1, 2), (4, 7, 8), (8, 100, 101), (16, 1000, 32768), (16, 0x1234, 0x12FF)],
)
def test_the_transparent_level_of_grey_is_white(depth, clear, other, interlaced):
    content = png([[clear, other]], depth, GREY, transparent(clear), interlaced=interlaced)
    shown = round(other * 255 / (2**depth - 1))
    assert load_image(content)[0].tolist() == [[255] * 3, [shown] * 3]
    assert load_rgba(content)[0, :, 3].tolist() == [0, 255]
    with Image.open(io.BytesIO(content)) as opened:
        assert to_rgb(opened)[0, :, 0].tolist() == [255, shown]


def test_only_the_bits_of_the_depth_count_in_a_transparent_level():
    content = png([[1, 2]], 2, GREY, transparent(0xFF01))
    assert load_image(content)[0, :, 0].tolist() == [255, 170]


@pytest.mark.parametrize("interlaced", [False, True])
def test_the_transparent_colour_of_rgb_is_compared_whole(interlaced):
    clear, same_upper, same_lower = (
        (0x1234, 0x5678, 0x9ABC),
        (0x12FF, 0x5678, 0x9ABC),
        (0x34, 0x78, 0xBC),
    )
    samples = [[clear, same_upper, same_lower]]
    content = png(samples, 16, RGB, transparent(*clear), interlaced=interlaced)
    assert load_image(content)[0].tolist() == [[255] * 3, [0x12, 0x56, 0x9A], [0] * 3]
    content = png([[(1, 2, 3), (1, 2, 4)]], 8, RGB, transparent(1, 2, 3), interlaced=interlaced)
    assert load_image(content)[0].tolist() == [[255] * 3, [1, 2, 4]]


def test_palettes_with_alpha():
    palette = chunk(b"PLTE", bytes([200, 0, 0, 0, 200, 0, 0, 0, 200]))
    content = png([[0, 1, 2]], 2, PALETTE, palette, chunk(b"tRNS", bytes([0, 51])))
    assert load_image(content)[0].tolist() == [[255] * 3, [204, 244, 204], [0, 0, 200]]


@pytest.mark.parametrize("colour", [GREY_ALPHA, RGB_ALPHA])
def test_alpha_of_16_bits(colour):
    channels = 1 if colour == GREY_ALPHA else 3
    samples = [[[0x8000] * channels + [0], [0x8000] * channels + [0xFFFF]]]
    assert load_image(png(samples, 16, colour))[0].tolist() == [[255] * 3, [128] * 3]


def test_what_is_not_transparent_has_no_alpha():
    with pytest.raises(BadImage, match="has no alpha channel"):
        load_rgba(encoded(Image.fromarray(picture())))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_pngs_as_opencv_reads_them(depth, interlaced):
    rng = np.random.default_rng(depth)
    cases = [png(rng.integers(0, 2**depth, (11, 13)), depth, GREY, interlaced=interlaced)]
    if depth >= 8:
        samples = rng.integers(0, 2**depth, (11, 13, 3))
        cases.append(png(samples, depth, RGB, interlaced=interlaced))
    for content in cases:
        other = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        # Of 16 bits OpenCV takes the upper 8; grey is rounded here.
        np.testing.assert_allclose(load_image(content).astype(int), other, atol=depth == 16)


def upright(array, turn):
    """Row 0 and column 0 of the stored picture lie, by the EXIF standard, where the table says."""
    first_row, first_column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[turn]
    if first_row in ("left", "right"):
        array = array.swapaxes(0, 1)
    if "bottom" in (first_row, first_column):
        array = array[::-1]
    if "right" in (first_row, first_column):
        array = array[:, ::-1]
    return array


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG", "AVIF"])
def test_all_orientations_of_all_formats(kind, order):
    for turn in range(1, 9):
        tag = Image.Exif()
        tag.load(exif((0x0112, 3, short(turn, order)), order=order))
        options = {"lossless": True} if kind == "WEBP" else {"quality": 100}
        if kind in ("PNG", "TIFF"):
            options = {}
        content = encoded(Image.fromarray(picture()), kind, exif=tag, **options)
        expected = np.asarray(upright(picture(), turn)).astype(int)
        assert load_image(content).shape == expected.shape
        assert np.abs(load_image(content) - expected).mean() < (
            8 if kind in ("JPEG", "AVIF") else 0.001
        )


@pytest.mark.parametrize("turn", [5, 6, 8])
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_other_tags_do_not_matter_to_the_orientation(turn):
    text, rational = 2, 5
    blocks = [
        exif((0x0112, 3, short(turn)), (0x011A, text, b"72")),  # XResolution as text
        exif(
            (0x0112, 3, short(turn)), (0x011A, rational, b"\xff\xff\xff\x7f")
        ),  # far behind the end
        exif((0x0112, 3, short(turn)), (0x8769, 4, b"\xff\xff\xff\xff")),
        exif((0x0112, 4, struct.pack("<I", turn))),  # a longer integer
    ]
    for block in blocks:
        content = encoded(Image.fromarray(picture()), "JPEG", quality=95, exif=block)
        assert load_image(content).shape == (30, 20, 3)


@pytest.mark.parametrize(
    "block",
    [
        exif((0x0112, 3, short(0))),
        exif((0x0112, 3, short(9))),
        exif((0x0112, 2, b"6")),
        exif((0x0112, 7, b"\6")),
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0nothing",
        b"Exif\0\0",
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_an_orientation_that_says_nothing_turns_nothing(block):
    content = encoded(Image.fromarray(picture()), "JPEG", quality=95, exif=block)
    assert load_image(content).shape == (20, 30, 3)


def with_adobe(jpeg, transform):
    """Sets or removes (None) the marker in which Adobe says how four channels are meant."""
    start = jpeg.index(b"\xff\xee")
    (size,) = struct.unpack(">H", jpeg[start + 2 : start + 4])
    marker = jpeg[start : start + 2 + size]
    changed = b"" if transform is None else marker[:-1] + bytes([transform])
    return jpeg[:start] + changed + jpeg[start + 2 + size :]


def test_four_channels_of_jpeg():
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[...] = (30, 90, 150, 60)
    jpeg = encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=100)

    def shown(cmyk):
        return np.asarray(Image.fromarray(np.uint8(cmyk)[None, None], "CMYK").convert("RGB"))[0, 0]

    def loaded(transform):
        return load_image(with_adobe(jpeg, transform))[8, 8].astype(int)

    assert np.abs(loaded(0) - shown((30, 90, 150, 60))).max() <= 3, "Adobe stores 255 - ink"
    np.testing.assert_array_equal(
        loaded(None), loaded(0), "without the marker it is meant all the same"
    )
    # 2: the first three are Y, Cb, Cr of 255 - ink.
    y, cb, cr = 225, 165, 105
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    rgb = np.clip([red, green, blue], 0, 255)
    ink_of_ycck = (*np.round(rgb).astype(int), 60)
    assert np.abs(loaded(2) - shown(ink_of_ycck)).max() <= 3


def test_the_first_picture_of_an_animation():
    pages = [Image.new("RGB", (8, 6), (60 * i, 0, 90)) for i in range(3)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        content = encoded(pages[0], kind, save_all=True, append_images=pages[1:])
        assert load_image(content).shape == (6, 8, 3)
        assert np.abs(load_image(content)[0, 0].astype(int) - (0, 0, 90)).max() <= 4


def test_colour_profiles_are_not_applied():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    content = encoded(Image.fromarray(picture()), icc_profile=profile)
    np.testing.assert_array_equal(load_image(content), picture())


def test_a_prompt_of_a_damaged_pillow_image_is_a_users_mistake():
    content = encoded(Image.fromarray(picture()))
    with pytest.raises(UserError, match="the prompt image <image>: cannot be decoded"):
        as_rgb(Image.open(io.BytesIO(content[:-60])))
