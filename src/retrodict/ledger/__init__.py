"""The ledger: an append-only chain of who did what, the lineage beside it, and the proof that neither was touched."""

from retrodict.ledger.chain import Entry
from retrodict.ledger.ledger import Edge, Ledger, Transaction
from retrodict.ledger.segments import SEALED_STREAMS, Proof, Seal, named_segments, prove, read_seals
from retrodict.ledger.verify import AuditFinding, AuditReport, verify
from retrodict.ledger.writer import SealedWriter

__all__ = [
    "SEALED_STREAMS",
    "AuditFinding",
    "AuditReport",
    "Edge",
    "Entry",
    "Ledger",
    "Proof",
    "Seal",
    "SealedWriter",
    "Transaction",
    "named_segments",
    "prove",
    "read_seals",
    "verify",
]
