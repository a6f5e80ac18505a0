"""The own-project example: what the README prints is what lies in examples/own_project, and every command works."""

from __future__ import annotations

import csv
import json
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from retrodict.project import NAMESPACES, Project, find_namespace

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_project"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "README.md", ROOT / "docs" / "how-it-works.md"]


def commands() -> list[list[str]]:
    """Every retrodict line of the README that is to be typed."""
    return [shlex.split(line)[1:] for line in re.findall(r"^\$ (retrodict .*)$", README, flags=re.MULTILINE)]


@pytest.mark.parametrize(("fence", "name"), [("python", "definitions.py"), ("toml", "retrodict.toml")])
def test_the_readme_prints_the_file(fence: str, name: str) -> None:
    """To the letter, so that copying either gives the same project."""
    printed, *_ = re.findall(rf"^```{fence}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert printed == (EXAMPLE / name).read_text(encoding="utf-8")


def test_the_definitions_are_short() -> None:
    """Thirty lines say a whole project."""
    assert len((EXAMPLE / "definitions.py").read_text(encoding="utf-8").splitlines()) <= 30


def test_the_script_writes_the_committed_file(tmp_path: Path) -> None:
    """The data are what their script says, byte for byte."""
    runpy.run_path(str(EXAMPLE / "make_invoices.py"))["write"](tmp_path / "invoices.csv")
    assert (tmp_path / "invoices.csv").read_bytes() == (EXAMPLE / "invoices.csv").read_bytes()


def test_the_commands_of_the_readme_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Typed one after the other in a copy of the folder, they end with a model in force and an intact ledger."""
    from retrodict.cli.main import run

    copy = tmp_path / "own"
    copy.mkdir()
    for name in ("definitions.py", "retrodict.toml", "invoices.csv"):
        shutil.copy(EXAMPLE / name, copy / name)
    monkeypatch.chdir(copy)
    answers: dict[str, Any] = {}
    for arguments in commands():
        code = run([*arguments, "--json"])
        caught = capsys.readouterr()
        assert code == 0, f"{shlex.join(arguments)}\n{caught.out}\n{caught.err}"
        answers[arguments[0]] = json.loads(caught.out)
    assert list(answers) == ["ingest", "features", "train", "models", "deploy", "audit"]
    run(["deployments", "remind", "--json"])
    in_force = capsys.readouterr().out
    assert "late_payer@1" in in_force
    assert answers["audit"]["verified"] is True


def test_the_features_of_the_readme_work_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the example's files, as a program: two customers get what the table says of them by hand."""
    for name in ("definitions.py", "invoices.csv"):
        shutil.copy(EXAMPLE / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "definitions", raising=False)
    section = README.partition("## Only features")[2]
    code = re.findall(r"^```python\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)[0]
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    monkeypatch.delitem(sys.modules, "definitions")
    with (EXAMPLE / "invoices.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["customer"] == "adler" and row["paid"]]
    at = datetime(2025, 2, 2, tzinfo=UTC)
    seen = [
        (issued, float(row["days_late"]))
        for row in rows
        if (issued := _day(row["issued"])) < at and _day(row["paid"]) < at
    ]
    count = sum(issued >= at - timedelta(days=180) for issued, _ in seen)
    newest, late = max(seen)
    frame = names["p"].features.online(names["asked"], "payer_inputs", at=at).frame
    assert frame["habits__count_180d"].to_pylist() == [count, 0]
    assert frame["habits__latest_days_late"].to_pylist() == [late if at - newest <= timedelta(days=90) else None, None]
    assert count > 3


def _day(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture of the pages that lead to others."""
    found = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert found
    missing = [link for link in found if not (page.parent / link).exists()]
    assert missing == []


def test_the_index_lists_every_page() -> None:
    """A page that is not in the index is not found."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md")
    assert [name for name in pages if f"]({name})" not in index] == []


def test_the_floors_are_those_that_the_linter_holds() -> None:
    """The picture of how-it-works.md names the rooms of every layer, in order."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    page = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    drawn = [re.findall(r"(\w+)/", line) for line in re.findall(r"^ *\d+  (\w.*/.*)$", page, flags=re.MULTILINE)]
    assert drawn == [re.findall(r"retrodict\.(\w+)", layer) for layer in layers]


def test_the_page_has_every_method_of_the_face() -> None:
    """docs/python.md lists what exists under each namespace, and nothing else."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    listed = {name.removeprefix("project").strip("."): set(re.findall(r"`(\w+)`", methods.partition("; a ")[0]))
              for name, methods in re.findall(r"^\| `(\w[\w.]*)` \| (.*) \|$", page, flags=re.MULTILINE)}  # fmt: skip
    namespaces = {"Project": "", **{name: name for name in listed if name != "Project"}}
    assert set(namespaces) - {"Project"} == set(NAMESPACES)
    for title, name in namespaces.items():
        public = {each for each in dir(find_namespace(name)) if not each.startswith("_")}
        more = {"workspace"} if name == "" else set()
        assert listed[title] | set(NAMESPACES) == public | more | set(NAMESPACES), title


@pytest.mark.slow
def test_the_walk_of_the_readme_is_one_pipeline(tmp_path: Path) -> None:
    """The lines of docs/pipelines.md and the example end where the commands do; again, nothing is done."""
    page = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```text\n(from retrodict import Pipeline.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    for name in ("definitions.py", "retrodict.toml", "invoices.csv"):
        shutil.copy(EXAMPLE / name, tmp_path / name)
    with (tmp_path / "definitions.py").open("a", encoding="utf-8") as stream:
        stream.write("\n" + lines)
    with Project(tmp_path, actor="ana") as project:
        first = {step.step: step.status for step in project.pipelines.run("walk", parallel=2).steps}
        assert (first.pop("deploy_remind"), first.pop("audit")) == ("refused", "not run")
        assert set(first.values()) == {"finished"}
    with Project(tmp_path, actor="ben") as reviewer:
        reviewer.models.approve("late_payer@1", reason="beats the gate")
    with Project(tmp_path, actor="ana") as project:
        second = {step.step: step.status for step in project.pipelines.run("walk").steps}
        assert {step for step, status in second.items() if status == "finished"} == {"deploy_remind", "audit"}
        (deployment,) = project.policies.deployments("remind")
        assert deployment.deployment.model == "late_payer@1"
        (version,) = project.models.list()
        assert [(a.approver, a.granted) for a in version.approvals] == [("ben", True)]
        again = project.pipelines.run("walk")
        assert {step.step for step in again.steps if step.status == "finished"} == {"audit"}
        assert len(project.policies.deployments("remind")) == len(project.models.list()) == 1
        (tmp_path / "invoices.csv").unlink()
        refused = {step.step: step.status for step in project.pipelines.run("walk").steps}
        assert (refused["ingest_invoices"], refused["deploy_remind"], refused["audit"]) == (
            "failed",
            "not run",
            "not run",
        )
