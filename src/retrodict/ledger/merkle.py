"""Merkle trees over the records of a segment: the root and inclusion proofs of RFC 6962, sections 2.1 and 2.1.1.

Leaves and nodes are hashed with different prefixes (0x00, 0x01), so that a node can never pass for a record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from retrodict.core.errors import InputError

__all__ = ["Frontier", "inclusion_proof", "leaf_hash", "merkle_root", "root_from_proof"]


def leaf_hash(record: bytes) -> bytes:
    """Return SHA-256(0x00 ‖ record)."""
    return hashlib.sha256(b"\x00" + record).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """Return the largest power of two smaller than the size."""
    return 1 << (size - 1).bit_length() - 1


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes; SHA-256 of nothing for an empty list.

    Built level by level: pairing neighbours and carrying an odd last node up gives the same tree as the recursive
    definition of the RFC, without recursion.
    """
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = list(leaves)
    while len(level) > 1:
        paired = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


class Frontier:
    """A tree that only grows, held as the roots of its complete parts: what its root is made of, without the leaves.

    Examples
    --------
    >>> leaves = [leaf_hash(bytes([number])) for number in range(5)]
    >>> frontier = Frontier()
    >>> for leaf in leaves:
    ...     frontier.add(leaf)
    >>> frontier.root() == merkle_root(leaves)
    True
    """

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, leaf: bytes) -> None:
        """Add the leaf that follows."""
        size = self.size
        while size & 1:
            leaf, size = _node(self._parts.pop(), leaf), size >> 1
        self._parts.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Root over all leaves so far."""
        if not self._parts:
            return merkle_root([])
        root = self._parts[-1]
        for part in reversed(self._parts[:-1]):
            root = _node(part, root)
        return root


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Sibling hashes from the leaf up to the root (RFC 6962, PATH).

    Raises
    ------
    InputError
        If there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise InputError(
            "the leaf to prove must be in the tree",
            where="Merkle tree",
            got=index,
            remedy=f"There are {len(leaves)} leaves",
        )
    if len(leaves) <= 1:
        return []
    half = _split(len(leaves))
    if index < half:
        return [*inclusion_proof(leaves[:half], index), merkle_root(leaves[half:])]
    return [*inclusion_proof(leaves[half:], index - half), merkle_root(leaves[:half])]


def root_from_proof(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """Root that a proof leads to, or None if index or length do not fit a tree of this size (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return None
    node, last, path = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return None
        if node & 1 or node == last:
            path = _node(sibling, path)
            while not node & 1 and node != 0:
                node, last = node >> 1, last >> 1
        else:
            path = _node(path, sibling)
        node, last = node >> 1, last >> 1
    return path if last == 0 else None
