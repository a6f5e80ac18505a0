"""docs/monitoring.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"


def test_the_snippets_of_the_page_run_in_order(tmp_path, monkeypatch):
    """One reader, one session: each snippet continues the one before."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 9
    exec(compile("\n".join(snippets), PAGE.name, "exec"), {})
