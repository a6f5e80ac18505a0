"""The report of the demo: ``report.json`` for machines, ``report.html`` for people, both from the same numbers.

The page is one file that fetches nothing: it can be mailed, archived and opened in ten years. A notebook was rejected
because it can be edited, and a dashboard because it has to be kept running.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrodict.core.display import Block, Grid, Shown, plain, seconds
from retrodict.demo.report_chapters import CHAPTERS, timings
from retrodict.demo.report_summary import MARKS, SummaryRow, summary
from retrodict.pages import render

__all__ = ["LifeReport", "SummaryRow", "summary", "write_report"]

_TITLE = "One whole life of a model, on the flights of New York in 2013"
_LEAD = (
    "From raw files to an audited answer. Every number on this page was computed in this run; every mark below is "
    "computed from the numbers beside it."
)


class LifeReport(Shown):
    """What the demo measured.

    Attributes
    ----------
    chapters : mapping
        Chapter to its numbers, as ``demo.life`` collects them.
    folder : Path
        Where ``report.json`` and ``report.html`` are.
    """

    def __init__(self, chapters: Mapping[str, Any], folder: Path) -> None:
        self.chapters, self.folder = chapters, folder

    @property
    def ok(self) -> bool:
        """Whether no chapter says no."""
        return all(row.ok is not False for row in summary(self.chapters))

    def to_dict(self) -> dict[str, Any]:
        """Plain form."""
        return dict(self.chapters)

    def blocks(self) -> Sequence[Block | None]:
        """The summary, how long each chapter took, and where the page is."""
        rows = [(row.chapter, row.question, row.result, MARKS[row.ok]) for row in summary(self.chapters)]
        steps = [(name, seconds(duration)) for name, duration in self.chapters.get("timings", {}).items()]
        return [Grid(("chapter", "question?", "result", ""), rows), Grid(("chapter", "took>"), steps),
                f"Report: {self.folder / 'report.html'}"]  # fmt: skip


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write ``report.json`` and ``report.html``; each appears whole or not at all.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    report : mapping
        Chapter to its numbers. NaN and infinity become null.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = plain(report)
    page = _html(numbers)
    _write(folder / "report.json", json.dumps(numbers, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    _write(folder / "report.html", page)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _html(report: Mapping[str, Any]) -> str:
    rows = dict(zip(CHAPTERS, summary(report), strict=True))
    sections = [(name, row, CHAPTERS[name](report[name], report)) for name, row in rows.items() if report.get(name)]
    return render("life.html", title=_TITLE, lead=_LEAD, rows=list(rows.items()), sections=sections,
                  timings=timings(report["timings"]) if report.get("timings") else [])  # fmt: skip
