"""The ledger: an append-only chain of who did what, the lineage beside it, and the proof that neither was touched."""

from retrodict.ledger.chain import Entry
from retrodict.ledger.ledger import Edge, Ledger, Transaction
from retrodict.ledger.proofs import LedgerProof, check_proof, prove_entry, prove_growth
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
    "LedgerProof",
    "Proof",
    "Seal",
    "SealedWriter",
    "Transaction",
    "check_proof",
    "named_segments",
    "prove",
    "prove_entry",
    "prove_growth",
    "read_seals",
    "verify",
]
