"""docs/models.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path

from retrodict.models import list_estimators
from retrodict.models.estimators import _ESTIMATORS

list_estimators()  # which fills it
PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_snippets_of_the_page_run_in_order(tmp_path, monkeypatch):
    """One reader, one session: each snippet continues the one before."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("retrodict.models.estimators._ESTIMATORS", dict(_ESTIMATORS))  # it registers one of its own
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert snippets
    exec(compile("\n".join(snippets), PAGE.name, "exec"), {})
