"""Blocks as a node shows them in JSON, held against their own hashes. Pure.

Source: Bitcoin Core's help of ``getblock`` and ``getblockheader``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from chain.bitcoin.blocks import BlockTransaction, Spending, Watched, contents_of
from chain.bitcoin.networks import Network
from chain.bitcoin.quantities import as_bytes, as_hash, as_list, as_number, as_object, satoshi
from chain.bitcoin.raw import RawTransaction, check_transactions, read_transaction
from chain.bitcoin.transactions import Output
from chain.errors import IncompleteAnswer, UnreadableAnswer
from chain.keys.hashes import double_sha256
from chain.model import Block, BlockContents

NO_PARENT: Final = "0" * 64


def parse_header(body: object, chain: str) -> tuple[Block, bytes]:
    """Return the block that a header is of, and its merkle root; the hash is computed anew.

    Raises:
        IncompleteAnswer: the header has another hash than the node says.
        UnreadableAnswer: not a header.
    """
    header = as_object(body, "the block header")
    parent = as_hash(header.get("previousblockhash", NO_PARENT), "the parent's hash")
    root = bytes.fromhex(as_hash(header.get("merkleroot"), "the merkle root"))[::-1]
    time = as_number(header.get("time"), "the time", 2**32 - 1)
    said = as_hash(header.get("hash"), "the hash")
    version = header.get("version")
    if not isinstance(version, int) or not -(2**31) <= version < 2**31:
        raise UnreadableAnswer(f"the version is {version!r}")
    raw = (
        version.to_bytes(4, "little", signed=True)
        + bytes.fromhex(parent)[::-1]
        + root
        + time.to_bytes(4, "little")
        + as_bytes(header.get("bits"), "the bits")[::-1]
        + as_number(header.get("nonce"), "the nonce", 2**32 - 1).to_bytes(4, "little")
    )
    if double_sha256(raw)[::-1].hex() != said:
        raise IncompleteAnswer(f"the header that the node shows is not that of block {said}")
    height = as_number(header.get("height"), "the height")
    return Block(chain, height, said, parent, datetime.fromtimestamp(time, UTC)), root


def read_contents(body: object, chain: str, watched: Watched, network: Network) -> BlockContents:
    """Return what a block of ``getblock`` with verbosity 3 holds for whoever watches.

    Outputs and outpoints are read from each transaction's bytes, which the block's hash covers; what
    an input spends is what the node says, as no block holds it.

    Raises:
        IncompleteAnswer: header, transactions and hash do not fit together, or the node does not
            show what is spent.
        UnreadableAnswer: not such a block.
    """
    block, root = parse_header(body, chain)
    told = as_list(as_object(body, "the block").get("tx"), "the transactions")
    ids: list[bytes] = []
    found: list[BlockTransaction] = []
    scripts, spelled = watched.scripts.keys(), watched.spelled
    for item in told:
        try:
            raw = read_transaction(bytes.fromhex(item["hex"]))
            ids.append(raw.id)
            ours = not scripts.isdisjoint(raw.scripts)
            if len(ids) > 1:
                # Not `any`: every input must be shown, or a spend of ours could hide.
                for spent in item["vin"]:
                    if spent["prevout"]["scriptPubKey"]["hex"] in spelled:
                        ours = True
        except (KeyError, TypeError, ValueError) as error:
            raise _not_shown(item, block) from error
        if ours:
            found.append(_resolved(raw, item, block))
    check_transactions(root, ids, f"block {block.hash}")
    return contents_of(block, found, watched.scripts, network)


def resolve(item: object, block: Block) -> BlockTransaction:
    """Return a transaction of a block as ``getblock`` and ``getrawtransaction`` show it."""
    body = as_object(item, "the transaction")
    raw = read_transaction(as_bytes(body.get("hex"), "the transaction"))
    return _resolved(raw, body, block)


def _resolved(raw: RawTransaction, item: Mapping[str, Any], block: Block) -> BlockTransaction:
    if raw.is_coinbase:
        return BlockTransaction(raw.tx_id, (), raw.outputs)
    shown = as_list(item.get("vin"), "the inputs")
    if len(shown) != len(raw.inputs):
        raise IncompleteAnswer(f"the inputs of {raw.tx_id} are not those of its bytes")
    try:
        spendings = tuple(
            Spending(outpoint, _output(told["prevout"]))
            for outpoint, told in zip(raw.outpoints, shown, strict=True)
        )
    except (KeyError, TypeError) as error:
        raise _not_shown(item, block) from error
    return BlockTransaction(raw.tx_id, spendings, raw.outputs)


def _output(told: Mapping[str, Any]) -> Output:
    script = as_bytes(told["scriptPubKey"]["hex"], "the script that is spent")
    return Output(satoshi(told["value"], "what is spent"), script)


def _not_shown(item: object, block: Block) -> IncompleteAnswer:
    spends = item.get("vin") if isinstance(item, Mapping) else None
    if isinstance(spends, list) and any(
        "prevout" not in one for one in spends if isinstance(one, Mapping)
    ):
        return IncompleteAnswer(
            f"the node does not show what the transactions of block {block.hash} spend",
            remedy="Use a node that has the undo data of this block: one that is not pruned, and "
            "Bitcoin Core 23 or later",
        )
    return IncompleteAnswer(f"a transaction of block {block.hash} is not in the node's own form")
