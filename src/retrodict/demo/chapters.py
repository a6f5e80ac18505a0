"""The chapters of the demo's report: each reads what really happened and says it in plain numbers and truth values."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from retrodict.core.errors import InternalError
from retrodict.data.ingest import IngestReport
from retrodict.decisions.lineage import trace_decision
from retrodict.decisions.log import read_decisions
from retrodict.decisions.parity import check_parity
from retrodict.decisions.replay import replay_decision
from retrodict.demo.deliveries import Deliveries
from retrodict.demo.live import POLICY, RolloutTimes
from retrodict.demo.traffic import Traffic
from retrodict.evaluation import Evaluation
from retrodict.features.catalogue.tables import newest_versions
from retrodict.features.plan import FeatureSet
from retrodict.features.verify import verify
from retrodict.features.verify.verdicts import record_verification
from retrodict.learning import Run, get_run, replay_run
from retrodict.learning.frame import AT, read_spine, tables_of
from retrodict.learning.recipes import Progress
from retrodict.ledger import verify as verify_ledger
from retrodict.models.definitions import Model
from retrodict.monitoring.compare import reproduce_champion
from retrodict.monitoring.report import MonitorReport
from retrodict.registry import ModelVersion
from retrodict.workspace import Workspace

__all__: list[str] = []

_REPLAYED = 9
_PROBES = 20


def prove_features(project: Workspace, model: Model) -> dict[str, Any]:
    """Compare training frame, stream and naive oracle at random and at every edge; a pass lets the views serve."""
    features = FeatureSet(model.features)
    versions = newest_versions(project.tables, tables_of(model), where=f"model {model.name}")
    read = {name: project.tables.read(name, version) for name, version in versions.items()}
    spine = read_spine(read[model.label.table.name], model, features)
    sources = {name: read[source.table.name] for name, source in features.sources.items()}
    report = verify(features, sources, spine, AT, stream=True, samples=_PROBES)
    record_verification(project, features, report, versions)
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


def describe_training(project: Workspace, run: Run, version: ModelVersion) -> dict[str, Any]:
    """The run as the evaluation store has it."""
    kept = {artifact.name: artifact.digest for artifact in get_run(project, run.ref).artifacts}
    evaluations = json.loads(project.objects.get(kept["evaluations.json"]))
    test = Evaluation.from_dict(evaluations["test"])
    return {
        "run": run.ref,
        "model": version.ref,
        "rows": run.data["rows"],
        "versions": run.data["versions"],
        "seconds": round(run.seconds or 0.0, 2),
        "metrics": test.values(),
        "ladder": run.summary["ladder"],
        "curve": evaluations["test"]["curve"],
        "gates": version.gates,
        "trees": run.summary["trees"],
        "best_iteration": run.params.get("best_iteration"),
    }


def describe_ingest(reports: Sequence[IngestReport], deliveries: Deliveries) -> dict[str, Any]:
    """What came in, by table: rows in = accepted + quarantined."""
    found: dict[str, Any] = {}
    for table in ("flights", "weather", "planes"):
        mine = [report for report in reports if report.table == table]
        reasons: dict[str, int] = {}
        for report in mine:
            for check, failed in report.reasons.items():
                reasons[check] = reasons.get(check, 0) + failed
        found[table] = {
            "rows_in": sum(report.rows_in for report in mine),
            "accepted": sum(report.accepted for report in mine),
            "quarantined": sum(report.quarantined for report in mine),
            "versions": [report.version for report in mine],
            "reasons": reasons,
            "not_delivered": deliveries.rows(table, None, None).num_rows - sum(report.rows_in for report in mine),
        }
    return found


def server_status(url: str) -> dict[str, Any]:
    """What the server says of itself."""
    with urlopen(f"{url}/v1/status", timeout=10) as response:  # noqa: S310  # our own server
        status: dict[str, Any] = json.load(response)
    return status


def describe_serving(project: Workspace, traffic: Traffic, status: dict[str, Any]) -> dict[str, Any]:
    """Requests, errors, latency as the caller sees it and per stage, and whether every answer is in the log."""
    taken = np.array([answer.milliseconds for answer in traffic.answers])
    logged = [item.record.id for item in read_decisions(project, policy=POLICY)]
    answered = traffic.decided
    return {
        "requests": len(traffic.answers),
        "errors": traffic.errors,
        "answered": len(answered),
        "logged": len(logged),
        "answered_not_logged": len(set(answered) - set(logged)),
        "logged_twice": len(logged) - len(set(logged)),
        "p50_ms": round(float(np.percentile(taken, 50)), 3),
        "p95_ms": round(float(np.percentile(taken, 95)), 3),
        "p99_ms": round(float(np.percentile(taken, 99)), 3),
        "latencies_ms": [round(float(value), 3) for value in np.percentile(taken, np.arange(0.5, 100, 0.5))],
        "stages": status["latency"],
        "fallbacks": sum(1 for answer in traffic.answers if "fallback" in answer.body),
        "decisions": _tally([str(answer.body.get("decision")) for answer in traffic.answers]),
    }


def _tally(values: Sequence[str]) -> dict[str, int]:
    return {value: values.count(value) for value in sorted(set(values))}


def check_parity_of_all(project: Workspace) -> dict[str, Any]:
    """Every feature value of every decision against its offline recomputation, and every score from its features."""
    return {**check_parity(project, POLICY).to_dict(), "scores": reproduce_champion(project, POLICY).to_dict()}


def describe_watching(
    reports: Sequence[MonitorReport], champion: ModelVersion
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Performance per month and carrier with pending counts; drift per feature; triggers."""
    last = reports[-1].to_dict()
    months = [part for part in last["performance"] if part["by"] is None]
    outcomes = {
        "counts": last["counts"],
        "training_label_rate": champion.metrics.get("base_rate"),
        "months": months,
        "carriers": [part for part in last["performance"] if part["by"] is not None],
        "first_look": [part for part in reports[0].to_dict()["performance"] if part["by"] is None],
    }
    drift = {
        "months": last["drift"],
        "triggers": [trigger for report in reports for trigger in report.to_dict()["triggers"]],
    }
    return outcomes, drift


def describe_rollout(times: RolloutTimes) -> dict[str, Any]:
    """Milliseconds and failed requests of a promotion and a rollback under load."""
    return {
        "promote_ms": round(times.promote_ms, 2),
        "promote_first_answer_ms": round(times.promote_seen_ms, 2),
        "rollback_ms": round(times.rollback_ms, 2),
        "rollback_first_answer_ms": round(times.rollback_seen_ms, 2),
        "requests": times.requests,
        "failed_requests": times.failed_requests,
        "decisions_by_model": times.by_model,
        "promoted": times.promoted.to_dict() if times.promoted else None,
        "rolled_back": times.rolled_back.to_dict() if times.rolled_back else None,
    }


def choose_decision(traffic: Traffic) -> str:
    """The decision to look back at: the highest score, which somebody would ask about."""
    decided = [answer for answer in traffic.answers if answer.status == 200 and answer.body["score"] is not None]
    return "decision:" + str(max(decided, key=lambda answer: float(answer.body["score"])).body["decision_id"])


def trace(project: Workspace, ref: str) -> dict[str, Any]:
    """Lineage of one decision."""
    return trace_decision(project, ref)


def replay_decisions(project: Workspace, traffic: Traffic, chosen: str) -> dict[str, Any]:
    """The chosen decision, and some more spread evenly over the traffic, decided again."""
    replay = replay_decision(project, chosen)
    ids = traffic.decided
    some = [f"decision:{ids[place]}" for place in np.linspace(0, len(ids) - 1, _REPLAYED).astype(int).tolist()]
    more = [replay_decision(project, ref).verdict for ref in some]
    counts = {"more_replayed": len(more), "more_exact": more.count("exact")}
    return {**replay.to_dict(), **counts}


def replay_training(project: Workspace, champion: ModelVersion, *, progress: Progress) -> dict[str, Any]:
    """The champion's run, executed again from the ledger."""
    replay = replay_run(project, f"run:{champion.run}", progress=progress)
    return replay.to_dict()


def audit(project: Workspace) -> dict[str, Any]:
    """Verify everything; then alter one byte of one entry in a copy of the database and see whether that is found."""
    report = verify_ledger(
        project.ledger, objects=project.objects, streams=project.streams, file_digest=project.tables.file_digest
    )
    middle = report.entries // 2
    with tempfile.TemporaryDirectory() as folder:
        copy = _copy_ledger(project, Path(folder))
        _alter_one_byte(copy.config.path("stores.records"), middle)
        found = verify_ledger(
            copy.ledger, objects=project.objects, streams=project.streams, file_digest=project.tables.file_digest
        )
        copy.close()
    named = [finding for finding in found.findings if finding.where == f"entry {middle}"]
    return {
        **report.to_dict(),
        "tamper_detected": bool(named),
        "tampered_entry": middle,
        "tamper_findings": [{"kind": f.kind, "where": f.where, "detail": f.detail} for f in found.findings],
    }


def _copy_ledger(project: Workspace, folder: Path) -> Workspace:
    """Project over a copy of the records; everything else is read from the original."""
    shutil.copy(project.root / "retrodict.toml", folder / "retrodict.toml")
    shutil.copytree(project.config.path("ledger.checkpoints"), folder / "checkpoints")
    target = folder / "state" / "records.db"
    target.parent.mkdir()
    shutil.copy(project.config.path("ledger.key"), folder / "state" / "ledger.key")
    source, copy = sqlite3.connect(project.config.path("stores.records")), sqlite3.connect(target)
    source.backup(copy)
    source.close()
    copy.close()
    return Workspace(folder, clock=project.clock, actor=project.actor)


def _alter_one_byte(database: Path, sequence: int) -> None:
    """Change one letter of one entry's payload, as somebody with access to the file would."""
    connection = sqlite3.connect(database)
    with connection:
        text = connection.execute("SELECT payload FROM ledger_entries WHERE sequence = ?", (sequence,)).fetchone()[0]
        place = next((i for i, letter in enumerate(text) if letter.isdigit()), None)
        if place is None:
            raise InternalError("the entry to alter holds a digit", where="demo", got=sequence)
        altered = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        connection.execute("UPDATE ledger_entries SET payload = ? WHERE sequence = ?", (altered, sequence))
    connection.close()
