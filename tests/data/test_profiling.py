"""Profiles: every number against an oracle that shares no code with it, and no value of a person on any page."""

from __future__ import annotations

import json
import math
from collections import Counter
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from retrodict.core.errors import InputError
from retrodict.data.profiling import Profile, findings, profile, profile_html
from retrodict.data.profiling._texts import count_shapes, personal
from retrodict.data.readers import read_batch

FLOATS = st.one_of(st.none(), st.floats(-1e9, 1e9), st.sampled_from([0.0, 1.0, -999.0, math.nan, math.inf, -math.inf]))
WORDS = st.one_of(st.none(), st.sampled_from(["JFK", "jfk", " JFK", "EWR", "", "n/a"]), st.text(max_size=6))
TABLES = st.integers(0, 60).flatmap(
    lambda n: st.fixed_dictionaries({
        "x": st.lists(FLOATS, min_size=n, max_size=n),
        "word": st.lists(WORDS, min_size=n, max_size=n),
        "whole": st.lists(st.one_of(st.none(), st.integers(-50, 50)), min_size=n, max_size=n),
        "yes": st.lists(st.one_of(st.none(), st.booleans()), min_size=n, max_size=n),
    })
)  # fmt: skip
SCHEMA = pa.schema({"x": pa.float64(), "word": pa.string(), "whole": pa.int64(), "yes": pa.bool_()})
T0 = 1_600_000_000_000_000


def table_of(columns: dict[str, list[Any]]) -> pa.Table:
    return pa.table(columns, schema=SCHEMA)


def times(values: list[int | None]) -> pa.Array:
    return pa.array([None if v is None else T0 + v for v in values], pa.timestamp("us", "UTC"))


@settings(max_examples=40, deadline=None)
@given(TABLES)
def test_numbers_are_those_of_numpy_and_scipy(columns: dict[str, list[Any]]) -> None:
    """Counts, extremes, moments and quantiles of a column of fractions."""
    found = profile(table_of(columns))["x"]
    given_ = columns["x"]
    finite = np.array([v for v in given_ if v is not None and math.isfinite(v)])
    assert found.nulls == sum(v is None for v in given_)
    assert found.nans == sum(v is not None and math.isnan(v) for v in given_)
    assert found.infinities == sum(v is not None and math.isinf(v) for v in given_)
    assert found.distinct == len({v for v in given_ if v is not None and not math.isnan(v)})
    if not finite.size:
        assert found.mean is None
        return
    assert (found.minimum, found.maximum) == (finite.min(), finite.max())
    assert found.mean == pytest.approx(math.fsum(finite) / finite.size, rel=1e-12, abs=1e-9)
    assert found.zeros == sum(finite == 0)
    assert found.negatives == sum(finite < 0)
    assert found.quantiles is not None
    for share, value in found.quantiles.items():
        assert value == pytest.approx(np.quantile(finite, float(share)), rel=1e-12, abs=1e-9)
    if finite.size > 2 and np.ptp(finite) > 1e-3 * max(1.0, np.abs(finite).max()):
        assert found.std == pytest.approx(np.std(finite, ddof=1), rel=1e-9)
        assert found.skew == pytest.approx(stats.skew(finite), rel=1e-6, abs=1e-6)
        assert found.kurtosis == pytest.approx(stats.kurtosis(finite), rel=1e-6, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(TABLES)
def test_texts_and_missing_patterns_are_counted(columns: dict[str, list[Any]]) -> None:
    """Distinct values, lengths, repeated rows and missing patterns, against plain Python."""
    found = profile(table_of(columns))
    words = [word for word in columns["word"] if word is not None]
    assert found["word"].distinct == len(set(words))
    assert found["whole"].distinct == len({v for v in columns["whole"] if v is not None})
    if words:
        lengths = found["word"].lengths
        assert lengths is not None
        assert (lengths.shortest, lengths.longest, lengths.empty) == (
            min(map(len, words)), max(map(len, words)), words.count(""))  # fmt: skip
    rows = list(zip(*(columns[name] for name in SCHEMA.names), strict=True))
    plain = [tuple("nan" if isinstance(v, float) and math.isnan(v) else v for v in row) for row in rows]
    assert found.duplicated == len(plain) - len(set(plain))
    patterns = Counter(
        tuple(name for name, v in zip(SCHEMA.names, row, strict=True) if v is None or (v == "nan" and name == "x"))
        for row in plain
    )  # fmt: skip
    expected = dict(patterns) if any(patterns.keys()) else {}
    assert dict(found.missing.patterns) == expected


@settings(max_examples=30, deadline=None)
@given(TABLES, st.integers(1, 20))
def test_blocks_change_nothing(columns: dict[str, list[Any]], size: int) -> None:
    """The same rows in many chunks and in one have the same profile, and its JSON form reads back as it."""
    rows = table_of(columns)
    whole = profile(rows).to_dict()
    parts = [rows.slice(start, size) for start in range(0, rows.num_rows, size)] or [rows]
    chunked = profile(pa.concat_tables(parts)).to_dict()
    for body in (whole, chunked):
        for column in body["columns"]:
            for name in ("mean", "std", "skew", "kurtosis"):  # merged sums agree to twelve digits
                column[name] = None if column[name] is None else pytest.approx(column[name], rel=1e-9, abs=1e-9)
    assert chunked == whole or whole == chunked
    once = profile(rows)
    assert Profile.from_dict(json.loads(json.dumps(once.to_dict(), allow_nan=False))) == once


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.integers(-1000, 1000), st.sampled_from([10**6, -(10**6)])), min_size=2, max_size=200))
def test_every_value_is_in_one_bin(values: list[int]) -> None:
    """Bins and what is outside add up, and each bin holds what lies between its edges."""
    for array in (pa.array(values), pa.array([float(v) for v in values])):
        histogram = profile(pa.table({"x": array}))["x"].histogram
        if histogram is None:
            assert len(set(values)) == 1
            continue
        assert sum(histogram.counts) + histogram.below + histogram.above == len(values)
        edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
        expected = [sum(low <= v < high for v in values) for low, high in pairwise(edges)]
        expected[-1] += sum(v == histogram.high for v in values)
        assert list(histogram.counts) == expected


def test_correlations_are_those_of_scipy() -> None:
    """Pearson and Spearman where both values are known, and Cramér's V by the textbook."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=400)
    y = np.where(rng.random(400) < 0.1, np.nan, np.exp(x) + rng.normal(size=400))
    a = rng.integers(0, 4, 400)
    b = np.where(rng.random(400) < 0.6, a, rng.integers(0, 4, 400))
    letters = np.array(list("ABCD"))
    found = profile(pa.table({"x": x, "y": y, "a": letters[a], "b": letters[b]})).correlations
    both = ~np.isnan(y)
    assert found.pearson[0][1] == pytest.approx(stats.pearsonr(x[both], y[both]).statistic)
    assert found.spearman[0][1] == pytest.approx(stats.spearmanr(x[both], y[both]).statistic)
    chi = stats.contingency.crosstab(a, b).count
    phi = stats.chi2_contingency(chi, correction=False).statistic / 400
    corrected = max(0.0, phi - 9 / 399)
    assert found.cramer[0][1] == pytest.approx(math.sqrt(corrected / (4 - 9 / 399 - 1)))
    assert (found.rows, found.numbers, found.categories) == (400, ("x", "y"), ("a", "b"))


def test_many_values_are_sketched_within_their_bounds() -> None:
    """Beyond exact sizes, quantiles keep their proven rank error and distinct counts are near."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=400_000)
    found = profile(pa.table({"x": values, "k": np.arange(400_000)}))
    column = found["x"]
    assert not column.distinct_exact
    assert column.distinct == pytest.approx(400_000, rel=0.04)
    assert column.quantiles is not None
    assert 0 < column.quantile_error < 4_000
    ordered = np.sort(values)
    for share, value in column.quantiles.items():
        assert abs(np.searchsorted(ordered, value) - float(share) * 400_000) <= column.quantile_error + 1
    assert found.keys == (("k",),)
    assert found["k"].order == "strictly increasing"
    assert found.correlations.rows == 50_000


def test_the_sample_is_drawn_with_its_seed() -> None:
    """One seed, one answer; the number of rows is stated."""
    rng = np.random.default_rng(0)
    rows = pa.table({"x": rng.normal(size=5000), "y": rng.normal(size=5000)})
    one, same, other = (profile(rows, sample=300, seed=seed).correlations for seed in (1, 1, 2))
    assert one == same
    assert one.pearson != other.pearson
    assert one.rows == 300


def test_types_are_read_from_text_files(tmp_path: Path) -> None:
    """A CSV column is what all its values read as; a postcode and the thirtieth of February stay text."""
    path = tmp_path / "trips.csv"
    path.write_text(
        "id,zip,day,odd,at,share,ok\n1,01234,2024-01-31,2024-02-30,2024-01-01T00:00Z,0.5,true\n"
        "2,99999,2024-02-01,2024-03-01,2024-01-01T00:00:01+01:00,,false\n"
    )
    found = profile(path)
    assert {c.name: c.type for c in found.columns} == {
        "id": "int", "zip": "string", "day": "date", "odd": "string", "at": "time", "share": "float", "ok": "bool",
    }  # fmt: skip
    assert found["at"].minimum == "2023-12-31T23:00:01Z"
    assert found["day"].maximum == "2024-02-01"
    assert "zip" not in found.inferred
    assert found.name == "trips"


def test_files_frames_and_batches_are_profiled_alike(tmp_path: Path) -> None:
    """Parquet, a batch and a table of the same rows."""
    rows = pa.table({"id": [1, 2, 3], "x": [0.5, None, 2.0]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    expected = profile(rows).columns
    assert profile(tmp_path / "rows.parquet").columns == expected
    assert profile(read_batch(rows)).columns == expected


def test_nothing_and_nulls_have_a_profile() -> None:
    """No row, no column of a usable type, and a column without values."""
    empty = profile(pa.table({"x": pa.array([], pa.float64()), "w": pa.array([], pa.string())}))
    assert (empty.rows, empty.duplicated, empty.keys) == (0, 0, ())
    assert [f.kind for f in findings(empty)] == ["empty"]
    odd = profile(pa.table({"void": pa.nulls(3), "list": [[1], None, [2]], "x": pa.array([None] * 3, pa.float64())}))
    assert odd["list"].nulls == 1
    assert odd["x"].known == 0
    assert odd.duplicated is None
    assert profile_html(odd)


def test_keys_of_two_columns_are_checked_on_all_rows() -> None:
    """A pair that never repeats is found where no single column does; one that repeats once is not."""
    hours = times([h * 3_600_000_000 for h in range(50)] * 2)
    rows = pa.table({"origin": ["JFK"] * 50 + ["EWR"] * 50, "hour": hours, "x": [1] * 100})
    assert profile(rows).keys == (("origin", "hour"),)
    assert profile(pa.concat_tables([rows, rows.slice(0, 1)])).keys == ()


def test_orders_of_times_are_counted() -> None:
    """Before, equal and after, where both are known."""
    rows = pa.table({"a": times([1, 2, 3, None, 1]), "b": times([2, 2, 1, 5, 9])})
    [order] = profile(rows).orders
    assert (order.before, order.equal, order.after) == (2, 1, 1)


def test_no_value_of_a_person_is_shown() -> None:
    """Addresses, names, telephone numbers, long texts and identifiers leave no trace on the page or in the JSON."""
    n = 200
    secret = {
        "contact": [f"secret{i % 7}@example.org" for i in range(n)],
        "last_name": ["Secretperson"] * n,
        "reach": [f"+49 30 {1234567 + i % 3}" for i in range(n)],
        "remark": ["the secret patient said that it hurts on the left side"] * n,
        "code": [f"SECRET{i}" for i in range(n)],
    }
    found = profile(pa.table(secret))
    assert all(column.hidden for column in found.columns)
    for text in (json.dumps(found.to_dict()), profile_html(found), str(findings(found))):
        for part in ("secret", "Secretperson", "1234567", "hurts"):
            assert part not in text
        assert "SECRET" not in text.replace("values not shown", "")


def test_a_text_that_occurs_once_is_not_shown_among_many() -> None:
    """Rare texts of a column with many values may be somebody's."""
    found = profile(pa.table({"town": [f"town{i}" for i in range(30)] * 3 + ["hidden place"]}))["town"]
    assert found.top
    assert all(each.value != "hidden place" for each in found.top)


def test_shapes_are_classes_of_characters() -> None:
    """Letters, digits and others; runs of long texts are folded."""
    import polars as pl

    texts = pl.Series(["AB12", "XY99", "ab-1", "É1", "Δδ", "漢字", "abcdefghijklmnopqrst"])
    assert dict(count_shapes(texts)) == {"AA99": 2, "aa-9": 1, "A9": 1, "Aa": 1, "xx": 1, "a+": 1}
    assert personal("weekday", texts, distinct_share=0.1, distinct=3) is None
    assert personal("e_mail", texts, distinct_share=0.1, distinct=3) == "named like personal data"


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("constant", {"a": ["x"] * 5}),
        ("all_missing", {"a": pa.array([None] * 5, pa.float64())}),
        ("mostly_missing", {"a": pa.array([None] * 4 + [1.0])}),
        ("correlated", {"a": list(range(50)), "b": [2.0 * i + (i % 2) for i in range(50)]}),
        ("skewed", {"a": [1.0] * 50 + [1000.0]}),
        ("high_cardinality", {"a": [f"v{i % 1100}" for i in range(2200)]}),
        ("sentinel", {"a": [*range(50), -999]}),
        ("sentinel", {"a": pa.array([-2_208_988_800_000_000, T0, T0], pa.timestamp("us", "UTC"))}),
        ("sentinel", {"a": ["x", "y", "N/A"] * 3}),
        ("case_variants", {"a": ["Economy", "economy", "first"] * 2}),
        ("padded", {"a": ["x ", "y"]}),
        ("infinite", {"a": [1.0, math.inf]}),
        ("duplicated", {"a": [1, 1, 2]}),
        ("zoneless", {"a": pa.array([1, 2], pa.timestamp("us"))}),
        ("order", {"a": times([1] * 4999 + [9]), "b": times([5] * 5000)}),
    ],
)
def test_what_deserves_a_look_is_found(kind: str, columns: dict[str, Any]) -> None:
    """Each kind of finding on a table that has it."""
    assert kind in {found.kind for found in findings(profile(pa.table(columns)))}


def test_a_plain_table_has_no_warning() -> None:
    """Nothing is cried out over good data."""
    rng = np.random.default_rng(1)
    rows = pa.table({"id": range(300), "x": rng.normal(size=300), "origin": rng.choice(["JFK", "EWR"], 300)})
    assert [found for found in findings(profile(rows)) if found.level == "warning"] == []


class _Checker(HTMLParser):
    """Fails on tags that do not close, on scripts, and on anything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe", "object")
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onclick"}
        if tag not in ("meta", "line", "rect", "circle", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        return None

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_escapes_everything() -> None:
    """Names and values that look like HTML stay text, tags are balanced, nothing is fetched, dark mode is there."""
    evil = "<script>alert('1')</script>\"&"
    rows = pa.table({
        evil: [evil, "b"] * 30, "x": pa.array([None, *range(59)], pa.float64()), "t": times(list(range(60))),
        "y": [1.5, None] * 30,
    })  # fmt: skip
    text = profile_html(profile(rows, name=evil))
    checker = _Checker()
    checker.feed(text)
    assert checker.open == []
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in text
    for word in ("To look at", "Columns", "What goes together", "Where values are missing"):
        assert word in text


def test_sizes_must_be_positive() -> None:
    """The message says what is shown and sampled."""
    with pytest.raises(InputError, match="a profile must show and sample at least one"):
        profile(pa.table({"a": [1]}), sample=0)


def test_pairs_of_columns_are_symmetric() -> None:
    """A correlation matrix has ones on its diagonal and is its own mirror."""
    rng = np.random.default_rng(2)
    found = profile(pa.table({name: rng.normal(size=50) for name in "abc"})).correlations
    for matrix in (found.pearson, found.spearman):
        assert all(matrix[i][i] == 1.0 for i in range(3))
        assert all(matrix[i][j] == matrix[j][i] for i, j in combinations(range(3), 2))
