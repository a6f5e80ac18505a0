"""``lineage`` and ``audit``: where a thing came from, and whether anybody touched it since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from retrodict.cli._command import Answer, Session, command, group
from retrodict.cli._root import cli
from retrodict.cli._text import facts, short_hash, table, when
from retrodict.cli._tree import decision_tree, lineage_tree, shorten
from retrodict.cli._types import complete, objects

if TYPE_CHECKING:
    from retrodict.workspace import Workspace

audit = group(cli, "audit", "Verify the ledger, read it, seal the decision log, prove a decision.")


@command(
    cli,
    "lineage",
    examples=[
        "retrodict lineage decision:01J…",
        "retrodict lineage model:late_arrival@1",
        "retrodict lineage dataset:flights@0",
    ],
)
@click.argument("ref", shell_complete=complete(objects))
def lineage(session: Session, ref: str) -> Answer:
    """Show what a thing was made from, and what was made from it."""
    from retrodict.core.identity import Ref

    project = session.project
    parsed = Ref.parse(ref)
    if parsed.kind == "decision":
        from retrodict.decisions.lineage import trace_decision

        found = trace_decision(project, ref)
        return Answer(found, decision_tree(found))
    name = _resolve(project, parsed)
    up, down = project.ledger.upstream(name), project.ledger.downstream(name)
    _check_known(project, name, bool(up or down))
    data = {
        "object": name,
        "made_from": [{"target": target, "role": role, "source": source} for target, role, source in up],
        "used_by": [{"target": target, "role": role, "source": source} for target, role, source in down],
    }
    return Answer(data, lineage_tree(name, up, down))


def _resolve(project: Workspace, ref: Any) -> str:
    """Reference with its version: the newest one where none is written."""
    if ref.version is None and "#" not in ref.name:
        if ref.kind == "model":
            from retrodict.registry import get_version

            return f"model:{get_version(project, ref.name).ref}"
        if ref.kind == "dataset" and (history := project.tables.history(ref.name)):
            return f"dataset:{ref.name}@{history[-1].version}"
        if ref.kind == "policy":
            from retrodict.registry import current

            deployed = current(project)
            if ref.name in deployed:
                return f"policy:{ref.name}#{deployed[ref.name].revision}"
    return str(ref)


def _check_known(project: Workspace, name: str, linked: bool) -> None:
    from retrodict.core.errors import NotFoundError, near

    if not linked and not project.ledger.entries(object_id=name):
        known = {entry.object_id for entry in project.ledger.entries()}
        raise NotFoundError(
            "the ledger knows the object", where="lineage", got=name, remedy=near(name, known, what="object")
        )


@command(audit, "verify", examples=["retrodict audit verify", "retrodict audit verify --json"])
def verify_all(session: Session) -> Answer:
    """Verify that nothing was altered, removed or cut off.

    Recomputes the chain, its signatures, the lineage, the sealed segments and every content hash. Exit code 1 if
    anything is not as it was written.
    """
    from retrodict.ledger import verify

    project = session.project
    with session.progress("audit"):
        report = verify(
            project.ledger, objects=project.objects, streams=project.streams, file_digest=project.tables.file_digest
        )
    found = report.to_dict()
    counts = facts(found["checked"])
    if report.verified:
        return Answer(found, ["Verified: everything is as it was written.", counts])
    rows = [(f.kind, f.where, f.detail) for f in report.findings]
    said = f"NOT verified: {len(rows)} finding{'s' if len(rows) > 1 else ''}."
    return Answer(found, [said, counts, "", table(("finding", "where", "what"), rows)], ok=False)


@command(audit, "log", examples=["retrodict audit log", "retrodict audit log --object model:late_arrival@1"])
@click.option("--object", "ref", metavar="REF", shell_complete=complete(objects), help="Only entries on this object.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Newest entries to show.")
def log(session: Session, ref: str | None, limit: int) -> Answer:
    """Read the ledger: who did what, the newest entry last."""
    entries = session.project.ledger.entries(object_id=ref)
    shown = entries[-limit:]
    rows = [(f"{e.sequence}", when(e.time), e.actor, e.action, shorten(e.object_id), short_hash(e.hash)) for e in shown]
    listed: Any = (
        table(("entry>", "time", "by", "action", "object", "hash"), rows) if rows else "The ledger has no such entry."
    )
    return Answer({"entries": [entry.to_dict() for entry in shown], "total": len(entries)}, listed)


@command(audit, "seal", examples=["retrodict audit seal"])
def seal(session: Session) -> Answer:
    """Seal the decision log, so that each decision can be proved.

    Servers do it by themselves when they stop; this is for after a crash.
    """
    from retrodict.decisions.log import STREAM_PREFIX
    from retrodict.ledger import seal_closed

    project = session.project
    with session.progress("seal"):
        held = _close_segments(project)
        made = seal_closed(project.ledger, project.streams, STREAM_PREFIX)
    data = {
        "sealed": [
            {"stream": s.stream, "segment": s.segment, "records": s.count, "root": s.root, "entry": s.sequence}
            for s in made
        ],
        "held": held,
    }
    rows = [(s.stream, s.segment, s.count, short_hash(s.root), f"{s.sequence}") for s in made]
    said: list[Any] = [
        table(("stream", "segment", "records>", "root", "entry>"), rows) if rows else "There was nothing left to seal."
    ]
    if held:
        said.append(f"A running server writes {', '.join(held)}: its open segment is sealed when the server stops.")
    return Answer(data, said)


def _close_segments(project: Workspace) -> list[str]:
    """Close the last segment of every stream that no process holds (its server died); names of those that are held."""
    from retrodict.core.errors import BusyError
    from retrodict.decisions.log import STREAM_PREFIX

    held = []
    for stream in project.streams.names(STREAM_PREFIX):
        if all(segment.closed for segment in project.streams.segments(stream)):
            continue
        try:
            with project.streams.open_writer(stream, timeout_s=0.0) as writer:
                writer.roll()
        except BusyError:
            held.append(stream)
    return held


@command(audit, "proof", examples=["retrodict audit proof decision:01J…"])
@click.argument("ref", metavar="DECISION")
def proof(session: Session, ref: str) -> Answer:
    """Prove that a decision is in the sealed log."""
    from dataclasses import asdict

    from retrodict.decisions.log import find_decision
    from retrodict.ledger import prove
    from retrodict.ledger.merkle import leaf_hash, root_from_proof

    project = session.project
    logged = find_decision(project, ref)
    found = prove(project.ledger, project.streams, logged.stream, logged.offset)
    record = next(data for _, data in project.streams.read(logged.stream, logged.offset, 1))
    root = root_from_proof(leaf_hash(record), found.index, found.size, [bytes.fromhex(node) for node in found.path])
    holds = root is not None and root.hex() == found.root
    data = {
        "decision": f"decision:{logged.record.id}",
        "leaf": leaf_hash(record).hex(),
        **asdict(found),
        "holds": holds,
    }
    said = facts(
        {
            "decision": data["decision"],
            "record": f"{found.stream} at {found.offset}",
            "leaf": f"{found.index} of {found.size}",
            "hashes": len(found.path),
            "root": found.root,
            "ledger entry": str(found.sequence),
            "holds": holds,
        }
    )
    return Answer(data, said, ok=holds)
