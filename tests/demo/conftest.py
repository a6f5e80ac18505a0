"""A small but complete report of a demo, made by hand from the objects that real chapters are made of."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from retrodict.core.statistics.drift import DriftVerdict
from retrodict.decisions.parity import ParityReport
from retrodict.decisions.replay import DecisionReplay
from retrodict.evaluation.compare import Comparison
from retrodict.evaluation.gates import GateResult
from retrodict.evaluation.ladder import Ladder, LadderVerdict, Rung
from retrodict.evaluation.metrics import CalibrationBin, Metric
from retrodict.learning.leakage import LeakageReport
from retrodict.learning.replay import RunReplay
from retrodict.ledger.verify import AuditReport
from retrodict.monitoring.drift import DriftReport, FeatureDrift, RateChange
from retrodict.monitoring.performance import Slice
from retrodict.monitoring.periods import periods_between
from retrodict.monitoring.triggers import TriggerResult
from retrodict.registry import Deployment, Revision
from retrodict.rollout import Reproduction
from retrodict.rollout.report import ChallengerReport
from retrodict.rollout.rescore import Challenger

DAY = 86_400_000_000
SEPTEMBER = 1_377_993_600_000_000
CURVE = [CalibrationBin(0.1, 0.12, 500, 0.09, 0.15), CalibrationBin(0.4, 0.38, 500, 0.34, 0.42)]
EVIL = "<script>alert('1 & 2')</script>"


def metric(name: str, value: float | None) -> Metric:
    if value is None:
        return Metric(name, None, "too few", 3)
    return Metric(name, value, None, 1000, value - 0.02, value + 0.02)


def month(place: int, auc: float | None, *, complete: bool = True, by: str | None = None) -> dict[str, Any]:
    period = periods_between(SEPTEMBER, SEPTEMBER + 100 * DAY, "month")[place]
    values = {"label_rate": 0.2, "auc": auc, "calibration_ratio": 1.1, "calibration_error": 0.03}
    found = tuple(metric(name, value) for name, value in values.items())
    value = "UA" if by else None
    return Slice(period, complete, by, value, 1000, 950, 30, 20, 0, 0, found, tuple(asdict(b) for b in CURVE)).to_dict()


def drift_of(psi: float, status: Any) -> FeatureDrift:
    reason = f"psi {psi:.4g} compared with the threshold 0.25"
    return FeatureDrift(DriftVerdict(status, reason, psi, 0.01, 0.2, 0.1, 9000, 1000), ("a", "b"), (5, 5), (4, 6))


def drifts() -> dict[str, Any]:
    features = {"sky__temp": drift_of(0.9, "drift"), "sky__wind": drift_of(0.02, "no drift")}
    rate = RateChange("unchanged", "inside", 0.2, 0.21)
    full = DriftReport("late@1", None, 1000, 0, {}, features, drift_of(0.03, "no drift"), rate)
    few = FeatureDrift(DriftVerdict("not evaluable", "7 rows are too few", None, None, None, None, 9000, 7))
    return {"2013-09": full.to_dict(), "2013-10": DriftReport("late@1", None, 7, 0, {}, {"sky__temp": few}).to_dict()}


def revision(number: int, action: Any) -> dict[str, Any]:
    deployment = Deployment("warn", "p" * 8, "c" * 8, "late@2", "a" * 8, "m" * 8)
    return Revision(number, SEPTEMBER, "ana", action, "drill", deployment).to_dict()


def lineage() -> dict[str, Any]:
    features = [
        {
            "feature": "sky__temp",
            "value": 61.5,
            "view": "view:sky@9f",
            "rows": 3,
            "from": ["dataset:weather@2"],
            "keys": ["EWR 7"],
        },
        {"feature": "calendar__hour", "value": 7, "derived": "derived:calendar@1c", "inputs": ["sched_dep"]},
    ]
    approval = {"time": "2013-09-01T00:00:00Z", "approver": "ben", "granted": True, "reason": EVIL}
    return {
        "decision": {
            "id": "decision:01J",
            "time": "2013-09-03T10:00:00Z",
            "decision": "warn",
            "score": 0.8125,
            "rule": None,
            "reasons": [EVIL],
        },
        "log": {
            "stream": "decisions",
            "offset": 41,
            "sealed": True,
            "ledger_entry": 9,
            "leaf": 4,
            "of": 70,
            "root": "ab" * 32,
        },
        "policy": {
            "policy": "policy:warn#1",
            "version": "p",
            "action": "deploy",
            "by": "ana",
            "in_force_since": "2013-09-01T00:00:00Z",
            "reason": "pilot",
        },
        "features": features,
        "model": {
            "model": "model:late@1",
            "artifact": "cd" * 32,
            "author": "ana",
            "gates": [{"gate": "g", "status": "pass"}],
        },
        "run": {"run": "run:01J"},
        "data": ["dataset:flights@1"],
        "code": ["code:ef"],
        "environment": ["environment:09"],
        "approvals": [approval],
    }


def comparison() -> dict[str, Any]:
    scores = Comparison(
        "better", "clear", 900, 9, *(metric(n, 0.01) for n in ("auc", "brier", "agreement", "distance"))
    )
    challenger = Challenger("late@2", "late@2", "a", "c", "warn", "v", "c")
    found = ChallengerReport(
        "warn", challenger, {"late@1": 909}, 0, 1, 2, 909, 909, {}, 0, {}, metric("agreement", 0.9), {"ok -> warn": 12},
        [], (), {}, {"known": 900, "pending": 9, "void": 0}, scores,
    )  # fmt: skip
    return found.to_dict()


@pytest.fixture
def report() -> dict[str, Any]:
    table = {
        "rows_in": 100,
        "accepted": 97,
        "quarantined": 3,
        "versions": [1, 2],
        "reasons": {"between": 3},
        "not_delivered": 5,
    }
    ladder = Ladder(
        (Rung("majority", metric("auc", 0.5)), Rung("logistic", metric("auc", 0.66))),
        "logistic",
        metric("auc", 0.7),
        LadderVerdict("beats", "by far", 1000, 0.04, 0.03, 0.05, 0.001),
    )
    stage = {"count": 300.0, "p50_ms": 0.1, "p95_ms": 0.2, "p99_ms": 0.4}
    trigger = TriggerResult("trigger:w@1", "retrain", "psi > 0.25", "fires", "psi is 0.9", "2013-09", {"psi": 0.9})
    replay = DecisionReplay(
        "decision:01J", "exact", 2, [], {"decision": "warn", "score": 0.8125}, {}, {"weather": 2}, {}, ""
    )
    months = [month(0, 0.7), month(1, 0.68), month(2, None, complete=False)]
    return {
        "ingest": {
            "flaws": {"flights.no_tail": 7},
            "labels": {"flights": 100, "late_rate": 0.23},
            "flights": table,
            "weather": dict(table),
        },
        "features": {
            "columns": 2,
            "views": 1,
            "set": "9f",
            "values_checked": 400,
            "values_checked_by": {"oracle": 390, "stream": 400},
            "probes": 60,
            "mismatches": 0,
            "verdict": "equal",
            "materialised": {"sky": 3},
        },
        "leakage": LeakageReport(0.7, 0.8, 0.6, 40, 400).to_dict(),
        "training": {
            "run": "run:01J",
            "model": "late@1",
            "rows": {"train": 900},
            "versions": {"flights": 1},
            "seconds": 2.0,
            "metrics": {"auc": 0.7, "calibration_error": 0.02},
            "ladder": ladder.to_dict(),
            "curve": [asdict(b) for b in CURVE],
            "gates": [GateResult("auc >= 0.65", "pass", 0.7, "auc is 0.7").to_dict()],
            "trees": "ee",
            "best_iteration": 40,
            "calibration": "sigmoid",
            "warnings": ["The log loss is above the majority's."],
        },
        "serving": {
            "requests": 300,
            "errors": 0,
            "answered": 300,
            "logged": 300,
            "answered_not_logged": 0,
            "logged_twice": 0,
            "p50_ms": 1.0,
            "p95_ms": 2.0,
            "p99_ms": 4.0,
            "latencies_ms": [0.5, 0.9, 1.0, 1.1, 4.0],
            "stages": {"features": stage, "total": dict(stage)},
            "fallbacks": 0,
            "decisions": {"ok": 250, "warn": 50},
        },
        "parity": {
            **ParityReport(300, 600, 0, 0, {}, [], {"flights": 4}).to_dict(),
            "scores": Reproduction(300, 0, 0, {"late@1": {"checked": 300, "mismatches": 0}}).to_dict(),
        },
        "outcomes": {
            "counts": {"decisions": 3000, "known": 2850, "pending": 90, "void": 60, "revised": 0, "without_key": 0},
            "training_label_rate": 0.22,
            "months": months,
            "carriers": [month(0, 0.7, by="carrier")],
            "first_look": months[:1],
        },
        "drift": {"months": drifts(), "triggers": [trigger.to_dict()]},
        "rollout": {
            "comparison": comparison(),
            "promote_ms": 12.0,
            "promote_first_answer_ms": 20.0,
            "rollback_ms": 11.0,
            "rollback_first_answer_ms": float("nan"),
            "requests": 100,
            "failed_requests": 0,
            "decisions_by_model": {"late@1": 60, "late@2": 40},
            "promoted": revision(2, "promote"),
            "rolled_back": revision(3, "rollback"),
        },
        "lineage": lineage(),
        "replay_decision": {**replay.to_dict(), "more_replayed": 25, "more_exact": 25},
        "replay_run": RunReplay(
            "run:01J", "exact", True, {"trees": {"recorded": "ee", "replayed": "ee", "equal": True}}, "", 3.0
        ).to_dict(),
        "audit": {
            **AuditReport(entries=20, edges=9).to_dict(),
            "tamper_detected": True,
            "tampered_entry": 10,
            "tamper_findings": [{"kind": "entry", "where": "entry 10", "detail": "altered"}],
        },
        "timings": {"ingest": 7.0, "training": 60.0, "total": 67.0},
    }
