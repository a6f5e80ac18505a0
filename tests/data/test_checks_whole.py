"""Checks of a whole batch: numbers, groups, other rows, other tables, earlier versions; pass, fail, not evaluable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import DefinitionError
from retrodict.core.identity import content_hash
from retrodict.data.checks import RULES, Check
from retrodict.data.context import Context
from retrodict.data.definitions import Table
from retrodict.data.profiling.health import Health
from retrodict.data.validation import CheckResult, validate

# As it was before checks could say what comes of the unknown.
_MEAN_BEFORE = "d44087b8d82d9e4ff928ab3825c40bbebea120d19079be2a764c23f8a8712d37"


class Around(Context):
    """A batch with a moment, other tables, a previous version and numbers of earlier ones."""

    def __init__(
        self,
        *,
        now: int = 0,
        tables: Mapping[str, pa.Table] | None = None,
        previous: pa.Table | None = None,
        measured: list[Mapping[str, float]] | None = None,
    ) -> None:
        super().__init__(now)
        self._tables, self._previous, self._measured = tables or {}, previous, measured or []

    def table(self, ref: str) -> ds.Dataset | None:  # type: ignore[override]
        return ds.dataset(self._tables[ref]) if ref in self._tables else None

    def previous(self) -> ds.Dataset | None:  # type: ignore[override]
        return None if self._previous is None else ds.dataset(self._previous)

    def measured(self) -> list[Mapping[str, float]]:
        return self._measured


def judged(rows: pa.Table | dict[str, Any], check: Check, around: Context | None = None) -> CheckResult:
    table = rows if isinstance(rows, pa.Table) else pa.table(rows)
    (result,) = validate(table, Table("t", checks=[check]), context=around).results
    return result


def failing(rows: dict[str, Any], check: Check, around: Context | None = None) -> list[int]:
    found = validate(pa.table(rows), Table("t", checks=[check]), context=around).quarantined
    return [int(row) for row in found.column("row").to_pylist()]


def test_there_are_about_forty_kinds_in_four_layers() -> None:
    assert len(RULES) >= 40
    assert {rule.layer for rule in RULES.values()} == {"schema", "statistical", "business", "learning"}
    assert all(callable(getattr(Check, name)) for name in RULES)


# numbers of a batch -------------------------------------------------------------------------------------------

NUMBERS = {"x": [1.0, 2.0, 4.0, None, math.nan], "y": [2, 4, 9, 1, 1], "s": ["a", "a", "b", None, "c"]}


@pytest.mark.parametrize(
    ("check", "value", "status"),
    [
        (Check.row_count(5, 5), 5, "pass"),
        (Check.null_rate("x", None, 0.3), 0.4, "fail"),
        (Check.distinct_count("s", 3, 3), 3, "pass"),
        (Check.distinct_share("s", None, 0.5), 0.75, "fail"),
        (Check.mean("x", 2, 3), 7 / 3, "pass"),
        (Check.median("x", None, 1.5), 2, "fail"),
        (Check.std("x", 1.5, 1.6), math.sqrt(7 / 3), "pass"),
        (Check.min("x", 1, None), 1, "pass"),
        (Check.max("x", None, 3), 4, "fail"),
        (Check.sum("x", 7, 7), 7, "pass"),
        (Check.quantile("x", 0.75, None, 3), 3, "pass"),
        (Check.entropy("s", None, 1), 1.0397207708399179, "fail"),
        (Check.correlation("x", "y", 0.9, None), 0.9986254289035241, "pass"),
        (Check.share("y > 1", 0.6, 0.6), 0.6, "pass"),
        (Check.label_rate("x > 1", None, 0.5), 2 / 3, "fail"),
        (Check.mean("x", 5, None, where="s = 'a'"), 1.5, "fail"),
    ],
)
def test_a_number_is_compared_with_its_bounds(check: Check, value: float, status: str) -> None:
    """Values by hand; NaN counts as null."""
    result = judged(NUMBERS, check)
    assert result.value == pytest.approx(value, rel=1e-12)
    assert (result.status, bool(result.reason)) == (status, status == "fail")


def test_freshness_is_the_age_of_the_newest_time() -> None:
    rows = {"t": pa.array([0, 3_600_000_000, None], pa.timestamp("us", "UTC"))}
    assert judged(rows, Check.freshness("t", "1h"), Context(7_200_000_000)).status == "pass"
    late = judged(rows, Check.freshness("t", "1h"), Context(7_200_000_001))
    assert late.status == "fail"
    assert "old" in late.reason


def test_a_group_that_is_out_of_bounds_is_named() -> None:
    rows = {"g": ["a", "a", "b", "b"], "x": [1.0, 1.0, 1.0, 9.0]}
    result = judged(rows, Check.mean("x", 0, 2, by="g"))
    assert (result.status, result.value) == ("fail", 5.0)
    assert "g=b" in result.reason
    tolerant = judged(rows, Check.between("x", 0, 2, by="g", tolerance=0.4))
    assert (tolerant.status, tolerant.failed) == ("fail", 1)  # a quarter of all rows, half of the group


@pytest.mark.parametrize(
    ("rows", "check", "why"),
    [
        ({"x": pa.array([None], pa.float64())}, Check.mean("x", 0, 1), "x: no value in any of 1 rows"),
        ({"x": [1.0]}, Check.std("x", 0, 1), "x: 1 value, and there must be two"),
        ({"x": [1, 1], "y": [1, 2]}, Check.correlation("x", "y", 0, 1), "no constant column"),
        ({"x": [1, 2]}, Check.between("x", 0, 1, where="x > 5"), "no row is one it is about"),
        ({"x": pa.array([None, None], pa.int64())}, Check.between("x", 0, 1), "no row has a value"),
        ({"x": [1]}, Check.stable("mean", "x"), "no earlier version"),
        ({"x": [1]}, Check.stable("mean", "x", against="history"), "0 earlier versions"),
        ({"x": [1]}, Check.drift("x"), "no version to compare"),
        ({"x": [1]}, Check.references("x", "other"), "no table other"),
        ({"x": [1]}, Check.disjoint("x", "train@3"), "no table train@3"),
        ({"x": pa.array([None], pa.float64())}, Check.share("x > 1", 0, 1), "the condition: no value in any of 1"),
        ({"x": [1, 2], "y": [True, True]}, Check.leakage("x", "y"), "both classes must occur"),
    ],
)
def test_what_cannot_be_judged_says_why(rows: dict[str, Any], check: Check, why: str) -> None:
    """Neither success nor failure: a severe check halts, unless only publishing can give it a history."""
    result = judged(rows, replace(check, severity="critical"))
    assert (result.status, result.halted) == ("not_evaluable", "version" not in why)
    assert why in result.reason


@pytest.mark.parametrize("severity", ["critical", "high", "medium", "low"])
@pytest.mark.parametrize("on_unknown", ["halt", "warn", "pass", None])
def test_a_severe_check_that_is_unknown_halts_unless_it_says_otherwise(severity: Any, on_unknown: Any) -> None:
    """By default critical and high ones halt; health counts what halts or warns, and leaves out what passes."""
    check = Check.mean("x", 0, 1, severity=severity, on_unknown=on_unknown)
    result = judged({"x": pa.array([None, None], pa.float64())}, check)
    action = on_unknown or ("halt" if severity in ("critical", "high") else "pass")
    assert (result.status, result.halted, result.on_unknown) == ("not_evaluable", action == "halt", action)
    score = Health.of_results([result], table="t")["accuracy"].value
    assert score == (None if action == "pass" else 0.0)


def test_what_is_done_about_the_unknown_is_part_of_a_check_only_where_it_is_said() -> None:
    """Versions of tables that stand stay; an unknown word is refused with the near one."""
    assert content_hash(Check.mean("x", 0, 1)) == _MEAN_BEFORE
    assert content_hash(Check.mean("x", 0, 1, on_unknown="warn")) != _MEAN_BEFORE
    with pytest.raises(DefinitionError, match=r"on_unknown must be one that exists; got 'halts'.*'halt'"):
        Check.mean("x", 0, 1, on_unknown="halts")  # type: ignore[arg-type]


INFINITE = {"x": [1.0, 2.0, 3.0, 4.0, math.inf], "y": [1.0, 2.0, 3.0, 4.0, 5.0], "g": ["a", "a", "b", "b", "b"]}


@pytest.mark.parametrize(
    "check",
    [
        Check.mean("x", 0, None),
        Check.sum("x", 0, None),
        Check.std("x", 0, 9),
        Check.quantile("x", 0.9, 0, 9),
        Check.correlation("x", "y", 0, 1),
        Check.stable("mean", "x"),
        Check.stable("std", "x"),
        Check.stable("max", "x"),
        Check.std("x", 0, 9, by="g"),
    ],
)
def test_an_infinity_is_named_as_what_it_is(check: Check) -> None:
    """There are values: it is one of them that has no mean, and no later version is held to it."""
    around = Around(measured=[{"mean(x)": 2.0, "std(x)": 1.0, "max(x)": 4.0}])
    result = judged(INFINITE, check, around)
    assert result.status == "not_evaluable"
    assert result.reason.startswith("1 of 5 values of x")
    assert "infinite" in result.reason


def test_an_infinity_beyond_a_bound_fails_and_is_named() -> None:
    result = judged(INFINITE, Check.mean("x", 0, 9))
    assert (result.status, result.reason) == ("fail", "inf is above 9: 1 of 5 values of x is infinite")
    assert judged(INFINITE, Check.max("x", 0, 9)).reason == "inf is above 9"


def test_a_group_that_cannot_be_measured_does_not_pass() -> None:
    """It must hold in every group: what is unknown in one is unknown; what fails in another fails."""
    rows = {"g": ["a", "a", "b"], "x": [1.0, 3.0, 5.0]}
    unknown = judged(rows, Check.std("x", 0, 2, by="g"))
    assert unknown.status == "not_evaluable"
    assert "g=b" in unknown.reason
    assert judged(rows, Check.std("x", 0, 1, by="g")).status == "fail"


def test_a_number_is_taken_of_a_number() -> None:
    with pytest.raises(DefinitionError, match=r"mean must be taken of a column that is a number.*Declare the type"):
        judged({"x": ["1"]}, Check.mean("x", 0, 1))


# earlier versions ---------------------------------------------------------------------------------------------


def test_stable_compares_with_the_previous_version() -> None:
    around = Around(measured=[{"mean(x)": 50.0}, {"mean(x)": 10.0}])
    assert judged({"x": [11.0]}, Check.stable("mean", "x"), around).status == "pass"
    assert "a change of 0.2" in judged({"x": [12.0]}, Check.stable("mean", "x"), around).reason


def test_stable_compares_with_the_median_of_the_history() -> None:
    """Median 10, MAD 1: four deviations are 5.93; one wild version does not widen that."""
    around = Around(measured=[{"mean(x)": v} for v in (9.0, 10.0, 11.0, 10.0, 8.0, 12.0, 900.0)])
    check = Check.stable("mean", "x", against="history")
    assert judged({"x": [15.9]}, check, around).status == "pass"
    assert judged({"x": [16.0]}, check, around).status == "fail"


def test_a_constant_history_allows_a_percent() -> None:
    around = Around(measured=[{"row_count()": 100.0}] * 6)
    check = Check.stable("row_count", against="history", deviations=1)
    assert judged({"x": range(101)}, check, around).status == "pass"
    assert judged({"x": range(102)}, check, around).status == "fail"


def test_drift_needs_an_effect_and_more_than_noise() -> None:
    rng = np.random.default_rng(0)
    previous = pa.table({"x": rng.normal(size=5000), "c": rng.choice(["a", "b"], 5000)})
    same = {"x": rng.normal(size=5000), "c": rng.choice(["a", "b"], 5000)}
    moved = {"x": rng.normal(2.0, size=5000), "c": rng.choice(["a", "b"], 5000, p=[0.95, 0.05])}
    around = Around(previous=previous, tables={"t@golden": previous})
    for column in ("x", "c"):
        assert judged(same, Check.drift(column), around).status == "pass"
        assert judged(moved, Check.drift(column, against="golden"), around).status == "fail"
    few = {"x": rng.normal(3.0, size=20)}
    assert "100 are needed" in judged(few, Check.drift("x"), around).reason
    assert judged(moved, Check.label_drift("c = 'a'"), around).status == "fail"


def test_a_correlation_that_turns() -> None:
    x = np.arange(200.0)
    around = Around(previous=pa.table({"x": x, "y": x > 100}))
    check = Check.correlation_flip("x", "y")
    assert judged({"x": x, "y": x > 50}, check, around).status == "pass"
    assert judged({"x": x, "y": x < 50}, check, around).status == "fail"
    assert judged({"x": x, "y": x % 2 == 0}, check, around).status == "pass"  # too weak to have a sign


def test_a_column_that_tells_the_label() -> None:
    x = np.arange(100.0)
    assert "AUC of 1.0000" in judged({"x": x, "y": x > 50}, Check.leakage("x", "y")).reason
    assert judged({"x": -x, "y": x > 50}, Check.leakage("x", "y")).status == "fail"
    assert judged({"x": x % 7, "y": x > 50}, Check.leakage("x", "y")).status == "pass"


# rows among others --------------------------------------------------------------------------------------------

KEYS = st.lists(
    st.fixed_dictionaries({
        "a": st.sampled_from([None, 0, 1, 2]),
        "b": st.sampled_from([None, math.nan, 0.0, -0.0, 1.0]),
        "c": st.sampled_from([None, "x", "X ", "y.", "y"]),
    }),
    min_size=1,
    max_size=15,
)  # fmt: skip
KEY_SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.float64()), ("c", pa.string())])


def whole(row: dict[str, Any], names: tuple[str, ...]) -> tuple[Any, ...] | None:
    values = tuple(row[name] for name in names)
    return None if any(v is None or v != v for v in values) else values


@settings(max_examples=60, deadline=None)
@given(KEYS, st.sampled_from([("a",), ("b",), ("a", "b"), ("c", "a")]))
def test_keys_are_judged_like_a_dictionary_does(rows: list[dict[str, Any]], names: tuple[str, ...]) -> None:
    """Later rows repeat; a null (or NaN) repeats nothing; both zeros are one."""
    table = pa.Table.from_pylist(rows, KEY_SCHEMA)
    seen: set[Any] = set()
    repeated, empty = [], []
    for at, row in enumerate(rows):
        key = whole(row, names)
        if key is None:
            empty.append(at)
        elif key in seen:
            repeated.append(at)
        else:
            seen.add(key)
    unique = validate(table, Table("t", checks=[Check.unique(*names)])).quarantined.column("row").to_pylist()
    primary = validate(table, Table("t", checks=[Check.primary_key(*names)])).quarantined.column("row").to_pylist()
    assert unique == repeated
    assert primary == sorted(repeated + empty)


@settings(max_examples=60, deadline=None)
@given(KEYS, KEYS)
def test_other_tables_are_looked_up_like_a_set(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """A reference that is missing fails, a key that is there contaminates; a null does neither."""
    around = Around(tables={"o": pa.Table.from_pylist(others, KEY_SCHEMA)})
    there = {whole(other, ("a", "c")) for other in others} - {None}
    keys = [whole(row, ("a", "c")) for row in rows]
    plain = {name: pa.array([row[name] for row in rows], KEY_SCHEMA.field(name).type) for name in KEY_SCHEMA.names}
    missing = [at for at, key in enumerate(keys) if key is not None and key not in there]
    assert failing(plain, Check.references(["a", "c"], "o"), around) == missing
    inside = [at for at, key in enumerate(keys) if key in there]
    assert failing(plain, Check.disjoint(["a", "c"], "o"), around) == inside


def test_keys_of_another_type_on_the_other_side_are_refused() -> None:
    around = Around(tables={"o": pa.table({"x": ["1"]})})
    with pytest.raises(DefinitionError, match="one type on both sides"):
        judged({"x": [1]}, Check.references("x", "o"), around)
    assert failing({"x": [1, 2]}, Check.references("x", "p"), Around(tables={"p": pa.table({"x": [1.0]})})) == [1]


@pytest.mark.parametrize(
    ("rows", "check", "expected"),
    [
        ({"c": ["Main St.", "main  st", "Main Rd", None, None]}, Check.near_duplicates("c"), [1]),
        ({"a": [1, 1, 2, 2, 1], "b": ["x", "y", "x", "x", None]}, Check.determines("a", "b"), [1]),
        ({"x": [1, 3, None, 2, 3, 4]}, Check.monotone("x"), [3]),
        ({"x": [1, 3, None, 2, 3, 4]}, Check.monotone("x", strict=True), [3, 4]),
        ({"x": [3, 1, 2]}, Check.monotone("x", "decreasing"), [2]),
        ({"x": [1, 5, 2, 4], "g": ["a", "b", "a", "b"]}, Check.monotone("x", per="g"), [3]),
        ({"x": [5, 1, 5], "s": ["n", "y", "y"]}, Check.unique("x", where="s = 'y'"), []),
    ],
)
def test_rows_among_others(rows: dict[str, Any], check: Check, expected: list[int]) -> None:
    assert failing(rows, check) == expected


# columns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (Check.columns_exist("x", "z"), "missing: z"),
        (Check.columns_match("x"), "added: y"),
        (Check.has_type("x", "string"), "it arrives as int64"),
        (Check.columns_match("y", "x"), ""),
        (Check.has_type("x", "float"), ""),
    ],
)
def test_columns_are_judged_as_they_arrive(check: Check, reason: str) -> None:
    result = judged({"x": [1], "y": ["a"]}, check)
    assert (result.status, result.reason) == ("fail" if reason else "pass", reason)
