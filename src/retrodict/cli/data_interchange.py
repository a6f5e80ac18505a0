"""``data import-checks``: schemas and suites of other tools as definitions to paste."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command
from retrodict.cli.data import data

if TYPE_CHECKING:
    from retrodict.data.interchange import Imported

_FORMATS = ("great-expectations", "pandera")


@command(
    data,
    "import-checks",
    project=False,
    examples=[
        "retrodict data import-checks suite.json",
        "retrodict data import-checks schema.yaml --table flights >> definitions.py",
    ],
)
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
@click.option("--format", "format_", type=click.Choice(_FORMATS), help="What wrote it.  [default: seen from the file]")
@click.option("--table", "name", metavar="NAME", help="Name of the table.  [default: the file's]")
def import_checks(session: Session, file: str, format_: str | None, name: str | None) -> Answer:
    """Read a suite of Great Expectations or a schema of Pandera and print the table it defines.

    Definitions to paste go to standard output, what has no counterpart (and why) to standard error.
    """
    from retrodict.data.interchange import from_great_expectations, from_pandera
    from retrodict.data.profiling.code import as_python

    kind = format_ or _kind_of(file)
    found = from_pandera(Path(file)) if kind == "pandera" else from_great_expectations(Path(file))
    chosen = name or re.sub(r"\W+", "_", Path(file).stem.split(".")[0].lower()).strip("_") or "imported"
    text = as_python(chosen, found.checks, found.columns, key=())
    if not session.as_json:
        _tell(session, found)
    answer: dict[str, Any] = {
        "table": chosen,
        "format": kind,
        "checks": [check.title for check in found.checks],
        "columns": dict(found.columns),
        "key": list(found.key),
        "unmapped": [each.to_dict() for each in found.unmapped],
        "definition": text,
    }
    return Answer(answer, f"from retrodict import Check, Table\n\n{text}")


def _kind_of(file: str) -> str:
    """Suites have expectations; whatever has none is read as a schema, whose reader says what is wrong with it."""
    from retrodict.core.errors import InputError

    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "the file must be readable as text", where=file, got=type(error).__name__, remedy="Name a JSON or YAML file"
        ) from error
    return "great-expectations" if text.lstrip().startswith("{") and '"expectations"' in text else "pandera"


def _tell(session: Session, found: Imported) -> None:
    lost = [each for each in found.unmapped if not each.partly]
    session.note(f"{len(found.checks)} checks; {len(lost)} not mapped, {len(found.unmapped) - len(lost)} only in part")
    if found.key:
        session.note(f"May serve as the key: {', '.join(found.key)}")
    for each in found.unmapped:
        session.note(f"{'in part' if each.partly else 'not mapped'}: {each.name}: {each.reason}")
