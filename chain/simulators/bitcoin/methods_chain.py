"""Methods about blocks, coins and the node itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.bitcoin.addresses import address_of, parse_address
from chain.bitcoin.derivation import descriptor_checksum
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.scripts import recognise
from chain.bitcoin.transactions import Outpoint, encode_outpoint
from chain.errors import BadAddress
from chain.simulators.bitcoin.blocks import REGTEST_BITS, REGTEST_TARGET
from chain.simulators.bitcoin.calls import Argument, Context, Method, read_hash, read_integer
from chain.simulators.bitcoin.descriptors import check_checksum, read_scan
from chain.simulators.bitcoin.errors import InvalidParameter, MiscError, NotFound
from chain.simulators.bitcoin.model import Block
from chain.simulators.bitcoin.scripts_json import describe, script_json
from chain.simulators.bitcoin.wire import (
    DIFFICULTY,
    amount,
    block_json,
    header_hex,
    header_json,
    work_at,
)

Json = Any

VERSION: Final = 290_400
SUBVERSION: Final = "/Satoshi:29.4.0/Causeway-simulator:1/"
PROTOCOL: Final = 70_016
COIN_BYTES: Final = 50
"""What a coin counts at least in ``bogosize``; its script comes on top."""


def _get_blockchain_info(context: Context) -> Json:
    node, tip = context.node, context.node.chain.tip
    return {
        "chain": REGTEST.name,
        "blocks": tip.height,
        "headers": tip.height,
        "bestblockhash": tip.hash,
        "bits": f"{REGTEST_BITS:08x}",
        "target": f"{REGTEST_TARGET:064x}",
        "difficulty": DIFFICULTY,
        "time": tip.header.time,
        "mediantime": tip.median_time,
        "verificationprogress": 1,
        "initialblockdownload": node.is_catching_up,
        "chainwork": work_at(tip.height),
        "size_on_disk": sum(len(block.raw) for block in node.chain.blocks.values()),
        "pruned": False,
        "warnings": [],
    }


def _get_network_info(context: Context) -> Json:
    settings = context.node.settings
    return {
        "version": VERSION,
        "subversion": SUBVERSION,
        "protocolversion": PROTOCOL,
        "localservices": "0000000000000c09",
        "localservicesnames": ["NETWORK", "WITNESS", "NETWORK_LIMITED", "P2P_V2"],
        "localrelay": True,
        "timeoffset": 0,
        "networkactive": True,
        "connections": 0,
        "connections_in": 0,
        "connections_out": 0,
        "networks": [],
        "relayfee": amount(settings.relay_rate),
        "incrementalfee": amount(settings.incremental_rate),
        "localaddresses": [],
        "warnings": [],
    }


def _get_best_block_hash(context: Context) -> Json:
    return context.node.chain.tip.hash


def _get_block_count(context: Context) -> Json:
    return context.node.chain.height


def _get_block_hash(context: Context, height: Any) -> Json:
    return context.node.chain.at(read_integer(height)).hash


def _get_block_header(context: Context, hash_: str, verbose: bool) -> Json:  # noqa: FBT001  by position, as JSON-RPC gives it
    block = _need_block(context, hash_)
    return header_json(context.node.chain, block) if verbose else header_hex(block)


def _get_block(context: Context, hash_: str, verbosity: Any) -> Json:
    return block_json(context.node.chain, _need_block(context, hash_), int(verbosity))


def _get_chain_tips(context: Context) -> Json:
    return [
        {
            "height": tip.height,
            "hash": tip.hash,
            "branchlen": tip.branch_length,
            "status": tip.status,
        }
        for tip in context.node.chain.tips()
    ]


def _get_output(context: Context, tx_id: str, index: Any, with_pool: bool) -> Json:  # noqa: FBT001  by position, as JSON-RPC gives it
    node = context.node
    outpoint = Outpoint(read_hash(tx_id, "txid"), read_integer(index))
    coin = node.chain.coins.get(outpoint)
    if with_pool:
        coin = None if outpoint in node.pool.spenders else node.coin(outpoint)
    if coin is None:
        return None
    return {
        "bestblock": node.chain.tip.hash,
        "confirmations": max(0, node.chain.height - coin.height + 1),
        "value": amount(coin.output.amount),
        "scriptPubKey": script_json(coin.output.script),
        "coinbase": coin.is_coinbase,
    }


def _get_output_set_info(context: Context, hash_type: str) -> Json:
    if hash_type not in {"none", "hash_serialized_3"}:
        raise InvalidParameter(f"'{hash_type}' is not a valid hash_type")
    chain = context.node.chain
    return {
        "height": chain.height,
        "bestblock": chain.tip.hash,
        "txouts": len(chain.coins),
        "bogosize": sum(COIN_BYTES + len(coin.output.script) for coin in chain.coins.values()),
        "total_amount": amount(sum(coin.output.amount for coin in chain.coins.values())),
        "transactions": len({outpoint.tx_id for outpoint in chain.coins}),
        "disk_size": 0,
    }


def _scan_output_set(context: Context, action: str, objects: Any) -> Json:
    if action == "status":
        return None  # a scan is over before the next call is read
    if action == "abort":
        return False
    if action != "start":
        raise InvalidParameter(f"Invalid action '{action}'")
    if objects is None:
        raise MiscError("scanobjects argument is required for the start action")
    wanted: dict[bytes, str] = {}
    for one in objects:
        for script, text in read_scan(one).scripts():
            known = text.startswith(("addr(", "raw("))
            wanted[script] = describe(script) if known else f"{text}#{descriptor_checksum(text)}"
    chain = context.node.chain
    found = [
        (outpoint, coin) for outpoint, coin in chain.coins.items() if coin.output.script in wanted
    ]
    # In the order of the bytes of their names, as they lie in bitcoind's database.
    found.sort(key=lambda one: encode_outpoint(one[0])[:32] + one[0].index.to_bytes(4, "big"))
    return {
        "success": True,
        "txouts": len(chain.coins),
        "height": chain.height,
        "bestblock": chain.tip.hash,
        "unspents": [
            {
                "txid": outpoint.tx_id,
                "vout": outpoint.index,
                "scriptPubKey": coin.output.script.hex(),
                "desc": wanted[coin.output.script],
                "amount": amount(coin.output.amount),
                "coinbase": coin.is_coinbase,
                "height": coin.height,
                "blockhash": chain.active[coin.height],
                "confirmations": chain.height - coin.height + 1,
            }
            for outpoint, coin in found
        ],
        "total_amount": amount(sum(coin.output.amount for _, coin in found)),
    }


def _invalidate_block(context: Context, hash_: str) -> Json:
    context.node.invalidate(read_hash(hash_, "blockhash"))


def _reconsider_block(context: Context, hash_: str) -> Json:
    context.node.reconsider(read_hash(hash_, "blockhash"))


def _get_uptime(context: Context) -> Json:
    return max(0, context.node.now() - context.node.started_at)


def _set_mock_time(context: Context, time: Any) -> Json:
    seconds = read_integer(time)
    if seconds < 0:
        raise InvalidParameter("Mocktime must be in the range [0, 9223372036], not negative")
    context.node.mock_time = seconds or None


def _validate_address(_: Context, address: str) -> Json:
    try:
        script = parse_address(address, REGTEST)
    except BadAddress as exc:
        return {"isvalid": False, "error_locations": [], "error": exc.what}
    found = recognise(script)
    shown: dict[str, Json] = {
        "isvalid": True,
        "address": address_of(script, REGTEST),
        "scriptPubKey": script.hex(),
        "isscript": found.kind in {"scripthash", "witness_v0_scripthash"},
        "iswitness": found.version is not None,
    }
    if found.version is not None:
        shown["witness_version"] = found.version
        shown["witness_program"] = found.payload.hex()
    return shown


def _get_descriptor_info(_: Context, descriptor: str) -> Json:
    text, mark, checksum = descriptor.partition("#")
    if mark:
        check_checksum(text, checksum)
    # It is read once, so that what cannot be understood is refused.
    next(read_scan(text).scripts())
    right = descriptor_checksum(text)
    return {
        "descriptor": f"{text}#{right}",
        "checksum": right,
        "isrange": "*" in text,
        "issolvable": not text.startswith(("addr(", "raw(")),
        "hasprivatekeys": False,
    }


def _get_index_info(context: Context) -> Json:
    return {"txindex": {"synced": True, "best_block_height": context.node.chain.height}}


def _get_nothing(_: Context) -> Json:
    return []


def _get_zero(_: Context) -> Json:
    return 0


def _need_block(context: Context, hash_: str) -> Block:
    block = context.node.chain.find(read_hash(hash_, "blockhash"))
    if block is None:
        raise NotFound("Block not found")
    return block


BLOCK_HASH: Final = Argument("blockhash", "string")

METHODS: Final[Mapping[str, Method]] = {
    "getblockchaininfo": Method(_get_blockchain_info),
    "getnetworkinfo": Method(_get_network_info),
    "getbestblockhash": Method(_get_best_block_hash),
    "getblockcount": Method(_get_block_count),
    "getblockhash": Method(_get_block_hash, (Argument("height", "number"),)),
    "getblockheader": Method(_get_block_header, (BLOCK_HASH, Argument("verbose", "bool", True))),
    "getblock": Method(_get_block, (BLOCK_HASH, Argument("verbosity", "number|bool", 1))),
    "getchaintips": Method(_get_chain_tips),
    "gettxout": Method(
        _get_output,
        (
            Argument("txid", "string"),
            Argument("n", "number"),
            Argument("include_mempool", "bool", True),
        ),
    ),
    "gettxoutsetinfo": Method(_get_output_set_info, (Argument("hash_type", "string", "none"),)),
    "scantxoutset": Method(
        _scan_output_set, (Argument("action", "string"), Argument("scanobjects", "array", None))
    ),
    "invalidateblock": Method(_invalidate_block, (BLOCK_HASH,)),
    "reconsiderblock": Method(_reconsider_block, (BLOCK_HASH,)),
    "uptime": Method(_get_uptime),
    "setmocktime": Method(_set_mock_time, (Argument("timestamp", "number"),)),
    "validateaddress": Method(_validate_address, (Argument("address", "string"),)),
    "getdescriptorinfo": Method(_get_descriptor_info, (Argument("descriptor", "string"),)),
    "getindexinfo": Method(_get_index_info),
    "getzmqnotifications": Method(_get_nothing),
    "getpeerinfo": Method(_get_nothing),
    "getconnectioncount": Method(_get_zero),
}
