"""The demo in a dozen lines: what each chapter asked, what came out, and whether the numbers say yes.

Every mark is computed here from the numbers of the report; no chapter hands over a verdict that is not checked against
the counts beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["MARKS", "QUESTIONS", "SummaryRow", "decimal", "share", "summary", "summary_table"]

Part = Mapping[str, Any]

MARKS: Mapping[bool | None, str] = {True: "✓", False: "✗", None: "-"}

QUESTIONS: Mapping[str, str] = {
    "ingest": "Is every row that came in accepted or quarantined, none lost?",
    "features": "Do training frame, shuffled stream and naive oracle give the same values, at every edge?",
    "leakage": "Is training on what was known better in production than a join with one clock?",
    "training": "Does the model beat the simple rules and pass its gates?",
    "serving": "Is every request answered, and every answer in the log exactly once?",
    "parity": "Did serving use the values, and give the scores, that the tables give again?",
    "outcomes": "Is every decision known, pending or void, and is every full month measured?",
    "drift": "Is every full month judged against the noise floor of each feature?",
    "rollout": "Can the model be changed, and changed back, under load without a failed request?",
    "lineage": "Does one answer lead back to rows, code, run and approval?",
    "replay_decision": "Do past answers come out the same when decided again?",
    "replay_run": "Does the training give the same rows, trees and metrics when run again?",
    "audit": "Is everything as it was written, and is one altered byte found?",
}


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One chapter: ``ok`` is None where the report holds nothing that could be judged."""

    chapter: str
    asked: str
    result: str
    ok: bool | None


def summary(report: Mapping[str, Any]) -> list[SummaryRow]:
    """One row per chapter, in the order in which they happened; one that is absent is said to be absent."""
    rows = []
    for chapter, asked in QUESTIONS.items():
        found = report.get(chapter)
        result, ok = _JUDGES[chapter](found) if found else ("not in this report", None)
        rows.append(SummaryRow(chapter.replace("_", " "), asked, result, ok))
    return rows


def summary_table(report: Mapping[str, Any]) -> Table:
    """The same rows for a terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("chapter", "asked", "result", ""):
        made.add_column(column, overflow="fold", no_wrap=column == "chapter")
    styles = {True: "green", False: "bold red", None: "dim"}
    for row in summary(report):
        # As Text, since brackets in a result are not markup.
        made.add_row(
            Text(row.chapter), Text(row.asked, style="dim"), Text(row.result), Text(MARKS[row.ok], style=styles[row.ok])
        )
    return made


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number as text; a dash for None and NaN."""
    return "-" if value is None or value != value else f"{value:,.{digits}f}"  # noqa: PLR0124  # NaN is no value


def share(value: float | None) -> str:
    """Return a share as percent; a dash for None and NaN."""
    return "-" if value is None or value != value else f"{100 * value:.1f} %"  # noqa: PLR0124  # NaN is no value


def _ingest(part: Part) -> tuple[str, bool | None]:
    tables = {name: each for name, each in part.items() if isinstance(each, Mapping) and "rows_in" in each}
    total = {name: sum(each[name] for each in tables.values()) for name in ("rows_in", "accepted", "quarantined")}
    whole = all(each["rows_in"] == each["accepted"] + each["quarantined"] for each in tables.values())
    result = f"{total['rows_in']:,} rows in = {total['accepted']:,} accepted + {total['quarantined']:,} quarantined"
    return f"{result}, {len(tables)} tables", bool(total["rows_in"]) and whole


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
    lost, twice = part["answered_not_logged"], part["logged_twice"]
    result = (
        f"{part['requests']:,} requests, {part['errors']:,} errors, {lost:,} answers not in the log; "
        f"p50 {decimal(part['p50_ms'], 2)} ms, p99 {decimal(part['p99_ms'], 2)} ms"
    )
    return result, None if not part["requests"] else part["errors"] == lost == twice == 0


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
    shown = [f"{name}: {len(month['drifted'])} of {len(month['features'])} features" for name, month in months.items()]
    result = f"{'; '.join(shown) or 'no month is evaluable'}; triggers: {triggers}"
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
    same, asked = part["more_exact"] + bool(part["exact"]), part["more_replayed"] + 1
    return f"{same:,} of {asked:,} decisions are the same, bit for bit", same == asked


def _replay_run(part: Part) -> tuple[str, bool | None]:
    equal = sum(bool(each["equal"]) for each in part["compared"].values())
    result = f"{part['verdict']}: {equal} of {len(part['compared'])} facts equal, {decimal(part['seconds'], 1)} s"
    # Bits may differ on another kind of machine, which is neither a success nor a failure.
    return result, True if part["exact"] else (False if part["same_machine_kind"] else None)


def _audit(part: Part) -> tuple[str, bool | None]:
    checked = ", ".join(f"{name} {count:,}" for name, count in part["checked"].items() if count)
    found = "found" if part["tamper_detected"] else "not found"
    result = f"{len(part['findings'])} findings; checked {checked}; the altered byte was {found}"
    return result, not part["findings"] and bool(part["tamper_detected"])


_JUDGES: Mapping[str, Callable[[Part], tuple[str, bool | None]]] = {
    "ingest": _ingest,
    "features": _features,
    "leakage": _leakage,
    "training": _training,
    "serving": _serving,
    "parity": _parity,
    "outcomes": _outcomes,
    "drift": _drift,
    "rollout": _rollout,
    "lineage": _lineage,
    "replay_decision": _replay_decision,
    "replay_run": _replay_run,
    "audit": _audit,
}
