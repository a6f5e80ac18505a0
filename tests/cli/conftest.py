"""A way to run the command line: in this process for speed, in a process of its own where that is the point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DEFINITIONS = """
from retrodict import Check, Entity, FeatureView, Label, Model, Monitor, Policy, Recipe, Source, Table, TimeSplit, agg

loans = Table("loans", key="id", columns={"asked": "time", "closed": "time", "lost": "bool", "amount": "float"},
              checks=[Check.between("amount", 0, 1e6)])
people = Table("people", key="person")
closed = Source("closed", loans, event_time="asked", known_at="closed", sequence="id")
history = FeatureView("history", Entity("person"), closed, [agg.count(over="30d")])
defaulted = Label("defaulted", loans, "lost", known_at="closed")
default_risk = Model("default_risk", label=defaulted, decide_at="asked", features=[history],
                     recipe=Recipe("constant", TimeSplit("2020-01-01/2020-03-01")))
grant = Policy("grant", default_risk, decide={"no": "score >= 0.5", "yes": "otherwise"})
watch = Monitor(grant, name="watch")
"""


@dataclass
class Outcome:
    """Exit code and both streams of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object that was printed; fails if there is more or less than one."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with two tables, a model, a policy and a monitor; nothing in it yet."""
    root = tmp_path / "bank"
    root.mkdir()
    (root / "retrodict.toml").write_text('[project]\nname = "bank"\n')
    (root / "definitions.py").write_text(DEFINITIONS)
    (root / "loans.csv").write_text(
        "id,person,asked,closed,lost,amount\n"
        "1,ann,2020-01-05T10:00Z,2020-02-01T10:00Z,false,100\n"
        "2,bob,2020-01-06T10:00Z,2020-02-02T10:00Z,true,250.5\n"
        "3,cid,2020-01-07T10:00Z,2020-02-03T10:00Z,false,-7\n"
    )
    return root


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in this process."""
    from retrodict.cli.main import run as run_arguments

    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        code = run_arguments([str(argument) for argument in arguments])
        caught = capsys.readouterr()
        return Outcome(code, caught.out, caught.err)

    return call


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of processes of their own: compiled files are kept, as an installation keeps them."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**given, "PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled")), "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="session")
def command_line() -> Callable[..., list[str]]:
    """Arguments of a process that runs a command."""
    return lambda *arguments: [sys.executable, "-m", "retrodict", *map(str, arguments)]


@pytest.fixture(scope="session")
def spawn(command_line: Callable[..., list[str]], environment: dict[str, str]) -> Callable[..., Outcome]:
    """Run a command in a process of its own."""

    def call(*arguments: str | Path, cwd: Path | None = None, **more: str) -> Outcome:
        done = subprocess.run(
            command_line(*arguments), cwd=cwd, env={**environment, **more}, capture_output=True, text=True, timeout=280,
            check=False,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call
