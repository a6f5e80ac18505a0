"""The snippets of docs/expressions.md run as they stand."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "expressions.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("place", range(4))
def test_a_snippet_runs(place: int) -> None:
    """Each snippet stands alone and asserts what the page says."""
    exec(compile(SNIPPETS[place], str(PAGE), "exec"), {})


def test_every_snippet_is_run() -> None:
    """A snippet added to the page is added to the tests."""
    assert len(SNIPPETS) == 4
