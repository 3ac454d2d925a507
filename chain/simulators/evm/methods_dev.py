"""The methods only a development node has, named as anvil and Hardhat name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from chain.simulators.evm.errors import InvalidParams
from chain.simulators.evm.methods_eth import Method, sign_from_request
from chain.simulators.evm.model import Transaction
from chain.simulators.evm.node import Node
from chain.simulators.evm.params import Params, read_address, read_data, read_quantity
from chain.simulators.evm.wire import Json, hex_data, pool_summary, quantity, transaction_json

MAX_REORG_TRANSACTIONS = 1_000
MAX_INTERVAL_S = 86_400


def _snapshot(node: Node, _: Params) -> Json:
    return quantity(node.snapshot())


def _revert(node: Node, params: Params) -> Json:
    return node.revert(params.quantity(0, "snapshot id"))


def _evm_mine(node: Node, params: Params) -> Json:
    """Mine one block; an optional timestamp, bare or as ``{"timestamp": ...}``, dates it."""
    wanted = params.get(0)
    count = 1
    if isinstance(wanted, dict):
        count = read_quantity(wanted.get("blocks") or 1, "blocks")
        wanted = wanted.get("timestamp")
    if wanted is not None:
        node.set_next_timestamp(read_quantity(wanted, "timestamp"))
    node.mine(count)
    return "0x0"


def _anvil_mine(node: Node, params: Params) -> Json:
    interval = params.get(1)
    node.mine(
        params.quantity(0, "number of blocks", default=1),
        interval_s=None if interval is None else read_quantity(interval, "interval"),
    )


def _set_automine(node: Node, params: Params) -> Json:
    node.set_automine(enabled=params.flag(0, "enabled"))


def _get_automine(node: Node, _: Params) -> Json:
    return node.mode.value == "instant"


def _set_interval_mining(node: Node, params: Params) -> Json:
    seconds = params.quantity(0, "interval in seconds")
    if seconds > MAX_INTERVAL_S:
        raise InvalidParams(f"the interval must not exceed {MAX_INTERVAL_S} s")
    node.set_interval(seconds)


def _increase_time(node: Node, params: Params) -> Json:
    return node.increase_time(params.quantity(0, "seconds"))


def _set_next_timestamp(node: Node, params: Params) -> Json:
    node.set_next_timestamp(params.quantity(0, "timestamp"))


def _set_next_base_fee(node: Node, params: Params) -> Json:
    node.set_next_base_fee(params.quantity(0, "base fee"))


def _set_balance(node: Node, params: Params) -> Json:
    node.set_balance(params.address(0), params.quantity(1, "balance"))


def _reorg(node: Node, params: Params) -> Json:
    depth = params.quantity(0, "depth")
    pairs = params.get(1, [])
    if not isinstance(pairs, list) or len(pairs) > MAX_REORG_TRANSACTIONS:
        raise InvalidParams(
            "anvil_reorg: parameter 1 must be a list of [transaction, block offset], "
            f"at most {MAX_REORG_TRANSACTIONS}"
        )
    node.reorg(depth, _read_inclusions(node, depth, pairs))


def _read_inclusions(node: Node, depth: int, pairs: list[Any]) -> list[tuple[Transaction, int]]:
    """Decode the transactions of a reorg; unsigned ones get the nonces of the new branch."""
    fork = node.find_block(max(0, node.head.number - depth))
    nonces: dict[bytes, int] = {}
    inclusions = []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != len(("transaction", "offset")):
            raise InvalidParams("anvil_reorg: expected pairs of [transaction, block offset]")
        body, offset = pair
        if isinstance(body, dict) and fork is not None:
            sender = read_address(body.get("from"), "from")
            nonce = nonces.get(sender, node.state(fork).get_nonce(sender))
            transaction = sign_from_request(node, body, nonce=nonce)
        else:
            transaction = node.decode(read_data(body, "transaction"))
        nonces[transaction.sender] = transaction.nonce + 1
        inclusions.append((transaction, read_quantity(offset, "block offset")))
    return inclusions


def _rollback(node: Node, params: Params) -> Json:
    node.rollback(params.quantity(0, "depth", default=1))


def _drop_transaction(node: Node, params: Params) -> Json:
    """Return the hash when the pool had the transaction, else null."""
    dropped = node.pool.drop(params.hash(0))
    return None if dropped is None else hex_data(dropped.hash)


def _drop_all_transactions(node: Node, _: Params) -> Json:
    node.pool.clear()


def _pool_status(node: Node, _: Params) -> Json:
    pending, queued = _pool_content(node, lambda _: None)
    return {
        "pending": quantity(sum(len(mine) for mine in pending.values())),
        "queued": quantity(sum(len(mine) for mine in queued.values())),
    }


def _pool_full(node: Node, _: Params) -> Json:
    pending, queued = _pool_content(node, transaction_json)
    return {"pending": pending, "queued": queued}


def _pool_inspect(node: Node, _: Params) -> Json:
    pending, queued = _pool_content(node, pool_summary)
    return {"pending": pending, "queued": queued}


def _pool_content(
    node: Node, show: Callable[[Transaction], Json]
) -> tuple[dict[str, dict[str, Json]], dict[str, dict[str, Json]]]:
    pending: dict[str, dict[str, Json]] = {}
    queued: dict[str, dict[str, Json]] = {}
    nonce_of = node.state(node.head).get_nonce
    for sender in node.pool.senders():
        for group, mine in zip(
            (pending, queued), node.pool.split(sender, nonce_of(sender)), strict=True
        ):
            if mine:
                group[hex_data(sender)] = {str(tx.nonce): show(tx) for tx in mine}
    return pending, queued


def _reset(node: Node, _: Params) -> Json:
    node.reset()


METHODS: Mapping[str, Method] = {
    "anvil_dropAllTransactions": _drop_all_transactions,
    "anvil_dropTransaction": _drop_transaction,
    "anvil_getAutomine": _get_automine,
    "anvil_mine": _anvil_mine,
    "anvil_reorg": _reorg,
    "anvil_reset": _reset,
    "anvil_rollback": _rollback,
    "anvil_setAutomine": _set_automine,
    "anvil_setBalance": _set_balance,
    "anvil_setIntervalMining": _set_interval_mining,
    "anvil_setNextBlockBaseFeePerGas": _set_next_base_fee,
    "evm_increaseTime": _increase_time,
    "evm_mine": _evm_mine,
    "evm_revert": _revert,
    "evm_setAutomine": _set_automine,
    "evm_setIntervalMining": _set_interval_mining,
    "evm_setNextBlockTimestamp": _set_next_timestamp,
    "evm_snapshot": _snapshot,
    "txpool_content": _pool_full,
    "txpool_inspect": _pool_inspect,
    "txpool_status": _pool_status,
}
