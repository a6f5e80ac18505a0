"""The lineage of one answer as a picture: boxes and arrows from what ``project.lineage`` gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from retrodict.core.identity import short
from retrodict.pages import render

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
    texts: list[str]
    x: int = 0
    y: int = 0

    @property
    def height(self) -> int:
        return _HEAD + _LINE * len(self.texts) + 8

    @property
    def middle(self) -> int:
        return self.y + self.height // 2

    @property
    def lines(self) -> list[tuple[int, str, str]]:
        """Height of each line, what fits into the box, and the whole of it."""
        return [(self.y + _HEAD + _LINE * n + 13, _fit(text), text) for n, text in enumerate(self.texts)]


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
        What ``decisions.lineage.trace_decision`` returns. A part it does not have (a fallback has no model) has no box.

    Returns
    -------
    str
        SVG whose colours are variables of the page.
    """
    columns = [[box for box in column if box.texts] for column in _columns(trace)]
    heights = [sum(box.height + _GAP for box in column) - _GAP for column in columns]
    for number, (column, height) in enumerate(zip(columns, heights, strict=True)):
        y = 1 + (max(heights) - height) // 2
        for box in column:
            box.x, box.y = number * (_WIDTH + _CORRIDOR) + 1, y
            y += box.height + _GAP
    boxes = {box.name: box for column in columns for box in column}
    arrows = [_arrow(boxes[source], boxes[target]) for source, target in _ARROWS if {source, target} <= boxes.keys()]
    width = len(columns) * (_WIDTH + _CORRIDOR) - _CORRIDOR + 2
    return render("lineage.html", boxes=boxes.values(), arrows=arrows, width=width, height=max(heights) + 2,
                  box_width=_WIDTH)  # fmt: skip


def _arrow(source: _Box, target: _Box) -> tuple[int, ...]:
    """Curve from the left of what was used to the right of what came of it: x and y of both ends, and its bend."""
    # Arrows meet a box at their own height where they can, so that they do not run together.
    height = min(max(source.middle, target.y + 14), target.y + target.height - 14)
    end = target.x + _WIDTH
    return source.x, source.middle, end, height, (source.x - end) // 2


def _fit(line: str) -> str:
    """Shorten hashes, and cut what would run over the edge of a box."""
    line = re.sub(r"[0-9a-f]{64}", lambda match: short(match[0]), line)
    room = _WIDTH - 24.0
    for place, letter in enumerate(line):
        room -= _WIDE if letter.isupper() or letter.isdigit() else _NARROW
        if room < 0:
            return line[: place - 1] + "…"
    return line


def _columns(trace: Trace) -> list[list[_Box]]:
    features, approvals = trace.get("features") or [], trace.get("approvals") or []
    versions = {ref for feature in features for ref in feature.get("from", [])}
    run = [trace["run"]["run"].removeprefix("run:")] if "run" in trace else []
    return [
        [_Box("answer", "the answer", _answer(trace["decision"]))],
        [
            _Box("features", f"{len(features)} feature values", _first(_views(features))),
            _Box("model", "model", _model(trace["model"]) if "model" in trace else []),
            _Box("policy", "policy in force", _policy(trace["policy"])),
            _Box("log", "decision log", _log(trace["log"])),
        ],
        [
            _Box("rows", "rows came with", _first(sorted(versions))),
            _Box("run", "training run", run),
            _Box("approvals", "approval" if len(approvals) == 1 else "approvals", _approvals(approvals)),
        ],
        [
            _Box("data", "training data", _first(trace.get("data") or [])),
            _Box("code", "code", _first(trace.get("code") or [])),
            _Box("environment", "environment", _first(trace.get("environment") or [])),
        ],
    ]


def _answer(decision: Trace) -> list[str]:
    score = [] if decision.get("score") is None else [f"score {decision['score']:.4f}"]
    rule = [f"rule {decision['rule']}"] if decision.get("rule") else []
    moment = [decision["time"], decision["id"].removeprefix("decision:")]
    return [str(decision["decision"]), *score, *rule, *moment, *decision.get("reasons", [])]


def _log(log: Trace) -> list[str]:
    start = f"{log['stream']}, offset {log['offset']:,}"
    if not log["sealed"]:
        return [start, "segment not sealed yet"]
    place = [f"leaf {log['leaf']:,} of {log['of']:,}", f"ledger entry {log['ledger_entry']:,}"]
    return [start, *place, f"root {log['root']}"]


def _policy(policy: Trace) -> list[str]:
    change = f"{policy['action']} by {policy['by']}"
    return [policy["policy"], change, f"since {policy['in_force_since']}", policy["reason"]]


def _model(model: Trace) -> list[str]:
    passed = sum(gate["status"] == "pass" for gate in model["gates"])
    gates = f"{passed} of {len(model['gates'])} gates passed"
    return [model["model"], f"by {model['author']}", gates, f"artifact {model['artifact']}"]


def _views(features: Iterable[Trace]) -> Iterable[str]:
    """One line per view with the rows its values were computed from, one for all derived values."""
    views: dict[str, list[int]] = {}
    for feature in features:
        view = (feature.get("view") or "derived").removeprefix("view:").partition("@")[0]
        views.setdefault(view, []).append(feature.get("rows") or 0)
    for view, counts in views.items():
        rows = max(counts)
        source = "" if view == "derived" else f" from {rows:,} {'row' if rows == 1 else 'rows'}"
        yield f"{view}: {len(counts)}{source}"


def _approvals(approvals: Iterable[Trace]) -> list[str]:
    words = {True: "granted", False: "refused"}
    return [line for a in approvals for line in (f"{words[a['granted']]} by {a['approver']}", a["time"], a["reason"])]


def _first(lines: Iterable[str]) -> list[str]:
    """The first few lines, and how many more there are."""
    listed = list(lines)
    return listed if len(listed) <= _SHOWN else [*listed[: _SHOWN - 1], f"and {len(listed) - _SHOWN + 1} more"]
