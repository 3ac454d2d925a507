"""JSON-RPC as bitcoind speaks it: versions 1.0 to 1.1 and 2.0, single calls and batches.

Of version 1, every answer has ``result`` and ``error``, and an error is an HTTP status too; of version 2,
the status is 200 and a call without an id is not answered. Source: Bitcoin Core
``src/rpc/request.cpp`` and ``src/httprpc.cpp``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from chain.simulators.bitcoin import methods_chain, methods_mining, methods_pool
from chain.simulators.bitcoin.calls import Context, Json, Method
from chain.simulators.bitcoin.errors import InvalidRequest, MethodUnknown, ParseFailed, RpcError

MAX_BATCH: Final = 10_000
STATUS_OF_CODE: Final = {MethodUnknown.code: 404, InvalidRequest.code: 400}

METHODS: Final[Mapping[str, Method]] = {
    **methods_chain.METHODS,
    **methods_pool.METHODS,
    **methods_mining.METHODS,
}


@dataclass(frozen=True, slots=True)
class Request:
    """One call.

    Attributes:
        is_second: of JSON-RPC 2.0.
        is_notification: nobody waits for an answer.
    """

    id: Json
    method: str
    params: Sequence[Any] | Mapping[str, Any]
    is_second: bool = False
    is_notification: bool = False


def parse_body(body: bytes) -> list[Any] | dict[str, Any]:
    """Return the JSON of a request or of a batch.

    Raises:
        ParseFailed: it is neither.
        InvalidRequest: the batch is too large.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise ParseFailed("Parse error") from exc
    if isinstance(parsed, dict):
        return parsed
    if not isinstance(parsed, list):
        raise ParseFailed("Top-level object parse error")
    if len(parsed) > MAX_BATCH:
        raise InvalidRequest(f"a batch of {len(parsed)} calls; {MAX_BATCH} are taken")
    return parsed


def read_request(raw: Any) -> Request:
    """Return one call.

    Raises:
        InvalidRequest: it is none.
    """
    if not isinstance(raw, dict):
        raise InvalidRequest("Invalid Request object")
    if "method" not in raw:
        raise InvalidRequest("Missing method")
    if not isinstance(raw["method"], str):
        raise InvalidRequest("Method must be a string")
    params = raw.get("params")
    if params is not None and not isinstance(params, list | dict):
        raise InvalidRequest("Params must be an array or object")
    is_second = raw.get("jsonrpc") == "2.0"
    return Request(
        id=raw.get("id"),
        method=raw["method"],
        params=params or [],
        is_second=is_second,
        is_notification=is_second and "id" not in raw,
    )


def perform(context: Context, request: Request) -> bytes:
    """Run one call and return the JSON of its result.

    Raises:
        RpcError: it failed.
    """
    method = METHODS.get(request.method)
    if request.method == "help":
        return orjson.dumps("\n".join(sorted(METHODS)))
    if method is None:
        raise MethodUnknown("Method not found")
    return orjson.dumps(method.run(context, *method.read(request.method, request.params)))


def result_body(request: Request, result: bytes) -> bytes:
    """Return the answer to a call that succeeded."""
    id_ = orjson.dumps(request.id)
    if request.is_second:
        return b'{"jsonrpc":"2.0","result":%b,"id":%b}' % (result, id_)
    return b'{"result":%b,"error":null,"id":%b}' % (result, id_)


def error_body(error: RpcError, *, request_id: Json = None, is_second: bool = False) -> bytes:
    """Return the answer to a call that failed."""
    said = orjson.dumps({"code": error.code, "message": error.what})
    id_ = orjson.dumps(request_id)
    if is_second:
        return b'{"jsonrpc":"2.0","error":%b,"id":%b}' % (said, id_)
    return b'{"result":null,"error":%b,"id":%b}' % (said, id_)


def status_of(error: RpcError, *, is_second: bool) -> int:
    """Return the HTTP status that goes with an error."""
    return 200 if is_second else STATUS_OF_CODE.get(error.code, 500)
