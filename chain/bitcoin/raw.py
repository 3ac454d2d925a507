"""Blocks and their transactions as bytes, read as fast as Python can. Pure.

`chain.bitcoin.transactions` reads what we sign, with every rule. This reads what miners took, of any size, and
only what watching needs: ids, outpoints and outputs, all of which the block's hash covers.

Sources: BIP 144 (serialisation), Bitcoin developer reference (block header, merkle tree).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chain.bitcoin.transactions import ID_BYTES, Outpoint, Output
from chain.errors import IncompleteAnswer, UnreadableAnswer

HEADER_BYTES: Final = 80
_OUTPOINT_BYTES: Final = 36
_SEQUENCE_BYTES: Final = 4
_AMOUNT_BYTES: Final = 8
_AFTER_LENGTH: Final = 1 + _SEQUENCE_BYTES
_LONG: Final = 0xFD
"""From here on a first byte says how many bytes of length follow."""
_sha256 = hashlib.sha256


@dataclass(slots=True)
class RawTransaction:
    """A transaction as it stands in a block.

    Attributes:
        id: 32 bytes, in the order in which they are hashed (the reverse of what people write).
        first_input, first_output: where in *raw* they begin.
        inputs: how many there are; *scripts* of the outputs.
    """

    raw: bytes
    id: bytes
    first_input: int
    inputs: int
    first_output: int
    scripts: list[bytes]

    @property
    def tx_id(self) -> str:
        """Return the id as people write it."""
        return self.id[::-1].hex()

    @property
    def outpoints(self) -> tuple[Outpoint, ...]:
        """Return what its inputs spend."""
        raw, at, found = self.raw, self.first_input, []
        for _ in range(self.inputs):
            index = int.from_bytes(raw[at + ID_BYTES : at + _OUTPOINT_BYTES], "little")
            found.append(Outpoint(raw[at : at + ID_BYTES][::-1].hex(), index))
            length, at = _size(raw, at + _OUTPOINT_BYTES)
            at += length + _SEQUENCE_BYTES
        return tuple(found)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Return its outputs."""
        raw, at, found = self.raw, self.first_output, []
        for script in self.scripts:
            amount = int.from_bytes(raw[at : at + _AMOUNT_BYTES], "little")
            found.append(Output(amount, script))
            length, at = _size(raw, at + _AMOUNT_BYTES)
            at += length
        return tuple(found)

    @property
    def is_coinbase(self) -> bool:
        """Tell whether it makes new coins."""
        at = self.first_input
        return self.inputs == 1 and self.raw[at : at + ID_BYTES] == bytes(ID_BYTES)


def read_transaction(raw: bytes) -> RawTransaction:
    """Return the transaction that *raw* is.

    Raises:
        UnreadableAnswer: it is none.
    """
    # Where the witnesses end is known, and no id covers them: they are not looked through.
    return _read(raw, 0, len(raw))[0]


def read_block(raw: bytes) -> tuple[bytes, list[RawTransaction]]:
    """Return the header and the transactions of a block.

    Raises:
        UnreadableAnswer: not a block.
    """
    try:
        count, at = _size(raw, HEADER_BYTES)
        found = []
        for _ in range(count):
            read, at = _read(raw, at)
            found.append(read)
    except IndexError:
        raise UnreadableAnswer("the block is cut short") from None
    if at != len(raw):
        raise UnreadableAnswer("what follows the block's transactions is not part of it")
    return raw[:HEADER_BYTES], found


def merkle_root(ids: Sequence[bytes]) -> bytes:
    """Return the root of a block's merkle tree, in the order in which it is hashed."""
    if not ids:
        raise UnreadableAnswer("a block has one transaction at least")
    level = list(ids)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [
            _sha256(_sha256(left + right).digest()).digest()
            for left, right in zip(level[::2], level[1::2], strict=True)
        ]
    return level[0]


def check_transactions(root: bytes, ids: Sequence[bytes], where: str) -> None:
    """Refuse transactions that are not exactly those of the block with this merkle root.

    Raises:
        IncompleteAnswer: some are missing, invented, or twice in a way that leaves the root the same
            (CVE-2012-2459).
    """
    if len(set(ids)) != len(ids) or merkle_root(ids) != root:
        raise IncompleteAnswer(f"the transactions that the node shows are not those of {where}")


def _read(  # noqa: C901  it runs for every transaction of a chain, so it calls little
    raw: bytes, start: int, end: int = 0
) -> tuple[RawTransaction, int]:
    """Return the transaction that begins at *start*, and where it ends: at *end*, if that is known."""
    try:
        at = start + 4
        with_witness = raw[at] == 0 and raw[at + 1] == 1
        if with_witness:
            at += 2
        body = at
        inputs, at = _size(raw, at)
        first_input = at
        for _ in range(inputs):
            at += _OUTPOINT_BYTES
            # Most lengths are one byte; a call for each would take as long as all the rest.
            length = raw[at]
            if length < _LONG:
                at += length + _AFTER_LENGTH
            else:
                length, at = _size(raw, at)
                at += length + _SEQUENCE_BYTES
        count, at = _size(raw, at)
        first_output, scripts = at, []
        for _ in range(count):
            at += _AMOUNT_BYTES
            length = raw[at]
            if length < _LONG:
                at += 1
            else:
                length, at = _size(raw, at)
            scripts.append(raw[at : (at := at + length)])
        middle = at
        if end:
            at = end - 4
        elif with_witness:
            at = _skip_witness(raw, at, inputs)
    except IndexError:
        raise UnreadableAnswer("a transaction is cut short") from None
    if not with_witness and at != middle:
        raise UnreadableAnswer("what follows a transaction is not part of it")
    end = at + 4
    if at < middle or end > len(raw) or not inputs or not scripts:
        raise UnreadableAnswer("a transaction is cut short, or has no inputs or outputs")
    if with_witness:
        hashed = raw[start : start + 4] + raw[body:middle] + raw[at:end]
    else:
        hashed = raw[start:end]
    tx_id = _sha256(_sha256(hashed).digest()).digest()
    return RawTransaction(raw, tx_id, first_input, inputs, first_output, scripts), end


def _skip_witness(raw: bytes, at: int, inputs: int) -> int:
    for _ in range(inputs):
        count, at = _size(raw, at)
        for _ in range(count):
            length, at = _size(raw, at)
            at += length
    return at


def _size(raw: bytes, at: int) -> tuple[int, int]:
    first = raw[at]
    if first < _LONG:
        return first, at + 1
    width = 2 if first == 0xFD else 4 if first == 0xFE else 8
    size = int.from_bytes(raw[at + 1 : at + 1 + width], "little")
    if size > len(raw):
        raise IndexError
    return size, at + 1 + width
