"""Regular expressions of the subset mean one thing in Python, RE2 (DuckDB) and the regex crate (Polars)."""

import re
from collections.abc import Iterator

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodict.core.errors import DefinitionError
from retrodict.core.expressions import parse
from retrodict.core.expressions.patterns import translate

# Letters that an engine could read otherwise: signs of classes, spaces, controls, marks, a digit that is not ASCII.
LETTERS = "abB09_- \t\n\r\x0b\x1c\x85.,^$]&~|#\\'\"éſK٣́🙂\ud7ff\ue000\U0010ffff"  # noqa: RUF001
texts = st.lists(st.text(LETTERS, max_size=6), min_size=1, max_size=12)

letter = st.sampled_from(LETTERS).map(lambda c: "\\" + c if c in "\\.+*?()|[]{}^$-&~#" else c)
escape = st.sampled_from(list("dDwWsStnrfv")).map(lambda c: "\\" + c)
ends = st.tuples(st.sampled_from("abB09é🙂"), st.sampled_from("abB09é🙂")).map(sorted)
member = st.one_of(letter, escape, ends.map("-".join))
members = st.lists(member, min_size=1, max_size=4).map("".join)
# A class that leaves no character is refused, so what one without \D, \W and \S excludes never adds up to all.
excluded = members.filter(lambda text: not any(short in text for short in (r"\D", r"\W", r"\S")))
class_ = st.one_of(
    st.builds("[{}{}]".format, members, st.sampled_from(["", "-"])),
    st.builds("[^{}{}]".format, excluded, st.sampled_from(["", "-"])),
    st.sampled_from([r"[^\D]", r"[^\W_]", r"[^\S\n]"]),
)
repeat = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,}", "{0,2}", "*?", "{1,3}?"])


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.builds("({}{})".format, st.sampled_from(["", "?:"]), inner)
    sequence = st.lists(st.builds("{}{}".format, st.one_of(letter, class_, group), repeat), max_size=3).map("".join)
    return st.lists(sequence, min_size=1, max_size=3).map("|".join)


atoms = st.one_of(letter, escape, st.just("."), class_)
patterns = st.recursive(st.builds("{}{}".format, atoms, repeat), grown, max_leaves=6)


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def answers(engine: duckdb.DuckDBPyConnection, pattern: str, rows: list[str]) -> list[list[bool]]:
    """What Python, DuckDB and Polars say of each text."""
    expression = parse(f"matches(s, {quoted(pattern)})")
    function = expression.to_row()
    sql = f"SELECT {expression.to_sql()} FROM (SELECT unnest(?) AS s)"
    return [
        [function({"s": text}) for text in rows],
        [found for (found,) in engine.execute(sql, [rows]).fetchall()],
        pl.DataFrame({"s": rows}).select(found=expression.to_polars())["found"].to_list(),
    ]


@settings(deadline=None, max_examples=120)
@given(drawn=st.lists(patterns, min_size=1, max_size=4), rows=texts)
def test_every_engine_gives_the_same_answer(
    engine: duckdb.DuckDBPyConnection, drawn: list[str], rows: list[str]
) -> None:
    """Any pattern of the subset on any text."""
    for pattern in drawn:
        first, second, third = answers(engine, pattern, rows)
        assert first == second == third, pattern


@settings(deadline=None, max_examples=100)
@given(pattern=patterns, rows=texts)
def test_the_rewritten_pattern_means_what_was_written(pattern: str, rows: list[str]) -> None:
    """Python's own reading of the text as it stands, in ASCII, is the meaning of the subset."""
    written = re.compile(pattern, re.ASCII)
    function = parse(f"matches(s, {quoted(pattern)})").to_row()
    assert [function({"s": text}) for text in rows] == [written.fullmatch(text) is not None for text in rows]


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.text(), min_size=1))
def test_length_counts_characters_everywhere(engine: duckdb.DuckDBPyConnection, rows: list[str]) -> None:
    """Code points: a mark that combines is one, a character beyond 16 bits is one."""
    rows = ["e\u0301", "🙂", "👨‍👩‍👧", "", *(text.replace("\0", "") for text in rows)]
    found = parse("length(s)")
    function = found.to_row()
    sql = f"SELECT {found.to_sql()} FROM (SELECT unnest(?) AS s)"
    assert [function({"s": text}) for text in rows] == [len(text) for text in rows]
    assert [n for (n,) in engine.execute(sql, [rows]).fetchall()] == [len(text) for text in rows]
    assert pl.DataFrame({"s": rows}).select(n=found.to_polars())["n"].to_list() == [len(text) for text in rows]


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("[A-Z]{3}", "JFK", True), ("[A-Z]{3}", "xJFK", False), ("[A-Z]{3}", "JFK\n", False), ("^a|b$", "b", True),
        (r"\d+", "12", True), (r"\d+", "١٢", False), (r"\w", "é", False), (r"\s", "\x85", False), (".", "\n", False),
        (r"\D", "\n", True), ("[^a]", "\n", True), ("", "", True), ("", "a", False), (r"a\.b", "axb", False),
        (r"[\w-]+@[\w.]+", "a-b@c.d", True), ("a{2,3}?", "aaa", True), ("(a|b)*c", "abbac", True), (".", "🙂", True),
        ("A", "a", False), (r"\$\{x\}", "${x}", True), ("[a-]", "-", True), ("[^^]", "^", False),
    ],
)  # fmt: skip
def test_one_pattern_by_hand(engine: duckdb.DuckDBPyConnection, pattern: str, text: str, expected: bool) -> None:
    """The whole text, ASCII classes, and a point that is any character but a line feed."""
    assert answers(engine, pattern, [text]) == [[expected]] * 3


@pytest.mark.parametrize("pattern", ["[^a]{1000}", "(.{9}[^é]){100}", r"(\W\D){500}", "(a|b){0,500}"])
def test_the_largest_patterns_compile_everywhere(engine: duckdb.DuckDBPyConnection, pattern: str) -> None:
    """What the limit on written-out repeats admits fits into every engine's own limit."""
    assert answers(engine, pattern, ["x" * 1000]) in ([[True]] * 3, [[False]] * 3)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?=a)", "group must be plain"), ("(?<!a)b", "group must be plain"), ("(?P<n>a)", "group must be plain"),
        ("(?i)a", "group must be plain"), ("(?>a)", "group must be plain"), (r"(a)\1", "backslash must stand before"),
        (r"\bx", "backslash must stand before"), (r"\pL", "backslash must stand before"),
        (r"\x41", "backslash must stand before"), ("a\\", "backslash must stand before"),
        ("a++", "repeat must follow what it repeats"), ("a**", "repeat must follow"), ("*a", "repeat must follow"),
        ("a{2}{3}", "repeat must follow"), ("a{,3}", "must be {m}, {m,} or {m,n}"), ("a{3,2}", "repeat must be {m}"),
        ("a{1001}", "repeat must be {m}"), ("(a{100}){11}", "at most 1000 characters when its repeats are written out"),
        ("a{x}", "repeat must be {m}"), ("a^b", "must stand first only"), ("(^a)", "must stand first only"),
        ("(a", "a group must be closed"), ("a)", "a parenthesis must be opened"), ("[a", "a class must be closed"),
        ("a]", "bracket must be opened"), ("[]", "a class must hold characters"), ("[z-a]", "range must go from"),
        ("[[:alpha:]]", "a class must hold no class"), (r"[^\d\D]", "a class must leave characters to match"),
        (r"[\d-z]", None), (r"[a-\d]", "range must go from"), ("(" * 25 + ")" * 25, "groups must nest at most 24 deep"),
    ],
)  # fmt: skip
def test_what_is_outside_the_subset_is_refused(pattern: str, message: str | None) -> None:
    """What engines read differently, or not at all, is named with its place when the definition is read."""
    if message is None:
        assert translate(pattern) == r"[\-0-9z]"  # a sign after a class is itself, as in Python
        return
    with pytest.raises(DefinitionError) as caught:
        parse(f"matches(s, {quoted(pattern)})", where="check 'x'")
    assert message in str(caught.value)
    assert "check 'x', character 12, pattern character" in str(caught.value) or "written out" in message
