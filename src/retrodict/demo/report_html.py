"""The few pieces of HTML that the demo's report is made of; whatever is a value is escaped here, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from retrodict.core.errors import MissingExtraError

__all__ = ["cell", "details", "facts", "mark", "page", "paragraph", "plot", "plots", "table"]


def cell(value: object) -> str:
    """Return a value as escaped text: a dash for None, words for truth values, thousands apart in counts."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value) or "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(str(name))}: {cell(item)}" for name, item in value.items()) or "-"
    return escape(str(value))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Make a table; a heading that ends in ``>`` aligns its column to the right."""
    sides = [' class="right"' if name.endswith(">") else "" for name in head]
    names = "".join(
        f'<th scope="col"{side}>{escape(name.removesuffix(">"))}</th>' for side, name in zip(sides, head, strict=True)
    )
    body = "".join(
        f"<tr>{''.join(f'<td{side}>{cell(value)}</td>' for side, value in zip(sides, row, strict=True))}</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(values: Mapping[str, object]) -> str:
    """Names and values as a list of definitions."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{cell(value)}</dd></div>" for name, value in values.items())
    return f"<dl>{items}</dl>"


def paragraph(text: str) -> str:
    """Make a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def details(title: str, body: str) -> str:
    """Fold a body away under a title."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def plot(draw: Callable[..., str], *args: Any, **kwargs: Any) -> str:
    """Make a figure, or a sentence in its place where the library that draws is not installed."""
    try:
        return f'<figure tabindex="0">{draw(*args, **kwargs)}</figure>'
    except MissingExtraError as error:
        return f'<p class="absent">{escape(str(error))}</p>'


def plots(*figures: str) -> str:
    """Put figures side by side where there is room."""
    return f'<div class="plots">{"".join(figures)}</div>'


def mark(ok: bool | None) -> str:
    """Make a check mark, a cross or a dash, in words for whoever does not see it."""
    sign, name, word = {True: ("✓", "yes", "yes"), False: ("✗", "no", "no"), None: ("-", "open", "not evaluable")}[ok]
    return f'<span class="mark {name}" role="img" aria-label="{word}">{sign}</span>'


def page(title: str, body: str) -> str:
    """Make the whole document; nothing in it is fetched from anywhere."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


_CSS = """
:root { --ink: #1f2933; --quiet: #66727f; --line: #e4e7eb; --main: #2f6690; --alert: #c8553d; --soft: #c3d5e2;
  --paper: #fff; --yes: #2c7a4b; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #dde3ea; --quiet: #93a0ae; --line: #2d3640; --main: #7fb2d9;
  --alert: #e8846d; --soft: #35536b; --paper: #14191f; --yes: #6cc18e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 16px; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 1.7rem; font-weight: 650; letter-spacing: -.01em; margin: 0 0 .4rem; line-height: 1.2; }
h2 { font-size: 1.2rem; font-weight: 650; margin: 0 0 .25rem; }
h3 { font-size: .95rem; font-weight: 650; margin: 1.8rem 0 .4rem; }
p { margin: .4rem 0 .9rem; max-width: 44rem; }
.lead, .asked, .absent { color: var(--quiet); }
.asked { margin-bottom: .2rem; }
.came { font-size: 1.02rem; }
.absent { font-size: .9rem; border-left: 3px solid var(--line); padding-left: .8rem; }
section { border-top: 1px solid var(--line); margin-top: 2.8rem; padding-top: 1.6rem; }
a { color: inherit; text-decoration-color: var(--quiet); text-underline-offset: .2em; }
.wide { overflow-x: auto; margin: .6rem 0 1rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; min-width: 50%; }
th { text-align: left; font-weight: 600; color: var(--quiet); border-bottom: 1px solid var(--quiet); }
th, td { padding: .32rem 1.1rem .32rem 0; vertical-align: top; }
td { border-bottom: 1px solid var(--line); overflow-wrap: anywhere; min-width: 3.5rem; }
td:first-child { white-space: nowrap; overflow-wrap: normal; }
.right { text-align: right; white-space: nowrap; }
.summary { width: 100%; font-size: .92rem; }
.summary td:first-child { font-weight: 600; }
.summary td:nth-child(2) { color: var(--quiet); }
.summary td:last-child, .summary th:last-child { padding-right: 0; min-width: 1.5rem; text-align: right; }
.mark { font-weight: 700; } .yes { color: var(--yes); } .no { color: var(--alert); } .open { color: var(--quiet); }
h2 .mark { margin-left: .35rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 10.5rem), 1fr));
  gap: .7rem 1.4rem; margin: .8rem 0 1.2rem; }
dt { font-size: .8rem; color: var(--quiet); }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 1rem 2rem; }
figure { margin: .8rem 0; overflow-x: auto; min-width: 0; }
figure > svg { display: block; width: 100%; height: auto; min-width: 27rem; max-width: 40rem; }
figure > svg.picture { max-width: none; min-width: 60rem; }
figure text { fill: var(--ink); }
svg path, svg line { stroke-linejoin: round; stroke-linecap: butt; }
.picture rect { fill: var(--paper); stroke: var(--quiet); stroke-width: 1; }
.picture rect.strong { stroke: var(--main); stroke-width: 2; }
.picture text { font-size: 11px; fill: var(--ink); }
.picture text.head { font-size: 12.5px; font-weight: 650; fill: var(--main); }
.picture .arrow { fill: none; stroke: var(--quiet); stroke-width: 1.2; }
.picture .tip { fill: var(--quiet); }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--quiet); font-size: .92rem; }
@media (max-width: 44rem) { main { padding: 1.5rem 1rem 3rem; }
  .summary thead { display: none; } .summary tr { display: grid; grid-template-columns: 1fr auto; padding: .6rem 0;
  border-bottom: 1px solid var(--line); } .summary td { border: 0; padding: 0; grid-column: 1; }
  .summary td:last-child { grid-column: 2; grid-row: 1; } }
@media print { section { break-inside: avoid; } details { display: none; } }
"""
