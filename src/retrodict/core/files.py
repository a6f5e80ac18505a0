"""Files that people ask for: pages, pictures, definitions."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_text"]


def write_text(path: str | Path, text: str) -> None:
    """Write a text as UTF-8 into a file; its folder is made if it does not exist."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
