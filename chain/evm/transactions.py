"""EIP-1559 transactions as exact bytes: built, assembled with a signature, and read back strictly.

Only what Causeway sends is understood: type 2, one recipient, no access list, no contract creation.
Everything here is pure, and there is no private key: whoever signs is given `signing_hash`, and
gives back r, s and the parity of y.

Sources: EIP-1559 (type 2), EIP-2718 (envelope), EIP-2 (low s), EIP-2681 (nonce), EIP-2028 and
EIP-7623 (intrinsic gas), EIP-7825 (gas limit of one transaction).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from coincurve import PublicKey
from eth_utils.crypto import keccak

from chain.errors import BadTransaction
from chain.evm.addresses import (
    ADDRESS_BYTES,
    address_bytes,
    address_of_public_key,
    checksum_address,
)
from chain.evm.erc20 import Erc20Transfer, decode_erc20_transfer, erc20_transfer_data
from chain.evm.rlp import Item, decode, decode_int, encode, encode_int
from kernel.money import AMOUNT_MAX

__all__ = [
    "Erc20Transfer",
    "SignedTransaction",
    "UnsignedTransaction",
    "assemble",
    "decode_erc20_transfer",
    "decode_signed",
    "decode_unsigned",
    "encode_unsigned",
    "erc20_transfer_data",
    "intrinsic_gas",
    "signing_hash",
    "transaction_hash",
]

TRANSACTION_TYPE: Final = b"\x02"
FIELDS_UNSIGNED: Final = 9
FIELDS_SIGNED: Final = 12

CHAIN_ID_MAX: Final = 2**63 - 1
NONCE_MAX: Final = 2**64 - 2
"""EIP-2681."""
GAS_LIMIT_MAX: Final = 2**24
"""EIP-7825."""
DATA_BYTES_MAX: Final = 64 * 1024
"""Far more than any call we make, and under what a node's pool takes (128 KiB in geth)."""
RAW_BYTES_MAX: Final = DATA_BYTES_MAX + 1024
READINGS_REMEMBERED: Final = 1_024

CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order n of secp256k1. Source: SEC 2, section 2.4.1."""

GAS_TRANSACTION: Final = 21_000
GAS_ZERO_BYTE: Final = 4
GAS_OTHER_BYTE: Final = 16
GAS_FLOOR_ZERO_BYTE: Final = 10
GAS_FLOOR_OTHER_BYTE: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsignedTransaction:
    """What is to be signed. Values in wei; *recipient* in EIP-55; the access list is empty."""

    chain_id: int
    nonce: int
    max_priority_fee_per_gas: int
    max_fee_per_gas: int
    gas_limit: int
    recipient: str
    value: int
    data: bytes = b""

    def __post_init__(self) -> None:
        """Refuse what no node would take, or what cannot be meant."""
        _within("the chain id", self.chain_id, 1, CHAIN_ID_MAX)
        _within("the nonce", self.nonce, 0, NONCE_MAX)
        _within("the fee per gas", self.max_fee_per_gas, 0, AMOUNT_MAX)
        _within("the priority fee", self.max_priority_fee_per_gas, 0, self.max_fee_per_gas)
        _within("the size of the data", len(self.data), 0, DATA_BYTES_MAX)
        _within("the gas limit", self.gas_limit, intrinsic_gas(self.data), GAS_LIMIT_MAX)
        _within("the value", self.value, 0, AMOUNT_MAX)
        address_bytes(self.recipient)

    @property
    def fee_max(self) -> int:
        """Return the most that this transaction can cost in gas, in wei."""
        return self.gas_limit * self.max_fee_per_gas


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTransaction:
    """A transaction read back from its bytes, with whoever signed it."""

    unsigned: UnsignedTransaction
    y_parity: int
    r: int
    s: int
    sender: str
    tx_hash: str
    raw: bytes


def encode_unsigned(tx: UnsignedTransaction) -> bytes:
    """Return the bytes whose hash is signed: ``02 || rlp([…nine fields])``."""
    return TRANSACTION_TYPE + encode(_fields(tx))


def signing_hash(tx: UnsignedTransaction) -> bytes:
    """Return the 32 bytes that the sender signs."""
    return bytes(keccak(encode_unsigned(tx)))


def transaction_hash(raw: bytes) -> str:
    """Return the hash by which the network knows signed bytes."""
    return "0x" + keccak(raw).hex()


def assemble(tx: UnsignedTransaction, r: int, s: int, y_parity: int) -> bytes:
    """Return the signed bytes, read back and found to say the same.

    Raises:
        BadTransaction: the signature is out of range, has a high s, or recovers nobody.
    """
    _check_signature(r, s, y_parity)
    signature = [encode_int(y_parity), encode_int(r), encode_int(s)]
    raw = TRANSACTION_TYPE + encode([*_fields(tx), *signature])
    if decode_signed(raw, chain_id=tx.chain_id).unsigned != tx:
        raise BadTransaction("the signed bytes do not say what was to be signed")
    return raw


def decode_signed(raw: bytes, *, chain_id: int) -> SignedTransaction:
    """Return the transaction that *raw* is, and its sender.

    The same bytes are read where they come from and again before they go out, so the newest
    readings are remembered.

    Raises:
        BadTransaction: anything but the one canonical encoding of one type 2 transaction for
            *chain_id* with every field in bounds and a low-s signature.
    """
    return _decode_signed(raw, chain_id)


@lru_cache(maxsize=READINGS_REMEMBERED)
def _decode_signed(raw: bytes, chain_id: int) -> SignedTransaction:
    if raw[:1] != TRANSACTION_TYPE:
        raise BadTransaction("not an EIP-1559 transaction (type 2)")
    if len(raw) > RAW_BYTES_MAX:
        raise BadTransaction(f"{len(raw)} bytes are more than {RAW_BYTES_MAX}")
    fields = decode(raw[1:])
    if not isinstance(fields, list) or len(fields) != FIELDS_SIGNED:
        raise BadTransaction(f"a signed type 2 transaction is a list of {FIELDS_SIGNED} fields")
    tx = _unsigned(fields)
    if tx.chain_id != chain_id:
        raise BadTransaction(f"signed for chain {tx.chain_id}, not for {chain_id}")
    y_parity = decode_int(fields[9], "the parity", 1)
    r = decode_int(fields[10], "r", CURVE_ORDER - 1)
    s = decode_int(fields[11], "s", CURVE_ORDER - 1)
    _check_signature(r, s, y_parity)
    return SignedTransaction(
        unsigned=tx,
        y_parity=y_parity,
        r=r,
        s=s,
        sender=_recover(signing_hash(tx), r, s, y_parity),
        tx_hash=transaction_hash(raw),
        raw=raw,
    )


def decode_unsigned(data: bytes, *, chain_id: int) -> UnsignedTransaction:
    """Return the transaction whose `encode_unsigned` is exactly *data*.

    Raises:
        BadTransaction: anything but the one canonical encoding of one for *chain_id*.
    """
    if data[:1] != TRANSACTION_TYPE or len(data) > RAW_BYTES_MAX:
        raise BadTransaction("not an EIP-1559 transaction (type 2)")
    fields = decode(data[1:])
    if not isinstance(fields, list) or len(fields) != FIELDS_UNSIGNED:
        raise BadTransaction(
            f"an unsigned type 2 transaction is a list of {FIELDS_UNSIGNED} fields"
        )
    tx = _unsigned(fields)
    if tx.chain_id != chain_id:
        raise BadTransaction(f"meant for chain {tx.chain_id}, not for {chain_id}")
    return tx


def intrinsic_gas(data: bytes) -> int:
    """Return the least gas limit with which a call with *data* is valid at all.

    The larger of the classic cost (EIP-2028) and the call-data floor (EIP-7623).
    """
    zeros = data.count(0)
    others = len(data) - zeros
    classic = zeros * GAS_ZERO_BYTE + others * GAS_OTHER_BYTE
    floor = zeros * GAS_FLOOR_ZERO_BYTE + others * GAS_FLOOR_OTHER_BYTE
    return GAS_TRANSACTION + max(classic, floor)


def _fields(tx: UnsignedTransaction) -> list[bytes | list[bytes]]:
    return [
        encode_int(tx.chain_id),
        encode_int(tx.nonce),
        encode_int(tx.max_priority_fee_per_gas),
        encode_int(tx.max_fee_per_gas),
        encode_int(tx.gas_limit),
        address_bytes(tx.recipient),
        encode_int(tx.value),
        tx.data,
        [],
    ]


def _unsigned(fields: list[Item]) -> UnsignedTransaction:
    recipient, data, access_list = fields[5], fields[7], fields[8]
    if not isinstance(recipient, bytes) or len(recipient) != ADDRESS_BYTES:
        raise BadTransaction("the recipient is not an address; contracts are not created here")
    if not isinstance(data, bytes):
        raise BadTransaction("the data is a list, not bytes")
    if access_list != []:
        raise BadTransaction("access lists are not used here")
    return UnsignedTransaction(
        chain_id=decode_int(fields[0], "the chain id", CHAIN_ID_MAX),
        nonce=decode_int(fields[1], "the nonce", NONCE_MAX),
        max_priority_fee_per_gas=decode_int(fields[2], "the priority fee", AMOUNT_MAX),
        max_fee_per_gas=decode_int(fields[3], "the fee per gas", AMOUNT_MAX),
        gas_limit=decode_int(fields[4], "the gas limit", GAS_LIMIT_MAX),
        recipient=checksum_address(recipient),
        value=decode_int(fields[6], "the value", AMOUNT_MAX),
        data=data,
    )


def _within(name: str, value: int, minimum: int, maximum: int) -> None:
    if not minimum <= value <= maximum:
        raise BadTransaction(f"{name} is {value}; {minimum} to {maximum} are possible")


def _check_signature(r: int, s: int, y_parity: int) -> None:
    if y_parity not in {0, 1}:
        raise BadTransaction(f"the parity is {y_parity}, not 0 or 1")
    _within("r", r, 1, CURVE_ORDER - 1)
    if s > CURVE_ORDER // 2:
        raise BadTransaction("s is in the upper half of the curve order (EIP-2)")
    _within("s", s, 1, CURVE_ORDER // 2)


def _recover(digest: bytes, r: int, s: int, y_parity: int) -> str:
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([y_parity])
    try:
        key = PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except ValueError as error:
        raise BadTransaction("the signature recovers nobody") from error
    return address_of_public_key(key.format(compressed=False))
