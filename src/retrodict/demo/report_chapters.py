"""The chapters of the demo's report: numbers, tables and plots below what was asked and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retrodict.core.display import Facts, Grid, shorten
from retrodict.core.identity import short
from retrodict.decisions.lineage import DecisionLineage
from retrodict.demo import report_plots as draw
from retrodict.demo.report_summary import decimal, share
from retrodict.pages import Details, Row, plot
from retrodict.pages.blocks import Block

__all__ = ["CHAPTERS", "timings"]

Part = Mapping[str, Any]
Blocks = Sequence[Block]

_RATES = ("label_rate", "auc", "calibration_ratio", "calibration_error")


def _facts(part: Part, names: Sequence[str]) -> Facts:
    """Some numbers of a part; what is empty is left out."""
    return Facts({name.replace("_", " "): part[name] for name in names if part[name] != ""})


def _ingest(part: Part, _report: Part) -> Blocks:
    tables = {name: t for name, t in part.items() if isinstance(t, Mapping) and "rows_in" in t}
    counts = [
        (name, t["rows_in"], t["accepted"], t["quarantined"], t["not_delivered"], len(t["versions"]))
        for name, t in tables.items()
    ]
    reasons = [(name, check, count) for name, t in tables.items() for check, count in t["reasons"].items()]
    labels = {name.replace("_", " "): share(n) if "rate" in name else int(n) for name, n in part["labels"].items()}
    return [
        Grid(("table", "rows in>", "accepted>", "quarantined>", "not delivered>", "versions>"), counts),
        Grid(("table", "check", "rows>"), reasons, title="Checks that rows did not meet"),
        Facts(labels, title="Labels"),
        Details("Flaws counted in the files", [Grid(("flaw", "count>"), part["flaws"].items())]),
    ]


def _features(part: Part, _report: Part) -> Blocks:
    numbers = _facts(part, ("columns", "views", "probes", "values_checked", "mismatches", "verdict")).values
    compared = {f"values compared with the {engine}": count for engine, count in part["values_checked_by"].items()}
    stored = part.get("materialised") or {}
    return [
        Facts({**numbers, **compared, "feature set": short(part["set"])}),
        Grid(("source", "keys in the online state>"), stored.items()),
    ]


def _leakage(part: Part, _report: Part) -> Blocks:
    numbers = {
        "AUC promised too much": decimal(part["promised"], 4),
        "AUC lost in production": decimal(part["lost"], 4),
        "values the joins give differently": part["differing_values"],
        "of values": part["values"],
    }
    return [plot(draw.draw_leakage, part, "leakage"), Facts(numbers)]


def _training(part: Part, _report: Part) -> Blocks:
    figures = []
    if part["ladder"] is not None:
        figures.append(plot(draw.draw_ladder, part["ladder"], "ladder", name="the model"))
    if part["curve"]:
        figures.append(plot(draw.draw_calibration, part["curve"], "curve", title="Calibration on the test rows"))
    gates = [(gate["gate"], gate["status"], gate["reason"]) for gate in part["gates"]]
    metrics = [(name, decimal(value, 4)) for name, value in part["metrics"].items()]
    return [
        _facts(part, ("model", "run", "rows", "versions", "best_iteration", "calibration", "seconds")),
        *(f"Warning: {sentence}" for sentence in part["warnings"]),
        Row(figures),
        Grid(("gate", "status", "reason"), gates),
        Details("Metrics", [Grid(("metric", "value>"), metrics)]),
    ]


def _serving(part: Part, _report: Part) -> Blocks:
    names = (
        "requests", "answered", "errors", "logged", "answered_not_logged", "logged_twice", "fallbacks", "decisions"
    )  # fmt: skip
    marks = {name: part[f"{name}_ms"] for name in ("p50", "p95", "p99") if part[f"{name}_ms"] is not None}
    stages = [
        (name, int(stage["count"]), *(decimal(stage[f"{level}_ms"]) for level in ("p50", "p95", "p99")))
        for name, stage in part["stages"].items()
    ]
    figures = [plot(draw.draw_latency, part["latencies_ms"], marks, "latency")] if part["latencies_ms"] else []
    heading = ("stage in the server", "count>", "p50 ms>", "p95 ms>", "p99 ms>")
    return [_facts(part, names), Row([*figures, Grid(heading, stages)])]


def _parity(part: Part, _report: Part) -> Blocks:
    scores = part["scores"]
    numbers = {
        "decisions compared": part["decisions"],
        "feature values": part["values"],
        "values that differ": part["mismatches"],
        "decisions without features": part["not_compared"],
        "scores computed again": scores["checked"],
        "scores that differ": scores["mismatches"],
        "table versions read": part["versions"],
    }
    heading = ("decision", "feature", "logged>", "recomputed>")
    examples = [[example[name.removesuffix(">")] for name in heading] for example in part["examples"]]
    return [
        Facts(numbers),
        Grid(("feature", "values that differ>"), part["by_feature"].items()),
        Grid(heading, examples),
    ]


def _outcomes(part: Part, report: Part) -> Blocks:
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
    measures = ("decisions>", "known>", "pending>", "void>", "late rate>", "AUC>", "calibration ratio>", "ECE>")
    heading = ("month", "complete", *measures)
    rows = [(month["period"], month["complete"], *_measured(month)) for month in months]
    first = [(month["period"], month["complete"], *_measured(month)) for month in part["first_look"]]
    carriers = [(month["period"], month["value"], *_measured(month)) for month in part["carriers"]]
    return [
        _facts(part["counts"], list(part["counts"])),
        Row(figures),
        Grid(heading, rows),
        Details("As it looked after the first month", [Grid(heading, first)]),
        Details("Per carrier", [Grid(("month", "carrier", *measures), carriers)]),
    ]


def _measured(part: Part) -> list[object]:
    counts = [part[name] for name in ("decisions", "known", "pending", "void")]
    rate, *others = (part["metrics"].get(name, {}).get("value") for name in _RATES)
    return [*counts, share(rate), *(decimal(value) for value in others)]


def _drift(part: Part, _report: Part) -> Blocks:
    rows = [(t["period"], t["action"], t["on"], t["status"], t["reason"]) for t in part["triggers"]]
    return [
        Row([_drift_of(name, month) for name, month in part["months"].items()]),
        Grid(("month", "action", "on", "status", "reason"), rows, title="Triggers"),
    ]


def _drift_of(name: str, month: Part) -> Blocks:
    score, rate = month["score"], month["label_rate"]
    numbers = {
        "decisions": month["decisions"],
        "features that drifted": f"{len(month['drifted'])} of {len(month['features'])}",
        "largest index": decimal(month["psi"]),
        "score": "-" if score is None else f"{score['status']}, index {decimal(score['psi'])}",
        "label rate": "-" if rate is None else rate["status"],
    }
    threshold = draw.drift_threshold(month["features"])
    if threshold is None:
        reasons = {feature["reason"] for feature in month["features"].values()}
        why = month["reason"] or next(iter(sorted(reasons)), "no feature has a reference")
        return [Facts(numbers, title=name), f"Not evaluable: {why}."]
    key = "".join(letter if letter.isalnum() else "-" for letter in name)
    figure = plot(draw.draw_drift, month["features"], f"drift-{key}", threshold=threshold)
    return [Facts(numbers, title=name), figure]


def _rollout(part: Part, _report: Part) -> Blocks:
    names = ("promote", "promote_first_answer", "rollback", "rollback_first_answer")
    times = {name.replace("_", " "): part[f"{name}_ms"] for name in names}
    changes = [
        (change["revision"], change["action"], change["actor"], change["time"], change["model"], change["reason"])
        for change in (part["promoted"], part["rolled_back"])
        if change is not None
    ]
    answers = Grid(("model", "answers in the month>"), part["decisions_by_model"].items())
    return [
        Row([plot(draw.draw_bars, "Changing the model under load", times, "ms", "rollout"), answers]),
        Grid(("revision>", "action", "by", "at", "model", "reason"), changes),
        *(_comparison(part["comparison"]) if part.get("comparison") else ()),
    ]


def _comparison(part: Part) -> Blocks:
    scores = {**part["quality"], "agreement": part["agreement"]}
    names = ("auc_difference", "brier_difference", "agreement", "score_distance")
    rows = [
        (name.replace("_", " "), *(decimal(scores[name][side], 4) for side in ("value", "low", "high")))
        for name in names
    ]
    counted = f"On {part['outcomes']['known']:,} decisions with a known outcome"
    return [
        f"{counted} the challenger is {part['verdict']}: {part['reason']}.",
        Grid(("challenger minus champion", "value>", "low>", "high>"), rows,
             title="Challenger against champion, on the log"),
        Grid(("decisions that would change", "count>"), part["changes"].items()),
    ]  # fmt: skip


def _lineage(part: Part, _report: Part) -> Blocks:
    return [block for block in DecisionLineage(dict(part)).blocks() if block is not None]


def _replay_decision(part: Part, _report: Part) -> Blocks:
    names = ("decision", "verdict", "features", "versions", "more_replayed", "more_exact", "reason")
    answers = [(name, value, part["replayed"].get(name)) for name, value in part["logged"].items()]
    wrong = [(feature["feature"], feature["logged"], feature["replayed"]) for feature in part["feature_mismatches"]]
    return [
        _facts(part, names),
        Grid(("the answer", "as logged", "decided again"), answers),
        Grid(("feature", "logged>", "read again>"), wrong),
    ]


def _replay_run(part: Part, _report: Part) -> Blocks:
    rows = [
        (name, fact["equal"], *(shorten(v) if isinstance(v, str) else v for v in (fact["recorded"], fact["replayed"])))
        for name, fact in part["compared"].items()
    ]
    return [
        _facts(part, ("run", "verdict", "same_machine_kind", "seconds", "reason")),
        Grid(("fact", "equal", "recorded", "replayed"), rows),
    ]


def _audit(part: Part, _report: Part) -> Blocks:
    heading = ("kind", "where", "detail")
    lists = {name: [[finding[key] for key in heading] for finding in part[name]]
             for name in ("findings", "tamper_findings")}  # fmt: skip
    tampered = f"After one byte of entry {part['tampered_entry']:,} was altered in a copy"
    return [
        Facts(part["checked"], title="Checked"),
        Grid(heading, lists["findings"], title="Findings") if lists["findings"] else "No finding.",
        Grid(heading, lists["tamper_findings"], title=tampered),
    ]


def timings(part: Part) -> Blocks:
    """Seconds of every step of the run."""
    steps = {name: value for name, value in part.items() if name != "total"}
    return [
        f"The whole life took {decimal(part.get('total'), 1)} seconds.",
        plot(draw.draw_bars, "Seconds per step", steps, "s", "timings"),
    ]


CHAPTERS: Mapping[str, Callable[[Part, Part], Blocks]] = {
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
"""Each takes its own part and the whole report, and returns the body of its section."""
