"""Pages: everything is escaped, nothing is fetched, and a page reads well on paper."""

from __future__ import annotations

import subprocess
import sys

import pytest
from jinja2 import UndefinedError

from retrodict.core.display import Facts, Grid, Tree
from retrodict.core.errors import MissingExtraError
from retrodict.pages import Details, Figure, Note, Row, Section, document, plot, render, themed

EVIL = "<script>alert('1 & 2')</script>"


def test_every_block_escapes_its_text() -> None:
    """Markup in a title, a heading, a name or a cell is shown; only a drawing enters as it is."""
    grid = Grid([EVIL], [[EVIL]], title=EVIL)
    blocks = [EVIL, Facts({EVIL: EVIL}, title=EVIL), grid, Note(EVIL), Details(EVIL, [EVIL]), Section(EVIL, [EVIL]),
              Tree(EVIL, [Tree(EVIL), grid])]  # fmt: skip
    text = document(EVIL, [*blocks, Row([[*blocks], Figure("<svg/>")]), None])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 36
    assert "<svg/>" in text


def test_a_table_without_rows_is_left_out() -> None:
    """No heading stands over nothing."""
    text = document("report", [Grid(["gate", "status"], [], title="Gates"), Grid(["fact"], [["exact"]])])
    assert text.count("<table>") == 1
    assert "Gates" not in text


def test_numbers_are_aligned_and_times_stay_on_one_line() -> None:
    """A heading that ends in ``>`` aligns its column; a time is never broken at a hyphen."""
    text = document("report", [Grid(["at", "rows>"], [["2013-01-02T10:00:00Z", 336776]]), Facts({"day": "2013-01-02"})])
    assert '<td class="right">336,776</td>' in text
    assert '<td class="time">2013-01-02 10:00</td>' in text
    assert '<dd class="time">2013-01-02</dd>' in text


def test_a_sentence_in_a_table_has_room_on_a_narrow_screen() -> None:
    """The table scrolls instead of setting one word below the other."""
    text = document("x", [Grid(("trigger", "reason"), [("psi > 0.25", "psi is 0.3 " * 5)])])
    assert "<td>psi &gt; 0.25</td>" in text
    assert '<td class="sentence">psi is' in text
    assert "td.sentence { min-width:" in text


def test_a_value_that_a_template_names_must_be_there() -> None:
    """A page with a hole is not made."""
    with pytest.raises(UndefinedError, match="title"):
        render("document.html", blocks=[])


def test_a_plot_without_its_library_says_how_to_install_it() -> None:
    """The page is made all the same."""

    def draw() -> str:
        raise MissingExtraError("matplotlib", "plots", needed_for="a plot")

    assert plot(lambda: "<svg/>") == Figure("<svg/>")
    assert "pip install &#39;retrodict[plots]&#39;" in document("report", [plot(draw)])


def test_a_drawing_takes_the_colours_of_the_page_and_ids_of_its_own() -> None:
    """Dark mode reaches into drawings, and two of them never share an id."""
    svg = '<style>*{}</style><g id="a" style="fill: #1f2933"/><use href="#a"/>'
    assert themed(svg, "k") == '<g id="k-a" style="fill: var(--ink)"/><use href="#k-a"/>'


def test_jinja_is_loaded_by_the_first_page() -> None:
    """Importing what makes pages does not load the library that fills them."""
    code = "import sys, retrodict.pages, retrodict.data.profiling; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
