"""Suites of Great Expectations: what is mapped counts the same rows as the library itself; what is not says why."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrodict import Check, Table
from retrodict.core.errors import InputError
from retrodict.data.interchange import from_great_expectations
from retrodict.data.interchange._expectations import EXPECTATIONS, UNMAPPED
from retrodict.data.validation import check_source

ROOT = Path(__file__).parents[2]

# Runs in the environment of the library: which expectations it has, and what it says of a suite on some rows.
THEIRS = """
import inspect, json, sys, warnings
warnings.filterwarnings("ignore")
import great_expectations as gx, great_expectations.expectations.core as core, pandas as pd
made = [getattr(core, name) for name in dir(core) if name.startswith("Expect") and inspect.isclass(getattr(core, name))]
context = gx.get_context(mode="ephemeral")
context.variables.progress_bars = {"globally": False, "metric_calculations": False}
batch = context.data_sources.add_pandas("p").add_dataframe_asset("a").add_batch_definition_whole_dataframe("b")
with open(sys.argv[1]) as file:
    suite = gx.ExpectationSuite(**json.load(file))
found = batch.get_batch({"dataframe": pd.read_parquet(sys.argv[2])}).validate(suite)
said = {each.expectation_config.meta["place"]: {"success": bool(each.success),
        "failed": each.result.get("unexpected_count"), "raised": "raised_exception': True" in str(each.exception_info)}
        for each in found.results}
kinds = sorted({getattr(kind, "expectation_type", "") for kind in made} - {""})
print(json.dumps({"kinds": kinds, "results": said, "suite": suite.to_json_dict()}))
"""


def library() -> str:
    """The Python that has Great Expectations: this one, or that of the second environment."""
    beside = Path(os.environ.get("RETRODICT_PEERS", ROOT / ".venv-peers")) / "bin" / "python"
    if importlib.util.find_spec("great_expectations") is not None:
        return sys.executable
    if not beside.exists():
        pytest.skip("Great Expectations is not installed; `make peers` makes an environment that has it")
    return str(beside)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the library says of the whole suite; importing it takes seconds, so once."""
    python, folder = library(), tmp_path_factory.mktemp("suite")
    pq.write_table(rows(), folder / "rows.parquet")
    entries = [{**entry, "meta": {"place": place}} for place, entry in enumerate(SUITE + VERDICTS)]
    (folder / "suite.json").write_text(json.dumps({"name": "s", "expectations": entries}))
    done = subprocess.run(
        [python, "-c", THEIRS, folder / "suite.json", folder / "rows.parquet"],
        capture_output=True, text=True, timeout=240, check=False, env={**os.environ, "GX_ANALYTICS_ENABLED": "false"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def rows(count: int = 500) -> pa.Table:
    """Values with failures of every kind planted: nulls, outliers, wrong texts, repeats, sets backwards."""
    rng = np.random.default_rng(3)
    some = rng.random(count)
    words = np.array(["EWR", "JFK", "LGA", "jfk", "X1", "EWR-2", ""], object)
    return pa.table({
        "id": np.where(some < 0.03, 7, np.arange(count)),
        "x": pa.array(rng.normal(50, 20, count).round(1), mask=rng.random(count) < 0.07),
        "y": pa.array(rng.normal(50, 20, count).round(0), mask=rng.random(count) < 0.07),
        "z": pa.array(rng.integers(0, 4, count).astype(float), mask=rng.random(count) < 0.3),
        "n": rng.integers(0, 12, count),
        "s": pa.array(words[rng.integers(0, len(words), count)], pa.string(), mask=rng.random(count) < 0.1),
        "t": pa.array(1_577_836_800_000_000 + rng.integers(0, 10**14, count), pa.timestamp("us", "UTC")),
        "up": np.arange(count) - np.where(some > 0.99, 50, 0),
        "empty": pa.array([None] * (count - 2) + [1.0, 2.0], pa.float64()),
    })  # fmt: skip


def column(kind: str, name: str, **kwargs: object) -> dict:
    return {"type": f"expect_column_{kind}", "kwargs": {"column": name, **kwargs}}


BETWEEN = "values_to_be_between"
BIG_X = {"type": "comparison", "column": {"name": "x"}, "operator": ">", "parameter": 40}
FEW = {"type": "comparison", "column": {"name": "n"}, "operator": "IN", "parameter": [1, 2, 3]}
SUITE = [
    column(BETWEEN, "x", min_value=10, max_value=90),
    column(BETWEEN, "n", min_value=2, strict_min=True, max_value=9, strict_max=True),
    column(BETWEEN, "n", max_value=9, strict_max=True),
    column(BETWEEN, "x", min_value=10, max_value=90, mostly=0.95),
    column(BETWEEN, "x", min_value=10, max_value=90, mostly=0.97),
    column(BETWEEN, "x", min_value=50, row_condition={"type": "and", "conditions": [BIG_X, FEW]}),
    column(BETWEEN, "x", min_value=50, row_condition='n > 3 and n != 7', condition_parser="pandas"),
    column(BETWEEN, "t", min_value="2020-06-01T00:00:00+00:00", max_value="2022-01-01T12:00:00+00:00"),
    column("values_to_be_in_set", "s", value_set=["EWR", "JFK", "LGA", None]),
    column("values_to_be_in_set", "n", value_set=[1, 2, 3, 4], mostly=0.3),
    column("values_to_not_be_in_set", "s", value_set=["jfk", ""]),
    column("value_lengths_to_be_between", "s", min_value=3, strict_min=False, max_value=5, strict_max=True),
    column("value_lengths_to_equal", "s", value=3),
    column("values_to_match_regex", "s", regex="^[A-Z]{3}$"),
    column("values_to_match_regex", "s", regex="W|^j|2$"),
    column("values_to_not_match_regex", "s", regex="[0-9]"),
    column("values_to_match_regex_list", "s", regex_list=["^E", "K$"], match_on="any"),
    column("values_to_match_regex_list", "s", regex_list=["^E", "R"], match_on="all"),
    column("values_to_not_match_regex_list", "s", regex_list=["^E", "K$"]),
    column("values_to_be_null", "empty", mostly=0.9),
    column("values_to_not_be_null", "x"),
    column("values_to_not_be_null", "x", mostly=0.9),
    {"type": "expect_column_pair_values_a_to_be_greater_than_b",
     "kwargs": {"column_A": "x", "column_B": "y", "or_equal": True}},
    {"type": "expect_column_pair_values_a_to_be_greater_than_b",
     "kwargs": {"column_A": "x", "column_B": "y", "ignore_row_if": "either_value_is_missing", "mostly": 0.4}},
    {"type": "expect_column_pair_values_to_be_equal", "kwargs": {"column_A": "z", "column_B": "n"}},
    {"type": "expect_column_pair_values_to_be_in_set",
     "kwargs": {"column_A": "z", "column_B": "n", "value_pairs_set": [[1, 1], [1, 2], [2, 3], [0, 4], [3, 11]]}},
    {"type": "expect_multicolumn_sum_to_equal", "kwargs": {"column_list": ["z", "n"], "sum_total": 7}},
    {"type": "expect_multicolumn_sum_to_equal",
     "kwargs": {"column_list": ["z", "n"], "sum_total": 7, "ignore_row_if": "any_value_is_missing"}},
    {"type": "expect_multicolumn_values_to_be_equal", "kwargs": {"column_list": ["z", "n", "empty"]}},
    {"type": "expect_select_column_values_to_be_unique_within_record", "kwargs": {"column_list": ["z", "n", "y"]}},
    {"type": "expect_select_column_values_to_be_unique_within_record",
     "kwargs": {"column_list": ["z", "n", "empty"], "ignore_row_if": "never"}},
]  # fmt: skip
# Only the verdict is one number's, or fails on other rows than ours.
VERDICTS = [
    column("values_to_be_unique", "id"),
    column("values_to_be_unique", "t"),
    {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["id", "t"]}},
    {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["n", "id"]}},
    column("values_to_be_increasing", "up"),
    column("values_to_be_increasing", "n", strictly=True),
    column("values_to_be_decreasing", "up"),
    column("mean_to_be_between", "x", min_value=40, max_value=60),
    column("mean_to_be_between", "x", min_value=60),
    column("median_to_be_between", "x", min_value=40, max_value=60),
    column("stdev_to_be_between", "x", min_value=10, max_value=15),
    column("sum_to_be_between", "n", min_value=0, max_value=10**6),
    column("max_to_be_between", "n", min_value=11, max_value=11),
    column("max_to_be_between", "n", min_value=11, strict_min=True),
    column("min_to_be_between", "n", max_value=0, strict_max=True),
    column("unique_value_count_to_be_between", "n", min_value=12, strict_min=True),
    column("unique_value_count_to_be_between", "z", min_value=4, max_value=4),
    column("proportion_of_unique_values_to_be_between", "n", min_value=0.02, max_value=0.03),
    column("proportion_of_non_null_values_to_be_between", "empty", min_value=0.004),
    column("quantile_values_to_be_between", "x", allow_relative_error="linear",
           quantile_ranges={"quantiles": [0.1, 0.9], "value_ranges": [[20, 30], [None, 80]]}),
    column("distinct_values_to_be_in_set", "n", value_set=list(range(12))),
    column("distinct_values_to_contain_set", "n", value_set=[1, 2]),
    column("distinct_values_to_contain_set", "n", value_set=[1, 12]),
    column("distinct_values_to_equal_set", "n", value_set=list(range(13))),
    column("to_exist", "x"),
    column("to_exist", "q"),
    column("values_to_be_of_type", "n", type_="int64"),
    column("values_to_be_in_type_list", "x", type_list=["float64", "int64"]),
    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1, "max_value": 500, "strict_max": True}},
    {"type": "expect_table_row_count_to_equal", "kwargs": {"value": 500}},
    {"type": "expect_table_columns_to_match_set", "kwargs": {"column_set": ["x", "y"], "exact_match": False}},
    {"type": "expect_table_columns_to_match_set", "kwargs": {"column_set": ["x", "y"]}},
]  # fmt: skip


def ours(suite: dict) -> tuple[bool, int]:
    """Whether all checks made of a suite pass on the same rows, and how many rows fail them."""
    found = from_great_expectations(suite)
    assert found.checks, found.unmapped
    results = check_source(rows(), Table("t", columns={"x": "float"}, checks=found.checks))
    return all(result.status == "pass" for result in results), sum(result.failed for result in results)


def one(entry: dict) -> dict:
    return {"name": "s", "expectations": [entry]}


@pytest.mark.slow  # the library takes seconds to import
def test_what_is_mapped_counts_the_rows_that_the_library_counts(theirs: dict) -> None:
    """Same data, planted failures, same suite: failing rows and verdicts are those of Great Expectations on pandas."""
    wrong = []
    for place, entry in enumerate(SUITE + VERDICTS):
        passes, failed = ours(one(entry))
        their = theirs["results"][str(place)]
        assert not their["raised"], entry
        if passes != their["success"] or (place < len(SUITE) and failed != their["failed"]):
            wrong.append(f"{entry}: ours {passes, failed}, theirs {their}")
    assert not wrong, "\n".join(wrong)
    assert {their["success"] for their in theirs["results"].values()} == {True, False}
    assert sum(their["failed"] or 0 for their in theirs["results"].values()) > 1000


@pytest.mark.slow  # the library takes seconds to import
def test_what_the_library_writes_reads_like_what_was_written_by_hand(theirs: dict) -> None:
    """Its own JSON has a severity for each and numbers made fractions."""
    by_hand = from_great_expectations({"expectations": SUITE + VERDICTS}, severity="critical")
    assert from_great_expectations(theirs["suite"]).checks == by_hand.checks


@pytest.mark.slow  # the library takes seconds to import
def test_every_expectation_of_the_library_is_mapped_or_has_a_reason(theirs: dict) -> None:
    """A new one in the library makes this fail, and not a user's import."""
    assert set(theirs["kinds"]) <= set(EXPECTATIONS) | set(UNMAPPED)
    assert not set(EXPECTATIONS) & set(UNMAPPED)


def test_the_older_format_reads_alike() -> None:
    """0.18 says expectation_type and has no severity."""
    kwargs = {"column": "x", "min_value": 1, "max_value": 2}
    old = {
        "expectation_suite_name": "s",
        "expectations": [{"expectation_type": "expect_column_values_to_be_between", "kwargs": kwargs, "meta": {}}],
    }
    assert from_great_expectations(json.dumps(old)).checks == (Check.between("x", 1, 2),)


@pytest.mark.parametrize(("word", "ours"), [("critical", "critical"), ("warning", "medium"), ("info", "low")])
def test_a_severity_becomes_ours(word: str, ours: str) -> None:
    entry = column("values_to_not_be_null", "x") | {"severity": word}
    assert from_great_expectations(one(entry)).checks[0].severity == ours


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (column("values_to_match_regex", "s", regex=r"\bEWR"), r"a backslash must stand before a sign"),
        (column("values_to_match_regex", "s", regex="(?i)ewr"), "a group must be plain"),
        (column("values_to_be_unique", "x", mostly=0.9), "with mostly, the two tools count different rows"),
        (column("values_to_be_between", "x", min_value={"$PARAMETER": "low"}), "min_value is a parameter"),
        (column("values_to_be_between", "x"), "it has no bounds"),
        (column("values_to_be_in_set", "x", value_set=[1, "a"]), "not empty and not mixed"),
        (column("values_to_be_in_set", "x", value_set=[]), "its set is empty"),
        (column("values_to_be_between", "x", min_value=1, row_condition="len(s) > 2"), "calls a function"),
        (column("values_to_be_between", "x", min_value=1, row_condition="s ? 2"), "cannot be read from character 2"),
        (column("values_to_be_of_type", "x", type_="object"), "its type names are not of one of bool"),
        (column("max_to_be_between", "t", max_value="2020-01-01"), "its bounds are no numbers"),
        (column("values_to_match_like_pattern", "s", like_pattern="a\\_b"), "escape sign"),
        (column("value_z_scores_to_be_less_than", "x", threshold=3), "distribution of the same batch"),
        ({"type": "expect_my_own_rule", "kwargs": {"column": "x"}}, "no expectation that the library brings"),
    ],
)
def test_what_is_not_mapped_says_why(entry: dict, reason: str) -> None:
    found = from_great_expectations(one(entry))
    assert not found.checks
    assert [each.partly for each in found.unmapped] == [False]
    assert reason in found.unmapped[0].reason


def test_what_means_a_little_less_is_mapped_and_noted() -> None:
    entry = {"type": "expect_table_columns_to_match_ordered_list", "kwargs": {"column_list": ["b", "a"]}}
    found = from_great_expectations(one(entry))
    assert found.checks == (Check.columns_match("b", "a"),)
    assert [(each.partly, each.reason) for each in found.unmapped] == [
        (True, "only the order of the columns: columns_match is about their names")
    ]


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ('col("n") > 3', "n > 3"),
        ('col("s") == "EWR" & col("x").notNull()', "s = 'EWR' and x is not null"),
        ("n > 3 and s in ['a', \"b\"]", "n > 3 and s in ('a', 'b')"),
        ("`odd name` != 1 or not (s == 'it\\'s')", "\"odd name\" <> 1 or not s = 'it''s'"),
        ({"type": "nullity", "column": {"name": "x"}, "is_null": False}, "x is not null"),
        (
            {"type": "comparison", "column": {"name": "t"}, "operator": ">=", "parameter": "2020-01-01"},
            "t >= timestamp '2020-01-01T00:00:00Z'",
        ),
    ],
)
def test_row_conditions_become_conditions(condition: object, text: str) -> None:
    entry = column("values_to_not_be_null", "y", row_condition=condition)
    assert from_great_expectations(one(entry)).checks[0].where == text


def test_a_share_that_may_fail_is_exact() -> None:
    """1 - 0.9 is 0.09999999999999998, and one row of ten would be too many."""
    entry = column("values_to_not_be_null", "x", mostly=0.9)
    assert from_great_expectations(one(entry)).checks[0].tolerance == 0.1


@pytest.mark.parametrize("text", ["[1, 2]", '{"expectations": 3}', "{", "/nowhere/suite.json"])
def test_what_is_no_suite_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"Great Expectations suite: a suite .* Give a suite as JSON has it"):
        from_great_expectations(text)
