"""Values to JSON as bitcoind writes them: amounts with eight decimals, keys in its order.

Source: Bitcoin Core ``src/rpc/blockchain.cpp``, ``src/rpc/mempool.cpp``, ``src/core_write.cpp``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from chain.bitcoin.transactions import Input, Output
from chain.simulators.bitcoin.blocks import HEADER_BYTES, NO_HASH, REGTEST_TARGET
from chain.simulators.bitcoin.chain import Chain
from chain.simulators.bitcoin.mempool import Mempool
from chain.simulators.bitcoin.model import Block, Coin, Entry, Packed
from chain.simulators.bitcoin.scripts_json import disassemble, script_json

Json = Any

DIFFICULTY: Final = 4.656542373906925e-10
"""Of regtest's target, as a double: bitcoind prints all of its digits."""
COIN: Final = 100_000_000


def amount(satoshi: int) -> orjson.Fragment:
    """Return satoshi as a JSON number of bitcoins, with eight decimals: ``50.00000000``."""
    sign, value = ("-", -satoshi) if satoshi < 0 else ("", satoshi)
    return orjson.Fragment(f"{sign}{value // COIN}.{value % COIN:08d}".encode())


def header_json(chain: Chain, block: Block) -> dict[str, Json]:
    """Return what ``getblockheader`` says of a block."""
    header = block.header
    shown: dict[str, Json] = {
        "hash": block.hash,
        "confirmations": chain.confirmations(block),
        "height": block.height,
        "version": header.version,
        "versionHex": f"{header.version:08x}",
        "merkleroot": header.merkle_root,
        "time": header.time,
        "mediantime": block.median_time,
        "nonce": header.nonce,
        "bits": f"{header.bits:08x}",
        "target": f"{REGTEST_TARGET:064x}",
        "difficulty": DIFFICULTY,
        "chainwork": work_at(block.height),
        "nTx": len(block.transactions),
    }
    if header.previous != NO_HASH:
        shown["previousblockhash"] = header.previous
    if chain.is_active(block) and block.height < chain.height:
        shown["nextblockhash"] = chain.active[block.height + 1]
    return shown


def work_at(height: int) -> str:
    """Return the work of a chain up to a height: every block of regtest counts two."""
    return f"{2 * (height + 1):064x}"


def block_json(chain: Chain, block: Block, verbosity: int) -> Json:
    """Return what ``getblock`` says at a verbosity of 0 to 3."""
    if verbosity <= 0:
        return block.raw.hex()
    undo = chain.undo.get(block.hash)
    stripped = len(block.raw) - sum(one.size - one.stripped for one in block.transactions)
    shown = {
        **header_json(chain, block),
        "strippedsize": stripped,
        "size": len(block.raw),
        "weight": 3 * stripped + len(block.raw),
    }
    if verbosity == 1:
        return {**shown, "tx": [one.tx_id for one in block.transactions]}
    listed = []
    for number, packed in enumerate(block.transactions):
        spent = undo[number - 1] if number and undo is not None else None
        listed.append(transaction_json(packed, spent, with_prevouts=verbosity >= 3))
    return {**shown, "tx": listed}


def header_hex(block: Block) -> str:
    """Return the 80 bytes of a header."""
    return block.raw[:HEADER_BYTES].hex()


def transaction_json(
    packed: Packed, spent: Sequence[Coin] | None = None, *, with_prevouts: bool = False
) -> dict[str, Json]:
    """Return a transaction; with its fee where what it spends is known."""
    body = packed.body
    prevouts = spent if with_prevouts and spent is not None else [None] * len(body.inputs)
    shown: dict[str, Json] = {
        "txid": packed.tx_id,
        "hash": packed.witness_id,
        "version": body.version,
        "size": packed.size,
        "vsize": packed.virtual_size,
        "weight": packed.weight,
        "locktime": body.lock_time,
        "vin": [
            _input_json(item, coin, is_coinbase=body.is_coinbase)
            for item, coin in zip(body.inputs, prevouts, strict=True)
        ],
        "vout": [
            {
                "value": amount(output.amount),
                "n": number,
                "scriptPubKey": script_json(output.script),
            }
            for number, output in enumerate(body.outputs)
        ],
    }
    if spent is not None:
        shown["fee"] = amount(_total([one.output for one in spent]) - _total(body.outputs))
    return {**shown, "hex": packed.raw.hex()}


def _total(outputs: Sequence[Output]) -> int:
    return sum(output.amount for output in outputs)


def _input_json(item: Input, coin: Coin | None, *, is_coinbase: bool) -> dict[str, Json]:
    shown: dict[str, Json]
    if is_coinbase:
        shown = {"coinbase": item.script.hex()}
    else:
        shown = {
            "txid": item.outpoint.tx_id,
            "vout": item.outpoint.index,
            "scriptSig": {"asm": disassemble(item.script), "hex": item.script.hex()},
        }
    if item.witness:
        shown["txinwitness"] = [one.hex() for one in item.witness]
    if coin is not None:
        shown["prevout"] = {
            "generated": coin.is_coinbase,
            "height": coin.height,
            "value": amount(coin.output.amount),
            "scriptPubKey": script_json(coin.output.script),
        }
    return {**shown, "sequence": item.sequence}


def entry_json(pool: Mempool, entry: Entry) -> dict[str, Json]:
    """Return what ``getmempoolentry`` says of a transaction."""
    tx_id = entry.packed.tx_id
    behind = [pool.entries[one] for one in pool.ancestors([tx_id])]
    ahead = [pool.entries[one] for one in pool.descendants([tx_id])]
    return {
        "vsize": entry.size,
        "weight": entry.packed.weight,
        "time": entry.time,
        "height": entry.height,
        "descendantcount": len(ahead),
        "descendantsize": sum(one.size for one in ahead),
        "ancestorcount": len(behind),
        "ancestorsize": sum(one.size for one in behind),
        "wtxid": entry.packed.witness_id,
        "fees": {
            "base": amount(entry.fee),
            "modified": amount(entry.fee),
            "ancestor": amount(sum(one.fee for one in behind)),
            "descendant": amount(sum(one.fee for one in ahead)),
        },
        "depends": sorted(entry.parents),
        "spentby": sorted(entry.children),
        "bip125-replaceable": any(one.packed.body.is_replaceable for one in behind),
        "unbroadcast": entry.is_new,
    }
