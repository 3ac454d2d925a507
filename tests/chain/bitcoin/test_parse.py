"""Blocks held against their hashes where no node is needed to make them up."""

from __future__ import annotations

import msgspec
import pytest

from chain.bitcoin.blocks import Watched
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.parse import read_contents
from chain.bitcoin.raw import merkle_root
from chain.bitcoin.shown import BlockAnswer, ShownBlock, ShownTransaction, read_block_answer
from chain.bitcoin.transactions import Input, Outpoint, Output, Transaction, encode
from chain.errors import IncompleteAnswer, UnreadableAnswer
from chain.keys.hashes import double_sha256

SCRIPT = bytes([0, 20]) + bytes(20)
MINTED = Transaction((Input(Outpoint("0" * 64, 0xFFFFFFFF), script=b"1"),), (Output(50, SCRIPT),))
PAYMENT = Transaction((Input(Outpoint("1" * 64, 0)),), (Output(50, SCRIPT),))
WATCHED = Watched({SCRIPT: "ours"}, {SCRIPT.hex()})


def answer_with(*items: Transaction, bits: str = "207fffff") -> bytes:
    """Return a block of these, under a header that fits."""
    root = merkle_root([bytes.fromhex(item.tx_id)[::-1] for item in items])
    header = b"".join(
        (
            (4).to_bytes(4, "little"),
            bytes(32),
            root,
            (7).to_bytes(4, "little"),
            bytes.fromhex(bits)[::-1],
            bytes(4),
        )
    )
    spent = {"prevout": {"value": 50, "scriptPubKey": {"hex": "6a"}}}
    block = {
        "hash": double_sha256(header)[::-1].hex(),
        "height": 1,
        "version": 4,
        "merkleroot": root[::-1].hex(),
        "time": 7,
        "nonce": 0,
        "bits": bits,
        "tx": [
            {"hex": encode(item).hex(), "vin": [{} if item.is_coinbase else spent]}
            for item in items
        ],
    }
    return msgspec.json.encode({"id": 1, "result": block, "error": None})


def shown(answer: bytes) -> ShownBlock:
    found = read_block_answer(answer).result
    assert found is not None
    return found


def test_a_block_is_its_coinbase_and_what_follows() -> None:
    found = read_contents(shown(answer_with(MINTED, PAYMENT)), "bitcoin", WATCHED, REGTEST)
    assert [item.sender for item in found.movements] == ["coinbase", "nonstandard"]


def test_a_list_that_does_not_begin_with_new_coins_is_no_block() -> None:
    # Inner nodes of the tree, shown as transactions, would hide all those below them.
    with pytest.raises(IncompleteAnswer, match="makes no new coins"):
        read_contents(shown(answer_with(PAYMENT)), "bitcoin", WATCHED, REGTEST)


def test_a_header_has_eighty_bytes() -> None:
    with pytest.raises(IncompleteAnswer, match="header"):
        read_contents(shown(answer_with(MINTED, bits="207fffff00")), "bitcoin", WATCHED, REGTEST)


def test_transactions_are_hexadecimal() -> None:
    block = shown(answer_with(MINTED))
    block.tx = [ShownTransaction("0g", block.tx[0].vin)]
    with pytest.raises(UnreadableAnswer):
        read_contents(block, "bitcoin", WATCHED, REGTEST)


def test_an_answer_without_a_block_has_none() -> None:
    assert read_block_answer(b'{"result": null, "error": {"code": -5}, "id": 3}') == BlockAnswer(3)
