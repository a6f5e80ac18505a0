"""What several rooms' tests need: a project in a folder of its own, and real processes beside the test."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("retrodict.testing")  # before anything imports it: a shipped suite says what differs too

from retrodict.core.clock import Clock, SimulatedClock, parse_time  # noqa: E402
from retrodict.workspace import Workspace  # noqa: E402

START = parse_time("2024-03-01T08:00:00Z")


def pytest_collection_finish() -> None:
    """What imports and collection made stays until the end: no collection of garbage need look through it again.

    It is some 600,000 objects when all tests are collected: half a second, every time that anything collects.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[Callable[..., Workspace]]:
    """Write a project (once) and open it; what was opened is closed with the test."""
    with contextlib.ExitStack() as stack:

        def make(
            definitions: str | None = None,
            *,
            folder: str = "shop",
            actor: str = "ann",
            clock: Clock | None = None,
            settings: str = "",
        ) -> Workspace:
            root = tmp_path / folder
            root.mkdir(exist_ok=True)
            if definitions is not None or not (root / "definitions.py").exists():
                (root / "definitions.py").write_text(definitions or "")
            (root / "retrodict.toml").write_text(f'[project]\nname = "{folder}"\n{settings}')
            return stack.enter_context(Workspace(root, actor=actor, clock=clock or SimulatedClock(START)))

        yield make


class Child:
    """A Python process that runs a script with arguments."""

    def __init__(self, script: str, arguments: tuple[object, ...], compiled: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
                "PYTHONPYCACHEPREFIX": str(compiled),  # most of the time of a short process is imports
                "RETRODICT_ACTOR": "child",
            },
        )

    def line(self) -> str:
        """Next line it prints; empty once it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        """Let a script that waits for a line go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it as a loss of the process does, with no chance to tidy up."""
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> tuple[int, str, str]:
        """Exit code and what it printed, once it has ended."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes of the tests share compiled modules."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def python(compiled: Path) -> Iterator[Callable[..., Child]]:
    """Start a script in a process of its own; it ends with the test at the latest."""
    children: list[Child] = []

    def begin(script: str, *arguments: object) -> Child:
        children.append(Child(script, arguments, compiled))
        return children[-1]

    yield begin
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
        child.process.communicate()
