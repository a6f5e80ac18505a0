"""Validation against a naive oracle in plain Python: one row at a time, no SQL, no Arrow."""

# ruff: noqa: DTZ001  # naive datetimes are what local times are

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retrodict.core.errors import DefinitionError, InputError
from retrodict.data.context import Context
from retrodict.data.definitions import Check, Table
from retrodict.data.validation import validate

# the oracle ---------------------------------------------------------------------------------------------------


def is_null(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def fails(check: Check, rows: list[dict[str, Any]], at: int) -> bool:
    """Whether a row fails a check, by its words."""
    values = [rows[at][name] for name in check.columns]
    if check.rule == "not_null":
        return any(map(is_null, values))
    if any(map(is_null, values)):
        return False  # unknown passes
    if check.rule == "in_set":
        return values[0] not in check.option("values")
    if check.rule == "between":
        low, high = check.option("low"), check.option("high")
        return (low is not None and values[0] < low) or (high is not None and values[0] > high)
    if check.rule == "unique":
        return any([rows[i][name] for name in check.columns] == values for i in range(at))
    return not values[0] < values[1]  # the only expression used below: a < b


class Around(Context):
    """A batch with other tables around it."""

    def __init__(self, tables: dict[str, pa.Table]) -> None:
        super().__init__(now=0)
        self._tables = tables

    def table(self, ref: str) -> ds.Dataset | None:  # type: ignore[override]
        return ds.dataset(self._tables[ref]) if ref in self._tables else None


NUMBERS = st.sampled_from([None, -1, 0, 1, 2, 3]) | st.integers(-5, 5)
FLOATS = st.sampled_from([None, math.nan, 0.5, 1.0, 2.0, math.inf, -math.inf]) | st.floats(-5, 5)
TEXTS = st.sampled_from([None, "", "a", "b", "it's", "é"])
ROWS = st.lists(
    st.fixed_dictionaries(
        {"id": NUMBERS, "a": NUMBERS, "b": FLOATS, "c": TEXTS, "d": st.sampled_from([None, True, False])}
    ),
    min_size=1,
    max_size=30,
)
SEVERITIES = st.sampled_from(["critical", "high", "medium", "low"])
CHECKS = st.one_of(
    st.builds(
        lambda c, s: Check.not_null(*c, severity=s),
        st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True),
        SEVERITIES,
    ),
    st.builds(
        lambda v, s, t: Check.in_set("c", v, severity=s, tolerance=t),
        st.sets(st.sampled_from(["", "a", "b", "it's"]), min_size=1),
        SEVERITIES,
        st.sampled_from([0.0, 0.29, 0.5]),
    ),
    st.builds(lambda v, s: Check.in_set("a", v, severity=s), st.sets(st.integers(-2, 3), min_size=1), SEVERITIES),
    st.builds(
        lambda v, s: Check.in_set("b", v, severity=s), st.sets(st.sampled_from([0.5, 1, 2.0]), min_size=1), SEVERITIES
    ),
    st.builds(lambda s: Check.in_set("d", [True], severity=s), SEVERITIES),
    st.builds(
        lambda c, low, w, s: Check.between(c, low, None if w is None else low + w, severity=s),
        st.sampled_from("ab"),
        st.sampled_from([-2, 0, 0.5]),
        st.sampled_from([None, 0, 1.5, 3]),
        SEVERITIES,
    ),
    st.builds(
        lambda c, s: Check.unique(*c, severity=s),
        st.lists(st.sampled_from(["id", "a", "b", "c"]), min_size=1, max_size=2, unique=True),
        SEVERITIES,
    ),
    st.builds(lambda s: Check.sql("a < b", severity=s), SEVERITIES),
)
SCHEMA = pa.schema([("id", pa.int64()), ("a", pa.int32()), ("b", pa.float64()), ("c", pa.string()), ("d", pa.bool_())])


@settings(max_examples=50, deadline=None)
@given(ROWS, st.lists(CHECKS, max_size=4), st.sets(st.integers(-5, 5), max_size=3))
@example(
    [{"id": None, "a": 1, "b": math.nan, "c": "", "d": None}], [Check.between("b", 0, None), Check.not_null("b")], set()
)
@example([{"id": 1, "a": 1, "b": 1.0, "c": "a", "d": True}] * 2, [Check.unique("id", severity="low")], {1})
def test_every_row_is_where_the_oracle_puts_it(
    rows: list[dict[str, Any]], checks: list[Check], known: set[int]
) -> None:
    """Nulls, NaN, infinities, ties, keys that were there before: accepted or quarantined, with the same reasons."""
    table = Table("t", key="id", checks=checks)
    around = Around({"t": pa.table({"id": pa.array(sorted(known), pa.int64())})})
    found = validate(pa.Table.from_pylist(rows, SCHEMA), table, context=around, known_keys="t")

    all_checks = [Check.not_null("id"), Check.unique("id"), *checks]
    reasons = [
        {c.title for c in all_checks if c.severity != "low" and fails(c, rows, i)}
        | ({"new_key(id)"} if row["id"] in known else set())
        for i, row in enumerate(rows)
    ]
    aside = [i for i, why in enumerate(reasons) if why]
    assert found.quarantined.column("row").to_pylist() == aside
    said = [{title.partition(" #")[0] for title in titles} for titles in found.quarantined.column("checks").to_pylist()]
    assert said == [reasons[i] for i in aside]
    stay = [i for i in range(len(rows)) if i not in aside]
    assert repr(found.accepted.to_pylist()) == repr(
        [{**{c: rows[i][c] for c in SCHEMA.names}, "_row": i} for i in stay]
    )
    for result in found.results:
        check = next((c for c in all_checks if c.title == result.check), None)
        if check is not None and check.title not in [c.title for c in all_checks if c is not check]:
            failed = sum(fails(check, rows, i) for i in range(len(rows)))
            assert (result.failed, result.rows) == (failed, len(rows))
            # Where no row has a value to judge a check is not evaluable, which a grave one takes for a failure.
            unknown = check.rule in ("in_set", "between") and all(row[check.columns[0]] is None for row in rows)
            beyond = failed * 100 > round(check.tolerance * 100) * len(rows)
            halts = check.severity in ("critical", "high") and (beyond or unknown)
            assert (result.status == "not_evaluable") is unknown
            assert result.halted is halts
    assert [json.loads(text) for text in found.quarantined.column("original").to_pylist()] == [
        as_json(rows[i]) for i in aside
    ]


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


# types --------------------------------------------------------------------------------------------------------

TEXT_VALUES = st.sampled_from(
    [
        "",
        " ",
        "0",
        "1",
        "-1",
        "+5",
        " 7 ",
        "1.0",
        "1.",
        ".5",
        "1.5",
        "1e3",
        "1E-2",
        "1_000",
        "0x1F",
        "1,5",
        "nan",
        "inf",
        "-Infinity",
        "1e400",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "true",
        "F",
        "yes",
        "on",
        "2",
        "NULL",
        "é",
        "2013-01-05",
        "2013-02-30",
        "2013-1-5",
        "2013-01-05 10:00",
        "2013-01-05T10:00:00Z",
        "2013-01-05T10:00:00.123456Z",
        "2013-01-05T10:00:00.1234567Z",
        "2013-01-05 10:00-04",
        "2013-01-05T10:00:00+0530",
        "2013-01-05T10:00:00+05:30",
        "2013-01-05-05",
        "2013-01-05T25:00Z",
        "10:00Z",
        "2013-01-05T10:00:00.500",
        "infinity",
        "20130105T100000Z",
    ]
)
SKIPPED = object()
BOOLS = dict.fromkeys(["true", "t", "yes", "y", "1"], True) | dict.fromkeys(["false", "f", "no", "n", "0"], False)


def typed(text: str | None, word: str) -> Any:
    """Value of a text in a type: None for blank, SKIPPED for "it does not fit"."""
    if text is None or not text.strip():
        return text if word == "string" else None
    if word == "string":
        return text
    text = text.strip(" ")
    if word == "bool":
        return BOOLS.get(text.lower(), SKIPPED)
    if word == "int":
        match = re.fullmatch(r"([+-]?\d+)(\.0*)?", text)
        return int(match[1]) if match and -(2**63) <= int(match[1]) < 2**63 else SKIPPED
    if word == "float":
        if "_" in text or "x" in text:
            return SKIPPED
        try:
            value = float(text)
        except ValueError:
            return SKIPPED
        return SKIPPED if math.isinf(value) and "inf" not in text.lower() else value
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)(Z|[+-]\d\d(?::?\d\d)?)?)?", text)
    if not match or (word == "date" and match[2]) or (word == "time") is not bool(match[3]):
        return SKIPPED
    try:
        if word == "date":
            return date.fromisoformat(match[1])
        moment = datetime.fromisoformat(f"{match[1]}T{match[2] or '00:00'}")
    except ValueError:
        return SKIPPED
    if word == "time":
        sign, hours, minutes = match[3][0], match[3][1:3] or "0", match[3][-2:] if len(match[3]) > 3 else "0"
        shift = timedelta() if sign == "Z" else timedelta(hours=int(hours), minutes=int(minutes))
        return (moment - (-shift if sign == "-" else shift)).replace(tzinfo=UTC)
    return moment.replace(tzinfo=ZoneInfo("America/New_York"), fold=1).astimezone(UTC)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.none() | TEXT_VALUES, min_size=1, max_size=30))
@pytest.mark.parametrize("word", ["bool", "date", "float", "int", "string", "time", "time(America/New_York)"])
def test_text_becomes_the_declared_type_or_is_set_aside(word: str, texts: list[str | None]) -> None:
    """As the field reads it: nothing is rounded, cut or given a zone it does not have."""
    ids = list(range(len(texts)))
    found = validate(
        pa.table({"id": ids, "x": pa.array(texts, pa.string())}), Table("t", key="id", columns={"x": word})
    )
    wanted = [typed(text, word) for text in texts]
    assert found.quarantined.column("row").to_pylist() == [i for i in ids if wanted[i] is SKIPPED]
    assert repr(found.accepted.column("x").to_pylist()) == repr_utc([value for value in wanted if value is not SKIPPED])


def repr_utc(values: list[Any]) -> str:
    """As Arrow gives them back."""
    kind = pa.timestamp("us", "UTC") if any(isinstance(v, datetime) for v in values) else None
    return repr(pa.array(values, kind).to_pylist() if kind else values)


ZONES = [
    "America/New_York",
    "Europe/Berlin",
    "Europe/Dublin",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/Sao_Paulo",
]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ZONES), st.datetimes(datetime(2000, 1, 1), datetime(2024, 1, 1)), st.booleans())
@example("America/New_York", datetime(2013, 3, 10, 2, 30), False)
@example("America/New_York", datetime(2013, 11, 3, 1, 30), True)
@example("Australia/Lord_Howe", datetime(2013, 4, 7, 1, 45), True)
def test_local_times_are_what_the_docstring_says(zone: str, local: datetime, as_text: bool) -> None:
    """A repeated local time is the later instant; a skipped one moves forward by the length of the gap."""
    arrives = pa.array([local.isoformat()]) if as_text else pa.array([local], pa.timestamp("us"))
    found = validate(pa.table({"id": [1], "x": arrives}), Table("t", key="id", columns={"x": f"time({zone})"}))
    instants = [local.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1)]
    assert found.accepted.column("x").to_pylist() == [max(instants)]


def test_local_times_around_the_change_of_the_clocks() -> None:
    """Every quarter of an hour of two nights in New York, against the zone database."""
    nights = [datetime(2013, 3, 10), datetime(2013, 11, 3)]
    locals_ = [night + timedelta(minutes=15 * i) for night in nights for i in range(24)]
    table = Table("t", key="id", columns={"x": "time(America/New_York)"})
    rows = pa.table({"id": range(len(locals_)), "x": [moment.isoformat() for moment in locals_]})
    zone = ZoneInfo("America/New_York")
    wanted = [max(m.replace(tzinfo=zone, fold=f).astimezone(UTC) for f in (0, 1)) for m in locals_]
    assert validate(rows, table).accepted.column("x").to_pylist() == wanted


@pytest.mark.parametrize(
    ("word", "values", "kind", "wanted"),
    [
        (
            "int",
            [1.0, 2.5, math.nan, math.inf, 1e16, 1e30, None],
            pa.float64(),
            [1, SKIPPED, SKIPPED, SKIPPED, 10**16, SKIPPED, None],
        ),
        ("int", [5, None], pa.uint64(), [5, None]),
        ("int", [2**63], pa.uint64(), [SKIPPED]),
        ("float", [1, None], pa.int16(), [1.0, None]),
        ("bool", [0, 1, 2, None], pa.int8(), [False, True, SKIPPED, None]),
        ("string", [1, None], pa.int64(), ["1", None]),
        ("int", [None, None], pa.null(), [None, None]),
        ("time(Europe/Berlin)", [date(2013, 7, 1)], pa.date32(), [datetime(2013, 6, 30, 22, tzinfo=UTC)]),
        ("int", ["7", None], pa.dictionary(pa.int8(), pa.string()), [7, None]),
    ],
)
def test_arrow_types_become_the_declared_one(
    word: str, values: list[Any], kind: pa.DataType, wanted: list[Any]
) -> None:
    """Where every value fits it is kept; what does not is set aside."""
    rows = pa.table({"id": range(len(values)), "x": pa.array(values, kind)})
    found = validate(rows, Table("t", key="id", columns={"x": word}))
    assert found.accepted.column("x").to_pylist() == [value for value in wanted if value is not SKIPPED]
    assert found.quarantined.column("row").to_pylist() == [i for i, value in enumerate(wanted) if value is SKIPPED]


@pytest.mark.parametrize(
    ("word", "kind", "remedy"),
    [
        ("time", pa.timestamp("us"), "time(Zone/City)"),
        ("time(UTC)", pa.timestamp("us", "UTC"), "Declare it as 'time'"),
        ("time", pa.int64(), "Convert it"),
        ("int", pa.bool_(), "Convert it"),
        ("date", pa.timestamp("us", "UTC"), "Convert it"),
        ("string", pa.list_(pa.string()), "Convert it"),
        ("float", pa.date32(), "Convert it"),
        (None, pa.timestamp("ms"), "Declare the column as"),
    ],
)
def test_a_type_that_can_never_fit_refuses_the_batch(word: str | None, kind: pa.DataType, remedy: str) -> None:
    """Setting every row aside would hide a mistake in the definition."""
    rows = pa.table({"id": [1], "x": pa.array([None], kind)})
    with pytest.raises(InputError, match=re.escape(remedy)):
        validate(rows, Table("t", key="id", columns={"x": word} if word else {}))


def test_columns_without_a_declared_type_come_out_as_they_went_in() -> None:
    """Through no engine: nested values and odd types are not bent on the way; times are whole microseconds."""
    rows = pa.table(
        {
            "id": [1, 2],
            "us": pa.array([1, 2], pa.timestamp("us", "UTC")),
            "l": pa.array([[1], None], pa.list_(pa.int8())),
            "n": pa.nulls(2),
            "s": pa.array([{"a": 1}, None]),
            "b": pa.array([b"\xff", None]),
            "u": pa.array([1, None], pa.uint8()),
        }
    )
    found = validate(rows, Table("t", key="id"))
    assert found.accepted.drop_columns(["_row"]).equals(rows)


# checks that cannot be judged ---------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [Check.between("x", 0, 1), Check.in_set("x", {1, 2}), Check.sql("x > 5")])
def test_a_number_check_on_a_text_column_names_the_remedy(check: Check) -> None:
    """CSV columns are text; the engine would try to read them as numbers, and quote the one that is none."""
    rows = pa.table({"id": [1], "x": ["SECRET"]})
    with pytest.raises(DefinitionError, match=r"Declare the type: columns={'x': 'float'}") as caught:
        validate(rows, Table("t", key="id", checks=[check]))
    assert "SECRET" not in str(caught.value)
    assert validate(pa.table({"id": [1], "x": ["1"]}), Table("t", key="id", columns={"x": "int"}, checks=[check]))


def test_an_overflow_in_a_check_does_not_tell_the_value() -> None:
    """The engine's text does."""
    rows = pa.table({"id": [1], "x": [9223372036854775123]})
    with pytest.raises(InputError, match="evaluable on every row") as caught:
        validate(rows, Table("t", key="id", checks=[Check.sql("x * 9 > 0")]))
    assert "775123" not in str(caught.value)


def test_two_checks_that_read_alike_are_both_counted() -> None:
    """Their titles are numbered."""
    checks = [Check.in_set("x", {"a", "b"}), Check.in_set("x", {"a"}, severity="low")]
    found = validate(pa.table({"id": [1, 2, 3], "x": ["a", "b", "c"]}), Table("t", key="id", checks=checks))
    assert {r.check: r.failed for r in found.results if r.failed} == {"in_set(x)": 1, "in_set(x) #2": 2}


def test_a_check_of_the_key_that_only_counts_does_not_replace_the_implied_one() -> None:
    """A key is never null and never repeats, whatever else is said of it."""
    checks = [Check.unique("id", severity="low"), Check.not_null("id", severity="low")]
    found = validate(pa.table({"id": [1, 1, None]}), Table("t", key="id", checks=checks))
    assert found.accepted.num_rows == 1


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["id", "x", "X"], "upper and lower case.*'X', 'x'"),
        (["id", "x", "x"], "a name of its own"),
        (["id", "x", "_row"], "underscore"),
        (["di", "x"], "the key column must be in the batch; got 'id'.*Known: 'di', 'x'|Did you mean"),
        (["id", "y"], "check must read columns that exist|declared column"),
        (["Jane", "Doe"], "2 columns, none of them known.*begins with a header that has id"),
    ],
)
def test_columns_that_are_not_the_tables(names: list[str], said: str) -> None:
    """And a file without a header does not have its first row told."""
    rows = pa.Table.from_arrays([pa.array(["1"]) for _ in names], names=names)
    with pytest.raises((InputError, DefinitionError), match=said) as caught:
        validate(rows, Table("t", key="id", columns={"x": "int"}))
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize(
    ("tolerance", "missing", "halts"), [(0.29, 29, False), (0.29, 30, True), (0.0, 1, True), (1.0, 100, False)]
)
def test_a_tolerance_is_a_share_that_may_be_reached(tolerance: float, missing: int, halts: bool) -> None:
    """29 of 100 rows are 0.29, though 0.29 * 100 is less than 29 in binary."""
    rows = pa.table({"id": range(100), "x": [None] * missing + [1] * (100 - missing)})
    check = Check.not_null("x", severity="critical", tolerance=tolerance)
    (result,) = [r for r in validate(rows, Table("t", key="id", checks=[check])).results if r.check == check.title]
    assert (result.failed, result.halted) == (missing, halts)
