"""From a file and the name of a column to a version: what is chosen for the user, and that it is written down."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from retrodict import Model, Project, RandomSplit, TimeSplit
from retrodict.core.errors import DefinitionError, InputError, RefusedError
from retrodict.project.automl import add_model, make_project


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
        from retrodict.learning.frame import build_frame

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
    with pytest.raises(RefusedError, match="a project of its own"):
        make_project(folder, tmp_path / "loans.csv", "Bad", actor=None)
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
    with Project(tmp_path / "loans", actor="ben") as project:
        (run,) = project.runs.list(model="loans_bad")
        assert run.record.kind == "auto"
        assert run.replay().verdict == "exact"
        assert project.models.card("loans_bad@1") is not None
