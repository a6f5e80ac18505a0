"""The card of a model version says what the run and the registry say, and invents nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.cli.features_project import call
from tests.learning.test_timeless import written

from retrodict import Project
from retrodict.core.errors import InputError


class Words(HTMLParser):
    """Text of a page; an error where tags do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def credit(tmp_path: Path) -> Path:
    written(tmp_path, 'GroupSplit(by="customer")')
    path = tmp_path / "definitions.py"
    path.write_text(
        path.read_text().replace('gates=["auc >= 0.6"]', 'gates=["auc >= 0.6", "leaks = 0"], owner="<ana> & co"')
    )
    with Project(tmp_path, actor="ana") as project:
        project.data.ingest("applications", tmp_path / "applications.csv")
        project.train("credit")
    return tmp_path


def test_a_card_says_what_the_run_says(credit: Path) -> None:
    """Every number is one of the run or the registry; what nobody said or measured is a limit."""
    with Project(credit, actor="ben") as project:
        version, card = project.models.get("credit@1"), project.models.card("credit@1")
        run = project.runs.get(f"run:{version.run}").record
        body = json.loads(json.dumps(card.to_dict()))["sections"]
        metrics = {row["metric"]: row["value"] for row in body["Metrics of the test rows"]}
        assert metrics == {name: value for name, value in run.metrics.items() if name in metrics}
        assert set(metrics) == set(run.metrics)
        assert body["Data"]["rows"] == run.data["rows"]
        assert body["Data"]["split"]["kind"] == "GroupSplit"
        assert [row["feature"] for row in body["Features"]] == ["amount", "months", "purpose", "age", "burden__rate"]
        assert body["Features"][-1]["made from"] == "function burden"
        assert {row["gate"]: row["status"] for row in body["Gates"]} == {"auc >= 0.6": "pass", "leaks = 0": "pass"}
        assert body["Leaks"] == body["Judgements"] == "None."
        assert body["Calibration"]["reason"] == run.summary["calibration"]["reason"]
        limits = " ".join(row["limit"] for row in body["Limits"])
        assert "Fairness: not measured." in limits
        assert "Intended use: not said" in limits
        assert "Owner" not in limits
        assert "Nobody has judged this version yet." in limits
        assert "Rows have no time" in limits
        project.models.approve("credit@1", reason="pilot | first")
        after = project.models.card("credit").to_dict()["sections"]
        assert [(row["by"], row["approved"], row["reason"]) for row in after["Judgements"]] == [
            ("ben", True, "pilot | first")
        ]
        assert "Nobody" not in str(after["Limits"])


def test_a_card_counts_the_rows_of_the_last_fit(credit: Path) -> None:
    path = credit / "definitions.py"
    path.write_text(path.read_text().replace('baseline_group="purpose")', 'baseline_group="purpose", refit=True)'))
    with Project(credit, actor="ana") as project:
        run = project.train("credit")
        rows = run.record.data["rows"]
        limits = str(project.models.card(run.version.ref).to_dict()["sections"]["Limits"])
        assert f"Learned from {rows['train'] + rows['validate']:,} rows and judged on {rows['test']:,}" in limits


def test_a_card_is_markdown_and_a_page(credit: Path) -> None:
    """Both have every title and number, and no name of an owner becomes a tag or a column."""
    with Project(credit, actor="ben") as project:
        project.models.approve("credit@1", reason="pilot | first")
        card = project.models.card("credit@1")
        auc = f"{project.models.get('credit@1').metrics['auc']:.4f}"
        words = Words()
        words.feed(card.html())
        page = " ".join(words.texts)
        for title in card.sections:
            assert f"## {title}\n" in card.markdown()
            assert title in page
        assert auc in card.markdown()
        assert auc[:5] in page
        assert "<ana>" not in card.markdown() + card.html()
        assert "<ana> & co" in page
        tables = [line for line in card.markdown().splitlines() if line.startswith("| ")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables if "pilot" in line} == {5}


def test_the_page_draws_the_pictures_of_the_run(credit: Path) -> None:
    """Inline, without a script, and no id stands twice."""
    with Project(credit, actor="ben") as project:
        page = project.models.card("credit@1").html()
    assert page.count("<svg") == 4
    assert "<script" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^")]+)\)', page)) <= {
        pair for name in ids for pair in ((name, ""), ("", name))
    }


def test_the_command_writes_a_file(credit: Path) -> None:
    """By its ending; another one is refused."""
    said = call("models", "card", "credit@1", "--output", credit / "card.html", "--project", credit)
    assert said["model"] == "credit@1"
    assert (credit / "card.html").read_text().lstrip().lower().startswith("<!doctype html>")
    with Project(credit, actor="ben") as project:
        project.models.card("credit@1", output=credit / "card.md")
        assert (credit / "card.md").read_text().startswith("# credit@1\n")
        with pytest.raises(InputError, match=r"ends in .html or .md; got '.pdf'"):
            project.models.card("credit@1", output=credit / "card.pdf")
