"""``demo``: one whole life on real data."""

from __future__ import annotations

from pathlib import Path

import click

from retrodict.cli import _types
from retrodict.cli._command import CommandContext, command, group
from retrodict.cli._root import cli
from retrodict.project import Shown

demo = group(cli, "demo", "See one whole life of a project on real data.")


@command(
    demo,
    "flights",
    project=False,
    examples=["retrodict demo flights", "retrodict demo flights --project demo-project --report demo-report"],
)
@click.option(
    "--project",
    "folder",
    type=_types.FolderPath(Path),
    default=Path("demo-project"),
    show_default=True,
    metavar="DIR",
    help="Folder the project is made in.",
)
@click.option(
    "--report",
    type=_types.FolderPath(Path),
    default=Path("demo-report"),
    show_default=True,
    metavar="DIR",
    help="Folder for report.html and report.json.",
)
def flights(session: CommandContext, folder: Path, report: Path) -> Shown:
    """Live one whole life on the flights of New York in 2013.

    Trains, decides, watches, retrains, promotes, rolls back, replays and audits, and writes a report with the numbers.
    """
    from retrodict.demo.life import run

    with session.progress("flights") as progress:
        return run(folder, report, progress=progress)
