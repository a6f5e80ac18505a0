"""The few words that Spark SQL and DuckDB spell apart, so that one generator writes for both.

The DuckDB twin exists to prove the compiled text: it runs in milliseconds and wherever the tests run. A translation
library was rejected: what is written here is a dozen words, and each is tried on the engine it is meant for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["DUCKDB", "SPARK", "Dialect"]


@dataclass(frozen=True)
class Dialect:
    """How one engine spells what the generator needs.

    Attributes
    ----------
    name : str
        What :meth:`~retrodict.core.expressions.Expression.to_sql` calls it.
    quote : callable
        Name of a column or relation to its quoted form.
    micros, days : callable
        Timestamp to microseconds, date to days, since 1970-01-01 UTC.
    struct : callable
        Names and expressions to one value, compared field by field.
    distinct : callable
        Expression to the aggregate that lists its different values, without null.
    newest : callable
        Value and order to the aggregate that gives the value where the order is greatest.
    """

    name: str
    quote: Callable[[str], str]
    micros: Callable[[str], str]
    days: Callable[[str], str]
    struct: Callable[[Mapping[str, str]], str]
    distinct: Callable[[str], str]
    newest: Callable[[str, str], str]


SPARK = Dialect(
    name="spark",
    quote=lambda name: "`" + name.replace("`", "``") + "`",
    micros=lambda sql: f"unix_micros({sql})",
    days=lambda sql: f"CAST(unix_date({sql}) AS BIGINT)",
    struct=lambda parts: "named_struct(" + ", ".join(f"'{name}', {sql}" for name, sql in parts.items()) + ")",
    distinct=lambda sql: f"collect_set({sql})",
    newest=lambda value, order: f"max_by({value}, {order})",
)

DUCKDB = Dialect(
    name="duckdb",
    quote=lambda name: '"' + name.replace('"', '""') + '"',
    micros=lambda sql: f"epoch_us({sql})",
    days=lambda sql: f"CAST({sql} - DATE '1970-01-01' AS BIGINT)",
    struct=lambda parts: "struct_pack(" + ", ".join(f"{name} := {sql}" for name, sql in parts.items()) + ")",
    distinct=lambda sql: f"list(DISTINCT {sql}) FILTER (WHERE {sql} IS NOT NULL)",
    newest=lambda value, order: f"max_by({value}, {order})",
)
