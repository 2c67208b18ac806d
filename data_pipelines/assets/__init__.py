"""The pack: photographs and video clips that ship with the repository, each with its licence."""

import dataclasses
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent
# The photographs, as a source in a recipe names them.
PHOTOGRAPHS = {
    "root": str(ROOT / "photos"),
    "licence": "a licence a file, see data_pipelines/assets/LICENSES.md",
    "origin": "photographs of the pack in data_pipelines/assets",
}


@dataclasses.dataclass(frozen=True)
class PackItem:
    """One file of the pack and where it comes from."""

    file: str  # relative to `ROOT`: photos/NAME.webp or videos/NAME.mp4
    subject: str
    author: str
    licence: str
    origin: str  # the page that the package names as the source
    package: str  # name, version, registry
    member: str  # path in the unpacked packages; FILE.rcc!PATH in a Qt resource archive
    frames: tuple[int, int, int] | None = None  # start, stop, step of a video segment

    @property
    def path(self) -> Path:
        """The file itself."""
        return ROOT / self.file


def load_pack() -> list[PackItem]:
    """The items of pack.json, in order."""
    items = []
    for entry in json.loads((ROOT / "pack.json").read_text(encoding="utf-8")):
        frames = entry.pop("frames", None)
        items.append(PackItem(**entry, frames=None if frames is None else tuple(frames)))
    return items


_TEXTS = [
    "",
    "# Texts to render",
    "",
    "The sentences of texts/english.txt and texts/han.txt were written for this project; texts/words.txt is a list of",
    "common English words. They are under the licence of the project, Apache-2.0.",
]


def licences_table(items: list[PackItem]) -> str:
    """The text of LICENSES.md: one line per file."""
    lines = [
        "# Licences of the embedded photographs and videos",
        "",
        "Changes: each photograph was scaled to a short side of 192 pixels, each video cut to a segment and",
        "scaled to 128, from a file of the package in the last column. Author, licence and origin are those",
        "which that package states for the file. Each file stays under its own licence; the attribution that",
        "CC-BY asks for is this table.",
        "",
        "| file | subject | author | licence | origin | package |",
        "|---|---|---|---|---|---|",
    ]
    for item in items:
        cells = (item.file, item.subject, item.author, item.licence, item.origin, item.package)
        lines.append("| " + " | ".join(cell.replace("|", "%7C") for cell in cells) + " |")
    return "\n".join([*lines, *_TEXTS]) + "\n"
