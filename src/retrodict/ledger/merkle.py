"""Merkle trees over the records of a segment: the root and inclusion proofs of RFC 6962, sections 2.1 and 2.1.1.

Leaves and nodes are hashed with different prefixes (0x00, 0x01), so that a node can never pass for a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from struct import iter_unpack

from retrodict.core.errors import InputError
from retrodict.core.native import kernel

__all__ = [
    "Frontier",
    "complete_levels",
    "consistency_spans",
    "inclusion_proof",
    "inclusion_spans",
    "is_consistent",
    "join_nodes",
    "leaf_hash",
    "merkle_root",
    "root_from_proof",
    "root_of_span",
]


def leaf_hash(record: bytes) -> bytes:
    """Return SHA-256(0x00 ‖ record)."""
    return sha256(b"\x00" + record).digest()


def join_nodes(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\x01" + left + right).digest()


def root_of_span(start: int, end: int, root_of: Callable[[int, int], bytes]) -> bytes:
    """Root over the leaves of a span, of the roots of its complete parts: ``root_of(level, position)``."""
    size = end - start
    if size & (size - 1) == 0:  # a span of a power of two begins at a multiple of it
        return root_of(size.bit_length() - 1, start // size)
    half = start + _split(size)
    return join_nodes(root_of_span(start, half, root_of), root_of_span(half, end, root_of))


def _split(size: int) -> int:
    """Return the largest power of two smaller than the size."""
    return 1 << (size - 1).bit_length() - 1


def merkle_root(leaves: Iterable[bytes]) -> bytes:
    """Root over leaf hashes; SHA-256 of nothing where there are none."""
    tree = Frontier()
    for leaf in leaves:
        tree.add(leaf)
    return tree.root()


def complete_levels(records: bytes | bytearray) -> list[bytes]:
    """Nodes over two leaves, over four … each level as one string; the records are 32 bytes each, one after another."""
    levels = [_level(records, 32, b"\x00")]
    while len(levels[-1]) >= 64:
        levels.append(_level(levels[-1], 64, b"\x01"))
    return levels[1:]


def _part_hashes(items: bytes | bytearray, width: int, prefix: bytes) -> bytes:
    nodes, size = bytearray(), len(items) // width * width
    for start in range(0, size, width << 10):
        parts = iter_unpack(f"{width}s", bytes(items[start : min(start + (width << 10), size)]))
        nodes += b"".join([sha256(prefix + part).digest() for (part,) in parts])
    return bytes(nodes)


_level: Callable[[bytes | bytearray, int, bytes], bytes] = getattr(kernel, "part_hashes", _part_hashes)


class Frontier:
    """A tree that only grows, held as the roots of its complete parts: what its root is made of, without the leaves.

    Examples
    --------
    >>> first, second, third = (leaf_hash(bytes([number])) for number in range(3))
    >>> merkle_root([first, second, third]) == join_nodes(join_nodes(first, second), third)
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
            leaf, size = join_nodes(self._parts.pop(), leaf), size >> 1
        self._parts.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Root over all leaves so far."""
        if not self._parts:
            return sha256(b"").digest()
        root = self._parts[-1]
        for part in reversed(self._parts[:-1]):
            root = join_nodes(part, root)
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
    return [merkle_root(leaves[start:end]) for start, end in inclusion_spans(index, len(leaves))]


def inclusion_spans(index: int, size: int) -> list[tuple[int, int]]:
    """Leaves (from, to) under each hash of an inclusion proof, the nearest to the leaf first."""
    spans, start, end = [], 0, size
    while end - start > 1:
        half = start + _split(end - start)
        spans.append((half, end) if index < half else (start, half))
        start, end = (start, half) if index < half else (half, end)
    return spans[::-1]


def consistency_spans(first: int, size: int) -> list[tuple[int, int]]:
    """Leaves (from, to) under each hash of a proof that a tree of ``size`` leaves begins with one of ``first`` (PROOF).

    Both are at least 1, and ``first`` is not the greater one.
    """
    spans, start, end = [], 0, size
    while first != end:
        half = start + _split(end - start)
        spans.append((half, end) if first <= half else (start, half))
        start, end = (start, half) if first <= half else (half, end)
    return ([(start, end)] if start else []) + spans[::-1]


def is_consistent(first: int, first_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether a proof shows that the larger tree begins with the smaller one (RFC 9162, 2.1.4.2)."""
    spans = consistency_spans(first, size) if 0 < first <= size else []
    if not 0 < first <= size or len(spans) != len(proof):
        return False
    nodes = dict(zip(spans, proof, strict=True))
    if all(end != first for _, end in spans):  # the smaller tree is itself a part of the larger one
        nodes[0, first] = first_root

    def joined(start: int, end: int) -> bytes:
        if (start, end) in nodes:
            return nodes[start, end]
        half = start + _split(end - start)
        return join_nodes(joined(start, half), joined(half, end))

    return joined(0, first) == first_root and joined(0, size) == root


def root_from_proof(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes | None:
    """Root that a proof leads to, or None if index or length do not fit a tree of this size (RFC 9162, 2.1.3.2)."""
    spans = inclusion_spans(index, size) if 0 <= index < size else []
    if not 0 <= index < size or len(spans) != len(proof):
        return None
    for (_, end), sibling in zip(spans, proof, strict=True):
        leaf = join_nodes(sibling, leaf) if end <= index else join_nodes(leaf, sibling)
    return leaf
