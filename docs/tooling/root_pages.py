"""Pages whose source lies at the root of the repository, where code hosts and people look for it.

README.md is the start page. Its links are written for the root (`docs/scaling.md`), those of a page in docs/ for
docs/ (`../CONTRIBUTING.md`): on the site both become links between pages.
"""

import pathlib
import posixpath
import re

from generated import GeneratedPage

# File at the root -> page of the site, and its title.
_PAGES = {
    "README.md": ("index.md", "Start"),
    "CONTRIBUTING.md": ("contributing.md", "Contributing"),
    "CHANGELOG.md": ("changelog.md", "Changes"),
    "release/lvm/MODEL_CARD.md": ("model_card_lvm.md", "LVM's model card"),
    "release/vary/MODEL_CARD.md": ("model_card_vary.md", "Vary's model card"),
    "release/unified/MODEL_CARD.md": ("model_card_unified.md", "Unified's model card"),
    "data_pipelines/assets/LICENSES.md": ("licences.md", "Licences of the embedded corpus"),
}
_SOURCE_OF = {page: source for source, (page, _) in _PAGES.items()}
_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
_LINK_TO_FOLDER = re.compile(r"\[([^\]]+)\]\((?:release|data_pipelines|experiments|benchmarks)/?\)")


def pages(root: pathlib.Path) -> list[GeneratedPage]:
    """The pages, with the links as they stand in the source; of the cards those of the releases that there are."""
    return [
        GeneratedPage(page, title, (root / source).read_text(encoding="utf-8"))
        for source, (page, title) in _PAGES.items()
        if not source.startswith("release/") or (root / source).exists()
    ]


def rewrite_links(markdown: str, page: str) -> str:
    """The text of a page with its links between files of the repository turned into links between pages.

    Args:
      markdown: the text.
      page: its path on the site, such as index.md or tutorials/own_images.md.
    """
    # Where the source lies in the repository decides what its relative links mean.
    source = _SOURCE_OF.get(page, f"docs/{page}")

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if target in _PAGES:
            target = _PAGES[target][0]
        elif target.startswith("docs/"):
            target = target.removeprefix("docs/")
        else:
            return match[1]  # MkDocs complains of what is neither
        return posixpath.relpath(target, posixpath.dirname(page) or ".")

    return _LINK.sub(moved, _LINK_TO_FOLDER.sub(r"\1", markdown))
