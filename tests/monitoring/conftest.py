"""A small real project: a label table, two model versions, a deployed policy, and a log that the tests write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrodict.core.clock import SimulatedClock, from_micros, parse_time
from retrodict.core.durations import HOUR
from retrodict.core.identity import canonical_json
from retrodict.decisions.recorder import LogWriter
from retrodict.decisions.records import DecisionRecord, encode_record
from retrodict.evaluation.reference import Reference
from retrodict.models import Examples, InputSpec, ModelArtifact, fit_logistic
from retrodict.registry import Deployment, ModelVersion, change, register
from retrodict.workspace import Workspace

DEFINITIONS = """
from retrodict.data.definitions import Table
from retrodict.features.labels import Label
from retrodict.data.sources import Source
from retrodict.features.definitions import Entity, FeatureView, latest
from retrodict.models.definitions import Model, Recipe
from retrodict.models.splits import TimeSplit
from retrodict.monitoring.definitions import Monitor, Trigger
from retrodict.decisions.definitions import Policy, Rule

flights = Table("flights", key="flight_id", columns={"arr_time": "time", "arr_delay": "float"})
weather = Table("weather", key=["origin", "hour"], columns={"hour": "time"})
sky = Source("sky", weather, event_time="hour")
late = Label("late", flights, "arr_delay > 15", known_at="arr_time", matures="24h")
weather_now = FeatureView("weather", Entity("origin"), sky, [latest("wind", name="wind")])
model = Model("late_arrival", label=late, decide_at="sched_dep", features=[weather_now],
              recipe=Recipe("logistic", TimeSplit(train="2013-01-01/2013-02-01")))
warn_early = Policy("warn_early", model, decide={"warn": "score >= 0.5", "ok": "otherwise"},
                    rules=[Rule("fog", when="wind > 1000", then="warn", reason="Fog")], fallback=["ok"])
watch = Monitor(warn_early, by=["carrier"], name="watch", triggers=[
    Trigger.retrain(on="psi > 0.25", cooldown="24h", min_labels=50),
    Trigger.retrain(on="auc_drop > 0.5", cooldown="24h", min_labels=50),
])
"""

START = parse_time("2013-03-01T00:00Z")
NOW = parse_time("2013-05-01T00:00Z")
FEATURES = ("weather__wind", "weather__origin")


def make_rows(n: int, seed: int, *, shift: float = 0.0) -> tuple[dict[str, Any], np.ndarray]:
    """Feature columns, and outcomes that depend on them."""
    rng = np.random.default_rng(seed)
    wind = rng.normal(10.0 + shift, 4.0, n)
    origin = rng.choice(["EWR", "JFK", "LGA"], n)
    margin = 0.25 * (wind - 10.0) + 1.2 * (origin == "JFK") - 0.8
    labels = (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(np.float64)
    return {"weather__wind": wind, "weather__origin": origin.astype(object)}, labels


def train(project: Workspace, *, run: str, features: Sequence[str] = FEATURES, seed: int = 1) -> ModelVersion:
    """Register a logistic regression with the profiles of its training rows."""
    rows, labels = make_rows(3000, seed)
    columns = {name: rows[name] for name in features}
    spec = InputSpec.learn(columns)
    examples = Examples(spec.encode_columns(columns), labels)
    engine = fit_logistic(examples, spec.categorical).engine
    bare = ModelArtifact("late_arrival", spec, engine)
    profiles = {name: pa.array(column) for name, column in columns.items()}
    profiles["score"] = pa.array(bare.score_rows(columns).score)
    reference = project.objects.put(Reference.of(profiles).to_json())
    metadata = {"profiles": reference, "test_metrics": {"auc": 0.75, "base_rate": float(labels.mean())}}
    artifact = ModelArtifact("late_arrival", spec, engine, metadata=metadata).save(project.objects)
    code = project.objects.put(canonical_json({"definitions": "definitions.py", "files": {}}))
    return register(project, "late_arrival", run=run, artifact=artifact, code=code, gates=[], metrics={})


def deploy(project: Workspace, version: ModelVersion) -> None:
    """Put a version in force now."""
    deployment = Deployment("warn_early", "0" * 64, version.code, version.ref, version.artifact, version.code)
    change(project, deployment, action="deploy", reason="test")


def record(number: int, **facts: Any) -> DecisionRecord:
    """One decision; every fact can be given."""
    plain: dict[str, Any] = {
        "id": f"{number:026d}", "time": START + number * HOUR, "policy": "warn_early", "revision": 1,
        "policy_version": "0" * 64, "code": "0" * 64, "model": "late_arrival@1", "artifact": "0" * 64,
        "model_code": "0" * 64, "entities": {}, "context": {}, "features": {}, "decision": "ok", "raw": 0.25,
        "score": 0.25, "key": f"f{number}",
    }  # fmt: skip
    return DecisionRecord(**{**plain, **facts})


def log(project: Workspace, records: Sequence[DecisionRecord]) -> None:
    """Append decisions to the real log."""
    with LogWriter(project) as writer:
        writer.append([encode_record(each) for each in records])


def flights(keys: Sequence[str], delays: Sequence[float | None], arrivals: Sequence[int | None]) -> pa.Table:
    """Rows of the label's table."""
    times = [None if at is None else from_micros(at) for at in arrivals]
    return pa.table({"flight_id": pa.array(keys, pa.string()), "arr_delay": pa.array(delays, pa.float64()),
                     "arr_time": pa.array(times, pa.timestamp("us", "UTC"))})  # fmt: skip


def decided(artifact: ModelArtifact, rows: dict[str, Any], times: np.ndarray, **facts: Any) -> list[DecisionRecord]:
    """Decisions as a server would have logged them: scored row by row."""
    carriers = ("B6", "DL", "UA")
    made = []
    for at, moment in enumerate(times):
        values = {name: column[at] for name, column in rows.items()}
        values = {name: float(value) if isinstance(value, float) else value for name, value in values.items()}
        answer = artifact.score_row(values)
        made.append(
            record(at, time=int(moment), features=values, raw=answer.raw, score=answer.score,
                   decision="warn" if answer.score >= 0.5 else "ok", entities={"carrier": carriers[at % 3]}, **facts)
        )  # fmt: skip
    return made


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Workspace]:
    def make(definitions: str = DEFINITIONS) -> Workspace:
        (tmp_path / "retrodict.toml").write_text('[project]\nname = "flights"\n')
        (tmp_path / "definitions.py").write_text(definitions)
        return Workspace(tmp_path, clock=SimulatedClock(START), actor="tester")

    return make


@pytest.fixture
def project(make_project):
    with make_project() as opened:
        yield opened


@pytest.fixture
def world(project):
    """Two months of 1,200 decisions by the deployed version, wind stronger in April, every outcome known in 3 hours."""
    version = train(project, run="r1")
    deploy(project, version)
    artifact = ModelArtifact.load(project.objects, version.artifact)
    march, march_labels = make_rows(600, 11)
    april, april_labels = make_rows(600, 12, shift=6.0)
    rows = {name: np.concatenate([march[name], april[name]]) for name in march}
    labels = np.concatenate([march_labels, april_labels])
    edge = parse_time("2013-04-01T00:00Z")
    times = np.concatenate([np.linspace(START, edge - HOUR, 600), np.linspace(edge, NOW - 48 * HOUR, 600)]).astype(
        np.int64
    )
    records = decided(artifact, rows, times)
    log(project, records)
    project.tables.write(
        "flights", flights([r.key for r in records], (labels * 60.0).tolist(), (times + 3 * HOUR).tolist())
    )
    return project, records, labels


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The builders above, for tests that write their own log."""
    return SimpleNamespace(
        START=START, NOW=NOW, DEFINITIONS=DEFINITIONS, make_rows=make_rows, train=train, deploy=deploy, record=record,
        log=log, flights=flights, decided=decided,
    )  # fmt: skip
