"""Three real tables without a history: every command of the page, then decisions, replays and outcomes."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest

from retrodict import Policy, Project

OUTPUTS = {
    "lend": ["score"],
    "sort": [f'{word}["{name}"]' for word in ("p", "set") for name in ("barbera", "barolo", "grignolino")],
    "offer": ["value", "low", "high"],
}
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8").partition("## Tables without a history")[2]


@pytest.mark.slow
def test_three_tables_go_from_file_to_replayed_decision(tmp_path, monkeypatch, capsys):
    """What is typed works, gates pass, and decisions of each task are replayed exactly."""
    from retrodict.cli.main import run

    folder = shutil.copytree(ROOT / "examples" / "tables", tmp_path / "tables")
    monkeypatch.chdir(folder)
    for line in re.findall(r"^\$ retrodict (.*)$", PAGE.partition("## Time")[0], flags=re.MULTILINE):
        code = run(shlex.split(line))
        output = capsys.readouterr()
        assert code == 0, f"{line}\n{output.out}\n{output.err}"
    with Project(folder, actor="ana") as p:
        for policy, table in (("lend", "credit"), ("sort", "wine"), ("offer", "diamonds")):
            with (folder / f"{table}.csv").open(encoding="utf-8") as stream:
                row = next(csv.DictReader(stream))
            label = p.definitions.get(Policy, policy).model.label
            values = {
                name: _value(text) for name, text in row.items() if name not in ("id", label.expression, "outcome")
            }
            decision = p.decide(policy, key=row["id"], explain=True, **values)
            assert decision.record.fallback is None, decision.record.error
            assert OUTPUTS[policy] == list(decision.record.outputs or ["score"])
            assert decision.replay().exact


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
