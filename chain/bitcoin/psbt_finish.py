"""Partially signed transactions on their way back: signatures added, combined, finished, extracted.

Whatever another program has made is verified here again: no signature is taken that does not sign
these inputs and outputs. Source: BIP 174 (roles).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from chain.bitcoin.digests import SIGHASH_ALL, Spent, signing_digests
from chain.bitcoin.multisig import parse_multisig
from chain.bitcoin.psbt import Psbt, PsbtInput, spent_outputs
from chain.bitcoin.psbt_fields import is_point
from chain.bitcoin.signing import signers_of, verify_signature, witness_of
from chain.bitcoin.transactions import Transaction
from chain.errors import BadTransaction


def add_signatures(psbt: Psbt, signatures: Sequence[Mapping[bytes, bytes]]) -> Psbt:
    """Return it with more signatures, for each input those by public key."""
    inputs = tuple(
        replace(known, signatures={**known.signatures, **more})
        for known, more in zip(psbt.inputs, signatures, strict=True)
    )
    return replace(psbt, inputs=inputs)


def combine(psbts: Sequence[Psbt]) -> Psbt:
    """Return one with everything that is known to any of these (BIP 174, "Combiner").

    Raises:
        BadTransaction: none, of different transactions, or they contradict each other.
    """
    if not psbts:
        raise BadTransaction("nothing to combine")
    first = psbts[0]
    if any(item.transaction != first.transaction for item in psbts):
        raise BadTransaction("the parts are of different transactions")
    return Psbt(
        first.transaction,
        tuple(_merge(known) for known in zip(*(item.inputs for item in psbts), strict=True)),
        tuple(_merge(known) for known in zip(*(item.outputs for item in psbts), strict=True)),
        _union([item.xpubs for item in psbts], "an extended key"),
        _union([item.unknown for item in psbts], "a field"),
    )


def _merge(known: Sequence[Any]) -> Any:
    merged: dict[str, Any] = {}
    for item in fields(known[0]):
        values = [getattr(part, item.name) for part in known]
        if isinstance(values[0], Mapping):
            merged[item.name] = _union(values, item.name)
            continue
        told = [value for value in values if value is not None]
        if any(value != told[0] for value in told):
            raise BadTransaction(f"the parts contradict each other in {item.name}")
        merged[item.name] = told[0] if told else None
    return type(known[0])(**merged)


def _union(maps: Iterable[Mapping[bytes, Any]], what: str) -> dict[bytes, Any]:
    found: dict[bytes, Any] = {}
    for part in maps:
        for key, value in part.items():
            if found.setdefault(key, value) != value:
                raise BadTransaction(f"the parts contradict each other in {what} {key.hex()[:80]}")
    return found


def finalise(psbt: Psbt) -> Psbt:
    """Return it with a finished witness for each input, every signature verified.

    Finished are inputs that spend version 0 witness programs: a key's hash, or a script of several
    keys. What signers needed to know is left out, as BIP 174 asks.

    Raises:
        BadTransaction: a signature is missing, false, or of another kind of input.
    """
    spent = spent_outputs(psbt)
    digests = signing_digests(psbt.transaction, spent)
    inputs = tuple(
        _finalise(known, found, digest, place)
        for place, (known, found, digest) in enumerate(
            zip(psbt.inputs, spent, digests, strict=True)
        )
    )
    return replace(psbt, inputs=inputs)


def _finalise(known: PsbtInput, spent: Spent, digest: bytes, place: int) -> PsbtInput:
    try:
        witness = _prove(known, spent, digest)
    except BadTransaction as error:
        raise BadTransaction(f"input {place}: {error.what}") from error
    return PsbtInput(
        previous=known.previous,
        witness_utxo=known.witness_utxo,
        final_witness=witness,
        unknown=known.unknown,
    )


def _prove(known: PsbtInput, spent: Spent, digest: bytes) -> tuple[bytes, ...]:
    if known.final_witness is not None:
        verify_witness(spent, digest, known.final_witness)
        return known.final_witness
    if known.sighash not in {None, SIGHASH_ALL}:
        raise BadTransaction("its signatures would not commit to the whole transaction")
    counted = signers_of(spent, list(known.signatures))
    signatures = {key: known.signatures[key] for key in counted}
    for key, signature in signatures.items():
        verify_signature(key, digest, signature)
    return witness_of(spent, signatures)


def verify_witness(spent: Spent, digest: bytes, witness: tuple[bytes, ...]) -> None:
    """Refuse a finished witness that does not prove the right to spend, made by whomever.

    Raises:
        BadTransaction: says what is wrong.
    """
    if len(witness) == 2:
        signature, key = witness
        if not is_point(key) or signers_of(spent, [key]) != [key]:
            raise BadTransaction("the witness is of another key than the output pays")
        verify_signature(key, digest, signature)
        return
    if len(witness) < 3 or witness[0] or witness[-1] != spent.witness_script:
        raise BadTransaction("the witness does not fit the output")
    keys = signers_of(spent, _keys_of(spent))
    found: dict[bytes, bytes] = {}
    for signature in witness[1:-1]:
        found[_find_signer(keys, digest, signature)] = signature
    if witness_of(spent, found) != witness:
        raise BadTransaction("the witness is not in its one form")


def _keys_of(spent: Spent) -> list[bytes]:
    return list(parse_multisig(spent.witness_script)[1])


def _find_signer(keys: Sequence[bytes], digest: bytes, signature: bytes) -> bytes:
    for key in keys:
        try:
            verify_signature(key, digest, signature)
        except BadTransaction:
            continue
        return key
    raise BadTransaction("a signature is of none of the keys")


def extract(psbt: Psbt) -> Transaction:
    """Return the transaction that can be sent.

    Raises:
        BadTransaction: an input is not finished.
    """
    if any(known.final_witness is None and known.final_script is None for known in psbt.inputs):
        raise BadTransaction("an input is not finished", remedy="Have the missing people sign")
    inputs = tuple(
        replace(item, script=known.final_script or b"", witness=known.final_witness or ())
        for item, known in zip(psbt.transaction.inputs, psbt.inputs, strict=True)
    )
    return replace(psbt.transaction, inputs=inputs)
