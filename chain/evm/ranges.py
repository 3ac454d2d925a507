"""Reading many blocks with little work: what can be left out, and what must be read in full. Pure.

A block of a run is looked at as the node wrote it, without making a value of each transaction. Only
blocks that hold something for us, or might, are read the strict way, with their receipts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from chain.errors import BlockGone, IncompleteAnswer, RangeTooLarge, UnreadableAnswer
from chain.evm.bloom import may_contain
from chain.evm.erc20 import TRANSFER_TOPIC, address_word
from chain.evm.parse import ERC20_TOPICS, parse_block
from chain.evm.quantities import as_bytes, as_hash, as_int, get
from chain.evm.traces import PLAIN_GAS
from chain.model import Block, WatchList
from chain.shapes import as_list, as_object

CONTRACTS_FILTER_MAX: Final = 200
"""Contracts named in a filter of events; with more, all transfers are asked for and looked through."""
LOGS_MAX: Final = 50_000
"""Events of one answer that are taken in; with more, fewer blocks are asked for at once."""
RECIPIENTS_FILTER_MAX: Final = 500
"""Addresses whose unregistered tokens are looked for; nodes take a thousand topics at one place, at most.
With more addresses such a token is seen only in a block that is read for another reason."""
RECIPIENT: Final = 1
"""Where the recipient stands among the topics after the first."""
TOPIC: Final = bytes.fromhex(TRANSFER_TOPIC[2:])
ADDRESS_AT: Final = 26
"""Where the digits of an address begin in a topic of 32 bytes."""


@dataclass(frozen=True, slots=True)
class Needle:
    """A watch list in the spelling of nodes: lower case.

    Attributes:
        recipients: the addresses as words of 32 bytes, if they are few enough to be looked for.
    """

    addresses: frozenset[str]
    contracts: Mapping[str, bytes]
    recipients: tuple[bytes, ...]

    @classmethod
    def of(cls, watch: WatchList) -> Needle:
        """Return the needle for a watch list."""
        few = len(watch.addresses) <= RECIPIENTS_FILTER_MAX
        return cls(
            addresses=frozenset(item.lower() for item in watch.addresses),
            contracts={item.lower(): bytes.fromhex(item[2:]) for item in watch.contracts},
            recipients=tuple(map(address_word, sorted(watch.addresses))) if few else (),
        )


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a quick look at a block found.

    Attributes:
        pays: a transaction is from a watched address, or carries value to one.
        runs_code: a transaction may have run code.
        hashes: of the transactions, in order.
    """

    block: Block
    bloom: int
    pays: bool
    runs_code: bool
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LogDigest:
    """What the events of a run say.

    Attributes:
        ours: hashes of blocks that hold a transfer from or to a watched address.
        told: (block hash, contract) of every transfer of a registered contract.
        places: (block hash, height, transaction hash) of every event given.
    """

    ours: frozenset[str]
    told: frozenset[tuple[str, str]]
    places: frozenset[tuple[str, int, str]]


def scan_block(answer: object, chain: str, needle: Needle) -> Scanned:
    """Look through ``eth_getBlockByNumber`` with transactions in full.

    Raises:
        UnreadableAnswer, IncompleteAnswer: it is not a block with its own transactions.
    """
    body = as_object(answer, "the block")
    block = parse_block(body, chain)
    ours = needle.addresses
    pays = code = False
    hashes = []
    try:
        for item in as_list(get(body, "transactions"), "transactions"):
            if item["blockHash"].lower() != block.hash:
                raise IncompleteAnswer(f"a transaction given for {block.hash} is another one's")
            hashes.append(item["hash"].lower())
            to = item["to"]
            if item["from"].lower() in ours or (
                to is not None and to.lower() in ours and int(item["value"], 16)
            ):
                pays = True
            if to is None or int(item["gas"], 16) > PLAIN_GAS:
                code = True
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UnreadableAnswer(f"a transaction of block {block.hash} is not readable") from error
    bloom = int.from_bytes(as_bytes(get(body, "logsBloom"), "logsBloom"), "big")
    return Scanned(block, bloom, pays, code, tuple(hashes))


def log_filter(first: Block, last: Block, needle: Needle) -> dict[str, Any]:
    """Return the filter of ``eth_getLogs`` for the transfers of registered contracts."""
    asked: dict[str, Any] = {
        "fromBlock": hex(first.height),
        "toBlock": hex(last.height),
        "topics": [TRANSFER_TOPIC],
    }
    if len(needle.contracts) <= CONTRACTS_FILTER_MAX:
        asked["address"] = sorted(needle.contracts)
    return asked


def recipient_filter(first: Block, last: Block, needle: Needle) -> dict[str, Any] | None:
    """Return the filter for transfers of any contract to us; None where nothing is to be asked."""
    everything_is_told = len(needle.contracts) > CONTRACTS_FILTER_MAX
    if everything_is_told or not needle.recipients:
        return None
    return {
        "fromBlock": hex(first.height),
        "toBlock": hex(last.height),
        "topics": [TRANSFER_TOPIC, None, [f"0x{word.hex()}" for word in needle.recipients]],
    }


def digest_logs(answer: object, needle: Needle) -> LogDigest:
    """Read the answer of ``eth_getLogs`` to `log_filter` or to `recipient_filter`.

    Raises:
        RangeTooLarge: more than `LOGS_MAX` events.
        IncompleteAnswer: an event that was taken back.
    """
    ours: set[str] = set()
    told: set[tuple[str, str]] = set()
    places: set[tuple[str, int, str]] = set()
    logs = as_list(answer, "the logs")
    if len(logs) > LOGS_MAX:
        raise RangeTooLarge(f"{len(logs)} events in one answer")
    for entry in logs:
        body = as_object(entry, "a log")
        block_hash = as_hash(get(body, "blockHash"), "blockHash")
        tx_hash = as_hash(get(body, "transactionHash"), "transactionHash")
        places.add((block_hash, as_int(get(body, "blockNumber"), "blockNumber"), tx_hash))
        if body.get("removed"):
            raise IncompleteAnswer(f"the node took an event of block {block_hash} back")
        contract = str(get(body, "address")).lower()
        topics = as_list(get(body, "topics"), "topics")[1:]
        if contract in needle.contracts:
            told.add((block_hash, contract))
        else:
            topics = topics[RECIPIENT:] if len(topics) == ERC20_TOPICS - 1 else []
        for topic in topics:
            if f"0x{str(topic)[ADDRESS_AT:]}".lower() in needle.addresses:
                ours.add(block_hash)
    return LogDigest(frozenset(ours), frozenset(told), frozenset(places))


def check_places(digest: LogDigest, run: Sequence[Scanned]) -> None:
    """Refuse events of other blocks than those of the run, or of transactions they do not have.

    Raises:
        IncompleteAnswer: says which.
    """
    blocks = {item.block.hash: (item.block.height, frozenset(item.hashes)) for item in run}
    for block_hash, height, tx_hash in digest.places:
        found = blocks.get(block_hash)
        if found is None or found[0] != height:
            raise IncompleteAnswer(f"the node gave an event of block {block_hash}, not of the run")
        if tx_hash not in found[1]:
            raise IncompleteAnswer(f"block {block_hash} has no transaction {tx_hash}")


def check_links(run: Sequence[Scanned], first: Block, last: Block) -> None:
    """Refuse blocks that do not link from *first* to *last* by their parents.

    Raises:
        BlockGone: the node has other blocks there now.
    """
    blocks = [item.block for item in run]
    linked = all(upper.parent == lower.hash for lower, upper in pairwise(blocks))
    if not linked or (blocks[0], blocks[-1]) != (first, last):
        raise BlockGone(f"the node has other blocks between {first.hash} and {last.hash} now")


def must_be_read(scanned: Scanned, digest: LogDigest, needle: Needle) -> bool:
    """Tell whether the block has to be read with its receipts.

    It holds something for us; or its filter, which its hash covers, knows a contract that the
    events are silent about. That is mostly chance; else the node left events out.
    """
    if scanned.pays or scanned.block.hash in digest.ours:
        return True
    if not scanned.bloom or not may_contain(scanned.bloom, TOPIC):
        return False
    return any(
        (scanned.block.hash, contract) not in digest.told and may_contain(scanned.bloom, raw)
        for contract, raw in needle.contracts.items()
    )
