"""From a file and the name of a column to a version: what is chosen for the user, and that it is written down."""

from __future__ import annotations

import csv
import random
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from retrodict import Model, Project, RandomSplit, TimeSplit
from retrodict.core.errors import DefinitionError, InputError, RefusedError
from retrodict.learning.frame import build_frame
from retrodict.project.automl import add_model, drafted, make_project


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def loans(count: int = 120) -> list[dict[str, object]]:
    rng = random.Random(4)
    rows = []
    for number in range(count):
        amount = round(rng.uniform(100, 900), 2)
        rows.append({
            "Loan Nr": f"L{number}", "amount": amount, "months": rng.randint(3, 48),
            "plz": f"0{rng.randint(1000, 9999)}",
            "note": f"text {number}", "agreed": rng.choice(["true", "false"]),
            "sent": (datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number)).isoformat(),
            "Bad": int(amount + rng.gauss(0, 150) > 500), "grade": rng.choice("ABC"),
        })  # fmt: skip
    return rows


def made(tmp_path: Path, target: str, rows: list[dict[str, object]] | None = None, **options: object) -> Model:
    folder = tmp_path / "loans"
    name = make_project(folder, write(tmp_path / "loans.csv", rows or loans()), target, actor="ana")
    settings = {"budget": "1m", "time": None, "known_at": None, "exclude": (), **options}
    with Project(folder, actor="ana") as project:
        model = add_model(project, name, target, **settings)
    with Project(folder, actor="ana") as project:
        assert project.data.read("loans").num_rows == len(rows or loans())
        return project.definitions.get(Model, model)


def test_types_and_the_key_are_read_off_the_values(tmp_path):
    model = made(tmp_path, "Bad")
    table = model.label.table
    assert tuple(table.key) == ("Loan Nr",)
    assert dict(table.columns) == {"amount": "float", "months": "int", "agreed": "bool", "sent": "time", "Bad": "int"}


@pytest.mark.parametrize(("target", "task"), [("Bad", "binary"), ("grade", "multiclass"), ("amount", "regression")])
def test_the_task_follows_from_the_values_of_the_target(tmp_path, target, task):
    model = made(tmp_path, target)
    with Project(tmp_path / "loans", actor="ana") as project:
        frame = build_frame(project.workspace.tables, model, {"loans": 0})
    assert frame.target.task == task
    assert target not in frame.features
    assert "Loan Nr" not in frame.features
    assert "note" not in frame.features  # of which each row has its own
    assert {"months", "agreed", "plz"} <= {*frame.features} | {"plz"}


def test_rows_are_split_at_random_or_where_there_is_a_time_in_time(tmp_path):
    assert isinstance(made(tmp_path, "Bad").recipe.split, RandomSplit)
    other = tmp_path / "timed"
    other.mkdir()
    model = made(other, "Bad", time="sent")
    assert isinstance(model.recipe.split, TimeSplit)
    assert model.decide_at == "sent"
    split = model.recipe.split.resolve()
    last = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=119)
    assert split.test_end > last.timestamp() * 1e6


def test_rows_that_nothing_tells_apart_are_numbered(tmp_path):
    rows = [{"x": 1.5 + number % 7, "y": number % 3} for number in range(80)]
    model = made(tmp_path, "y", rows)
    assert tuple(model.label.table.key) == ("row",)


def test_columns_can_be_left_out_and_a_second_time_changes_nothing(tmp_path):
    model = made(tmp_path, "Bad", exclude=("plz",))
    folder = tmp_path / "loans"
    text = (folder / "definitions.py").read_text()
    assert '"plz"' in text
    assert '"note"' in text
    with Project(folder, actor="ana") as project:
        add_model(project, "loans", "Bad", budget="5m", time=None, known_at=None, exclude=())
    assert (folder / "definitions.py").read_text() == text
    assert model.recipe.budget == "1m"


def test_what_cannot_be_is_refused_with_nothing_half_written(tmp_path):
    made(tmp_path, "Bad")
    folder = tmp_path / "loans"
    before = (folder / "definitions.py").read_text()
    with pytest.raises(RefusedError, match="a project of its own"), drafted(folder, "loans.csv", "Bad"):
        raise AssertionError
    with Project(folder, actor="ana") as project:
        with pytest.raises(InputError, match="grade"):
            add_model(project, "loans", "grad", budget="1m", time=None, known_at=None, exclude=())
        with pytest.raises(InputError, match="instants"):
            add_model(project, "loans", "grade", budget="1m", time="months", known_at=None, exclude=())
    assert (folder / "definitions.py").read_text() == before
    listed = before.replace("loans = Table(", "tables = [Table(").replace("})\n", "})]\n", 1)
    (folder / "definitions.py").write_text(listed.replace(", loans, ", ", tables[0], "))
    with Project(folder, actor="ana") as project, pytest.raises(DefinitionError, match="Add these lines by hand"):
        add_model(project, "loans", "grade", budget="1m", time=None, known_at=None, exclude=())


def automl(tmp_path: Path, rows: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, **options: object) -> str:
    """Definitions that automl writes, without the training."""
    monkeypatch.setattr(Project, "train", lambda self, model: model)
    source = write(tmp_path / "own.csv", rows)
    Project.automl(source, folder=tmp_path / "own", actor="ana", **{"target": "Bad", "budget": "1m", **options})
    return (tmp_path / "own" / "definitions.py").read_text()


@pytest.mark.parametrize(
    ("values", "yes"),
    [(("yes", "no"), "yes"), (("NO", "YES"), "YES"), (("y", "n"), "y"), (("nein", "ja"), "ja"), (("t", "f"), "t"),
     (("J", "N"), "J")],
)  # fmt: skip
def test_of_two_texts_that_mean_yes_and_no_the_yes_is_predicted_and_written_down(tmp_path, monkeypatch, values, yes):
    rows = [{**row, "Bad": values[number % 2]} for number, row in enumerate(loans())]
    automl(tmp_path, rows, monkeypatch)
    with Project(tmp_path / "own", actor="ana") as project:
        assert project.definitions.get(Model, "own_bad").label.expression == f"\"Bad\" = '{yes}'"


def test_an_expression_is_a_target_whose_columns_are_no_features(tmp_path, monkeypatch):
    automl(tmp_path, loans(), monkeypatch, target="amount > 500 and grade = 'A'")
    with Project(tmp_path / "own", actor="ana") as project:
        model = project.definitions.get(Model, "own_amount_500_and_grade_a")
        frame = build_frame(project.workspace.tables, model, {"own": 0})
    assert frame.target.task == "binary"
    assert not {"amount", "grade"} & {*frame.features}
    truth = sum(row["amount"] > 500 and row["grade"] == "A" for row in loans())
    assert frame.labels.sum() == truth
    names = []
    for target in ("months > 5", "months < 5", "months > 5"):
        with Project(tmp_path / "own", actor="ana") as project:
            names.append(add_model(project, "own", target, budget="1m", time=None, known_at=None, exclude=()))
    assert names == ["own_months_5", "own_months_5_other", "own_months_5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "nosuch"}, "nosuch"),
        ({"target": "nosuch > 3"}, "nosuch"),
        ({"target": "amount >"}, "target"),
        ({"time": "months", "exclude": "asked"}, "'months': 'time'"),
        ({"time": "asked"}, "column asked: dates must be written year first"),
        ({}, "column asked: dates must be written year first.*--exclude asked"),
        ({"target": "note", "exclude": "asked"}, "must have 2 to 1,000|note"),
        ({"target": "sent", "exclude": "asked"}, "no time to an event.*horizons=.*--target 'sent is not null'"),
    ],
)
def test_nothing_stays_of_an_automl_that_was_refused_and_the_next_one_works(tmp_path, monkeypatch, options, message):
    rows = [{**row, "asked": f"{number % 28 + 1:02}.03.2024"} for number, row in enumerate(loans() * 10)]
    for number, row in enumerate(rows):
        row["Loan Nr"], row["note"] = f"L{number}", f"text {number}"
    with pytest.raises((InputError, DefinitionError), match=message):
        automl(tmp_path, rows, monkeypatch, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["own.csv"]
    automl(tmp_path, rows, monkeypatch, exclude="asked")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own", "own.csv"]
    with Project(tmp_path / "own", actor="ana") as project:
        assert project.data.read("own").num_rows == len(rows)


def test_the_remedies_of_automl_work_when_they_are_pasted(tmp_path, monkeypatch):
    rows = [{**row, "Bad": ("it's", "good")[number % 2]} for number, row in enumerate(loans())]
    with pytest.raises(InputError, match="which is the yes") as refusal:
        automl(tmp_path, rows, monkeypatch)
    words = shlex.split(str(refusal.value).partition("Write ")[2].removesuffix("."))
    assert words[:2] == ["--target", "\"Bad\" = 'good'"]
    assert words[3:] == ["--target", "\"Bad\" = 'it''s'"]
    assert "= 'it''s'" in automl(tmp_path, rows, monkeypatch, target=words[4])
    with pytest.raises(RefusedError, match="a project of its own") as refusal:
        automl(tmp_path, rows, monkeypatch, target=words[4])
    first, second = re.findall(r"(?:another|table): (.*?)\.?$", str(refusal.value), flags=re.MULTILINE)
    assert shlex.split(first)[3:] == ["--target", words[4], "--project", f"{tmp_path}/own_2"]
    assert shlex.split(second) == ["retrodict", "automl", "own", "--target", words[4], "--project", f"{tmp_path}/own"]


def test_the_same_file_is_read_anew_where_types_are_declared_since(tmp_path):
    file = write(tmp_path / "loans.csv", loans())
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "retrodict.toml").write_text('[project]\nname = "own"\n')
    for columns, kind in (("", "string"), (', columns={"amount": "float"}', "double")):
        (folder / "definitions.py").write_text(
            f'from retrodict import Table\nloans = Table("loans", key="Loan Nr"{columns})\n'
        )
        for _ in range(2):  # the second time changes nothing
            with Project(folder, actor="ana") as project:
                project.data.ingest("loans", file, replace=True)
                assert str(project.data.read("loans").schema.field("amount").type) == kind
    with Project(folder, actor="ana") as project:
        assert len(project.data.history("loans")) == 2


@pytest.mark.slow
def test_the_command_makes_a_project_and_registers_a_version(tmp_path):
    write(tmp_path / "loans.csv", loans())
    command = [sys.executable, "-m", "retrodict", "automl", "loans.csv", "--target", "Bad", "--budget", "15s"]
    ended = subprocess.run([*command, "--actor", "ana"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "loans_bad@1" in ended.stdout
    assert re.search(r'label +"Bad" = 1\n', ended.stdout)
    with Project(tmp_path / "loans", actor="ben") as project:
        (run,) = project.runs.list(model="loans_bad")
        assert run.record.kind == "auto"
        assert run.replay().verdict == "exact"
        assert project.models.card("loans_bad@1") is not None
