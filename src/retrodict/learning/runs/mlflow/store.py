"""The tracking store behind ``mlflow.set_tracking_uri("retrodict:///path/to/project")``.

A run of MLflow is a run of the project recorded by hand: durable at once, in the ledger a moment after its end, found
by searches of both sides. Experiments and logged models, which only MLflow has, are rows of two tables of their own.
Traces, prompts, and removal of runs are not offered: a call raises and says so.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Sequence
from typing import Any

from mlflow.entities import (
    Experiment,
    LoggedModel,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunStatus,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    INVALID_STATE,
    NOT_FOUND,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
)
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking.abstract_store import AbstractStore
from sqlalchemy import insert, select, update

from retrodict.core.errors import NotFoundError, RetrodictError
from retrodict.learning.runs.mlflow.places import OPEN, artifact_address, workspace_of
from retrodict.learning.runs.mlflow.schema import experiments, metadata, models
from retrodict.learning.runs.record import Run as Record
from retrodict.learning.runs.record import flatten
from retrodict.learning.runs.store import get_run, list_runs, tag_run
from retrodict.learning.runs.tracker import OpenRun, open_run

__all__ = ["ProjectStore"]

_EXPERIMENT, _PARENT = "mlflow.experimentId", "mlflow.parentRunId"
_STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED"}
_FIELDS = {"run_id": "id", "run_name": "name", "start_time": "started", "end_time": "finished", "user_id": "actor"}


class ProjectStore(AbstractStore):  # type: ignore[misc]  # of a library without types
    """Runs, experiments and logged models of MLflow in a project.

    Parameters
    ----------
    store_uri : str
        ``retrodict:///path/to/project``; the actor is that of the environment.
    artifact_uri : str, optional
        Not looked at: artifacts are kept in the project.
    """

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        del artifact_uri
        self._workspace = workspace_of(store_uri)
        self._workspace.records.ensure(metadata)
        super().__init__()

    # experiments ------------------------------------------------------------------------------------------------------

    def create_experiment(self, name: str, artifact_location: str | None = None, tags: Any = None) -> str:
        """Make an experiment; tags of experiments are not kept."""
        del artifact_location, tags
        if self.get_experiment_by_name(name) is not None:
            raise MlflowException(f"Experiment {name!r} exists", RESOURCE_ALREADY_EXISTS)
        number = str(secrets.randbelow(10**18) + 1)
        with self._workspace.records.write() as connection:
            row = {"id": number, "name": name, "created": self._workspace.clock.now()}
            connection.execute(insert(experiments), row)
        return number

    def get_experiment(self, experiment_id: str) -> Experiment:
        """One experiment by its number."""
        for experiment in self.search_experiments():
            if experiment.experiment_id == str(experiment_id):
                return experiment
        raise MlflowException(f"There is no experiment {experiment_id!r}", RESOURCE_DOES_NOT_EXIST)

    def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """One experiment by its name; None if there is none."""
        return next((one for one in self.search_experiments() if one.name == experiment_name), None)

    def search_experiments(
        self, view_type: Any = None, max_results: int = 1000, filter_string: str | None = None, order_by: Any = None,
        page_token: str | None = None,
    ) -> PagedList:  # fmt: skip
        """All experiments, newest first, on one page; a filter may ask for one name."""
        del view_type, order_by, page_token
        with self._workspace.records.read() as connection:
            rows = connection.execute(select(experiments).order_by(experiments.c.created.desc())).all()
        listed = [(row.id, row.name, row.created) for row in rows] + [("0", "Default", 0)]
        if filter_string:
            listed = [one for one in listed if one[1] == _name_in(filter_string)]
        root = f"retrodict://{self._workspace.root}"
        page = [Experiment(number, name, root, "active", creation_time=at // 1000, last_update_time=at // 1000)
                for number, name, at in listed[:max_results]]  # fmt: skip
        return PagedList(page, None)

    def delete_experiment(self, experiment_id: str) -> None:
        """Refuse: what was recorded stays."""
        raise self._refused("Experiments are not removed", experiment_id)

    restore_experiment = delete_experiment

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Give an experiment another name."""
        with self._workspace.records.write() as connection:
            query = update(experiments).where(experiments.c.id == str(experiment_id)).values(name=new_name)
            if not connection.execute(query).rowcount:
                raise MlflowException(f"Experiment {experiment_id!r} cannot be renamed", RESOURCE_DOES_NOT_EXIST)

    # runs -------------------------------------------------------------------------------------------------------------

    def create_run(
        self, experiment_id: str, user_id: str, start_time: int, tags: Sequence[RunTag], run_name: str
    ) -> Run:
        """Start a run; it begins now, by the clock of the project, and the actor is that of the project."""
        del user_id, start_time
        self.get_experiment(experiment_id)
        labels = {tag.key: str(tag.value) for tag in tags or ()}
        parent = labels.get(_PARENT)
        opened = self._asked(open_run, self._workspace, run_name or labels.get("mlflow.runName", ""),
                             parent=f"run:{parent}" if parent else None,
                             tags={**labels, _EXPERIMENT: str(experiment_id)})  # fmt: skip
        OPEN[opened.id] = opened
        return self.get_run(opened.id)

    def get_run(self, run_id: str) -> Run:
        """One run, with what was logged until now."""
        return self._run(self._record(run_id))

    def update_run_info(self, run_id: str, run_status: int, end_time: int, run_name: str | None) -> RunInfo:
        """End a run, or name it."""
        del end_time
        run = OPEN.get(run_id)
        if run is not None and run_name:
            self._asked(run.set_name, run_name)
        if run is not None and RunStatus.is_terminated(run_status):
            finished = run_status == RunStatus.FINISHED
            error = "" if finished else RunStatus.to_string(run_status)
            self._asked(run.end, "finished" if finished else "failed", error)
            del OPEN[run_id]
        return self.get_run(run_id).info

    def delete_run(self, run_id: str) -> None:
        """Refuse: see ``retrodict runs prune``."""
        raise self._refused("Runs are removed by 'retrodict runs prune' alone", run_id)

    restore_run = delete_run

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Log values, parameters and tags; to a run that has ended only tags."""
        labels = {tag.key: str(tag.value) for tag in tags or ()}
        run = OPEN.get(run_id)
        if run is None:
            if metrics or params:
                raise MlflowException(f"run:{run_id} must go on in this process to be logged to", INVALID_STATE)
            if labels:
                self._asked(tag_run, self._workspace, f"run:{run_id}", labels)
            return
        for metric in metrics or ():
            self._asked(run.log_metric, metric.key, metric.value, step=int(metric.step or 0))
        self._asked(run.log_params, {param.key: str(param.value) for param in params or ()})
        for name, value in labels.items():
            self._asked(run.set_tag, name, value)
            if name == "mlflow.runName":
                self._asked(run.set_name, value)

    def log_inputs(self, run_id: str, datasets: Any = None, models: Any = None) -> None:  # noqa: ARG002  # MLflow's name
        """Keep which data sets a run read: name, digest, rows and columns as MLflow describes them."""
        run = self._open(run_id)
        for entry in datasets or ():
            data = entry.dataset
            profile, schema = json.loads(data.profile or "{}"), json.loads(data.schema or "{}")
            rows = profile.get("num_rows")
            described = {
                "rows": rows if isinstance(rows, int) else 0,
                "columns": schema,
                "sha256": f"mlflow:{data.digest}",
            }
            run.log_dataset(described, data.name)

    def get_metric_history(
        self, run_id: str, metric_key: str, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList:
        """Every value of a metric, by step, on one page."""
        del max_results, page_token
        record = self._record(run_id)
        points = [point for point in record.points if point.split == "test" and point.name == metric_key]
        return PagedList([_metric(record, metric_key, point.value, point.step) for point in points], None)

    def _search_runs(
        self, experiment_ids: Sequence[str], filter_string: str, run_view_type: Any, max_results: int,
        order_by: Sequence[str], page_token: str | None,
    ) -> tuple[list[Run], str | None]:  # fmt: skip
        del run_view_type
        page = int(page_token or 1)
        numbers = ", ".join("'" + str(number).replace("'", "''") + "'" for number in experiment_ids)
        where = f'tags."{_EXPERIMENT}" in ({numbers})' + (f" and ({_ours(filter_string)})" if filter_string else "")
        order = ", ".join(_ours(part) for part in order_by or ())
        try:
            records = list_runs(self._workspace, where=where, order=order, limit=max_results, page=page)
        except NotFoundError:  # nothing has such a metric or tag: to MLflow that is an empty answer
            return [], None
        except RetrodictError as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from error
        return [self._run(record) for record in records], str(page + 1) if len(records) == max_results else None

    def link_traces_to_run(self, trace_ids: list[str], run_id: str) -> None:
        """Refuse: traces are not kept."""
        raise self._refused("Traces are not kept", f"{len(trace_ids)} of run:{run_id}")

    # logged models ----------------------------------------------------------------------------------------------------

    def create_logged_model(
        self, experiment_id: str = "0", name: str | None = None, source_run_id: str | None = None, tags: Any = None,
        params: Any = None, model_type: str | None = None,
    ) -> LoggedModel:  # fmt: skip
        """Make a model of a run; its files are artifacts of the run."""
        if source_run_id is None:
            raise self._refused("A model must be logged within a run", name)
        number, now = f"m-{secrets.token_hex(16)}", int(time.time() * 1000)
        place = artifact_address(self._workspace.root, source_run_id, f"models/{number}")
        model = LoggedModel(str(experiment_id), number, name or "model", place, now, now, model_type, source_run_id,
                            LoggedModelStatus.PENDING, tags=tags, params=params)  # fmt: skip
        with self._workspace.records.write() as connection:
            connection.execute(insert(models), {"id": number, "body": _body(model)})
        return model

    def get_logged_model(self, model_id: str, allow_deleted: bool = False) -> LoggedModel:
        """One model of a run."""
        del allow_deleted
        with self._workspace.records.read() as connection:
            body = connection.execute(select(models.c.body).where(models.c.id == model_id)).scalar()
        if body is None:
            raise MlflowException(f"There is no logged model {model_id!r}", NOT_FOUND)
        return LoggedModel(**{**json.loads(body), "status": LoggedModelStatus(json.loads(body)["status"])})

    def finalize_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """Say that a model is whole, or failed."""
        return self._changed(model_id, status=LoggedModelStatus(status).value)

    def set_logged_model_tags(self, model_id: str, tags: Any) -> None:
        """Set tags of a model."""
        labels = {**self.get_logged_model(model_id).tags, **{tag.key: tag.value for tag in tags}}
        self._changed(model_id, tags=labels)

    def log_logged_model_params(self, model_id: str, params: Any) -> None:
        """Add parameters of a model."""
        values = {**self.get_logged_model(model_id).params, **{param.key: param.value for param in params}}
        self._changed(model_id, params=values)

    def log_outputs(self, run_id: str, models: Any) -> None:
        """Check that the run exists: which models are its own is kept with the models."""
        del models
        self._record(run_id)

    def record_logged_model(self, run_id: str, mlflow_model: Any) -> None:
        """Check that the run exists: the files of the model say the rest."""
        del mlflow_model
        self._record(run_id)

    def search_logged_models(
        self, experiment_ids: Sequence[str], filter_string: str | None = None, datasets: Any = None,
        max_results: int | None = None, order_by: Any = None, page_token: str | None = None,
    ) -> PagedList:  # fmt: skip
        """Models of experiments, newest first, on one page; a filter may ask for one name."""
        del order_by, page_token
        if datasets:
            raise self._refused("Logged models are not found by data sets", datasets)
        name = _name_in(filter_string) if filter_string else None
        with self._workspace.records.read() as connection:
            ids = connection.execute(select(models.c.id)).scalars().all()
        listed = [self.get_logged_model(number) for number in ids]
        matching = [model for model in listed if model.experiment_id in {str(number) for number in experiment_ids}
                  and name in (None, model.name)]  # fmt: skip
        return PagedList(sorted(matching, key=lambda model: -model.creation_timestamp)[:max_results], None)

    def _changed(self, model_id: str, **values: Any) -> LoggedModel:
        body = json.loads(_body(self.get_logged_model(model_id)))
        body |= {**values, "last_updated_timestamp": int(time.time() * 1000)}
        with self._workspace.records.write() as connection:
            connection.execute(update(models).where(models.c.id == model_id).values(body=json.dumps(body)))
        return self.get_logged_model(model_id)

    # below ------------------------------------------------------------------------------------------------------------

    def _asked(self, call: Any, *arguments: Any, **options: Any) -> Any:
        """Call the house; its errors become MLflow's, which its clients expect."""
        try:
            return call(*arguments, **options)
        except RetrodictError as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from error

    def _open(self, run_id: str) -> OpenRun:
        if run_id not in OPEN:
            raise MlflowException(f"run:{run_id} must go on in this process to be logged to", INVALID_STATE)
        return OPEN[run_id]

    def _record(self, run_id: str) -> Record:
        if run_id in OPEN:
            self._asked(OPEN[run_id].flush)
        try:
            return get_run(self._workspace, f"run:{run_id}")
        except NotFoundError as error:
            raise MlflowException(str(error), RESOURCE_DOES_NOT_EXIST) from error

    def _refused(self, rule: str, got: Any) -> MlflowException:
        return MlflowException(f"{rule} in a project of retrodict; got {got!r}", INVALID_PARAMETER_VALUE)

    def _run(self, record: Record) -> Run:
        info = RunInfo(
            record.id, record.tags.get(_EXPERIMENT, "0"), record.actor, _STATUS[record.status], record.started // 1000,
            None if record.finished is None else record.finished // 1000, "active",
            artifact_address(self._workspace.root, record.id), record.name,
        )  # fmt: skip
        last: dict[str, Any] = {}
        for point in record.points:
            if point.split == "test" and (point.name not in last or point.step >= last[point.name].step):
                last[point.name] = point
        values = [_metric(record, name, point.value, point.step) for name, point in last.items()]
        params = [Param(name, value if isinstance(value, str) else json.dumps(value))
                  for name, value in flatten(record.params).items()]  # fmt: skip
        labels = {"mlflow.runName": record.name, **record.tags}
        return Run(info, RunData(values, params, [RunTag(*pair) for pair in labels.items()]), RunInputs([]))


def _metric(record: Record, name: str, value: float | None, step: int) -> Metric:
    return Metric(name, float("nan") if value is None else value, record.started // 1000, step)


def _body(model: LoggedModel) -> str:
    names = ("experiment_id", "model_id", "name", "artifact_location", "creation_timestamp", "last_updated_timestamp",
             "model_type", "source_run_id", "tags", "params")  # fmt: skip
    return json.dumps(
        {**{name: getattr(model, name) for name in names}, "status": LoggedModelStatus(model.status).value}
    )


def _ours(text: str) -> str:
    """A filter or order of MLflow in the language of the house: names in double quotes, status in small letters."""
    text = re.sub(r"`([^`]*)`", r'"\1"', text).replace("!=", "<>")
    text = re.sub(r"\battributes?\.", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(?:metric|param|tag)\.", lambda match: f"{match[0][:-1]}s.", text)
    text = re.sub(r"\b(?:run_id|run_name|start_time|end_time|user_id)\b", lambda match: _FIELDS[match[0]], text)
    return re.sub(r"'(?:RUNNING|FINISHED|FAILED)'", lambda match: match[0].lower(), text)


def _name_in(filter_string: str) -> str:
    """The one name that a filter of MLflow asks for."""
    match = re.fullmatch(r"\s*(?:attributes?\.)?name\s*=\s*'([^']*)'\s*", filter_string)
    if match is None:
        raise MlflowException(f"A filter must read name = '…' here; got {filter_string!r}", INVALID_PARAMETER_VALUE)
    return match[1]
