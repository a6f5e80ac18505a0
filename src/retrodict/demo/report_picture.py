"""The lineage of one answer as a picture: boxes and arrows from what ``trace_decision`` found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from retrodict.core.identity import short

__all__ = ["draw_lineage"]

_WIDTH, _LINE, _HEAD, _GAP, _CORRIDOR = 240, 17, 30, 22, 54
# Widths in the widest usual font at 11 pixels; the reader's own may be narrower, never much wider.
_WIDE, _NARROW = 7.6, 6.5
_SHOWN = 6

Trace = Mapping[str, Any]


@dataclass(slots=True)
class _Box:
    name: str
    title: str
    lines: list[str]
    x: int = 0
    y: int = 0

    @property
    def height(self) -> int:
        return _HEAD + _LINE * len(self.lines) + 8

    @property
    def middle(self) -> int:
        return self.y + self.height // 2


# What points at what, and in which role: read from right to left, from the answer to what is behind it.
_ARROWS = [
    ("log", "answer"),
    ("features", "answer"),
    ("model", "answer"),
    ("policy", "answer"),
    ("rows", "features"),
    ("run", "model"),
    ("approvals", "model"),
    ("data", "run"),
    ("code", "run"),
    ("environment", "run"),
]


def draw_lineage(trace: Trace) -> str:
    """Draw what stands behind an answer.

    Parameters
    ----------
    trace : mapping
        What ``serving.lineage.trace_decision`` returns. A part it does not have (a fallback has no model) has no box.

    Returns
    -------
    str
        SVG whose colours are variables of the page.
    """
    columns = [
        [_answer(trace["decision"])],
        [*_features(trace), *_model(trace), _policy(trace["policy"]), _log(trace["log"])],
        [*_rows(trace), *_run(trace), *_approvals(trace)],
        [
            *_refs(trace, "data", "training data"),
            *_refs(trace, "code", "code"),
            *_refs(trace, "environment", "environment"),
        ],
    ]
    height = max(_column_height(column) for column in columns)
    for number, column in enumerate(columns):
        _place(column, number * (_WIDTH + _CORRIDOR) + 1, height)
    boxes = {box.name: box for column in columns for box in column}
    width = len(columns) * (_WIDTH + _CORRIDOR) - _CORRIDOR + 2
    parts = [_arrow(boxes[source], boxes[target]) for source, target in _ARROWS if source in boxes and target in boxes]
    parts += [_draw(box) for box in boxes.values()]
    return (
        f'<svg class="picture" role="img" aria-label="Lineage of one answer" viewBox="0 0 {width} {height + 2}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _column_height(column: Sequence[_Box]) -> int:
    return sum(box.height for box in column) + _GAP * (len(column) - 1) if column else 0


def _place(column: Sequence[_Box], x: int, height: int) -> None:
    """Stack the boxes of a column, the whole of it centred."""
    y = 1 + (height - _column_height(column)) // 2
    for box in column:
        box.x, box.y = x, y
        y += box.height + _GAP


def _draw(box: _Box) -> str:
    strong = ' class="strong"' if box.name == "answer" else ""
    texts = [f'<text class="head" x="{box.x + 12}" y="{box.y + 21}">{escape(box.title)}</text>']
    for number, line in enumerate(box.lines):
        y = box.y + _HEAD + _LINE * number + 13
        texts.append(f'<text x="{box.x + 12}" y="{y}">{escape(_fit(line))}<title>{escape(line)}</title></text>')
    frame = f'<rect{strong} x="{box.x}" y="{box.y}" width="{_WIDTH}" height="{box.height}" rx="4"/>'
    return f"<g>{frame}{''.join(texts)}</g>"


def _fit(line: str) -> str:
    """Shorten hashes, and cut what would run over the edge of a box."""
    line = re.sub(r"[0-9a-f]{64}", lambda found: short(found[0]), line)
    room = _WIDTH - 24.0
    for place, letter in enumerate(line):
        room -= _WIDE if letter.isupper() or letter.isdigit() else _NARROW
        if room < 0:
            return line[: place - 1] + "…"
    return line


def _arrow(source: _Box, target: _Box) -> str:
    """Curve from the left of what was used to the right of what came of it, ending in a head."""
    x1, y1, x2 = source.x, source.middle, target.x + _WIDTH
    # Arrows meet a box at their own height where they can, so that they do not run together.
    y2 = min(max(y1, target.y + 14), target.y + target.height - 14)
    bend = (x1 - x2) // 2
    line = f'<path class="arrow" d="M{x1} {y1} C{x1 - bend} {y1} {x2 + bend} {y2} {x2 + 7} {y2}"/>'
    return f'{line}<path class="tip" d="M{x2} {y2} l9 -4 v8 z"/>'


def _answer(decision: Trace) -> _Box:
    lines = [f"{decision['decision']}"]
    if decision.get("score") is not None:
        lines.append(f"score {decision['score']:.4f}")
    if decision.get("rule"):
        lines.append(f"rule {decision['rule']}")
    lines += [decision["time"], decision["id"].removeprefix("decision:"), *decision.get("reasons", [])]
    return _Box("answer", "the answer", lines)


def _log(log: Trace) -> _Box:
    lines = [f"{log['stream']}, offset {log['offset']:,}"]
    if log["sealed"]:
        lines += [
            f"leaf {log['leaf']:,} of {log['of']:,}",
            f"ledger entry {log['ledger_entry']:,}",
            f"root {log['root']}",
        ]
    else:
        lines.append("segment not sealed yet")
    return _Box("log", "decision log", lines)


def _policy(policy: Trace) -> _Box:
    lines = [policy["policy"], f"{policy['action']} by {policy['by']}", f"since {policy['in_force_since']}"]
    return _Box("policy", "policy in force", [*lines, policy["reason"]])


def _features(trace: Trace) -> list[_Box]:
    """One line per view with the rows its values were computed from, one for all derived values."""
    listed = trace.get("features") or []
    views: dict[str, list[Trace]] = {}
    for feature in listed:
        views.setdefault(feature.get("view") or "derived", []).append(feature)
    lines = []
    for view, values in views.items():
        name = view.removeprefix("view:").partition("@")[0]
        rows = max((value.get("rows") or 0) for value in values)
        lines.append(
            f"{name}: {len(values)}" + ("" if view == "derived" else f" from {rows:,} {'row' if rows == 1 else 'rows'}")
        )
    return [_Box("features", f"{len(listed)} feature values", _some(lines))] if listed else []


def _rows(trace: Trace) -> list[_Box]:
    """Table versions that the rows behind the features came with."""
    versions = {ref for feature in trace.get("features") or [] for ref in feature.get("from", [])}
    return [_Box("rows", "rows came with", _some(sorted(versions)))] if versions else []


def _model(trace: Trace) -> list[_Box]:
    if "model" not in trace:
        return []
    model = trace["model"]
    passed = sum(gate["status"] == "pass" for gate in model["gates"])
    lines = [model["model"], f"by {model['author']}", f"{passed} of {len(model['gates'])} gates passed"]
    return [_Box("model", "model", [*lines, f"artifact {model['artifact']}"])]


def _run(trace: Trace) -> list[_Box]:
    return [_Box("run", "training run", [trace["run"]["run"].removeprefix("run:")])] if "run" in trace else []


def _approvals(trace: Trace) -> list[_Box]:
    approvals = trace.get("approvals") or []
    lines = []
    for approval in approvals:
        word = "granted" if approval["granted"] else "refused"
        lines += [f"{word} by {approval['approver']}", approval["time"], approval["reason"]]
    return [_Box("approvals", "approval" if len(approvals) == 1 else "approvals", lines)] if approvals else []


def _refs(trace: Trace, part: str, title: str) -> list[_Box]:
    found = trace.get(part) or []
    return [_Box(part, title, _some(found))] if found else []


def _some(lines: Sequence[str]) -> list[str]:
    if len(lines) <= _SHOWN:
        return list(lines)
    return [*lines[: _SHOWN - 1], f"and {len(lines) - _SHOWN + 1} more"]
