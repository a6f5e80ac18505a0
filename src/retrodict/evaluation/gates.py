"""Gates: conditions a model must meet, written as text (``auc >= 0.70``, ``beats_ladder``), judged against metrics.

A metric without a value makes its gate "not evaluable", which is not a pass: absence of evidence opens nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from retrodict.core.display import Record
from retrodict.core.errors import DefinitionError, InputError, near
from retrodict.core.tasks import Target, Task

__all__ = [
    "GATE_METRICS",
    "GateResult",
    "Measured",
    "check_gate",
    "check_gates",
    "gate_metrics",
    "gate_text",
    "needed_setting",
]

Span = tuple[float, float]
_SHARE, _LEVEL, _ANY = (0.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)

_DECIDED = ("accuracy", "precision", "recall", "false_positive_rate", "positive_share", "f1", "f2", "f0_5")

GATE_METRICS: dict[Task, dict[str, Span]] = {
    "binary": {
        **dict.fromkeys(("auc", "pr_auc", "brier", "base_rate", "calibration_error", "ks"), _SHARE),
        **dict.fromkeys(("precision_at_k", "recall_at_k"), _SHARE),
        **dict.fromkeys(("calibration_ratio", "lift_at_k", "log_loss"), _LEVEL),
        **dict.fromkeys(_DECIDED, _SHARE),
    },
    "multiclass": {
        **dict.fromkeys(("accuracy", "balanced_accuracy", "calibration_error", "macro_auc"), _SHARE),
        **dict.fromkeys(("macro_precision", "macro_recall", "macro_f1"), _SHARE),
        **dict.fromkeys(("weighted_precision", "weighted_recall", "weighted_f1"), _SHARE),
        **dict.fromkeys(("log_loss", "class_error"), _LEVEL),
        "brier": (0.0, 2.0),
        "quadratic_kappa": (-1.0, 1.0),
    },
    "regression": {
        **dict.fromkeys(("mae", "rmse", "mape", "median_absolute_error"), _LEVEL),
        "r2": (-math.inf, 1.0),
        "bias": _ANY,
    },
    "quantile": {
        "interval_coverage": _SHARE,
        "interval_width": _ANY,
        **dict.fromkeys(("pinball", "crossings"), _LEVEL),
    },
    "count": dict.fromkeys(("deviance", "mae", "rmse", "calibration_ratio"), _LEVEL),
    "ranking": dict.fromkeys(("ndcg_at_k", "map", "mrr", "precision_at_k"), _SHARE),
    "survival": {**dict.fromkeys(("c_index", "c_index_uno"), _SHARE), "integrated_brier": _LEVEL},
}
"""What a gate can read of the test rows of each task, with the range of its values; see ``gate_metrics``."""

_ALWAYS: dict[str, Span] = {
    **dict.fromkeys(("beats_ladder", "better_than_champion"), _SHARE),
    **dict.fromkeys(("latency_us", "size_kb", "leaks", "span_width"), _LEVEL),
    "span_coverage": _SHARE,
}
_WITHOUT_SPAN = ("binary", "ranking", "survival")
_TRUTHS = ("beats_ladder", "better_than_champion")
_COMPARED = "a gate must compare numbers, and name truth values alone"
_FAIRNESS = ("dp_ratio", "dp_difference", "equal_opportunity")
_BOUND = re.compile(rf"(?:{'|'.join(_FAIRNESS)})\(.+\)")
_PARTS: dict[str, tuple[re.Pattern[str], Span]] = {
    "multiclass": (re.compile(r'recall\["(.+)"\]'), _SHARE),
    "quantile": (re.compile(r"(?:pinball|coverage)_(q\d+(?:_\d+)?)"), _LEVEL),
    "survival": (re.compile(r"(?:brier|calibration_error)_(\d+[a-z]+)"), _LEVEL),
}
# Text in quotes stays as it is; a metric of a class or of a column becomes one quoted name.
_NAMES = re.compile(
    r"""'[^']*'|"(?:[^"]|"")*"|\brecall\["(?P<class>[^"]+)"\]"""
    rf"""|\b(?P<bound>{"|".join(_FAIRNESS)})\(\s*(?:"(?P<quoted>[^"]+)"|(?P<column>\w+))\s*\)"""
)


def gate_text(gate: str) -> str:
    """A gate in the language of expressions, which has no metric of a class or of a column.

    Examples
    --------
    >>> gate_text("dp_ratio(sex) >= 0.8")
    '"dp_ratio(sex)" >= 0.8'
    """

    def name(match: re.Match[str]) -> str:
        if match["class"]:
            return f'"recall[""{match["class"]}""]"'
        return f'"{match["bound"]}({match["quoted"] or match["column"]})"' if match["bound"] else match[0]

    return _NAMES.sub(name, gate)


def gate_metrics(target: Target | Task | None = None, gates: Iterable[str] = ()) -> dict[str, Span]:
    """Names that gates of a task may read, each with the range of its values.

    Parameters
    ----------
    target : Target or str, optional
        With classes or quantiles where they are known; None: of any task.
    gates : iterable of str
        Whose metrics of one class, level or column are among the names, where the task has them.
    """
    task = target.task if isinstance(target, Target) else target
    spans: dict[str, Span] = {name: span for name, span in _ALWAYS.items()
                              if task not in _WITHOUT_SPAN or not name.startswith("span_")}  # fmt: skip
    for one, metrics in GATE_METRICS.items():
        for name, (low, high) in metrics.items() if task in (one, None) else ():
            lowest, highest = spans.get(name, (low, high))
            spans[name] = min(low, lowest), max(high, highest)
    if isinstance(target, Target) and task == "multiclass" and not target.ordered:
        del spans["quadratic_kappa"]
    from retrodict.core.expressions import parse

    for name in {name for gate in gates for name in parse(gate_text(gate), where=f"gate {gate!r}").columns}:
        if task in ("binary", None) and _BOUND.fullmatch(name):
            spans[name] = _SHARE
        for part, (pattern, span) in _PARTS.items():
            match = pattern.fullmatch(name)
            if match and task in (part, None) and _has(target, match[1]):
                spans[name] = _SHARE if name.startswith("coverage") else span
    return spans


def needed_setting(name: str, task: Task | None) -> str | None:
    """Setting of a recipe without which a metric that a gate names is not measured; None where none is needed."""
    if name.startswith("span_"):
        return "interval"
    decided = name in _DECIDED and (task == "binary" or (task is None and name not in GATE_METRICS["multiclass"]))
    return "threshold" if decided else None


def _has(target: Target | Task | None, part: str) -> bool:
    """Whether a target has a class, a level or a horizon; True where those that it has are not known."""
    if not isinstance(target, Target):
        return True
    names = {"quantile": target.outputs, "survival": target.horizons}
    return part in names.get(target.task, map(str, target.classes))


def check_gate(gate: str, target: Target | Task | None = None, *, where: str = "gate") -> None:
    """Refuse a gate that a task does not have the metrics of, or that no value of them passes, or none fails.

    Raises
    ------
    DefinitionError
        The message names the metrics that the task has.
    """
    from retrodict.core.expressions import can_hold, check_reach, parse

    text, spans = gate_text(gate), gate_metrics(target, [gate])
    task = target.task if isinstance(target, Target) else target
    for name in parse(text, where=where).columns:
        if name not in spans:
            rule = "a gate must read metrics that are measured" if task is None else (
                f"a gate of the task {task!r} must read metrics that it has")  # fmt: skip
            names = ", ".join(sorted(spans))
            raise DefinitionError(rule, where=where, got=name,
                                  remedy=f"{near(name, spans, what='metric')} There are: {names}")  # fmt: skip
    check_reach(text, spans, "a gate must be one that a model can pass", where=where)
    expression, fails = parse(text, where=where), parse(f"not ({text})", where=where)
    rule = "" if expression.columns else "a gate must read a metric"
    if any(not can_hold(fails, name, spans[name]) for name in expression.columns):
        rule = "a gate must be one that a model can fail"
    row: dict[str, float | bool] = {name: name in _TRUTHS or 0.5 for name in expression.columns}
    try:
        rule = rule or ("" if isinstance(expression.to_row()(row), bool | None) else _COMPARED)
    except InputError:
        rule = rule or _COMPARED
    if rule:
        raise DefinitionError(rule, where=where, got=gate, remedy="Write a comparison like 'auc >= 0.7' or 'leaks = 0'")


@runtime_checkable
class Measured(Protocol):
    """What has a value or none, such as ``Metric`` and ``LadderVerdict``."""

    @property
    def value(self) -> float | None:
        """The number or truth value; None when not evaluable."""

    @property
    def reason(self) -> str | None:
        """Why there is no value."""


@dataclass(frozen=True, slots=True)
class GateResult(Record):
    """What one gate said; ``value`` is the metric's when the gate names exactly one."""

    gate: str
    status: Literal["pass", "fail", "not evaluable"]
    value: float | bool | None
    reason: str


def check_gates(gates: Iterable[str], metrics: Mapping[str, float | bool | Measured | None]) -> tuple[GateResult, ...]:
    """Judge each gate.

    Parameters
    ----------
    gates : iterable of str
        Expressions over metric names; a bare name means that this truth value is true.
    metrics : mapping of name to float, bool, Metric, LadderVerdict or None
        None and NaN are not evaluable. A gate that names one such metric, or a name that is absent, is not evaluable,
        whatever else it says.

    Returns
    -------
    tuple of GateResult
        One per gate, in order.

    Raises
    ------
    DefinitionError
        If a gate does not parse.
    """
    return tuple(_check(gate, metrics) for gate in gates)


def _check(gate: str, metrics: Mapping[str, float | bool | Measured | None]) -> GateResult:
    # Imported here: a mapping of metrics does not need the parser, and models are defined without it.
    from retrodict.core.expressions import parse

    expression = parse(gate_text(gate), where=f"gate {gate!r}")
    names = sorted(expression.columns)
    row: dict[str, float | bool] = {}
    reasons: dict[str, str] = {}
    for name in names:
        value, reason = _value(name, metrics)
        if value is None:
            return GateResult(gate, "not evaluable", None, reason)
        row[name], reasons[name] = value, reason
    try:
        verdict = expression.to_row()(row)
    except InputError as error:  # a truth value compared with a number, say: the other gates still deserve an answer
        return GateResult(gate, "not evaluable", None, str(error))
    single = row[names[0]] if len(names) == 1 else None
    values = ", ".join(f"{name} is {_format_value(row[name])}{reasons[name]}" for name in names)
    if verdict is None:
        return GateResult(gate, "not evaluable", single, f"the comparison has no truth value: {values}")
    if not isinstance(verdict, bool):
        return GateResult(gate, "not evaluable", single, f"the gate is not a truth value: {values}")
    return GateResult(gate, "pass" if verdict else "fail", single, values)


def _value(name: str, metrics: Mapping[str, float | bool | Measured | None]) -> tuple[float | bool | None, str]:
    if name not in metrics:
        return None, f"there is no metric {name!r}. {near(name, metrics, what='metric')}"
    metric: Any = metrics[name]
    verdict, reason = getattr(metric, "verdict", getattr(metric, "status", "")), None
    if isinstance(metric, Measured):
        metric, reason = metric.value, metric.reason
    # NumPy's own scalars become plain ones: the row function is typed.
    value: float | bool | None = metric.item() if hasattr(metric, "item") else metric
    if value is None or math.isnan(value):
        return None, f"{name}: {reason or ('no value' if value is None else 'not a number')}"
    return value, f" ({verdict}: {reason})" if verdict else ""


def _format_value(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}"
