"""What the signature of an input signs, for witness programs of version 0.

Every digest here commits to all inputs and all outputs (``SIGHASH_ALL``): nothing can be added to
what was signed. Source: BIP 143.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chain.bitcoin.scripts import ScriptKind, key_hash_script, recognise
from chain.bitcoin.transactions import (
    Output,
    Transaction,
    encode_bytes,
    encode_outpoint,
    encode_output,
)
from chain.errors import BadTransaction
from chain.keys.hashes import double_sha256

SIGHASH_ALL: Final = 1


@dataclass(frozen=True, slots=True)
class Spent:
    """An output that an input spends.

    Attributes:
        witness_script: of a P2WSH output: the script whose hash it pays.
    """

    output: Output
    witness_script: bytes = b""


def signing_digests(transaction: Transaction, spent: Sequence[Spent]) -> list[bytes]:
    """Return the 32 bytes to be signed for each input, in order.

    Args:
        transaction: signed or not; proofs are not looked at.
        spent: what each input spends. A wrong amount gives a digest that no node accepts.

    Raises:
        BadTransaction: another number of outputs than inputs, or one that is no witness program of
            version 0, or whose script is not the one that it pays.
    """
    if len(spent) != len(transaction.inputs):
        raise BadTransaction(f"{len(transaction.inputs)} inputs spend {len(spent)} outputs")
    before = (
        transaction.version.to_bytes(4, "little")
        + double_sha256(b"".join(encode_outpoint(item.outpoint) for item in transaction.inputs))
        + double_sha256(
            b"".join(item.sequence.to_bytes(4, "little") for item in transaction.inputs)
        )
    )
    after = (
        double_sha256(b"".join(map(encode_output, transaction.outputs)))
        + transaction.lock_time.to_bytes(4, "little")
        + SIGHASH_ALL.to_bytes(4, "little")
    )
    return [
        double_sha256(
            before
            + encode_outpoint(item.outpoint)
            + encode_bytes(script_code(found))
            + found.output.amount.to_bytes(8, "little")
            + item.sequence.to_bytes(4, "little")
            + after
        )
        for item, found in zip(transaction.inputs, spent, strict=True)
    ]


def script_code(spent: Spent) -> bytes:
    """Return the script that a signature of this output commits to."""
    found = recognise(spent.output.script)
    if found.kind is ScriptKind.WITNESS_KEY_HASH:
        return key_hash_script(found.payload)
    if found.kind is ScriptKind.WITNESS_SCRIPT_HASH:
        if hashlib.sha256(spent.witness_script).digest() != found.payload:
            raise BadTransaction("the witness script is not the one that the output pays")
        return spent.witness_script
    raise BadTransaction(f"an output of kind {found.kind} is not signed for here")
