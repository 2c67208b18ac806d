"""The folder of released models, each in a folder of its own with checksums, and a release's archive.

ROOT/lvm       tokenizer/, decoder/, and prompts/NAME: held-out prompts as pictures (`generate.py --prompt`)
ROOT/vary      model/, and pages/SET.json beside pages/SET/: held-out pages (`evaluate_documents.py --benchmark=pages`)
ROOT/unified   tokenizer/, decoder/, and episodes/NAME: held-out episodes as pictures and words (`generate.py --prompt`)

Each of them also has MODEL_CARD.md, trainings.json for the card of what is trained on from here, manifest.json of its
data, LICENSES.md if these need a list, and SHA256SUMS of all other files, for `sha256sum -c` and `verify`.
"""

import gzip
import hashlib
import os
import tarfile
from pathlib import Path

from lvm_jax.errors import UserError
from lvm_jax.files import replacing

LVM, VARY, UNIFIED = (
    "lvm",
    "vary",
    "unified",
)  # systems, and the folders of their releases below ROOT
SUMS = "SHA256SUMS"
MAX_BYTES = 60_000_000


def exists(folder: str | os.PathLike[str]) -> bool:
    """Whether there is a complete release at `folder`; the checksums are written last."""
    return (Path(folder) / SUMS).exists()


def find(root: str | os.PathLike[str], system: str) -> Path | None:
    """The release of a system below ROOT, verified; None if there is none.

    Raises:
      UserError: see `verify`.
    """
    folder = Path(root) / system
    if not exists(folder):
        return None
    verify(folder)
    return folder


def write_checksums(folder: Path) -> None:
    """Writes FOLDER/SHA256SUMS, the last file of a release.

    Raises:
      UserError: the files are larger than a release may be.
    """
    files = _files(folder)
    size = sum(file.stat().st_size for file in files)
    if size > MAX_BYTES:
        raise UserError(
            f"the release has {size / 1e6:.1f} MB: at most {MAX_BYTES / 1e6:.0f} MB; store it in 16 bits, or train "
            "smaller models"
        )
    lines = [f"{_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / SUMS).write_text("".join(lines))


def verify(folder: str | os.PathLike[str]) -> None:
    """Requires every file of a release to exist unchanged.

    Raises:
      UserError: a file is missing or differs, and the message names the first; or no file is listed.
    """
    folder = Path(folder)
    lines = (folder / SUMS).read_text().splitlines()
    if not lines:
        raise UserError(
            f"{folder / SUMS} lists 0 files: fetch the release again, or remove {folder}"
        )
    for line in lines:
        digest, _, name = line.partition("  ")
        if not (folder / name).is_file() or _sha256(folder / name) != digest:
            raise UserError(
                f"{folder / name} is missing or differs from {SUMS}: fetch the release again, or remove {folder}"
            )


def write_archive(folder: Path, archive: Path, system: str) -> str:
    """Packs the release of a system into a .tar.gz that unpacks to release/SYSTEM; equal releases give equal bytes.

    Returns:
      the SHA-256 of the archive.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(archive) as partial,
        partial.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for file in [*_files(folder), folder / SUMS]:
            # A fresh TarInfo has no owner and no time, which would make the bytes differ.
            info = tarfile.TarInfo(f"release/{system}/{file.relative_to(folder).as_posix()}")
            info.size = file.stat().st_size
            with file.open("rb") as content:
                tar.addfile(info, content)
    return _sha256(archive)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
