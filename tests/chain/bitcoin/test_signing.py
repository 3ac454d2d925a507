"""Signatures are written in one spelling, read in no other, and put where they belong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from coincurve import PrivateKey
from embit.ec import Signature
from hypothesis import given
from hypothesis import strategies as st

from chain.bitcoin.digests import Spent
from chain.bitcoin.multisig import parse_multisig
from chain.bitcoin.scripts import (
    key_hash_script,
    sorted_multisig_script,
    witness_key_hash_script,
    witness_script_hash_script,
)
from chain.bitcoin.signing import (
    assemble,
    decode_signature,
    encode_signature,
    read_signed,
    verify_signature,
    witness_of,
)
from chain.bitcoin.transactions import Input, Outpoint, Output, Transaction, decode
from chain.errors import BadTransaction
from chain.evm.transactions import CURVE_ORDER

KEYS = [PrivateKey(bytes([number]) * 32) for number in (1, 2, 3)]
PUBLIC = [bytes(key.public_key.format()) for key in KEYS]
scalars = st.integers(1, CURVE_ORDER - 1)


@given(r=scalars, s=st.integers(1, CURVE_ORDER // 2))
def test_a_signature_is_read_as_it_was_written_and_as_another_library_reads_it(
    r: int, s: int
) -> None:
    signature = encode_signature(r, s)
    assert decode_signature(signature) == (r, s)
    assert Signature.parse(signature[:-1]).serialize() == signature[:-1]


@given(digest=st.binary(min_size=32, max_size=32))
def test_what_a_library_signs_is_in_the_one_spelling(digest: bytes) -> None:
    signature = bytes(KEYS[0].sign(digest, hasher=None)) + b"\1"
    assert encode_signature(*decode_signature(signature)) == signature
    verify_signature(PUBLIC[0], digest, signature)


GOOD = encode_signature(2**255, 7)


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (b"", "does not commit"),
        (GOOD[:-1] + b"\x03", "does not commit"),
        (b"\x30\1", "cut short"),
        (GOOD[:-2] + b"\1", "do not take"),
        (GOOD[:-1] + b"\0\1", "not strict DER"),
        (b"\x30\x09\2\3\0\0\1\2\2\0\1\1", "not strict DER"),
        (b"\x30\x06\2\1\1\2\1\0\1", "do not take"),
    ],
)
def test_other_spellings_are_refused(signature: bytes, words: str) -> None:
    with pytest.raises(BadTransaction, match=words):
        decode_signature(signature)


@pytest.mark.parametrize(
    ("r", "s"), [(0, 1), (1, 0), (CURVE_ORDER, 1), (1, CURVE_ORDER // 2 + 1), (1, CURVE_ORDER - 1)]
)
def test_numbers_that_nodes_do_not_take_are_not_written(r: int, s: int) -> None:
    with pytest.raises(BadTransaction, match="do not take"):
        encode_signature(r, s)


def test_a_signature_of_something_else_or_of_no_key_is_refused() -> None:
    signature = bytes(KEYS[0].sign(b"a" * 32, hasher=None)) + b"\1"
    for key, digest, words in [
        (PUBLIC[0], b"b" * 32, "signs something else"),
        (PUBLIC[1], b"a" * 32, "signs something else"),
        (b"\2" + b"\xff" * 32, b"a" * 32, "not a public key"),
    ]:
        with pytest.raises(BadTransaction, match=words):
            verify_signature(key, digest, signature)


def test_signatures_stand_in_the_order_of_the_keys_in_the_script() -> None:
    script = sorted_multisig_script(2, PUBLIC)
    spent = Spent(Output(1, witness_script_hash_script(script)), script)
    given_in = {key: bytes([number]) for number, key in enumerate(PUBLIC)}
    _, first, second, last = witness_of(spent, given_in)
    assert [first, second] == [given_in[key] for key in sorted(PUBLIC)[:2]]
    assert last == script


def test_outputs_of_other_kinds_are_not_signed_for() -> None:
    for script in (key_hash_script(b"\0" * 20), b"\x51\x20" + b"\1" * 32):
        with pytest.raises(BadTransaction, match="not signed for here"):
            witness_of(Spent(Output(1, script)), {PUBLIC[0]: b"s"})


@pytest.mark.parametrize(
    "script",
    [b"", b"\x51", b"\x51\x51\xae", sorted_multisig_script(2, PUBLIC) + b"\x51", bytes(200)],
)
def test_scripts_of_other_kinds_are_no_multisignature(script: bytes) -> None:
    with pytest.raises(BadTransaction, match="several compressed keys"):
        parse_multisig(script)


def test_the_keys_of_a_script_are_read_back() -> None:
    assert parse_multisig(sorted_multisig_script(2, PUBLIC)) == (2, tuple(sorted(PUBLIC)))


def test_id_and_size_are_those_of_the_signed_bytes_read_again() -> None:
    unsigned = Transaction((Input(Outpoint("11" * 32, 0)),), (Output(900, b"\x51"),))
    spent = [Spent(Output(1_000, witness_key_hash_script(PUBLIC[0])))]
    signed = assemble(unsigned, spent, [(b"\1" * 72, PUBLIC[0])])
    read = decode(signed.raw)
    assert (signed.tx_id, signed.weight) == (read.tx_id, read.weight) == (unsigned.tx_id, 354)
    assert (signed.virtual_size, signed.fee) == (89, 100)
    with pytest.raises(BadTransaction, match="another transaction"):
        read_signed(signed.raw, replace(unsigned, lock_time=1), spent)
