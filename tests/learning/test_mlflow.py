"""A script of MLflow lands here, with a real MLflow in the environment of ``make mlflow``."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.learning.test_run_shape import findings

from retrodict.learning import get_run, list_runs

PYTHON = Path(__file__).parents[2] / ".venv-mlflow" / "bin" / "python"

pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason="MLflow is not installed: make mlflow"),
    pytest.mark.slow,
]

SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

mlflow.set_tracking_uri("retrodict://" + sys.argv[1])
mlflow.set_experiment("cancer")
mlflow.sklearn.autolog(log_input_examples=False)
X, y = load_breast_cancer(return_X_y=True, as_frame=True)
with mlflow.start_run(run_name="auto") as run:
    model = LogisticRegression(C=0.5, max_iter=50).fit(X, y)
    mlflow.log_metric("own", 3.0, step=7)
    mlflow.log_metric("own", float("nan"), step=8)
    mlflow.log_text("hello", "notes/hello.txt")
    mlflow.set_tag("team", "risk")
    with mlflow.start_run(nested=True, run_name="inner") as inner:
        mlflow.log_param("x", 1)
try:
    with mlflow.start_run(run_name="broken") as broken:
        raise ValueError("no")
except ValueError:
    pass
client = mlflow.MlflowClient()
client.set_tag(run.info.run_id, "later", "yes")
(logged,) = mlflow.search_logged_models(output_format="list")
loaded = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
where = "params.C = '0.5' and attributes.status = 'FINISHED' and tags.`team` = 'risk'"
found = mlflow.search_runs(experiment_names=["cancer"], filter_string=where, order_by=["attributes.start_time DESC"],
                           output_format="list")
def refused(call):
    try:
        call()
    except mlflow.exceptions.MlflowException as error:
        return str(error)
print(json.dumps({
    "run": run.info.run_id, "inner": inner.info.run_id, "broken": broken.info.run_id,
    "found": [one.info.run_id for one in found], "same": bool(np.array_equal(loaded.predict(X), model.predict(X))),
    "accuracy": float((model.predict(X) == y).mean()),
    "history": [m.step for m in client.get_metric_history(run.info.run_id, "own")],
    "files": [f.path for f in client.list_artifacts(run.info.run_id, "notes")],
    "text": mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/notes/hello.txt"),
    "late": refused(lambda: client.log_metric(run.info.run_id, "own", 1.0)),
    "twice": refused(lambda: client.create_experiment("cancer")),
    "gone": refused(lambda: client.delete_run(run.info.run_id)),
    "none": refused(lambda: client.get_run("01ARZ3NDEKTSV4RRFFQ69G5FAV")),
}))
"""


def test_an_autologged_script_lands_in_the_project(make_project):
    """Parameters, metrics, model and files; found by both sides; in the ledger; the model scores the same."""
    workspace = make_project()
    # Which packages a model needs is guessed by loading it in a further process: of no interest here.
    environment = {**os.environ, "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1"}
    result = subprocess.run(
        [PYTHON, "-c", SCRIPT, workspace.root], capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr[-3000:]
    answer = json.loads(result.stdout.splitlines()[-1])
    run = get_run(workspace, f"run:{answer['run']}")
    assert (run.status, run.kind, run.name, run.params["C"]) == ("finished", "hand", "auto", "0.5")
    assert run.metrics["training_accuracy_score"] == pytest.approx(answer["accuracy"])
    assert run.metrics["own"] is None
    assert (run.tags["team"], run.tags["later"]) == ("risk", "yes")
    assert any(name.endswith("/MLmodel") for name in (file.name for file in run.artifacts))
    assert run.data["frames"]
    assert get_run(workspace, f"run:{answer['inner']}").parent == run.id
    assert get_run(workspace, f"run:{answer['broken']}").status == "failed"
    assert (answer["same"], answer["found"], answer["history"]) == (True, [run.id], [7, 8])
    assert (answer["files"], answer["text"]) == (["notes/hello.txt"], "hello")
    assert [r.id for r in list_runs(workspace, where="params.C < 0.6 and metrics.training_score > 0.9")] == [run.id]
    assert "must go on in this process" in answer["late"]
    assert "exists" in answer["twice"]
    assert "retrodict runs prune" in answer["gone"]
    assert "must be in the evaluation store" in answer["none"]
    assert not findings(workspace)
