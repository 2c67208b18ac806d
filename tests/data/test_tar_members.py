"""What a tar may hold is read, named and skipped, or refused; never lost in silence."""

import contextlib
import io
import os
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lvm_jax.data.images.sources import open_images
from lvm_jax.data.records.tar_members import list_members, read_member
from lvm_jax.errors import UserError


def entry(name: str, content: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar_of(*entries, form: int = tarfile.GNU_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def contents(path) -> dict[str, bytes]:
    return {name: read_member(path, place) for name, place in list_members(path)}


LONG = "a" * 90 + "/" + "b" * 120 + ".jpg"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_of_every_dialect_are_read_in_order(form, tmp_path):
    entries = [entry("folder", type=tarfile.DIRTYPE), entry("folder/1.jpg", b"one")]
    if form != tarfile.USTAR_FORMAT:
        entries.append(entry(LONG, b"long"))
    entries += [entry("é.jpg", b"e"), entry("empty.txt"), entry("2.JPG", b"x" * 513)]
    (tmp_path / "a.tar").write_bytes(tar_of(*entries, form=form))
    names = [info.name for info, _ in entries[1:]]
    assert [name for name, _ in list_members(tmp_path / "a.tar")] == names
    assert contents(tmp_path / "a.tar") == {info.name: data for info, data in entries[1:]}


def test_links_to_members_are_read_and_the_others_named(tmp_path, caplog):
    link, hard = tarfile.SYMTYPE, tarfile.LNKTYPE
    (tmp_path / "a.tar").write_bytes(
        tar_of(
            entry("x/1.jpg", b"one"),
            entry("x/2.jpg", type=hard, linkname="x/1.jpg"),
            entry("y/3.jpg", type=link, linkname="../x/2.jpg"),
            entry("y/out.jpg", type=link, linkname="/etc/passwd"),
            entry("y/me.jpg", type=link, linkname="me.jpg"),
            entry("pipe", type=tarfile.FIFOTYPE),
        )
    )
    with caplog.at_level("WARNING"):
        assert contents(tmp_path / "a.tar") == dict.fromkeys(
            ("x/1.jpg", "x/2.jpg", "y/3.jpg"), b"one"
        )
    assert "skipped 3 entries" in caplog.text
    assert "y/out.jpg" in caplog.text


def test_sparse_members_get_their_zeros_back(tmp_path):
    if shutil.which("tar") is None:
        pytest.skip("no tar")
    with open(tmp_path / "1.bin", "wb") as sink:
        sink.write(b"head" * 1024)
        sink.seek(1 << 20)
        sink.write(b"tail" * 1024)
        sink.truncate(2 << 20)
    if os.stat(tmp_path / "1.bin").st_blocks * 512 >= 2 << 20:
        pytest.skip("this file system keeps no holes")
    for form in (
        ["gnu"],
        ["pax", "--sparse-version=0.0"],
        ["pax", "--sparse-version=0.1"],
        ["pax"],
    ):
        subprocess.run(
            ["tar", "-S", f"--format={form[0]}", *form[1:], "-cf", "a.tar", "1.bin"],
            cwd=tmp_path,
            check=True,
        )
        assert (tmp_path / "a.tar").stat().st_size < 1 << 19
        assert contents(tmp_path / "a.tar") == {"1.bin": (tmp_path / "1.bin").read_bytes()}, form


def test_a_name_that_is_not_utf8_can_be_written_again(tmp_path):
    target = io.BytesIO()
    with tarfile.open(
        fileobj=target, mode="w", encoding="latin-1", format=tarfile.GNU_FORMAT
    ) as tar:
        info, content = entry("é.jpg", b"e")
        tar.addfile(info, io.BytesIO(content))
    (tmp_path / "a.tar").write_bytes(target.getvalue())
    ((name, _),) = list_members(tmp_path / "a.tar")
    assert name.encode() == b"\\xe9.jpg"


def test_a_second_tar_behind_the_first_is_read(tmp_path):
    both = tar_of(entry("1.jpg", b"one")) + tar_of(entry("2.jpg", b"two"))
    (tmp_path / "a.tar").write_bytes(both)
    assert contents(tmp_path / "a.tar") == {"1.jpg": b"one", "2.jpg": b"two"}


def test_a_tar_cut_anywhere_is_refused(tmp_path):
    whole = tar_of(entry("1.jpg", b"x" * 700), entry(LONG, b"y" * 100), entry("3.jpg", b"z" * 512))
    end = -(-len(whole.rstrip(b"\0")) // 512) * 512
    for size in [*range(0, end + 1, 64), end - 1]:
        (tmp_path / "a.tar").write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"a.tar is no whole tar \("):
            list_members(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(whole[: end + 512])
    assert len(list_members(tmp_path / "a.tar")) == 3


def test_a_damaged_header_does_not_end_the_list_in_silence(tmp_path):
    whole = bytearray(tar_of(entry("1.jpg", b"one"), entry("2.jpg", b"two"), entry("3.jpg")))
    whole[1024 + 5] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(whole)
    with pytest.raises(UserError, match="the header at byte 1024 is damaged"):
        list_members(tmp_path / "a.tar")


def with_size(size: int, kind: bytes) -> bytes:
    """A header that claims `size` bytes, in base 256 as GNU writes large ones."""
    info, _ = entry("1.jpg", type=kind)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    block[124:136] = (0xFF if size < 0 else 0x80).to_bytes(1, "big") + (size % 256**11).to_bytes(
        11, "big"
    )
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("size", [-512, -1024, -1, 1 << 60, 1 << 34])
@pytest.mark.parametrize("kind", [b"0", b"x", b"L", b"5", b"S"])
def test_a_claimed_size_neither_loops_nor_allocates(size, kind, tmp_path):
    (tmp_path / "a.tar").write_bytes(with_size(size, kind) + bytes(1024))
    with contextlib.suppress(UserError):  # a directory's size means nothing
        assert sum(place.size for _, place in list_members(tmp_path / "a.tar")) == 0


def test_one_rule_for_names_of_tars(tmp_path):
    picture = io.BytesIO()
    Image.new("RGB", (2, 2)).save(picture, "PNG")
    (tmp_path / "A.TAR").write_bytes(tar_of(entry("1.png", picture.getvalue())))
    assert open_images(tmp_path / "A.TAR").names == ["A.TAR/1.png"]


WHOLE = tar_of(
    entry("1.jpg", b"one"),
    entry(LONG, b"long"),
    entry("é.txt", b"pax", pax_headers={"comment": "é"}),
    entry("3.jpg", type=tarfile.LNKTYPE, linkname="1.jpg"),
    form=tarfile.PAX_FORMAT,
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE.rstrip(b"\0"))), st.integers(0, 255)), max_size=4),
    st.integers(0, 3),
    st.integers(0, len(WHOLE)),
)
def test_whatever_is_damaged_only_our_error_leaves(tmp_path_factory, changes, fix, cut):
    content = bytearray(WHOLE)
    for place, value in changes:
        content[place] = value
    if fix:  # a right checksum lets the damage through to what lies behind it
        for start in range(0, len(content), 512):
            block = content[start : start + 512]
            if block[257:262] == b"ustar":
                block[148:156] = b" " * 8
                content[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    path.write_bytes(content[:cut] if fix == 3 else content)
    try:
        for _, place in list_members(path):
            assert len(read_member(path, place)) == place.size
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 - whether it is refused depends on the damage
