"""Other tools on the same file and the same 40 checks, each as its documentation says; they live in .venv-peers."""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import world

warnings.filterwarnings("ignore")
os.environ["GX_ANALYTICS_ENABLED"] = "false"


def versions() -> dict[str, str]:
    """What is compared with."""
    from importlib.metadata import version

    names = ("pandera", "pointblank", "great_expectations", "polars", "pandas", "pyarrow")
    return {name: version(name) for name in names}


# -- Pandera on Polars -------------------------------------------------------------------------------------------------


def _pandera_schema() -> Any:
    import pandera.polars as pa
    import polars as pl

    def above(low: float) -> Any:
        return pa.Check(lambda data: data.lazyframe.select(pl.col(data.key).mean() >= low), name="mean")

    def below(high: float) -> Any:
        return pa.Check(lambda data: data.lazyframe.select(pl.col(data.key).std() <= high), name="std")

    checks: dict[str, list[Any]] = {name: [pa.Check.in_range(low, high)] for name, (low, high) in world.RANGES.items()}
    for name in world.WORDS:
        checks[name] = [pa.Check.isin(world.ALLOWED)]
    for name, low in world.MEAN_AT_LEAST.items():
        checks[name].append(above(low))
    for name, high in world.STD_AT_MOST.items():
        checks[name].append(below(high))

    def ordered(a: str, b: str) -> Any:
        return pa.Check(lambda data: data.lazyframe.select((pl.col(a) <= pl.col(b)).fill_null(value=True)),
                        name=f"compare {a} {b}")  # fmt: skip

    columns = {name: pa.Column(None, found, nullable=name in world.WORDS) for name, found in checks.items()}
    return pa.DataFrameSchema(columns, checks=[ordered(a, b) for a, b in world.PAIRS])


def _pandera_counts(schema: Any, frame: Any) -> dict[str, int]:
    from pandera.errors import SchemaErrors

    words = {"not_nullable": "not_null", "in_range": "between", "isin": "in_set"}
    found = dict.fromkeys(world.labels(), 0)
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as error:
        for each in error.schema_errors:
            name = str(getattr(each.check, "name", None) or each.check)
            label = name if name.startswith("compare") else f"{words.get(name, name)} {each.schema.name}"
            found[label] = len(each.failure_cases)
    return found


def pandera(path: str) -> dict[str, int]:
    """The whole file as a frame, then the schema, every failure collected."""
    import polars as pl

    return _pandera_counts(_pandera_schema(), pl.read_parquet(path))


def _median_us(call: Callable[[], int], calls: int) -> dict[str, Any]:
    call()
    taken = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        failing = call()
        taken.append(time.perf_counter_ns() - start)
    return {"us": statistics.median(taken) / 1000, "failing": failing}


def pandera_row(calls: int) -> dict[str, Any]:
    """A frame of one row; standard deviations of one row are none of its business."""
    import polars as pl

    schema = _pandera_schema()
    return _median_us(lambda: sum(map(bool, _pandera_counts(schema, pl.DataFrame([world.ROW])).values())), calls)


# -- Pointblank on Polars ----------------------------------------------------------------------------------------------


def pointblank(path: str) -> dict[str, int]:
    """The whole file as a frame, then one interrogation."""
    import pointblank as pb
    import polars as pl

    plan = pb.Validate(data=pl.read_parquet(path))
    for name in world.RANGES:
        plan = plan.col_vals_not_null(name)
    for name, (low, high) in world.RANGES.items():
        plan = plan.col_vals_between(name, low, high, na_pass=True)
    for name in world.WORDS:
        plan = plan.col_vals_in_set(name, world.ALLOWED)
    for a, b in world.PAIRS:
        plan = plan.col_vals_le(a, pb.col(b), na_pass=True)
    for name, low in world.MEAN_AT_LEAST.items():
        plan = plan.col_avg_ge(name, low)
    for name, high in world.STD_AT_MOST.items():
        plan = plan.col_sd_le(name, high)
    done = plan.interrogate(collect_extracts=False, collect_tbl_checked=False)
    failed = done.n_failed()
    return {label: int(failed[place + 1]) for place, label in enumerate(world.labels())}


# -- Great Expectations on pandas --------------------------------------------------------------------------------------


def _expectations() -> Any:
    import great_expectations as gx
    import great_expectations.expectations as gxe

    made: list[Any] = [gxe.ExpectColumnValuesToNotBeNull(column=name) for name in world.RANGES]
    made += [
        gxe.ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high)
        for name, (low, high) in world.RANGES.items()
    ]
    made += [gxe.ExpectColumnValuesToBeInSet(column=name, value_set=world.ALLOWED) for name in world.WORDS]
    made += [
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A=b, column_B=a, or_equal=True, ignore_row_if="either_value_is_missing"
        )
        for a, b in world.PAIRS
    ]
    made += [gxe.ExpectColumnMeanToBeBetween(column=c, min_value=low) for c, low in world.MEAN_AT_LEAST.items()]
    made += [gxe.ExpectColumnStdevToBeBetween(column=c, max_value=high) for c, high in world.STD_AT_MOST.items()]
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas("p").add_dataframe_asset("a")
    for place, each in enumerate(made):
        each.meta = {"place": place}
    return asset.add_batch_definition_whole_dataframe("b"), gx.ExpectationSuite(name="s", expectations=made)


def _gx_counts(batches: Any, suite: Any, frame: Any) -> dict[str, int]:
    found = batches.get_batch({"dataframe": frame}).validate(suite, result_format="BASIC")
    by_place = {each.expectation_config.meta["place"]: each.result.get("unexpected_count") for each in found.results}
    return {label: int(by_place[place]) for place, label in enumerate(world.labels())}


def great_expectations(path: str) -> dict[str, int]:
    """The whole file as a pandas frame, then the suite."""
    import pandas as pd

    return _gx_counts(*_expectations(), pd.read_parquet(path))


def great_expectations_row(calls: int) -> dict[str, Any]:
    """A frame of one row."""
    import pandas as pd

    batches, suite = _expectations()
    return _median_us(lambda: sum(map(bool, _gx_counts(batches, suite, pd.DataFrame([world.ROW])).values())), calls)
