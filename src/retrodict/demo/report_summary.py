"""The demo in a dozen lines: what each chapter asked, what came out, and whether the numbers say yes.

Every mark is computed here from the numbers of the report; no chapter hands over a verdict that is not checked against
the counts beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MARKS", "SummaryRow", "decimal", "share", "summary"]

Part = Mapping[str, Any]

MARKS: Mapping[bool | None, str] = {True: "✓", False: "✗", None: "-"}


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One chapter: ``ok`` is None where the report holds nothing that could be judged."""

    chapter: str
    question: str
    result: str
    ok: bool | None


def summary(report: Mapping[str, Any]) -> list[SummaryRow]:
    """One row per chapter, in the order in which they happened; one that is absent is said to be absent."""
    rows = []
    for chapter, (question, judge) in _CHAPTERS.items():
        part = report.get(chapter)
        result, ok = judge(part) if part else ("not in this report", None)
        rows.append(SummaryRow(chapter.replace("_", " "), question, result, ok))
    return rows


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number as text; a dash for None and NaN."""
    return "-" if value is None or value != value else f"{value:,.{digits}f}"  # noqa: PLR0124  # NaN is no value


def share(value: float | None) -> str:
    """Return a share as percent; a dash for None and NaN."""
    return "-" if value is None or value != value else f"{100 * value:.1f} %"  # noqa: PLR0124  # NaN is no value


def _ingest(part: Part) -> tuple[str, bool | None]:
    tables = [table for table in part.values() if isinstance(table, Mapping) and "rows_in" in table]
    total = {name: sum(table[name] for table in tables) for name in ("rows_in", "accepted", "quarantined")}
    complete = all(table["rows_in"] == table["accepted"] + table["quarantined"] for table in tables)
    result = f"{total['rows_in']:,} rows in = {total['accepted']:,} accepted + {total['quarantined']:,} quarantined"
    return f"{result}, {len(tables)} tables", bool(total["rows_in"]) and complete


def _features(part: Part) -> tuple[str, bool | None]:
    result = f"{part['mismatches']:,} of {part['values_checked']:,} values differ, {part['probes']:,} probes"
    return result, None if not part["values_checked"] else part["mismatches"] == 0


def _leakage(part: Part) -> tuple[str, bool | None]:
    honest, naive, real = part["auc_point_in_time"], part["auc_naive"], part["auc_naive_in_production"]
    result = f"AUC {decimal(honest)}; the naive join promises {decimal(naive)} and gives {decimal(real)}"
    evaluable = all(value is not None and value == value for value in (honest, real))  # noqa: PLR0124
    return result, honest > real if evaluable else None


def _training(part: Part) -> tuple[str, bool | None]:
    gates, ladder = part["gates"], part["ladder"]
    passed = sum(gate["status"] == "pass" for gate in gates)
    result = f"AUC {decimal(part['metrics'].get('auc'))} on the test rows, {passed} of {len(gates)} gates"
    if ladder is None:
        return f"{result}, no ladder", None
    verdict = ladder["verdict"]
    low, high = verdict.get("low"), verdict.get("high")
    ahead = f"; {verdict['status']} {ladder['best']} by {decimal(verdict.get('difference'))}"
    result += ahead if low is None else f"{ahead} ({decimal(low)} to {decimal(high)})"
    return result, None if low is None else low > 0 and passed == len(gates)


def _serving(part: Part) -> tuple[str, bool | None]:
    missing, twice = part["answered_not_logged"], part["logged_twice"]
    result = (
        f"{part['requests']:,} requests, {part['errors']:,} errors, {missing:,} answers not in the log; "
        f"p50 {decimal(part['p50_ms'], 2)} ms, p99 {decimal(part['p99_ms'], 2)} ms"
    )
    return result, None if not part["requests"] else part["errors"] == missing == twice == 0


def _parity(part: Part) -> tuple[str, bool | None]:
    scores = part["scores"]
    result = (
        f"{part['mismatches']:,} of {part['values']:,} feature values and "
        f"{scores['mismatches']:,} of {scores['checked']:,} scores differ"
    )
    return result, None if not part["values"] else part["mismatches"] == scores["mismatches"] == 0


def _outcomes(part: Part) -> tuple[str, bool | None]:
    counts, months = part["counts"], [month for month in part["months"] if month["complete"]]
    aucs = [month["metrics"].get("auc", {}).get("value") for month in months]
    settled = counts["known"] + counts["pending"] + counts["void"]
    result = (
        f"{counts['decisions']:,} decisions = {counts['known']:,} known + {counts['pending']:,} pending + "
        f"{counts['void']:,} void; AUC {', '.join(decimal(auc) for auc in aucs)}"
    )
    return result, None if not months else settled == counts["decisions"] and None not in aucs


def _drift(part: Part) -> tuple[str, bool | None]:
    months = {name: month for name, month in part["months"].items() if month["psi"] is not None}
    statuses = [trigger["status"] for trigger in part["triggers"]]
    triggers = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)) or "none"
    parts = [f"{name}: {len(month['drifted'])} of {len(month['features'])} features" for name, month in months.items()]
    result = f"{'; '.join(parts) or 'no month is evaluable'}; triggers: {triggers}"
    # The last period may hold the first hours of the next month, too few to judge; the ones before it may not.
    return result, None if not part["months"] else bool(months) and set(list(part["months"])[:-1]) <= set(months)


def _rollout(part: Part) -> tuple[str, bool | None]:
    result = (
        f"promoted in {decimal(part['promote_ms'], 1)} ms, rolled back in {decimal(part['rollback_ms'], 1)} ms; "
        f"{part['failed_requests']:,} of {part['requests']:,} requests failed"
    )
    changed = part["promoted"] is not None and part["rolled_back"] is not None
    return result, None if not part["requests"] else changed and part["failed_requests"] == 0


def _lineage(part: Part) -> tuple[str, bool | None]:
    behind: Sequence[str] = ("features", "model", "run", "data", "code", "environment", "approvals")
    absent = [name for name in behind if not part.get(name)]
    if absent:
        return f"{part['decision']['id']} leads to no {', '.join(absent)}", False
    versions = {ref for feature in part["features"] for ref in feature.get("from", [])}
    sealed = "sealed in the ledger" if part["log"]["sealed"] else "not sealed yet"
    return (
        f"{len(part['features'])} feature values, {len(versions)} table versions, {part['run']['run']}; {sealed}",
        True,
    )


def _replay_decision(part: Part) -> tuple[str, bool | None]:
    exact, replayed = part["more_exact"] + bool(part["exact"]), part["more_replayed"] + 1
    return f"{exact:,} of {replayed:,} decisions are the same, bit for bit", exact == replayed


def _replay_run(part: Part) -> tuple[str, bool | None]:
    equal = sum(bool(fact["equal"]) for fact in part["compared"].values())
    result = f"{part['verdict']}: {equal} of {len(part['compared'])} facts equal, {decimal(part['seconds'], 1)} s"
    # Bits may differ on another kind of machine, which is neither a success nor a failure.
    return result, True if part["exact"] else (False if part["same_machine_kind"] else None)


def _audit(part: Part) -> tuple[str, bool | None]:
    checked = ", ".join(f"{name} {count:,}" for name, count in part["checked"].items() if count)
    detected = "found" if part["tamper_detected"] else "not found"
    result = f"{len(part['findings'])} findings; checked {checked}; the altered byte was {detected}"
    return result, not part["findings"] and bool(part["tamper_detected"])


_CHAPTERS: Mapping[str, tuple[str, Callable[[Part], tuple[str, bool | None]]]] = {
    "ingest": ("Is every row that came in accepted or quarantined, none lost?", _ingest),
    "features": ("Do training frame, shuffled stream and naive oracle give the same values, at every edge?", _features),
    "leakage": ("Is training on what was known better in production than a join with one clock?", _leakage),
    "training": ("Does the model beat the simple rules and pass its gates?", _training),
    "serving": ("Is every request answered, and every answer in the log exactly once?", _serving),
    "parity": ("Did serving use the values, and give the scores, that the tables give again?", _parity),
    "outcomes": ("Is every decision known, pending or void, and is every full month measured?", _outcomes),
    "drift": ("Is every full month judged against the noise floor of each feature?", _drift),
    "rollout": ("Can the model be changed, and changed back, under load without a failed request?", _rollout),
    "lineage": ("Does one answer lead back to rows, code, run and approval?", _lineage),
    "replay_decision": ("Do past answers come out the same when decided again?", _replay_decision),
    "replay_run": ("Does the training give the same rows, trees and metrics when run again?", _replay_run),
    "audit": ("Is everything as it was written, and is one altered byte found?", _audit),
}
"""Chapter to its question, and what says from its numbers what came out and whether that is a yes."""
