"""Sealing the decision log, and proving that one decision is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from retrodict.core.display import Block, Grid, Shown, short_hash
from retrodict.core.errors import BusyError
from retrodict.decisions.log import STREAM_PREFIX, find_decision
from retrodict.decisions.recorder import open_stream
from retrodict.decisions.records import decode_record
from retrodict.ledger import LedgerProof, Seal, prove, prove_entry
from retrodict.ledger.merkle import leaf_hash
from retrodict.ledger.segments import vouched_seals
from retrodict.workspace import Workspace

__all__ = ["SealReport", "prove_decision", "read_proof", "seal_decisions"]


@dataclass(frozen=True, slots=True, repr=False)
class SealReport(Shown):
    """What was sealed, and the streams that a running process still writes."""

    seals: Sequence[Seal]
    busy: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        seals = [
            {"stream": seal.stream, "segment": seal.segment, "records": seal.count, "root": seal.root,
             "entry": seal.sequence} for seal in self.seals
        ]  # fmt: skip
        return {"sealed": seals, "held": list(self.busy)}

    def blocks(self) -> Sequence[Block | None]:
        """Seals, and what is still to come."""
        rows = [(seal.stream, seal.segment, seal.count, short_hash(seal.root), f"{seal.sequence}")
                for seal in self.seals]  # fmt: skip
        grid = Grid(("stream", "segment", "records>", "root", "entry>"), rows)
        streams = ", ".join(self.busy)
        return [
            grid if rows else "There was nothing left to seal.",
            f"A running process writes {streams}, and seals it by itself." if self.busy else None,
        ]


def seal_decisions(workspace: Workspace) -> SealReport:
    """Seal what is left of every decision stream that no process writes, as far as its signed head says what it is.

    Who writes a stream seals it, and seals first what a crash left of it; this is for where no writer comes back.
    """
    busy: list[str] = []
    seals: list[Seal] = []
    for stream in workspace.streams.names(STREAM_PREFIX):
        sealed = {seal.segment for seal in vouched_seals(workspace.ledger, stream)}
        if all(segment.name in sealed for segment in workspace.streams.segments(stream)):
            continue
        try:
            writer = open_stream(workspace, stream)
        except BusyError as error:
            if error.where != f"stream {stream}":
                raise
            busy.append(stream)
        else:
            writer.close()
            seals += writer.seals
    return SealReport(seals, busy)


def prove_decision(workspace: Workspace, ref: str, *, record: bool = False) -> LedgerProof:
    """Prove that a decision is in the sealed log; with ``record`` the proof has its bytes, and so says what it was.

    Raises
    ------
    NotFoundError
        If it is not in the log, or not sealed yet.
    """
    logged = find_decision(workspace, ref)
    proof = prove(workspace.ledger, workspace.streams, logged.stream, logged.offset)
    data = next(data for _, data in workspace.streams.read(logged.stream, logged.offset, 1))
    document = prove_entry(workspace.ledger, proof.sequence, record=proof, leaf=leaf_hash(data).hex())
    if record:
        document["record"]["bytes"] = data.hex()
    return read_proof(document, workspace.ledger.public_key)


def read_proof(document: dict[str, Any], public_key: str) -> LedgerProof:
    """A proof, with what the record says if it has its bytes and holds."""
    proof = LedgerProof(document, public_key)
    data = document.get("record", {}).get("bytes") if proof.ok else None
    return proof if data is None else replace(proof, content=decode_record(bytes.fromhex(data)).answer())
