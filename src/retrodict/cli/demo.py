"""``demo``: one whole life on real data."""

from __future__ import annotations

from pathlib import Path

import click

from retrodict.cli._command import CommandAnswer, Session, command, group
from retrodict.cli._root import cli
from retrodict.project import Grid

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
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-project"),
    show_default=True,
    metavar="DIR",
    help="Folder the project is made in.",
)
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-report"),
    show_default=True,
    metavar="DIR",
    help="Folder for report.html and report.json.",
)
def flights(session: Session, folder: Path, report: Path) -> CommandAnswer:
    """Live one whole life on the flights of New York in 2013.

    Trains, decides, watches, retrains, promotes, rolls back, replays and audits, and writes a report with the numbers.
    """
    from retrodict.demo.life import run
    from retrodict.demo.report import summary, summary_table

    with session.progress("flights") as progress:
        life = run(folder, report, progress=progress)
    timings = [(chapter, f"{seconds:.1f} s") for chapter, seconds in life["timings"].items()]
    blocks = [summary_table(life), "", Grid(("chapter", "took>"), timings), "", f"Report: {report / 'report.html'}"]
    return CommandAnswer(life, blocks, passed=all(row.ok is not False for row in summary(life)))
