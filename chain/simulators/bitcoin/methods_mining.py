"""Methods that make blocks, and those that only the simulator has (``simulate_…``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from chain.bitcoin.transactions import Output
from chain.simulators.bitcoin.blocks import REGTEST_BITS, block_hash
from chain.simulators.bitcoin.calls import (
    Argument,
    Context,
    Method,
    read_amount,
    read_hash,
    read_integer,
    read_rate,
    read_script,
)
from chain.simulators.bitcoin.chain import BlockRefused
from chain.simulators.bitcoin.errors import InvalidParameter, NotFound, Undecodable
from chain.simulators.bitcoin.methods_pool import MAKE_SURE, read_transaction
from chain.simulators.bitcoin.model import Packed
from chain.simulators.bitcoin.wire import DIFFICULTY, entry_json

Json = Any


def _generate_to_address(context: Context, blocks: Any, address: str, _: Any) -> Json:
    return context.node.generate(read_integer(blocks), read_script(address))


def _generate_block(context: Context, address: str, listed: Sequence[Any], submit: bool) -> Json:  # noqa: FBT001  by position, as JSON-RPC gives it
    script = read_script(address)
    packed = [_listed(context, one) for one in listed]
    if submit:
        return {"hash": context.node.generate_block(script, packed).hash}
    raw = context.node.build_block(script, packed)
    return {"hash": block_hash(raw), "hex": raw.hex()}


def _listed(context: Context, one: Any) -> Packed:
    text = str(one)
    if len(text) == 64:
        entry = context.node.pool.entries.get(text)
        if entry is None:
            raise NotFound(f"Transaction {text} not in mempool.")
        return entry.packed
    return read_transaction(text, f"Transaction decode failed for {text}. {MAKE_SURE}")


def _submit_block(context: Context, raw: str, _: Any) -> Json:
    try:
        context.node.submit(bytes.fromhex(raw))
    except ValueError as exc:
        raise Undecodable("Block decode failed") from exc
    except BlockRefused as exc:
        return exc.reason
    return None


def _get_mining_info(context: Context) -> Json:
    node = context.node
    return {
        "blocks": node.chain.height,
        "bits": f"{REGTEST_BITS:08x}",
        "difficulty": DIFFICULTY,
        "pooledtx": len(node.pool),
        "chain": "regtest",
        "warnings": [],
    }


def _fund(context: Context, address: str, value: Any, blocks: Any, rate: Any) -> Json:
    outputs = [Output(read_amount(value), read_script(address))]
    paid = (
        context.faucet.pay(outputs)
        if rate is None
        else context.faucet.pay(outputs, read_rate(rate))
    )
    tx_id = paid.packed.tx_id
    context.faucet.mine(read_integer(blocks))
    return tx_id


def _mine(context: Context, blocks: Any) -> Json:
    return context.faucet.mine(read_integer(blocks))


def _replace_payment(context: Context, tx_id: str, address: str | None, rate: Any) -> Json:
    script = None if address is None else read_script(address)
    wanted = None if rate is None else read_rate(rate)
    entry = context.faucet.replace(read_hash(tx_id, "txid"), script, wanted)
    return {"txid": entry.packed.tx_id, **entry_json(context.node.pool, entry)}


def _reorganise(context: Context, depth: Any, keep: Sequence[Any], blocks: Any) -> Json:
    """Replace the last blocks by a longer branch with only the transactions to keep."""
    node, count = context.node, read_integer(depth)
    if not 1 <= count <= node.chain.height:
        raise InvalidParameter(f"there are {node.chain.height} blocks to replace")
    first = node.chain.at(node.chain.height - count + 1).hash
    kept = {read_hash(one, "txid") for one in keep}
    node.invalidate(first)
    chosen = [entry.packed for entry in node.pool.by_ancestors() if entry.packed.tx_id in kept]
    made = [node.generate_block(context.faucet.script, chosen).hash]
    extra = count if blocks is None else max(count, read_integer(blocks) - 1)
    made += [node.generate_block(context.faucet.script, []).hash for _ in range(extra)]
    # The old branch is as good as any again, and shorter.
    node.reconsider(first)
    return made


def _evict(context: Context, tx_ids: Sequence[Any]) -> Json:
    return [one.packed.tx_id for one in context.node.pool.evict(map(str, tx_ids))]


def _set_fee_rate(context: Context, rate: Any) -> Json:
    context.node.fee_rate = None if rate is None else read_rate(rate)


def _set_pool_rate(context: Context, rate: Any) -> Json:
    """Demand a rate of the pool, as a full one does: what pays less leaves, with all on it."""
    node = context.node
    node.pool_rate = read_rate(rate)
    low = [tx_id for tx_id, entry in node.pool.entries.items() if entry.rate < node.pool_rate]
    return [entry.packed.tx_id for entry in node.pool.evict(low)]


METHODS: Final[Mapping[str, Method]] = {
    "generatetoaddress": Method(
        _generate_to_address,
        (
            Argument("nblocks", "number"),
            Argument("address", "string"),
            Argument("maxtries", "number", 1_000_000),
        ),
    ),
    "generateblock": Method(
        _generate_block,
        (
            Argument("output", "string"),
            Argument("transactions", "array"),
            Argument("submit", "bool", True),
        ),
    ),
    "submitblock": Method(
        _submit_block, (Argument("hexdata", "string"), Argument("dummy", "string", ""))
    ),
    "getmininginfo": Method(_get_mining_info),
    "simulate_fund": Method(
        _fund,
        (
            Argument("address", "string"),
            Argument("amount", "number|string"),
            Argument("blocks", "number", 1),
            Argument("fee_rate", "number|string", None),
        ),
    ),
    "simulate_mine": Method(_mine, (Argument("blocks", "number", 1),)),
    "simulate_replace": Method(
        _replace_payment,
        (
            Argument("txid", "string"),
            Argument("address", "string", None),
            Argument("fee_rate", "number|string", None),
        ),
    ),
    "simulate_reorg": Method(
        _reorganise,
        (
            Argument("depth", "number"),
            Argument("keep", "array", ()),
            Argument("blocks", "number", None),
        ),
    ),
    "simulate_evict": Method(_evict, (Argument("txids", "array"),)),
    "simulate_setfeerate": Method(_set_fee_rate, (Argument("rate", "number|string", None),)),
    "simulate_setmempoolminfee": Method(_set_pool_rate, (Argument("rate", "number|string", 0),)),
}
