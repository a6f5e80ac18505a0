"""Runs of a pipeline: what is executed, what is skipped, and what the record says."""

from __future__ import annotations

import json

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tests.learning.pipeline.project import FIVE, HEAD, effects, reasons, statuses, write

from retrodict.core.errors import InputError
from retrodict.learning import list_runs
from retrodict.learning.pipeline.outputs import read_output, store_output

ALL = ["numbers", "doubled", "frame", "report", "aside"]


def outputs(project, name="five") -> dict[str, object]:
    """Newest output of every step, as it was returned."""
    values: dict[str, object] = {}
    for run in list_runs(project.workspace, where="status = 'finished'", kinds=("step",)):
        output = run.summary["output"]
        values.setdefault(run.params["step"], read_output(project.workspace.objects, output, project.folder / "out"))
    return values


@pytest.mark.slow
def test_a_second_run_executes_what_changed_and_says_which_part(tmp_path) -> None:
    """A helper's constant: its step, and those whose input differs by that; not its other dependants."""
    with write(tmp_path, FIVE) as project:
        first = project.pipelines.run("five")
        assert first.ok
        assert sorted(effects(tmp_path)) == sorted(ALL)
        values = outputs(project)
        assert values["frame"].equals(pa.table({"n": [0, 2, 4, 6]}))
        assert (values["numbers"], values["aside"], values["report"].read_text()) == ([0, 1, 2, 3], b"4", "4 rows, 12")
        second = project.pipelines.run("five")
        assert (set(statuses(second).values()), set(reasons(second).values())) == ({"skipped"}, {"unchanged"})
    with write(tmp_path, FIVE.replace("FACTOR = 2", "FACTOR = 3")) as project:
        third = project.pipelines.run("five")
        assert reasons(third)["doubled"] == "code changed: definitions.py:FACTOR"
        assert reasons(third)["frame"] == "input doubled changed"
        assert statuses(third)["aside"] == statuses(third)["numbers"] == "skipped"
        assert outputs(project)["report"].read_text() == "4 rows, 18"
    with write(tmp_path, FIVE) as project:  # as it was: nothing is executed again
        assert set(statuses(project.pipelines.run("five")).values()) == {"skipped"}
    with write(tmp_path, FIVE.replace("[report, numbers,", "[report, numbers.using(count=5),")) as project:
        assert reasons(project.pipelines.run("five", only=["numbers"]))["numbers"] == "count 4 → 5"
        run = project.pipelines.run("five", only=["numbers"], force=True)
        assert reasons(run) == {**dict.fromkeys(ALL, "not asked for: its last result"), "numbers": "forced"}
        assert project.audit().ok


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_an_output_that_is_not_whole_is_not_believed(tmp_path, damage) -> None:
    """It is made again, and its dependants need nothing: it is the same."""
    with write(tmp_path, FIVE) as project:
        project.pipelines.run("five")
        (run,) = list_runs(project.workspace, where="name = 'five.frame'", kinds=("step",))
        (path,) = (tmp_path / "state").rglob(run.summary["output"]["digest"])
        path.chmod(0o644)
        path.unlink() if damage == "gone" else path.write_bytes(b"half")
        again = project.pipelines.run("five")
        assert reasons(again) == {**dict.fromkeys(ALL, "unchanged"), "frame": f"its output is {damage}"}
        assert outputs(project)["frame"].num_rows == 4


FAILING = (
    HEAD
    + """
@step(retries=2, pause="1ms")
def broken():
    note("broken")
    return {}[os.environ.get("PATIENT", "Ms Meier")]

@step(retries=1, pause="1ms")
def flaky():
    note("flaky")
    if len(Path("effects.txt").read_text().split("flaky")) < 3:
        raise OSError("not yet")
    return 1

@step
def after(broken):
    note("after")
    return 2

@step
def later(after):
    return 3

@step
def gate(flaky):
    from retrodict.core.errors import RefusedError
    raise RefusedError("enough rows must be there", where="gate", got=flaky, remedy="Wait for more")

@step
def odd():
    return {1: (2, float("nan"))}

mixed = Pipeline("mixed", [later, after, broken, flaky, gate, odd])
"""
)


@pytest.mark.slow
def test_a_step_that_fails_stops_what_needs_it_and_nothing_else(tmp_path, capsys, monkeypatch) -> None:
    """Retried as declared; recorded by its kind and place, without the text of an error that may hold data."""
    from retrodict.cli.main import run as command

    write(tmp_path, FAILING).close()
    monkeypatch.chdir(tmp_path)
    assert command(["pipelines", "run", "mixed", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    steps = {step["step"]: step for step in answer["steps"]}
    assert {name: step["status"] for name, step in steps.items()} == {
        "broken": "failed", "flaky": "finished", "after": "not run", "later": "not run", "gate": "refused",
        "odd": "failed",
    }  # fmt: skip
    assert (steps["broken"]["attempts"], steps["flaky"]["attempts"], steps["gate"]["attempts"]) == (3, 2, 1)
    assert sorted(effects(tmp_path)) == ["broken"] * 3 + ["flaky"] * 2
    assert steps["broken"]["error"] == "KeyError"
    assert steps["broken"]["trace"][0] == "definitions.py:13 in broken"
    assert steps["after"]["reason"] == "it needs broken (failed)"
    assert "enough rows must be there" in steps["gate"]["error"]
    assert "what JSON gives back as it was" in steps["odd"]["error"]
    assert "Meier" not in json.dumps(answer)
    with write(tmp_path, FAILING) as project:
        (failed,) = list_runs(project.workspace, where="name = 'mixed.broken'", kinds=("step",))
        assert (failed.status, failed.summary["error"], failed.summary["attempts"]) == ("failed", "KeyError", 3)
        assert "Meier" not in str(failed.to_dict())
        assert "Meier" in (tmp_path / steps["broken"]["trace"][-1].removeprefix("log: ")).read_text()
        status = project.pipelines.status("mixed").to_dict()
        assert (status["runs"], status["failed"], status["status"]) == (1, 1, "failed")
        assert "mixed" in str(project.pipelines.list())
        assert "broken: failed" in str(project.pipelines.history("mixed").to_dict())
        assert [run.record.kind for run in project.runs.list()] == ["pipeline"]  # steps are not in the way
    assert command(["pipelines", "run", "mixed", "--only", "flaky"]) == 1  # the others have no result


def test_names_that_do_not_exist_are_refused(tmp_path) -> None:
    """Of a pipeline, of a step, and partitions of one that has none."""
    with write(tmp_path, FIVE) as project:
        for options, message in (
            ({"name": "fve"}, "Did you mean the pipeline 'five'"),
            ({"name": "five", "only": ["fram"]}, "Did you mean the step 'frame'"),
            ({"name": "five", "partition": "2013-01"}, "must have partitions to run for one"),
        ):
            with pytest.raises(InputError, match=message):
                project.pipelines.run(**options)
        assert project.pipelines.list()[0].last is None
        assert {step["status"] for step in project.pipelines.status("five").steps} == {"-"}


def test_a_table_that_arrow_cannot_hold_is_refused_in_words(tmp_path) -> None:
    """A series, objects of Polars (which Arrow takes as addresses), types that differ within a column."""
    objects = pl.DataFrame({"a": [{"x"}]}, schema={"a": pl.Object})
    with write(tmp_path, FIVE) as project:
        workspace = project.workspace
        for value in (pd.Series([1]), pl.Series([1])):
            with pytest.raises(InputError, match="a step must return a table"):
                store_output(workspace.objects, value, where="step s")
        for value in (objects, pd.DataFrame({"a": [1, "Meier"]}), pd.DataFrame([[1, 2]], columns=["a", "a"])):
            with pytest.raises(InputError, match="must have one name and one type of Arrow") as caught:
                store_output(workspace.objects, value, where="step s")
            assert "Meier" not in str(caught.value)
        assert store_output(workspace.objects, pl.DataFrame({"a": [1]}), where="step s")["rows"] == 1


READS = (
    HEAD
    + """
@step(reads=("in/*.csv", "rates"))
def cleaned(folder: str = "in"):
    note("cleaned")
    return sorted(path.read_text() for path in Path(folder).glob("*.csv"))

p = Pipeline("p", [cleaned])
"""
)


@pytest.mark.slow
def test_files_that_a_step_reads_are_in_its_key(tmp_path) -> None:
    """A new one, other content, one less: of a pattern and of a folder; a file that no pattern names is none."""
    for name in ("in", "rates/old"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "in/a.csv").write_text("1")
    with write(tmp_path, READS) as project:
        for change, why in [(lambda: None, "first execution"),
                            (lambda: (tmp_path / "in/b.csv").write_text("2"), "in/b.csv - → "),
                            (lambda: (tmp_path / "in/c.txt").write_text("3"), "unchanged"),
                            (lambda: (tmp_path / "in/a.csv").write_text("4"), "in/a.csv "),
                            (lambda: (tmp_path / "rates/old/r").write_text("5"), "rates/old/r - → "),
                            ((tmp_path / "in/b.csv").unlink, "in/b.csv ")]:  # fmt: skip
            change()
            assert reasons(project.pipelines.run("p"))["cleaned"].startswith(why)
    assert len(effects(tmp_path)) == 5
