"""The written three-valued logic on single rows, against tables typed by hand."""

import math
import pickle
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from retrodict.core.errors import InputError
from retrodict.core.expressions import parse

T, F, N = True, False, None
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("p", "q", "both", "either"),
    [
        (T, T, T, T), (T, F, F, T), (T, N, N, T),
        (F, T, F, T), (F, F, F, F), (F, N, F, N),
        (N, T, N, T), (N, F, F, N), (N, N, N, N),
    ],
)  # fmt: skip
def test_and_or_follow_the_table(p: bool | None, q: bool | None, both: bool | None, either: bool | None) -> None:
    """`and` is the smaller, `or` the greater of false < null < true."""
    row = {"p": p, "q": q}
    assert parse("p and q").to_row()(row) is both
    assert parse("p or q").to_row()(row) is either


@pytest.mark.parametrize(("p", "expected"), [(T, F), (F, T), (N, N)])
def test_not_keeps_null(p: bool | None, expected: bool | None) -> None:
    """The opposite of unknown is unknown."""
    assert parse("not p").to_row()({"p": p}) is expected


@pytest.mark.parametrize(
    ("text", "x", "expected"),
    [
        ("x > 15", 16, T), ("x > 15", 15, F), ("x > 15", N, N), ("x > 15", NAN, N), ("x > 15", INF, T),
        ("x > 15", 15.5, T), ("x = 0.5", NAN, N), ("x <> 0.5", NAN, N), ("x = null", 1, N), ("x < 0.25", 0, T),
        ("x = 9007199254740993", 2.0**53, T), ("x = 9007199254740993", 2**53, F),
        ("x is null", N, T), ("x is null", NAN, T), ("x is null", 0, F), ("x is not null", NAN, F),
        ("x in (1, 2)", 2.0, T), ("x in (1, 2)", 3, F), ("x in (1, 2)", N, N), ("x in (1, 2)", NAN, N),
        ("x in (1, null)", 1, T), ("x in (1, null)", 3, N), ("x not in (1, null)", 3, N), ("x in (null)", 3, N),
        ("x in (1, 2.5)", 1, T), ("x in ('a', 'b')", "b", T), ("x in (true)", F, F),
        ("x between 1 and 3", 3, T), ("x between 1 and null", 0, F), ("x between 1 and null", 2, N),
        ("x between 1 and 3", N, N), ("x not between 1 and 3", 0, T), ("x between 0.5 and 3", 1, T),
        ("x between null and null", 3, N), ("x between null and null", N, N),
        ("x + 1", 2, 3), ("x + 0.5", 2, 2.5), ("x + 1", N, N), ("x * 0.0", INF, N), ("-x", 5, -5), ("-x", N, N),
        ("x / 2", 1, 0.5), ("x / 0", 1, N), ("1 / x", 0.0, N), ("1 / x", -0.0, N), ("x / 2", N, N),
        ("abs(x)", -3, 3), ("abs(x)", NAN, N), ("coalesce(x, 7)", NAN, 7), ("coalesce(x, 7)", 0, 0),
        ("coalesce(x, null)", N, N),
        ("least(x, 5)", N, 5), ("least(x, 5)", NAN, 5), ("greatest(x, 5)", 7, 7), ("least(x, null)", N, N),
        ("case when x > 1 then 'a' when x > 0 then 'b' end", 1, "b"),
        ("case when x > 1 then 'a' else 'c' end", N, "c"), ("case when x > 1 then 'a' end", 0, N),
        ("length(x)", "e\u0301🙂", 3), ("length(x) <= 2", N, N),
        ("hour(x)", 1_362_873_600_000_000, 0), ("hour(x - 5h)", date(2013, 3, 10), 19), ("hour(x)", -1, 23),
        ("weekday(x)", date(2013, 3, 10), 6), ("weekday(x)", date(1970, 1, 1), 3), ("weekday(x)", -1, 2),
        ("weekday(x + 24h)", date(2013, 3, 10), 0), ("hour(x)", N, N),
        ("seconds(x - timestamp '1970-01-01T00:00:01Z')", 2_500_000, 1.5), ("seconds(90s)", N, 90.0),
        ("matches(x, '[A-Z]{3}')", "JFK", T), ("matches(x, '[A-Z]{3}')", "JFK ", F), ("matches(x, '.*')", N, N),
        ("x like 'B%'", "B6", T), ("x like '_6'", "B6", T), ("x like '_6'", "XB6", F), ("x like 'b%'", "B6", F),
        ("x like 'a.c'", "abc", F), ("x like '%'", "a\nb", T), ("x like '%'", N, N), ("x not like '%a'", "b", T),
        ("x < 'b'", "a", T), ("x = true", T, T), ("x", NAN, N), ("x", "text", "text"),
        ("x - 1h", 3_600_000_000, 0), ("x - timestamp '1970-01-01T00:00:01Z'", 3_000_000, 2_000_000),
        ("x > timestamp '1970-01-01T00:00:00Z'", 1, T),
    ],
)  # fmt: skip
def test_one_value_by_hand(text: str, x: object, expected: object) -> None:
    """Null and NaN mean unknown in every operator; the rest is arithmetic."""
    result = parse(text).to_row()({"x": x})
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("text", "x"),
    [
        ("x > 15", "16"), ("x > 15", True), ("x > 0.5", "1"), ("x = 'a'", 1), ("x = true", 1), ("x in (1, 2)", "1"),
        ("x in (1, 2)", True), ("x in ('a')", 1.5), ("x in (true)", 1), ("x between 1 and 2", "1"), ("x + 1", "1"),
        ("x + 1", True), ("x / 2", "1"), ("-x", "1"), ("abs(x)", True), ("x and true", 1), ("x or false", "a"),
        ("not x", 0), ("x like 'a'", 1), ("length(x)", 1), ("matches(x, 'a')", 1), ("hour(x)", 1.5),
        ("weekday(x)", "a"), ("least(x, 1)", "a"), ("case when x then 1 end", 1),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused(text: str, x: object) -> None:
    """Text is never read as a number, nor a number as true or false; the message has no value in it."""
    with pytest.raises(InputError, match="must be of the kind it works on") as caught:
        parse(text).to_row()({"x": x})
    assert repr(x) not in str(caught.value).split("got")[1]


@pytest.mark.parametrize(
    "value",
    [
        datetime(2013, 3, 10, tzinfo=UTC), datetime(2013, 3, 10, 2, tzinfo=timezone(timedelta(hours=2))),
        date(2013, 3, 10), 1_362_873_600_000_000,
    ],
)  # fmt: skip
def test_a_time_is_read_from_every_form(value: object) -> None:
    """Aware datetimes, days (midnight in UTC) and microseconds are one instant."""
    row = {"t": value, "u": date(2013, 3, 11)}
    assert parse("t").to_row()(row) == 1_362_873_600_000_000
    for text in ("t = timestamp '2013-03-10T00:00Z'", "u - t = 24h", "t < u", "t is not null",
                 "t in (timestamp '2013-03-10T00:00Z', null)"):  # fmt: skip
        assert parse(text).to_row()(row) is True


def test_a_time_without_a_zone_is_refused() -> None:
    """It is never guessed, and its value is not told."""
    for text in ("t > u", "t is null", "t > timestamp '2013-03-10T00:00Z'"):
        with pytest.raises(
            InputError, match=r"column 't': a time in a row must carry its zone; got 'a datetime without"
        ):
            parse(text).to_row()({"t": datetime(2013, 3, 10), "u": 1})  # noqa: DTZ001


@pytest.mark.parametrize("x", [2**53 + 1, 2**53, 3, -(2**63), 2.5, NAN, N])
@pytest.mark.parametrize("literal", ["9007199254740992.0", "9007199254740992", "2.5", "3"])
def test_the_quick_forms_are_the_general_ones(x: object, literal: str) -> None:
    """A column against literals has functions of its own; they give what the same text gives without them."""
    value = float(literal) if "." in literal else int(literal)
    row = {"x": x, "y": value}
    for quick, general in (
        (f"x >= {literal}", "coalesce(x, null) >= coalesce(y)"),
        (f"x in ({literal})", "coalesce(x, null) = coalesce(y)"),
        (f"x between {literal} and {literal}", "coalesce(x, null) between coalesce(y) and coalesce(y)"),
        ("x is null", "coalesce(x, null) is null"), ("x is not null", "not (coalesce(x, null) is null)"),
        ("x < y", "coalesce(x, null) < coalesce(y)"),
    ):  # fmt: skip
        assert parse(quick).to_row()(row) is parse(general).to_row()(row)


def test_a_missing_column_is_not_null() -> None:
    """A row that lacks a column is a mistake of its maker."""
    for text in ("x > 15", "x is null"):
        with pytest.raises(InputError, match="column 'x': a row must hold every column"):
            parse(text).to_row()({"y": 1})


@pytest.mark.parametrize("x", [[1], b"a", 2**63, -(2**63) - 1, 10**400, object()])
def test_a_foreign_value_is_refused(x: object) -> None:
    """Only plain values of the five types enter, whole numbers within 64 bits."""
    for text in ("x = y", "x + 1", "x > 0.5", "x in (1)", "x is null"):
        with pytest.raises(InputError, match="column 'x': a value in a row must be None, bool, int, float or str"):
            parse(text).to_row()({"x": x, "y": 1})


@pytest.mark.parametrize("text", ["x + 1", "-(-x - 1) * 2", "x * x", "abs(-x - 1)", "-(-x - 1)"])
def test_a_whole_number_beyond_64_bits_is_an_error(text: str) -> None:
    """Arithmetic on whole numbers is exact or refused, never wrapped."""
    with pytest.raises(InputError, match="a whole number must fit in 64 bits"):
        parse(text).to_row()({"x": 2**63 - 1})


def test_an_error_behind_a_decided_condition_does_not_show() -> None:
    """The row function stops at the first operand that decides."""
    assert parse("p and x > 'a'").to_row()({"p": False, "x": 1}) is False
    assert parse("coalesce(x, y + 1)").to_row()({"x": 1, "y": "a"}) == 1


def test_an_expression_crosses_processes() -> None:
    """Workers receive the definition and compile it themselves."""
    rule = pickle.loads(pickle.dumps(parse("x in (1, 2) and not y like 'a%'")))
    assert rule.to_row()({"x": 1, "y": "b"}) is True


def test_deep_and_long_expressions_stay_within_the_stack() -> None:
    """What the limits admit is also rendered, compiled and evaluated."""
    long = parse(" or ".join(f"x = {n}" for n in range(1000)))
    assert long.to_row()({"x": 999}) is True
    deep = parse("(" * 24 + "x" + " + 1)" * 24 + " + 1" * 39)
    assert deep.to_row()({"x": 0}) == 63
    assert deep.to_sql().count("+") == 63
    assert parse(deep.text) == deep
