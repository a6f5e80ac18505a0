"""Pieces of the pages of this room: one file each, nothing fetched, light and dark; what is a value is escaped here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

__all__ = ["amount", "bar", "chip", "escape", "facts", "page", "percent", "table"]


def amount(value: object) -> str:
    """Return a number for people: thousands apart, four digits; times without what is zero."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{value:.4g}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        if value == round(value) and abs(value) < 1e9:
            return f"{value:,.0f}"
        return (
            f"{value:,.4g}"
            if 1e-4 <= abs(value) < 1e4
            else f"{value:,.0f}"
            if 1e4 <= abs(value) < 1e9
            else f"{value:.3g}"
        )
    text = str(value)
    if len(text) >= len("2013-01-01T00:00:00Z") and text[10:11] == "T" and text.endswith("Z"):
        return f"{text[:10]} {text[11:16]}"
    return text


def percent(share: float) -> str:
    """Share of one as a percentage; what is not zero never reads as zero."""
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    if share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if share < 0.999 else ">99.9%"


def facts(values: Mapping[str, object]) -> str:
    """Names and values as a list of definitions; those of None are left out."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(amount(value))}</dd></div>"
        for name, value in values.items()
        if value is not None
    )
    return f"<dl>{items}</dl>"


def chip(text: str, kind: str = "") -> str:
    """Make a small label."""
    return f'<span class="chip {kind}">{escape(text)}</span>'


def bar(label: str, share: float, said: str, note: str = "") -> str:
    """One line of a list of bars; a note stands below its label."""
    width = max(0.0, min(100.0, 100 * share))
    below = f'<span class="note">{escape(note)}</span>' if note else ""
    return (
        f'<li><span class="label" title="{escape(label)}">{escape(label) or "<i>empty</i>"}</span>'
        f'<span class="track"><span style="width:{width:.2f}%"></span></span>'
        f'<span class="said">{escape(said)}</span>{below}</li>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Make a table; a heading that ends in ``>`` aligns its column to the right."""
    sides = [' class="right"' if name.endswith(">") else "" for name in head]
    names = "".join(
        f'<th scope="col"{side}>{escape(name.removesuffix(">"))}</th>' for side, name in zip(sides, head, strict=True)
    )
    lines = "".join(
        f"<tr>{''.join(f'<td{side}>{escape(amount(v))}</td>' for side, v in zip(sides, row, strict=True))}</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>'


def page(title: str, body: str) -> str:
    """Make the whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


# The same ink and paper as the demo's report, so that the pages of one installation look like one family.
_CSS = """
:root { --ink: #1f2933; --quiet: #66727f; --line: #e4e7eb; --main: #2f6690; --alert: #c8553d; --soft: #c3d5e2;
  --paper: #fff; --card: #fafbfc; --warm: #fbeeea; --yes: #2c7a4b; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #dde3ea; --quiet: #93a0ae; --line: #2d3640; --main: #7fb2d9;
  --alert: #e8846d; --soft: #35536b; --paper: #14191f; --card: #1a2027; --warm: #2f2220; --yes: #6cc18e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 16px; }
main { max-width: 76rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 1.7rem; font-weight: 650; letter-spacing: -.01em; margin: 0 0 .4rem; line-height: 1.2; }
h2 { font-size: 1.2rem; font-weight: 650; margin: 0 0 .6rem; }
h3 { font-size: 1rem; font-weight: 650; margin: 0; overflow-wrap: anywhere; }
p { margin: .4rem 0 .9rem; max-width: 46rem; } .quiet { color: var(--quiet); font-size: .88rem; }
section { border-top: 1px solid var(--line); margin-top: 2.4rem; padding-top: 1.5rem; }
a { color: inherit; text-decoration-color: var(--quiet); text-underline-offset: .2em; }
code { font-size: .88em; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 8.5rem), 1fr)); gap: .6rem 1.2rem;
  margin: .8rem 0; } dt { font-size: .78rem; color: var(--quiet); }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.overview dd { font-size: 1.3rem; font-weight: 600; letter-spacing: -.01em; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22.5rem), 1fr)); gap: 1rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem 1.1rem;
  min-width: 0; break-inside: avoid; }
.card header { display: flex; flex-wrap: wrap; gap: .4rem; align-items: center; margin-bottom: .5rem; }
.card header h3 { margin-right: .25rem; }
.card dl { grid-template-columns: repeat(auto-fill, minmax(5.4rem, 1fr)); gap: .35rem .8rem; font-size: .88rem;
  margin: .6rem 0 0; } .card dt { font-size: .72rem; }
.chip { font-size: .72rem; border-radius: 1rem; padding: .05rem .55rem; border: 1px solid var(--line);
  color: var(--quiet); white-space: nowrap; } .chip.main { color: var(--main); border-color: var(--soft); }
.chip.alert { color: var(--alert); border-color: var(--alert); }
.chip.yes { color: var(--yes); border-color: var(--yes); }
.fill { height: 4px; border-radius: 2px; background: var(--alert); overflow: hidden; margin: .1rem 0 .6rem; }
.fill span { display: block; height: 100%; background: var(--soft); }
ul.bars, ul.findings { list-style: none; margin: .6rem 0 0; padding: 0; }
ul.bars li { display: grid; grid-template-columns: minmax(0, 9rem) 1fr 3.6rem; gap: .6rem; align-items: center;
  font-size: .82rem; line-height: 1.55; }
ul.bars .label { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
ul.bars .track { height: .5rem; border-radius: .25rem; background: var(--line); overflow: hidden; }
ul.bars .track span { display: block; height: 100%; background: var(--main); opacity: .8; }
ul.bars .said { text-align: right; color: var(--quiet); font-variant-numeric: tabular-nums; }
ul.bars.shapes .label { font-family: ui-monospace, Menlo, Consolas, monospace; }
ul.wide-bars li { grid-template-columns: 1fr 3.2rem; gap: .1rem .8rem; margin-bottom: .7rem; }
ul.wide-bars .label { grid-column: 1 / 3; white-space: normal; overflow-wrap: anywhere; }
ul.wide-bars .note { grid-column: 1 / 3; color: var(--quiet); font-size: .76rem; }
ul.findings { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .5rem; }
ul.findings li { border-left: 3px solid var(--line); padding: .35rem .8rem; font-size: .92rem; border-radius: .2rem;
  background: var(--card); overflow-wrap: anywhere; }
ul.findings li.warning { border-color: var(--alert); background: var(--warm); }
figure { margin: .4rem 0; overflow-x: auto; min-width: 0; } figure svg { display: block; width: 100%; height: auto; }
figure.wide-plot svg { width: auto; max-width: none; }
svg text { fill: var(--quiet); font-size: 10.5px; font-family: inherit; font-variant-numeric: tabular-nums; }
svg text.ink { fill: var(--ink); } svg .main { fill: var(--main); } svg .alert { fill: var(--alert); }
svg .soft { fill: var(--soft); } svg .line { stroke: var(--line); } svg .paper { fill: var(--paper); }
svg .curve { fill: none; stroke: var(--main); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.wide { overflow-x: auto; margin: .6rem 0 1rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; min-width: 50%; }
th { text-align: left; font-weight: 600; color: var(--quiet); border-bottom: 1px solid var(--quiet); }
th, td { padding: .32rem 1.1rem .32rem 0; vertical-align: top; }
td { border-bottom: 1px solid var(--line); overflow-wrap: anywhere; min-width: 3.5rem; }
.right { text-align: right; white-space: nowrap; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--quiet); font-size: .92rem; }
.scores { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 13rem), 1fr)); gap: 1rem;
  margin: 1.2rem 0; }
.score b { display: block; font-size: 1.8rem; font-weight: 650; letter-spacing: -.02em; line-height: 1.2; }
.score b.alert { color: var(--alert); }
.score b.open { font-size: 1.05rem; color: var(--quiet); font-weight: 500; line-height: 2; }
@media print { section, .card { break-inside: avoid; } main { padding: 0; } }
"""
