"""Sealing the decision log, and proving that one decision is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from retrodict.core.display import Block, Facts, Grid, Shown, short_hash
from retrodict.core.errors import BusyError
from retrodict.decisions.log import STREAM_PREFIX, find_decision
from retrodict.ledger import Proof, Seal, prove, seal_closed
from retrodict.ledger.merkle import leaf_hash, root_from_proof
from retrodict.workspace import Workspace

__all__ = ["DecisionProof", "SealReport", "prove_decision", "seal_decisions"]


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
            f"A running process writes {streams}: its open segment is sealed when it stops." if self.busy else None,
        ]


def seal_decisions(workspace: Workspace) -> SealReport:
    """Close the open segment of every decision stream that no process writes, and seal what is closed.

    Servers do it by themselves when they stop; this is for after a crash, or after deciding in this process.
    """
    busy = []
    for stream in workspace.streams.names(STREAM_PREFIX):
        if all(segment.closed for segment in workspace.streams.segments(stream)):
            continue
        try:
            with workspace.streams.open_writer(stream, timeout_s=0.0) as writer:
                writer.roll()
        except BusyError:
            busy.append(stream)
    return SealReport(seal_closed(workspace.ledger, workspace.streams, STREAM_PREFIX), busy)


@dataclass(frozen=True, slots=True, repr=False)
class DecisionProof(Shown):
    """Inclusion proof of one decision.

    Attributes
    ----------
    decision : str
        ``decision:ULID``.
    leaf : str
        Hash of the record as it is in the log now.
    proof : Proof
        The way from the leaf to the sealed root.
    holds : bool
        Whether leaf and proof give the root that the ledger sealed.
    """

    decision: str
    leaf: str
    proof: Proof
    holds: bool

    @property
    def ok(self) -> bool:
        """Whether the proof holds."""
        return self.holds

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {"decision": self.decision, "leaf": self.leaf, **asdict(self.proof), "holds": self.holds}

    def blocks(self) -> Sequence[Block | None]:
        """Place, root and verdict."""
        proof = self.proof
        return [Facts({
            "decision": self.decision, "record": f"{proof.stream} at {proof.offset}",
            "leaf": f"{proof.index} of {proof.size}", "hashes": len(proof.path), "root": proof.root,
            "ledger entry": str(proof.sequence), "holds": self.holds,
        })]  # fmt: skip


def prove_decision(workspace: Workspace, ref: str) -> DecisionProof:
    """Prove that a decision is in the sealed log; NotFoundError if it is not, or not sealed yet."""
    logged = find_decision(workspace, ref)
    proof = prove(workspace.ledger, workspace.streams, logged.stream, logged.offset)
    leaf = leaf_hash(next(data for _, data in workspace.streams.read(logged.stream, logged.offset, 1)))
    root = root_from_proof(leaf, proof.index, proof.size, [bytes.fromhex(node) for node in proof.path])
    holds = root is not None and root.hex() == proof.root
    return DecisionProof(f"decision:{logged.record.id}", leaf.hex(), proof, holds)
