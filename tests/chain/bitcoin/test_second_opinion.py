"""Another implementation is asked before an address is given out or a transaction is sent."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.bitcoin.derivation import SegwitAccount
from chain.bitcoin.networks import MAIN
from chain.bitcoin.psbt_finish import combine, extract, finalise
from chain.bitcoin.scripts import witness_script
from chain.bitcoin.second_opinion import confirm_key, confirm_transaction, library
from chain.bitcoin.transactions import Output, decode, encode
from chain.errors import BadKey, BadTransaction, DerivationDisagrees
from tests.chain.bitcoin.test_derivation import PATH, XPUB
from tests.chain.bitcoin.test_psbt import signed_by

ACCOUNT = SegwitAccount.parse(XPUB, network=MAIN, path=PATH)
HAS_BITCOINLIB = importlib.util.find_spec("bitcoinlib") is not None


def test_who_is_asked_is_told_with_the_version() -> None:
    name, version = library().split()
    assert name == ("bitcoinlib" if HAS_BITCOINLIB else "embit")
    assert version[0].isdigit()


@settings(deadline=None, max_examples=25)
@given(branch=st.sampled_from([0, 1]), index=st.integers(0, 2**31 - 1))
def test_the_same_key_is_confirmed(branch: int, index: int) -> None:
    key = ACCOUNT.public_key(branch, index)
    assert confirm_key(XPUB, branch, index, key) == library()


def test_another_key_is_refused() -> None:
    with pytest.raises(DerivationDisagrees, match="has the key"):
        confirm_key(XPUB, 0, 1, ACCOUNT.public_key(0, 2))


def test_a_mistyped_key_never_reaches_the_library() -> None:
    # bitcoinlib itself takes it, and derives addresses that nobody has the keys of.
    with pytest.raises(BadKey, match="checksum"):
        confirm_key(XPUB[:-1] + "1", 0, 0, ACCOUNT.public_key(0, 0))


def test_a_signed_transaction_is_read_the_same() -> None:
    raw = encode(extract(finalise(combine([signed_by(1), signed_by(2)]))))
    assert confirm_transaction(raw).startswith("embit"), (
        "a shared input is not bitcoinlib's to read"
    )
    assert decode(raw).has_witness


def test_a_transaction_of_single_keys_is_read_by_whoever_is_asked() -> None:
    whole = extract(finalise(combine([signed_by(1), signed_by(2)])))
    single = replace(whole, inputs=whole.inputs[:1])
    assert confirm_transaction(encode(single)) == library()


def test_a_payee_of_a_future_witness_version_is_not_bitcoinlibs_to_read() -> None:
    whole = extract(finalise(combine([signed_by(1), signed_by(2)])))
    future = Output(1_000, witness_script(2, b"\1" * 32))
    raw = encode(replace(whole, inputs=whole.inputs[:1], outputs=(future,)))
    assert confirm_transaction(raw).startswith("embit")


def test_bytes_that_are_cut_short_are_refused() -> None:
    raw = encode(extract(finalise(combine([signed_by(1), signed_by(2)]))))
    with pytest.raises(BadTransaction):
        confirm_transaction(raw[:-1])
