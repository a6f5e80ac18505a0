"""Join keys: the same text from Python and from SQL."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import DefinitionError, InputError
from retrodict.data.definitions import Table
from retrodict.outcomes.keys import join_key, join_key_sql
from retrodict.stores.sql import query

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
_PARTS = {
    "text": (_TEXT, pa.string()),
    "int": (st.integers(-(2**63), 2**63 - 1), pa.int64()),
    "bool": (st.booleans(), pa.bool_()),
    "date": (st.dates(date(1900, 1, 1), date(2200, 1, 1)), pa.date32()),
    "time": (
        st.datetimes(pd.Timestamp("1900-01-01"), pd.Timestamp("2200-01-01"), timezones=st.just(UTC)),
        pa.timestamp("us", "UTC"),
    ),
}


def _in_sql(table: Table, columns: dict[str, pa.Array]) -> list[str | None]:
    rows = pa.table(columns)
    sql = join_key_sql(table, rows.schema)
    return query(f"SELECT {sql} AS key FROM rows", rows=rows).column("key").to_pylist()


@settings(max_examples=20, deadline=None)
@given(data=st.data(), kinds=st.lists(st.sampled_from(sorted(_PARTS)), min_size=1, max_size=3))
def test_python_and_sql_write_one_key(data, kinds):
    """Every type, alone and in composites, nulls included."""
    names = [f"k{at}" for at in range(len(kinds))]
    parts = st.tuples(*(st.none() | _PARTS[kind][0] for kind in kinds))
    rows = data.draw(st.lists(parts, min_size=1, max_size=8))
    table = Table("things", key=names)
    columns = {name: pa.array([row[at] for row in rows], _PARTS[kinds[at]][1]) for at, name in enumerate(names)}
    assert _in_sql(table, columns) == [join_key(table, dict(zip(names, row, strict=True))) for row in rows]


@settings(max_examples=60, deadline=None)
@given(st.tuples(_TEXT, _TEXT), st.tuples(_TEXT, _TEXT))
def test_different_composite_keys_differ(first, second):
    """Lengths keep ("1", "23") and ("12", "3") apart."""
    table = Table("things", key=["a", "b"])
    keys = [join_key(table, {"a": a, "b": b}) for a, b in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)


def test_a_time_may_come_as_text_with_any_zone():
    """A request says 14:00 in New York, the table holds 18:00 UTC."""
    table = Table("weather", key="hour", columns={"hour": "time"})
    stored = pa.array([datetime(2013, 9, 1, 18, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    assert [join_key(table, {"hour": "2013-09-01T14:00-04:00"})] == _in_sql(table, {"hour": stored})


def test_floats_are_no_keys():
    """Neither side guesses how a float is printed."""
    table = Table("things", key="k")
    with pytest.raises(InputError, match=r"a key must be text.*got 'float'"):
        join_key(table, {"k": 1.5})
    with pytest.raises(DefinitionError, match=r"a key must be text.*got 'double'"):
        join_key_sql(table, pa.schema([("k", pa.float64())]))


def test_an_absent_key_column_is_named():
    """The message has the near name."""
    with pytest.raises(InputError, match=r"got 'flight_id'. Did you mean the column 'flightid'"):
        join_key(Table("flights", key="flight_id"), {"flightid": 1})
