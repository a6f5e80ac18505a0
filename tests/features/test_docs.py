"""The snippets of docs/features.md run, in order, as one program."""

import re
import sys
from pathlib import Path


def test_snippets_run(tmp_path, monkeypatch):
    """Every python block of the page, with its assertions."""
    page = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) >= 5
    (tmp_path / "features_page.py").write_text("\n".join(blocks), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "features_page", raising=False)
    __import__("features_page")
