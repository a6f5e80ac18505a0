"""The notebooks of the README's walks run in a kernel, whose cells run inside an event loop."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_project"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory):
    """The notebook of the whole walk, executed beside its data."""
    return executed("walk.ipynb", tmp_path_factory.mktemp("notebook"))


def executed(notebook: str, folder: Path):
    """A notebook, executed in a folder with its data."""
    for name in (notebook, "invoices.csv"):
        shutil.copy(EXAMPLE / name, folder)
    book = nbformat.read(folder / notebook, as_version=4)
    client = nbclient.NotebookClient(book, timeout=200, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute()
    return book


def outputs(book, kind: str) -> str:
    """Everything that cells show in one form."""
    data = [output.get("data", {}) for cell in book.cells for output in cell.get("outputs", [])]
    return "\n".join(str(part[kind]) for part in data if kind in part)


def test_the_walk_ends_in_a_verified_ledger(notebook) -> None:
    """From definitions in a cell to a decision that replays exactly and an audit without a finding."""
    text = outputs(notebook, "text/plain")
    assert "accepted" in text
    assert "exact" in text
    assert "Nothing differs: what is defined is what stands." in text
    assert "Verified: everything is as it was written." in text


def test_results_are_shown_as_tables_and_pictures(notebook) -> None:
    """HTML for results and for the pandas frame that came back, SVG for the plot."""
    assert "<table" in outputs(notebook, "text/html")
    assert "habits__mean_days_late_60d" in outputs(notebook, "text/html")
    assert "<svg" in outputs(notebook, "image/svg+xml")


def test_features_alone_and_a_plain_table(tmp_path: Path) -> None:
    """A service with no model, a view without an entity, and a table that no view reads: its cells compare values."""
    text = outputs(executed("features.ipynb", tmp_path), "text/plain")
    for line in ("reminders  equal", "mood    2 ok", "added    2", "service:reminders", "Nothing differs",
                 "Verified: everything is as it was written."):  # fmt: skip
        assert line in text
