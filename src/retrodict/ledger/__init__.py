"""The ledger: an append-only chain of who did what, the lineage beside it, and the proof that neither was touched."""

from retrodict.ledger.chain import Entry
from retrodict.ledger.ledger import Edge, Ledger, Transaction
from retrodict.ledger.segments import Proof, Seal, prove, read_seals, seal_closed
from retrodict.ledger.verify import AuditFinding, AuditReport, verify

__all__ = [
    "AuditReport",
    "Edge",
    "Entry",
    "AuditFinding",
    "Ledger",
    "Proof",
    "Seal",
    "Transaction",
    "prove",
    "read_seals",
    "seal_closed",
    "verify",
]
