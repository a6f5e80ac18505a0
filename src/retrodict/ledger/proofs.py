"""Proofs to hand over: an entry, or a record of a sealed segment, by a signed root; and that a ledger has only grown.

Each is a plain document that whoever has the public key can check alone, with ``retrodict audit check`` or with any
implementation of RFC 6962 (the hash of an entry is described in ``chain.py``). It holds one entry and about twenty
hashes, and says nothing of other entries.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import select

from retrodict.core.display import Block, Facts, Shown, when
from retrodict.core.errors import InputError, NotFoundError, RetrodictError
from retrodict.ledger._evidence import Claims, check_records
from retrodict.ledger._replay import links_of
from retrodict.ledger.chain import Entry, read_entry
from retrodict.ledger.checkpoints import Checkpoint, scan_checkpoints
from retrodict.ledger.ledger import Ledger
from retrodict.ledger.merkle import is_consistent, leaf_hash, root_from_proof
from retrodict.ledger.schema import edges, entries
from retrodict.ledger.segments import Proof, seal_of
from retrodict.ledger.tree import EntryTree

__all__ = ["LedgerProof", "check_entries", "check_proof", "prove_entry", "prove_growth"]


@dataclass(frozen=True, repr=False)
class LedgerProof(Shown):
    """A proof to hand over, and whether it holds by a key.

    Attributes
    ----------
    document : dict
        What to hand over: plain JSON.
    public_key : str
        Key that its checkpoints have to be signed by, 64 hex digits.
    content : dict, optional
        What the record says, where the document has its bytes.
    """

    document: dict[str, Any]
    public_key: str
    content: dict[str, Any] | None = None

    @classmethod
    def of(cls, ledger: Ledger, document: dict[str, Any]) -> LedgerProof:
        """Proof of a ledger, by the key that is in force there."""
        return cls(document, ledger.public_key)

    @cached_property
    def reason(self) -> str:
        """Why it does not hold; empty if it does."""
        return check_proof(self.document, self.public_key)

    @property
    def kind(self) -> str:
        """What it is a proof of: ``record``, ``entry`` (of no record in particular), or ``growth``."""
        growth = self.document.get("retrodict") == "growth proof"
        return "growth" if growth else "record" if self.document.get("record") else "entry"

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return not self.reason

    def to_dict(self) -> dict[str, Any]:
        """Plain form for ``--json``."""
        return {"holds": self.ok, "proves": self.kind, "reason": self.reason or None, "public_key": self.public_key,
                "content": self.content, "document": self.document}  # fmt: skip

    def blocks(self) -> Sequence[Block | None]:
        """What it shows, by which root and key, and whether it holds."""
        document, checkpoint = self.document, self.document["checkpoint"]
        entry, first, record = (document.get(name) or {} for name in ("entry", "first", "record"))
        sealed = entry.get("action") == "segment.seal" and not record
        return [Facts({
            "proof of": f"{entry.get('action')} of {entry.get('object_id')}, entry {entry.get('sequence')}" if entry
                        else f"entries 1 to {first.get('sequence')} being as they were signed",
            "record": f"{record['index'] + 1} of {record['size']} in that segment" if record
                      else "none: it proves the seal of a segment, and of no decision that it was in there" if sealed
                      else None,
            **{name: value for name, value in (self.content or {}).items() if isinstance(value, str | float)},
            "hashes": len(document["path"]) + len(record.get("path", ())),
            "root": f"{checkpoint.get('root')}, of {checkpoint['sequence']} entries",
            "signed": f"{when(checkpoint['time'])}, by key {checkpoint.get('public_key')}",
            "checked by key": self.public_key,
            "holds": "yes" if self.ok else f"NO: {self.reason}",
        })]  # fmt: skip


def prove_entry(ledger: Ledger, sequence: int, *, record: Proof | None = None, leaf: str = "") -> dict[str, Any]:
    """Proof that an entry is in the ledger, and a record in the segment that it seals.

    Parameters
    ----------
    ledger : Ledger
    sequence : int
        Number of the entry.
    record : Proof, optional
        Of a record of the sealed segment.
    leaf : str
        Its leaf hash, in hex.

    Raises
    ------
    NotFoundError
        If there is no such entry.
    """
    with ledger.records.read() as connection:
        row = connection.execute(select(entries).where(entries.c.sequence == sequence)).mappings().first()
        checkpoint = ledger.newest_checkpoint(connection)
        if checkpoint is not None and not checkpoint.root:
            raise NotFoundError(
                "the newest checkpoint must have the root of the tree", where="ledger", got="one from before",
                remedy="Any entry makes one, such as: retrodict data tag TABLE NAME",
            )  # fmt: skip
        if row is None or checkpoint is None or sequence > checkpoint.sequence:
            raise NotFoundError(
                "the entry must exist and be signed", where="ledger", got=sequence, remedy="See 'retrodict audit log'"
            )
        entry = read_entry(dict(row))
        path = EntryTree(connection).inclusion(sequence - 1, checkpoint.sequence)
    document = {
        "retrodict": "entry proof",
        "entry": None if entry is None else asdict(entry),
        "path": [node.hex() for node in path],
        "checkpoint": asdict(checkpoint),
    }
    if record is not None:
        document |= {"record": {"leaf": leaf, "index": record.index, "size": record.size, "path": record.path}}
    return document


def prove_growth(ledger: Ledger, first: int) -> dict[str, Any]:
    """Proof that the ledger of now begins with what was signed up to entry ``first``: nothing before was changed.

    Raises
    ------
    NotFoundError
        If no checkpoint of that entry holds a root.
    """
    rooted = [one for _, one in scan_checkpoints(ledger.checkpoint_folder) if one is not None and one.root]
    before = next((one for one in rooted if one.sequence == first), None)
    with ledger.records.read() as connection:
        checkpoint = ledger.newest_checkpoint(connection)
        if before is None or checkpoint is None or first > checkpoint.sequence:
            numbers = [one.sequence for one in rooted]
            raise NotFoundError(
                "a checkpoint with the root of the tree must be of this entry", where="checkpoints", got=first,
                remedy=f"There are some from entry {min(numbers)} to {max(numbers)}" if numbers else "There is none",
            )  # fmt: skip
        path = EntryTree(connection).consistency(first, checkpoint.sequence)
    return {
        "retrodict": "growth proof",
        "first": asdict(before),
        "path": [node.hex() for node in path],
        "checkpoint": asdict(checkpoint),
    }


def check_entries(ledger: Ledger, object_ids: Collection[str]) -> tuple[list[int], str]:
    """Numbers of the entries on some objects, and the first thing that is wrong with one of them.

    Each must lead to the signed root, and lineage edges and vouched rows must be what it says. Empty: nothing is wrong.
    """
    public_key = ledger.public_key
    query = select(entries.c.sequence).where(entries.c.object_id.in_(sorted(object_ids)))
    with ledger.records.read() as connection:
        items = []
        sequences = list(connection.execute(query.order_by(entries.c.sequence)).scalars())
        for sequence in sequences:
            where = f"entry {sequence}"
            try:
                document = prove_entry(ledger, sequence)
                reason = check_proof(document, public_key)
            except RetrodictError as error:
                return sequences, f"{where}: {error}"
            if reason:
                return sequences, f"{where}: {reason}"
            entry = Entry(**document["entry"])
            stored = connection.execute(
                select(edges.c.sequence, edges.c.position, edges.c.source, edges.c.role, edges.c.target)
                .where(edges.c.sequence == sequence)
            )  # fmt: skip
            if {tuple(row) for row in stored} != set(links_of(sequence, entry.object_id, entry.payload.get("inputs"))):
                return sequences, f"{where}: the lineage edges are not what it says"
            items.append(entry)
        claims = Claims().gather(items, lambda _: True)
        finding = next(check_records(connection, items, claims, None), None)
    return sequences, "" if finding is None else f"{finding.where}: {finding.detail}"


def _statement(fields: object) -> Checkpoint:
    statement = Checkpoint.read(fields)
    if statement is None:
        raise ValueError("no statement")
    return statement


def check_proof(document: Mapping[str, Any], public_key: str) -> str:
    """Why a proof does not hold; empty if it does.

    Parameters
    ----------
    document : mapping
        From :func:`prove_entry` or :func:`prove_growth`.
    public_key : str
        Key of the ledger, 64 hex digits, as it was noted elsewhere.

    Raises
    ------
    InputError
        If it is no such document.
    """
    try:
        checkpoint, path = _statement(document["checkpoint"]), [_bytes(node) for node in document["path"]]
        growth = document["retrodict"] == "growth proof"
        if checkpoint.public_key != public_key or not checkpoint.is_valid():
            return "its checkpoint is not signed by this key"
        if growth:
            first = _statement(document["first"])
            if first.public_key != public_key or not first.is_valid():
                return "its first checkpoint is not signed by this key"
            if first.log != checkpoint.log:
                return "its checkpoints are of two ledgers"
            roots = _bytes(first.root), _bytes(checkpoint.root)
            same = is_consistent(first.sequence, roots[0], checkpoint.sequence, roots[1], path)
            return "" if same else "the later tree does not begin with the earlier one"
        entry = Entry(**document["entry"])
        if not entry.is_intact():
            return "the entry does not give its hash"
        root = root_from_proof(leaf_hash(_bytes(entry.hash)), entry.sequence - 1, checkpoint.sequence, path)
        if root is None or root.hex() != checkpoint.root:
            return "the entry does not lead to the signed root"
        return _check_record(document["record"], entry) if "record" in document else ""
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            "a proof must be a document of 'retrodict audit proof'",
            where="proof",
            got=type(error).__name__,
            remedy="Make it again",
        ) from error


def _bytes(text: str) -> bytes:
    """Bytes of hex digits as they are written here: of two texts for one hash, one is not ours."""
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise ValueError
    return data


def _check_record(record: Mapping[str, Any], entry: Entry) -> str:
    if "bytes" in record and leaf_hash(_bytes(record["bytes"])).hex() != record["leaf"]:
        return "the bytes of the record do not give its leaf"
    seal = seal_of(entry)
    path = [_bytes(node) for node in record["path"]]
    root = root_from_proof(_bytes(record["leaf"]), record["index"], record["size"], path)
    if seal is None or root is None or root.hex() != seal.root or record["size"] != seal.count:
        return "the record does not lead to the root that the entry sealed"
    return ""
