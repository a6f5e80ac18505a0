"""``init`` and ``plan``: begin a project, and see what is to be done next."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command
from retrodict.cli._root import cli
from retrodict.cli._text import count, short_hash, table
from retrodict.core.definition import check_name
from retrodict.core.errors import DefinitionError, RefusedError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_FILES = ("retrodict.toml", "definitions.py", "README.md", ".gitignore")


@command(cli, "init", project=False, examples=["retrodict init flights && cd flights && retrodict plan"])
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Write into a folder that has files of these names: they are overwritten.")
def init(session: Session, folder: Path, force: bool) -> Answer:
    """Make a small project on real flights that works as it is."""
    from importlib import resources

    del session
    template = resources.files("retrodict.cli.template")
    sources = {name: template / name for name in _FILES}
    sources |= {f"data/{item.name}": item for item in sorted((template / "data").iterdir(), key=lambda item: item.name)}
    taken = [name for name in sources if (folder / name).exists()]
    if taken and not force:
        raise RefusedError(
            "no file is overwritten", where=str(folder), got=taken, remedy="Name an empty folder, or say --force"
        )
    for name, source in sources.items():
        _write(folder / name, source, folder.resolve().name)
    written = sorted(sources)
    said = [
        f"Made a project in {folder}: {', '.join(written[:3])} …",
        f"\nNext: cd {folder} && retrodict plan    (README.md has the whole way)",
    ]
    return Answer({"project": str(folder), "files": written}, said)


def _write(target: Path, source: Traversable, name: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    data = source.read_bytes()
    if target.name == "retrodict.toml" and _is_name(name):
        data = data.replace(b'name = "flights"', f'name = "{name}"'.encode())
    target.write_bytes(data)


def _is_name(name: str) -> bool:
    try:
        check_name(name, what="project")
    except DefinitionError:
        return False
    return True


@command(cli, "plan", examples=["retrodict plan", "retrodict plan --json"])
def plan(session: Session) -> Answer:
    """Show what is defined, what stands, and what to do next."""
    from retrodict.cli._plan import read_plan

    with session.progress("plan"):
        found = read_plan(session.project)
    data: dict[str, Any] = {"project": session.project.name, **asdict(found), "next": found.next()}
    parts: list[Any] = []
    if found.tables:
        rows = [
            (t.name, "empty" if t.version is None else f"@{t.version}", count(t.rows), t.quarantined or None)
            for t in found.tables
        ]
        parts += [table(("table", "version", "rows>", "quarantined>"), rows), ""]
    if found.models:
        shown = [
            (m.name, m.newest or "not trained", m.status, m.gates_passed, m.approved, m.stale) for m in found.models
        ]
        parts += [table(("model", "newest", "definition", "gates passed", "approved", "data since"), shown), ""]
    if found.policies:
        deployed = [
            (
                p.name,
                f"#{p.revision}" if p.revision else "not deployed",
                p.model,
                p.status,
                short_hash(p.deployed_version),
            )
            for p in found.policies
        ]
        parts += [table(("policy", "revision", "decides with", "definition", "deployed hash"), deployed), ""]
    steps = found.next()
    parts += (
        ["Next:", *(f"  {step}" for step in steps)] if steps else ["Nothing differs: what is defined is what stands."]
    )
    return Answer(data, parts)
