"""Checks of single rows: a scan, one row at a time, SQL, and a naive oracle give the same verdict on every row."""

from __future__ import annotations

import math
import re
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.clock import parse_time
from retrodict.data.checks import RULES, Check
from retrodict.data.definitions import Table
from retrodict.data.validation import row_checker, validate

MOMENT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.float64()), ("c", pa.string()), ("t", MOMENT), ("u", MOMENT)])
DAY = 86_400_000_000
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a": st.sampled_from([None, -1, 0, 1, 2]) | st.integers(-5, 5),
            "b": st.sampled_from([None, math.nan, math.inf, -math.inf, 0.5, 1.0, -0.0]) | st.floats(-5, 5),
            "c": st.sampled_from([None, "", "a", "B6", "it's", "é", "a b", "AA99", "\U0001f600"]),
            "t": st.none() | st.integers(-3, 3).map(lambda day: day * DAY),
            "u": st.none() | st.integers(-3, 3).map(lambda day: day * DAY + 1),
        }
    ),
    min_size=1,
    max_size=20,
)
WHERES = st.sampled_from([None, "a > 0", "b is not null", "c = 'a' or a < 2"])


def where_holds(text: str | None, row: dict[str, Any]) -> bool:
    a, b, c = row["a"], known(row["b"]), row["c"]
    return {
        None: True,
        "a > 0": a is not None and a > 0,
        "b is not null": b is not None,
        "c = 'a' or a < 2": c == "a" or (a is not None and a < 2),
    }[text]


def known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


CASES: dict[str, tuple[Any, Any]] = {
    # what makes the check, and what a row with no null among (a, b, c, t, u) must hold; None: unknown
    "not_null": (lambda how: Check.not_null("b", "c", **how), lambda r: r["b"] is not None and r["c"] is not None),
    "is_null": (lambda how: Check.is_null("a", **how), lambda r: r["a"] is None),
    "finite": (lambda how: Check.finite("b", **how), lambda r: r["b"] is None or math.isfinite(r["b"])),
    "between": (lambda how: Check.between("b", -1, 1.5, **how), lambda r: r["b"] is None or -1 <= r["b"] <= 1.5),
    "between, open": (lambda how: Check.between("a", 1, None, **how), lambda r: r["a"] is None or r["a"] >= 1),
    "in_set": (lambda how: Check.in_set("c", {"a", "it's"}, **how), lambda r: r["c"] in (None, "a", "it's")),
    "not_in_set": (lambda how: Check.not_in_set("a", {0, 1}, **how), lambda r: r["a"] not in (0, 1)),
    "matches": (
        lambda how: Check.matches("c", "[A-Z]{1,2}[0-9]+", **how),
        lambda r: r["c"] is None or re.fullmatch(r"[A-Z]{1,2}[0-9]+", r["c"]) is not None,
    ),
    "length": (lambda how: Check.length("c", 1, 2, **how), lambda r: r["c"] is None or 1 <= len(r["c"]) <= 2),
    "time_between": (
        lambda how: Check.time_between("t", "1969-12-31", "1970-01-02T00:00:00Z", **how),
        lambda r: r["t"] is None or -DAY <= r["t"] <= DAY,
    ),
    "sql": (
        lambda how: Check.sql("a < b", **how),
        lambda r: r["a"] is None or r["b"] is None or r["a"] < r["b"],
    ),
    "compare": (
        lambda how: Check.compare("t", "<=", "u", **how),
        lambda r: r["t"] is None or r["u"] is None or r["t"] <= r["u"],
    ),
    "required_if": (
        lambda how: Check.required_if("c", "a > 0", **how),
        lambda r: r["c"] is not None or r["a"] is None or not r["a"] > 0,
    ),
    "sum_equals": (
        lambda how: Check.sum_equals(["a", "a"], "b", within=1.5, **how),
        lambda r: r["a"] is None or r["b"] is None or abs(r["a"] + r["a"] - r["b"]) <= 1.5,
    ),
    "known_before": (
        lambda how: Check.known_before("t", "u - 1d", **how),
        lambda r: r["t"] is None or r["u"] is None or r["t"] < r["u"] - DAY,
    ),
}  # fmt: skip


def test_every_rule_on_single_rows_is_here() -> None:
    """A new rule needs a case; the one that depends on the moment has a test of its own."""
    rules = {name for name, rule in RULES.items() if rule.scope == "row"} - {"not_in_future"}
    assert {name.partition(",")[0] for name in CASES} == rules


@settings(max_examples=60, deadline=None)
@given(ROWS, st.lists(st.tuples(st.sampled_from(sorted(CASES)), WHERES), min_size=1, max_size=5))
def test_three_executions_agree_with_the_oracle(
    rows: list[dict[str, Any]], chosen: list[tuple[str, str | None]]
) -> None:
    """Nulls, NaN, infinities, astral letters, times around the epoch, conditions on rows."""
    table = pa.Table.from_pylist(rows, SCHEMA)
    plain = [{name: known(value) for name, value in row.items()} for row in rows]
    for name, where in chosen:
        make, holds = CASES[name]
        check = make({} if where is None else {"where": where})
        expected = [i for i, row in enumerate(plain) if where_holds(where, row) and not holds(row)]
        definition = Table("t", checks=[check])
        scanned = validate(table, definition)
        assert scanned.quarantined.column("row").to_pylist() == expected, check.title
        one = row_checker(definition)
        assert [i for i, row in enumerate(rows) if one(row)] == expected, check.title
        assert by_sql(check, table) == expected, check.title


def by_sql(check: Check, table: pa.Table) -> list[int]:
    assert check.condition is not None
    kinds = {"a": "number", "b": "number", "c": "text", "t": "time", "u": "time"}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("t", table.append_column("spot", pa.array(range(table.num_rows))))
        sql = check.condition.to_sql(kinds=kinds)  # type: ignore[arg-type]
        return [row[0] for row in connection.execute(f"SELECT spot FROM t WHERE NOT ({sql}) ORDER BY spot").fetchall()]


def test_not_in_future_counts_from_the_moment_of_the_check() -> None:
    """The clock of the context, plus the allowance; nulls pass."""
    from retrodict.core.clock import SimulatedClock
    from retrodict.data.context import Context

    now = parse_time("2024-01-02T00:00Z")
    rows = pa.table({"t": pa.array([now, now + 60_000_000, now + 60_000_001, None], pa.timestamp("us", "UTC"))})
    definition = Table("t", checks=[Check.not_in_future("t", "1m")])
    assert validate(rows, definition, context=Context(now)).quarantined.column("row").to_pylist() == [2]
    one = row_checker(definition, clock=SimulatedClock(now))
    assert [bool(one({"t": t})) for t in (now, now + 60_000_000, now + 60_000_001, None)] == [False, False, True, False]
