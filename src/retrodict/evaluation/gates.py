"""Gates: conditions a model must meet, written as text (``auc >= 0.70``, ``beats_ladder``), judged against metrics.

A metric without a value makes its gate "not evaluable", which is not a pass: absence of evidence opens nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from retrodict.core.display import Record
from retrodict.core.errors import InputError, near

__all__ = ["GATE_METRICS", "GateResult", "Measured", "check_gates"]

GATE_METRICS: dict[str, tuple[float, float]] = {
    "auc": (0.0, 1.0),
    "base_rate": (0.0, 1.0),
    "beats_ladder": (0.0, 1.0),
    "brier": (0.0, 1.0),
    "calibration_error": (0.0, 1.0),
    "calibration_ratio": (0.0, math.inf),
    "log_loss": (0.0, math.inf),
    "pr_auc": (0.0, 1.0),
}
"""What a gate can read: every metric of the test rows and the ladder's verdict, with the range of its values."""


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

    expression = parse(gate, where=f"gate {gate!r}")
    names = sorted(expression.columns)
    row: dict[str, float | bool] = {}
    for name in names:
        value, why_not = _value(name, metrics)
        if value is None:
            return GateResult(gate, "not evaluable", None, why_not)
        row[name] = value
    try:
        verdict = expression.to_row()(row)
    except InputError as error:  # a truth value compared with a number, say: the other gates still deserve an answer
        return GateResult(gate, "not evaluable", None, str(error))
    single = row[names[0]] if len(names) == 1 else None
    values = ", ".join(f"{name} is {_format_value(row[name])}" for name in names)
    if verdict is None:
        return GateResult(gate, "not evaluable", single, f"the comparison has no truth value: {values}")
    if not isinstance(verdict, bool):
        return GateResult(gate, "not evaluable", single, f"the gate is not a truth value: {values}")
    return GateResult(gate, "pass" if verdict else "fail", single, values)


def _value(name: str, metrics: Mapping[str, float | bool | Measured | None]) -> tuple[float | bool | None, str]:
    if name not in metrics:
        return None, f"there is no metric {name!r}. {near(name, metrics, what='metric')}"
    metric: Any = metrics[name]
    reason = None
    if isinstance(metric, Measured):
        metric, reason = metric.value, metric.reason
    # NumPy's own scalars become plain ones: the row function is typed.
    value: float | bool | None = metric.item() if hasattr(metric, "item") else metric
    if value is None or math.isnan(value):
        return None, f"{name}: {reason or ('no value' if value is None else 'not a number')}"
    return value, ""


def _format_value(value: float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}"
