"""Transactions as exact bytes: written, and read back strictly; ids and sizes come from the bytes.

A payout's id is what the network will call it, so it is never taken from a library's object: the
signed bytes are read again, and the id, the size and the fee are those of what was read.

Sources: BIP 144 (serialisation with witness), BIP 141 (weight), Bitcoin developer reference
(transaction, compact size), Bitcoin Core ``src/primitives/transaction.h``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from chain.bitcoin.reading import ByteReader, encode_size
from chain.errors import BadTransaction
from chain.keys.hashes import double_sha256

MONEY_MAX: Final = 21_000_000 * 100_000_000
"""Satoshi that can ever exist; an output of more is invalid (Bitcoin Core ``MAX_MONEY``)."""
RAW_BYTES_MAX: Final = 400_000
"""The largest transaction that nodes relay has this weight; one of ours is far smaller."""
SEQUENCE_FINAL: Final = 0xFFFFFFFF
SEQUENCE_REPLACEABLE: Final = 0xFFFFFFFD
"""Says by BIP 125 that the transaction may be replaced."""
ID_BYTES: Final = 32

_MARKER: Final = b"\x00\x01"
_COINBASE: Final = (bytes(ID_BYTES), 0xFFFFFFFF)


@dataclass(frozen=True, slots=True, order=True)
class Outpoint:
    """One output of one transaction.

    Attributes:
        tx_id: 64 lower-case hexadecimal digits, in the order in which people write them.
        index: of the output, from 0.
    """

    tx_id: str
    index: int

    def __str__(self) -> str:
        return f"{self.tx_id}:{self.index}"


@dataclass(frozen=True, slots=True)
class Input:
    """An output that is spent; *witness* and *script* prove that it may be."""

    outpoint: Outpoint
    sequence: int = SEQUENCE_REPLACEABLE
    script: bytes = b""
    witness: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """*amount* satoshi for whoever satisfies *script*."""

    amount: int
    script: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction, signed or not."""

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    version: int = 2
    lock_time: int = 0

    @property
    def tx_id(self) -> str:
        """Return the id: the double SHA-256 without witnesses, last byte first."""
        return double_sha256(encode(self, witness=False))[::-1].hex()

    @property
    def witness_id(self) -> str:
        """Return the id over everything, which a third party's change of a witness changes too."""
        return double_sha256(encode(self))[::-1].hex()

    @property
    def has_witness(self) -> bool:
        """Tell whether any input brings a witness."""
        return any(item.witness for item in self.inputs)

    @property
    def weight(self) -> int:
        """Return the weight: bytes without witnesses count four times (BIP 141)."""
        return 3 * len(encode(self, witness=False)) + len(encode(self))

    @property
    def virtual_size(self) -> int:
        """Return the size that fees are counted by: a quarter of the weight, rounded up."""
        return -(-self.weight // 4)

    @property
    def is_replaceable(self) -> bool:
        """Tell whether it says by BIP 125 that it may be replaced."""
        return any(item.sequence <= SEQUENCE_REPLACEABLE for item in self.inputs)

    @property
    def is_coinbase(self) -> bool:
        """Tell whether it makes new coins: its one input spends nothing."""
        first = self.inputs[0].outpoint
        return len(self.inputs) == 1 and (bytes.fromhex(first.tx_id), first.index) == _COINBASE

    def without_proofs(self) -> Transaction:
        """Return it unsigned: what every signature of it signs."""
        bare = tuple(replace(item, script=b"", witness=()) for item in self.inputs)
        return replace(self, inputs=bare)


def encode(transaction: Transaction, *, witness: bool = True) -> bytes:
    """Return the bytes of a transaction, with witnesses where it has any and they are asked for."""
    with_witness = witness and transaction.has_witness
    parts = [transaction.version.to_bytes(4, "little"), _MARKER if with_witness else b""]
    parts += [encode_size(len(transaction.inputs)), *map(_encode_input, transaction.inputs)]
    parts += [encode_size(len(transaction.outputs)), *map(encode_output, transaction.outputs)]
    if with_witness:
        parts += [encode_stack(item.witness) for item in transaction.inputs]
    parts.append(transaction.lock_time.to_bytes(4, "little"))
    return b"".join(parts)


def encode_outpoint(outpoint: Outpoint) -> bytes:
    """Return 36 bytes: the id, last byte first, and the index."""
    return bytes.fromhex(outpoint.tx_id)[::-1] + outpoint.index.to_bytes(4, "little")


def encode_output(output: Output) -> bytes:
    """Return amount and script."""
    return output.amount.to_bytes(8, "little") + encode_bytes(output.script)


def encode_bytes(data: bytes) -> bytes:
    """Return *data* behind its length."""
    return encode_size(len(data)) + data


def decode(raw: bytes) -> Transaction:
    """Return the transaction that *raw* is, exactly: encoding it again gives the same bytes.

    Raises:
        BadTransaction: cut short, something follows, a length in a longer form than it needs, a
            witness part without a witness, no inputs or outputs, or amounts that cannot be.
    """
    if len(raw) > RAW_BYTES_MAX:
        raise BadTransaction(f"a transaction of {len(raw)} bytes; nodes take {RAW_BYTES_MAX}")
    reader = TransactionReader(raw)
    version = reader.number(4)
    with_witness = raw[4:6] == _MARKER
    if with_witness:
        reader.take(2)
    inputs = tuple(reader.many(reader.input))
    outputs = tuple(reader.many(reader.output))
    if with_witness:
        inputs = tuple(replace(item, witness=tuple(reader.many(reader.data))) for item in inputs)
    transaction = Transaction(inputs, outputs, version, reader.number(4))
    reader.end()
    _check(transaction, with_witness=with_witness)
    return transaction


def _check(transaction: Transaction, *, with_witness: bool) -> None:
    if not transaction.inputs or not transaction.outputs:
        raise BadTransaction("a transaction has inputs and outputs")
    if with_witness and not transaction.has_witness:
        raise BadTransaction("a witness part without a witness")
    spent = [item.outpoint for item in transaction.inputs]
    if len(set(spent)) != len(spent):
        raise BadTransaction("one output is spent twice")
    if sum(item.amount for item in transaction.outputs) > MONEY_MAX:
        raise BadTransaction("the outputs are more than all coins that can exist")


def _encode_input(item: Input) -> bytes:
    proof = encode_bytes(item.script)
    return encode_outpoint(item.outpoint) + proof + item.sequence.to_bytes(4, "little")


def encode_stack(stack: Sequence[bytes]) -> bytes:
    """Return a witness: how many items, and each behind its length."""
    return encode_size(len(stack)) + b"".join(map(encode_bytes, stack))


@dataclass(slots=True)
class TransactionReader(ByteReader):
    """Reads the parts of a transaction."""

    def input(self) -> Input:
        """Return an input, without its witness."""
        tx_id, index = self.take(ID_BYTES)[::-1].hex(), self.number(4)
        script = self.data()
        return Input(Outpoint(tx_id, index), self.number(4), script)

    def output(self) -> Output:
        """Return an output, whose amount can be."""
        amount = self.number(8)
        if amount > MONEY_MAX:
            raise BadTransaction(f"an output of {amount} satoshi cannot be")
        return Output(amount, self.data())

    def end(self) -> None:
        """Refuse what follows."""
        if self.at != len(self.raw):
            raise BadTransaction(f"{len(self.raw) - self.at} bytes follow the transaction")
