"""Held-out pages of a release, in the published layout of page sets.

FOLDER/SET.json   [{"image": "SET/000.png", "conversations": [question, answer]}, ...]
FOLDER/SET/       the pictures

`experiments/evaluate_documents.py --benchmark=pages --data=FOLDER/SET.json --images=FOLDER` asks about them.
"""

import json
from collections.abc import Sequence

from etils import epath

from lvm_jax import files
from lvm_jax.data.image_text.conversation import PLACEHOLDER, Conversation, Turn
from lvm_jax.evaluation.documents.page_questions import PageSet
from lvm_jax.evaluation.documents.readers import read_pages
from lvm_jax.reporting.figures import save_png


def write_pages(sets: Sequence[PageSet], folder: epath.PathLike) -> None:
    """Writes page sets with the first true answer to each question."""
    root = epath.Path(folder)
    for pages in sets:
        entries = []
        for number, one in enumerate(pages.questions):
            image = f"{pages.name}/{number:03d}.png"
            save_png(root / image, one.picture())
            asked = f"{PLACEHOLDER}\n{one.question}" if one.question else PLACEHOLDER
            told = json.loads(Conversation((Turn(asked, one.answers[0]),)).to_json())
            entries.append({"image": image, "conversations": told})
        text = json.dumps(entries, indent=1, ensure_ascii=False)
        files.write(root / f"{pages.name}.json", f"{text}\n")


def read_page_sets(folder: epath.PathLike) -> list[PageSet]:
    """All page sets of a folder, by name.

    Raises:
      UserError: a file is damaged.
    """
    return [pages for path in files.named(folder, "*.json") for pages in read_pages(path, folder)]
