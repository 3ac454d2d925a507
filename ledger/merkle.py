"""The tree over a book's records: RFC 6962, section 2.1, over leaf hashes.

A tree of n leaves is kept as its *frontier*: the roots of its complete subtrees, largest first, one
for each bit set in n. Appending touches O(log n) hashes; proofs are read from *tiles*, rows of 256
hashes (level 0: leaf hashes; level k: the roots of 256 tiles of level k - 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

HASH_SIZE: Final = 32
TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8
EMPTY_ROOT: Final = sha256(b"").digest()

Hash = bytes
SubtreeRoot = Callable[[int, int], Hash]
"""``(level, index)`` → the root of the complete subtree over leaves
``[index * 2**level, (index + 1) * 2**level)``."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A complete row of 256 hashes, and the root over them."""

    level: int
    index: int
    hashes: bytes
    root: Hash


def leaf_hash(record: bytes) -> Hash:
    """Return the hash of a record's leaf."""
    return sha256(b"\x00" + record).digest()


def leaf_hashes(records: Iterable[bytes]) -> list[Hash]:
    """Return the hashes of many records' leaves."""
    return [sha256(b"\x00" + record).digest() for record in records]


def node_hash(left: Hash, right: Hash) -> Hash:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def tree_hash(leaves: Sequence[Hash]) -> Hash:
    """Return the root over all *leaves*: the definition, in O(n)."""
    return frontier_root(append(len(leaves), [], leaves)) if leaves else EMPTY_ROOT


def append(size: int, frontier: Sequence[Hash], leaves: Sequence[Hash]) -> list[Hash]:
    """Return the frontier after *leaves*; *size* is the size after them."""
    count = size - len(leaves)
    peaks = list(frontier)
    first = min(-count % TILE_WIDTH, len(leaves))
    rest = first + (len(leaves) - first) // TILE_WIDTH * TILE_WIDTH
    # Whole tiles are hashed row by row, which is twice as quick as leaf by leaf.
    roots = [
        perfect_root(leaves[start : start + TILE_WIDTH]) for start in range(first, rest, TILE_WIDTH)
    ]
    _add(peaks, count, leaves[:first])
    _add(peaks, (count + first) // TILE_WIDTH, roots)
    _add(peaks, count + rest, leaves[rest:])
    return peaks


def perfect_root(hashes: Sequence[Hash]) -> Hash:
    """Return the root over 2^k hashes."""
    row = list(hashes)
    while len(row) > 1:
        row = [
            sha256(b"\x01" + left + right).digest()
            for left, right in zip(row[::2], row[1::2], strict=True)
        ]
    return row[0]


def _add(peaks: list[Hash], count: int, hashes: Sequence[Hash]) -> None:
    """Add roots of equal complete subtrees to the peaks; *count* of their like are in them already."""
    for added in hashes:
        peaks.append(added)
        count += 1
        rest = count
        while not rest & 1:
            right = peaks.pop()
            peaks[-1] = sha256(b"\x01" + peaks[-1] + right).digest()
            rest >>= 1


def frontier_root(frontier: Sequence[Hash]) -> Hash:
    """Return the root of the tree whose frontier this is."""
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for peak in reversed(frontier[:-1]):
        root = node_hash(peak, root)
    return root


def pack(frontier: Sequence[Hash]) -> bytes:
    """Return a frontier as it is stored."""
    return b"".join(frontier)


def unpack(stored: bytes) -> list[Hash]:
    """Return stored hashes one by one."""
    return [stored[at : at + HASH_SIZE] for at in range(0, len(stored), HASH_SIZE)]


def tile_of(level: int, index: int, hashes: Sequence[Hash]) -> Tile:
    """Return a complete tile over 256 hashes."""
    assert len(hashes) == TILE_WIDTH
    return Tile(level, index, pack(hashes), perfect_root(hashes))


def split(count: int) -> int:
    """Return the largest power of two below *count* (at least 2)."""
    return 1 << (count - 1).bit_length() - 1


def root_of(start: int, end: int, subtree: SubtreeRoot) -> Hash:
    """Return the root over leaves ``[start, end)``; *start* is where a left child may begin."""
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return subtree(level, start >> level)
    middle = start + split(count)
    return node_hash(root_of(start, middle, subtree), root_of(middle, end, subtree))


def inclusion_proof(index: int, size: int, subtree: SubtreeRoot) -> list[Hash]:
    """Return ``PATH(index, D[size])`` of RFC 6962, section 2.1.1: bottom up."""
    return _path(index, 0, size, subtree)


def _path(index: int, start: int, end: int, subtree: SubtreeRoot) -> list[Hash]:
    if end - start == 1:
        return []
    middle = start + split(end - start)
    if index < middle:
        return [*_path(index, start, middle, subtree), root_of(middle, end, subtree)]
    return [*_path(index, middle, end, subtree), root_of(start, middle, subtree)]


def consistency_proof(first: int, second: int, subtree: SubtreeRoot) -> list[Hash]:
    """Return ``PROOF(first, D[second])`` of RFC 6962, section 2.1.2; empty if either is trivial."""
    if first in {0, second}:
        return []
    return _consistency(first, 0, second, subtree, whole=True)


def _consistency(
    first: int, start: int, end: int, subtree: SubtreeRoot, *, whole: bool
) -> list[Hash]:
    if first == end:
        return [] if whole else [root_of(start, end, subtree)]
    middle = start + split(end - start)
    if first <= middle:
        return [
            *_consistency(first, start, middle, subtree, whole=whole),
            root_of(middle, end, subtree),
        ]
    return [
        *_consistency(first, middle, end, subtree, whole=False),
        root_of(start, middle, subtree),
    ]


def verify_inclusion(leaf: Hash, index: int, size: int, proof: Sequence[Hash], root: Hash) -> bool:
    """Check an inclusion proof by the algorithm of RFC 9162, section 2.1.3.2."""
    if not 0 <= index < size:
        return False
    position, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            result = node_hash(sibling, result)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(
    first: int, second: int, proof: Sequence[Hash], first_root: Hash, second_root: Hash
) -> bool:
    """Check a consistency proof by the algorithm of RFC 9162, section 2.1.4.2."""
    if first > second or first < 0:
        return False
    if first in {0, second}:
        return not proof and first_root == (EMPTY_ROOT if first == 0 else second_root)
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        return False
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for step in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, step)
        position, last = position >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root
