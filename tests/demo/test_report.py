"""The report of the demo: what it says follows from the numbers, and the page needs nothing but itself."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from retrodict.core.display import text_of
from retrodict.demo.report import LifeReport, summary, write_report

EVIL = "<script>alert('1 & 2')</script>"
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """Counts what opens, and remembers ids, text, and what was closed that was not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.text: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.ids.update(str(value) for name, value in attrs if name == "id")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.ids.update(str(value) for name, value in attrs if name == "id")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def written(folder: Path, report: dict[str, Any]) -> str:
    write_report(folder, report)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_json_keeps_chapters_and_order(tmp_path: Path, report: dict[str, Any]) -> None:
    """The file holds every chapter in the order given, and null where there was NaN."""
    write_report(tmp_path, report)
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(found) == list(report)
    assert found["rollout"]["rollback_first_answer_ms"] is None
    del found["rollout"], report["rollout"]
    assert found == json.loads(json.dumps(report))


def test_files_appear_whole(tmp_path: Path, report: dict[str, Any]) -> None:
    """A report that cannot be written leaves the earlier one as it was, and no temporary file."""
    write_report(tmp_path, report)
    before = (tmp_path / "report.json").read_bytes()
    with pytest.raises(AttributeError):
        write_report(tmp_path, {**report, "ingest": object()})
    with pytest.raises(UnicodeEncodeError):
        write_report(tmp_path, {**report, "note": "\ud800"})
    assert (tmp_path / "report.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_page_is_well_formed(tmp_path: Path, report: dict[str, Any]) -> None:
    """What opens is closed in order, no id occurs twice, and every link of the summary has its section."""
    text = written(tmp_path, report)
    page = Page(text)
    assert not page.open
    assert not page.wrong
    assert page.seen["section"] == len(report)
    assert {name for name, count in page.ids.items() if count > 1} == set()
    assert {found[1] for found in re.finditer(r'(?:href="|url\()#([^")]+)', text)} <= set(page.ids)


def test_page_fetches_nothing(tmp_path: Path, report: dict[str, Any]) -> None:
    """No address but the names of XML namespaces, no script, no style sheet or picture from elsewhere."""
    text = written(tmp_path, report)
    rest = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "//" not in rest
    assert "@import" not in rest
    assert not {"script", "link", "img", "iframe", "object"} & set(Page(text).seen)


def test_every_plot_is_there(tmp_path: Path, report: dict[str, Any]) -> None:
    """Ladder, calibration, leakage, four months' plots, one drift, latency, rollout and timings."""
    page = Page(written(tmp_path, report))
    assert page.seen["svg"] == page.seen["figure"] == 11
    assert "Not evaluable: 7 rows are too few." in page.text


def test_text_is_escaped(tmp_path: Path, report: dict[str, Any]) -> None:
    """Markup in a name, a reason or a key is shown, never interpreted."""
    report["ingest"]["flights"]["reasons"] = {EVIL: 3}
    report["drift"]["months"][EVIL] = report["drift"]["months"].pop("2013-10")
    report["training"]["gates"][0]["reason"] = EVIL
    page = Page(written(tmp_path, report))
    assert not page.seen["script"]
    assert not page.wrong
    assert sum(EVIL in text for text in page.text) >= 5


def test_without_matplotlib(tmp_path: Path, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each plot is replaced by a sentence with the install line."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(written(tmp_path, report))
    assert page.seen["svg"] == 0
    assert sum("pip install 'retrodict[plots]'" in text for text in page.text) == 11


def test_numbers_of_a_good_life_are_all_checked(report: dict[str, Any]) -> None:
    """Every chapter has its row, and each mark is a yes."""
    rows = summary(report)
    assert [row.chapter.replace(" ", "_") for row in rows] == [name for name in report if name != "timings"]
    assert [row.chapter for row in rows if row.ok is not True] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ingest.flights.accepted", 96),
        ("features.mismatches", 1),
        ("leakage.auc_naive_in_production", 0.71),
        ("training.ladder.verdict.low", -0.01),
        ("training.gates.0.status", "not evaluable"),
        ("serving.errors", 1),
        ("serving.answered_not_logged", 1),
        ("serving.logged_twice", 1),
        ("parity.mismatches", 1),
        ("parity.scores.mismatches", 1),
        ("outcomes.counts.known", 2849),
        ("outcomes.months.1.metrics.auc.value", None),
        ("drift.months.2013-09.psi", None),
        ("rollout.failed_requests", 1),
        ("rollout.rolled_back", None),
        ("lineage.approvals", []),
        ("replay_decision.more_exact", 24),
        ("replay_run.exact", False),
        ("audit.findings", [{"kind": "k", "where": "w", "detail": "d"}]),
        ("audit.tamper_detected", False),
    ],
)
def test_one_wrong_number_is_a_cross(report: dict[str, Any], path: str, value: Any) -> None:
    """A number that says no turns its own chapter's mark, and no other."""
    changed = deepcopy(report)
    *way, last = path.split(".")
    part: Any = changed
    for step in way:
        part = part[int(step)] if isinstance(part, list) else part[step]
    part[last] = value
    assert [row.chapter.replace(" ", "_") for row in summary(changed) if row.ok is False] == [way[0] if way else last]


def test_nothing_to_judge_is_neither_yes_nor_no(report: dict[str, Any]) -> None:
    """An absent chapter and one without a single comparison are not evaluable."""
    del report["leakage"]
    report["parity"]["values"] = 0
    assert [row.chapter for row in summary(report) if row.ok is None] == ["leakage", "parity"]


def test_page_of_an_unfinished_life(tmp_path: Path, report: dict[str, Any]) -> None:
    """Chapters that are absent have no section, and the page is still written."""
    for name in ("lineage", "audit", "timings"):
        del report[name]
    assert Page(written(tmp_path, report)).seen["section"] == len(report)


def test_lineage_of_a_fallback(tmp_path: Path, report: dict[str, Any]) -> None:
    """An answer without a model has no model in its lineage, and its row says what is absent."""
    assert any("model:late@1" in text for text in Page(written(tmp_path, report)).text)
    kept = {name: report["lineage"][name] for name in ("decision", "log", "policy")}
    report["lineage"] = {**kept, "fallback": {"step": "rules", "why": "no model"}}
    report["lineage"]["log"] = {"stream": "decisions", "offset": 1, "sealed": False}
    page = Page(written(tmp_path, report))
    assert "sealed: no" in page.text
    assert not any("model:late@1" in text for text in page.text)
    assert next(row for row in summary(report) if row.chapter == "lineage").ok is False


def test_the_terminal_says_the_same(report: dict[str, Any]) -> None:
    """The table for the terminal has the rows of the page, brackets and all."""
    text = text_of(LifeReport(report, Path("demo-report")).blocks(), width=300)
    for row in summary(report):
        assert f"{row.result}" in text
    assert text.count("✓") == len(summary(report))
