"""Traces: what each transaction of a block called, created and paid on the inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chain.simulators.evm.errors import InvalidParams, ServerRefusal
from chain.simulators.evm.methods_eth import Method, find_block
from chain.simulators.evm.model import Block
from chain.simulators.evm.node import Node
from chain.simulators.evm.params import Params
from chain.simulators.evm.tracing import CallFrame, flat_json, nested_json
from chain.simulators.evm.wire import Json, hex_data

TRACER = "callTracer"


def _trace_transaction(node: Node, params: Params) -> Json:
    transaction_hash = params.hash(0)
    settings = _settings(params)
    found = node.find_receipt(transaction_hash)
    if found is None:
        raise ServerRefusal("transaction not found")
    block, receipt = found
    return _nested(node.trace(block)[receipt.index], settings)


def _trace_block_by_hash(node: Node, params: Params) -> Json:
    block_hash = params.hash(0)
    block = node.find_block_by_hash(block_hash)
    if block is None:
        raise ServerRefusal(f"block {hex_data(block_hash)} not found")
    return _trace_block(node, block, _settings(params))


def _trace_block_by_number(node: Node, params: Params) -> Json:
    reference = params.need(0, "block number or tag")
    block = find_block(node, reference)
    if block is None:
        raise ServerRefusal(f"block #{reference} not found")
    return _trace_block(node, block, _settings(params))


def _trace_block(node: Node, block: Block, settings: Mapping[str, Any]) -> Json:
    return [
        {
            "txHash": hex_data(receipt.transaction.hash),
            "result": _nested(frame, settings),
        }
        for receipt, frame in zip(block.receipts, node.trace(block), strict=True)
    ]


def _flat_block(node: Node, params: Params) -> Json:
    block = find_block(node, params.need(0, "block number or tag"))
    return [] if block is None else _flat(block, node.trace(block))


def _flat_transaction(node: Node, params: Params) -> Json:
    transaction_hash = params.hash(0)
    found = node.find_receipt(transaction_hash)
    if found is None:
        return None
    block, receipt = found
    return [
        entry
        for entry in _flat(block, node.trace(block))
        if entry["transactionPosition"] == receipt.index
    ]


def _flat(block: Block, frames: tuple[CallFrame, ...]) -> list[dict[str, Json]]:
    return [
        {
            **entry,
            "blockHash": hex_data(block.hash),
            "blockNumber": block.number,
            "transactionHash": hex_data(receipt.transaction.hash),
            "transactionPosition": receipt.index,
        }
        for receipt, frame in zip(block.receipts, frames, strict=True)
        for entry in flat_json(frame)
    ]


def _nested(frame: CallFrame, settings: Mapping[str, Any]) -> Json:
    body = nested_json(frame)
    if settings.get("onlyTopCall"):
        body.pop("calls", None)
    return body


def _settings(params: Params) -> Mapping[str, Any]:
    """Return the tracer's settings, or refuse a tracer that is not the one we have."""
    body = params.get(1, {})
    if not isinstance(body, dict) or body.get("tracer") != TRACER:
        raise InvalidParams(f"only the {TRACER} is there: pass {{'tracer': '{TRACER}'}}")
    settings = body.get("tracerConfig") or {}
    if not isinstance(settings, dict):
        raise InvalidParams("tracerConfig must be an object")
    return settings


METHODS: Mapping[str, Method] = {
    "debug_traceBlockByHash": _trace_block_by_hash,
    "debug_traceBlockByNumber": _trace_block_by_number,
    "debug_traceTransaction": _trace_transaction,
    "trace_block": _flat_block,
    "trace_transaction": _flat_transaction,
}
