"""Results lay themselves out: nothing splits, nothing is unescaped, the least important column goes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retrodict.core.display import Facts, Grid, Tree, html_of, text_of

EVIL = "<script>alert('x')</script>"


def test_everything_is_escaped_in_html() -> None:
    """Cells, headings, titles, facts, labels and plain text."""
    tree = Tree(EVIL)
    tree.add(EVIL)
    page = html_of([EVIL, Grid([EVIL], [[EVIL]], EVIL), Facts({EVIL: EVIL}, EVIL), tree])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 9


def test_the_least_important_column_is_left_out_first() -> None:
    """By its mark, and its name is told."""
    grid = Grid(("name", "batch?", "why"), [("flights", "b" * 30, "w" * 40)])
    text = text_of([grid], width=60)
    assert "batch" in text.splitlines()[-1]
    assert "w" * 40 in text


@given(
    st.lists(st.tuples(st.text("abc ", max_size=30), st.integers(0, 10**9), st.text("xyz", max_size=25)), max_size=4)
)
def test_no_word_and_no_number_is_split(rows: list[tuple[str, int, str]]) -> None:
    """Whatever is shown of a table is shown whole."""
    text = text_of([Grid(("first", "second>", "third"), rows)], width=60)
    for _, number, word in rows:
        assert f"{number:,}" in text
        assert word in text
    assert max(map(len, text.splitlines()), default=0) <= 60 + len("(not shown in 60 columns: first, second, third)")


def test_a_column_of_nothing_is_shown():
    """Without a heading and without a cell that says anything, in whatever width."""
    grid = Grid(("name", ""), [("flights", ""), ("a long name of two words", "")])
    for width in (None, 10, 80):
        assert "flights" in text_of([grid], width=width)
