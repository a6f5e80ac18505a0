"""The chapters of the demo's report: each reads what really happened and says it in plain numbers and truth values."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.core.errors import InternalError
from retrodict.data.ingest import IngestReport
from retrodict.demo.deliveries import Deliveries
from retrodict.demo.live import MODEL, POLICY, ChampionChange
from retrodict.demo.traffic import Answer, Traffic
from retrodict.features.plan import FeatureSet
from retrodict.ledger import AuditReport, verify
from retrodict.models.definitions import Model
from retrodict.monitoring.report import MonitorReport
from retrodict.project import Project
from retrodict.project.runs import Run
from retrodict.registry import ModelVersion
from retrodict.rollout import reproduce_champion
from retrodict.workspace import Workspace

__all__: list[str] = []

_REPLAYED = 9
_PROBES = 20


def prove_features(project: Project) -> dict[str, Any]:
    """Compare training frame, stream and naive oracle at random and at every edge; a pass lets the views serve."""
    features = FeatureSet(project.definitions.get(Model, MODEL).features)
    report = project.features.verify(MODEL, samples=_PROBES).reports[MODEL]
    return {
        "columns": len(features.columns),
        "views": len(features.views),
        "set": features.version,
        "values_checked": report.checked,
        "values_checked_by": report.compared,
        "probes": report.probes,
        "mismatches": len(report.mismatches),
        "verdict": report.verdict,
    }


def describe_training(project: Project, run: Run) -> dict[str, Any]:
    """The run as the evaluation store has it."""
    digests = {artifact.name: artifact.digest for artifact in project.runs.get(run.ref).record.artifacts}
    evaluations = json.loads(project.workspace.objects.get(digests["evaluations.json"]))
    return {
        "run": run.ref,
        "model": None if run.version is None else run.version.ref,
        "rows": run.record.data["rows"],
        "versions": run.record.data["versions"],
        "seconds": round(run.record.seconds or 0.0, 2),
        "metrics": {metric["name"]: metric["value"] for metric in evaluations["test"]["metrics"]},
        "ladder": run.record.summary["ladder"],
        "curve": evaluations["test"]["curve"],
        "gates": [] if run.version is None else run.version.gates,
        "trees": run.record.summary["trees"],
        "best_iteration": run.params.get("best_iteration"),
        "calibration": run.record.summary["calibration"]["method"],
        "warnings": list(run.warnings),
    }


def describe_ingest(reports: Sequence[IngestReport], deliveries: Deliveries) -> dict[str, Any]:
    """What came in, by table: rows in = accepted + quarantined."""
    tables: dict[str, Any] = {}
    for table in ("flights", "weather", "planes"):
        batches = [report for report in reports if report.table == table]
        reasons: Counter[str] = Counter()
        for batch in batches:
            reasons.update(batch.reasons)
        rows_in = sum(batch.rows_in for batch in batches)
        tables[table] = {
            "rows_in": rows_in,
            "accepted": sum(batch.accepted for batch in batches),
            "quarantined": sum(batch.quarantined for batch in batches),
            "versions": [batch.version for batch in batches],
            "reasons": dict(reasons),
            "not_delivered": deliveries.rows(table, None, None).num_rows - rows_in,
        }
    return tables


def describe_serving(project: Project, traffic: Traffic, status: dict[str, Any]) -> dict[str, Any]:
    """Requests, errors, latency as the caller sees it and per stage, and whether every answer is in the log."""
    latencies = np.array([answer.milliseconds for answer in traffic.answers])
    logged = project.decisions.table(POLICY).column("id").to_pylist()
    answered = traffic.decided
    return {
        "requests": len(traffic.answers),
        "errors": sum(answer.failed for answer in traffic.answers),
        "answered": len(answered),
        "logged": len(logged),
        "answered_not_logged": len(set(answered) - set(logged)),
        "logged_twice": len(logged) - len(set(logged)),
        **{f"p{level}_ms": round(float(np.percentile(latencies, level)), 3) for level in (50, 95, 99)},
        "latencies_ms": [round(float(value), 3) for value in np.percentile(latencies, np.arange(0.5, 100, 0.5))],
        "stages": status["latency"],
        "fallbacks": sum(1 for answer in traffic.answers if "fallback" in answer.body),
        "decisions": dict(sorted(Counter(str(answer.body.get("decision")) for answer in traffic.answers).items())),
    }


def check_parity(project: Project) -> dict[str, Any]:
    """Every feature value of every decision against its offline recomputation, and every score from its features."""
    scores = reproduce_champion(project.workspace, POLICY)
    return {**project.features.parity(POLICY).report.to_dict(), "scores": scores.to_dict()}


def describe_watching(
    reports: Sequence[MonitorReport], champion: ModelVersion
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Performance per month and carrier with pending counts; drift per feature; triggers."""
    last = reports[-1].to_dict()
    outcomes = {
        "counts": last["counts"],
        "training_label_rate": champion.metrics.get("base_rate"),
        "months": [part for part in last["performance"] if part["by"] is None],
        "carriers": [part for part in last["performance"] if part["by"] is not None],
        "first_look": [part for part in reports[0].to_dict()["performance"] if part["by"] is None],
    }
    triggers = [trigger for report in reports for trigger in report.to_dict()["triggers"]]
    return outcomes, {"months": last["drift"], "triggers": triggers}


def describe_rollout(changes: Sequence[ChampionChange], answers: Sequence[Answer]) -> dict[str, Any]:
    """Milliseconds of a promotion and a rollback, and what became of the requests that came meanwhile."""
    times = {}
    for action, change in zip(("promote", "rollback"), changes, strict=True):
        ending = f"#{change.revision.revision}"
        by_revision = (a.at for a in answers if not a.failed and a.body["policy"].endswith(ending))
        times[f"{action}_ms"] = round(change.milliseconds, 2)
        times[f"{action}_first_answer_ms"] = round((next(by_revision, math.nan) - change.began) * 1e3, 2)
    promoted, rolled_back = (change.revision.to_dict() for change in changes)
    return {
        **times,
        "requests": len(answers),
        "failed_requests": sum(answer.failed for answer in answers),
        "decisions_by_model": dict(Counter(answer.body["model"] for answer in answers if "model" in answer.body)),
        "promoted": promoted,
        "rolled_back": rolled_back,
    }


def highest_scored(traffic: Traffic) -> str:
    """The decision to look back at: the highest score, which somebody would ask about."""
    scored = [answer.body for answer in traffic.answers if not answer.failed and answer.body["score"] is not None]
    return f"decision:{max(scored, key=lambda body: float(body['score']))['decision_id']}"


def replay_decisions(project: Project, traffic: Traffic, decision: str) -> dict[str, Any]:
    """One decision, and some more spread evenly over the traffic, decided again."""
    replay, ids = project.replay_decision(decision), traffic.decided
    places = np.linspace(0, len(ids) - 1, _REPLAYED).astype(int).tolist()
    verdicts = [project.replay_decision(f"decision:{ids[place]}").verdict for place in places]
    return {**replay.to_dict(), "more_replayed": len(verdicts), "more_exact": verdicts.count("exact")}


def audit(project: Project) -> dict[str, Any]:
    """Verify everything; then alter one byte of one entry in a copy of the database and see whether that is noticed."""
    report = project.audit()
    entry = report.entries // 2
    findings = _audit_tampered(project.workspace, entry).findings
    return {
        **report.to_dict(),
        "tamper_detected": any(finding.where == f"entry {entry}" for finding in findings),
        "tampered_entry": entry,
        "tamper_findings": [{"kind": f.kind, "where": f.where, "detail": f.detail} for f in findings],
    }


def _audit_tampered(workspace: Workspace, entry: int) -> AuditReport:
    """Verify a copy of the ledger with one letter changed; everything else is read from the original."""
    with tempfile.TemporaryDirectory() as name:
        folder, config = Path(name), workspace.config
        (folder / "state").mkdir()
        shutil.copy(workspace.root / "retrodict.toml", folder)
        shutil.copy(config.path("ledger.key"), folder / "state" / "ledger.key")
        shutil.copytree(config.path("ledger.checkpoints"), folder / "checkpoints")
        source = sqlite3.connect(config.path("stores.records"))
        target = sqlite3.connect(folder / "state" / "records.db")
        source.backup(target)
        source.close()
        _alter_one_byte(target, entry)
        target.close()
        copy = Workspace(folder, clock=workspace.clock, actor=workspace.actor)
        report = verify(copy.ledger, objects=workspace.objects, streams=workspace.streams, data=workspace.tables)
        copy.close()
    return report


def _alter_one_byte(database: sqlite3.Connection, entry: int) -> None:
    """Change one digit of an entry's payload, as somebody with access to the file would."""
    query = "SELECT payload FROM ledger_entries WHERE sequence = ?"
    text = database.execute(query, (entry,)).fetchone()[0]
    place = next((place for place, letter in enumerate(text) if letter.isdigit()), None)
    if place is None:
        raise InternalError("the entry to alter must hold a digit", where="demo", got=f"entry {entry}",
                            remedy="Alter another entry")  # fmt: skip
    altered = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
    with database:
        database.execute("UPDATE ledger_entries SET payload = ? WHERE sequence = ?", (altered, entry))
