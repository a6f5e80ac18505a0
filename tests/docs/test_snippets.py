"""Every Python snippet of every page runs: each page is one program, read from top to bottom in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

# Run by the tests of their own room, which also hold the page to more than its snippets.
ELSEWHERE = {
    "expressions.md": "tests/core/test_expressions_docs.py",
    "features.md": "tests/features/test_docs.py",
    "flight-delays.md": "tests/docs/test_tables.py",
    "flight-rollouts.md": "tests/docs/test_flight_rollouts.py",
    "models.md": "tests/models/test_page.py",
    "monitoring.md": "tests/monitoring/test_page.py",
    "time-to-event.md": "tests/docs/test_tables.py",
    "stores.md": "tests/stores/test_stores_docs.py",
}


def program(page: Path) -> str:
    """Snippets of a page, each at the line where it stands, so that an error names the line of the page."""
    text = page.read_text(encoding="utf-8")
    lines: list[str] = []
    for found in SNIPPET.finditer(text):
        start = text.count("\n", 0, found.start(1))
        lines += [""] * (start - len(lines)) + found[1].splitlines()
    return "\n".join(lines)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ELSEWHERE], ids=lambda page: page.name)
def test_the_snippets_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page shows is what happens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("RETRODICT_ACTOR", raising=False)
    exec(compile(program(page), f"docs/{page.name}", "exec"), {"__name__": page.stem})


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_page_that_is_left_out_is_run_elsewhere(name: str) -> None:
    """By a test that reads it."""
    assert (ROOT / "docs" / name).exists()
    assert name in (ROOT / ELSEWHERE[name]).read_text(encoding="utf-8")


def test_every_snippet_is_found() -> None:
    """A fence that is not closed, or indented, would hide the rest of a page."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("```") % 2 == 0, page.name
        assert text.count("```python") == len(SNIPPET.findall(text)), page.name
