"""Runs and their models to an MLflow server, over its REST interface; MLflow itself is not needed for it."""

from __future__ import annotations

import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from retrodict.core.errors import InputError, RetryableError
from retrodict.learning.runs.mlflow.pyfunc import write_pyfunc
from retrodict.learning.runs.record import flatten
from retrodict.learning.runs.store import get_run
from retrodict.registry import list_versions
from retrodict.workspace import Workspace

__all__ = ["push_run"]

_STATUS = {"finished": "FINISHED", "failed": "FAILED"}
_TIMEOUT_S = 60.0
_AT_ONCE = {"metrics": 1000, "params": 100, "tags": 100}  # limits of a batch, by MLflow's reference of its REST API
_LONGEST = 6000  # of a parameter


def push_run(workspace: Workspace, ref: str, url: str, *, experiment: str) -> str:
    """Send a run that has ended, with its artifacts and, where it trained one, its model as a ``pyfunc`` folder.

    Parameters
    ----------
    workspace : Workspace
    ref : str
        ``run:ULID``.
    url : str
        Of the server: ``http://localhost:5000``.
    experiment : str
        Name of the experiment there; made if it does not exist.

    Returns
    -------
    str
        Number of the run there. A second push makes a second run.

    Raises
    ------
    InputError
        If the run goes on, or the server refuses something.
    RetryableError
        If the server cannot be reached.
    """
    run = get_run(workspace, ref)
    if run.status not in _STATUS:
        raise InputError("a run must have ended to be sent", where=run.ref, got=run.status, remedy="Wait for its end")
    server = _Server(url)
    number = server.experiment(experiment)
    milliseconds = run.started // 1000
    labels = {"mlflow.runName": run.name or run.ref, "retrodict.run": run.ref, "retrodict.model": run.model, **run.tags}
    body = {"experiment_id": number, "start_time": milliseconds, "run_name": run.name or run.ref}
    info = server.call("runs/create", body)["run"]["info"]
    metrics = [
        {"key": point.name if point.split == "test" else f"{point.split}/{point.name}", "value": point.value,
         "timestamp": milliseconds, "step": point.step}
        for point in run.points if point.value is not None
    ]  # fmt: skip
    params = [{"key": name, "value": _text(value)} for name, value in flatten(run.params).items()]
    tags = [{"key": name, "value": value} for name, value in labels.items() if value]
    for kind, rows in (("metrics", metrics), ("params", params), ("tags", tags)):
        for first in range(0, len(rows), _AT_ONCE[kind]):
            server.call("runs/log-batch", {"run_id": info["run_id"], kind: rows[first : first + _AT_ONCE[kind]]})
    for name, data in _files(workspace, run.artifacts, run.id):
        server.upload(info["artifact_uri"], name, data)
    ended = {"run_id": info["run_id"], "status": _STATUS[run.status], "end_time": (run.finished or run.started) // 1000}
    server.call("runs/update", ended)
    return str(info["run_id"])


def _files(workspace: Workspace, artifacts: Sequence[Any], run: str) -> Iterator[tuple[str, bytes]]:
    for artifact in artifacts:
        yield artifact.name, workspace.objects.get(artifact.digest)
    for version in list_versions(workspace):
        if version.run == run:
            with tempfile.TemporaryDirectory() as scratch:
                folder = write_pyfunc(workspace, version.ref, Path(scratch))
                for file in sorted(folder.rglob("*")):
                    if file.is_file():
                        yield f"model/{file.relative_to(folder).as_posix()}", file.read_bytes()


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:_LONGEST]


class _Server:
    """An MLflow server, as far as runs are sent to it."""

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError("the address of an MLflow server must begin with http:// or https://", where="MLflow",
                             got=url, remedy="Write it like http://localhost:5000")  # fmt: skip
        self._url = url.rstrip("/")

    def experiment(self, name: str) -> str:
        """Number of an experiment, which is made if it does not exist."""
        try:
            answer = self.call(f"experiments/get-by-name?experiment_name={quote(name)}", None)
        except InputError:
            return str(self.call("experiments/create", {"name": name})["experiment_id"])
        return str(answer["experiment"]["experiment_id"])

    def call(self, path: str, body: Any) -> dict[str, Any]:
        """Ask for something; None as body reads."""
        data = None if body is None else json.dumps(body).encode()
        answer = self._send(f"/api/2.0/mlflow/{path}", data, "POST" if data else "GET", "application/json")
        return json.loads(answer or b"{}")  # type: ignore[no-any-return]  # every answer of the API is an object

    def upload(self, place: str, name: str, data: bytes) -> None:
        """Put one file beside a run, through the server."""
        scheme, _, path = place.partition(":")
        if scheme != "mlflow-artifacts":
            raise InputError("the server must take artifacts itself", where="MLflow", got=scheme,
                             remedy="Start it with --serve-artifacts")  # fmt: skip
        target = quote(f"{path.strip('/')}/{name}")
        self._send(f"/api/2.0/mlflow-artifacts/artifacts/{target}", data, "PUT", "application/octet-stream")

    def _send(self, path: str, data: bytes | None, method: str, kind: str) -> bytes:
        request = urllib.request.Request(self._url + path, data, {"Content-Type": kind}, method=method)  # noqa: S310  # checked above
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310  # checked above
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            detail = error.read(500).decode(errors="replace")
            raise InputError("the MLflow server must take what is sent", where=f"MLflow, {path.partition('?')[0]}",
                             got=f"{error.code} {detail}", remedy="See the log of the server") from error  # fmt: skip
        except OSError as error:
            raise RetryableError("the MLflow server must be reachable", where="MLflow", got=str(error),
                                 remedy="Start it, or correct the address") from error  # fmt: skip
