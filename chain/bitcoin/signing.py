"""Signatures of witness programs of version 0: written, read strictly, verified, put in their place.

Pure: whoever has a private key signs the digests of `chain.bitcoin.digests` elsewhere. Sources:
BIP 66 (strict DER), BIP 146 (low s), BIP 141 and 143 (witnesses), BIP 147 (the empty first element).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from coincurve import PublicKey

from chain.bitcoin.digests import SIGHASH_ALL, Spent
from chain.bitcoin.multisig import parse_multisig
from chain.bitcoin.scripts import ScriptKind, recognise
from chain.bitcoin.transactions import Transaction, decode, encode
from chain.errors import BadTransaction
from chain.evm.transactions import CURVE_ORDER
from chain.keys.hashes import hash160

SCALAR_BYTES: Final = 32
_INTEGER: Final = 0x02
_SEQUENCE: Final = 0x30


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A signed transaction as its own bytes tell it, read again after it was made.

    Attributes:
        fee: satoshi, by the amounts that every signature commits to.
    """

    raw: bytes
    tx_id: str
    weight: int
    virtual_size: int
    fee: int


def encode_signature(r: int, s: int) -> bytes:
    """Return a signature in DER with its type, ``SIGHASH_ALL``, behind it.

    Raises:
        BadTransaction: out of the curve's order, or s in the upper half.
    """
    if not 0 < r < CURVE_ORDER or not 0 < s <= CURVE_ORDER // 2:
        raise BadTransaction("a signature with numbers that nodes do not take")
    content = _encode_integer(r) + _encode_integer(s)
    return bytes([_SEQUENCE, len(content)]) + content + bytes([SIGHASH_ALL])


def decode_signature(signature: bytes) -> tuple[int, int]:
    """Return r and s of a signature in its one spelling, of type ``SIGHASH_ALL``.

    Raises:
        BadTransaction: another type, s in the upper half, or not strict DER.
    """
    if signature[-1:] != bytes([SIGHASH_ALL]):
        raise BadTransaction("a signature that does not commit to the whole transaction")
    try:
        r_size = signature[3]
        r = int.from_bytes(signature[4 : 4 + r_size], "big")
        s = int.from_bytes(signature[6 + r_size : -1], "big")
    except IndexError as error:
        raise BadTransaction("a signature that is cut short") from error
    # Whatever the bytes claimed: there is one way to write these two numbers.
    if encode_signature(r, s) != signature:
        raise BadTransaction("a signature that is not strict DER")
    return r, s


def verify_signature(public_key: bytes, digest: bytes, signature: bytes) -> None:
    """Refuse a signature of another key or digest.

    Raises:
        BadTransaction: see `decode_signature`; or it does not verify.
    """
    decode_signature(signature)
    try:
        verified = PublicKey(public_key).verify(signature[:-1], digest, hasher=None)
    except ValueError as error:
        raise BadTransaction(f"{public_key.hex()} is not a public key") from error
    if not verified:
        raise BadTransaction(f"the signature of key {public_key.hex()} signs something else")


def witness_of(spent: Spent, signatures: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    """Return the witness of an input from signatures by compressed public key.

    Raises:
        BadTransaction: too few signatures, or an output of a kind that is not signed for here.
    """
    found = recognise(spent.output.script)
    if found.kind is ScriptKind.WITNESS_KEY_HASH:
        for public_key, signature in signatures.items():
            if hash160(public_key) == found.payload:
                return (signature, public_key)
        raise BadTransaction("the signature of the key that the output pays is missing")
    if found.kind is not ScriptKind.WITNESS_SCRIPT_HASH:
        raise BadTransaction(f"an output of kind {found.kind} is not signed for here")
    required, keys = parse_multisig(spent.witness_script)
    ordered = [signatures[key] for key in keys if key in signatures]
    if len(ordered) < required:
        raise BadTransaction(f"{len(ordered)} of {required} signatures")
    return (b"", *ordered[:required], spent.witness_script)


def signers_of(spent: Spent, keys: Sequence[bytes]) -> list[bytes]:
    """Return those of the public *keys* whose signatures count for an output."""
    found = recognise(spent.output.script)
    if found.kind is ScriptKind.WITNESS_KEY_HASH:
        return [key for key in keys if hash160(key) == found.payload]
    if found.kind is ScriptKind.WITNESS_SCRIPT_HASH:
        return [key for key in keys if key in parse_multisig(spent.witness_script)[1]]
    return []


def assemble(
    unsigned: Transaction, spent: Sequence[Spent], witnesses: Sequence[tuple[bytes, ...]]
) -> SignedTransaction:
    """Return the signed transaction, its id and sizes read again from its bytes.

    Raises:
        BadTransaction: the bytes are not the transaction that was to be signed.
    """
    inputs = tuple(
        replace(item, witness=witness)
        for item, witness in zip(unsigned.inputs, witnesses, strict=True)
    )
    return read_signed(encode(replace(unsigned, inputs=inputs)), unsigned, spent)


def read_signed(raw: bytes, unsigned: Transaction, spent: Sequence[Spent]) -> SignedTransaction:
    """Return what the bytes of a signed transaction say of themselves.

    Raises:
        BadTransaction: they are another transaction than *unsigned*.
    """
    read = decode(raw)
    if read.without_proofs() != unsigned.without_proofs():
        raise BadTransaction("the signed bytes are another transaction than was to be signed")
    fee = sum(item.output.amount for item in spent) - sum(item.amount for item in read.outputs)
    return SignedTransaction(raw, read.tx_id, read.weight, read.virtual_size, fee)


def _encode_integer(value: int) -> bytes:
    # A leading zero where the first bit would make it negative, and only there.
    data = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes([_INTEGER, len(data)]) + data
