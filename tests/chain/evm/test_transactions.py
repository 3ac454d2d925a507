"""EIP-1559 bytes, with eth-account as the oracle for what is signed and how it is written."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hypothesis import given
from hypothesis import strategies as st

from chain.errors import BadTransaction
from chain.evm import rlp
from chain.evm.transactions import (
    CHAIN_ID_MAX,
    CURVE_ORDER,
    GAS_LIMIT_MAX,
    NONCE_MAX,
    SignedTransaction,
    UnsignedTransaction,
    assemble,
    decode_signed,
    decode_unsigned,
    encode_unsigned,
    intrinsic_gas,
    signing_hash,
    transaction_hash,
)
from kernel.money import AMOUNT_MAX

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
SENDER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
RECIPIENT = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
DEFAULTS: dict[str, Any] = {
    "chain_id": 31337,
    "nonce": 7,
    "max_priority_fee_per_gas": 10**9,
    "max_fee_per_gas": 3 * 10**9,
    "gas_limit": 60_000,
    "recipient": RECIPIENT,
    "value": 5,
    "data": b"",
}


def unsigned(**changes: Any) -> UnsignedTransaction:
    return UnsignedTransaction(**{**DEFAULTS, **changes})


def oracle_fields(tx: UnsignedTransaction) -> dict[str, Any]:
    return {
        "type": 2,
        "chainId": tx.chain_id,
        "nonce": tx.nonce,
        "maxPriorityFeePerGas": tx.max_priority_fee_per_gas,
        "maxFeePerGas": tx.max_fee_per_gas,
        "gas": tx.gas_limit,
        "to": tx.recipient,
        "value": tx.value,
        "data": tx.data,
    }


def signed_raw(**changes: Any) -> bytes:
    tx = unsigned(**changes)
    return bytes(Account.sign_transaction(oracle_fields(tx), KEY).raw_transaction)


def fields_of(raw: bytes) -> list[Any]:
    decoded = rlp.decode(raw[1:])
    assert isinstance(decoded, list)
    return decoded


def with_field(place: int, value: Any, raw: bytes | None = None) -> bytes:
    """A signed transaction with one of its fields replaced, canonically encoded."""
    fields = fields_of(raw or signed_raw())
    fields[place] = value
    return b"\x02" + rlp.encode(fields)


@st.composite
def transactions(draw: st.DrawFn) -> UnsignedTransaction:
    data = draw(st.binary(max_size=200))
    max_fee = draw(st.integers(0, 2**120))
    return UnsignedTransaction(
        # eth-account takes no larger fee or chain id than these.
        chain_id=draw(st.integers(1, 2**53)),
        nonce=draw(st.integers(0, 2**64 - 2)),
        max_priority_fee_per_gas=draw(st.integers(0, max_fee)),
        max_fee_per_gas=max_fee,
        gas_limit=draw(st.integers(intrinsic_gas(data), GAS_LIMIT_MAX)),
        recipient=draw(st.sampled_from([SENDER, RECIPIENT])),
        value=draw(st.integers(0, AMOUNT_MAX)),
        data=data,
    )


@given(transactions())
def test_what_is_signed_and_the_raw_bytes_are_those_of_eth_account(tx: UnsignedTransaction) -> None:
    fields = oracle_fields(tx)
    theirs = Account.sign_transaction(fields, KEY)

    ours = assemble(tx, theirs.r, theirs.s, theirs.v)

    assert signing_hash(tx) == bytes(TypedTransaction.from_dict(fields).hash())
    assert ours == bytes(theirs.raw_transaction)
    assert transaction_hash(ours) == "0x" + bytes(theirs.hash).hex()


@given(transactions())
def test_a_signed_transaction_reads_back_as_what_was_signed_by_whom(
    tx: UnsignedTransaction,
) -> None:
    theirs = Account.sign_transaction(oracle_fields(tx), KEY)

    signed = decode_signed(bytes(theirs.raw_transaction), chain_id=tx.chain_id)

    assert signed.unsigned == tx
    assert signed.sender == SENDER
    assert (signed.r, signed.s, signed.y_parity) == (theirs.r, theirs.s, theirs.v)


@given(transactions())
def test_what_is_to_be_signed_reads_back(tx: UnsignedTransaction) -> None:
    assert decode_unsigned(encode_unsigned(tx), chain_id=tx.chain_id) == tx


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        pytest.param(b"", "type 2", id="empty"),
        pytest.param(encode_unsigned(unsigned())[1:], "type 2", id="no type"),
        pytest.param(encode_unsigned(unsigned()) + b"\0", "follow", id="a byte too many"),
        pytest.param(encode_unsigned(unsigned())[:-1], "cut short", id="a byte too few"),
        pytest.param(signed_raw(), "9 fields", id="signed already"),
        pytest.param(encode_unsigned(unsigned(chain_id=1)), "for chain 1", id="another chain"),
    ],
)
def test_anything_but_one_unsigned_payment_is_not_signed(data: bytes, complaint: str) -> None:
    with pytest.raises(BadTransaction, match=complaint):
        decode_unsigned(data, chain_id=31337)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_or_are_canonical(raw: bytes) -> None:
    for candidate in (raw, b"\x02" + raw):
        try:
            signed = decode_signed(candidate, chain_id=1)
        except BadTransaction:
            continue
        assert assemble(signed.unsigned, signed.r, signed.s, signed.y_parity) == candidate


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_makes_another_transaction(place: int, value: int) -> None:
    raw = signed_raw()
    at = place % len(raw)
    changed = raw[:at] + bytes([value]) + raw[at + 1 :]
    if changed == raw:
        return
    try:
        signed: SignedTransaction | None = decode_signed(changed, chain_id=31337)
    except BadTransaction:
        signed = None

    assert signed is None or (signed.sender, signed.unsigned) != (SENDER, unsigned())


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        pytest.param(b"", "type 2", id="empty"),
        pytest.param(b"\x01" + signed_raw()[1:], "type 2", id="another type"),
        pytest.param(signed_raw() + b"\x00", "follow", id="a byte too many"),
        pytest.param(signed_raw()[:-1], "cut short", id="a byte too few"),
        pytest.param(encode_unsigned(unsigned()), "12 fields", id="not signed"),
        pytest.param(b"\x02" + rlp.encode(b"x" * 20), "12 fields", id="not a list"),
        pytest.param(with_field(0, b"\x00\x01"), "leading zeros", id="chain id with zeros"),
        pytest.param(with_field(0, b"\x01"), "for chain 1", id="another chain"),
        pytest.param(with_field(0, b""), "chain id is 0", id="no chain id"),
        pytest.param(with_field(1, b"\xff" * 8), "nonce", id="nonce too high"),
        pytest.param(with_field(2, b"\xff" * 5), "priority fee", id="tip above fee"),
        pytest.param(with_field(3, b"\xff" * 33), "fee per gas", id="fee too long"),
        pytest.param(with_field(4, b"\x52\x07"), "gas limit", id="gas below intrinsic"),
        pytest.param(with_field(4, b"\xff" * 4), "gas limit", id="gas above the cap"),
        pytest.param(with_field(5, b""), "not an address", id="contract creation"),
        pytest.param(with_field(5, b"\x01" * 21), "not an address", id="long recipient"),
        pytest.param(with_field(5, [b"\x01"]), "not an address", id="recipient is a list"),
        pytest.param(with_field(6, b"\x01" * 33), "value", id="value too long"),
        pytest.param(with_field(7, [b"\x01"]), "list", id="data is a list"),
        pytest.param(with_field(8, [[b"\x01" * 20, []]]), "access list", id="access list"),
        pytest.param(with_field(8, b""), "access list", id="access list is bytes"),
        pytest.param(with_field(9, b"\x02"), "parity", id="parity 2"),
        pytest.param(with_field(9, b"\x1b"), "parity", id="parity 27"),
        pytest.param(with_field(10, b""), "r is 0", id="r zero"),
        pytest.param(with_field(10, rlp.encode_int(CURVE_ORDER)), "r is", id="r is the order"),
        pytest.param(with_field(11, b""), "s is 0", id="s zero"),
    ],
)
def test_anything_but_the_one_encoding_of_a_payment_is_refused(raw: bytes, complaint: str) -> None:
    with pytest.raises(BadTransaction, match=complaint):
        decode_signed(raw, chain_id=31337)


def test_the_other_signature_of_the_same_message_is_refused() -> None:
    """Both (r, s) and (r, n - s) are valid ECDSA; only the low one is a transaction (EIP-2)."""
    signed = decode_signed(signed_raw(), chain_id=31337)
    high, parity = CURVE_ORDER - signed.s, 1 - signed.y_parity

    with pytest.raises(BadTransaction, match="upper half"):
        assemble(signed.unsigned, signed.r, high, parity)
    malleated = with_field(9, rlp.encode_int(parity), with_field(11, rlp.encode_int(high)))
    with pytest.raises(BadTransaction, match="upper half"):
        decode_signed(malleated, chain_id=31337)


def test_a_signature_for_another_transaction_recovers_another_sender() -> None:
    signed = decode_signed(signed_raw(), chain_id=31337)

    raw = assemble(unsigned(value=6), signed.r, signed.s, signed.y_parity)

    assert decode_signed(raw, chain_id=31337).sender != SENDER


@pytest.mark.parametrize(
    "changes",
    [
        {"chain_id": 0},
        {"chain_id": CHAIN_ID_MAX + 1},
        {"nonce": -1},
        {"nonce": NONCE_MAX + 1},
        {"max_priority_fee_per_gas": 4 * 10**9},
        {"max_priority_fee_per_gas": -1},
        {"gas_limit": 20_999},
        {"gas_limit": 21_000, "data": b"\x01"},
        {"gas_limit": GAS_LIMIT_MAX + 1},
        {"value": -1},
        {"value": AMOUNT_MAX + 1},
        {"data": bytes(64 * 1024 + 1)},
    ],
)
def test_fields_out_of_bounds_are_refused_before_anything_is_signed(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(BadTransaction):
        unsigned(**changes)


@pytest.mark.parametrize(
    ("data", "gas"),
    [
        (b"", 21_000),
        (b"\x00", 21_010),
        (b"\x01", 21_040),
        (bytes(10) + b"\x01" * 10, 21_500),
    ],
)
def test_intrinsic_gas_is_the_call_data_floor_of_eip_7623(data: bytes, gas: int) -> None:
    assert intrinsic_gas(data) == gas


def test_the_most_a_transaction_can_cost_is_its_gas_limit_at_its_full_fee() -> None:
    assert unsigned().fee_max == 60_000 * 3 * 10**9
