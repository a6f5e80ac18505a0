"""Steps that are nouns: an approval that is waited for, rows of other steps, sources, a notebook's pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from tests.learning.pipeline.project import reasons, statuses, write

from retrodict import Pipeline, Project, Table, registry, step
from retrodict.core.errors import DefinitionError
from retrodict.learning import list_runs
from retrodict.project.pipeline_steps import bind_effect

EXAMPLE = Path(__file__).parents[3] / "examples" / "own_project"
LINES = """
from retrodict import Pipeline, step

asked = Table("asked", key="id", columns={"issued": "time", "amount": "float", "terms_days": "int"})

@step
def open_invoices(invoices, count: int = 3):
    return invoices.select(["id", "customer", "issued", "amount", "terms_days"]).slice(0, count).to_pandas()

daily = Pipeline("daily", [
    step.ingest("invoices", "data"), step.build(), step.verify(samples=5), step.train("late_payer"),
    step.deploy("remind"), open_invoices, step.ingest(asked, open_invoices),
    step.score("late_payer", "asked"), step.replay(late_payer)])
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_deployment_waits_for_somebody_and_the_next_run_goes_on(tmp_path) -> None:
    """Refused until a person approves; rows of a step become a table, and are scored; what is undone is done again."""
    (tmp_path / "data").mkdir()
    shutil.copy(EXAMPLE / "invoices.csv", tmp_path / "data" / "part.csv")
    text = (EXAMPLE / "definitions.py").read_text() + LINES
    with write(tmp_path, text) as project:
        first = project.pipelines.run("daily", parallel=2)
        assert {name for name, status in statuses(first).items() if status != "finished"} == {"deploy_remind"}
        (error,) = [entry.error for entry in first.steps if entry.error]
        assert "the newest version must have been judged by somebody" in error
        assert "retrodict models approve late_payer@1" in error
        (scored,) = list_runs(project.workspace, where="name = 'daily.score_late_payer'", kinds=("step",))
        assert (scored.summary["output"]["kind"], scored.summary["output"]["rows"]) == ("arrow", 3)
        assert project.data.read("asked").num_rows == 3
        with Project(tmp_path, actor="ben") as other:
            other.models.approve("late_payer@1", reason="seen")
        second = project.pipelines.run("daily")
        assert {name for name, status in statuses(second).items() if status == "finished"} == {"deploy_remind"}
        again = project.pipelines.run("daily")
        assert set(statuses(again).values()) == {"skipped"}
        shutil.rmtree(tmp_path / "state" / "keys")  # online state is lost
        project.close()
        built = project.pipelines.run("daily")
        assert statuses(built)["build"] == "finished"
        assert "no state" in reasons(built)["build"]
        assert project.audit().ok


LOANS = """
from retrodict import (Entity, FeatureView, Label, Model, Pipeline, RandomSplit, Recipe, Source, Table, agg, step)

payments = Table("payments", key="id", columns={"paid": "time", "amount": "float"})
loans = Table("loans", key="id", columns={"asked": "time", "bad": "bool"})
past = FeatureView("past", Entity("customer"), Source("paid", payments, event_time="paid"), [agg.count(over="9d")])
risk = Model("risk", label=Label("bad", loans, "bad", known_at="asked + 1h"), decide_at="asked",
             features=[past], recipe=Recipe("logistic", RandomSplit()))
p = Pipeline("p", [step.verify(), step.build(), step.ingest(loans, "loans.csv"), step.ingest(payments, "payments.csv")])
"""


def test_a_proof_needs_the_rows_that_models_learn_from(tmp_path) -> None:
    """The label's table is read by the proof and not by online state; its new version asks for a new proof."""
    with write(tmp_path, LOANS) as project:
        graph = project.pipelines.show("p").graph
        assert graph["build"] == ["ingest_payments"]
        assert graph["verify"] == ["build", "ingest_loans", "ingest_payments"]
        pipeline = project.definitions.get(Pipeline, "p")
        proof, build = (bind_effect(project.workspace, pipeline.step(name)).state for name in ("verify", "build"))
        before = proof("", {}), build("", {})
        rows = {"id": [1], "customer": ["a"], "asked": ["2024-01-02T00:00:00Z"], "bad": ["true"]}
        project.data.ingest("loans", pa.table(rows))
        assert (proof("", {}) != before[0], build("", {}) == before[1]) == (True, True)
        assert proof("", {})["loans"] == "@0"
    with write(tmp_path, LOANS.replace('"bad", loans, "bad"', '"bad", loans, "NOT bad"')) as project:
        state = bind_effect(project.workspace, pipeline.step("verify")).state("", {})
        assert state["features"] != before[0]["features"]


GROWING = """
from retrodict import Pipeline, Table, step

sales = Table("sales", key="id")

@step
def cleaned(count: int = 2):
    import pyarrow as pa
    return pa.table({"id": list(range(count))})

p = Pipeline("p", [cleaned, step.ingest(sales, cleaned)])
"""


@pytest.mark.slow
def test_rows_in_quarantine_are_in_the_line_of_their_step(tmp_path) -> None:
    """A source that grows brings old rows again: said with the check, also of a step that is skipped, and in JSON."""
    with write(tmp_path, GROWING) as project:
        first = project.pipelines.run("p").steps[1]
        assert (first.reason, first.facts["quarantined"]) == ("first execution", 0)
    with write(tmp_path, GROWING.replace("count: int = 2", "count: int = 3")) as project:
        note = "2 of 3 rows in quarantine, most by new_key(id)"
        for why in ("input cleaned changed", "unchanged"):
            run = project.pipelines.run("p")
            assert run.steps[1].reason == f"{why}; {note}"
            assert run.to_dict()["steps"][1]["facts"]["quarantined"] == 2
        assert note in " ".join(str(project.pipelines.status("p")).split())
    with pytest.raises(DefinitionError, match="Did you mean the option 'replace'"):
        step.ingest("sales", "a.csv", replac=True)
    with write(tmp_path, GROWING.replace("sales, cleaned)", "sales, cleaned, replace=True)")) as project:
        assert project.pipelines.run("p").steps[1].reason.startswith("replace false → true")
        assert project.data.read("sales").num_rows == 2


LEAST = 40


@step
def counted(sales, least: int = LEAST):
    """Rows of a table, in a notebook."""
    return sales.num_rows + least


@pytest.mark.slow
def test_a_pipeline_of_a_notebook_is_written_down(tmp_path) -> None:
    """As the module that it would be; another content is another run."""
    sales = Table("sales", key="id")
    pipeline = Pipeline("p", [counted, step.audit()], schedule="0 3 * * *")
    with Project(tmp_path / "note", definitions=[sales, pipeline], actor="ana") as project:
        project.data.ingest("sales", pa.table({"id": [1, 2]}))
        assert project.definitions.get(Pipeline, "p").version == pipeline.version
        assert project.pipelines.run("p").ok
        (run,) = list_runs(project.workspace, where="name = 'p.counted'", kinds=("step",))
        assert project.workspace.objects.get(run.summary["output"]["digest"]) == b"%d" % (2 + LEAST)
        assert run.data["versions"] == {"sales": 0}


SALES = """
from retrodict import Pipeline, Table, step

sales = Table("sales", key="id", columns={"amount": "float"})
p = Pipeline("p", [step.ingest(sales, "day.csv", replace=REPLACE)])
"""


@pytest.mark.slow
def test_rows_that_another_batch_replaced_are_ingested_again(tmp_path) -> None:
    """A file that is again what it was two runs ago; where batches are added, it is still there."""
    for replace, status in ((True, "finished"), (False, "skipped")):
        folder = tmp_path / str(replace)
        folder.mkdir()
        statuses_of_runs = []
        with write(folder, SALES.replace("REPLACE", str(replace))) as project:
            for key in (1, 2, 1):
                (folder / "day.csv").write_text(f"id,amount\n{key},20\n")
                statuses_of_runs.append(statuses(project.pipelines.run("p"))["ingest_sales"])
            assert statuses_of_runs == ["finished", "finished", status]
            assert sorted(project.data.read("sales")["id"].to_pylist()) == (["1"] if replace else ["1", "2"])


ACTS = """
from retrodict import HashSplit, Label, Model, Pipeline, Policy, Recipe, Table, columns, step

loans = Table("loans", key="id", columns={"asked": "time", "sum": "float", "bad": "bool"})
risk = Model("risk", label=Label("bad", loans, "bad", known_at="asked + 1h"), decide_at="asked",
             features=[columns("sum")], recipe=Recipe("logistic", HashSplit(by="id")))
act = Policy("act", risk, decide={"no": "score >= 0.5", "yes": "otherwise"}, fallback=["no"])
p = Pipeline("p", [step.train(risk), step.deploy(act), step.score(risk, "loans")])
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_pipeline_deploys_what_it_has_trained_itself(tmp_path) -> None:
    """Not what somebody else trained since by hand; and again its own, where the definition is again what it was."""

    def run(text: str) -> tuple[str, dict[str, str]]:
        with write(tmp_path, text) as project:
            run = project.pipelines.run("p")
            models = {}
            for name in ("deploy_act", "score_risk"):
                (last,) = list_runs(project.workspace, where=f"name = 'p.{name}'", kinds=("step",), limit=1)
                models[name] = last.summary["output"]["effect"]["model"] if last.status == "finished" else ""
            return str([entry.error for entry in run.steps if entry.error]), models

    def judge(version: str) -> None:
        with Project(tmp_path, actor="ben") as project:
            project.models.approve(version, reason="seen")

    other = ACTS.replace('Recipe("logistic"', 'Recipe("random_forest"')
    rows = {"id": range(400), "asked": ["2024-01-02T00:00:00Z"] * 400, "sum": [n % 7 for n in range(400)],
            "bad": [n % 7 > 3 for n in range(400)]}  # fmt: skip
    with write(tmp_path, ACTS) as project:
        project.data.ingest("loans", pa.table({name: list(values) for name, values in rows.items()}))
    errors, models = run(ACTS)
    assert "the newest version must have been judged by somebody" in errors
    assert models == {"deploy_act": "", "score_risk": "risk@1"}
    judge("risk@1")
    with write(tmp_path, other) as project:
        assert project.train("risk").version.ref == "risk@2"  # by hand
    judge("risk@2")
    assert run(ACTS) == ("[]", dict.fromkeys(models, "risk@1"))
    run(other)
    with write(tmp_path, other) as project:
        newest = registry.list_versions(project.workspace, "risk")[-1]
    if not newest.approvals:
        judge(newest.ref)
    assert run(other)[1]["deploy_act"] == newest.ref
    assert run(ACTS)[1]["deploy_act"] == "risk@1"
    with write(tmp_path, ACTS) as project:
        assert registry.current(project.workspace)["act"].deployment.model == "risk@1"


GROWS = """
from retrodict import HashSplit, Label, Model, Pipeline, Recipe, Table, WarmStart, columns, step

loans = Table("loans", key="id", columns={"sum": "float", "bad": "bool"})
risk = Model("risk", label=Label("bad", loans, "bad"), features=[columns("sum")],
             recipe=Recipe("lightgbm", HashSplit(by="id"), params={"num_iterations": 20}))
p = Pipeline("p", [step.train(risk), step.train(risk, start_from=START, name="go_on")])
"""


@pytest.mark.slow
def test_a_step_trains_on_from_a_version(tmp_path) -> None:
    """Trees are added to those of the version, and what has the same rows is not trained again."""
    rows = pa.table({"id": list(range(400)), "sum": [float(n % 7) for n in range(400)],
                     "bad": [n % 7 > 3 for n in range(400)]})  # fmt: skip
    text = GROWS.replace("START", "WarmStart('risk@1', add=5, compare=False)")
    with write(tmp_path, text) as project:
        project.data.ingest("loans", rows)
        assert statuses(project.pipelines.run("p")) == {"train_risk": "finished", "go_on": "finished"}
        second = registry.get_version(project.workspace, "risk@2")
        run = project.runs.get(f"run:{second.run}").record
        assert run.params["start_from"]["version"] == "risk@1"
        assert run.params["start_from"]["add"] == 5
        assert statuses(project.pipelines.run("p")) == {"train_risk": "skipped", "go_on": "skipped"}
    with write(tmp_path, text.replace("add=5", "add=6")) as project:
        assert statuses(project.pipelines.run("p")) == {"train_risk": "skipped", "go_on": "finished"}
    with write(tmp_path, GROWS.replace("START", "'champion'")) as project:
        (error,) = [entry.error for entry in project.pipelines.run("p").steps if entry.error]
        assert "a version of the model must be in force" in str(error)
