"""The page of a monitor's report."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from retrodict.core.statistics.drift import DriftVerdict
from retrodict.evaluation.metrics import Metric
from retrodict.monitoring.drift import DriftReport, FeatureDrift
from retrodict.monitoring.page import write_report
from retrodict.monitoring.performance import Slice
from retrodict.monitoring.periods import periods_between
from retrodict.monitoring.report import MonitorReport
from retrodict.monitoring.triggers import TriggerResult
from retrodict.monitoring.views import ViewCounts

SEPTEMBER, OCTOBER = periods_between(1_377_993_600_000_000, 1_383_264_000_000_000, "month")[:2]
NAMES = ("label_rate", "mean_score", "auc", "brier", "calibration_error", "calibration_ratio")


def slice_of(by: str | None = None, value: str | None = None, decisions: int = 100) -> Slice:
    metrics = tuple(Metric(name, 0.25, None, decisions) for name in NAMES)
    return Slice(SEPTEMBER, True, by, value, decisions, 90, 10, 0, 0, 0, metrics, ())


def report_of(*slices: Slice, drifts: dict[str, DriftReport]) -> MonitorReport:
    trigger = TriggerResult("trigger:m@1", "retrain", "psi > 0.1", "quiet", "psi is 0.05", "2013-09", {})
    return MonitorReport("m", "late", SEPTEMBER.end, "month", "revision:1", "late@1", {"known": 90}, slices, drifts,
                         [trigger], "ab" * 32, {}, ["1 of 3 decisions carry no key"])  # fmt: skip


@pytest.fixture
def drifts() -> dict[str, DriftReport]:
    verdicts = {
        name: FeatureDrift(DriftVerdict("drift", f"{name} moved", psi, 0.01, 0.001, 0.1, 500, 100))
        for name, psi in (("small", 0.15), ("<b>", 0.4))
    }
    return {
        "2013-09": DriftReport("late@1", None, 100, 0, {}, verdicts, None, None),
        "2013-10": DriftReport("late@1", "7 rows are too few", 7, 0, {}, {}, None, None),
    }


def test_the_page_has_performance_segments_drift_and_triggers(tmp_path: Path, drifts: dict[str, DriftReport]) -> None:
    """Numbers of each period and group, the worst feature first, and why a period is not evaluable."""
    path = tmp_path / "reports" / "m.html"
    write_report(path, report_of(slice_of(), slice_of("carrier", "AA"), drifts=drifts), threshold=0.1)
    text = path.read_text(encoding="utf-8")
    assert text.index("&lt;b&gt;</td>") < text.index("small</td>")
    assert "<b>" not in text
    for part in ("m, as of 2013-10-01", "By carrier", "psi is 0.05", "2013-10: not evaluable, 7 rows are too few.",
                 "report:abab", "0.250</td>", "Area under the ROC curve", "1 of 3 decisions", "<svg"):  # fmt: skip
        assert part in text


def test_without_decisions_the_page_says_so(tmp_path: Path) -> None:
    """Periods without decisions are no rows."""
    write_report(tmp_path / "m.html", report_of(slice_of(decisions=0), drifts={}), threshold=0.1)
    assert (tmp_path / "m.html").read_text(encoding="utf-8").count("There is no decision yet.") == 2


def test_without_matplotlib_the_page_has_the_install_line(
    tmp_path: Path, drifts: dict[str, DriftReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table stands without its figure."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_report(tmp_path / "m.html", report_of(slice_of(), drifts=drifts), threshold=0.1)
    text = (tmp_path / "m.html").read_text(encoding="utf-8")
    assert "pip install" in text
    assert "<svg" not in text


def test_no_table_is_empty_and_no_date_can_wrap(tmp_path: Path, drifts: dict[str, DriftReport]) -> None:
    """Weeks read as their day and length, metrics that nobody has are no columns, views have their table."""
    week = periods_between(1_377_993_600_000_000, 1_378_000_000_000_000, "7d")[0]
    part = replace(slice_of(), period=week, metrics=tuple(Metric(n, None, "too few", 3) for n in NAMES))
    views = {week.name: ViewCounts(4, {"habits": {"no_state": 3}}, 2)}
    report = replace(report_of(part, drifts={week.name: drifts["2013-09"]}), views=views, counts={"stale_fallbacks": 2})
    write_report(tmp_path / "m.html", report, threshold=0.1)
    text = (tmp_path / "m.html").read_text(encoding="utf-8")
    assert "<td>2013-08-29 (7d)</td>" in text
    assert week.name not in text
    assert "calibration ratio" not in text.split("Drift</h2>")[0].split("Performance</h2>")[1]
    assert not re.search(r"<tbody>\s*</tbody>|<dl>\s*</dl>", text)
    assert "2 decisions fell back" in text
    assert "no_state" in text.split("Views that were not simply read")[1]
