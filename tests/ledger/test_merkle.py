"""The tree against RFC 6962's definition, written again here in its slowest form."""

from __future__ import annotations

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput, Refused
from ledger import checkpoint, merkle
from ledger.accounts import ensure_accounts
from ledger.model import Transfer
from ledger.posting import open_book, post
from ledger.proofs import make_checkpoint, prove_consistency, prove_inclusion, root_at
from ledger.queries import head
from ledger.scenarios import START, name_id


def definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + definition(leaves[:k]) + definition(leaves[k:])).digest()


def leaves_of(count: int) -> list[bytes]:
    return [merkle.leaf_hash(str(n).encode()) for n in range(count)]


def subtree(leaves: list[bytes]) -> merkle.SubtreeRoot:
    return lambda level, index: definition(leaves[index << level : (index + 1) << level])


def test_the_vectors_of_certificate_transparency_hold() -> None:
    """Inputs and roots of the reference tests of github.com/google/certificate-transparency."""
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    inputs.append("606162636465666768696a6b6c6d6e6f")
    leaves = [merkle.leaf_hash(bytes.fromhex(text)) for text in inputs]

    assert merkle.EMPTY_ROOT.hex() == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    assert merkle.tree_hash(leaves[:1]).hex() == (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    assert merkle.tree_hash(leaves).hex() == (
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    )


@given(st.lists(st.integers(0, 40), max_size=5))
def test_growing_the_frontier_comes_to_the_definition(steps: list[int]) -> None:
    leaves = leaves_of(sum(steps))
    frontier: list[bytes] = []
    size = 0
    for step in steps:
        frontier = merkle.append(size + step, frontier, leaves[size : size + step])
        size += step
        assert merkle.unpack(merkle.pack(frontier)) == frontier
        assert merkle.frontier_root(frontier) == definition(leaves[:size])


@given(st.data())
def test_an_inclusion_proof_holds_for_its_leaf_and_no_other(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 70))
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1))
    leaves = leaves_of(size)
    root = definition(leaves)

    proof = merkle.inclusion_proof(index, size, subtree(leaves))

    for leaf, at in ((index, index), (other, index), (index, other)):
        holds = merkle.verify_inclusion(leaves[leaf], at, size, proof, root)
        assert holds == (leaf == at == index)
    assert not merkle.verify_inclusion(leaves[index], index, size, proof, leaves[0] + b"x")
    assert not merkle.verify_inclusion(leaves[index], index, size, [*proof, root], root)
    assert not merkle.verify_inclusion(leaves[index], size, size, proof, root)


@given(st.data())
def test_a_consistency_proof_holds_for_its_trees_and_no_other(data: st.DataObject) -> None:
    second = data.draw(st.integers(0, 70))
    first = data.draw(st.integers(0, second))
    leaves = leaves_of(second)
    roots = definition(leaves[:first]), definition(leaves)

    proof = merkle.consistency_proof(first, second, subtree(leaves))

    assert merkle.verify_consistency(first, second, proof, *roots)
    forged = merkle.leaf_hash(b"forged")
    assert not merkle.verify_consistency(first, second, proof, forged, roots[1])
    if 0 < first < second:
        assert not merkle.verify_consistency(first, second, proof, roots[0], forged)
        assert not merkle.verify_consistency(first, second, proof[:-1], *roots)
    if first < second:
        assert not merkle.verify_consistency(second, first, proof, *roots)


async def test_proofs_are_read_from_tiles_and_records(engine: AsyncEngine) -> None:
    """66,000 records: tiles of level 0 and 1, complete and open ones."""
    size_before: list[int] = []
    await transact(engine, lambda conn: open_book(conn, 1, entity="e", now=START))
    keys = [("custody:w", "X"), ("suspense:x", "X")]
    await transact(engine, lambda conn: ensure_accounts(conn, 1, keys, now=START))
    for start in range(0, 66_000, 8_000):
        batch = [
            Transfer(
                id=name_id(f"m{n}"),
                debit="custody:w",
                credit="suspense:x",
                asset="X",
                amount=n,
                code="m",
            )
            for n in range(start, min(start + 8_000, 66_000))
        ]
        async with engine.begin() as conn:
            await post(conn, 1, batch, now=START)
        async with engine.connect() as conn:
            size_before.append((await head(conn, 1)).sequence)

    async with engine.connect() as conn:
        now = await head(conn, 1)
        assert await root_at(conn, 1, now.sequence) == now.root
        for name in ("m0", "m255", "m30000", "m65533", "m65534", "m65999"):
            proof = await prove_inclusion(conn, 1, name_id(name))
            assert proof.holds()
            assert proof.root == now.root
            assert str(name_id(name)).encode() in proof.record
            assert len(proof.path) <= 17
        earlier = await prove_inclusion(conn, 1, name_id("m17"), size=size_before[2])
        assert earlier.holds()
        for first in (0, 1, 2, 256, size_before[0], 65_536, now.sequence):
            grown = await prove_consistency(conn, 1, first, now.sequence)
            assert grown.holds()
            assert grown.second_root == now.root
        with pytest.raises(Refused):
            await prove_inclusion(conn, 1, name_id("nothing"))
        with pytest.raises(BadInput):
            await prove_consistency(conn, 1, 5, now.sequence + 1)


async def test_a_checkpoint_is_signed_and_read_again(busy: AsyncEngine) -> None:
    key = Ed25519PrivateKey.generate()
    async with busy.connect() as conn:
        made = await make_checkpoint(conn, 1, origin="example.org/ledger/1")

    note = checkpoint.sign(made, key, name="example.org/ledger")

    assert checkpoint.verify(note, key.public_key(), name="example.org/ledger") == made
    for wrong in (
        note.replace("example.org/ledger/1", "example.org/ledger/2"),
        note.replace("example.org/ledger ", "example.org/other "),
    ):
        with pytest.raises(Refused):
            checkpoint.verify(wrong, key.public_key(), name="example.org/ledger")
    with pytest.raises(Refused):
        checkpoint.verify(
            note, Ed25519PrivateKey.generate().public_key(), name="example.org/ledger"
        )
    with pytest.raises(BadInput):
        checkpoint.verify("nothing", key.public_key(), name="example.org/ledger")


def test_the_text_of_a_signed_checkpoint_is_the_one_that_others_read() -> None:
    """Signed with the first test key of RFC 8032, section 7.1; Ed25519 is deterministic."""
    key = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    made = checkpoint.Checkpoint("example.org/ledger/1", 0, merkle.EMPTY_ROOT)

    note = checkpoint.sign(made, key, name="example.org/ledger")

    text, _, signature = note.partition("\n\n")
    assert text == "example.org/ledger/1\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    assert signature.startswith("— example.org/ledger ")
    assert signature.endswith("\n")
