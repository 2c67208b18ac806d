"""MkDocs hooks: the pages that no file under docs/ holds, and the checks that MkDocs does not make.

MkDocs imports this file by the line `hooks` of mkdocs.yml. Everything that is generated is made in memory at each
build, so that no copy of a docstring or a default can go stale.
"""

import pathlib
import re

import api_pages
import command_pages
import config_pages
import root_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import Abort
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What a browser fetches by itself. A plain link (`<a href>`) is the reader's choice, and may leave the site.
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video)[^>]*\ssrc=[\"']?(https?://[^\"'\s>]+)"
    r"|<link[^>]*rel=[\"']?(?:stylesheet|preload|preconnect|icon)[^>]*href=[\"']?(https?://[^\"'\s>]+)"
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the generated pages to the navigation."""
    reference = [
        {"Overview": "reference/index.md"},
        {"Configurations": [{p.title: p.path} for p in config_pages.pages(ROOT)]},
        {"Commands": "reference/commands.md"},
        {"Python": [{p.title: p.path} for p in api_pages.pages(ROOT)]},
    ]
    assert config.nav is not None
    position = next(i for i, item in enumerate(config.nav) if "Measured" in item)
    config.nav.insert(position, {"Reference": reference})
    cards = [{p.title: p.path} for p in root_pages.pages(ROOT) if p.path.startswith("model_card")]
    config.nav += [{"Changes": "changelog.md"}, *cards]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages themselves."""
    generated = {page.path: page.markdown for page in root_pages.pages(ROOT)}
    generated |= {page.path: page.markdown for page in api_pages.pages(ROOT)}
    generated |= {page.path: page.markdown for page in config_pages.pages(ROOT)}
    generated["reference/index.md"] = api_pages.overview(ROOT)
    generated["reference/commands.md"] = command_pages.page(ROOT)
    for path, markdown in generated.items():
        files.append(File.generated(config, path, content=markdown))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links that leave docs/ for a file at the root into links to its page on the site."""
    return root_pages.rewrite_links(markdown, page.file.src_uri)


def on_post_build(config: MkDocsConfig) -> None:
    """Fails where a page would fetch something from elsewhere."""
    fetched = sorted(
        f"{path.relative_to(config.site_dir)}: {match[1] or match[2]}"
        for path in pathlib.Path(config.site_dir).rglob("*.html")
        for match in _FETCHED.finditer(path.read_text(encoding="utf-8"))
    )
    if fetched:
        raise Abort(
            "the site must work offline, and fetches from elsewhere:\n" + "\n".join(fetched[:10])
        )
