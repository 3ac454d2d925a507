"""The methods every Ethereum node has: reading the chain and sending transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from chain.simulators.evm.accounts import DevAccount
from chain.simulators.evm.errors import InvalidParams, ServerRefusal
from chain.simulators.evm.execution import require_success
from chain.simulators.evm.fees import fee_history
from chain.simulators.evm.logs import logs_of
from chain.simulators.evm.model import SUGGESTED_TIP_WEI, Block, Call, Transaction
from chain.simulators.evm.node import Node
from chain.simulators.evm.params import (
    Params,
    read_address,
    read_data,
    read_filter,
    read_hash,
    read_quantity,
)
from chain.simulators.evm.transactions import TransactionRequest, sign_request
from chain.simulators.evm.wire import (
    Json,
    block_json,
    fee_history_json,
    hex_data,
    log_json,
    quantity,
    receipt_json,
    transaction_json,
)

Method = Callable[[Node, Params], Json]

CLIENT_VERSION = "causeway-evm-simulator/py-evm"
MAX_FEE_HISTORY_BLOCKS = 1024
MAX_LOGS_PER_ANSWER = 10_000
MAX_PERCENTILES = 100
ZERO_ADDRESS = bytes(20)


def find_block(node: Node, reference: Any) -> Block | None:
    """Return the block that a tag, a number or an EIP-1898 object names, or None.

    Raises:
        InvalidParams: the reference is none of these. ``pending`` is the caller's business.
    """
    match reference:
        case "latest":
            return node.head
        case "safe":
            return node.lagging(1)
        case "finalized":
            return node.lagging(2)
        case "earliest":
            return node.find_block(0)
        case {"blockHash": block_hash}:
            return node.find_block_by_hash(read_hash(block_hash, "blockHash"))
        case {"blockNumber": number}:
            return find_block(node, number)
        case _:
            return node.find_block(read_quantity(reference, "block number or tag"))


def state_block(node: Node, params: Params, index: int) -> Block:
    """Return the block whose state a call reads; ``pending`` reads the state of the head.

    Raises:
        InvalidParams: there is no such block.
    """
    reference = params.get(index, "latest")
    if reference == "pending":
        return node.head
    block = find_block(node, reference)
    if block is None:
        if isinstance(reference, dict) and "blockHash" in reference:
            raise ServerRefusal("unknown block")
        raise InvalidParams(
            f"BlockOutOfRangeError: block height is {node.head.number} but requested was "
            f"{reference if isinstance(reference, str | int) else reference.get('blockNumber')}"
        )
    return block


def read_call(body: Mapping[str, Any]) -> Call:
    """Return the message of ``eth_call`` and ``eth_estimateGas``."""
    gas, fee = body.get("gas"), body.get("maxFeePerGas", body.get("gasPrice"))
    return Call(
        sender=read_address(body["from"], "from") if body.get("from") else ZERO_ADDRESS,
        to=read_address(body["to"], "to") if body.get("to") else b"",
        value=read_quantity(body.get("value") or 0, "value"),
        data=_calldata(body),
        gas=None if gas is None else read_quantity(gas, "gas"),
        gas_price=read_quantity(fee or 0, "gas price"),
    )


def sign_from_request(
    node: Node, body: Mapping[str, Any], *, nonce: int | None = None
) -> Transaction:
    """Return the request signed by the development account in ``from``, with defaults filled in.

    Raises:
        InvalidParams: ``from`` is no development account.
    """
    sender = read_address(body.get("from"), "from")
    account = _account(node, sender)
    call = read_call(body)
    tip_wanted, gas_price = body.get("maxPriorityFeePerGas"), body.get("gasPrice")
    tip = SUGGESTED_TIP_WEI if tip_wanted is None else read_quantity(tip_wanted, "tip")
    fee_wanted = body.get("maxFeePerGas")
    default_nonce = node.next_nonce(sender) if nonce is None else nonce
    nonce_wanted = body.get("nonce")
    request = TransactionRequest(
        nonce=default_nonce if nonce_wanted is None else read_quantity(nonce_wanted, "nonce"),
        gas=node.estimate_gas(call, node.head) if call.gas is None else call.gas,
        to=call.to,
        value=call.value,
        data=call.data,
        max_fee_per_gas=2 * node.next_base_fee() + tip
        if fee_wanted is None
        else read_quantity(fee_wanted, "maxFeePerGas"),
        max_priority_fee_per_gas=tip,
        gas_price=None if gas_price is None else read_quantity(gas_price, "gasPrice"),
    )
    return sign_request(request, account.key, chain_id=node.chain_id)


def _account(node: Node, address: bytes) -> DevAccount:
    for account in node.accounts:
        if account.address == address:
            return account
    raise InvalidParams(f"No Signer available for {hex_data(address)}: not a development account")


def _calldata(body: Mapping[str, Any]) -> bytes:
    value = body.get("input") or body.get("data")
    return read_data(value, "input") if value else b""


def _chain_id(node: Node, _: Params) -> Json:
    return quantity(node.chain_id)


def _net_version(node: Node, _: Params) -> Json:
    return str(node.chain_id)


def _client_version(_: Node, __: Params) -> Json:
    return CLIENT_VERSION


def _syncing(_: Node, __: Params) -> Json:
    return False


def _listening(_: Node, __: Params) -> Json:
    return True


def _accounts(node: Node, _: Params) -> Json:
    return [hex_data(account.address) for account in node.accounts]


def _block_number(node: Node, _: Params) -> Json:
    return quantity(node.head.number)


def _block_by_number(node: Node, params: Params) -> Json:
    full = params.flag(1, "full transactions", default=False)
    reference = params.need(0, "block number or tag")
    if reference == "pending":
        return block_json(node.pending_block(), full=full, pending=True)
    block = find_block(node, reference)
    return None if block is None else block_json(block, full=full)


def _block_by_hash(node: Node, params: Params) -> Json:
    block = node.find_block_by_hash(params.hash(0))
    full = params.flag(1, "full transactions", default=False)
    return None if block is None else block_json(block, full=full)


def _block_receipts(node: Node, params: Params) -> Json:
    reference = params.need(0, "block number, tag or hash")
    if isinstance(reference, str) and len(reference) == len("0x") + 64:
        reference = {"blockHash": reference}
    block = node.pending_block() if reference == "pending" else find_block(node, reference)
    return None if block is None else [receipt_json(block, r) for r in block.receipts]


def _transaction_by_hash(node: Node, params: Params) -> Json:
    transaction_hash = params.hash(0)
    waiting = node.pool.find(transaction_hash)
    if waiting is not None:
        return transaction_json(waiting)
    found = node.find_receipt(transaction_hash)
    if found is None:
        return None
    block, receipt = found
    return transaction_json(receipt.transaction, block=block, receipt=receipt)


def _transaction_receipt(node: Node, params: Params) -> Json:
    found = node.find_receipt(params.hash(0))
    return None if found is None else receipt_json(*found)


def _transaction_count(node: Node, params: Params) -> Json:
    address = params.address(0)
    if params.get(1, "latest") == "pending":
        return quantity(node.next_nonce(address))
    return quantity(node.state(state_block(node, params, 1)).get_nonce(address))


def _balance(node: Node, params: Params) -> Json:
    address = params.address(0)
    return quantity(node.state(state_block(node, params, 1)).get_balance(address))


def _code(node: Node, params: Params) -> Json:
    address = params.address(0)
    return hex_data(node.state(state_block(node, params, 1)).get_code(address))


def _storage_at(node: Node, params: Params) -> Json:
    address, slot = params.address(0), params.quantity(1, "storage slot")
    value = node.state(state_block(node, params, 2)).get_storage(address, slot)
    return hex_data(int(value).to_bytes(32, "big"))


def _call(node: Node, params: Params) -> Json:
    call = read_call(params.mapping(0, "transaction"))
    outcome = require_success(node.call(call, state_block(node, params, 1)))
    return hex_data(outcome.output)


def _estimate_gas(node: Node, params: Params) -> Json:
    call = read_call(params.mapping(0, "transaction"))
    return quantity(node.estimate_gas(call, state_block(node, params, 1)))


def _gas_price(node: Node, _: Params) -> Json:
    return quantity(node.next_base_fee() + SUGGESTED_TIP_WEI)


def _suggested_tip(_: Node, __: Params) -> Json:
    return quantity(SUGGESTED_TIP_WEI)


def _fee_history(node: Node, params: Params) -> Json:
    count = params.quantity(0, "block count")
    if not 1 <= count <= MAX_FEE_HISTORY_BLOCKS:
        raise InvalidParams(f"block count must be between 1 and {MAX_FEE_HISTORY_BLOCKS}")
    newest = state_block(node, params, 1)
    percentiles = params.get(2, [])
    ordered = isinstance(percentiles, list) and len(percentiles) <= MAX_PERCENTILES
    if not ordered or not all(isinstance(p, int | float) and 0 <= p <= 100 for p in percentiles):
        raise InvalidParams("reward percentiles must be a list of numbers from 0 to 100")
    if percentiles != sorted(percentiles):
        raise InvalidParams("reward percentiles must not decrease")
    blocks = node.blocks_between(max(0, newest.number - count + 1), newest.number)
    return fee_history_json(fee_history(blocks, percentiles))


def _get_logs(node: Node, params: Params) -> Json:
    body = params.mapping(0, "filter")
    wanted = read_filter(body)
    logs = [
        log_json(placed)
        for block in _blocks_of_filter(node, body)
        for placed in logs_of(block, wanted)
    ]
    if len(logs) > MAX_LOGS_PER_ANSWER:
        raise ServerRefusal(
            f"query returned more than {MAX_LOGS_PER_ANSWER} results: narrow the range"
        )
    return logs


def _blocks_of_filter(node: Node, body: Mapping[str, Any]) -> list[Block]:
    if body.get("blockHash") is not None:
        if body.get("fromBlock") is not None or body.get("toBlock") is not None:
            raise InvalidParams(
                "cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other"
            )
        block = node.find_block_by_hash(read_hash(body["blockHash"], "blockHash"))
        if block is None:
            raise ServerRefusal("unknown block")
        return [block]
    first = _height_of_bound(node, body.get("fromBlock"))
    last = _height_of_bound(node, body.get("toBlock"))
    if first > last:
        raise InvalidParams(f"invalid block range params: from {first} to {last}")
    if first > node.head.number:
        raise InvalidParams(
            f"BlockOutOfRangeError: block height is {node.head.number} but requested was {first}"
        )
    return list(node.blocks_between(first, last))


def _height_of_bound(node: Node, reference: Any) -> int:
    if reference is None or reference == "pending":
        return node.head.number
    if isinstance(reference, str) and not reference.startswith("0x"):
        block = find_block(node, reference)
        return 0 if block is None else block.number
    return read_quantity(reference, "block number or tag")


def _send_raw_transaction(node: Node, params: Params) -> Json:
    transaction = node.decode(params.data(0, "raw transaction"))
    node.send(transaction)
    return hex_data(transaction.hash)


def _send_transaction(node: Node, params: Params) -> Json:
    transaction = sign_from_request(node, params.mapping(0, "transaction"))
    node.send(transaction)
    return hex_data(transaction.hash)


METHODS: Mapping[str, Method] = {
    "eth_accounts": _accounts,
    "eth_blockNumber": _block_number,
    "eth_call": _call,
    "eth_chainId": _chain_id,
    "eth_estimateGas": _estimate_gas,
    "eth_feeHistory": _fee_history,
    "eth_gasPrice": _gas_price,
    "eth_getBalance": _balance,
    "eth_getBlockByHash": _block_by_hash,
    "eth_getBlockByNumber": _block_by_number,
    "eth_getBlockReceipts": _block_receipts,
    "eth_getCode": _code,
    "eth_getLogs": _get_logs,
    "eth_getStorageAt": _storage_at,
    "eth_getTransactionByHash": _transaction_by_hash,
    "eth_getTransactionCount": _transaction_count,
    "eth_getTransactionReceipt": _transaction_receipt,
    "eth_maxPriorityFeePerGas": _suggested_tip,
    "eth_sendRawTransaction": _send_raw_transaction,
    "eth_sendTransaction": _send_transaction,
    "eth_syncing": _syncing,
    "net_listening": _listening,
    "net_version": _net_version,
    "web3_clientVersion": _client_version,
}
