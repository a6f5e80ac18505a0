"""``features extend, frames``: training frames that are kept as tables: let them grow, see what they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command
from retrodict.cli._features import defined_features
from retrodict.cli._spine import open_spine
from retrodict.cli._text import count, facts, short_hash, table, when
from retrodict.cli._types import complete
from retrodict.cli.features import features
from retrodict.cli.features_frames import ENGINE, MASTER, Engine, chosen_features, frames_of, grown, said

if TYPE_CHECKING:
    from retrodict.features.offline.kept_frame import KeptFrame
    from retrodict.workspace import Workspace


@command(features, "extend", examples=["retrodict features extend", "retrodict features extend departures"])
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete(frames_of))
@ENGINE
@MASTER
def extend(session: Session, names: tuple[str, ...], engine: str, master: str | None) -> Answer:
    """Bring kept frames up to the newest rows of the tables that are their spines.

    All of them, or those named; a frame that reads another one comes after it. A frame that was made from a file grows
    by `features offline` with the longer file.
    """
    from retrodict.features.offline.kept_writer import keep_frame

    place, project = Engine(engine, master), session.project.workspace
    done: list[dict[str, Any]] = []
    with session.progress("extend") as progress:
        for frame in _in_order(project, names):
            if frame.spine_table is None:
                continue
            at = frame.origin["at"]
            chosen, columns, types = chosen_features(project, frame.origin["columns"], at)
            with (
                open_spine(project, f"dataset:{frame.spine_table}", types) as spine,
                place.work(project, at, chosen, columns, progress) as work,
            ):
                done.append(grown(keep_frame(project, frame.name, spine, work, progress=progress)))
    text = [said(each) for each in done] or ["No frame of a table is kept: there is nothing to extend."]
    return Answer({"frames": done}, text)


def _in_order(project: Workspace, names: Sequence[str]) -> list[KeptFrame]:
    """Kept frames, each after those that it is made from."""
    from retrodict.core.errors import InputError
    from retrodict.features.offline.kept_frame import find_frame, kept_frames

    known = {frame.name: frame for frame in kept_frames(project)}
    for name in names:
        if find_frame(project, name).spine_table is None:
            raise InputError(
                "a frame that grows by itself has a table as its spine", where=f"frame {name}",
                got=known[name].origin["spine"]["origin"],
                remedy="Run retrodict features offline with the longer file and --keep",
            )  # fmt: skip
    reads = {
        name: {frame.spine_table, *(each["table"] for each in frame.origin["sources"].values())} & known.keys()
        for name, frame in known.items()
    }
    ordered = TopologicalSorter({name: read - {name} for name, read in reads.items()}).static_order()
    return [known[name] for name in ordered if not names or name in names]


@command(features, "frames", examples=["retrodict features frames", "retrodict features frames departures --json"])
@click.argument("name", required=False, metavar="[NAME]", shell_complete=complete(frames_of))
def frames(session: Session, name: str | None) -> Answer:
    """List the kept training frames, or show one: spine, features, table versions, with hashes.

    Their rows are shown by `data show`, their versions by `data history`.
    """
    from retrodict.features.offline.kept_frame import find_frame, kept_frames

    project = session.project.workspace
    if name is not None:
        return _show(project, find_frame(project, name))
    found = kept_frames(project)
    if not found:
        return Answer({"frames": []}, "No frame is kept yet: retrodict features offline --keep NAME")
    rows = [
        (f.name, f.version, f.rows, f.origin["spine"]["origin"], f.origin["at"], len(f.origin["columns"]), _state(f))
        for f in found
    ]
    listed = table(("name", "version>", "rows>", "spine", "at", "features>", "state"), rows)
    return Answer({"frames": [frame.to_dict() for frame in found]}, listed)


def _state(frame: KeptFrame) -> str:
    return "whole" if frame.origin["complete"] else "interrupted: run the command again"


def _show(project: Workspace, frame: KeptFrame) -> Answer:
    origin, spine = frame.origin, frame.origin["spine"]
    now = {each.name: each.version for each in defined_features(project)}
    versions = {each["table"]: each["version"] for each in origin["sources"].values()}
    newest = {name: project.tables.history(name)[-1].version for name in versions if project.tables.history(name)}
    head = facts({
        "frame": f"{frame.name}@{frame.version}", "rows": frame.rows, "state": _state(frame),
        "spine": f"{spine['origin']}, {len(spine['parts'])} parts", "at": origin["at"],
        "latest row": None if origin["until"] is None else when(origin["until"]),
        "code": short_hash(origin["code"]["object"]), "features": origin["columns"],
    })  # fmt: skip
    made = [
        (
            name,
            short_hash(version),
            "as now" if now.get(name) == version else "changed since" if name in now else "gone",
        )
        for name, version in origin["features"].items()
    ]
    read = [
        (source, f"{each['table']}@{each['version']}", newest.get(each["table"]), short_hash(each["files"]))
        for source, each in origin["sources"].items()
    ]
    parts = [(count(rows), short_hash(digest)) for rows, digest in spine["parts"]]
    shown = [head, "", table(("made by", "version", "is"), made), "",
             table(("source", "read from", "newest>", "files"), read), "",
             table(("rows of the spine>", "SHA-256"), parts)]  # fmt: skip
    return Answer({**frame.to_dict(), "defined": now, "newest": newest}, shown)
