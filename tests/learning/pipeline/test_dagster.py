"""A pipeline loads and materialises in a real Dagster, in the environment of ``make dagster``."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.learning.pipeline.project import write

from retrodict.core.errors import MissingExtraError
from retrodict.learning import list_runs
from retrodict.learning.pipeline import Pipeline

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-dagster" / "bin" / "python"
EXAMPLE = ROOT / "examples" / "own_project"
LINES = """
from retrodict import Pipeline, step

@step
def large(invoices):
    return invoices.slice(0, 10)

@step
def monthly_name(partition):
    return partition

@step
def broken(large):
    raise ValueError("Ms Meier")

@step
def after(broken):
    return 1

early = Model("early", label=late, decide_at="issued", features=[habits, terms],
              recipe=Recipe("logistic", TimeSplit("2024-01-01/2024-08-01", validate="2 months", test="2 months")),
              gates=["auc >= 0.999"])
never = Policy("never", early, decide={"call": "score >= 0.5", "wait": "otherwise"}, fallback=["wait"])
walk = Pipeline("walk", [step.ingest(invoices, "invoices.csv"), large, step.train(early), step.deploy(never)],
                schedule="0 3 * * *", timezone="Europe/Berlin")
failing = Pipeline("failing", [large, broken, after])
monthly = Pipeline("monthly", [monthly_name], partitions="month", schedule="0 3 1 * *")
"""
SCRIPT = """
import json, sys, warnings
from datetime import datetime, timezone
warnings.simplefilter("ignore")
import dagster as dg
from retrodict import Project
from retrodict.learning.pipeline import Pipeline

project = Project(sys.argv[1], actor="ana")
answers = {}
for name in ("walk", "failing", "monthly"):
    definitions = project.definitions.get(Pipeline, name).to_dagster(project, start="2013-01-01")
    dg.Definitions.validate_loadable(definitions)
    instance = dg.DagsterInstance.ephemeral()
    key = "2013-05" if name == "monthly" else None
    job = definitions.resolve_job_def(name)
    result = job.execute_in_process(instance=instance, raise_on_error=False, partition_key=key)
    ticks = []
    for schedule in definitions.schedules:
        moment = datetime(2024, 3, 1, 3, tzinfo=timezone.utc)
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=moment,
                                            repository_def=definitions.get_repository_def())
        with context:
            ticks = [request.partition_key for request in schedule.evaluate_tick(context).run_requests]
    answers[name] = {
        "success": result.success,
        "assets": {event.step_key: event.event_specific_data.materialization.metadata["status"].value
                   for event in result.get_asset_materialization_events()},
        "partitions": [event.partition for event in result.get_asset_materialization_events()],
        "checks": {event.asset_key.to_user_string() + "." + event.check_name: event.passed
                   for event in result.get_asset_check_evaluations()},
        "schedules": [[one.cron_schedule, one.execution_timezone] for one in definitions.schedules],
        "deps": {spec.key.to_user_string(): sorted(dep.asset_key.to_user_string() for dep in spec.deps)
                 for spec in definitions.resolve_all_asset_specs()},
        "ticks": ticks,
    }
print(json.dumps(answers))
"""


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="Dagster is not installed: make dagster")
def test_a_pipeline_is_assets_checks_and_schedules_of_dagster(tmp_path) -> None:
    """What succeeds is materialised; a gate that says no is a check that fails and stops the rest."""
    for name in ("retrodict.toml", "invoices.csv"):
        shutil.copy(EXAMPLE / name, tmp_path / name)
    (tmp_path / "definitions.py").write_text((EXAMPLE / "definitions.py").read_text() + LINES)
    done = subprocess.run(
        [PYTHON, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=290, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    walk = answers["walk"]
    assert walk["assets"] == {"ingest_invoices": "finished", "large": "finished"}
    assert walk["checks"] == {"ingest_invoices.data_checks": True, "train_early.gates": False}
    assert walk["schedules"] == [["0 3 * * *", "Europe/Berlin"]]
    assert walk["deps"] == {"ingest_invoices": [], "large": ["ingest_invoices"], "train_early": ["ingest_invoices"],
                            "deploy_never": ["train_early"]}  # fmt: skip
    assert (answers["failing"]["success"], answers["failing"]["assets"]) == (False, {"large": "finished"})
    monthly = answers["monthly"]
    assert (monthly["success"], monthly["partitions"], monthly["ticks"]) == (True, ["2013-05"], ["2024-02"])
    assert "Meier" not in done.stdout
    with write(tmp_path, (tmp_path / "definitions.py").read_text()) as project:
        names = {run.name for run in list_runs(project.workspace, where="status = 'finished'", kinds=("step",))}
        assert names == {"walk.ingest_invoices", "walk.large", "failing.large", "monthly.monthly_name[2013-05]"}


def test_without_dagster_the_error_says_what_to_install(tmp_path) -> None:
    """Where it is used first."""
    with write(tmp_path, "from retrodict import Pipeline, step\np = Pipeline('p', [step.audit()])\n") as project:
        try:
            import dagster  # noqa: F401
        except ImportError:
            with pytest.raises(MissingExtraError, match=r"pip install 'retrodict\[dagster\]'"):
                project.definitions.get(Pipeline, "p").to_dagster(project)
