"""The executions of an expression agree: real DuckDB and Polars on typed columns, and the Python function of one row.

The expressions are drawn as text, kind by kind, by strategies that know nothing of the parser or its tree.
"""

import math
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from retrodict.core.errors import DefinitionError, InputError
from retrodict.core.expressions import parse

# The report names the differing texts and rows itself; shrinking through an engine would take minutes.
QUICK = settings(deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])

TYPES = {
    "i": "BIGINT", "j": "BIGINT", "x": "DOUBLE", "y": "DOUBLE", "s": "VARCHAR", "odd \"name'": "VARCHAR",
    "p": "BOOLEAN", "q": "BOOLEAN", "t": "TIMESTAMPTZ", "u": "TIMESTAMPTZ",
    "d": "DATE", "e": "DATE",
}  # fmt: skip
KINDS: Any = {
    "i": "number", "j": "number", "x": "number", "y": "number", "s": "text", "odd \"name'": "text",
    "p": "bool", "q": "bool", "t": "time", "u": "time",
    "d": "date", "e": "date",
}  # fmt: skip
FRAME: Any = {
    "BIGINT": pl.Int64, "DOUBLE": pl.Float64, "VARCHAR": pl.String, "BOOLEAN": pl.Boolean,
    "TIMESTAMPTZ": pl.Datetime("us", "UTC"), "DATE": pl.Date,
}  # fmt: skip
DATES: Any = {"d": "date", "e": "date"}
COLUMNS = {
    "number": ["i", "j", "x", "y"], "text": ["s", '"odd ""name\'"'], "bool": ["p", "q"], "time": ["t", "u", "d", "e"],
}  # fmt: skip

whole = st.integers(-50, 50) | st.integers(-1, 1)
special = st.sampled_from([math.nan, math.nan, math.inf, -math.inf, 0.0, -0.0, 0.5, 1.0, 1e308, -1e308])
fraction = special | special | st.floats()
letters = st.text("abB%_\\'\"é🙂 \n-;", max_size=4)
# Around the change to summer time in New York, where a day is not 24 hours long.
instant = st.integers(1_362_800_000, 1_363_000_000).map(lambda second: second * 1_000_000 + 1)
day = st.sampled_from([date(2013, 3, 9), date(2013, 3, 10), date(2013, 3, 11), date(1969, 12, 31)])


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


LITERALS = {
    "number": whole.map(str) | st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    "text": letters.map(quoted),
    "bool": st.sampled_from(["true", "false"]),
    "time": st.sampled_from(["timestamp '2013-03-10T02:30:00.000001-04:00'", "timestamp '2013-03-09T00:00Z'"]),
    "duration": st.sampled_from(["1h", "1d", "36h 30m", "1us", "0s"]),
}


PATTERNS = st.sampled_from(
    [r"'[ab]*'", r"'.*é?.'", r"'\w+|%.?'", r"'^(\W|a){1,3}$'", r"'[^a-z\n]*'", "'(a|B|''|🙂)+'", "''"]
)


def choices(kind: str, depth: int) -> st.SearchStrategy[str]:
    """What every kind has: coalesce, least, greatest and case."""
    inner = expressions(kind, depth - 1)
    some = st.lists(inner | st.just("null"), max_size=1)
    several = st.builds(lambda before, one, after: ", ".join([*before, one, *after]), some, inner, some)
    return st.one_of(
        st.builds("{}({})".format, st.sampled_from(["coalesce", "least", "greatest"]), several),
        st.builds("case when {} then {} else {} end".format, expressions("bool", depth - 1), inner, inner),
        st.builds("case when {} then {} end".format, expressions("bool", depth - 1), inner),
    )


def numbers(depth: int) -> st.SearchStrategy[str]:
    inner = expressions("number", depth - 1)
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/"]), inner),
        st.builds("(- {})".format, inner),
        st.builds("abs({})".format, inner),
        st.builds("length({})".format, expressions("text", depth - 1)),
        st.builds("{}({})".format, st.sampled_from(["hour", "weekday"]), expressions("time", depth - 1)),
        st.builds("seconds({})".format, expressions("duration", depth - 1)),
    )


def durations(depth: int) -> st.SearchStrategy[str]:
    times, inner = expressions("time", depth - 1), expressions("duration", depth - 1)
    return st.one_of(
        st.builds("({} - {})".format, times, times),
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-"]), inner),
        st.builds("(- {})".format, inner),
    )


def times(depth: int) -> st.SearchStrategy[str]:
    inner, length = expressions("time", depth - 1), expressions("duration", depth - 1)
    return st.builds("({} - {})".format, inner, length) | st.builds("({1} + {0})".format, inner, length)


def conditions(depth: int) -> st.SearchStrategy[str]:
    inner = expressions("bool", depth - 1)
    forms = [
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("(not {})".format, inner),
        st.builds("({} {} {})".format, expressions("text", depth - 1), st.sampled_from(["like", "not like"]),
                  LITERALS["text"]),
        st.builds("matches({}, {})".format, expressions("text", depth - 1), PATTERNS),
    ]  # fmt: skip
    for kind, literal in LITERALS.items():
        one = expressions(kind, depth - 1)
        items = st.lists(literal | st.just("null"), min_size=1, max_size=3).map(", ".join)
        forms += [
            st.builds("({} {} {})".format, one, st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="]), one),
            st.builds("({} between {} and {})".format, one, one | st.just("null"), one),
            st.builds("({} in ({}))".format, one, items),
            st.builds("({} not in ({}))".format, one, items),
            st.builds("({} is {}null)".format, one, st.sampled_from(["", "not "])),
        ]
    return st.one_of(forms)


@cache  # one strategy per kind and depth: without it their number explodes
def expressions(kind: str, depth: int) -> st.SearchStrategy[str]:
    """Texts of one kind, nested up to a depth."""
    leaves = LITERALS[kind]
    if kind in COLUMNS:
        leaves = st.one_of(st.sampled_from(COLUMNS[kind]), st.sampled_from(COLUMNS[kind]), leaves)
    return st.one_of(leaves, grown(kind, depth)) if depth else leaves


@cache
def grown(kind: str, depth: int) -> st.SearchStrategy[str]:
    """Texts of one kind that are more than a leaf."""
    own = {"number": numbers, "bool": conditions, "time": times, "duration": durations}
    if kind not in own:
        return choices(kind, depth)
    return st.one_of(own[kind](depth), own[kind](depth), choices(kind, depth))


def row_values(columns: dict[str, Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    rows = st.fixed_dictionaries(
        {name: st.one_of(st.none(), values, values, values) for name, values in columns.items()}
    )
    return st.lists(rows, min_size=1, max_size=6)


ROWS = row_values({"i": whole, "j": whole, "x": fraction, "y": fraction, "s": letters, "odd \"name'": letters,
                   "p": st.booleans(), "q": st.booleans(), "t": instant, "u": instant,
                   "d": day, "e": day})  # fmt: skip
# Small expressions of numbers and conditions find most; deep ones find what only nesting shows. Many texts run as one
# query, because a query costs far more than a text.
SHAPES = st.tuples(
    st.sampled_from(["bool", "number", "bool", "number", "text", "time", "duration"]), st.sampled_from([1, 1, 2, 2, 3])
).flatmap(lambda drawn: st.tuples(st.just(drawn[0]), grown(*drawn)))
BATCHES = st.lists(SHAPES, min_size=1, max_size=16)


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        names = ", ".join('"' + name.replace('"', '""') + f'" {type_}' for name, type_ in TYPES.items())
        connection.execute(f"CREATE TABLE rows (place INTEGER, {names})").fetchall()
        yield connection


def fill(engine: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> None:
    marks = ["make_timestamptz(?)" if type_ == "TIMESTAMPTZ" else "?" for type_ in TYPES.values()]
    line = f"({', '.join(['?', *marks])})"
    values = [value for place, row in enumerate(rows) for value in (place, *(row[name] for name in TYPES))]
    engine.execute("DELETE FROM rows").fetchall()
    engine.execute(f"INSERT INTO rows VALUES {', '.join([line] * len(rows))}", values).fetchall()


def run(engine: duckdb.DuckDBPyConnection, columns: list[tuple[str, str]]) -> list[list[Any]]:
    """Values, per row, of SQL expressions with their kinds; times and durations as microseconds."""
    listed = ", ".join(f"epoch_us({sql})" if kind == "time" else sql for kind, sql in columns)
    found = engine.execute(f"SELECT {listed} FROM rows ORDER BY place").fetchall()
    micro = timedelta(microseconds=1)
    return [[value // micro if isinstance(value, timedelta) else value for value in row] for row in found]


def scan(rows: list[dict[str, Any]], texts: list[tuple[str, str]], *, streaming: bool = False) -> list[list[Any]]:
    """Values, per row, of the Polars expressions of texts with their kinds; times and durations as microseconds."""
    frame = pl.DataFrame(rows, schema={name: FRAME[type_] for name, type_ in TYPES.items()}).lazy()
    columns = {
        f"_{place}": parse(text).to_polars(kinds=KINDS, floating=["x", "y"]) for place, (_, text) in enumerate(texts)
    }
    found = frame.with_columns(**columns).select(*columns).collect(engine="streaming" if streaming else "in-memory")
    return [list(row) for row in zip(*(column.to_physical().to_list() for column in found), strict=True)]


def differences(texts: list[str], rows: list[dict[str, Any]], theirs: list[list[Any]]) -> list[tuple[Any, ...]]:
    """Where the row functions and SQL differ; a bool is only equal to a bool, and a NaN to nothing."""
    functions = [parse(text).to_row() for text in texts]
    found = []
    for row, values in zip(rows, theirs, strict=True):
        for text, function, b in zip(texts, functions, values, strict=True):
            a = function(row)
            if not (a == b and isinstance(a, bool) == isinstance(b, bool)):
                found.append((text, row, a, b))
    return found


@settings(QUICK, max_examples=150)
@given(batch=BATCHES, rows=ROWS)
def test_sql_and_row_function_agree(
    engine: duckdb.DuckDBPyConnection, batch: list[tuple[str, str]], rows: list[dict[str, Any]]
) -> None:
    """Any expression of any kind gives the same values in DuckDB and in Python, nulls, NaN and infinities included."""
    fill(engine, rows)
    engine.execute("SET TimeZone = 'UTC'").fetchall()
    theirs = run(engine, [(kind, parse(text).to_sql(kinds=DATES)) for kind, text in batch])
    assert differences([text for _, text in batch], rows, theirs) == []


@settings(QUICK, max_examples=150)
@given(batch=BATCHES, rows=ROWS, streaming=st.booleans())
def test_polars_and_row_function_agree(
    batch: list[tuple[str, str]], rows: list[dict[str, Any]], streaming: bool
) -> None:
    """A Polars scan gives the same values as the row function, in either of its engines."""
    theirs = scan(rows, batch, streaming=streaming)
    assert differences([text for _, text in batch], rows, theirs) == []


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "divisor", ["7", "-49.0", "(2 + 5)", "coalesce(7.0, x)", "case when x > -1 then 7.0 else 1.0 end", "y"]
)
def test_a_quotient_is_rounded_once(engine: duckdb.DuckDBPyConnection, divisor: str, *, streaming: bool) -> None:
    """A constant divisor is no product with its reciprocal, which is another double for every third dividend."""
    generator = Random(7)
    nothing = dict.fromkeys(TYPES)
    rows: list[dict[str, Any]] = [
        {**nothing, "x": 1000 * generator.random(), "y": 7.0, "i": generator.randrange(10**15)} for _ in range(500)
    ]
    by = -49.0 if divisor == "-49.0" else 7.0
    assert sum(row["x"] * (1 / by) != row["x"] / by for row in rows) > 50
    texts = [("number", f"{dividend} / {divisor}") for dividend in ("x", "i", "- x")]
    rows[0] |= {"x": None, "i": None}
    expected = [[value / by for value in (row["x"], row["i"], -row["x"])] for row in rows[1:]]
    fill(engine, rows)
    parsed = [parse(text) for _, text in texts]
    by_row = [[expression.to_row()(row) for expression in parsed] for row in rows]
    by_sql = run(engine, [("number", expression.to_sql(kinds=KINDS)) for expression in parsed])
    assert by_row == by_sql == scan(rows, texts, streaming=streaming) == [[None] * 3, *expected]


@settings(QUICK, max_examples=60)
@given(batch=BATCHES, rows=ROWS)
def test_known_kinds_make_sql_independent_of_the_zone(
    engine: duckdb.DuckDBPyConnection, batch: list[tuple[str, str]], rows: list[dict[str, Any]]
) -> None:
    """With the kinds of the columns given, a session in a zone with summer time gives the same values too."""
    fill(engine, rows)
    engine.execute("SET TimeZone = 'America/New_York'").fetchall()
    theirs = run(engine, [(kind, parse(text).to_sql(kinds=KINDS)) for kind, text in batch])
    assert differences([text for _, text in batch], rows, theirs) == []


@settings(QUICK, max_examples=100)
@given(batch=BATCHES)
def test_canonical_text_reads_back(batch: list[tuple[str, str]]) -> None:
    """The canonical text is a fixed point: parsing it gives the same tree."""
    for _, text in batch:
        first = parse(text)
        again = parse(first.text)
        assert again.text == first.text
        assert again.tree == first.tree


# Texts without parentheses, so that their meaning hangs on which operator binds tighter.
_SUMS = st.lists(st.sampled_from(["i", "j", "2", "-3", "- i"]), min_size=1, max_size=4).flatmap(
    lambda parts: st.lists(st.sampled_from([" + ", " - ", " * "]), min_size=4, max_size=4).map(
        lambda signs: "".join(part + sign for part, sign in zip(parts, signs, strict=False)).rstrip("+-* ")
    )
)
_TESTS = st.one_of(
    st.just("p"), st.just("q"),
    st.builds("{} {} {}".format, _SUMS, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), _SUMS),
    st.builds("{} {}between {} and {}".format, _SUMS, st.sampled_from(["", "not "]), _SUMS, _SUMS),
    st.builds("{} {}in (1, -2, null)".format, _SUMS, st.sampled_from(["", "not "])),
    st.builds("{} is {}null".format, st.sampled_from(["p", "i"]), st.sampled_from(["", "not "])),
    st.builds("s {}like 'a%'".format, st.sampled_from(["", "not "])),
)  # fmt: skip
_LINKS = st.lists(st.tuples(st.sampled_from(["and ", "or "]), st.sampled_from(["", "not ", "not not "]), _TESTS),
                  min_size=1, max_size=5)  # fmt: skip
_FLAT = _LINKS.map(lambda links: " ".join(word + sign + test for word, sign, test in links).removeprefix(links[0][0]))


@settings(QUICK, max_examples=100)
@given(texts=st.lists(_FLAT, min_size=1, max_size=10), rows=ROWS)
def test_operators_bind_as_in_sql(
    engine: duckdb.DuckDBPyConnection, texts: list[str], rows: list[dict[str, Any]]
) -> None:
    """A text without parentheses means what DuckDB's own parser makes of the very same text."""
    fill(engine, rows)
    theirs = run(engine, [("bool", text) for text in texts])
    assert differences(texts, rows, theirs) == []


@pytest.mark.parametrize("text", ["i + 1", "i * 2", "-i - 2", "abs(-i - 1)", "-(-i - 1)"])
def test_overflow_is_an_error_everywhere(engine: duckdb.DuckDBPyConnection, text: str) -> None:
    """A whole number beyond 64 bits wraps nowhere."""
    row = dict.fromkeys(TYPES, None) | {"i": 2**63 - 1}
    fill(engine, [row])
    with pytest.raises(InputError, match="64 bits"):
        parse(text).to_row()(row)
    with pytest.raises(duckdb.OutOfRangeException):
        run(engine, [("number", parse(text).to_sql())])
    for streaming in (False, True):
        with pytest.raises(pl.exceptions.InvalidOperationError, match="i64"):
            scan([row], [("number", text)], streaming=streaming)


@pytest.mark.parametrize(
    "text",
    [
        "2 < 1 / i", "2 >= case when q then 1 end", "'a' < case when q then 'a' end", "true = (x > 1)",
        "x > 1 or x < 0",
        "i in (null)", "not i in (0, null)", "case when q then 1 else 1 end <= 2",
        "length('abc') > case when q then 1 end",
    ],
)  # fmt: skip
@pytest.mark.parametrize("streaming", [False, True])
def test_a_choice_that_is_the_same_on_every_row_keeps_the_rows(text: str, streaming: bool) -> None:
    """Polars shortens a choice whose condition is uniform; the scan still has a value for each row."""
    rows = [dict.fromkeys(TYPES, None) | {"x": math.nan, "i": 0, "q": True}] * 5
    frame = pl.DataFrame(rows, schema={name: FRAME[type_] for name, type_ in TYPES.items()}).lazy()
    one = parse(text).to_polars(kinds=KINDS, floating=["x", "y"])
    found = frame.select(found=one).collect(engine="streaming" if streaming else "in-memory")
    assert found["found"].to_list() == [parse(text).to_row()(row) for row in rows]


def test_nan_is_null_over_parquet_too(engine: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Statistics of a Parquet file leave NaN out; the engine must not conclude that there is none."""
    x = [math.nan if place % 7 == 0 else place / 1000 for place in range(200_000)]
    y = [math.inf if place % 5 == 0 else -place / 1000 for place in range(200_000)]
    frame = pl.DataFrame({"x": x, "y": y})
    frame.write_parquet(tmp_path / "x.parquet")
    texts = ["x", "x > 5", "not x > -1", "x + 1", "-x", "abs(x) >= 0", "x * 2 + 1", "y - y", "x between -1 and 900",
             "coalesce(x, 1)", "x in (1, 2)", "least(x, 3) > 3", "1 / x > 0"]  # fmt: skip
    names = [f"count({parse(text).to_sql()})" for text in texts]
    found = engine.execute(f"SELECT {', '.join(names)} FROM '{tmp_path}/x.parquet'").fetchall()[0]
    wanted = [parse(text).to_polars(floating=["x", "y"]).count().alias(text) for text in texts]
    assert dict(zip(texts, found, strict=True)) == frame.select(wanted).row(0, named=True)


@pytest.mark.parametrize("column", ["i", "s", "t"])
def test_the_guard_against_nan_leaves_filters_to_the_scan(engine: duckdb.DuckDBPyConnection, column: str) -> None:
    """For a column that cannot hold NaN the plan has the bare comparison, so zone maps still prune."""
    plan = engine.execute(
        f"EXPLAIN SELECT count(*) FROM rows WHERE {parse(f'{column} > {column}').to_sql()}"
    ).fetchall()
    assert "CASE" not in plan[0][1]


def test_a_date_is_midnight_in_utc_where_the_text_says_it_is_a_time(engine: duckdb.DuckDBPyConnection) -> None:
    """Without kinds too, whatever the zone of the session; only an open place needs the kinds."""
    fill(engine, [dict.fromkeys(TYPES, None) | {"d": date(2013, 3, 10)}])
    engine.execute("SET TimeZone = 'America/New_York'").fetchall()
    for text in ("d = timestamp '2013-03-10T00:00Z'", "d - 1us < timestamp '2013-03-10T00:00Z'"):
        assert run(engine, [("bool", parse(text).to_sql())]) == [[True]]


def test_open_arithmetic_needs_the_kinds_in_polars() -> None:
    """Polars has no one operation for numbers and for times; the mistake is named when the scan is made."""
    with pytest.raises(DefinitionError, match=r"numbers or of times; got 'a - b'\. Give the kinds"):
        parse("a - b > c - d").to_polars()
    assert set(parse("a - b > c - d").to_polars(floating=["a"]).meta.root_names()) == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    "form", ["1 / ({})", "case when {} > 1 then y end", "case when {} between 0 and 1 then y end",
             "case when {} in (1, 2) then y end", "case when {} is null then y end", "least({}, y)"]
)  # fmt: skip
def test_nested_operands_do_not_multiply(form: str) -> None:
    """The Polars expression grows with the text, not with two to the power of its depth."""

    def size(depth: int) -> int:
        text = "x"
        for _ in range(depth):
            text = form.format(text)
        return len(parse(text).to_polars(floating=["x", "y"]).meta.serialize())

    assert size(16) < 3 * size(8)


def test_a_hostile_name_or_text_stays_a_name_or_text(engine: duckdb.DuckDBPyConnection) -> None:
    """Quotes inside names and texts cannot end them."""
    text = "s = '''; DROP TABLE rows; --' and \"odd \"\"name'\" = 'x'"
    row = dict.fromkeys(TYPES, None) | {"s": "'; DROP TABLE rows; --", "odd \"name'": "x"}
    fill(engine, [row])
    assert run(engine, [("bool", parse(text).to_sql())]) == [[True]]
    assert parse(text).to_row()(row) is True
