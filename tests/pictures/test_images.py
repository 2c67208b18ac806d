import io
import resource
import zlib

import numpy as np
import pytest
from etils import epath
from PIL import Image

from lvm_jax.data.images.loader import ImageLoader
from lvm_jax.errors import UserError
from lvm_jax.pictures.decode import BadImage, load_image
from lvm_jax.pictures.listing import find_images
from lvm_jax.pictures.resize import resize, resize_and_crop


def picture(seed=0, height=20, width=30):
    """A smooth RGB picture."""
    y, x = np.mgrid[:height, :width]
    channels = [(x * 7 + seed * 31) % 200, (y * 9 + seed * 17) % 200, (x + y + seed * 5) % 200]
    return np.stack(channels, -1).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def of_array(array, kind="PNG", **options):
    return encoded(Image.fromarray(array), kind, **options)


@pytest.fixture
def folder(tmp_path):
    for i in range(12):
        (tmp_path / f"{i:02d}.png").write_bytes(of_array(picture(i)))
    return tmp_path


def test_rgb_is_exact():
    loaded = load_image(of_array(picture()))
    np.testing.assert_array_equal(loaded, picture())
    assert loaded.dtype == np.uint8


def test_a_path_and_its_bytes(tmp_path):
    path = tmp_path / "a.webp"
    path.write_bytes(of_array(picture(), "WEBP", lossless=True))
    np.testing.assert_array_equal(load_image(path), picture())
    np.testing.assert_array_equal(load_image(str(path)), load_image(path.read_bytes()))


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [(1, lambda x: x), (3, lambda x: x[::-1, ::-1]), (6, lambda x: np.rot90(x, -1)), (8, np.rot90)],
)
def test_exif_orientation(orientation, undo):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(load_image(of_array(picture(), exif=exif)), undo(picture()))


def test_palette():
    image = Image.fromarray(picture() // 100 * 100).quantize(16)
    np.testing.assert_array_equal(load_image(encoded(image)), np.asarray(image.convert("RGB")))


def test_transparency_is_white():
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[..., 3] = [[0, 255, 51], [0, 255, 51]]
    loaded = load_image(of_array(rgba))
    assert loaded[0].tolist() == [[255, 255, 255], [200, 0, 0], [244, 204, 204]]
    grey = load_image(of_array(rgba[..., [0, 3]]))
    assert grey[0].tolist() == [[255] * 3, [200] * 3, [244] * 3]
    palette = Image.fromarray(np.zeros((2, 2), np.uint8)).convert("P")
    assert (load_image(encoded(palette, transparency=0)) == 255).all()


def test_grey():
    grey = picture()[..., 0]
    np.testing.assert_array_equal(load_image(of_array(grey)), np.repeat(grey[..., None], 3, -1))
    bits = Image.fromarray(grey).convert("1")
    assert set(load_image(encoded(bits)).ravel()) == {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    values = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    assert load_image(of_array(values, kind))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_cmyk():
    image = Image.fromarray(np.full((8, 8, 3), (200, 30, 60), np.uint8)).convert("CMYK")
    loaded = load_image(encoded(image, "JPEG", quality=95))
    assert np.abs(loaded.astype(int) - (200, 30, 60)).max() < 8


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_range(mode):
    image = Image.fromarray(np.array([[0, 70000]], {"F": np.float32, "I": np.int32}[mode]))
    with pytest.raises(BadImage, match="no fixed range"):
        load_image(encoded(image, "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_truncated_files(kind):
    data = of_array(picture(), kind)
    for end in (0, 1, 10, len(data) // 2, len(data) - 30):
        with pytest.raises(BadImage, match="cannot be decoded"):
            load_image(data[:end])


def test_unreadable_files(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(BadImage, match=r"a\.png: cannot be decoded") as error:
        load_image(tmp_path / "a.png")
    assert error.value.path == str(tmp_path / "a.png")
    with pytest.raises(BadImage, match="No such file"):
        load_image(tmp_path / "b.png")


def test_too_many_pixels():
    with pytest.raises(BadImage, match="30x20 pixels exceed the limit of 599"):
        load_image(of_array(picture()), max_pixels=599)
    bomb = bytearray(encoded(Image.new("1", (8, 8))))
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2  # the header of a PNG of 2.5 gigapixels
    crc = zlib.crc32(bytes(bomb[12:29]))
    bomb[29:33] = crc.to_bytes(4, "big")
    with pytest.raises(BadImage, match="exceeds limit"):
        load_image(bytes(bomb))


def test_a_jpeg_is_decoded_near_the_size_that_is_enough():
    image = Image.fromarray(picture(height=400, width=640))
    jpeg = encoded(image, "JPEG", quality=95)
    for enough, height in ((0, 400), (300, 400), (200, 200), (60, 100), (1, 50)):
        assert load_image(jpeg, enough=enough).shape == (height, height * 8 // 5, 3)
    near = np.asarray(image.resize((320, 200), Image.Resampling.BOX)).astype(int)
    assert np.abs(load_image(jpeg, enough=200) - near).mean() < 4
    assert load_image(encoded(image), enough=10).shape == (400, 640, 3), "a PNG has one size"


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_above_the_limit_is_decoded_small(progressive):
    jpeg = encoded(Image.fromarray(picture(height=400, width=640)), "JPEG", progressive=progressive)
    with pytest.raises(BadImage, match=r"640x400 .* limit of 255999: .*short_side"):
        load_image(jpeg, 255_999)
    for limit, height in ((255_999, 200), (85_334, 200), (256_000, 400)):
        assert load_image(jpeg, limit, fit=True).shape == (height, height * 8 // 5, 3)
    assert load_image(jpeg, 85_334, enough=200).shape == (200, 320, 3)
    with pytest.raises(BadImage, match="640x400 pixels exceed the limit of 85334"):
        load_image(jpeg, 85_334, enough=201)  # half of it would be too small to serve
    for asked in ({"enough": 1}, {"fit": True}):
        with pytest.raises(BadImage, match="640x400 pixels exceed the limit of 255999 of a JPEG"):
            load_image(jpeg, 85_333, **asked)
    with pytest.raises(BadImage, match="640x400 pixels exceed the limit"):
        load_image(encoded(Image.new("L", (640, 400))), 255_999, fit=True)  # a PNG has one size


def test_a_photograph_of_108_megapixels():
    jpeg = encoded(Image.new("L", (12_000, 9_000), 77), "JPEG")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load_image(jpeg, enough=512).shape == (1_125, 1_500, 3)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 << 10, "KiB; the whole picture would take 300 MB"
    assert load_image(jpeg, fit=True).shape == (4_500, 6_000, 3)
    with pytest.raises(BadImage, match="12000x9000 pixels exceed the limit of 80000000"):
        load_image(jpeg)


def test_find_images(tmp_path):
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    wanted = ["a.JPG", "b.jpeg", "c.png", "sub/d.webp", "sub/deep/e.bmp"]
    for name in [*wanted, "notes.txt", ".hidden.png", "sub/f.gif"]:
        (tmp_path / name).write_bytes(b"")
    assert find_images(tmp_path) == [str(tmp_path / name) for name in wanted]
    with pytest.raises(UserError, match="is not a folder"):
        find_images(tmp_path / "a.JPG")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        find_images(tmp_path / "empty")


def test_remote_images(remote):
    files = ["gs://bucket/images/a.png", "gs://bucket/images/sub/b.png"]
    for i, file in enumerate(files):
        epath.Path(file).parent.mkdir(parents=True, exist_ok=True)
        epath.Path(file).write_bytes(of_array(picture(i)))
    assert find_images("gs://bucket/images") == files
    np.testing.assert_array_equal(load_image(files[1]), picture(1))


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (16, 16), (8, 8), (9, 31)])
@pytest.mark.parametrize("mode", ["random", "center", "squash"])
def test_shapes(shape, mode):
    out = resize_and_crop(picture(0, *shape), 16, mode, np.random.default_rng(0))
    assert out.shape == (16, 16, 3)
    assert out.dtype == np.uint8


def test_center_and_random_cut_a_square_of_the_resized_image():
    image = picture(0, 16, 30)
    np.testing.assert_array_equal(resize_and_crop(image, 16, "center"), image[:, 7:23])
    cuts = {
        resize_and_crop(image, 16, "random", np.random.default_rng(i)).tobytes() for i in range(200)
    }
    assert cuts == {image[:, x : x + 16].tobytes() for x in range(15)}
    np.testing.assert_array_equal(resize(image, 16), resize_and_crop(image, 16, "squash"))
    with pytest.raises(UserError, match="pass rng"):
        resize_and_crop(image, 16, "random")
    with pytest.raises(UserError, match="'middle'"):
        resize_and_crop(image, 16, "middle")


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize(stripes, 8).astype(int) - 128).max() < 8


def take(loader, steps):
    with loader:
        return [next(loader)["images"] for _ in range(steps)]


@pytest.mark.parametrize("crop", ["random", "resized", "center", "squash"])
def test_an_epoch_holds_every_image_once(folder, crop):
    (batch,) = take(ImageLoader(folder, 16, 12, 0, crop, flip=False), 1)
    assert batch.shape == (12, 16, 16, 3)
    assert batch.dtype == np.uint8
    if crop in ("center", "squash"):
        expected = [resize_and_crop(picture(i), 16, crop).tobytes() for i in range(12)]
        assert sorted(image.tobytes() for image in batch) == sorted(expected)
        assert [image.tobytes() for image in batch] != expected


def test_random_resized_crop_shows_half_of_the_area_or_more():
    ramp = np.arange(60, dtype=np.uint8)
    zero = np.zeros((), np.uint8)
    image = np.stack(np.broadcast_arrays(ramp[:50, None], ramp[None], zero), axis=-1)
    corners, mirrored = [], resize_and_crop(image, 16, "resized", np.random.default_rng(3))
    for seed in range(200):
        crop = resize_and_crop(image, 16, "resized", np.random.default_rng(seed))
        assert crop.shape == (16, 16, 3)
        rows, columns = (np.ptp(crop[..., axis].astype(int)) for axis in (0, 1))
        corners.append((rows / 49, columns / 59))
    seen = np.prod(corners, axis=1)
    assert 0.4 < seen.min() < 0.55  # the outermost pixels' centres lie within the box
    assert seen.max() > 0.8
    again = resize_and_crop(image, 16, "resized", np.random.default_rng(3))
    np.testing.assert_array_equal(again, mirrored)
    with pytest.raises(UserError, match="crop 'resized' needs a random generator"):
        resize_and_crop(image, 16, "resized")


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_a_batch_is_a_function_of_seed_and_step(folder, hosts, cache_bytes):
    whole = take(ImageLoader(folder, 16, 8, 3, threads=2), 6)
    files = sorted(folder.iterdir())
    parts = [
        take(
            ImageLoader(
                files,
                16,
                8,
                3,
                process_index=i,
                process_count=hosts,
                cache_bytes=cache_bytes,
                threads=0,
            ),
            6,
        )
        for i in range(hosts)
    ]
    for step in range(6):
        np.testing.assert_array_equal(np.concatenate([part[step] for part in parts]), whole[step])
    with ImageLoader(folder, 16, 8, 3, cache_bytes=cache_bytes) as loader:
        loader.set_state(4)
        np.testing.assert_array_equal(next(loader)["images"], whole[4])
        assert loader.get_state() == 5


def test_half_of_the_images_are_mirrored(folder):
    (plain,) = take(ImageLoader(folder, 16, 120, 0, "center", flip=False), 1)
    (batch,) = take(ImageLoader(folder, 16, 120, 0, "center", flip=True), 1)
    kept = (batch == plain).all(axis=(1, 2, 3))
    mirrored = (batch == plain[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (kept | mirrored).all()
    assert 40 < mirrored.sum() < 80


def test_bad_files_are_passed_over_the_same_way_every_time(folder, caplog):
    (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:60])
    (folder / "06.png").write_bytes(b"")
    whole = take(ImageLoader(folder, 16, 12, 0, "center", flip=False, max_bad=2), 3)
    assert "05.png: cannot be decoded" in caplog.text
    assert "(2 of at most 2)" in caplog.text
    count = sorted(image.tobytes() for image in whole[0])
    seven = resize_and_crop(picture(7), 16, "center").tobytes()
    assert count.count(seven) == 3  # its own turn, and those of 05 and 06
    parts = [
        take(
            ImageLoader(
                folder,
                16,
                12,
                0,
                "center",
                flip=False,
                process_index=i,
                process_count=3,
                cache_bytes=0,
            ),
            3,
        )
        for i in range(3)
    ]
    for step in range(3):
        np.testing.assert_array_equal(np.concatenate([part[step] for part in parts]), whole[step])
    with ImageLoader(folder, 16, 12, 0, max_bad=1) as strict:
        for _ in range(2):
            with pytest.raises(UserError, match=r"limit of 1; the last: .*0[56]\.png"):
                next(strict)
            assert strict.get_state() == 0


def test_no_file_can_be_decoded(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"")
    with (
        ImageLoader(tmp_path, 16, 1, 0) as loader,
        pytest.raises(UserError, match="none of the 3 images"),
    ):
        next(loader)


def test_a_hair_is_a_bad_image(tmp_path):
    (tmp_path / "a.png").write_bytes(of_array(picture(0, 1, 33)))
    (tmp_path / "b.png").write_bytes(of_array(picture(0, 1, 32)))
    with ImageLoader(tmp_path, 16, 2, 0) as loader:
        next(loader)
        assert loader.bad == 1


def test_the_cache_keeps_to_its_size(folder):
    size = 16 * 24 * 3
    with ImageLoader(folder, 16, 12, 0, cache_bytes=5 * size, threads=0) as loader:
        next(loader)
        assert len(loader._cache) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": "middle"}, "crop is 'middle'"),
        ({"resolution": 0}, "resolution is 0"),
        ({"global_batch": 3, "process_count": 2}, "global_batch is 3"),
        ({"seed": -1}, "seed is -1"),
        ({"images": []}, "list of images is empty"),
    ],
)
def test_wrong_arguments(folder, change, message):
    arguments = {"images": folder, "resolution": 16, "global_batch": 4, "seed": 0} | change
    with pytest.raises(UserError, match=message):
        ImageLoader(**arguments)
