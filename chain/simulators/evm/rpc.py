"""JSON-RPC 2.0: from the bytes of a request to the bytes of its answer.

Source: https://www.jsonrpc.org/specification. A request without an id is a notification and is
not answered; a batch is answered by a batch without the notifications.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from eth.exceptions import PyEVMError
from eth_utils.exceptions import ValidationError

from chain.simulators.evm import methods_debug, methods_dev, methods_eth
from chain.simulators.evm.errors import InvalidRequest, MethodUnknown, ParseFailed, RpcError
from chain.simulators.evm.methods_eth import Method
from chain.simulators.evm.model import ChainEvent
from chain.simulators.evm.node import Node
from chain.simulators.evm.params import Params
from chain.simulators.evm.wire import Json

MAX_BATCH = 1_000

METHODS: Mapping[str, Method] = {
    **methods_eth.METHODS,
    **methods_dev.METHODS,
    **methods_debug.METHODS,
}


@dataclass(frozen=True, slots=True)
class Request:
    """One call. ``is_notification`` means that nobody waits for an answer."""

    id: Json
    method: str
    params: Params
    is_notification: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave: its result and what happened on the chain meanwhile."""

    body: dict[str, Json]
    events: tuple[ChainEvent, ...] = ()


def parse_body(body: bytes) -> list[Any] | dict[str, Any]:
    """Return the JSON of a request or of a batch.

    Raises:
        ParseFailed: the body is not JSON.
        InvalidRequest: it is, but neither an object nor a batch of reasonable size.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise ParseFailed(f"Parse error: {exc}") from exc
    if isinstance(parsed, dict):
        return parsed
    if not isinstance(parsed, list) or not parsed:
        raise InvalidRequest("Invalid request: expected an object or a non-empty batch")
    if len(parsed) > MAX_BATCH:
        raise InvalidRequest(f"batch too large: {len(parsed)} requests, the limit is {MAX_BATCH}")
    return parsed


def read_request(raw: Any) -> Request:
    """Return one request.

    Raises:
        InvalidRequest: it is not a JSON-RPC 2.0 request with positional parameters.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("method"), str):
        raise InvalidRequest("Invalid request: expected an object with a method")
    params = raw.get("params") or []
    if not isinstance(params, list):
        raise InvalidRequest(f"Invalid request: {raw['method']} takes positional parameters")
    return Request(
        id=raw.get("id"),
        method=raw["method"],
        params=Params(raw["method"], tuple(params)),
        is_notification="id" not in raw,
    )


def perform(node: Node, request: Request) -> Answer:
    """Run one call against the node."""
    method = METHODS.get(request.method)
    try:
        if method is None:
            raise MethodUnknown(f"Method not found: {request.method}")
        body = result_body(request.id, method(node, request.params))
    except RpcError as exc:
        body = error_body(request.id, exc)
    except (ValidationError, PyEVMError) as exc:
        body = error_body(request.id, RpcError(f"{request.method}: {exc}"))
    return Answer(body, tuple(node.take_events()))


def result_body(request_id: Json, result: Json) -> dict[str, Json]:
    """Return the answer to a call that succeeded."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def error_body(request_id: Json, error: RpcError) -> dict[str, Json]:
    """Return the answer to a call that failed."""
    body: dict[str, Json] = {"code": error.code, "message": error.what}
    if error.data is not None:
        body["data"] = error.data
    return {"jsonrpc": "2.0", "id": request_id, "error": body}
