"""A node's blocks and receipts as movements and outcomes. Pure.

What counts as a movement, and why:

- the value that a transaction itself carries, if its receipt says that it succeeded;
- a ``Transfer`` event of a *registered* contract, told apart by its number of topics: three and 32
  bytes of data is ERC-20; four is an NFT (ERC-721 has the same first topic); one is a contract that
  indexes nothing. The last two are not money that we know, and are left out;
- the same event of any other contract, when it names an address of ours as the recipient and a
  stranger as the sender: not money either, but shown, a bounded number of times per block, so that
  custody quarantines it. As an outgoing movement it would be anybody's word: it is left out;
- nothing of zero: it moves nothing, and address poisoning is made of it.

Call data is never believed: a token may return false and stay silent. Value that contracts pass on
among themselves has no event: `chain.evm.traces` finds it where a node traces, elsewhere only
balances show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from chain.errors import BadTransaction, IncompleteAnswer, UnreadableAnswer
from chain.evm.bloom import bloom_of, may_contain
from chain.evm.erc20 import TRANSFER_TOPIC, WORD_BYTES, decode_address_word
from chain.evm.quantities import Json, as_address, as_bytes, as_hash, as_int, get
from chain.model import (
    TOP,
    Block,
    BlockContents,
    Movement,
    TransactionOutcome,
    WatchList,
    log_position,
    shown,
)
from chain.shapes import as_list, as_object
from kernel.money import AMOUNT_MAX

ERC20_TOPICS: Final = 3
TRANSFER_TOPIC_BYTES: Final = bytes.fromhex(TRANSFER_TOPIC[2:])
TIME_MAX: Final = 253_402_300_799
"""The last second of the year 9999: the latest that can be written down."""
HEIGHT_MAX: Final = 2**63 - 1
NONCE_MAX: Final = 2**63 - 1
"""Half of what EIP-2681 allows: what PostgreSQL's bigint holds, and more than anybody will send."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a block says about one of its transactions. *recipient* is None for a creation."""

    tx_hash: str
    sender: str
    recipient: str | None
    nonce: int
    value: int


@dataclass(frozen=True, slots=True)
class FullBlock:
    """A block with its transactions in order, and the filter over all its logs."""

    block: Block
    transactions: tuple[Transaction, ...]
    bloom: int


@dataclass(frozen=True, slots=True)
class Log:
    """An event: who emitted it, its topics and data, as bytes."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a transaction did. *logs* are all its logs, in order; *fee* is in wei."""

    tx_hash: str
    block_hash: str
    index: int
    succeeded: bool
    fee: int
    created: str | None
    logs: tuple[Log, ...]


def parse_block(answer: object, chain: str) -> Block:
    """Read the header part of ``eth_getBlockBy…``."""
    body = as_object(answer, "the block")
    return Block(
        chain=chain,
        height=as_int(get(body, "number"), "number", HEIGHT_MAX),
        hash=as_hash(get(body, "hash"), "hash"),
        parent=as_hash(get(body, "parentHash"), "parentHash"),
        time=datetime.fromtimestamp(as_int(get(body, "timestamp"), "timestamp", TIME_MAX), tz=UTC),
    )


def parse_full_block(answer: object, chain: str) -> FullBlock:
    """Read ``eth_getBlockBy…`` with transactions in full."""
    body = as_object(answer, "the block")
    block = parse_block(body, chain)
    transactions = tuple(
        _transaction(as_object(item, "a transaction"), block, place)
        for place, item in enumerate(as_list(get(body, "transactions"), "transactions"))
    )
    bloom = int.from_bytes(as_bytes(get(body, "logsBloom"), "logsBloom"), "big")
    return FullBlock(block, transactions, bloom)


def parse_transaction(answer: object) -> Transaction:
    """Read one transaction object."""
    body = as_object(answer, "the transaction")
    to = body.get("to")
    return Transaction(
        tx_hash=as_hash(get(body, "hash"), "hash"),
        sender=as_address(get(body, "from"), "from"),
        recipient=None if to is None else as_address(to, "to"),
        nonce=as_int(get(body, "nonce"), "nonce", NONCE_MAX),
        value=as_int(get(body, "value"), "value"),
    )


def parse_receipt(answer: object) -> Receipt:
    """Read one receipt."""
    body = as_object(answer, "the receipt")
    status = as_int(get(body, "status"), "status", 1)
    created = body.get("contractAddress")
    logs = as_list(get(body, "logs"), "logs")
    if not status and logs:
        raise IncompleteAnswer("a failed transaction has logs")
    return Receipt(
        tx_hash=as_hash(get(body, "transactionHash"), "transactionHash"),
        block_hash=as_hash(get(body, "blockHash"), "blockHash"),
        index=as_int(get(body, "transactionIndex"), "transactionIndex"),
        succeeded=status == 1,
        fee=_fee(body),
        created=None if created is None else as_address(created, "contractAddress"),
        logs=_logs(logs),
    )


def needs_receipts(full: FullBlock, watch: WatchList, recipients: Iterable[bytes] = ()) -> bool:
    """Tell whether the block can hold anything for *watch*.

    The filter over a block's logs is part of what its hash covers: when it knows none of the
    registered contracts, no event of theirs is in the block.

    Args:
        recipients: words of addresses whose unregistered tokens are looked for as well; without
            them those are seen only in blocks that are read for another reason.
    """
    if any(
        item.sender in watch.addresses or (item.value and item.recipient in watch.addresses)
        for item in full.transactions
    ):
        return True
    if not full.transactions or not may_contain(full.bloom, TRANSFER_TOPIC_BYTES):
        return False
    return any(may_contain(full.bloom, bytes.fromhex(c[2:])) for c in watch.contracts) or any(
        may_contain(full.bloom, word) for word in recipients
    )


def check_receipts(full: FullBlock, receipts: Sequence[Receipt]) -> None:
    """Refuse receipts that are not exactly those of the block, or whose logs are not all there.

    Raises:
        IncompleteAnswer: another number or order, another block, or logs that do not make up the
            block's filter (an empty answer at the head of the chain, for one).
    """
    if len(receipts) != len(full.transactions):
        raise IncompleteAnswer(
            f"block {full.block.hash} has {len(full.transactions)} transactions, "
            f"the node gave {len(receipts)} receipts"
        )
    for place, (item, receipt) in enumerate(zip(full.transactions, receipts, strict=True)):
        found = (receipt.tx_hash, receipt.block_hash, receipt.index)
        if found != (item.tx_hash, full.block.hash, place):
            raise IncompleteAnswer(f"receipt {place} of block {full.block.hash} is another one's")
    if bloom_of(_bloom_items(receipts)) != full.bloom:
        raise IncompleteAnswer(
            f"the logs given for block {full.block.hash} are not all of its logs"
        )


def contents_of(
    full: FullBlock,
    receipts: Sequence[Receipt],
    watch: WatchList,
    moves: Mapping[str, Sequence[Movement]] | None = None,
) -> BlockContents:
    """Return what the block holds for *watch*.

    Args:
        receipts: have passed `check_receipts`.
        moves: what contracts passed on, by transaction (`chain.evm.traces`); None: not traced.
    """
    movements: list[Movement] = []
    outcomes: list[TransactionOutcome] = []
    for item, receipt in zip(full.transactions, receipts, strict=True):
        if item.sender in watch.addresses:
            outcomes.append(outcome_of(item, receipt))
        movements += movements_of(item, receipt)
        if moves and receipt.succeeded:
            movements += moves.get(item.tx_hash, ())
    kept, left_out = shown(movements, watch)
    return BlockContents(
        full.block, kept, tuple(outcomes), traced=moves is not None, left_out=left_out
    )


def outcome_of(item: Transaction, receipt: Receipt) -> TransactionOutcome:
    """Return what became of the transaction; its fee is due whether or not it succeeded."""
    return TransactionOutcome(
        tx_hash=item.tx_hash,
        sender=item.sender,
        nonce=item.nonce,
        succeeded=receipt.succeeded,
        fee=receipt.fee,
        recipient=item.recipient,
    )


def movements_of(item: Transaction, receipt: Receipt) -> Iterable[Movement]:
    """Yield all that the transaction says it moved, native value first, then logs in order."""
    if not receipt.succeeded:
        return
    recipient = receipt.created if item.recipient is None else item.recipient
    if item.value and recipient is not None:
        yield Movement(item.tx_hash, TOP, item.sender, recipient, None, item.value)
    for index, log in enumerate(receipt.logs):
        moved = _erc20_transfer(log)
        if moved is not None and moved[2]:
            yield Movement(
                item.tx_hash, log_position(index), moved[0], moved[1], log.address, moved[2]
            )


def _erc20_transfer(log: Log) -> tuple[str, str, int] | None:
    """Return sender, recipient and amount, if *log* is exactly an ERC-20 transfer."""
    if len(log.topics) != ERC20_TOPICS or log.topics[0] != TRANSFER_TOPIC_BYTES:
        return None
    if len(log.data) != WORD_BYTES:
        return None
    try:
        sender, recipient = (decode_address_word(topic) for topic in log.topics[1:])
    except BadTransaction:
        return None
    return sender, recipient, int.from_bytes(log.data, "big")


def _transaction(body: Json, block: Block, place: int) -> Transaction:
    if as_hash(get(body, "blockHash"), "blockHash") != block.hash:
        raise IncompleteAnswer(f"a transaction given for block {block.hash} is another one's")
    if as_int(get(body, "transactionIndex"), "transactionIndex") != place:
        raise IncompleteAnswer(f"the transactions of block {block.hash} are out of order")
    return parse_transaction(body)


def _fee(body: Json) -> int:
    """Return the wei paid: for gas, for blobs (EIP-4844), and a rollup's charge for layer 1."""
    fee = as_int(get(body, "gasUsed"), "gasUsed") * as_int(
        get(body, "effectiveGasPrice"), "effectiveGasPrice"
    )
    if body.get("blobGasUsed") and body.get("blobGasPrice"):
        fee += as_int(body["blobGasUsed"], "blobGasUsed") * as_int(
            body["blobGasPrice"], "blobGasPrice"
        )
    if body.get("l1Fee"):
        fee += as_int(body["l1Fee"], "l1Fee")
    if fee > AMOUNT_MAX:
        raise UnreadableAnswer(f"a fee of {fee} wei cannot be")
    return fee


def _logs(logs: list[Any]) -> tuple[Log, ...]:
    read = [as_object(log, "a log") for log in logs]
    places = [as_int(get(log, "logIndex"), "logIndex") for log in read]
    if any(later - earlier != 1 for earlier, later in pairwise(places)):
        raise IncompleteAnswer("the logs of a receipt are not consecutive")
    return tuple(_log(log) for log in read)


def _log(body: Json) -> Log:
    return Log(
        address=as_address(get(body, "address"), "address"),
        topics=tuple(as_bytes(t, "a topic") for t in as_list(get(body, "topics"), "topics")),
        data=as_bytes(get(body, "data"), "data"),
    )


def _bloom_items(receipts: Iterable[Receipt]) -> Iterable[bytes]:
    for receipt in receipts:
        for log in receipt.logs:
            yield bytes.fromhex(log.address[2:])
            yield from log.topics
