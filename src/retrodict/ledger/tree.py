"""A Merkle tree over the entries of the chain (RFC 6962, section 2.1): one entry proves itself without the others.

Leaf ``n`` is made of the hash of entry ``n + 1``, which seals all that the entry says. The roots of complete parts are
stored as they come about, one per entry on average: an entry costs one row more, a proof reads about twenty. What is
stored is an index. Signed checkpoints hold the root, and ``audit verify`` computes it anew from the entries.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select

from retrodict.core.errors import IntegrityError
from retrodict.ledger.chain import Entry
from retrodict.ledger.checkpoints import Checkpoint
from retrodict.ledger.merkle import (
    consistency_spans,
    inclusion_spans,
    join_nodes,
    leaf_hash,
    merkle_root,
    root_from_proof,
    root_of_span,
)
from retrodict.ledger.schema import entries, nodes

__all__ = ["EntryTree"]


class EntryTree:
    """The tree as one connection to the records sees it; a writing one for :meth:`grow`."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._nodes = connection, dict[tuple[int, int], bytes]()

    def grow(self, size: int, *, before: Checkpoint | None = None) -> None:
        """Store what is complete in a tree of so many entries: after each entry, or after many.

        Where what is stored does not give the root that was signed ``before``, other hands were at it: it is an index,
        and made anew from the entries.
        """
        if before is not None and self._differs(before):
            self._connection.execute(delete(nodes))
        leaves = select(entries.c.sequence, entries.c.hash).order_by(entries.c.sequence)
        leaves = leaves.where(entries.c.sequence > 2 * (self._pairs() or 0), entries.c.sequence <= size)
        self._nodes.clear()
        fresh: dict[tuple[int, int], bytes] = {}
        for sequence, hash_ in self._connection.execute(leaves):
            level, position, node = 0, sequence - 1, leaf_hash(bytes.fromhex(hash_))
            fresh[level, position] = node
            while position & 1:
                sibling = fresh.get((level, position - 1)) or self._root_of(level, position - 1)
                level, position, node = level + 1, position >> 1, join_nodes(sibling, node)
                fresh[level, position] = node
        rows = [{"level": level, "position": place, "hash": node.hex()}
                for (level, place), node in fresh.items() if level]  # fmt: skip
        if rows:
            self._connection.execute(insert(nodes), rows)
            self._nodes.clear()

    def _differs(self, before: Checkpoint) -> bool:
        try:
            same = self.root(before.sequence).hex() == before.root
        except (IntegrityError, ValueError):
            return True
        return not same or (self._pairs() or 0) != before.sequence // 2

    def _pairs(self) -> int | None:
        newest = select(nodes.c.position).where(nodes.c.level == 1).order_by(nodes.c.position.desc()).limit(1)
        last = self._connection.execute(newest).scalar()
        return None if last is None else int(last) + 1

    def root(self, size: int) -> bytes:
        """Root over the first entries."""
        return root_of_span(0, size, self._root_of) if size else merkle_root([])

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Proof that a leaf is in the tree over the first ``size`` entries."""
        return [root_of_span(start, end, self._root_of) for start, end in inclusion_spans(index, size)]

    def consistency(self, first: int, size: int) -> list[bytes]:
        """Proof that the tree over ``size`` entries begins with the one over ``first``."""
        return [root_of_span(start, end, self._root_of) for start, end in consistency_spans(first, size)]

    def holding(self, items: Sequence[Entry], signed: Checkpoint) -> list[Entry]:
        """Those of some entries that the signed tree holds; all of them in a tree from before roots were signed.

        Each is led to the root by the stored nodes, a few per entry. Where that fails other hands were at an entry or
        at the nodes: the hashes of all entries tell which.
        """
        if not signed.root:
            return list(items)
        proved = [entry for entry in items if self._holds(entry, signed)]
        if len(proved) == len(items):
            return proved
        hashes = select(entries.c.hash).where(entries.c.sequence <= signed.sequence).order_by(entries.c.sequence)
        try:
            root = merkle_root(leaf_hash(bytes.fromhex(hash_)) for hash_ in self._connection.execute(hashes).scalars())
        except (TypeError, ValueError):
            return proved
        return list(items) if root.hex() == signed.root else proved

    def _holds(self, entry: Entry, signed: Checkpoint) -> bool:
        try:
            path = self.inclusion(entry.sequence - 1, signed.sequence)
            leaf = leaf_hash(bytes.fromhex(entry.hash))
        except (IntegrityError, ValueError, TypeError):
            return False
        root = root_from_proof(leaf, entry.sequence - 1, signed.sequence, path)
        return root is not None and root.hex() == signed.root

    def _root_of(self, level: int, position: int) -> bytes:
        if (level, position) not in self._nodes:
            self._nodes[level, position] = self._read(level, position)
        return self._nodes[level, position]

    def _read(self, level: int, position: int) -> bytes:
        if level:
            place = nodes.c.level == level, nodes.c.position == position
            return bytes.fromhex(_stored(self._connection.execute(select(nodes.c.hash).where(*place)).scalar()))
        query = select(entries.c.hash).where(entries.c.sequence == position + 1)
        return leaf_hash(bytes.fromhex(_stored(self._connection.execute(query).scalar())))


def _stored(hash_: str | None) -> str:
    if hash_ is None:
        raise IntegrityError(
            "the tree of the entries must be stored",
            where="ledger",
            got="a part that is missing",
            remedy="The next entry makes it anew; see 'retrodict audit verify'",
        )
    return hash_
