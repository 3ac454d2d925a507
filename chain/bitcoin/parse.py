"""Blocks as a node shows them in JSON, held against their own hashes. Pure.

Source: Bitcoin Core's help of ``getblock`` and ``getblockheader``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from chain.bitcoin.blocks import BlockTransaction, Spending, Watched, contents_of
from chain.bitcoin.networks import Network
from chain.bitcoin.quantities import as_bytes, as_hash, as_number, satoshi, shortened
from chain.bitcoin.raw import HEADER_BYTES, RawTransaction, check_transactions, read_transaction
from chain.bitcoin.shown import ShownBlock, ShownOutput, ShownTransaction
from chain.bitcoin.transactions import Output
from chain.errors import IncompleteAnswer, UnreadableAnswer
from chain.keys.hashes import double_sha256
from chain.model import Block, BlockContents
from chain.shapes import as_object

NO_PARENT: Final = "0" * 64


def parse_header(body: object, chain: str) -> tuple[Block, bytes]:
    """Return the block that ``getblockheader`` shows, and its merkle root.

    Raises:
        IncompleteAnswer: the header has another hash than the node says.
        UnreadableAnswer: not a header.
    """
    return _held_against_hash(as_object(body, "the block header").get, chain)


def read_contents(
    shown: ShownBlock, chain: str, watched: Watched, network: Network
) -> BlockContents:
    """Return what a block holds for whoever watches.

    Outputs and outpoints are read from each transaction's bytes, which the block's hash covers; what
    an input spends is what the node says, as no block holds it.

    Raises:
        IncompleteAnswer: header, transactions and hash do not fit together, or the node does not
            show what is spent.
        UnreadableAnswer: not such a block.
    """
    block, root = _header_of(shown, chain)
    ids: list[bytes] = []
    found: list[tuple[RawTransaction, ShownTransaction]] = []
    stranger, spelled = watched.scripts.keys().isdisjoint, watched.spelled
    for item in shown.tx:
        raw = read_transaction(_bytes_of(item))
        ids.append(raw.id)
        ours = not stranger(raw.scripts)
        if len(item.vin) != raw.inputs:
            raise IncompleteAnswer(f"the inputs of {raw.tx_id} are not those of its bytes")
        if len(ids) > 1:
            # Not `any`: every input must be shown, or a spend of ours could hide.
            for spending in item.vin:
                spent = spending.prevout
                if spent is None:
                    raise _not_shown(block)
                if spent.script.hex in spelled:
                    ours = True
        elif not raw.is_coinbase:
            # Two hashes of the tree side by side may read as a transaction, but not as this one.
            raise IncompleteAnswer(f"the first transaction of {block.hash} makes no new coins")
        if ours:
            found.append((raw, item))
    check_transactions(root, ids, f"block {block.hash}")
    resolved = [_resolved(raw, item, block) for raw, item in found]
    return contents_of(block, resolved, watched.scripts, network)


def find_transaction(shown: ShownBlock, tx_id: str, chain: str) -> BlockTransaction | None:
    """Return a transaction of the block; None where the block does not hold it.

    Raises:
        IncompleteAnswer: header, transactions and hash do not fit together.
    """
    block, root = _header_of(shown, chain)
    read = [(read_transaction(_bytes_of(item)), item) for item in shown.tx]
    check_transactions(root, [raw.id for raw, _ in read], f"block {block.hash}")
    for raw, item in read:
        if raw.tx_id == tx_id:
            return _resolved(raw, item, block)
    return None


def _header_of(shown: ShownBlock, chain: str) -> tuple[Block, bytes]:
    def said(name: str) -> object:
        return getattr(shown, name)

    return _held_against_hash(said, chain)


def _held_against_hash(said: Callable[[str], object], chain: str) -> tuple[Block, bytes]:
    """Return block and merkle root of a header told member by member; the hash is computed anew."""
    before = said("previousblockhash")
    parent = NO_PARENT if before is None else as_hash(before, "the parent's hash")
    root = bytes.fromhex(as_hash(said("merkleroot"), "the merkle root"))[::-1]
    time = as_number(said("time"), "the time", 2**32 - 1)
    told = as_hash(said("hash"), "the hash")
    version = said("version")
    if not isinstance(version, int) or not -(2**31) <= version < 2**31:
        raise UnreadableAnswer(f"the version is {shortened(version)}")
    raw = (
        version.to_bytes(4, "little", signed=True)
        + bytes.fromhex(parent)[::-1]
        + root
        + time.to_bytes(4, "little")
        + as_bytes(said("bits"), "the bits")[::-1]
        + as_number(said("nonce"), "the nonce", 2**32 - 1).to_bytes(4, "little")
    )
    if len(raw) != HEADER_BYTES or double_sha256(raw)[::-1].hex() != told:
        raise IncompleteAnswer(f"the header that the node shows is not that of block {told}")
    height = as_number(said("height"), "the height")
    return Block(chain, height, told, parent, datetime.fromtimestamp(time, UTC)), root


def _resolved(raw: RawTransaction, item: ShownTransaction, block: Block) -> BlockTransaction:
    if raw.is_coinbase:
        return BlockTransaction(raw.tx_id, (), raw.outputs)
    if len(item.vin) != raw.inputs:
        raise IncompleteAnswer(f"the inputs of {raw.tx_id} are not those of its bytes")
    spendings = []
    for outpoint, told in zip(raw.outpoints, item.vin, strict=True):
        if told.prevout is None:
            raise _not_shown(block)
        spendings.append(Spending(outpoint, _output(told.prevout)))
    found = BlockTransaction(raw.tx_id, tuple(spendings), raw.outputs)
    if found.fee < 0:
        raise IncompleteAnswer(f"by what the node says {raw.tx_id} pays more than it spends")
    return found


def _bytes_of(item: ShownTransaction) -> bytes:
    try:
        return bytes.fromhex(item.hex)
    except ValueError:
        raise UnreadableAnswer("a transaction is not hexadecimal") from None


def _output(told: ShownOutput) -> Output:
    script = as_bytes(told.script.hex, "the script that is spent")
    return Output(satoshi(bytes(told.value).decode(), "what is spent"), script)


def _not_shown(block: Block) -> IncompleteAnswer:
    return IncompleteAnswer(
        f"the node does not show what the transactions of block {block.hash} spend",
        remedy="Use a node that has the undo data of this block: one that is not pruned, and "
        "Bitcoin Core 23 or later",
    )
