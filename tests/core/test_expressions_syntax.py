"""What can be said in an expression, how it is written canonically, and that nothing else gets through."""

import subprocess
import sys

import pytest

from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import parse
from retrodict.core.identity import content_hash


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("arr_delay>15", "arr_delay > 15"),
        ("  A AND not B or c ", "A and not B or c"),
        ("a and (b or c)", "a and (b or c)"),
        ("(a and b) or c", "a and b or c"),
        ("(a or b) or (c or d)", "a or b or c or d"),
        ("a != 0.70", "a <> 0.7"),
        ("a - (b - c) - d", "a - (b - c) - d"),
        ("(a * b) / (c * d)", "a * b / (c * d)"),
        ("-(-5)", "5"),
        ("a - -5", "a - -5"),
        ("-(-x)", "-(-x)"),
        ("NOT x IN (1, -2, NULL)", "x not in (1, -2, null)"),
        ("not (x is null)", "x is not null"),
        ("not x between 1 and 2", "x not between 1 and 2"),
        ("not not p", "not not p"),
        ("(a = b) is null", "(a = b) is null"),
        ("name = 'O''Hare'", "name = 'O''Hare'"),
        ('"odd name" = "and" and "plain" is null', '"odd name" = "and" and plain is null'),
        ("Währung = '€' and größe_2>1", '"Währung" = \'€\' and "größe_2" > 1'),
        ("sched_dep - 90m", "sched_dep - 1h30m"),
        ("sched_dep - 1h 30m", "sched_dep - 1h30m"),
        ("t < TIMESTAMP '2013-01-01T02:00+02:00'", "t < timestamp '2013-01-01T00:00:00Z'"),
        ("timestamp > 1", "timestamp > 1"),
        ("Coalesce(x, LEAST(y,1e-7))", "coalesce(x, least(y, 1e-07))"),
        ("case when p then 1 when q then 2 else 3 end", "case when p then 1 when q then 2 else 3 end"),
        ("origin not like 'E%'", "origin not like 'E%'"),
        ("MATCHES( tail, '^N\\d+$')  and Length(tail)<7", "matches(tail, '^N\\d+$') and length(tail) < 7"),
    ],
)
def test_spelling_is_normalised(text: str, canonical: str) -> None:
    """Case, spaces, needless parentheses and synonyms vanish; the canonical text reads back to itself."""
    assert parse(text).text == canonical
    assert parse(canonical).text == canonical


def test_the_version_is_that_of_the_canonical_text() -> None:
    """Two spellings have one hash, two meanings have two."""
    assert content_hash(parse("a>15")) == content_hash(parse("A > 15".lower())) == content_hash("a > 15")
    assert content_hash(parse("a > 15")) != content_hash(parse("a >= 15"))
    assert parse("a>15") == parse("(a) > 15")


def test_columns_are_sorted_and_named_once() -> None:
    """The columns of an expression are those it reads, whatever their place."""
    assert parse("case when b in (1) then z else abs(-a) end > b").columns == ("a", "b", "z")
    assert parse("1 < 2").columns == ()


@pytest.mark.parametrize(
    "text",
    [
        "1; drop table flights",
        "a > 1 -- and b",
        "a > 1 /* hidden */",
        "a > 1 # hidden",
        "a in (select b from c)",
        "(select 1)",
        "exists (select 1)",
        "read_csv('x') = 1",
        "pg_sleep(10) = 1",
        "__import__('os')",
        "a.b > 1",
        "a::int > 1",
        "cast(a as int) > 1",
        "a || b = 'x'",
        "a > ?",
        "a > $1",
        "a > $$x$$",
        "a > e'x'",
        "a = 'it''s' 'x'",
        "a[1] = 1",
        "{'a': 1}",
        "x -> x + 1",
        "lambda: 1",
        "count(*) > 1",
        "sum(a) over () > 1",
        "a > 1 union select 1",
        "* > 1",
        "a > all (1)",
        "a % 2 = 0",
        "a ilike 'x'",
        "a like b",
        "a like 'x' escape 'y'",
        "a is true",
        "a is distinct from b",
        "interval '1' day",
        "a\x00 > 1",
        "a = 'x\x00'",
        "a = '\ud800'",
        "a li\u212ae 'x'",  # a Kelvin sign, which is a k in lower case
        "ａ > 1",  # noqa: RUF001  (a letter that only looks like one of ours)
    ],
)
def test_what_is_outside_the_language_is_refused(text: str) -> None:
    """Statements, comments, subqueries, casts, other functions and foreign characters never reach an engine."""
    with pytest.raises(DefinitionError, match="label 'late'"):
        parse(text, where="label 'late'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an expression must be a text that is not empty"),
        ("a >", "a value must stand here; got 'the end'"),
        ("a == 1", "equality must be one sign; got '=='. Write '='"),
        ("a < b < c", "character 7: comparisons must not follow one another; got '<'"),
        ("a = b is null", "comparisons must not follow one another; got 'is'"),
        ("a not 5", "'not' after a value must go with in, between or like; got '5'"),
        ("a in ()", "a value must stand here; got ')'"),
        ("a in (b)", "the list of 'in' must hold literals; got 'b'"),
        ("(a > 1", "what stands in parentheses must be followed by ')'; got 'the end'"),
        ("a = 'open", "a quote must be closed"),
        ("2x > 1", "a number must end before a letter"),
        ("1.5h > 1h", "a number must end before a letter"),
        ("then > 1", 'A column of this name is written in double quotes: "then"'),
        ("coalesc(a, 1)", "Did you mean the function 'coalesce'"),
        ("abs(a, b)", "abs must have one argument"),
        ("length(a, b)", "length must have one argument"),
        ("matches(a, b)", "'matches' must have a pattern in single quotes; got 'b'"),
        ("matches(a)", "the text of 'matches' must be followed by ','"),
        ("matches(a, '(?i)x')", "character 12, pattern character 1: a group must be plain"),
        ("case p when 1 then 2 end", "'case' must be followed by 'when'"),
        ("a > 9223372036854775808", "a whole number must fit in 64 bits"),
        ("a > 1e999", "a fraction fits in a double"),
        ("a + null", "arithmetic must not have an operand that is always null; got '+'"),
        ("-case when a then null else coalesce(null, null) end", "always null; got '-'"),
        ("t > timestamp '2013-01-01'", "a timestamp is ISO 8601 with a zone; got \"'2013-01-01'\""),
        ("t > timestamp '0001-01-01T00:00+02:00'", "a timestamp is ISO 8601 with a zone"),
        ("t > timestamp 'soon'", "a timestamp is ISO 8601 with a zone"),
        ("t + " + "9" * 30 + "w", "a duration must be at most a hundred years"),
        ("t + " + "9" * 5000 + "w", "a duration must be at most a hundred years"),
        ("a > " + "9" * 5000, "a whole number must fit in 64 bits"),
        ("(" * 40 + "a" + ")" * 40, "nest at most 24 deep"),
        ("not " * 4000 + "a", "nest at most 24 deep"),
        ("- " * 5000 + "a", "nest at most 24 deep"),
        ("a" + " + a" * 100, "must nest at most 64 deep"),
        ("a > " + "1" * 30_000, "an expression must have at most 20000 characters"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(text: str, message: str) -> None:
    """The message says what must hold, the offending piece and its place."""
    with pytest.raises(DefinitionError) as caught:
        parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "a > 1 and a = 'x'",
        "1 = 'x'",
        "true > 1",
        "a and a > 1",
        "not 'x'",
        "a + 'x'",
        "a like 'x' and a < 2",
        "t - 1h > 5",
        "t + t > 1h",
        "1h = 60",
        "a in (1, 'x')",
        "a between 1 and 'x'",
        "coalesce(a, 1) = 'x'",
        "case when a > 1 then 'x' else 1 end",
        "case when 1 then 2 end",
        "abs('x')",
        "length(1)",
        "length(a) = 'x'",
        "hour(5)",
        "weekday('monday')",
        "seconds(a)",
        "hour(t) + t",
        "matches(1, 'x')",
        "t < timestamp '2013-01-01T00:00:00Z' and t > 5",
        "a * 1h",
        "a = 1h",
    ],
)
def test_kinds_that_do_not_fit_are_refused(text: str) -> None:
    """A mistake of kinds that the text shows is refused when it is read."""
    with pytest.raises(DefinitionError, match=r"this must be|arithmetic must be of"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a > 1", "bool"),
        ("a + b", "number"),
        ("a - b", None),
        ("t - 1h", "time"),
        ("t - timestamp '2013-01-01T00:00:00Z'", "duration"),
        ("coalesce(a, 'x')", "text"),
        ("a", None),
    ],
)
def test_the_kind_is_what_the_text_tells(text: str, kind: str | None) -> None:
    """What an expression gives is known before any row, where the text decides it."""
    assert parse(text).kind == kind


def test_an_unknown_column_is_named_with_near_names() -> None:
    """A misspelt column is found when the columns are known, before anything runs."""
    with pytest.raises(DefinitionError, match=r"check 'x': .*got 'arr_dely'\. Did you mean the column 'arr_delay'"):
        parse("arr_dely > 15").check_columns(["arr_delay", "origin"], where="check 'x'")


def test_a_column_of_the_wrong_kind_is_refused() -> None:
    """Kinds of columns are checked against every place where they stand."""
    rule = parse("a - b > 15")
    rule.check_columns({"a": "number", "b": None})
    for kinds in ({"a": "text", "b": None}, {"a": "time", "b": "time"}):
        with pytest.raises(DefinitionError, match=r"arithmetic must be of|this must be a duration"):
            rule.check_columns(kinds)
        with pytest.raises(DefinitionError, match=r"arithmetic must be of|this must be a duration"):
            rule.to_sql(kinds=kinds)


def test_an_unknown_kind_is_refused() -> None:
    """A type name of some engine in place of a kind is a mistake, not an unknown."""
    with pytest.raises(DefinitionError, match="got 'BIGINT'"):
        parse("a > 1").check_columns({"a": "BIGINT"})  # type: ignore[dict-item]  # the mistake under test


def test_import_and_use_load_nothing_heavy() -> None:
    """A definitions module stays light: no engine and no SQL parser is loaded, not even by parsing."""
    code = (
        "import sys; from retrodict.core.expressions import parse; parse('a > 1').to_sql();"
        "print([m for m in ('sqlglot', 'duckdb', 'numpy', 'polars', 'pyarrow', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
