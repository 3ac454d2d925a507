"""Partially signed transactions, version 0, as exact values: read strictly, written in one order.

A transaction travels with what a signer needs to know: the outputs that it spends, the scripts, where
the keys come from; and it comes back with signatures. What is read is checked: fields that occur
twice, lengths, points, that a previous transaction is the one that is named. Reading what was written
gives the same value; other orders of the same fields are read, too. Source: BIP 174.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from chain.bitcoin.digests import Spent
from chain.bitcoin.multisig import KeySource
from chain.bitcoin.psbt_fields import (
    IN_KEPT,
    OUT_KEPT,
    Check,
    Global,
    In,
    Out,
    check_kept,
    is_point,
)
from chain.bitcoin.transactions import (
    Output,
    Transaction,
    TransactionReader,
    decode,
    encode,
    encode_bytes,
    encode_output,
    encode_stack,
)
from chain.errors import BadTransaction

MAGIC: Final = b"psbt\xff"
PSBT_BYTES_MAX: Final = 8_000_000
"""Whole previous transactions may be inside; more than this is nothing that people carry."""
XPUB_BYTES: Final = 78

Pairs = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class PsbtInput:
    """What is known of an input.

    Attributes:
        previous: the whole transaction whose output is spent.
        witness_utxo: the output itself: enough where signatures commit to amounts (BIP 143).
        signatures: in DER with their type, by public key.
        sighash: what signatures have to commit to; None: whatever signers choose.
        derivations: where keys come from, by public key.
        final_script, final_witness: the finished proof.
        unknown: fields that are kept and not read, by their whole key.
    """

    previous: Transaction | None = None
    witness_utxo: Output | None = None
    signatures: Mapping[bytes, bytes] = field(default_factory=dict)
    sighash: int | None = None
    redeem_script: bytes | None = None
    witness_script: bytes | None = None
    derivations: Mapping[bytes, KeySource] = field(default_factory=dict)
    final_script: bytes | None = None
    final_witness: tuple[bytes, ...] | None = None
    unknown: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PsbtOutput:
    """What is known of an output; see `PsbtInput`."""

    redeem_script: bytes | None = None
    witness_script: bytes | None = None
    derivations: Mapping[bytes, KeySource] = field(default_factory=dict)
    unknown: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Psbt:
    """A transaction with what its signers need and gave.

    Attributes:
        transaction: unsigned.
        xpubs: extended public keys in 78 bytes, and where each comes from.
    """

    transaction: Transaction
    inputs: tuple[PsbtInput, ...]
    outputs: tuple[PsbtOutput, ...]
    xpubs: Mapping[bytes, KeySource] = field(default_factory=dict)
    unknown: Mapping[bytes, bytes] = field(default_factory=dict)


def create(
    transaction: Transaction,
    inputs: Sequence[PsbtInput],
    outputs: Sequence[PsbtOutput] | None = None,
) -> Psbt:
    """Return *transaction* with what is known of its inputs and outputs.

    Raises:
        BadTransaction: it is signed, or the parts do not fit it.
    """
    known = tuple(outputs or (PsbtOutput() for _ in transaction.outputs))
    psbt = Psbt(transaction.without_proofs(), tuple(inputs), known)
    _check(psbt)
    return psbt


def spent_output(psbt: Psbt, place: int) -> Output:
    """Return the output that an input spends.

    Raises:
        BadTransaction: nothing says which.
    """
    known, index = psbt.inputs[place], psbt.transaction.inputs[place].outpoint.index
    if known.witness_utxo is not None:
        return known.witness_utxo
    if known.previous is not None:
        return known.previous.outputs[index]
    raise BadTransaction(f"nothing says what input {place} spends")


def spent_outputs(psbt: Psbt) -> list[Spent]:
    """Return what every input spends, as digests commit to it."""
    return [
        Spent(spent_output(psbt, place), _script_of(known))
        for place, known in enumerate(psbt.inputs)
    ]


def _script_of(known: PsbtInput) -> bytes:
    if known.witness_script is None and known.final_witness and len(known.final_witness) > 2:
        # Whoever finished the input left the script in the witness only.
        return known.final_witness[-1]
    return known.witness_script or b""


# Writing.


def encode_psbt(psbt: Psbt) -> bytes:
    """Return the bytes, every map in the order of its keys."""
    parts: Pairs = {_key(Global.UNSIGNED): encode(psbt.transaction, witness=False)}
    parts |= {_key(Global.XPUB, key): _encode_source(at) for key, at in psbt.xpubs.items()}
    maps = [
        parts | dict(psbt.unknown),
        *map(_input_pairs, psbt.inputs),
        *map(_output_pairs, psbt.outputs),
    ]
    return MAGIC + b"".join(map(_encode_map, maps))


def to_base64(psbt: Psbt) -> str:
    """Return the text that people copy."""
    return base64.b64encode(encode_psbt(psbt)).decode()


def _key(kind: int, data: bytes = b"") -> bytes:
    return bytes([kind]) + data


def _encode_map(pairs: Mapping[bytes, bytes]) -> bytes:
    ordered = sorted(pairs.items())
    return b"".join(encode_bytes(key) + encode_bytes(value) for key, value in ordered) + b"\0"


def _encode_source(source: KeySource) -> bytes:
    return source.fingerprint + b"".join(step.to_bytes(4, "little") for step in source.path)


def _input_pairs(known: PsbtInput) -> Pairs:
    witness = known.final_witness
    stack = None if witness is None else encode_stack(witness)
    single = {
        In.PREVIOUS: None if known.previous is None else encode(known.previous),
        In.WITNESS_UTXO: None if known.witness_utxo is None else encode_output(known.witness_utxo),
        In.SIGHASH: None if known.sighash is None else known.sighash.to_bytes(4, "little"),
        In.REDEEM_SCRIPT: known.redeem_script,
        In.WITNESS_SCRIPT: known.witness_script,
        In.FINAL_SCRIPT: known.final_script,
        In.FINAL_WITNESS: stack,
    }
    pairs = {_key(kind): value for kind, value in single.items() if value is not None}
    pairs |= {_key(In.SIGNATURE, key): value for key, value in known.signatures.items()}
    pairs |= {_key(In.DERIVATION, key): _encode_source(at) for key, at in known.derivations.items()}
    return pairs | dict(known.unknown)


def _output_pairs(known: PsbtOutput) -> Pairs:
    single = {Out.REDEEM_SCRIPT: known.redeem_script, Out.WITNESS_SCRIPT: known.witness_script}
    pairs = {_key(kind): value for kind, value in single.items() if value is not None}
    pairs |= {
        _key(Out.DERIVATION, key): _encode_source(at) for key, at in known.derivations.items()
    }
    return pairs | dict(known.unknown)


# Reading.


def from_base64(text: str) -> Psbt:
    """Return the partially signed transaction that a text in base64 holds.

    Raises:
        BadTransaction: no base64, or see `decode_psbt`.
    """
    try:
        return decode_psbt(base64.b64decode("".join(text.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        raise BadTransaction(
            "this is not base64", remedy="Copy the whole text of the PSBT"
        ) from error


def read_psbt(content: bytes) -> Psbt:
    """Return what a file holds: the bytes themselves, or their base64.

    Raises:
        BadTransaction: neither.
    """
    if content.startswith(MAGIC):
        return decode_psbt(content)
    if not content.isascii():
        raise BadTransaction("the file is no PSBT, neither its bytes nor base64")
    return from_base64(content.decode())


def decode_psbt(raw: bytes) -> Psbt:
    """Return the partially signed transaction that *raw* is.

    Raises:
        BadTransaction: cut short, something follows, a field twice, of an impossible form, or of
            another version; a previous transaction that is not the one spent; no inputs.
    """
    if len(raw) > PSBT_BYTES_MAX:
        raise BadTransaction(f"a PSBT of {len(raw)} bytes; {PSBT_BYTES_MAX} are read")
    if not raw.startswith(MAGIC):
        raise BadTransaction("this does not begin as a PSBT does", remedy="Give the whole file")
    reader = _Reader(raw, len(MAGIC))
    head = reader.pairs()
    transaction = _read_unsigned(head.pop(_key(Global.UNSIGNED), None))
    inputs = tuple(_read_input(reader.pairs()) for _ in transaction.inputs)
    outputs = tuple(_read_output(reader.pairs()) for _ in transaction.outputs)
    reader.end()
    psbt = replace(_read_head(head), transaction=transaction, inputs=inputs, outputs=outputs)
    _check(psbt)
    return psbt


def _read_unsigned(raw: bytes | None) -> Transaction:
    if raw is None:
        raise BadTransaction(
            "the transaction itself is missing, or this is version 2 of the format"
        )
    transaction = decode(raw)
    if transaction != transaction.without_proofs():
        raise BadTransaction("the transaction inside is signed already")
    return transaction


def _read_head(pairs: Pairs) -> Psbt:
    xpubs, unknown = {}, {}
    for key, value in pairs.items():
        kind, data = key[0], key[1:]
        if kind == Global.UNSIGNED:
            raise BadTransaction("the key of the transaction has something behind it")
        if kind == Global.XPUB:
            if len(data) != XPUB_BYTES or not is_point(data[-33:]):
                raise BadTransaction("an extended public key that cannot be")
            xpubs[data] = _read_source(value)
            if len(xpubs[data].path) != data[4]:
                raise BadTransaction("an extended public key at another depth than its path")
        elif kind == Global.VERSION:
            if data or len(value) != 4 or any(value):
                raise BadTransaction("only version 0 of the format is read")
        else:
            unknown[key] = value
    return Psbt(Transaction((), ()), (), (), xpubs, unknown)


def _read_input(pairs: Pairs) -> PsbtInput:
    found: dict[str, Any] = {"signatures": {}, "derivations": {}, "unknown": {}}
    for key, value in pairs.items():
        kind, data = key[0], key[1:]
        if kind == In.SIGNATURE:
            found["signatures"][_read_point(data)] = _read_signature(value)
        elif kind == In.DERIVATION:
            found["derivations"][_read_point(data)] = _read_source(value)
        else:
            _read_other(found, key, value, _IN_SINGLE, IN_KEPT)
    return PsbtInput(**found)


def _read_output(pairs: Pairs) -> PsbtOutput:
    found: dict[str, Any] = {"derivations": {}, "unknown": {}}
    for key, value in pairs.items():
        if key[0] == Out.DERIVATION:
            found["derivations"][_read_point(key[1:])] = _read_source(value)
        else:
            _read_other(found, key, value, _OUT_SINGLE, OUT_KEPT)
    return PsbtOutput(**found)


def _read_other(
    found: dict[str, Any],
    key: bytes,
    value: bytes,
    single: Mapping[int, tuple[str, Callable[[bytes], Any]]],
    kept: Mapping[int, Check],
) -> None:
    kind, data = key[0], key[1:]
    if kind in single:
        name, read = single[kind]
        if data:
            raise BadTransaction(f"the key of a field of type {kind:#04x} has something behind it")
        found[name] = read(value)
    else:
        check_kept(kept, kind, data, value)
        found["unknown"][key] = value


def _read_point(key: bytes) -> bytes:
    if not is_point(key):
        raise BadTransaction(f"{key.hex()[:132]} is not a public key")
    return key


def _read_signature(value: bytes) -> bytes:
    # What it signs is looked at when it is used; this much every signature is.
    if not 9 <= len(value) <= 73 or value[0] != 0x30 or value[1] != len(value) - 3:
        raise BadTransaction("a signature that is not in DER with a type behind it")
    return value


def _read_source(value: bytes) -> KeySource:
    if len(value) < 4 or len(value) % 4:
        raise BadTransaction("a path of keys that is cut short")
    steps = (value[at : at + 4] for at in range(4, len(value), 4))
    return KeySource(value[:4], tuple(int.from_bytes(step, "little") for step in steps))


def _read_number(value: bytes) -> int:
    if len(value) != 4:
        raise BadTransaction(f"a number of {len(value)} bytes instead of 4")
    return int.from_bytes(value, "little")


def _read_whole(value: bytes, read: Callable[[_Reader], Any]) -> Any:
    reader = _Reader(value)
    found = read(reader)
    reader.end()
    return found


def _check(psbt: Psbt) -> None:
    transaction = psbt.transaction
    counts = (len(transaction.inputs), len(transaction.outputs))
    if (len(psbt.inputs), len(psbt.outputs)) != counts:
        raise BadTransaction("the parts are not as many as the transaction's inputs and outputs")
    for place, (item, known) in enumerate(zip(transaction.inputs, psbt.inputs, strict=True)):
        if known.previous is None:
            continue
        if known.previous.tx_id != item.outpoint.tx_id:
            raise BadTransaction(f"input {place} comes with another transaction than it spends")
        if item.outpoint.index >= len(known.previous.outputs):
            raise BadTransaction(f"input {place} spends an output that does not exist")
        found = known.previous.outputs[item.outpoint.index]
        if known.witness_utxo not in {None, found}:
            raise BadTransaction(f"input {place} is told to spend two different outputs")


@dataclass(slots=True)
class _Reader(TransactionReader):
    """Reads a PSBT, or a value in it."""

    what: str = "the PSBT"

    def pairs(self) -> Pairs:
        found: Pairs = {}
        while key := self.data():
            if key in found:
                raise BadTransaction(f"the field {key.hex()[:80]} occurs twice")
            found[key] = self.data()
        return found

    def stack(self) -> tuple[bytes, ...]:
        return tuple(self.many(self.data))

    def end(self) -> None:
        if self.at != len(self.raw):
            raise BadTransaction(f"{len(self.raw) - self.at} bytes follow where nothing should")


_IN_SINGLE: Final[Mapping[int, tuple[str, Callable[[bytes], Any]]]] = {
    In.PREVIOUS: ("previous", decode),
    In.WITNESS_UTXO: ("witness_utxo", lambda value: _read_whole(value, _Reader.output)),
    In.SIGHASH: ("sighash", _read_number),
    In.REDEEM_SCRIPT: ("redeem_script", bytes),
    In.WITNESS_SCRIPT: ("witness_script", bytes),
    In.FINAL_SCRIPT: ("final_script", bytes),
    In.FINAL_WITNESS: ("final_witness", lambda value: _read_whole(value, _Reader.stack)),
}
_OUT_SINGLE: Final[Mapping[int, tuple[str, Callable[[bytes], Any]]]] = {
    Out.REDEEM_SCRIPT: ("redeem_script", bytes),
    Out.WITNESS_SCRIPT: ("witness_script", bytes),
}
