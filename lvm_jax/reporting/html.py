"""The pieces of a self-contained page: escaped text, tables, pictures inside the file, and the sheet around them."""

import base64
import html as escaping
import json
import math
from collections.abc import Sequence
from typing import Any

from etils import epath

_STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #24292d; --soft: #667078; --line: #e2e4e3; --card: #f4f5f3;
  --accent: #2f6fc4; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181a; --ink: #dfe3e6; --soft: #98a2aa; --line: #2e3337;
  --card: #1f2326; --accent: #7fb0f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 54rem; padding: 3.5rem 1.4rem 6rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 .4rem; }
h2 { font-size: 1.35rem; letter-spacing: -.01em; margin: 3.4rem 0 .7rem; padding-top: 1.1rem;
  border-top: 1px solid var(--line); }
p { margin: .5rem 0 1rem; } .soft, figcaption, caption { color: var(--soft); font-size: .9rem; }
ul.plain { padding-left: 1.1rem; } ul.plain li { margin: .45rem 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.4rem, 1fr)); gap: .8rem; margin: 1.8rem 0; }
.card { background: var(--card); border-radius: .6rem; padding: .9rem 1.05rem; }
.card b { display: block; font-size: 1.5rem; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .86rem; line-height: 1.4; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .8rem 0 1.3rem; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); }
td, th { padding: .34rem .9rem .34rem 0; vertical-align: top; border-bottom: 1px solid var(--line); }
td:nth-child(n+5):not(.number) { overflow-wrap: anywhere; min-width: 7rem; }
td.number, th.number { text-align: right; white-space: nowrap; }
figure { margin: 1.2rem 0; } figure svg { width: 100%; height: auto; display: block; }
figure img { max-width: 100%; height: auto; display: block; border-radius: .35rem; background: #fff; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 0 1.4rem; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--accent); }
pre { background: var(--card); border-radius: .5rem; padding: .9rem 1rem; overflow-x: auto; font-size: .8rem;
  line-height: 1.5; }
code { font-size: .88em; }
"""

_LETTERS = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def text(value: Any) -> str:
    """Escaped for HTML."""
    return escaping.escape(str(value))


def number(value: Any, digits: int = 3) -> str:
    """A number as people read it, with `digits` significant ones: 0.0123, 1.23, 123, 12,345; a text as it is."""
    if not _is_number(value):
        return text("–" if value is None else value)
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}"
    exponent = int(f"{value:e}".partition("e")[2]) if math.isfinite(value) else 0
    if not -4 <= exponent < 15:
        return f"{value:.{digits}g}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def short(value: float) -> str:
    """A large number with a letter for its power of a thousand: 656k, 2.05M, 12.2T."""
    power = max(0, min(len(_LETTERS) - 1, int(math.log10(max(value, 1)) // 3)))
    return f"{value / 1000**power:.3g}{_LETTERS[power]}"


def percent(value: float) -> str:
    """0.123 as 12.3 %."""
    return f"{100 * value:.1f} %"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> str:
    """A table; numbers are right-aligned, by `number`, and a column with one is headed on the right."""
    numeric = [any(_is_number(row[i]) for row in rows) for i in range(len(header))]

    def cell(tag: str, value: Any, right: bool) -> str:
        return f"<{tag}{' class=number' if right else ''}>{number(value)}</{tag}>"

    head = "".join(cell("th", name, right) for name, right in zip(header, numeric))
    body = "".join(
        "<tr>" + "".join(cell("td", value, right) for value, right in zip(row, numeric)) + "</tr>"
        for row in rows
    )
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return f"<div class=scroll><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def picture(path: epath.Path, caption: str = "") -> str:
    """A PNG file inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return figure(f'<img alt="{text(caption)}" src="data:image/png;base64,{data}">', caption)


def figure(content: str, caption: str = "") -> str:
    """HTML or SVG with a caption below."""
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f"<figure>{content}{below}</figure>"


def cards(items: Sequence[tuple[str, str]]) -> str:
    """Large numbers with a line of explanation each."""
    inner = "".join(
        f"<div class=card><b>{text(big)}</b><span>{text(small)}</span></div>"
        for big, small in items
    )
    return f"<div class=cards>{inner}</div>"


def bullets(sentences: Sequence[str]) -> str:
    """A list of sentences."""
    return (
        "<ul class=plain>"
        + "".join(f"<li>{text(sentence)}</li>" for sentence in sentences)
        + "</ul>"
    )


def folded(title: str, content: Any) -> str:
    """JSON that opens by a click."""
    return f"<details><summary>{text(title)}</summary><pre>{text(json.dumps(content, indent=2))}</pre></details>"


def section(title: str, *parts: str) -> str:
    """A headed part of the page."""
    return f"<section><h2>{text(title)}</h2>{''.join(parts)}</section>"


def page(title: str, subtitle: str, body: str) -> str:
    """The whole file; it loads nothing from anywhere."""
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head>"
        f"<body><header><h1>{text(title)}</h1><p class=soft>{text(subtitle)}</p></header>{body}</body></html>\n"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
