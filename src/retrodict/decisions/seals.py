"""Sealing the decision log, and proving that one decision is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from retrodict.core.display import Block, Facts, Grid, Shown, short_hash
from retrodict.core.errors import BusyError
from retrodict.decisions.log import STREAM_PREFIX, find_decision
from retrodict.decisions.recorder import open_stream
from retrodict.ledger import Proof, Seal, named_segments, prove
from retrodict.ledger.merkle import leaf_hash, root_from_proof
from retrodict.ledger.segments import vouched_seals
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
        segments = named_segments(workspace.ledger, workspace.streams, stream)
        if all(segment.name in sealed for segment in segments):
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
