"""The chapters of the demo's report as HTML: numbers, tables and plots below what was asked and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from retrodict.core.identity import short
from retrodict.demo import report_plots as draw
from retrodict.demo.report_html import cell, details, facts, paragraph, plot, plots, table
from retrodict.demo.report_picture import draw_lineage
from retrodict.demo.report_summary import decimal, share

__all__ = ["CHAPTERS", "timings"]

Part = Mapping[str, Any]

_RATES = ("label_rate", "auc", "calibration_ratio", "calibration_error")


def _ingest(part: Part, _report: Part) -> str:
    tables = {name: each for name, each in part.items() if isinstance(each, Mapping) and "rows_in" in each}
    counted = [
        (name, t["rows_in"], t["accepted"], t["quarantined"], t["not_delivered"], len(t["versions"]))
        for name, t in tables.items()
    ]
    reasons = [(name, check, count) for name, each in tables.items() for check, count in each["reasons"].items()]
    body = table(("table", "rows in>", "accepted>", "quarantined>", "not delivered>", "versions>"), counted)
    if reasons:
        body += "<h3>Checks that rows did not meet</h3>" + table(("table", "check", "rows>"), reasons)
    body += "<h3>Labels</h3>" + facts(
        {name.replace("_", " "): share(n) if "rate" in name else int(n) for name, n in part["labels"].items()}
    )
    return body + details("Flaws counted in the files", table(("flaw", "count>"), part["flaws"].items()))


def _features(part: Part, _report: Part) -> str:
    named = ("columns", "views", "probes", "values_checked", "mismatches", "verdict")
    compared = {f"values compared with the {engine}": count for engine, count in part["values_checked_by"].items()}
    body = facts(
        {name.replace("_", " "): part[name] for name in named} | compared | {"feature set": short(part["set"])}
    )
    stored = part.get("materialised")
    return body + (table(("source", "keys in the online state>"), stored.items()) if stored else "")


def _leakage(part: Part, _report: Part) -> str:
    found = {
        "AUC promised too much": decimal(part["promised"], 4),
        "AUC lost in production": decimal(part["lost"], 4),
        "values the joins give differently": part["differing_values"],
        "of values": part["values"],
    }
    return plot(draw.draw_leakage, part, "leakage") + facts(found)


def _training(part: Part, _report: Part) -> str:
    figures = []
    if part["ladder"] is not None:
        figures.append(plot(draw.draw_ladder, part["ladder"], "ladder", name="the model"))
    if part["curve"]:
        figures.append(plot(draw.draw_calibration, part["curve"], "curve", title="Calibration on the test rows"))
    named = ("model", "run", "rows", "versions", "best_iteration", "seconds")
    body = facts({name.replace("_", " "): part[name] for name in named}) + plots(*figures)
    gates = [(gate["gate"], gate["status"], gate["reason"]) for gate in part["gates"]]
    metrics = [(name, decimal(value, 4)) for name, value in part["metrics"].items()]
    return body + table(("gate", "status", "reason"), gates) + details("Metrics", table(("metric", "value>"), metrics))


def _serving(part: Part, _report: Part) -> str:
    named = (
        "requests",
        "answered",
        "errors",
        "logged",
        "answered_not_logged",
        "logged_twice",
        "fallbacks",
        "decisions",
    )
    marks = {name: part[f"{name}_ms"] for name in ("p50", "p95", "p99") if part[f"{name}_ms"] is not None}
    stages = [
        (name, int(each["count"]), *(decimal(each[f"{level}_ms"]) for level in ("p50", "p95", "p99")))
        for name, each in part["stages"].items()
    ]
    figure = plot(draw.draw_latency, part["latencies_ms"], marks, "latency") if part["latencies_ms"] else ""
    head = ("stage in the server", "count>", "p50 ms>", "p95 ms>", "p99 ms>")
    return facts({name.replace("_", " "): part[name] for name in named}) + plots(figure, table(head, stages))


def _parity(part: Part, _report: Part) -> str:
    scores = part["scores"]
    body = facts(
        {
            "decisions compared": part["decisions"],
            "feature values": part["values"],
            "values that differ": part["mismatches"],
            "decisions without features": part["not_compared"],
            "scores computed again": scores["checked"],
            "scores that differ": scores["mismatches"],
            "table versions read": part["versions"],
        }
    )
    if part["by_feature"]:
        body += table(("feature", "values that differ>"), part["by_feature"].items())
    if part["examples"]:
        head = ("decision", "feature", "logged>", "recomputed>")
        body += table(head, [[each[name.removesuffix(">")] for name in head] for each in part["examples"]])
    return body


def _outcomes(part: Part, report: Part) -> str:
    months, tested = part["months"], report.get("training", {}).get("metrics", {})
    references = {
        "label_rate": ("Late rate per month", ("test rows", part["training_label_rate"])),
        "auc": ("Area under the ROC curve per month", ("test rows", tested.get("auc"))),
        "calibration_ratio": ("Calibration ratio per month", ("calibrated", 1.0)),
        "calibration_error": ("Expected calibration error per month", ("test rows", tested.get("calibration_error"))),
    }
    # A month that has only begun says nothing; a full one without decisions does.
    begun = [month for month in months if month["complete"] or month["decisions"]]
    figures = [
        plot(draw.draw_months, title, begun, name, name, reference=line) for name, (title, line) in references.items()
    ]
    head = (
        "month",
        "complete",
        "decisions>",
        "known>",
        "pending>",
        "void>",
        "late rate>",
        "AUC>",
        "calibration ratio>",
        "ECE>",
    )
    rows = [(month["period"], month["complete"], *_measured(month)) for month in months]
    carriers = [(each["period"], each["value"], *_measured(each)) for each in part["carriers"]]
    first = [(month["period"], month["complete"], *_measured(month)) for month in part["first_look"]]
    return (
        facts({name.replace("_", " "): count for name, count in part["counts"].items()})
        + plots(*figures)
        + table(head, rows)
        + details("As it looked after the first month", table(head, first))
        + details("Per carrier", table(("month", "carrier", *head[2:]), carriers))
    )


def _measured(part: Part) -> list[object]:
    counts = [part[name] for name in ("decisions", "known", "pending", "void")]
    rate, *others = (part["metrics"].get(name, {}).get("value") for name in _RATES)
    return [*counts, share(rate), *(decimal(value) for value in others)]


def _drift(part: Part, _report: Part) -> str:
    body = plots(*(f"<div>{_drift_of(name, month)}</div>" for name, month in part["months"].items()))
    rows = [(t["period"], t["action"], t["on"], t["status"], t["reason"]) for t in part["triggers"]]
    return body + "<h3>Triggers</h3>" + table(("month", "action", "on", "status", "reason"), rows)


def _drift_of(name: str, month: Part) -> str:
    heading = f"<h3>{cell(name)}</h3>"
    score, rate = month["score"], month["label_rate"]
    said = {
        "decisions": month["decisions"],
        "features that drifted": f"{len(month['drifted'])} of {len(month['features'])}",
        "largest index": decimal(month["psi"]),
        "score": None if score is None else f"{score['status']}, index {decimal(score['psi'])}",
        "label rate": None if rate is None else rate["status"],
    }
    threshold = draw.drift_threshold(month["features"])
    if threshold is None:
        reasons = {each["reason"] for each in month["features"].values()}
        why = month["reason"] or next(iter(sorted(reasons)), "no feature has a reference")
        return heading + facts(said) + paragraph(f"Not evaluable: {why}.")
    return heading + facts(said) + plot(draw.draw_drift, month["features"], f"drift-{_key(name)}", threshold=threshold)


def _key(name: str) -> str:
    """Return a name as part of an id."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _rollout(part: Part, _report: Part) -> str:
    named = ("promote", "promote_first_answer", "rollback", "rollback_first_answer")
    times = {name.replace("_", " "): part[f"{name}_ms"] for name in named}
    changes = [
        (each["revision"], each["action"], each["actor"], each["time"], each["model"], each["reason"])
        for each in (part["promoted"], part["rolled_back"])
        if each is not None
    ]
    body = plots(
        plot(draw.draw_bars, "Changing the model under load", times, "ms", "rollout"),
        table(("model", "answers in the month>"), part["decisions_by_model"].items()),
    )
    body += table(("revision>", "action", "by", "at", "model", "reason"), changes)
    return body + (_comparison(part["comparison"]) if part.get("comparison") else "")


def _comparison(part: Part) -> str:
    scores = part["scores"]
    names = ("auc_difference", "brier_difference", "agreement", "score_distance")
    rows = [
        (name.replace("_", " "), *(decimal(scores[name][side], 4) for side in ("value", "low", "high")))
        for name in names
    ]
    text = f"On {part['known']:,} decisions with a known outcome the challenger is {part['verdict']}: {part['reason']}."
    return (
        "<h3>Challenger against champion, on the log</h3>"
        + paragraph(text)
        + table(("challenger minus champion", "value>", "low>", "high>"), rows)
        + table(("decisions that would change", "count>"), part["changes"].items())
    )


def _lineage(part: Part, _report: Part) -> str:
    rows = [
        (each["feature"], each["value"], each.get("view") or each.get("derived"), each.get("rows"),
         each.get("from") or each.get("inputs"), each.get("keys", []))
        for each in part.get("features", [])
    ]  # fmt: skip
    listed = table(("feature", "value>", "made by", "rows>", "from", "newest keys"), rows)
    picture = f'<figure tabindex="0">{draw_lineage(part)}</figure>'
    fallback = part.get("fallback")
    said = paragraph(f"The fallback {fallback['step']} answered: {fallback['why']}.") if fallback else ""
    return picture + said + details("Every feature value and what it was computed from", listed)


def _replay_decision(part: Part, _report: Part) -> str:
    named = ("decision", "verdict", "features", "versions", "more_replayed", "more_exact", "reason")
    body = facts({name.replace("_", " "): part[name] for name in named if part[name] != ""})
    body += table(
        ("the answer", "as logged", "decided again"),
        [(name, value, part["replayed"].get(name)) for name, value in part["logged"].items()],
    )
    wrong = [(each["feature"], each["logged"], each["replayed"]) for each in part["feature_mismatches"]]
    return body + (table(("feature", "logged>", "read again>"), wrong) if wrong else "")


def _replay_run(part: Part, _report: Part) -> str:
    named = ("run", "verdict", "same_machine_kind", "seconds", "reason")
    rows = [(name, each["equal"], each["recorded"], each["replayed"]) for name, each in part["compared"].items()]
    body = facts({name.replace("_", " "): part[name] for name in named if part[name] != ""})
    return body + table(("fact", "equal", "recorded", "replayed"), rows)


def _audit(part: Part, _report: Part) -> str:
    body = "<h3>Checked</h3>" + facts(part["checked"])
    head = ("kind", "where", "detail")
    if part["findings"]:
        body += "<h3>Findings</h3>" + table(head, [[each[name] for name in head] for each in part["findings"]])
    else:
        body += paragraph("No finding.")
    body += f"<h3>After one byte of entry {part['tampered_entry']:,} was altered in a copy</h3>"
    return body + table(head, [[each[name] for name in head] for each in part["tamper_findings"]])


def timings(part: Part) -> str:
    """Seconds of every step of the run."""
    steps = {name: value for name, value in part.items() if name != "total"}
    figure = plot(draw.draw_bars, "Seconds per step", steps, "s", "timings")
    return paragraph(f"The whole life took {decimal(part.get('total'), 1)} seconds.") + figure


CHAPTERS: Mapping[str, Callable[[Part, Part], str]] = {
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
"""Each takes its own part and the whole report, and gives the body of its section."""
