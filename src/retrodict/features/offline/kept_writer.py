"""Training frames that are kept: tables of the project that grow with their spine.

A kept frame is a table like any other, so it is shown, tagged, compared and vacuumed like one, and a
:class:`~retrodict.Source` may read it. Each of its versions says which rows of the spine it holds and everything they
were made from; so a frame that was interrupted, and one whose spine got more rows, are the same case.

Growing is exact: rows stay only where making the frame anew from the newest tables would give them again, which
:mod:`retrodict.features.offline.growth` checks. Rejected: a second kind of file beside the tables, and making a frame
anew without being told to when what it is made of changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from retrodict.core.errors import BusyError, InputError
from retrodict.core.identity import content_hash
from retrodict.data._records import BATCH, CHECKS, MODE
from retrodict.data.versions.refs import added_digests
from retrodict.features.facts.columns import pick_times
from retrodict.features.offline.growth import source_versions, visible_growth
from retrodict.features.offline.kept_frame import NOTE, PART, KeptFrame, find_frame, newest_origin, stored
from retrodict.features.offline.spine import Spine, SpineReader
from retrodict.features.offline.work import FrameWork
from retrodict.stores.tables.content import table_digest
from retrodict.workspace import Workspace
from retrodict.workspace.code import capture_code

__all__ = ["keep_frame"]

_COMMIT = 1 << 21  # rows of the spine that are a version of their own


def keep_frame(
    workspace: Workspace,
    name: str,
    spine: Spine,
    work: FrameWork,
    *,
    anew: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> KeptFrame:
    """Bring a kept frame up to its spine: only rows that are not there yet are computed.

    Every two million rows are a version of their own, so a process that is killed loses at most those it was at; the
    same call goes on. Each version has its entry in the ledger, with what it was made from.

    Parameters
    ----------
    workspace : Workspace
    name : str
        Table of the frame, which holds nothing else.
    spine : Spine
        One row per decision. More rows at the end than before: those are computed.
    work : FrameWork
        What to compute of them.
    anew : bool, default False
        Whether a frame that does not fit what is asked is made anew, as a new version; older ones stay readable.
    progress : callable, optional
        Called with (what, rows done, rows). None: silent.

    Raises
    ------
    InputError
        If the table holds something else; if the frame was made from something else (another time column, other
        features, a spine that does not begin with its rows, tables that were rewritten or got rows that its rows could
        have seen) and ``anew`` is False; or as :func:`~retrodict.features.offline.training_frame`.
    BusyError
        If another process keeps or writes the table for longer than a minute.
    """
    where, report = f"frame {name}", progress or (lambda _what, _done, _total: None)
    schema = spine.rows().schema
    if PART in schema.names:
        raise InputError(
            "a spine must leave this column to the table of its frame",
            where=where,
            got=PART,
            remedy="Rename the column of the spine",
        )
    with workspace.lock(f"ingest/{name}"):
        complete_ledger(workspace, name)
        description = _made(workspace, spine, schema, work)
        report("looking at what is there", 0, spine.count)
        origin, reader = newest_origin(workspace.tables, name), SpineReader(spine.rows())
        parts: list[list[Any]] = []
        until = None
        if origin is not None:
            why = _difference(workspace, work, origin, description, reader)
            if why is None:
                parts, until = list(origin["spine"]["parts"]), origin["until"]
            elif anew:
                reader = SpineReader(spine.rows())
            else:
                raise InputError(
                    "a kept frame must be made of the same features, spine and tables to grow",
                    where=where, got=why,
                    remedy="Make it anew as a new version with --anew, or keep it under another name",
                )  # fmt: skip
        before = sum(rows for rows, _ in parts)
        while reader.more or not parts:
            part = reader.take(_COMMIT)
            until = _latest(part, work.at, until)
            parts = [*parts, [part.num_rows, table_digest(part)]]
            note = {**description, "until": until, "complete": not reader.more}
            note["spine"] = {**description["spine"], "parts": parts}
            _write(workspace, name, _counted(work.batches(part), partial(report, where), parts, spine.count), note)
        complete_ledger(workspace, name)
        frame = find_frame(workspace, name)
    return replace(frame, computed=frame.rows - before)


def _made(workspace: Workspace, spine: Spine, schema: pa.Schema, work: FrameWork) -> dict[str, Any]:
    code = capture_code(workspace)
    return {
        "at": work.at,
        "features": {feature.name: feature.version for feature in work.features.features},
        "columns": list(work.columns),
        "code": {"beside": _beside(workspace, code) if work.features.derived else None, "object": code},
        "spine": {"ref": spine.ref, "origin": spine.origin, "columns": [[f.name, str(f.type)] for f in schema]},
        "sources": source_versions(workspace.tables, work.features, work.versions),
    }


def _beside(workspace: Workspace, code: str) -> str:
    """Hash of the Python files beside the definitions: functions in them are no part of a derived function's hash."""
    body = json.loads(workspace.objects.get(code))
    return content_hash({name: text for name, text in body["files"].items() if name != body["definitions"]})


def _latest(part: pa.Table, at: str, until: int | None) -> int | None:
    moments, present = pick_times(part, at, where="spine")
    newest = [int(np.max(moments[present]))] if present.any() else []
    return max([*newest, *([] if until is None else [until])], default=None)


def _difference(
    workspace: Workspace,
    work: FrameWork,
    origin: Mapping[str, Any],
    description: Mapping[str, Any],
    reader: SpineReader,
) -> str | None:
    """Why a frame cannot grow to what is asked; None if it can, with the rows that it holds taken from the spine."""
    if not origin:
        return "its newest version was not written by this command"
    for what, then, now in (
        ("features", sorted(origin["features"].items()), sorted(description["features"].items())),
        ("columns", [[name, ""] for name in origin["columns"]], [[name, ""] for name in description["columns"]]),
        ("columns of the spine", origin["spine"]["columns"], description["spine"]["columns"]),
    ):
        if then != now:
            return f"{what}: {_changed(dict(then), dict(now))}"
    if origin["at"] != description["at"]:
        return f"times in column {description['at']} instead of {origin['at']}"
    if origin["code"]["beside"] != description["code"]["beside"]:
        return "Python files beside the definitions changed, which derived functions may call"
    why = visible_growth(workspace.tables, work.features, origin["sources"], description["sources"], origin["until"])
    parts = origin["spine"]["parts"]
    if why is None and not all(table_digest(reader.take(rows)) == digest for rows, digest in parts):
        return "the spine does not begin with the rows that the frame holds"
    return why


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    parts = {
        "added": [name for name in now if name not in then],
        "removed": [name for name in then if name not in now],
        "changed": [name for name in now if name in then and then[name] != now[name]],
    }
    return ", ".join(f"{word} {', '.join(names)}" for word, names in parts.items() if names) or "in another order"


# the table ------------------------------------------------------------------------------------------------------------


def _counted(
    frames: Iterator[pa.Table], tell: Callable[[int, int], None], parts: list[list[Any]], total: int
) -> Iterator[pa.Table]:
    done = sum(rows for rows, _ in parts[:-1])
    for frame in frames:
        tell(done, total)
        yield frame
        done += frame.num_rows


def _write(workspace: Workspace, name: str, frames: Iterator[pa.Table], note: dict[str, Any]) -> None:
    parts = note["spine"]["parts"]
    batch = content_hash(
        {"frame": name, **{key: note[key] for key in ("at", "features", "columns", "spine", "sources")}}
    )
    first = next(frames)
    note["maps"] = [field.name for field in first.schema if pa.types.is_map(field.type)]
    schema = stored(first.slice(0, 0), batch).schema
    batches = (rows_batch for frame in chain([first], frames) for rows_batch in stored(frame, batch).to_batches())
    rows = pa.RecordBatchReader.from_batches(schema, batches)
    mode = "append" if len(parts) > 1 else "overwrite"
    metadata = {
        MODE: mode,
        BATCH: batch,
        CHECKS: "[]",
        "retrodict.origin": f"frame of {note['spine']['origin']}",
        **{f"retrodict.{count}": str(parts[-1][0]) for count in ("rows_in", "accepted")},
        "retrodict.quarantined": "0",
        NOTE: json.dumps(note),
    }
    expected = len(workspace.tables.history(name))
    written = workspace.tables.write(name, rows, mode=mode, metadata=metadata)  # type: ignore[arg-type]  # one of the two
    if written != expected:
        raise BusyError(
            "one process at a time must write a kept frame",
            where=f"frame {name}",
            got=f"version {written} instead of {expected}",
            remedy=f"Something else wrote the table: go back with retrodict data rollback {name} --to {expected - 1}",
        )


def complete_ledger(workspace: Workspace, name: str) -> None:
    """Append the entries of versions that have none: whoever wrote them may have been killed."""
    for version in workspace.tables.history(name):
        reference = f"dataset:{name}@{version.version}"
        if NOTE not in version.metadata or version.vacuumed:
            continue
        if workspace.ledger.entries(object_id=reference, action="dataset.version"):
            continue
        note, mode = json.loads(version.metadata[NOTE]), version.metadata[MODE]
        rows = int(version.metadata["retrodict.accepted"])
        facts = {
            "batch": version.metadata[BATCH], "mode": mode, "rows_in": rows, "accepted": rows, "quarantined": 0,
            "frame": {key: note[key] for key in ("at", "features", "columns", "complete")},
            "objects": [note["code"]["object"]], "files": added_digests(workspace.tables, name, version.version),
        }  # fmt: skip
        inputs = [(note["spine"]["ref"], "spine"), (f"code:{note['code']['object']}", "code")]
        inputs += [
            (f"dataset:{source['table']}@{source['version']}", "source rows") for source in note["sources"].values()
        ]
        inputs += [(f"view:{view}@{hash_}", "definition") for view, hash_ in note["features"].items()]
        if mode == "append":
            inputs.append((f"dataset:{name}@{version.version - 1}", "previous version"))
        with workspace.ledger.transaction() as tx:
            if not tx.has("dataset.version", reference):
                tx.append("dataset.version", reference, facts, inputs=list(dict.fromkeys(inputs)))
    workspace.ledger.sign_end()
