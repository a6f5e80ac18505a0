"""Lineage as other tools draw and read it: a flowchart of Mermaid, and run events of OpenLineage.

Whatever has an entry in the ledger was made by a run: a training by itself, a table version by its ingest, a revision
of a policy by its deployment. Inputs are what the lineage says it was made from; what a training made is its output.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from retrodict.core.clock import format_time, parse_time
from retrodict.core.display import Block, Shown, Verbatim, shorten
from retrodict.core.identity import is_ulid, ulid_number
from retrodict.decisions.lineage import DecisionLineage, ObjectLineage
from retrodict.ledger.chain import Entry
from retrodict.workspace import Workspace

__all__ = ["FORMATS", "LineageGraph", "lineage_graph"]

FORMATS = ("tree", "mermaid", "openlineage")

Edge = tuple[str, str, str]
"""Target, role, source."""

_SPEC = "https://openlineage.io/spec"
_VERSION = f"{_SPEC}/facets/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet"
_PRODUCER = "urn:retrodict:lineage"


@dataclass(frozen=True, slots=True, repr=False)
class LineageGraph(Shown):
    """Edges around an object, to be drawn or sent.

    Attributes
    ----------
    name : str
        The object that it was asked for.
    format : str
        One of :data:`FORMATS` but the tree.
    edges : sequence of (target, role, source)
        Each once.
    entries : sequence of Entry
        What the ledger says of the targets, in order; of a decision, the record.
    namespace : str
        ``retrodict://`` and the project's name.
    """

    name: str
    format: str
    edges: Sequence[Edge]
    entries: Sequence[Entry]
    namespace: str

    def to_dict(self) -> dict[str, Any]:
        """The text of the drawing, or the events."""
        return {"mermaid": self.mermaid()} if self.format == "mermaid" else {"events": self.events()}

    def blocks(self) -> Sequence[Block | None]:
        """The text as a tool reads it: of events one line for each."""
        if self.format == "mermaid":
            return [Verbatim(self.mermaid())]
        return [Verbatim("\n".join(json.dumps(event, ensure_ascii=False) for event in self.events()))]

    def mermaid(self) -> str:
        """Flowchart from sources to what was made from them, the object itself drawn thick."""
        names = dict.fromkeys([self.name, *(name for target, _, source in self.edges for name in (source, target))])
        places = {name: f"n{place}" for place, name in enumerate(names)}
        lines = [f"  {places[name]}[{_quoted(shorten(name))}]" for name in names]
        lines += [f"  {places[source]} -->|{_quoted(role)}| {places[target]}" for target, role, source in self.edges]
        return "\n".join(["flowchart LR", *lines, f"  style {places[self.name]} stroke-width:4px"])

    def events(self) -> list[dict[str, Any]]:
        """Run events of OpenLineage 2, in order of time; a line of each is what its file transport writes.

        A run has one of its start and one of its end, with the same id; what one entry says began and ended then.
        """
        targets: dict[str, list[str]] = {}
        for target, _, source in self.edges:
            targets.setdefault(source, []).append(target)
        runs = {entry.object_id for entry in self.entries if _is_run(entry)}
        from_runs = {target for target, _, source in self.edges if source in runs} - runs
        begun: dict[str, Entry] = {}
        events: list[dict[str, Any]] = []
        for entry in self.entries:
            name = entry.object_id
            if name in from_runs:  # the events of the run say that it made it
                continue
            first = begun.get(name, entry) if _is_run(entry) else entry
            job = _job(first)
            outputs = [target for target in targets.get(name, ()) if target not in runs] if _is_run(entry) else [name]
            inputs = [source for _, source in _inputs(first)]
            if first is entry:
                begun[name] = entry
                events.append(self._event("START", first, entry, job, inputs, ()))
            if entry.action == "run.start":
                continue
            failed = entry.payload.get("status") == "failed"
            events.append(self._event("FAIL" if failed else "COMPLETE", first, entry, job, inputs, outputs))
        return events

    def _event(  # the parts of an event
        self, kind: str, first: Entry, entry: Entry, job: str, inputs: Iterable[str], outputs: Iterable[str]
    ) -> dict[str, Any]:
        about = _facet("urn:retrodict:facet:entry", actor=entry.actor, action=entry.action, object=entry.object_id,
                       entry=entry.sequence, hash=entry.hash)  # fmt: skip
        job_type = _facet(f"{_SPEC}/facets/2-0-4/JobTypeJobFacet.json#/$defs/JobTypeJobFacet", processingType="BATCH",
                          integration="RETRODICT", jobType=job.partition(".")[0].upper())  # fmt: skip
        return {
            "eventTime": format_time(entry.time),
            "eventType": kind,
            "producer": _PRODUCER,
            "schemaURL": f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
            "run": {"runId": self._run_id(first), "facets": {"retrodict": about}},
            "job": {"namespace": self.namespace, "name": job, "facets": {"jobType": job_type}},
            "inputs": [self._dataset(name) for name in dict.fromkeys(inputs)],
            "outputs": [self._dataset(name) for name in dict.fromkeys(outputs)],
        }

    def _run_id(self, entry: Entry) -> str:
        ulid = entry.object_id.partition(":")[2]
        if is_ulid(ulid):  # the same number, written as UUIDs are
            return str(uuid.UUID(int=ulid_number(ulid)))
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.namespace}/{entry.sequence}/{entry.hash}"))

    def _dataset(self, name: str) -> dict[str, Any]:
        plain, version = _split(name)
        facets = {} if version is None else {"version": _facet(_VERSION, datasetVersion=version)}
        return {"namespace": self.namespace, "name": plain, "facets": facets}


def lineage_graph(workspace: Workspace, lineage: ObjectLineage | DecisionLineage, format: str) -> LineageGraph:  # noqa: A002  # the option's name
    """Lineage in a form for other tools; that of a decision goes on to what the ledger says of what is behind it.

    Parameters
    ----------
    workspace : Workspace
    lineage : ObjectLineage or DecisionLineage
    format : str
        One of :data:`FORMATS` but the tree.
    """
    records = []
    if isinstance(lineage, DecisionLineage):
        facts, log = lineage.facts["decision"], lineage.facts["log"]
        name, edges = facts["id"], lineage.edges()
        edges += [edge for source in dict.fromkeys(source for _, _, source in edges)
                  for edge in workspace.ledger.upstream(source)]  # fmt: skip
        sequence = log.get("ledger_entry") or 0  # 0: not sealed yet
        inputs = [[source, role] for target, role, source in edges if target == name]
        records.append(
            Entry(sequence, parse_time(facts["time"]), "", "decision.record", name, {"inputs": inputs}, "", "")
        )
    else:
        name, edges = lineage.name, [*lineage.made_from, *lineage.used_by]
    edges = list(dict.fromkeys(edges))
    for target in dict.fromkeys(target for target, _, _ in edges):
        entries = workspace.ledger.entries(object_id=target)
        records += [entry for entry in entries if _is_run(entry) or (_inputs(entry) and not target.startswith("run:"))]
    records.sort(key=lambda entry: (entry.time, entry.sequence))
    return LineageGraph(name, format, edges, records, f"retrodict://{workspace.name}")


def _is_run(entry: Entry) -> bool:
    return entry.action in ("run.start", "run.finish")


def _inputs(entry: Entry) -> list[tuple[str, str]]:
    """(role, source) of what an entry says its object was made from."""
    return [(role, source) for source, role in entry.payload.get("inputs", ())]


def _job(entry: Entry) -> str:
    """Name under which the same work is done again: ``train.late_arrival``, ``dataset.flights``."""
    if _is_run(entry):
        return f"{entry.payload.get('kind', 'train')}.{entry.payload.get('model') or entry.payload.get('name') or '-'}"
    kind, _, name = _split(entry.object_id)[0].partition(":")
    return f"{kind}.{name}" if name else f"{kind}.{entry.action.rpartition('.')[2]}"


def _split(name: str) -> tuple[str, str | None]:
    """Name without its version, and the version."""
    for mark in ("@", "#"):
        plain, present, version = name.partition(mark)
        if present:
            return plain, version
    kind, _, rest = name.partition(":")
    return (kind, rest) if kind in ("code", "environment", "run", "decision", "report", "batch") else (name, None)


def _facet(schema: str, **fields: Any) -> dict[str, Any]:
    return {"_producer": _PRODUCER, "_schemaURL": schema, **fields}


def _quoted(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    return f'"{escaped}"'
