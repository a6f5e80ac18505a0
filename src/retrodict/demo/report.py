"""The report of the demo: ``report.json`` for machines, ``report.html`` for people, both from the same numbers.

The page is one file that fetches nothing: it can be mailed, archived and opened in ten years. A notebook was rejected
because it can be edited, and a dashboard because it has to be kept running.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrodict.demo.report_chapters import CHAPTERS, timings
from retrodict.demo.report_summary import SummaryRow, summary, summary_table
from retrodict.pages import render

__all__ = ["SummaryRow", "summary", "summary_table", "write_report"]

_TITLE = "One whole life of a model, on the flights of New York in 2013"
_LEAD = (
    "From raw files to an audited answer. Every number on this page was computed in this run; every mark below is "
    "computed from the numbers beside it."
)


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write ``report.json`` and ``report.html``; each appears whole or not at all.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    report : mapping
        Chapter to its numbers, as ``demo.life`` collects them. NaN and infinity become null.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = _plain(report)
    # The numbers first: they are what cannot be made again in a second.
    _write(folder / "report.json", json.dumps(plain, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    _write(folder / "report.html", _html(plain))


def _plain(value: Any) -> Any:
    """Return the same value with None for every float that JSON cannot say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _write(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(name).chmod(0o644)  # a temporary file is its owner's alone; a report is for others
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _html(report: Mapping[str, Any]) -> str:
    rows = dict(zip(CHAPTERS, summary(report), strict=True))
    sections = [(name, row, CHAPTERS[name](report[name], report)) for name, row in rows.items() if report.get(name)]
    return render("life.html", title=_TITLE, lead=_LEAD, rows=list(rows.items()), sections=sections,
                  timings=timings(report["timings"]) if report.get("timings") else [])  # fmt: skip
