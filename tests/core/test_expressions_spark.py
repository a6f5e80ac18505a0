"""Spark agrees with the row function: what its dialect spells otherwise, on a real local session."""

from datetime import date

import pyarrow as pa
import pytest

from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import parse
from retrodict.testing.spark import local_session, spark_missing

KINDS = {
    "i": "number",
    "x": "number",
    "s": "text",
    "odd `name'": "text",
    "p": "bool",
    "t": "time",
    "u": "time",
    "d": "date",
}
TIME = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        ("i", pa.int64()),
        ("x", pa.float64()),
        ("s", pa.string()),
        ("odd `name'", pa.string()),
        ("p", pa.bool_()),
        ("t", TIME),
        ("u", TIME),
        ("d", pa.date32()),
    ]
)
SUMMER = 1_362_900_000_000_001  # beside the change to summer time in New York
ROWS = [
    dict(zip(KINDS, row, strict=True))
    for row in [
        (3, 0.5, "ab%_\\'\"é🙂", "a\n", True, SUMMER, SUMMER - 1, date(2013, 3, 10)),
        (-3, float("nan"), "a", "\\", False, SUMMER, SUMMER + 86_400_000_000, date(1969, 12, 31)),
        (0, float("-inf"), "", "%", None, None, SUMMER, None),
        (None, -0.0, None, None, True, -1, None, date(2013, 3, 9)),
    ]
]
CONDITIONS = [
    "i + 1 > x", "i / i = 1", "x / 0 is null", "-x < 1", "abs(x) >= 0.5", "x is null", "x = x", "not x > 0",
    "x < -1e300", "i * 2 - 1 <= -7", "x in (0.5, 0, null)", "i not in (3, 4)", "i between -3 and 1",
    "coalesce(x, i) = 3", "least(i) = 3", "greatest(x, i, 1) > 1",
    "case when p then x else i end > 0",
    "case when i > 0 then null end is null",
    "s like 'ab\\%%'", "s like '%\\_%'", "s like 'a'", "s like '%''%'", "s like '%é_'", "s not like '!%'",
    "s = 'ab%_\\''\"é🙂'", "length(s) = 8", "matches(s, '[ab]*')", "matches(\"odd `name'\", 'a')",
    "matches(\"odd `name'\", 'a\\n')", "matches(s, '.*[''\\\\]+.*')", "\"odd `name'\" = '\\'", "\"odd `name'\" >= s",
    "p", "not p", "p and x > 0", "p or x > 0", "p is not null",
    "t - u < 1d", "t - u = 1us", "t + 1d > u", "1d + t = u", "t >= timestamp '2013-03-10T07:00Z'", "-(t - u) > 2h",
    "t - d > 2h", "d + 1d = timestamp '2013-03-11T00:00Z'", "d < timestamp '1970-01-01T00:00Z'", "d = u - 1d or d < t",
    "t between u - 1d and u", "coalesce(t, u) = u", "case when p then 1d else 2h end > t - u",
]  # fmt: skip


def test_the_text_is_quoted_the_way_spark_reads_it():
    """Names go in backticks, a backslash and a quote in a text are escaped, durations are microseconds."""
    text = "\"odd `name'\" = 'it''s \\ \t'"
    assert parse(text).to_sql("spark", kinds=KINDS) == "(`odd ``name'` = 'it\\'s \\\\ \\u0009')"
    assert parse("t - u < 1d").to_sql("spark", kinds=KINDS) == (
        "((unix_micros(`t`) - unix_micros(`u`)) < CAST(86400000000 AS BIGINT))"
    )
    with pytest.raises(DefinitionError, match="known SQL dialect"):
        parse("i > 1").to_sql("sparc")


@pytest.mark.slow
@pytest.mark.skipif(spark_missing() is not None, reason=spark_missing() or "")
@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
def test_spark_and_the_row_function_agree():
    """Every node of the language, with nulls, NaN, infinities, quotes and a session whose zone has summer time."""
    session = local_session("America/New_York")
    try:
        rows = [{**row, "t": _instant(row["t"]), "u": _instant(row["u"])} for row in ROWS]
        frame = session.createDataFrame(_numbered(pa.Table.from_pylist(rows, schema=SCHEMA)))
        texts = [f"{parse(text).to_sql('spark', kinds=KINDS)} AS c{place}" for place, text in enumerate(CONDITIONS)]
        found = frame.selectExpr("place", *texts).toArrow().sort_by("place").drop_columns(["place"])
    finally:
        session.stop()
    for text, column in zip(CONDITIONS, found.columns, strict=True):
        assert column.to_pylist() == [parse(text).to_row()(row) for row in ROWS], text


def _numbered(table):
    return table.append_column("place", pa.array(range(table.num_rows)))


def _instant(micros):
    return None if micros is None else pa.scalar(micros, TIME).as_py()
