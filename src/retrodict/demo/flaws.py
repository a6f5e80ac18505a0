"""The flaws of the flights data, counted by the queries of ``flaws.toml``; ``docs/flights-data.md`` explains them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources

import pyarrow as pa

from retrodict.demo.nycflights import compare_times, prepare
from retrodict.stores.sql import connect_duckdb

__all__ = ["count_flaws", "count_labels"]

_MINUTES = "CREATE MACRO minutes(first, last) AS (epoch_us(last) - epoch_us(first)) / 60000000"
_LABELS = """
    SELECT count(*) AS flights, count(arr_delay) AS evaluable, count(*) FILTER (arr_delay > $late) AS late,
           count(*) FILTER (cancelled) AS cancelled, count(*) FILTER (diverted) AS diverted,
           late / evaluable AS late_rate
    FROM flights
"""


def count_flaws(files: Mapping[str, pa.Table]) -> dict[str, int]:
    """Count every known flaw, every check that found none, and the nulls of every prepared column that has any.

    Parameters
    ----------
    files : mapping of str to pyarrow.Table
        What :func:`retrodict.demo.nycflights.read_files` returns.

    Returns
    -------
    dict of str to int
        Count by name (``table.flaw``).
    """
    counts: dict[str, int] = {}
    text = (resources.files("retrodict.demo") / "flaws.toml").read_text(encoding="utf-8")
    tables = prepare(files)
    with connect_duckdb() as engine:
        engine.execute(_MINUTES)
        for prefix, group in (("raw_", files), ("", tables), ("audit_", compare_times(files))):
            for name, table in group.items():
                engine.register(prefix + name, table)
        for name, queries in tomllib.loads(text).items():
            for flaw, query in queries.items():
                counts[f"{name}.{flaw}"] = engine.sql("SELECT count(*) " + query).fetchall()[0][0]
            nulls = {column: tables[name][column].null_count for column in tables[name].column_names}
            counts |= {f"{name}.{column}.null": count for column, count in nulls.items() if count}
    return counts


def count_labels(flights: pa.Table, *, late_after: int = 15) -> dict[str, float]:
    """How many flights carry a label, how many are late, and what another rule for the others would say.

    Parameters
    ----------
    flights : pyarrow.Table
        What :func:`retrodict.demo.nycflights.prepare_flights` returns.
    late_after : int, default 15
        Minutes; late means ``arr_delay > late_after``.

    Returns
    -------
    dict of str to float
        ``flights``, ``evaluable``, ``late``, ``cancelled``, ``diverted`` (counts); ``late_rate`` (of the evaluable
        ones), ``late_rate_if_cancelled_late``, ``late_rate_if_cancelled_or_diverted_late``,
        ``late_rate_if_neither_late`` (of all flights). A flight without an arrival delay has a null label.
    """
    with connect_duckdb() as engine:
        engine.register("flights", flights)
        counts: dict[str, float] = engine.sql(_LABELS, params={"late": late_after}).to_arrow_table().to_pylist()[0]
    late, total, cancelled = counts["late"], counts["flights"], counts["cancelled"]
    return counts | {
        "late_rate_if_cancelled_late": (late + cancelled) / (counts["evaluable"] + cancelled),
        "late_rate_if_cancelled_or_diverted_late": (late + cancelled + counts["diverted"]) / total,
        "late_rate_if_neither_late": late / total,
    }
