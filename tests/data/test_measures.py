"""Measures of a batch against definitions written out in plain Python with exact fractions."""

import math
import random
import statistics
from collections import Counter
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import parse
from retrodict.data.measures import MEASURES, Measure, polars_measure

TYPES: Any = {"g": pl.Int64, "i": pl.Int64, "x": pl.Float64, "y": pl.Float64, "s": pl.String, "p": pl.Boolean,
              "t": pl.Datetime("us", "UTC"), "d": pl.Date}  # fmt: skip
KINDS: Any = {"g": "number", "i": "number", "x": "number", "y": "number", "s": "text", "p": "bool", "t": "time",
              "d": "date"}  # fmt: skip
FLOATING = {"x", "y"}
CONDITIONS = [parse(text) for text in ("i > 0", "x between -1 and 5", "p", "d >= timestamp '2013-03-10T00:00Z'")]
MICRO = 1_000_000

whole = st.integers(-5, 5) | st.integers(-(10**9), 10**9)
fraction = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e9, 1e9 + 0.5, 1.0, 2.0, 1.0, 0.1, 0.1]),
    st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-6),
)
instant = st.integers(0, 5).map(lambda day: datetime(2013, 3, 8 + day, 1, tzinfo=UTC))
ROWS = st.lists(
    st.fixed_dictionaries({
        "g": st.integers(0, 2),
        **{name: st.one_of(st.none(), values, values, values) for name, values in {
            "i": whole, "x": fraction, "y": fraction, "s": st.sampled_from(["a", "b", "é", ""]), "p": st.booleans(),
            "t": instant, "d": instant.map(datetime.date),
        }.items()},
    }),
    max_size=14,
)  # fmt: skip
number = st.sampled_from(["i", "x", "y", "x", "y", "p"])
anything = st.sampled_from(["i", "x", "y", "s", "p", "t", "d"])
condition = st.sampled_from(CONDITIONS)
where = st.none() | condition


def measure(name: str, columns: Any, **more: Any) -> Any:
    fields = {"parameter": st.none(), "where": where, "expression": st.none()} | more
    return st.builds(Measure, st.just(name), columns, fields["parameter"], fields["where"], fields["expression"])


def of(strategy: Any, least: int = 1, most: int = 1) -> Any:
    return st.lists(strategy, min_size=least, max_size=most).map(tuple)


ALL = st.one_of(
    *(measure(name, of(number)) for name in ("mean", "std", "min", "max", "sum", "median")),
    *(measure(name, of(anything, 1, 2)) for name in ("distinct_count", "distinct_share")),
    *(measure(name, of(anything)) for name in ("null_rate", "entropy")),
    measure("row_count", st.just(())),
    measure("quantile", of(number), parameter=st.sampled_from([0, 0.05, 0.25, 1 / 3, 0.5, 0.95, 1])),
    measure("correlation", of(number, 2, 2)),
    measure("share", st.just(()), expression=condition),
    measure("freshness", of(st.sampled_from(["t", "d"]))),
    measure("auc", st.tuples(number, st.just("p"))),
)


# The oracle: lists, fractions and sums ------------------------------------------------------------------------------


def micros(value: datetime | date) -> int:
    if isinstance(value, datetime):
        return round(value.timestamp()) * MICRO
    return (value - date(1970, 1, 1)).days * 86_400 * MICRO


def taken(found: Measure, rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The values of the columns, row by row, NaN as None."""
    plain = [row for row in rows if found.where is None or found.where.to_row()(row) is True]
    return [tuple(None if row[c] != row[c] else row[c] for c in found.columns) for row in plain]


def expected(found: Measure, rows: list[dict[str, Any]]) -> Any:
    lines = taken(found, rows)
    known = [line for line in lines if None not in line]
    match found.name:
        case "row_count":
            return len(lines)
        case "null_rate":
            return Fraction(len(lines) - len(known), len(lines)) if lines else None
        case "distinct_count":
            return len(set(known))
        case "distinct_share":
            return Fraction(len(set(known)), len(known)) if known else None
        case "entropy":
            shares = [count / len(known) for count in Counter(known).values()]
            return -sum(share * math.log(share) for share in shares) if known else None
        case "freshness":
            return max(micros(value) for (value,) in known) if known else None
        case "share":
            assert found.expression is not None
            test = found.expression.to_row()
            plain = [row for row in rows if found.where is None or found.where.to_row()(row) is True]
            answers = [answer for answer in map(test, plain) if answer is not None]
            return Fraction(sum(answers), len(answers)) if answers else None
        case "correlation":
            return correlation(known)
        case "auc":
            pairs = [(a, b) for a, truth in known if truth for b, other in known if not other]
            wins = sum(Fraction(2 * (a > b) + (a == b), 2) for a, b in pairs)
            return wins / len(pairs) if pairs else None
        case _:
            return of_numbers(found, [value for (value,) in known])


def of_numbers(found: Measure, values: list[Any]) -> Any:
    if not values:
        return None
    infinite = {value for value in values if math.isinf(value)}
    if found.name in ("mean", "sum") and infinite:
        return infinite.pop() if len(infinite) == 1 else None
    match found.name:
        case "sum":
            return sum(map(Fraction, values))
        case "mean":
            return sum(map(Fraction, values)) / len(values)
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "std":
            if infinite or len(values) < 2:
                return None
            mean = sum(map(Fraction, values)) / len(values)
            return math.sqrt(sum((Fraction(value) - mean) ** 2 for value in values) / (len(values) - 1))
    ordered = sorted(values)
    level = 0.5 if found.parameter is None else found.parameter
    place = level * (len(values) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    if math.isinf(low) or math.isinf(high):
        return None
    return Fraction(low) + (Fraction(high) - Fraction(low)) * Fraction(place - math.floor(place))


def correlation(pairs: list[tuple[Any, Any]]) -> float | None:
    if any(math.isinf(value) for pair in pairs for value in pair) or len(set(pairs)) < 2:
        return None
    n = len(pairs)
    x, y = ([Fraction(pair[side]) for pair in pairs] for side in (0, 1))
    xm, ym = sum(x) / n, sum(y) / n
    xx, yy = (sum((value - mean) ** 2 for value in side) for side, mean in ((x, xm), (y, ym)))
    xy = sum((a - xm) * (b - ym) for a, b in zip(x, y, strict=True))
    return float(xy) / (math.sqrt(xx) * math.sqrt(yy)) if xx and yy else None


def scale(found: Measure, rows: list[dict[str, Any]]) -> float:
    """What the error of a sum is measured by: the sum, or mean, of the absolute values."""
    values = [abs(v) for line in taken(found, rows) for v in line if isinstance(v, int | float) and math.isfinite(v)]
    if found.name == "sum":
        return sum(values)
    return max(values, default=0.0) if found.name in ("mean", "median", "quantile") else 1.0


def agrees(found: Measure, rows: list[dict[str, Any]], value: Any) -> bool:
    """Exactly for counts, times and None, to 1e-12 of the scale for the rest."""
    right = expected(found, rows)
    if right is None or value is None or isinstance(right, int) or math.isinf(right):
        return bool(value is right if value is None else value == right)
    if found.name in ("std", "correlation"):
        return bool(math.isclose(value, right, rel_tol=1e-9, abs_tol=1e-12))
    return bool(abs(Fraction(value) - Fraction(right)) <= 1e-12 * scale(found, rows))


# Polars ------------------------------------------------------------------------------------------------------------


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=TYPES)


@settings(deadline=None, max_examples=30, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(measures=st.lists(ALL, min_size=1, max_size=12), rows=ROWS, streaming=st.booleans())
def test_polars_gives_the_definition(measures: list[Measure], rows: list[dict[str, Any]], streaming: bool) -> None:
    """Of the whole batch and of every group, with conditions, nulls, NaN and infinities."""
    batch = frame(rows)
    aggregates = [polars_measure(one, FLOATING, kinds=KINDS).alias(f"_{place}") for place, one in enumerate(measures)]
    way: Any = "streaming" if streaming else "in-memory"
    whole = batch.lazy().select(aggregates).collect(engine=way)
    groups = batch.lazy().group_by("g").agg(aggregates).collect(engine=way)
    assert whole.height == 1
    wrong = []
    for group, *values in [(None, *whole.row(0)), *groups.rows()]:
        part = [row for row in rows if group is None or row["g"] == group]
        wrong += [
            (group, one, value, expected(one, part))
            for one, value in zip(measures, values, strict=True) if not agrees(one, part, value)
        ]  # fmt: skip
    assert wrong == []


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("noise", [1.0, 1e-3])
def test_small_noise_on_a_large_offset_keeps_its_digits(noise: float, streaming: bool) -> None:
    """Values of 1e9 and a little: standard deviation and correlation are right to 1e-9."""
    random = np.random.default_rng(3)
    x = 1e9 + random.normal(0, noise, 5_000)
    y = 2e9 - x + random.normal(0, noise, 5_000)
    batch = pl.DataFrame({"x": x, "y": y, "c": np.full(5_000, 0.1)})
    wide = [np.array([Fraction(v) - 10**9 for v in side.tolist()], dtype=object) for side in (x, y)]
    dx, dy = (side - sum(side) / len(side) for side in wide)
    right = [math.sqrt(sum(dx * dx) / (len(x) - 1)), float(sum(dx * dy)) / math.sqrt(sum(dx * dx) * sum(dy * dy))]
    measures = [Measure("std", ("x",)), Measure("correlation", ("x", "y")), Measure("correlation", ("x", "c"))]
    lazy = batch.lazy().select(polars_measure(one, batch.columns).alias(str(k)) for k, one in enumerate(measures))
    values = lazy.collect(engine="streaming" if streaming else "in-memory").row(0)
    assert values[:2] == pytest.approx(right, rel=1e-9)
    assert values[2] is None


@pytest.mark.parametrize(
    ("found", "value"),
    [
        (Measure("null_rate", ("x",)), 0.5), (Measure("mean", ("x",)), 2.0), (Measure("std", ("x",)), math.sqrt(2)),
        (Measure("quantile", ("x",), 0.25), 1.5), (Measure("auc", ("x", "p")), 1.0), (Measure("row_count", ()), 4),
        (Measure("entropy", ("p",)), math.log(2)), (Measure("share", (), None, None, parse("x > 1")), 0.5),
        (Measure("share", (), None, parse("x > 9"), parse("x > 1")), None),
        (Measure("std", ("x",), None, parse("p")), None),
        (Measure("freshness", ("d",)), 86_400 * MICRO), (Measure("distinct_count", ("x", "p")), 2),
    ],
)  # fmt: skip
def test_one_value_by_hand(found: Measure, value: Any) -> None:
    """Four rows: 1, 3, null and NaN; with false, true, true, false; the second day of 1970 is the newest."""
    rows = [dict.fromkeys(TYPES) | {"x": x, "p": p, "d": date(1970, 1, 2)}
            for x, p in ((1.0, False), (3.0, True), (None, True), (math.nan, False))]  # fmt: skip
    assert frame(rows).select(polars_measure(found, FLOATING)).item() == pytest.approx(value)


def test_a_measure_is_its_fields() -> None:
    """Equal fields are one key; a condition counts by its canonical text."""
    first, again = (Measure("mean", ("x",), None, parse(text)) for text in ("i>0", "(i) > 0"))
    assert {first: 1}[again] == 1
    assert first != Measure("mean", ("x",))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("men", ("x",)), "a measure must have a name that exists; got 'men'. Did you mean the name 'mean'"),
        (("mean", ()), "measure mean: a measure must be of 1 columns"),
        (("correlation", ("x",)), "must be of 2 columns"),
        (("row_count", ("x",)), "must be of no columns"), (("distinct_count", ()), "must be of 1 or more columns"),
        (("quantile", ("x",)),
         "a quantile, and nothing else, must have a level between 0 and 1; got None. Pass parameter"),
        (("quantile", ("x",), 95), "got 95"), (("mean", ("x",), 0.5), "Leave parameter out"),
        (("share", ()), "a share, and nothing else, must have an expression"),
        (("mean", ("x",), None, None, parse("x > 1")), "Leave expression out"),
        (("mean", ("x",), None, parse("1 < 2")), "the condition of a measure must read a column; got '1 < 2'"),
    ],
)  # fmt: skip
def test_a_measure_that_cannot_be_is_refused(fields: Any, message: str) -> None:
    """When it is defined, not when it runs."""
    with pytest.raises(DefinitionError) as caught:
        Measure(*fields)
    assert message in str(caught.value)


def test_every_measure_is_tested() -> None:
    """The strategy above draws every name that exists."""
    text = Path(__file__).read_text(encoding="utf-8")
    strategy = text[text.index("ALL = ") : text.index("# The oracle")]
    assert {name for name in MEASURES if f'"{name}"' in strategy} == MEASURES


@pytest.mark.parametrize("origin", [1e9, 1e9 + 3])
def test_a_value_from_the_middle_serves_as_well_as_the_mean(origin: float) -> None:
    """One pass then, and 1e9 plus a little keeps its digits; statistics.stdev is exact in rationals."""
    rng = random.Random(1)
    x = [1e9 + rng.gauss(0, 1e-3) for _ in range(2000)]
    y = [value + rng.gauss(0, 1e-3) for value in x]
    frame, both = pl.LazyFrame({"x": x, "y": y}), {"x": origin, "y": origin}
    std, corr = Measure("std", ("x",)), Measure("correlation", ("x", "y"))
    found = frame.select(
        std=polars_measure(std, ["x", "y"], origins=both), corr=polars_measure(corr, ["x", "y"], origins=both)
    ).collect(engine="streaming")
    assert found["std"][0] == pytest.approx(statistics.stdev(x), rel=1e-6)
    assert found["corr"][0] == pytest.approx(statistics.correlation(x, y), rel=1e-6)
