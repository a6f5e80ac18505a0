"""``init`` and ``plan``: begin a project, and see what is to be done next."""

from __future__ import annotations

from pathlib import Path

import click

from retrodict.cli._command import Session, command, expose
from retrodict.cli._root import cli
from retrodict.project import Project, Shown


@command(cli, "init", project=False, examples=["retrodict init flights && cd flights && retrodict plan"])
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Write into a folder that has files of these names: they are overwritten.")
def init(session: Session, folder: Path, force: bool) -> Shown:
    """Make a small project on real flights that works as it is."""
    del session
    return Project.write_template(folder, force=force)


expose(cli, "plan", "plan", examples=["retrodict plan", "retrodict plan --json"])
