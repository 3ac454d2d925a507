"""Bytes in, the same bytes out; anything else is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from embit.transaction import Transaction as EmbitTransaction
from hypothesis import given
from hypothesis import strategies as st

from chain.bitcoin.digests import Spent, script_code, signing_digests
from chain.bitcoin.reading import encode_size
from chain.bitcoin.scripts import (
    sorted_multisig_script,
    witness_key_hash_script,
    witness_script,
    witness_script_hash_script,
)
from chain.bitcoin.transactions import (
    MONEY_MAX,
    RAW_BYTES_MAX,
    Input,
    Outpoint,
    Output,
    Transaction,
    decode,
    encode,
)
from chain.errors import BadTransaction

# BIP 143, "Native P2WPKH".
UNSIGNED = (
    "0100000002fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f0000000000eeffffffef51"
    "e1b804cc89d182d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff02202cb20600000000"
    "1976a9148280b37df378db99f66f85c95a783a76ac7a6d5988ac9093510d000000001976a9143bde42dbee7e4dbe6a21"
    "b2d50ce2f0167faa815988ac11000000"
)
SIGNED = (
    "01000000000102fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f000000004948304502"
    "21008b9d1dc26ba6a9cb62127b02742fa9d754cd3bebf337f7a55d114c8e5cdd30be022040529b194ba3f9281a99f2b1"
    "c0a19c0489bc22ede944ccf4ecbab4cc618ef3ed01eeffffffef51e1b804cc89d182d279655c3aa89e815b1b309fe287"
    "d9b2b55d57b90ec68a0100000000ffffffff02202cb206000000001976a9148280b37df378db99f66f85c95a783a76ac"
    "7a6d5988ac9093510d000000001976a9143bde42dbee7e4dbe6a21b2d50ce2f0167faa815988ac000247304402203609"
    "e17b84f6a7d30c80bfa610b5b4542f32a8a0d5447a12fb1366d7f01cc44a0220573a954c4518331561406f90300e8f33"
    "58f51928d43c212a8caed02de67eebee0121025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07ae"
    "ee635711000000"
)
SIGNING_KEY_OF_INPUT_2 = bytes.fromhex(
    "025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07aeee6357"
)
DIGEST_OF_INPUT_2 = "c37af31116d1b27caf68aae9e3ac82f1477929014d5b917657d0eb49478cb670"

outpoints = st.builds(
    Outpoint,
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.integers(0, 2**32 - 1),
)
inputs = st.builds(
    Input,
    outpoints,
    st.integers(0, 2**32 - 1),
    st.binary(max_size=300),
    st.lists(st.binary(max_size=300), max_size=4).map(tuple),
)
outputs = st.builds(Output, st.integers(0, MONEY_MAX // 8), st.binary(max_size=300))
transactions = st.builds(
    Transaction,
    st.lists(inputs, min_size=1, max_size=6, unique_by=lambda item: item.outpoint).map(tuple),
    st.lists(outputs, min_size=1, max_size=6).map(tuple),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)


def test_the_example_of_bip_143_is_read_and_written() -> None:
    unsigned, signed = decode(bytes.fromhex(UNSIGNED)), decode(bytes.fromhex(SIGNED))
    assert encode(unsigned).hex() == UNSIGNED
    assert encode(signed).hex() == SIGNED
    assert signed.without_proofs() == unsigned
    assert not unsigned.has_witness
    assert signed.has_witness
    assert signed.lock_time == 17
    assert [item.amount for item in signed.outputs] == [112340000, 223450000]


def test_the_digest_of_bip_143() -> None:
    unsigned = decode(bytes.fromhex(UNSIGNED))
    paid = Output(600_000_000, witness_key_hash_script(SIGNING_KEY_OF_INPUT_2))
    # The first input is no witness program; for its place any that is one does.
    digests = signing_digests(unsigned, [Spent(paid), Spent(paid)])
    assert digests[1].hex() == DIGEST_OF_INPUT_2
    signed = decode(bytes.fromhex(SIGNED))
    assert signing_digests(signed, [Spent(paid), Spent(paid)]) == digests


def test_a_digest_commits_to_amount_outputs_sequence_and_lock_time() -> None:
    plain = decode(bytes.fromhex(UNSIGNED))
    paid = Spent(Output(600_000_000, witness_script(0, bytes(20))))
    seen = {signing_digests(plain, [paid, paid])[1]}
    other_output = replace(plain.outputs[0], amount=1)
    other_input = replace(plain.inputs[0], sequence=1)
    for changed in (
        replace(plain, outputs=(other_output, plain.outputs[1])),
        replace(plain, inputs=(other_input, plain.inputs[1])),
        replace(plain, lock_time=18),
        replace(plain, version=2),
    ):
        seen.add(signing_digests(changed, [paid, paid])[1])
    richer = Spent(Output(600_000_001, witness_script(0, bytes(20))))
    seen.add(signing_digests(plain, [paid, richer])[1])
    assert len(seen) == 6


def test_a_witness_script_must_be_the_one_that_is_paid() -> None:
    key = SIGNING_KEY_OF_INPUT_2
    script = sorted_multisig_script(1, [key])
    pays = Output(1, witness_script_hash_script(script))
    assert script_code(Spent(pays, script)) == script
    with pytest.raises(BadTransaction, match="not the one that the output pays"):
        script_code(Spent(pays, script + b"\x00"))


def test_other_outputs_are_not_signed_for() -> None:
    unsigned = decode(bytes.fromhex(UNSIGNED))
    taproot = Spent(Output(1, witness_script(1, bytes(32))))
    with pytest.raises(BadTransaction, match="witness_v1_taproot is not signed for"):
        signing_digests(unsigned, [taproot, taproot])
    with pytest.raises(BadTransaction, match="2 inputs spend 1 outputs"):
        signing_digests(unsigned, [taproot])


@given(transactions)
def test_what_is_written_is_read_back_and_agrees_with_the_second_library(
    transaction: Transaction,
) -> None:
    raw = encode(transaction)
    assert decode(raw) == transaction
    theirs = EmbitTransaction.parse(raw)
    assert theirs.txid().hex() == transaction.tx_id
    bare = len(encode(transaction, witness=False))
    assert transaction.weight == bare * 3 + len(raw)
    assert transaction.virtual_size * 4 - transaction.weight in range(4)


@given(transaction=transactions, data=st.data())
def test_bytes_cut_short_or_followed_by_others_are_refused(
    transaction: Transaction, data: st.DataObject
) -> None:
    raw = encode(transaction)
    with pytest.raises(BadTransaction):
        decode(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(BadTransaction):
        decode(raw + b"\x00")


@given(st.binary(max_size=400))
def test_any_bytes_are_a_transaction_in_one_spelling_or_refused(raw: bytes) -> None:
    try:
        found = decode(raw)
    except BadTransaction:
        return
    assert encode(found) == raw


PLAIN = Transaction((Input(Outpoint("11" * 32, 0)),), (Output(5, b"\x51"),))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        # Without inputs it reads like the marker of a witness part.
        (encode(replace(PLAIN, inputs=())), "cut short"),
        (encode(replace(PLAIN, outputs=())), "has inputs and outputs"),
        (encode(replace(PLAIN, inputs=PLAIN.inputs * 2)), "spent twice"),
        (encode(replace(PLAIN, outputs=(Output(MONEY_MAX + 1, b""),))), "cannot be"),
        (encode(replace(PLAIN, outputs=(Output(MONEY_MAX, b""),) * 2)), "more than all coins"),
        (bytes(RAW_BYTES_MAX + 1), "bytes; nodes take"),
        # A witness part in which every stack is empty.
        (
            encode(PLAIN)[:4] + b"\x00\x01" + encode(PLAIN)[4:-4] + b"\x00" + bytes(4),
            "without a witness",
        ),
        # The count of inputs in three bytes, though one would do.
        (encode(PLAIN)[:4] + b"\xfd\x01\x00" + encode(PLAIN)[5:], "shortest form"),
        (encode(PLAIN)[:4] + b"\xff" + b"\xff" * 8, "cut short"),
    ],
)
def test_bytes_that_no_node_would_take_are_refused(raw: bytes, words: str) -> None:
    with pytest.raises(BadTransaction, match=words):
        decode(raw)


@pytest.mark.parametrize("size", [0, 252, 253, 65_535, 65_536])
def test_sizes_take_their_shortest_form(size: int) -> None:
    assert len(encode_size(size)) == (1 if size < 253 else 3 if size < 65_536 else 5)


def test_replaceable_and_coinbase() -> None:
    assert PLAIN.is_replaceable
    final = replace(PLAIN, inputs=(replace(PLAIN.inputs[0], sequence=0xFFFFFFFE),))
    assert not final.is_replaceable
    minted = replace(PLAIN, inputs=(Input(Outpoint("00" * 32, 0xFFFFFFFF), 0xFFFFFFFF, b"\x03"),))
    assert minted.is_coinbase
    assert not PLAIN.is_coinbase
