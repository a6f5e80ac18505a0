"""``outcomes``, ``monitor`` and ``compare``: what became of the decisions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command, group
from retrodict.cli._root import cli
from retrodict.cli._text import count, facts, number, table, when
from retrodict.cli._types import complete, existing_file, instant, model_refs, monitors, policies

if TYPE_CHECKING:
    from retrodict.monitoring import LogComparison, MonitorReport

outcomes = group(cli, "outcomes", "Take in what actually happened, and see which decisions have an outcome.")

_METRICS = ("label_rate", "mean_score", "auc", "brier", "calibration_error")


@command(outcomes, "ingest", examples=["retrodict outcomes ingest warn_early outcomes.csv"])
@click.argument("policy", shell_complete=complete(policies))
@click.argument("file", type=existing_file())
def ingest(session: Session, policy: str, file: Path) -> Answer:
    """Take in outcomes that are not in the label's table.

    Columns: decision_id, key or the key columns of the label's table; label (1 or 0); known_at (a time with its zone).
    """
    from retrodict.monitoring import ingest_outcomes

    with session.progress(f"outcomes of {policy}"):
        report = ingest_outcomes(session.project, policy, file)
    found = report.to_dict()
    said = (
        f"{found['dataset']}: {count(report.rows_in)} rows in = {count(report.accepted)} accepted + "
        f"{count(report.repeated)} known before + {count(report.quarantined)} quarantined"
    )
    notes = {
        "decisions with outcomes that disagree": report.revised or None,
        "outcomes without a decision": report.unmatched or None,
    }
    return Answer(
        found,
        [
            said,
            facts(notes) if any(notes.values()) else None,
            table(("check", "failed>"), report.reasons.items()) if report.reasons else None,
        ],
    )


@command(
    outcomes,
    "show",
    examples=["retrodict outcomes show warn_early", "retrodict outcomes show warn_early --now 2013-10-01T00:00Z"],
)
@click.argument("policy", shell_complete=complete(policies))
@click.option("--now", callback=instant, metavar="TIME", help="As of when.  [default: now]")
@click.option("--limit", type=click.IntRange(0), default=10, show_default=True, help="Newest decisions to show.")
def show(session: Session, policy: str, now: int | None, limit: int) -> Answer:
    """Count the decisions whose outcome is known, pending or void."""
    from retrodict.core.clock import format_time
    from retrodict.monitoring.outcomes import UNKNOWN_TIME
    from retrodict.monitoring.outcomes import outcomes as read

    project = session.project
    with session.progress(f"outcomes of {policy}"):
        found = read(project, policy, now=project.clock.now() if now is None else now)
    counts = {status: int((found.status == status).sum()) for status in ("known", "pending", "void")}
    rows = []
    for i in range(max(0, len(found) - limit), len(found)):
        cells = {name: found.decisions.column(name)[i].as_py() for name in ("id", "time", "key", "decision", "score")}
        known_at = int(found.known_at[i])
        rows.append(
            {
                "decision": f"decision:{cells['id']}",
                "time": format_time(cells["time"]),
                "key": cells["key"],
                "decided": cells["decision"],
                "score": cells["score"],
                "status": str(found.status[i]),
                "label": None if found.label[i] != found.label[i] else bool(found.label[i]),
                "known_at": None if known_at == UNKNOWN_TIME else format_time(known_at),
            }
        )
    data = {
        "policy": policy,
        "now": format_time(found.now),
        "decisions": len(found),
        **counts,
        "revised": found.revised,
        "without_key": found.without_key,
        "newest": rows,
    }
    about = facts({"policy": policy, "as of": when(found.now), "decisions": len(found), **counts})
    columns = ("decision", "time", "key", "decided", "score>", "status", "label")
    listed = table(
        columns,
        [tuple(row[c] for c in ("decision", "time", "key", "decided", "score", "status", "label")) for row in rows],
    )
    return Answer(data, [about, "", listed] if rows else about)


@command(
    cli,
    "monitor",
    examples=["retrodict monitor", "retrodict monitor warn_early --now 2013-10-01T00:00Z --report report.html"],
)
@click.argument("name", metavar="[MONITOR]", required=False, shell_complete=complete(monitors))
@click.option("--now", callback=instant, metavar="TIME", help="As of when.  [default: now]")
@click.option(
    "--report", "file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the report as a page of HTML."
)
def run_monitor(session: Session, name: str | None, now: int | None, file: Path | None) -> Answer:
    """Measure performance and drift of decisions, judge the triggers.

    Everything as it was known at --now. Exit code 1 if a trigger fires.
    """
    from retrodict.monitoring import Monitor, monitor

    project = session.project
    definition = project.definitions.get(Monitor, name or _only_monitor(session))
    with session.progress("monitor"):
        report = monitor(project, definition, now=project.clock.now() if now is None else now)
    if file is not None:
        from retrodict.monitoring.page import write_report

        write_report(file, report, threshold=definition.psi_threshold)
    return Answer(report.to_dict(), _monitored(report, file), ok=not report.fired)


def _only_monitor(session: Session) -> str:
    from retrodict.core.errors import InputError

    names = monitors(session.project)
    if len(names) != 1:
        raise InputError(
            "the monitor is named, unless there is exactly one", where="monitor", got=names, remedy="Name one of them"
        )
    return names[0]


def _monitored(report: MonitorReport, file: Path | None) -> list[Any]:
    about = facts(
        {
            "monitor": report.monitor,
            "as of": when(report.now),
            "in force": report.revision,
            "model": report.model,
            **{name.replace("_", " "): value for name, value in report.counts.items()},
        }
    )
    whole = [each for each in report.slices if each.by is None]
    shown = [each for each in whole if each.decisions]
    columns = ("period", "complete", "decisions>", "known>", *(f"{name}>" for name in _METRICS), "drifted>", "psi>")
    rows = []
    for each in shown:
        drift = report.drifts.get(each.period.name)
        values = [each[name].value for name in _METRICS]
        found = (None, None) if drift is None else (len(drift.drifted), drift.psi)
        rows.append((each.period.name, each.complete, each.decisions, each.known, *values, *found))
    parts: list[Any] = [about, "", table(columns, rows) if rows else "There is no decision yet."]
    if shown and len(whole) > len(shown):
        parts.append(f"{count(len(whole) - len(shown))} periods without decisions are not shown.")
    drifted = [
        (name, feature, drift.features[feature].verdict.reason)
        for name, drift in report.drifts.items()
        for feature in drift.drifted[:5]
    ]
    if drifted:
        parts += ["", table(("period", "drifted feature", "why"), drifted)]
    if report.triggers:
        parts += [
            "",
            table(
                ("trigger", "status", "period", "reason"),
                [(t.on, t.status, t.period, t.reason) for t in report.triggers],
            ),
        ]
    models = sorted({report.model.partition("@")[0]} if report.model else ())
    if report.fired and models:
        parts += [f"\nA trigger fired. Next: retrodict train {models[0]}"]
    return [*parts, f"\nWritten: {file}"] if file is not None else parts


@command(
    cli,
    "compare",
    examples=["retrodict compare warn_early late_arrival@2 --start 2013-09-01T00:00Z --end 2013-10-01T00:00Z"],
)
@click.argument("policy", shell_complete=complete(policies))
@click.argument("challenger", shell_complete=complete(model_refs))
@click.option("--start", callback=instant, metavar="TIME", help="Only decisions from this time on.")
@click.option("--end", callback=instant, metavar="TIME", help="Only decisions before this time.")
@click.option("--now", callback=instant, metavar="TIME", help="As of when outcomes are known.  [default: now]")
def compare(
    session: Session, policy: str, challenger: str, *, start: int | None, end: int | None, now: int | None
) -> Answer:
    """Compare another model version with the one in force, on the decisions made."""
    from retrodict.monitoring import compare_on_log

    project = session.project
    with session.progress(f"compare {challenger}"):
        found = compare_on_log(
            project, policy, challenger, now=project.clock.now() if now is None else now, start=start, end=end
        )
    return Answer(found.to_dict(), _compared(found))


def _compared(found: LogComparison) -> list[Any]:
    metrics = [
        (m.name, number(m.value), f"{number(m.low)} to {number(m.high)}", m.reason or "")
        for m in (found.scores.auc_difference, found.scores.brier_difference, found.agreement)
    ]
    parts: list[Any] = [
        f"{found.challenger} against {found.champion}: {found.verdict}. {found.reason}",
        facts({"decisions": found.decisions, "known": found.known, "pending": found.pending, "void": found.void}),
        "",
        table(("challenger minus champion", "value>", "95 % interval", ""), metrics),
    ]
    for title, rows in (("would change", found.changes), ("not compared", found.set_aside)):
        if rows:
            parts += ["", table((title, "decisions>"), rows.items())]
    return parts
