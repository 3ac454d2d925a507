"""Values to JSON as Ethereum nodes write it. Source: the execution-apis OpenRPC specification.

Quantities are hex without leading zeros, data is hex of even length; addresses are in lower case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chain.simulators.evm.execution import block_size
from chain.simulators.evm.fees import FeeHistory
from chain.simulators.evm.logs import PlacedLog
from chain.simulators.evm.model import Block, Receipt, Transaction

Json = Any

BLOOM_BYTES = 256
LEGACY_TYPE = 0
ACCESS_LIST_TYPE = 1
SET_CODE_TYPE = 4


def quantity(number: int) -> str:
    """Return a number as a JSON-RPC quantity."""
    return hex(number)


def hex_data(raw: bytes) -> str:
    """Return bytes as JSON-RPC data."""
    return "0x" + raw.hex()


def header_json(block: Block) -> dict[str, Json]:
    """Return the block without its transactions, as ``newHeads`` announces it."""
    header = block.header
    return {
        "number": quantity(block.number),
        "hash": hex_data(block.hash),
        "parentHash": hex_data(block.parent_hash),
        "sha3Uncles": hex_data(header.uncles_hash),
        "miner": hex_data(header.coinbase),
        "stateRoot": hex_data(header.state_root),
        "transactionsRoot": hex_data(header.transaction_root),
        "receiptsRoot": hex_data(header.receipt_root),
        "logsBloom": _bloom(header.bloom),
        "difficulty": "0x0",
        "gasLimit": quantity(block.gas_limit),
        "gasUsed": quantity(block.gas_used),
        "timestamp": quantity(block.timestamp),
        "extraData": hex_data(header.extra_data),
        "mixHash": hex_data(header.mix_hash),
        "nonce": hex_data(header.nonce),
        "baseFeePerGas": quantity(block.base_fee_per_gas),
        "withdrawalsRoot": hex_data(header.withdrawals_root),
        "blobGasUsed": quantity(header.blob_gas_used),
        "excessBlobGas": quantity(header.excess_blob_gas),
        "parentBeaconBlockRoot": hex_data(header.parent_beacon_block_root),
        "requestsHash": hex_data(header.requests_hash),
    }


def block_json(block: Block, *, full: bool, pending: bool = False) -> dict[str, Json]:
    """Return the block with its transactions, in full or as hashes.

    A pending block has no hash and no nonce yet.
    """
    body: dict[str, Json] = {
        **header_json(block),
        "size": quantity(block_size(block)),
        "uncles": [],
        "withdrawals": [],
        "transactions": [
            transaction_json(r.transaction, block=None if pending else block, receipt=r)
            if full
            else hex_data(r.transaction.hash)
            for r in block.receipts
        ],
    }
    if pending:
        body |= {"hash": None, "nonce": None}
    return body


def transaction_json(
    transaction: Transaction, *, block: Block | None = None, receipt: Receipt | None = None
) -> dict[str, Json]:
    """Return a transaction; without a block it is one that waits in the pool."""
    evm = transaction.evm
    mined = block is not None and receipt is not None
    body: dict[str, Json] = {
        "type": quantity(evm.type_id or LEGACY_TYPE),
        "chainId": quantity(evm.chain_id),
        "nonce": quantity(transaction.nonce),
        "gas": quantity(transaction.gas),
        "to": hex_data(transaction.to) if transaction.to else None,
        "value": quantity(transaction.value),
        "input": hex_data(transaction.data),
        "r": quantity(evm.r),
        "s": quantity(evm.s),
        "hash": hex_data(transaction.hash),
        "from": hex_data(transaction.sender),
        "blockHash": hex_data(block.hash) if mined and block else None,
        "blockNumber": quantity(block.number) if mined and block else None,
        "transactionIndex": quantity(receipt.index) if mined and receipt else None,
        "gasPrice": quantity(
            receipt.effective_gas_price if receipt else transaction.max_fee_per_gas
        ),
    }
    return body | _FIELDS_BY_TYPE[evm.type_id or LEGACY_TYPE](evm)


def receipt_json(block: Block, receipt: Receipt) -> dict[str, Json]:
    """Return the receipt of a mined transaction."""
    transaction = receipt.transaction
    created = receipt.contract_address
    return {
        "type": quantity(transaction.evm.type_id or LEGACY_TYPE),
        "status": quantity(receipt.status),
        "transactionHash": hex_data(transaction.hash),
        "transactionIndex": quantity(receipt.index),
        "blockHash": hex_data(block.hash),
        "blockNumber": quantity(block.number),
        "from": hex_data(transaction.sender),
        "to": hex_data(transaction.to) if transaction.to else None,
        "contractAddress": hex_data(created) if created else None,
        "gasUsed": quantity(receipt.gas_used),
        "cumulativeGasUsed": quantity(receipt.cumulative_gas_used),
        "effectiveGasPrice": quantity(receipt.effective_gas_price),
        "logsBloom": _bloom(receipt.bloom),
        "logs": [
            log_json(PlacedLog(log, block, receipt, receipt.first_log_index + offset))
            for offset, log in enumerate(receipt.logs)
        ],
    }


def log_json(placed: PlacedLog, *, removed: bool = False) -> dict[str, Json]:
    """Return a log; *removed* says that its block has left the canonical chain."""
    return {
        "address": hex_data(placed.log.address),
        "topics": [hex_data(topic) for topic in placed.log.topics],
        "data": hex_data(placed.log.data),
        "blockHash": hex_data(placed.block.hash),
        "blockNumber": quantity(placed.block.number),
        "blockTimestamp": quantity(placed.block.timestamp),
        "transactionHash": hex_data(placed.receipt.transaction.hash),
        "transactionIndex": quantity(placed.receipt.index),
        "logIndex": quantity(placed.index),
        "removed": removed,
    }


def fee_history_json(history: FeeHistory) -> dict[str, Json]:
    """Return the answer to ``eth_feeHistory``."""
    body: dict[str, Json] = {
        "oldestBlock": quantity(history.oldest_block),
        "baseFeePerGas": [quantity(fee) for fee in history.base_fees],
        "gasUsedRatio": list(history.gas_used_ratios),
        "baseFeePerBlobGas": ["0x1"] * len(history.base_fees),
        "blobGasUsedRatio": [0.0] * len(history.gas_used_ratios),
    }
    if history.rewards:
        body["reward"] = [[quantity(tip) for tip in row] for row in history.rewards]
    return body


def pool_summary(transaction: Transaction) -> str:
    """Return one line about a waiting transaction, as ``txpool_inspect`` shows it."""
    target = hex_data(transaction.to) if transaction.to else "contract creation"
    return (
        f"{target}: {transaction.value} wei + {transaction.gas} gas "
        f"× {transaction.max_fee_per_gas} wei"  # noqa: RUF001  geth prints this very sign
    )


def _bloom(bloom: int) -> str:
    return hex_data(bloom.to_bytes(BLOOM_BYTES, "big"))


def _access_list(evm: Any) -> list[Json]:
    return [
        {
            "address": hex_data(account),
            "storageKeys": [hex_data(key.to_bytes(32, "big")) for key in keys],
        }
        for account, keys in evm.access_list
    ]


def _legacy_fields(evm: Any) -> dict[str, Json]:
    return {"v": quantity(evm.v)}


def _access_list_fields(evm: Any) -> dict[str, Json]:
    return {
        "accessList": _access_list(evm),
        "yParity": quantity(evm.y_parity),
        "v": quantity(evm.y_parity),
    }


def _dynamic_fee_fields(evm: Any) -> dict[str, Json]:
    return _access_list_fields(evm) | {
        "maxFeePerGas": quantity(evm.max_fee_per_gas),
        "maxPriorityFeePerGas": quantity(evm.max_priority_fee_per_gas),
    }


def _set_code_fields(evm: Any) -> dict[str, Json]:
    return _dynamic_fee_fields(evm) | {
        "authorizationList": [
            {
                "chainId": quantity(authorization.chain_id),
                "address": hex_data(authorization.address),
                "nonce": quantity(authorization.nonce),
                "yParity": quantity(authorization.y_parity),
                "r": quantity(authorization.r),
                "s": quantity(authorization.s),
            }
            for authorization in evm.authorization_list
        ]
    }


_FIELDS_BY_TYPE: dict[int, Callable[[Any], dict[str, Json]]] = {
    LEGACY_TYPE: _legacy_fields,
    ACCESS_LIST_TYPE: _access_list_fields,
    2: _dynamic_fee_fields,
    SET_CODE_TYPE: _set_code_fields,
}
