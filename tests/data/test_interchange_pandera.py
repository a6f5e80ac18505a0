"""Schemas of Pandera: what is mapped fails the same rows as Pandera itself; what is not says why."""

from __future__ import annotations

import datetime as dt
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from retrodict import Check, Table
from retrodict.core.errors import InputError
from retrodict.data.interchange import from_pandera, to_pandera
from retrodict.data.validation import check_source

UTC = dt.UTC
START = dt.datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def pandera() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a library says on import is not ours
        yield pytest.importorskip("pandera.polars", reason="needs the extra pandera")


@pytest.fixture
def pandera_pandas() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("pandera.pandas", reason="needs the extra pandera")


def rows(count: int = 400) -> pa.Table:
    """Values with failures of every kind planted."""
    rng = np.random.default_rng(5)
    words = np.array(["EWR", "JFK", "LGA", "jfk", "X1", "EWR-2", ""], object)
    return pa.table({
        "id": pa.array(np.where(rng.random(count) < 0.05, 7, np.arange(count)), pa.int64()),
        "x": pa.array(rng.normal(50, 20, count).round(1), mask=rng.random(count) < 0.1),
        "n": pa.array(rng.integers(0, 12, count), pa.int64()),
        "s": pa.array(words[rng.integers(0, len(words), count)], pa.string(), mask=rng.random(count) < 0.1),
        "t": pa.array(1_577_836_800_000_000 + rng.integers(0, 10**14, count), pa.timestamp("us", "UTC")),
        "b": pa.array(rng.random(count) < 0.5),
    })  # fmt: skip


BUILT_IN = [
    ("x", "equal_to", (50.0,), {}),
    ("n", "not_equal_to", (3,), {}),
    ("x", "greater_than", (20.5,), {}),
    ("n", "gt", (2,), {}),
    ("n", "ge", (2,), {}),
    ("x", "less_than", (70,), {}),
    ("n", "le", (9,), {}),
    ("x", "in_range", (20, 80), {}),
    ("n", "in_range", (2, 9), {"include_min": False, "include_max": False}),
    ("n", "between", (2, 9), {"include_max": False}),
    ("t", "in_range", (START + dt.timedelta(days=100), START + dt.timedelta(days=800)), {}),
    ("t", "greater_than", (START + dt.timedelta(days=100),), {}),
    ("s", "isin", (["EWR", "JFK"],), {}),
    ("n", "notin", ([1, 2, 3],), {}),
    ("s", "str_matches", ("[A-Z]{2}",), {}),
    ("s", "str_matches", ("^(EWR|J)$",), {}),
    ("s", "str_matches", ("W|X",), {}),
    ("s", "str_contains", ("[0-9]",), {}),
    ("s", "str_contains", ("^E|K$",), {}),
    ("s", "str_startswith", ("EW",), {}),
    ("s", "str_startswith", ("X1",), {}),
    ("s", "str_endswith", ("-2",), {}),
    ("s", "str_length", (), {"min_value": 1, "max_value": 3}),
    ("s", "str_length", (), {"min_value": 4}),
    ("s", "str_length", (), {"exact_value": 3}),
]


def schema_of(pandera: Any, **more: Any) -> Any:
    checks: dict[str, list[Any]] = {}
    for name, kind, given, named in BUILT_IN:
        checks.setdefault(name, []).append(getattr(pandera.Check, kind)(*given, **named))
    nullable = {"x": True}
    return {name: pandera.Column(more.get(name), checks.get(name), nullable=nullable.get(name, False))
            for name in ("x", "n", "s", "t")}  # fmt: skip


def their_failures(schema: Any, frame: Any, errors: Any) -> list[int]:
    """Failing rows per check, in the order in which they are reported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(errors) as raised:
            schema.validate(frame, lazy=True)
    return sorted(len(each.failure_cases) for each in raised.value.schema_errors if each.failure_cases is not None)


def our_failures(found: Any, data: pa.Table) -> list[int]:
    results = check_source(data, Table("t", columns=found.columns, checks=found.checks))
    return sorted(result.failed for result in results if result.failed)


def test_a_polars_schema_fails_the_rows_that_pandera_fails(pandera: Any) -> None:
    """Every built-in check, and not null, on the same rows with planted failures."""
    types = {"x": pl.Float64, "n": pl.Int64, "s": pl.String, "t": pl.Datetime("us", "UTC")}
    schema = pandera.DataFrameSchema(schema_of(pandera, **types))
    found, data = from_pandera(schema), rows()
    assert found.unmapped == ()
    assert found.columns == {"x": "float", "n": "int", "s": "string", "t": "time"}
    theirs = their_failures(schema, pl.from_arrow(data), pandera.errors.SchemaErrors)
    assert len(theirs) > len(BUILT_IN) - 2
    assert our_failures(found, data) == theirs


def test_a_pandas_schema_fails_the_rows_that_pandera_fails(pandera_pandas: Any) -> None:
    types = {"x": "float64", "n": "int64", "t": "datetime64[us, UTC]"}
    schema = pandera_pandas.DataFrameSchema(schema_of(pandera_pandas, **types))
    found, data = from_pandera(schema), rows()
    theirs = their_failures(schema, data.to_pandas(), pandera_pandas.errors.SchemaErrors)
    assert our_failures(found, data) == theirs


def test_text_reads_like_the_object_it_was_written_from(pandera_pandas: Any) -> None:
    """YAML and JSON, short and whole: repeated built-ins stand in a list there, single ones as keys."""
    types = {"x": "float64", "n": "int64", "t": "datetime64[us, UTC]"}
    columns = schema_of(pandera_pandas, **types)
    del columns["t"]  # Pandera itself cannot write times with a zone
    schema = pandera_pandas.DataFrameSchema(columns, strict=True, unique=["n", "s"])
    wanted = from_pandera(schema)
    assert len(wanted.checks) > 20
    for text in (schema.to_yaml(), schema.to_yaml(minimal=False), schema.to_json()):
        assert from_pandera(text) == wanted


def test_a_yaml_of_a_polars_schema_reads_like_the_object(pandera: Any, tmp_path: Path) -> None:
    types = {"x": pl.Float64, "n": pl.Int64, "s": pl.String, "t": pl.Datetime("us", "UTC")}
    schema = pandera.DataFrameSchema(schema_of(pandera, **types))
    (tmp_path / "schema.yaml").write_text(schema.to_yaml())
    assert from_pandera(tmp_path / "schema.yaml") == from_pandera(schema)


def test_a_model_is_read_through_its_schema(pandera: Any) -> None:
    class Sales(pandera.DataFrameModel):
        sku: str = pandera.Field(str_matches="^[A-Z]+$", unique=True)
        amount: float = pandera.Field(ge=0, nullable=True, coerce=True, raise_warning=True)

    found = from_pandera(Sales)
    assert found.columns == {"sku": "string", "amount": "float"}
    assert found.key == ("sku",)
    assert found.checks == (
        Check.has_type("sku", "string"),
        Check.not_null("sku"),
        Check.unique("sku"),
        Check.matches("sku", "[A-Z]+"),
        Check.between("amount", 0, None, severity="low"),
    )


def test_json_needs_no_pandera() -> None:
    body = {
        "schema_type": "dataframe",
        "columns": {
            "a": {"dtype": "Int32", "in_range": {"min_value": 0, "max_value": 9, "include_max": False}},
            "t": {"dtype": "datetime64[ns]", "nullable": True, "greater_than_or_equal_to": "2020-01-01 00:00:00"},
        },
        "strict": True,
    }
    found = from_pandera(json.dumps(body))
    assert [check.title for check in found.checks] == [
        "has_type(a, type=int)", "not_null(a)", "sql(a >= 0 and a < 9)", "has_type(t, type=time)",
        "time_between(t, earliest=2020-01-01T00:00:00Z)", "columns_match(a, t)",
    ]  # fmt: skip
    assert [(each.name, each.partly) for each in found.unmapped] == [("dtype(t)", True)]


def test_what_is_not_mapped_says_why(pandera_pandas: Any) -> None:
    pp = pandera_pandas
    columns = {
        "a": pp.Column("category", [pp.Check(lambda s: s > 0, name="positive"), pp.Check.str_matches(r"\bX")]),
        "b": pp.Column(float, pp.Check.gt(0, ignore_na=False), nullable=True, unique=True, default=1.0),
        "c": pp.Column(float, required=False),
        "^d.*": pp.Column(float, regex=True),
        "e": pp.Column(None, pp.Check(lambda s: s, name="in_range", groupby="b"), parsers=pp.Parser(lambda s: s)),
    }
    schema = pp.DataFrameSchema(
        columns, checks=[pp.Check(lambda d: d["b"] > 0, name="whole")], index=pp.Index(int), strict="filter",
        ordered=True, unique=["b", "c"],
    )  # fmt: skip
    found = from_pandera(schema)
    said = {each.name: (each.partly, each.reason) for each in found.unmapped}
    assert {name for name, (partly, _) in said.items() if partly} == {"unique(b)", "default(b)", "greater_than(b)"}
    reasons = {
        "index": "tables have columns only",
        "parsers(e)": "a parser changes values",
        "dtype(a)": "category is of none of bool",
        "positive(a)": "a function of its own",
        "str_matches(a)": "a backslash must stand before",
        "column c": "the column may be missing",
        "column ^d.*": "a pattern of column names",
        "in_range(e)": "a check of groups",
        "strict": "columns are not dropped",
        "ordered": "columns have no order",
        "unique(b, c)": "one of its columns may be missing",
        "whole": "a function of its own",
        "greater_than(b)": "only nulls",
    }
    for name, reason in reasons.items():
        assert reason in said[name][1], name
    assert Check.sql("b > 0") in found.checks
    assert all("c" not in check.reads for check in found.checks)


def test_a_key_is_proposed_only_where_there_is_one(pandera: Any) -> None:
    column = pandera.Column(pl.Int64, unique=True)
    assert from_pandera(pandera.DataFrameSchema({"a": column})).key == ("a",)
    assert from_pandera(pandera.DataFrameSchema({"a": column, "b": column})).key == ()


@pytest.mark.parametrize("source", [3, "{", "- 1\n- 2\n", {"schema_type": "series"}, '{"columns": {"a": 3}}'])
def test_what_is_no_schema_is_refused(source: Any) -> None:
    if source == "- 1\n- 2\n":
        pytest.importorskip("yaml", reason="needs the extra pandera")
    with pytest.raises(InputError, match=r"^Pandera schema: "):
        from_pandera(source)


EXPORTED = Table(
    "sales",
    key="id",
    columns={"id": "int", "x": "float", "n": "int", "s": "string", "t": "time", "b": "bool"},
    checks=[
        Check.not_null("x", "s"),
        Check.between("x", 20, 80),
        Check.between("n", 3, None),
        Check.in_set("s", {"EWR", "JFK", "LGA"}),
        Check.not_in_set("n", {1, 2}),
        Check.matches("s", "[A-Z]{2,3}|X.*"),
        Check.length("s", 1, 3),
        Check.time_between("t", "2020-03-01", "2022-01-01"),
        Check.sql("x > n * 4 or b"),
        Check.compare("n", "<", "x"),
        Check.required_if("s", "n > 6"),
        Check.between("x", 40, 60, where="b and n > 5"),
        Check.between("x", 45, 55, severity="low"),
    ],
)


def test_what_is_exported_fails_the_rows_that_our_checks_fail(pandera: Any) -> None:
    """A frame, our table's checks on it, and Pandera's words for them: the same rows fail each."""
    schema, unmapped = to_pandera(EXPORTED)
    assert unmapped == ()
    data = rows()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(pandera.errors.SchemaErrors) as raised:
            schema.validate(pl.from_arrow(data), lazy=True)
    theirs = [len(each.failure_cases) for each in raised.value.schema_errors]
    ours = {result.check: result.failed for result in check_source(data, EXPORTED)}
    warning = ours.pop("between(x, 45, 55)")
    assert any("in_range(45, 55)" in str(each.message) for each in warned)
    assert warning > 0
    # Of a key Pandera reports every repeat, of nulls each column apart; the rest is compared row by row.
    repeats = ours.pop("unique(id)")
    assert repeats > 0
    both = ours.pop("not_null(x, s)")
    nulls = [data.column(name).null_count for name in ("x", "s")]
    assert max(nulls) <= both <= sum(nulls)
    for failed in [*nulls, *(failed for failed in ours.values() if failed)]:
        assert failed in theirs
        theirs.remove(failed)
    assert len(theirs) == 1  # the key


def test_what_cannot_be_exported_says_why(pandera: Any) -> None:
    del pandera
    checks = {
        Check.between("x", 0, 1, tolerance=0.1): "no tolerance",
        Check.mean("x", 0, 1): "no numbers of a batch",
        Check.between("x", 0, 1, by="s"): "no groups",
        Check.stable("row_count"): "no earlier versions",
        Check.drift("x"): "no other data",
        Check.references("x", "other"): "no such check",
        Check.not_in_future("t"): "the moment of the check",
        Check.columns_match("x"): "other columns",
    }
    table = Table("t", columns={"x": "float", "t": "time", "s": "string"}, checks=list(checks))
    _, unmapped = to_pandera(table)
    assert len(unmapped) == len(checks)
    for each, reason in zip(unmapped, checks.values(), strict=True):
        assert re.search(reason, each.reason), each


def test_a_schema_survives_the_way_there_and_back(pandera: Any) -> None:
    del pandera
    checks = [Check.between("x", 0, 9), Check.in_set("s", {"a", "b"}), Check.length("s", 1, 3)]
    table = Table("t", columns={"x": "float", "s": "string"}, checks=[Check.not_null("x"), *checks])
    found = from_pandera(to_pandera(table).schema)
    assert found.columns == table.columns
    assert set(table.checks) <= set(found.checks)
