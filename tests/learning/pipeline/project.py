"""A project of functions alone: each writes one line when it is executed, so that effects can be counted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from retrodict import Project

HEAD = """
import json, os, time
from pathlib import Path
from retrodict import Pipeline, step

def note(name):
    with open("effects.txt", "a") as stream:
        stream.write(name + "\\n")
"""

FIVE = (
    HEAD
    + """
FACTOR = 2

def double(n):
    return n * FACTOR

@step
def numbers(count: int = 4):
    note("numbers")
    return list(range(count))

@step
def doubled(numbers):
    note("doubled")
    return [double(n) for n in numbers]

@step
def frame(doubled):
    import pyarrow as pa
    note("frame")
    return pa.table({"n": doubled})

@step
def report(frame, doubled):
    note("report")
    Path("report.txt").write_text(f"{frame.num_rows} rows, {sum(doubled)}")
    return Path("report.txt")

@step
def aside(numbers):
    note("aside")
    return str(len(numbers)).encode()

five = Pipeline("five", [report, numbers, doubled, frame, aside])
"""
)


def write(folder: Path, definitions: str) -> Project:
    """A project of a definitions module, opened."""
    (folder / "retrodict.toml").write_text('[project]\nname = "steps"\n')
    (folder / "definitions.py").write_text(definitions)
    return Project(folder, actor="ana", progress=lambda *_: None)


def effects(folder: Path) -> list[str]:
    """Names of the steps that were executed, in order."""
    path = folder / "effects.txt"
    return path.read_text().split() if path.exists() else []


def statuses(run: object) -> Mapping[str, str]:
    """What became of each step."""
    return {step.label: step.status for step in run.steps}  # type: ignore[attr-defined]


def reasons(run: object) -> Mapping[str, str]:
    """Why each step was executed, or not."""
    return {step.label: step.reason for step in run.steps}  # type: ignore[attr-defined]
