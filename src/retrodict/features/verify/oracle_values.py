"""What each aggregate of the naive oracle is, of a list of facts: plain Python, straight from its definition.

Exact means are those of :mod:`fractions`; nothing is subtracted that was added before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from retrodict.core.expressions import parse
from retrodict.features.definitions import Aggregate, Window

__all__ = ["aggregate", "finite", "micros", "plain", "true"]

_UNIT = {"us": 1, "ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6, "w": 604800 * 10**6}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Facts = list[tuple[int, dict[str, Any]]]  # event time and row, oldest first


def aggregate(feature: Aggregate, window: Window, facts: Facts, at: int) -> Any:
    """Value of an aggregate over the facts of one window, for a decision at a time."""
    if feature.where is not None:
        facts = [fact for fact in facts if true(feature.where, fact[1]) is True]
    option = dict(feature.options)
    match feature.op:
        case "count":
            return len(facts)
        case "rate":
            return float(Fraction(len(facts) * micros(option["per"]), micros(window.length)))
        case "ratio":
            return _ratio(feature, facts)
        case "share":
            truths = [value for _, row in facts if (value := true(feature.value or "", row)) is not None]
            return sum(1 for value in truths if value) / len(truths) if truths else None
        case "by":
            return _by(feature, option["op"], facts)
        case "argmax" | "argmin" | "top_k_by" | "bottom_k_by":
            return _ranked(feature, option.get("k"), facts)
        case "time_since_last":
            return (at - facts[-1][0]) / 1e6 if facts else None
        case "session_count" | "session_events" | "session_seconds":
            return _session(feature.op, [e for e, _ in facts], at, micros(option["gap"]))
        case "decayed_count":
            return _decayed([(e, 1.0) for e, _ in facts], option["half_life"], at)
    timed = [(e, value) for e, row in facts if (value := finite(row.get(feature.value or ""))) is not None]
    if feature.op == "decayed_sum":
        return _decayed([(e, float(value)) for e, value in timed], option["half_life"], at)
    if feature.op == "slope":
        return _slope(timed, micros(option["per"]))
    return _of_values(feature.op, [value for _, value in timed], option)


def _of_values(op: str, values: list[Any], option: Mapping[str, Any]) -> Any:
    if op in {"distinct", "approx_distinct"}:
        return len(set(values))
    if op in {"sum_list", "mean_list"}:
        return _by_element(_MEANINGS[op.removesuffix("_list")], values, option["size"])
    return _MEANINGS[op](values, option) if values else None


def _by_element(meaning: Callable[..., Any], lists: list[list[Any]], size: int) -> list[Any] | None:
    """Value of each place of the lists that are whole."""
    complete = [row for row in lists if len(row) == size and all(v is not None and math.isfinite(v) for v in row)]
    return [meaning([float(row[place]) for row in complete], {}) for place in range(size)] if complete else None


def _histogram(values: list[Any]) -> dict[str, int]:
    texts = [_text(value) for value in values]
    return {text: texts.count(text) for text in sorted(set(texts))}


def _sum(values: list[Any]) -> Any:
    """Exact sum, of floats rounded once; None if it is no double."""
    return _rounded(_total(values)) if any(isinstance(value, float) for value in values) else sum(values)


def _total(values: list[Any]) -> Fraction:
    return sum(map(Fraction, values), Fraction(0))


def _rounded(value: Fraction) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _mean(values: list[Any]) -> float:
    """Rounded sum over the number of values; where no double is the sum, the mean itself is rounded."""
    total = _rounded(_total(values))
    return float(_total(values) / len(values)) if total is None else total / len(values)


def _ratio(feature: Aggregate, facts: Facts) -> float | None:
    sides = [(finite(row.get(feature.value or "")), finite(row.get(feature.second or ""))) for _, row in facts]
    complete = [(top, bottom) for top, bottom in sides if top is not None and bottom is not None]
    bottoms = _total([bottom for _, bottom in complete])
    return _rounded(_total([top for top, _ in complete]) / bottoms) if bottoms else None


def _by(feature: Aggregate, op: str, facts: Facts) -> dict[str, Any] | None:
    groups: dict[str, list[Any]] = {}
    for _, row in facts:
        group = finite(row.get(feature.second or ""))
        value = 1 if feature.value is None else finite(row.get(feature.value))
        if group is not None and value is not None:
            groups.setdefault(_text(group), []).append(value)
    if op == "count":
        return {group: len(groups[group]) for group in sorted(groups)} or None
    totals = {group: _MEANINGS[op](groups[group], {}) for group in sorted(groups)}
    return {group: None if value is None else float(value) for group, value in totals.items()} or None


def _ranked(feature: Aggregate, k: int | None, facts: Facts) -> Any:
    """Values in the order of another column; facts come oldest first, and of equal ones the newest is the first."""
    sides = [
        (finite(row.get(feature.second or "")), finite(row.get(feature.value or ""))) for _, row in reversed(facts)
    ]
    pairs = [(by, value) for by, value in sides if by is not None and value is not None]
    descending = feature.op in {"argmax", "top_k_by"}
    values = [value for _, value in sorted(pairs, key=lambda pair: pair[0], reverse=descending)]
    if not values:
        return None
    return values[0] if k is None else values[:k]


def _session(op: str, times: list[int], at: int, gap: int) -> float | None:
    sessions: list[list[int]] = []
    for moment in times:
        if sessions and moment - sessions[-1][-1] <= gap:
            sessions[-1].append(moment)
        else:
            sessions.append([moment])
    if op == "session_count":
        return len(sessions)
    current = sessions[-1] if sessions and at - sessions[-1][-1] <= gap else []
    if op == "session_events":
        return len(current)
    return (at - current[0]) / 1e6 if current else None


def _decayed(weighted: list[tuple[int, float]], half_life: str, at: int) -> float | None:
    if not weighted:
        return None
    return _rounded(_total([value * 2.0 ** (-(at - e) / micros(half_life)) for e, value in weighted]))


def _quantile(values: list[float], q: float) -> float:
    place = (len(values) - 1) * q
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    between = values[below] + (values[above] - values[below]) * (place - below)
    if math.isfinite(between):
        return between
    return values[below] * (1 - (place - below)) + values[above] * (place - below)


def _central(values: list[Any], power: int) -> Fraction:
    exact = [Fraction(float(value)) for value in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    return sum(((value - mean) ** power for value in exact), Fraction(0))


def _variance(values: list[Any]) -> float | None:
    return _rounded(_central(values, 2) / (len(values) - 1)) if len(values) > 1 else None


def _near_one(value: Fraction) -> int:
    """Exponent j for which value / 4**j is about 1."""
    return (value.numerator.bit_length() - value.denominator.bit_length()) // 2


def _std(values: list[Any]) -> float | None:
    """Root of the variance rounded to 53 bits, whatever its exponent."""
    if len(values) < 2:
        return None
    variance = _central(values, 2) / (len(values) - 1)
    j = _near_one(variance)
    return _rounded(Fraction(math.sqrt(variance / Fraction(4) ** j)) * Fraction(2) ** j)


def _skew(values: list[Any]) -> float | None:
    """Quotient of the moments, each rounded to 53 bits, whatever their exponents."""
    second, third = (_central(values, power) / len(values) for power in (2, 3))
    if not second:
        return None
    j = _near_one(second)
    m2 = float(second / Fraction(4) ** j)
    return float(third / Fraction(8) ** j) / (m2 * math.sqrt(m2))


def _slope(timed: list[tuple[int, Any]], per: int) -> float | None:
    """Slope of the regression line through the points (time, value): covariance over variance of the times."""
    points = [(Fraction(float(e)) / per, Fraction(float(value))) for e, value in timed]
    if len({time for time, _ in points}) < 2:
        return None
    middle, level = (sum(side, Fraction(0)) / len(points) for side in zip(*points, strict=True))
    joint = sum(((time - middle) * (value - level) for time, value in points), Fraction(0))
    return _rounded(joint / sum((time - middle) ** 2 for time, _ in points))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_MEANINGS: dict[str, Callable[[list[Any], Mapping[str, Any]], Any]] = {
    "min": lambda values, _: min(values),
    "max": lambda values, _: max(values),
    "sum": lambda values, _: _sum(values),
    "mean": lambda values, _: _mean(values),
    "first": lambda values, _: values[0],
    "last": lambda values, _: values[-1],
    "first_k": lambda values, option: values[: option["k"]],
    "last_k": lambda values, option: values[-option["k"] :],
    "top_k": lambda values, option: sorted(values, reverse=True)[: option["k"]],
    "bottom_k": lambda values, option: sorted(values)[: option["k"]],
    "mode": lambda values, _: min(value for value in values if values.count(value) == max(map(values.count, values))),
    "histogram": lambda values, _: _histogram(values),
    "quantile": lambda values, option: _quantile(sorted(float(value) for value in values), option["q"]),
    "variance": lambda values, _: _variance(values),
    "std": lambda values, _: _std(values),
    "skew": lambda values, _: _skew(values),
}


def true(text: str, row: Mapping[str, Any]) -> Any:
    """Whether a condition holds of a row: true, false, or None where it cannot be said; of an expression its value."""
    columns, compute = _condition(text)
    return compute({name: row.get(name) for name in columns})


@lru_cache(maxsize=256)
def _condition(text: str) -> tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Any]]:
    expression = parse(text)
    return expression.columns, expression.to_row()


def micros(text: str) -> int:
    """Microseconds of a duration."""
    return sum(int(number) * _UNIT[unit] for number, unit in re.findall(r"(\d+)\s*([a-z]+)", text))


def plain(value: Any) -> Any:
    """Times as microseconds, decimals as floats, maps as dicts, inside lists as well; anything else as it is."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return (value - _EPOCH) // timedelta(microseconds=1)
    if isinstance(value, list):
        pairs = bool(value) and all(isinstance(item, tuple) for item in value)
        return dict(value) if pairs else [plain(item) for item in value]
    return value


def finite(value: Any) -> Any:
    """Numbers that are no number as null, and no negative zero; a condition sees them as its language says."""
    if isinstance(value, float):
        return value + 0.0 if math.isfinite(value) else None
    return value
