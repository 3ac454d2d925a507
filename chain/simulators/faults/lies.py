"""How answers are changed: what a node with the fault would have said. Pure.

Shapes are those of the Ethereum JSON-RPC specification (execution-apis).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chain.simulators.faults.model import Fault

Json = Any

HASH_LENGTH: Final = 66
WORD_LENGTH: Final = 66

TAGS_OF_THE_HEAD: Final = frozenset({"latest", "pending"})

#: Where a method takes the block whose state or content it reads.
BLOCK_PARAMETER: Final[Mapping[str, int]] = {
    "debug_traceBlockByNumber": 0,
    "debug_traceCall": 1,
    "eth_call": 1,
    "eth_estimateGas": 1,
    "eth_feeHistory": 1,
    "eth_getBalance": 1,
    "eth_getBlockByNumber": 0,
    "eth_getBlockReceipts": 0,
    "eth_getCode": 1,
    "eth_getStorageAt": 2,
    "eth_getTransactionCount": 1,
    "trace_block": 0,
}
#: Methods that take the hash of a block first.
BY_BLOCK_HASH: Final = frozenset(
    {"debug_traceBlockByHash", "eth_getBlockByHash", "eth_getBlockReceipts"}
)
GONE: Final = {"code": -32000, "message": "header not found"}


def at_height(method: str, params: list[Json], height: int) -> list[Json]:
    """Return the parameters as if *height* were the head: tags of the head name that block."""
    params = list(params)
    place = BLOCK_PARAMETER.get(method)
    if place is not None and len(params) == place:
        params.append("latest")
    if place is not None and place < len(params) and params[place] in TAGS_OF_THE_HEAD:
        params[place] = hex(height)
    if method == "eth_getLogs" and params and isinstance(params[0], dict):
        params[0] = _clamped(params[0], height)
    return params


def block_hash_in(method: str, params: list[Json]) -> str | None:
    """Return the block hash that a call names, if it names one."""
    place = BLOCK_PARAMETER.get(method, 0)
    value: Json = params[place] if place < len(params) else None
    if method == "eth_getLogs" or (isinstance(value, dict) and "blockHash" in value):
        value = value.get("blockHash") if isinstance(value, dict) else None
    elif method not in BY_BLOCK_HASH:
        return None
    return value if isinstance(value, str) and len(value) == HASH_LENGTH else None


def with_block_hash(method: str, params: list[Json], block_hash: str) -> list[Json]:
    """Return the parameters with another block hash in the place of the one they name."""
    place = BLOCK_PARAMETER.get(method, 0)
    params = list(params)
    value = params[place]
    params[place] = {**value, "blockHash": block_hash} if isinstance(value, dict) else block_hash
    return params


def beyond(method: str, params: list[Json], height: int) -> bool:
    """Tell whether a call by number asks for a block above *height*."""
    place = BLOCK_PARAMETER.get(method)
    if place is not None and place < len(params):
        return (_number(params[place]) or 0) > height
    if method == "eth_getLogs" and params and isinstance(params[0], dict):
        return (_number(params[0].get("fromBlock")) or 0) > height
    return False


def forget_above(method: str, result: Json, height: int) -> Json:
    """Return the answer of a node that knows no block above *height*."""
    if method == "eth_blockNumber":
        return hex(min(int(result, 16), height))
    if not isinstance(result, dict):
        return result
    at = _number(result.get("blockNumber")) if "blockNumber" in result else None
    if at is None and "parentHash" in result:
        at = _number(result.get("number"))
    if at is None or at <= height:
        return result
    if method == "eth_getTransactionByHash":
        return {**result, "blockHash": None, "blockNumber": None, "transactionIndex": None}
    return None


def altered(fault: Fault, result: Json, *, height: int = 0) -> Json:
    """Return the answer with its logs emptied, its hashes forged or its amounts doubled."""
    match fault:
        case Fault.EMPTY_LOGS:
            return _without_logs(result)
        case Fault.FORGED_HASH:
            return _forged(result, height)
        case Fault.ALTERED_AMOUNTS:
            return _doubled(result)
        case _:
            return result


def forged_hash(block_hash: str) -> str:
    """Return the hash with every bit turned: doing it twice gives the true one."""
    return f"0x{int(block_hash, 16) ^ ((1 << 256) - 1):064x}"


def _clamped(wanted: Mapping[str, Json], height: int) -> dict[str, Json]:
    if "blockHash" in wanted:
        return dict(wanted)
    bounds = {}
    for name in ("fromBlock", "toBlock"):
        at = _number(wanted.get(name, "latest"))
        tag = wanted.get(name, "latest")
        bounds[name] = hex(height) if tag in TAGS_OF_THE_HEAD or (at or 0) > height else tag
    return {**wanted, **bounds}


def _number(value: Json) -> int | None:
    if isinstance(value, dict):
        value = value.get("blockNumber")
    if not isinstance(value, str) or not value.startswith("0x") or len(value) == HASH_LENGTH:
        return None
    return int(value, 16)


def _without_logs(result: Json) -> Json:
    if isinstance(result, list):
        return [_without_logs(item) for item in result if not _is_log(item)]
    if isinstance(result, dict) and "logs" in result:
        return {**result, "logs": []}
    return result


def _is_log(item: Json) -> bool:
    return isinstance(item, dict) and "topics" in item and "logIndex" in item


def _forged(value: Json, height: int) -> Json:
    if isinstance(value, list):
        return [_forged(item, height) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {name: _forged(item, height) for name, item in value.items()}
    if "parentHash" in changed and changed.get("hash") is not None:
        number = int(changed["number"], 16)
        if number >= height:
            changed["hash"] = forged_hash(changed["hash"])
        if number > height:
            changed["parentHash"] = forged_hash(changed["parentHash"])
    if changed.get("blockHash") is not None and int(changed["blockNumber"], 16) >= height:
        changed["blockHash"] = forged_hash(changed["blockHash"])
    return changed


def _doubled(value: Json) -> Json:
    if isinstance(value, list):
        return [_doubled(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {name: _doubled(item) for name, item in value.items()}
    if _is_log(value) and len(value["data"]) == WORD_LENGTH:
        changed["data"] = f"0x{2 * int(value['data'], 16):064x}"
    if "value" in value and "nonce" in value:
        changed["value"] = hex(2 * int(value["value"], 16))
    return changed
