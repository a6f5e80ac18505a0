"""Models and runs that leave for MLflow: its loader scores the same, its server holds what was sent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from tests.learning.test_mlflow import PYTHON
from tests.serving.project import make_project

from retrodict import Project
from retrodict.core.errors import InputError, RetryableError
from retrodict.learning import open_run
from retrodict.learning.runs.mlflow.push import push_run
from retrodict.learning.runs.mlflow.pyfunc import _load_pyfunc

LOAD = """
import json, sys
import mlflow, pandas as pd
rows = pd.DataFrame(json.loads(sys.argv[2]))
print(json.dumps(mlflow.pyfunc.load_model(sys.argv[1]).predict(rows).tolist()))
"""
ASK = """
import json, sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
run = client.get_run(sys.argv[2])
rows = __import__("pandas").DataFrame(json.loads(sys.argv[3]))
print(json.dumps({
    "metrics": run.data.metrics, "params": run.data.params, "tags": run.data.tags, "status": run.info.status,
    "files": sorted(f.path for f in client.list_artifacts(sys.argv[2])),
    "scores": mlflow.pyfunc.load_model(f"runs:/{sys.argv[2]}/model").predict(rows).tolist()}))
"""
needs_mlflow = pytest.mark.skipif(not PYTHON.exists(), reason="MLflow is not installed: make mlflow")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with one trained version."""
    root = tmp_path_factory.mktemp("parcels")
    make_project(root).close()
    with Project(root, actor="ana") as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(project):
    """Values of the model's features, one of each missing."""
    artifact = _load_pyfunc(
        str(Path(project.models.export("late_parcel@1", project.folder / "out").folder) / "data")
    ).artifact
    columns = {}
    for feature in artifact.inputs.features:
        known = list(feature.vocabulary or ()) if feature.type == "category" else [0.0, 1.5, 12.0]
        columns[feature.name] = [known[place % len(known)] for place in range(5)] + [None]
    return columns


def expected(project, rows):
    from retrodict.models.artifact import ModelArtifact
    from retrodict.registry import get_version

    version = get_version(project.workspace, "late_parcel@1")
    artifact = ModelArtifact.load(project.workspace.objects, version.artifact)
    names = list(rows)
    return [
        artifact.score_row(dict(zip(names, values, strict=True))).score for values in zip(*rows.values(), strict=True)
    ]


def in_mlflow(script, *arguments):
    environment = {**os.environ, "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
    result = subprocess.run(
        [PYTHON, "-c", script, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_the_folder_scores_as_serving_does(project, rows, tmp_path):
    """Without MLflow: what its loader would call."""
    import pandas as pd

    folder = project.models.export("late_parcel@1", tmp_path / "model").folder
    described = json.loads((Path(folder) / "MLmodel").read_text())["flavors"]
    assert described["retrodict"]["model"] == "late_parcel@1"
    loaded = _load_pyfunc(str(Path(folder) / "data"))
    assert np.array_equal(loaded.predict(pd.DataFrame(rows)), expected(project, rows))


@needs_mlflow
@pytest.mark.slow
def test_mlflow_loads_the_folder_and_scores_the_same(project, rows, tmp_path):
    folder = project.models.export("late_parcel@1", tmp_path / "model").folder
    assert in_mlflow(LOAD, folder, json.dumps(rows)) == expected(project, rows)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real MLflow server on a free port."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
               "--artifacts-destination", str(folder / "files")]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=2).read()  # our own server
            break
        except OSError:
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.5)
    yield url
    os.killpg(process.pid, 15)
    process.wait()


@needs_mlflow
@pytest.mark.slow
def test_a_server_of_mlflow_holds_what_was_sent(project, rows, server):
    """Metrics, parameters, tags, files and the model, read back by MLflow's own client."""
    (run,) = project.runs.search("kind = 'train'")
    project.runs.tag(run.ref, "team=risk")
    number = project.runs.push(run.ref, server, experiment="parcels").number
    answer = in_mlflow(ASK, server, number, json.dumps(rows))
    assert answer["status"] == "FINISHED"
    assert answer["metrics"]["auc"] == pytest.approx(run.metrics["auc"])
    assert answer["params"]["estimator"] == run.params["estimator"]
    assert (answer["tags"]["team"], answer["tags"]["retrodict.run"]) == ("risk", run.ref)
    assert {"model", "evaluations.json"} <= set(answer["files"])
    assert answer["scores"] == expected(project, rows)


def test_what_cannot_be_sent_is_said(make_project):
    workspace = make_project()
    with open_run(workspace) as run, pytest.raises(InputError, match="must have ended to be sent; got 'running'"):
        push_run(workspace, run.ref, "http://127.0.0.1:1", experiment="x")
    with pytest.raises(RetryableError, match="MLflow server must be reachable"):
        push_run(workspace, run.ref, "http://127.0.0.1:1", experiment="x")
    with pytest.raises(InputError, match="must begin with http"):
        push_run(workspace, run.ref, "file:///x", experiment="x")
