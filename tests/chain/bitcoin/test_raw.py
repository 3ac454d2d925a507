"""Transactions and blocks of any miner, read from their bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.bitcoin.raw import check_transactions, merkle_root, read_block, read_transaction
from chain.bitcoin.transactions import Input, Outpoint, Output, Transaction, encode
from chain.errors import IncompleteAnswer, UnreadableAnswer
from chain.keys.hashes import double_sha256

scripts = st.binary(max_size=300)
inputs = st.builds(
    Input,
    st.builds(Outpoint, st.binary(min_size=32, max_size=32).map(bytes.hex), st.integers(0, 9)),
    st.just(0xFFFFFFFD),
    scripts,
    st.lists(scripts, max_size=3).map(tuple),
)
outputs = st.builds(Output, st.integers(0, 21 * 10**14), scripts)
transactions = st.builds(
    Transaction,
    st.lists(inputs, min_size=1, max_size=4).map(tuple),
    st.lists(outputs, min_size=1, max_size=4).map(tuple),
)


@given(item=transactions)
def test_ids_outpoints_and_outputs_are_those_of_the_strict_reader(item: Transaction) -> None:
    read = read_transaction(encode(item))
    assert read.tx_id == item.tx_id
    assert read.outpoints == tuple(one.outpoint for one in item.inputs)
    assert read.outputs == item.outputs
    assert read.is_coinbase == (len(item.inputs) == 1 and read.outpoints[0].tx_id == "0" * 64)


@given(item=transactions, cut=st.integers(1, 40), more=st.binary(min_size=1, max_size=4))
def test_what_is_cut_short_or_goes_on_is_another_transaction_or_none(
    item: Transaction, cut: int, more: bytes
) -> None:
    raw = encode(item)
    for changed in (raw[: max(0, len(raw) - cut)], raw + more):
        try:
            assert read_transaction(changed).tx_id != item.tx_id or item.has_witness
        except UnreadableAnswer:
            continue


@given(items=st.lists(transactions, min_size=1, max_size=5))
def test_a_block_is_its_header_and_its_transactions_and_nothing_else(
    items: list[Transaction],
) -> None:
    raws = [encode(item) for item in items]
    block = b"\x07" * 80 + bytes([len(raws)]) + b"".join(raws)
    header, found = read_block(block)
    assert header == b"\x07" * 80
    assert [one.tx_id for one in found] == [item.tx_id for item in items]
    for wrong in (block + b"\x00", block[:-1], block[:81]):
        with pytest.raises(UnreadableAnswer):
            read_block(wrong)


def test_a_list_that_was_lengthened_under_the_same_root_is_refused() -> None:
    # CVE-2012-2459: the last of an odd level counts twice, so that adding it again changes no root.
    ids = [double_sha256(bytes([n])) for n in range(3)]
    root = merkle_root(ids)
    check_transactions(root, ids, "a block")
    assert merkle_root([*ids, ids[-1]]) == root
    for wrong in ([*ids, ids[-1]], ids[:2], ids[::-1]):
        with pytest.raises(IncompleteAnswer):
            check_transactions(root, wrong, "a block")
    with pytest.raises(UnreadableAnswer):
        merkle_root([])
