"""Health: scores by hand from what was recorded; what was not evaluated is no success; and the three commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrodict.core.errors import InputError, NotFoundError
from retrodict.data.checks import RULES
from retrodict.data.ingest import ingest
from retrodict.data.profiling import (
    Health,
    health,
    health_history,
    health_html,
    health_png,
    profile,
    sparkline,
    suggest,
)
from retrodict.data.profiling.health import DIMENSIONS, dimension_of
from retrodict.data.validation import CheckResult
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict import Check, Table
sales = Table("sales", key="id", columns={"id": "int", "amount": "float", "at": "time"}, checks=[
    Check.not_null("amount", severity="low"),
    Check.between("amount", 0, 100),
    Check.mean("amount", None, 40, severity="low"),
    Check.drift("amount", severity="low"),
])
loose = Table("loose", columns={"id": "int"})
"""
HEAD = "id,amount,at\n"
GOOD = HEAD + "".join(f"{i},{i * 10},2024-01-01T10:00Z\n" for i in range(1, 5))
FLAWED = HEAD + "11,20,2024-01-02T10:00Z\n12,-5,2024-01-02T10:00Z\n12,300,2024-01-02T10:00Z\n13,,2024-01-02T10:00Z\n"


@pytest.fixture
def project(make_project: Callable[..., Workspace], tmp_path: Path) -> Workspace:
    made = make_project(DEFINITIONS)
    for name, text in (("good", GOOD), ("flawed", FLAWED)):
        (tmp_path / f"{name}.csv").write_text(text)
        ingest(made, "sales", tmp_path / f"{name}.csv")
    return made


def test_a_clean_batch_is_healthy(project: Workspace) -> None:
    """Every evaluable dimension is 1, and there is no timeliness without a check of it."""
    found = health(project, "sales", 0)
    assert (found.rows, found.quarantined, found.overall) == (4, 0, 1.0)
    assert found["timeliness"].value is None
    assert found["timeliness"].checks == ()


def test_scores_are_weighted_shares_of_rows(project: Workspace) -> None:
    """Each score follows from its checks by hand, and the checks say with which weight."""
    found = health(project, "sales")
    assert (found.version, found.rows, found.quarantined) == (1, 4, 2)
    by = {each.check: each for score in found.scores for each in score.checks}
    assert by["between(amount, 0, 100)"].score == 0.5
    assert by["not_null(amount)"].score == 0.75
    accuracy = [each for each in found["accuracy"].checks if each.score is not None]
    expected = sum(each.weight * (each.score or 0.0) for each in accuracy) / sum(each.weight for each in accuracy)
    assert found["accuracy"].value == pytest.approx(expected)
    assert {each.weight for each in accuracy} <= {1, 2, 4, 8}
    assert found["consistency"].value is not None
    assert found["consistency"].value < 1.0
    values = [score.value for score in found.scores if score.value is not None]
    assert found.overall == pytest.approx(sum(values) / len(values))


def result(rule: str, status: Any, severity: Any = "medium", **more: Any) -> CheckResult:
    return CheckResult(f"{rule}({severity})", rule, "schema", severity, status, **more)


def test_severity_weighs_and_whole_batches_count_as_one_or_none() -> None:
    """8 of a critical check that passed and 1 of a low one that failed; 2 of 4 rows of a medium one."""
    found = Health.of_results(
        [result("mean", "pass", "critical"), result("max", "fail", "low"), result("between", "fail", failed=2, rows=4)],
        table="t",
    )
    assert found["accuracy"].value == pytest.approx((8 * 1 + 1 * 0 + 2 * 0.5) / 11)
    assert found.overall == found["accuracy"].value


def test_what_was_not_evaluated_has_no_part() -> None:
    """A dimension whose only check could not be evaluated is not evaluable, and the check is still listed."""
    found = Health.of_results(
        [result("freshness", "not_evaluable", reason="no row"), result("not_null", "pass")], table="t"
    )
    assert found["timeliness"].value is None
    assert [each.reason for each in found["timeliness"].checks] == ["no row"]
    assert found.overall == 1.0
    assert Health.of_results([], table="t").overall is None


def test_every_rule_speaks_for_one_dimension() -> None:
    """Keys are consistency, nulls completeness, freshness timeliness, values accuracy; sql by its columns."""
    assert {dimension_of(result(rule, "pass")) for rule in RULES} == set(DIMENSIONS)
    assert dimension_of(result("type", "pass")) == "accuracy"
    assert dimension_of(result("new_key", "pass")) == "consistency"
    assert dimension_of(result("sql", "pass", columns=("a",))) == "accuracy"
    assert dimension_of(result("sql", "pass", columns=("a", "b"))) == "consistency"


def test_the_history_is_of_versions_with_checks(project: Workspace) -> None:
    """A version that only rearranges files has no checks, and the newest health stays that of the last batch."""
    project.tables.write(
        "sales", project.tables.read("sales"), mode="overwrite", metadata={"retrodict.mode": "compact"}
    )
    assert [each.version for each in health_history(project, "sales")] == [0, 1]
    assert health(project, "sales").version == 1
    with pytest.raises(NotFoundError, match="the version must have added a batch"):
        health(project, "sales", 2)
    with pytest.raises(
        NotFoundError, match=r"the table must have a version; got 'sale'. Did you mean the table 'sales"
    ):
        health(project, "sale")


def test_the_page_and_the_picture_show_the_history(project: Workspace, tmp_path: Path) -> None:
    """The page is self-contained and names each check; the picture is a PNG."""
    history = health_history(project, "sales")
    text = health_html([*history, replace(history[-1], table="<b>")])
    assert "<script" not in text
    assert "<b>" not in text.replace("<b>5", "").split("<h1>")[1].split("</h1>")[0]
    assert "between(amount, 0, 100)" in text
    assert "not evaluable" in text
    assert text.count("<svg") == 5
    health_png(history, tmp_path / "health.png")
    assert (tmp_path / "health.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="a page of health must have a version with checks"):
        health_html([])


def test_a_sparkline_is_as_long_as_the_history() -> None:
    """One sign per version; the lowest is at the foot only if it is low."""
    assert sparkline([1.0, 1.0]) == "██"
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([]) == ""


def test_a_version_of_a_table_is_profiled(project: Workspace) -> None:
    """A table and a version of it; system columns are left out, declared types are suggested."""
    assert profile((project, "sales@0")).rows == 4
    found = profile((project, "sales"))
    assert [column.name for column in found.columns] == ["id", "amount", "at"]
    assert found.name == "sales"
    assert found["at"].type == "time"
    assert suggest((project, "sales")) == []  # too few rows


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    from retrodict.cli.main import run as run_arguments

    capsys.readouterr()
    code = run_arguments([str(argument) for argument in arguments])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


def test_the_command_profiles_files_without_a_project(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file needs no project; the page is written, and --json is the profile with its findings."""
    path = tmp_path / "sales.csv"
    path.write_text(GOOD)
    code, out, _ = run(capsys, "data", "profile", path, "--html", tmp_path / "out" / "page.html", "--json")
    body = json.loads(out)
    assert (code, body["rows"]) == (0, 4)
    assert {"findings", "columns", "correlations"} <= set(body)
    assert (tmp_path / "out" / "page.html").read_text().startswith("<!doctype html>")
    code, out, _ = run(capsys, "data", "profile", path)
    assert "amount" in out
    code, _, err = run(capsys, "data", "profile", tmp_path / "absent.csv")
    assert code == 2
    assert "error" in err


def test_the_command_suggests_a_definition(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is written is a module that runs."""
    path = tmp_path / "sales.csv"
    path.write_text(HEAD + "".join(f"{i},{i % 7},2024-01-01T10:00Z\n" for i in range(50)))
    code, out, _ = run(capsys, "data", "suggest", path, "--output", tmp_path / "sales.py")
    assert code == 0
    assert "checks suggested from 50 rows" in out
    scope: dict[str, Any] = {}
    exec((tmp_path / "sales.py").read_text(), scope)
    assert scope["sales"].key == ("id",)
    code, out, _ = run(capsys, "data", "suggest", path)
    assert out.startswith("from retrodict import Check, Table")


def test_the_command_shows_health(capsys: pytest.CaptureFixture[str], project: Workspace, tmp_path: Path) -> None:
    """Scores for people and for programs, a history with its line, and a page."""
    where = ("--project", project.root)
    code, out, _ = run(capsys, "data", "health", "sales", *where)
    assert code == 0
    assert "sales@1" in out
    assert "not evaluable" in out
    assert "2 of 4 rows set aside" in out
    code, out, _ = run(capsys, "data", "health", "sales", "--history", "--html", tmp_path / "h.html", "--json", *where)
    assert [each["version"] for each in json.loads(out)["versions"]] == [0, 1]
    assert (tmp_path / "h.html").exists()
    code, out, _ = run(capsys, "data", "suggest", "sales", *where)
    assert 'key="id"' in out
    code, out, _ = run(capsys, "data", "profile", "sales@0", "--json", *where)
    assert json.loads(out)["origin"] == "dataset:sales@0"
