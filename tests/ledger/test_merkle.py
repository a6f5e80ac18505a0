"""Merkle trees against the recursive definitions of RFC 6962, written here, and its published vectors."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.core.errors import InputError, NotFoundError
from retrodict.ledger import SealedWriter, prove, read_seals
from retrodict.ledger.merkle import (
    Frontier,
    _level,
    _part_hashes,
    consistency_spans,
    inclusion_proof,
    is_consistent,
    leaf_hash,
    merkle_root,
    root_from_proof,
)
from retrodict.workspace import Workspace

# The leaves and roots that Certificate Transparency's implementations test themselves with.
LEAVES = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def mth(records: list[bytes]) -> bytes:
    """RFC 6962, 2.1: the Merkle Tree Hash of D[n]."""
    n = len(records)
    if n == 0:
        return sha(b"")
    if n == 1:
        return sha(b"\x00" + records[0])
    k = largest_power(n)
    return sha(b"\x01" + mth(records[:k]) + mth(records[k:]))


def path(m: int, records: list[bytes]) -> list[bytes]:
    """RFC 6962, 2.1.1: PATH(m, D[n])."""
    n = len(records)
    if n == 1:
        return []
    k = largest_power(n)
    if m < k:
        return [*path(m, records[:k]), mth(records[k:])]
    return [*path(m - k, records[k:]), mth(records[:k])]


def proof(m: int, records: list[bytes], whole: bool = True) -> list[bytes]:
    """RFC 6962, 2.1.2: SUBPROOF(m, D[n], b)."""
    n = len(records)
    if m == n:
        return [] if whole else [mth(records)]
    k = largest_power(n)
    if m <= k:
        return [*proof(m, records[:k], whole), mth(records[k:])]
    return [*proof(m - k, records[k:], False), mth(records[:k])]


def largest_power(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


@pytest.mark.parametrize("size", range(1, 9))
def test_published_roots(size: int) -> None:
    """Ours and the definition above give the published root."""
    assert mth(LEAVES[:size]).hex() == ROOTS[size - 1]
    assert merkle_root([leaf_hash(record) for record in LEAVES[:size]]).hex() == ROOTS[size - 1]


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    """As the RFC says."""
    assert merkle_root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.lists(st.binary(max_size=5), max_size=40), st.data())
def test_roots_and_proofs_are_those_of_the_definition(records: list[bytes], data: st.DataObject) -> None:
    """For every size up to forty and any leaf; and no other leaf, place, size or path gives the root."""
    leaves = [leaf_hash(record) for record in records]
    root = merkle_root(leaves)
    assert root == mth(records)
    if not records:
        return
    index = data.draw(st.integers(0, len(records) - 1))
    proof = inclusion_proof(leaves, index)
    assert proof == path(index, records)
    assert root_from_proof(leaves[index], index, len(leaves), proof) == root
    assert root_from_proof(leaf_hash(b"another"), index, len(leaves), proof) != root
    for wrong in range(-1, len(leaves) + 2):
        if wrong != index and not 0 <= wrong < len(leaves):
            assert root_from_proof(leaves[index], wrong, len(leaves), proof) is None
    assert root_from_proof(leaves[index], index, len(leaves), [*proof, b"\0" * 32]) != root
    if proof:
        assert root_from_proof(leaves[index], index, len(leaves), proof[:-1]) is None
        bent = [*proof[:-1], sha(proof[-1])]
        assert root_from_proof(leaves[index], index, len(leaves), bent) != root


@pytest.mark.parametrize("index", [-1, 3, 0])
def test_a_leaf_that_is_not_there_has_no_proof(index: int) -> None:
    """Rather than the proof of another."""
    with pytest.raises(InputError, match="in the tree"):
        inclusion_proof([b""] * (3 if index else 0), index)


def test_every_record_of_a_sealed_segment_is_proved(project: Workspace) -> None:
    """From its bytes, the path and the root that the ledger entry holds."""
    entry = project.ledger.entries(action="segment.seal")[0]
    for offset in range(5):
        proof = prove(project.ledger, project.streams, "decisions/0", offset)
        leaf = sha(b"\x00" + f"record {offset}".encode())
        root = root_from_proof(leaf, proof.index, proof.size, [bytes.fromhex(node) for node in proof.path])
        assert root is not None
        assert root.hex() == proof.root == entry.payload["root"]
        assert proof.sequence == entry.sequence


def test_a_record_is_proved_once_its_segment_is_sealed(project: Workspace) -> None:
    """Not while it is open; the writer seals it when it lets go."""
    with SealedWriter(project.ledger, project.streams, "decisions/0") as writer:
        writer.append([b"one more"])
        with pytest.raises(NotFoundError, match="audit seal"):
            prove(project.ledger, project.streams, "decisions/0", 5)
    (seal,) = writer.seals
    assert (seal.first, seal.count) == (5, 1)
    assert prove(project.ledger, project.streams, "decisions/0", 5).path == []
    assert seal in read_seals(project.ledger)


@given(st.lists(st.binary(max_size=3), max_size=80))
def test_a_tree_that_grows_has_the_root_of_the_whole(records: list[bytes]) -> None:
    """At every size, by the recursion of the RFC."""
    frontier = Frontier()
    for size in range(len(records) + 1):
        assert (frontier.size, frontier.root()) == (size, mth(records[:size]))
        if size < len(records):
            frontier.add(leaf_hash(records[size]))


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=40), st.data())
def test_growth_is_proved_as_the_definition_says(records: list[bytes], data: st.DataObject) -> None:
    """The larger tree begins with the smaller one; no other root, size or path passes for a proof of it."""
    first = data.draw(st.integers(1, len(records)))
    leaves = [leaf_hash(record) for record in records]
    hashes = [merkle_root(leaves[start:end]) for start, end in consistency_spans(first, len(records))]
    assert hashes == proof(first, records)
    before, after = mth(records[:first]), mth(records)
    assert is_consistent(first, before, len(records), after, hashes)
    assert not is_consistent(first, sha(before), len(records), after, hashes)
    assert not is_consistent(first, before, len(records), sha(after), hashes)
    assert not is_consistent(first, before, len(records), after, [*hashes, sha(b"")])
    if hashes:
        assert not is_consistent(first, before, len(records), after, hashes[:-1])
        place = data.draw(st.integers(0, len(hashes) - 1))
        other = [sha(node) if at == place else node for at, node in enumerate(hashes)]
        assert not is_consistent(first, before, len(records), after, other)
    if first < len(records):
        changed = [sha(records[0]), *records[1:]]
        assert not is_consistent(first, before, len(records), mth(changed), proof(first, changed))


@pytest.mark.parametrize("width", [1, 32, 55, 63, 64, 128])
def test_hashes_of_parts_by_the_kernel_and_without_it(width: int) -> None:
    """Of every whole part, behind its prefix; what is left at the end is none."""
    for count in (0, 1, 2, 1023, 1024, 1025):
        data = bytes(number * 7 % 251 for number in range(width * count + width - 1))
        expected = b"".join(sha(b"\x01" + data[width * n : width * n + width]) for n in range(count))
        assert _level(data, width, b"\x01") == _part_hashes(data, width, b"\x01") == expected
        assert _level(bytearray(data), width, b"\x01") == expected
