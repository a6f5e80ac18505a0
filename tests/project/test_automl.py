"""From a file and the name of a column to a version: what is chosen for the user, and that it is written down."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from retrodict import Model, Project, RandomSplit, TimeSplit
from retrodict.core.errors import BusyError, DefinitionError, InputError, RefusedError
from retrodict.learning.frame import build_frame
from retrodict.project.automl import _drafted, add_model, make_project
from retrodict.project.column_roles import choose_key, read_kinds
from retrodict.project.model_lines import Options
from retrodict.project.run_views import Run
from retrodict.stores._locks import FileLock


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
    folder.mkdir()
    name = make_project(folder, write(tmp_path / "loans.csv", rows or loans()), target, actor="ana")
    with Project(folder, actor="ana") as project:
        model, _ = add_model(project, name, target, Options(**{"budget": "1m", **options}))
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
    for options in (Options(), Options(budget="60s", exclude=("plz", "note", "Loan Nr"))):
        with Project(folder, actor="ana") as project:
            assert add_model(project, "loans", "Bad", options) == ("loans_bad", ())
    assert (folder / "definitions.py").read_text() == text
    assert model.recipe.budget == "1m"


@pytest.mark.parametrize(
    ("first", "second", "now"),
    [
        ({}, {"budget": "5m"}, {"budget": "5m"}),
        ({}, {"exclude": ("months", "grade")}, {"exclude": ("plz", "note", "months", "grade")}),
        ({"exclude": ("months",)}, {"exclude": ("grade",)}, {"exclude": ("months", "plz", "note", "grade")}),
        ({}, {"time": "sent"}, {"time": "sent", "known_at": "sent"}),
        ({}, {"time": "sent", "known_at": "told"}, {"time": "sent", "known_at": "told"}),
        ({"time": "sent"}, {"time": "sent", "known_at": "told"}, {"time": "sent", "known_at": "told"}),
        ({"time": "sent"}, {"time": "told"}, {"time": "told", "known_at": "told"}),
        ({"time": "sent", "known_at": "told"}, {"time": "sent", "budget": "2m"},
         {"time": "sent", "known_at": "told", "budget": "2m"}),
    ],
)  # fmt: skip
def test_other_options_the_next_time_are_written_into_the_lines_of_the_model(tmp_path, first, second, now):
    rows = [{**row, "told": row["sent"].replace("T00:", "T12:")} for row in loans()]
    made(tmp_path, "Bad", rows, **first)
    path = tmp_path / "loans" / "definitions.py"
    path.write_text(path.read_text().replace("    features=", "    description='by ana',  # hers\n    features="))
    with Project(tmp_path / "loans", actor="ana") as project:
        _, changes = add_model(project, "loans", "Bad", Options(**second))
        assert changes
    with Project(tmp_path / "loans", actor="ana") as project:
        model = project.definitions.get(Model, "loans_bad")
        frame = build_frame(project.workspace.tables, model, {"loans": 0})
        assert add_model(project, "loans", "Bad", Options(**second)) == ("loans_bad", ())
    assert model.recipe.budget == now.get("budget", "1m")
    assert model.decide_at == now.get("time", "")
    assert model.label.known_at == now.get("known_at")
    assert isinstance(model.recipe.split, TimeSplit if "time" in now else RandomSplit)
    assert model.features[0].exclude == now.get("exclude", model.features[0].exclude)
    assert not {*frame.features} & {"note", *now.get("exclude", ())}
    assert model.description == "by ana"
    assert "# hers" in path.read_text()


def test_an_option_that_lines_edited_by_hand_have_no_place_for_is_refused(tmp_path):
    made(tmp_path, "Bad")
    path = tmp_path / "loans" / "definitions.py"
    text = (
        path.read_text()
        .replace('budget="1m"', "tune=Tune(timeout='1m')")
        .replace("RandomSplit()", "RandomSplit(seed=4)")
    )
    text = text.replace("Table, Time", "Table, Tune, Time")
    path.write_text(text)
    with Project(tmp_path / "loans", actor="ana") as project:
        with pytest.raises(RefusedError, match=r"model loans_bad: .*edited by hand.*budget='5m'.*without these"):
            add_model(project, "loans", "Bad", Options(budget="5m", exclude=("grade",)))
        with pytest.raises(RefusedError, match="decide_at='sent'"):
            add_model(project, "loans", "Bad", Options(time="sent"))
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ({"a": [f"{number * 0.37 + 0.011:.3f}" for number in range(80)]}, "row"),  # measured
        ({"income": [str(20_000 + number * number * 7) for number in range(80)]}, "row"),  # whole, and measured
        ({"income": [20_000 + number * number * 7 for number in range(80)]}, "row"),
        ({"x": [number / 7 for number in range(80)]}, "row"),
        ({"day": [f"{number % 28 + 1}.{number // 28 + 1}.2024" for number in range(80)]}, "row"),
        ({"price": [f"{number},5" for number in range(80)]}, "row"),
        ({"at": [f"2024-01-01T00:{number // 60:02}:{number % 60:02}Z" for number in range(80)]}, "row"),
        ({"x": [str(number) for number in range(5, 85)]}, "x"),  # counts the rows
        ({"x": [str(number) for number in reversed(range(80))]}, "x"),
        ({"x": [number + number // 9 for number in range(80)]}, "x"),  # with gaps
        ({"name": [f"L{number}" for number in range(80)], "Loan ID": [number**2 for number in range(80)]}, "Loan ID"),
        ({"loanId": [number * number for number in range(80)]}, "loanId"),
        ({"paid": [number * number for number in range(80)], "who": [f"L{number}" for number in range(80)]}, "who"),
        ({"id": [number // 2 for number in range(80)]}, "row"),
        ({"id": [None, *range(79)]}, "row"),
        ({"row": [1.5] * 80}, "row1"),
    ],
)  # fmt: skip
def test_only_what_surely_names_rows_is_the_key(columns, key):
    rows = pa.table(columns)
    assert choose_key(rows, "y", read_kinds(rows))[0] == key


def test_a_measured_number_of_which_each_row_has_its_own_is_a_feature(tmp_path):
    rows = [{"a": row["amount"] + number / 1e6, "income": 900_000 - number * number * 7, "Bad": row["Bad"], "one": 1}
            for number, row in enumerate(loans())]  # fmt: skip
    model = made(tmp_path, "Bad", rows)
    with Project(tmp_path / "loans", actor="ana") as project:
        frame = build_frame(project.workspace.tables, model, {"loans": 0})
    assert frame.features == ("a", "income")
    assert model.features[0].exclude == ("one",)


def test_what_cannot_be_is_refused_with_nothing_half_written(tmp_path):
    made(tmp_path, "Bad")
    folder = tmp_path / "loans"
    before = (folder / "definitions.py").read_text()
    with pytest.raises(RefusedError, match="a project of its own"):
        Project.automl(write(tmp_path / "loans.csv", loans(50)), target="Bad", folder=folder)
    with Project(folder, actor="ana") as project:
        with pytest.raises(InputError, match="grade"):
            add_model(project, "loans", "grad", Options())
        with pytest.raises(InputError, match="instants"):
            add_model(project, "loans", "grade", Options(time="months"))
    assert (folder / "definitions.py").read_text() == before
    listed = before.replace("loans = Table(", "tables = [Table(").replace("})\n", "})]\n", 1)
    (folder / "definitions.py").write_text(listed.replace(", loans, ", ", tables[0], "))
    with Project(folder, actor="ana") as project, pytest.raises(DefinitionError, match="Add these lines by hand"):
        add_model(project, "loans", "grade", Options())


def automl(tmp_path: Path, rows: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, **options: object) -> str:
    """Definitions that automl writes, without the training."""
    monkeypatch.setattr(Project, "train", lambda self, model: Run(self.workspace, None))
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
            names.append(add_model(project, "own", target, Options())[0])
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
    (tmp_path / "own_2").mkdir()
    with pytest.raises(RefusedError, match="a project of its own") as refusal:
        automl(
            tmp_path,
            rows[1:],
            monkeypatch,
            target=words[4],
            budget="2m",
            time="sent",
            known_at="sent",
            exclude="note,plz",
        )
    first, second = re.findall(r"(?:another|table): (.*?)\.?$", str(refusal.value), flags=re.MULTILINE)
    options = ["--target", words[4], "--budget", "2m", "--time", "sent", "--known-at", "sent", "--exclude", "note,plz"]
    assert shlex.split(first)[2:] == [
        f"{tmp_path}/own.csv",
        *options,
        "--project",
        f"{tmp_path}/own_3",
        "--actor",
        "ana",
    ]
    assert shlex.split(second) == [
        "retrodict",
        "automl",
        "own",
        *options,
        "--project",
        f"{tmp_path}/own",
        "--actor",
        "ana",
    ]


@pytest.mark.parametrize("unkeyed", [True, False])
def test_the_same_rows_go_on_in_the_folder_that_was_made_of_them(tmp_path, monkeypatch, unkeyed):
    rows = [
        {name: value for name, value in row.items() if name in ("amount", "Bad", "months") or not unkeyed}
        for row in loans()
    ]
    automl(tmp_path, rows, monkeypatch)
    automl(tmp_path, rows, monkeypatch, exclude="months")
    automl(tmp_path, rows, monkeypatch, target="amount")
    with Project(tmp_path / "own", actor="ana") as project:
        assert {model.name for model in project.definitions.of(Model)} == {"own_bad", "own_amount"}
        assert "months" in project.definitions.get(Model, "own_bad").features[0].exclude
        assert len(project.data.history("own")) == 1
    with pytest.raises(RefusedError, match="a project of other rows"):
        automl(tmp_path, [*rows, {**rows[0], "amount": 4, **({} if unkeyed else {"Loan Nr": "L-1"})}], monkeypatch)


def test_of_two_processes_that_make_one_folder_the_second_is_told_to_try_again(tmp_path):
    with pytest.raises(BusyError, match="Give the command again"), _drafted(tmp_path / "own"):
        (tmp_path / "own" / "x").mkdir(parents=True)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_what_a_killed_process_left_of_its_draft_goes_and_one_at_work_keeps_its_own(tmp_path, monkeypatch):
    places = {name: tmp_path / f".own.automl-{name}" for name in ("killed", "busy")}
    for place in places.values():
        (place / "own").mkdir(parents=True)
        (place / "lock").touch()
    with FileLock(places["busy"] / "lock", where="own", timeout_s=0.0):
        automl(tmp_path, loans(), monkeypatch)
    assert [name for name, place in places.items() if place.exists()] == ["busy"]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("lones.csv", {}, r"no such file; got '.*lones.csv'. Did you mean the file '.*/loans.csv'"),
        ("sub/loans.csv", {}, "no such file"),
        ("loans", {}, "no such file.*loans.csv"),
        ("", {}, "must be given a file, or the name of a table.*a folder.*loans.csv"),
        ("loans.csv", {"budget": "1"}, "^--budget: a duration must be"),
        ("loans.csv", {"budget": "0s"}, "^--budget: a budget must be longer.*hardly a trial"),
        ("loans.csv", {"known_at": "sent"}, "^--known-at: .*--time"),
    ],
)
def test_what_automl_is_not_given_is_said_before_anything_is_made(tmp_path, source, options, message):
    write(tmp_path / "loans.csv", loans())
    with pytest.raises(InputError, match=message):
        Project.automl(tmp_path / source if source else tmp_path, target="Bad", folder=tmp_path / "own", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["loans.csv"]


def test_a_misspelt_table_of_a_project_gets_the_near_names_of_tables_and_files(tmp_path, monkeypatch):
    automl(tmp_path, loans(), monkeypatch)
    with pytest.raises(InputError, match=r"no such table in the project.*'own'"):
        Project.automl("owm", target="Bad", folder=tmp_path / "own")


@pytest.mark.parametrize(
    ("column", "refused"),
    [
        ([f"{number * 31},{number % 10}{number % 7}" for number in range(120)], True),
        (["68,0", "70,0", "71,0"] * 40, True),
        ([f"{number / 7:.1f}%" for number in range(120)], True),
        ([f"{number}.{number + 100:03},5" for number in range(120)], True),
        ([f"€ {number + 5}" for number in range(120)], True),
        ([*(f"{number}.5" for number in range(115)), *["n/a"] * 5], True),  # some words among many numbers
        (["0", "1", "2", "3+"] * 30, False),  # classes
        ([f"0{number + 1000}" for number in range(60)] * 2, False),  # codes
        (["1-2", "3-4", "5-6"] * 40, False),
        ([f"{number}.5" for number in range(120)], False),
    ],
)
def test_numbers_in_another_form_are_refused_with_the_columns_and_what_converts_them(
    tmp_path, monkeypatch, column, refused
):
    rows = [{**row, "x": value} for row, value in zip(loans(), column, strict=True)]
    if not refused:
        automl(tmp_path, rows, monkeypatch)
        return
    with pytest.raises(InputError, match=r"column x: numbers must .*decimal=','.*--exclude x\."):
        automl(tmp_path, rows, monkeypatch)
    with pytest.raises(InputError, match=r"--exclude note,x\."):
        automl(tmp_path, rows, monkeypatch, exclude="note")
    with pytest.raises(InputError, match=r"column x: numbers must .*name another column\."):
        automl(tmp_path, rows, monkeypatch, target="x")
    automl(tmp_path, rows, monkeypatch, exclude="x")


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
    assert re.search("key +Loan Nr, a value of its own in each row", ended.stdout)
    assert re.search(r"left out +plz \(names single rows\), note \(names single rows\), sent", ended.stdout)
    assert "--actor NAME --project loans\n" in ended.stdout
    with Project(tmp_path / "loans", actor="ben") as project:
        (run,) = project.runs.list(model="loans_bad")
        assert run.record.kind == "auto"
        assert run.replay().verdict == "exact"
        card = project.models.card("loans_bad@1")
        facts = card.to_dict()["sections"]["Data"]
        assert facts["key"] == ["Loan Nr"]
        assert facts["columns that are no features"][:2] == [
            f"{name} (left out by the definition)" for name in ("plz", "note")
        ]
    ended = subprocess.run([*command, "--actor", "ana"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "To train anyway: retrodict train loans_bad --again --project loans\n" in ended.stdout
    command = [*command[:-1], "16s", "--exclude", "months", "--json"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    (*_, last) = json.loads(ended.stdout)["choices"]["definitions.py"]
    assert last == "exclude is plz, note, months now, was plz, note"
    with Project(tmp_path / "loans", actor="ben") as project:
        assert len(project.runs.list(model="loans_bad")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGKILL])
def test_the_same_command_goes_on_after_it_was_stopped(tmp_path, signal_):
    """No second ingest; trials that were judged are not judged again; what Ctrl-C prints is the command."""
    write(tmp_path / "loans.csv", loans(400))
    command = [
        sys.executable,
        "-m",
        "retrodict",
        "automl",
        "loans.csv",
        "--target",
        "Bad",
        "--budget",
        "20s",
        "--exclude",
        "plz",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not (
            journals := [path for path in tmp_path.glob("loans/state/searches/*/trials.jsonl") if path.stat().st_size]
        ):
            time.sleep(0.05)
        os.killpg(process.pid, signal_)
        _, errors = process.communicate()
    trials = [json.loads(line) for path in journals for line in path.read_text().splitlines()]
    if signal_ == signal.SIGINT:
        assert process.returncode == 130
        assert "stopped by Ctrl-C" in errors
        assert shlex.split(errors.partition("same command: ")[2]) == ["retrodict", *command[3:]]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    with Project(tmp_path / "loans", actor="ben") as project:
        assert len(project.data.history("loans")) == 1
        last, first = project.runs.list(model="loans_bad")
        assert (last.status, first.status) == ("finished", "failed")
        seconds = {trial["number"]: trial["seconds"] for trial in last.trials}
        assert trials
        assert {trial["number"]: trial["seconds"] for trial in trials}.items() <= seconds.items()
