"""Instances of ccxt's own classes, unmodified, with what they allow to be set on an instance.

- Numbers stay texts: JSON is read with the venue's own digits kept (`on_json_response`), and ccxt's
  own ``number`` is `str`, so that nothing passes through a float on the way to us. For REST only:
  ccxt.pro's books need floats.
- Every answer is seen as it came (`on_rest_response`), so that an error is judged by the venue's
  words, and whether a request was made at all is known (`sign`).
- What has been signed may be held back until something else has happened (`fetch`).
- Where the answer to an order is read from the venue's own row, ccxt's reading of it is left out
  (`parse_order`); where our own texts are written over an order's amount and price, so is its rounding
  of them (`_leave_texts`).
- Nonces come from the key's one source, and where they must rise on arrival, its requests take turns.
- The certificates trusted are read once for all instances (`ssl_context`): ccxt would read them for
  each, and hold up everything else for that long.

ccxt's own limiter and its repetitions are off: see `venues.rate_limits`.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any, Final

import ccxt.async_support as ccxt
import ccxt.pro as ccxt_pro

from kernel.clock import Clock, to_unix_ms
from kernel.errors import BadInput
from venues.capabilities import Capabilities
from venues.ccxt.endpoint import Credentials, Endpoint, point_at, settings
from venues.ccxt.nonce import nonce_source, turn_of
from venues.nesting import require_shallow

MILLISECOND: Final = timedelta(milliseconds=1)
PRIVATE: Final = "private"
"""How ccxt calls the part of an API that a key is needed for."""


@dataclass(slots=True)
class Exchange:
    """One request and its answer, as they were on the wire; the last one, if a call made several.

    Attributes:
        after: what has to be done before a request goes out.
        is_raw: whether an order is wanted as the venue wrote it: ccxt's reading would go unread.
    """

    after: Awaitable[object] | None = None
    is_raw: bool = False
    signed: bool = False
    status: int | None = None
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


_current: ContextVar[Exchange | None] = ContextVar("venue_exchange", default=None)


@contextmanager
def watching(after: Awaitable[object] | None = None, *, is_raw: bool = False) -> Iterator[Exchange]:
    """Record what the calls made inside exchange with the venue; nothing goes out before *after*."""
    seen = Exchange(after, is_raw)
    token = _current.set(seen)
    try:
        yield seen
    finally:
        _current.reset(token)


def asking(
    capabilities: Capabilities,
    credentials: Credentials | None,
    endpoint: Endpoint,
    timeout: timedelta,
    clock: Clock,
    *,
    in_turn: bool = True,
) -> Any:
    """Return an instance for requests.

    With *in_turn*, where a key's numbers must rise on arrival, its requests go out one at a time,
    whichever instance of this process makes them.
    """
    exchange = _instance(ccxt, capabilities, credentials, endpoint, timeout)
    exchange.number = str
    exchange.on_json_response = exact_json
    _watch(exchange)
    _leave_texts(exchange, capabilities)
    _share_nonce(exchange, capabilities, credentials, lambda: to_unix_ms(clock.now()))
    if in_turn:
        _take_turns(exchange, capabilities, credentials)
    return exchange


def streaming(
    capabilities: Capabilities,
    credentials: Credentials | None,
    endpoint: Endpoint,
    timeout: timedelta,
    clock: Clock,
) -> Any:
    """Return an instance for streams, which hands out floats and must not be asked for money."""
    exchange = _instance(ccxt_pro, capabilities, credentials, endpoint, timeout)
    _share_nonce(exchange, capabilities, credentials, lambda: to_unix_ms(clock.now()))
    _take_turns(exchange, capabilities, credentials)
    return exchange


def exact_json(text: str) -> Any:
    """Read JSON with every number that is not an integer left as the text it was.

    Raises:
        ValueError: it is none, is nested beyond reading, or says two things under one name.
    """
    require_shallow(text)
    try:
        return _EXACT.decode(text)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the JSON says two things under one name")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


_EXACT: Final = json.JSONDecoder(
    parse_float=str, parse_constant=_no_constant, object_pairs_hook=_object
)


def _instance(
    module: Any,
    capabilities: Capabilities,
    credentials: Credentials | None,
    endpoint: Endpoint,
    timeout: timedelta,
) -> Any:
    make = getattr(module, capabilities.ccxt_id, None)
    if make is None:
        raise BadInput(f"ccxt has no class {capabilities.ccxt_id!r}")
    wanted = settings(
        credentials,
        timeout_ms=timeout // MILLISECOND,
        rate_limit=False,
        options=capabilities.wire.options,
    )
    exchange = make(wanted)
    exchange.ssl_context = _trusting(exchange.cafile)
    point_at(exchange, endpoint)
    return exchange


@cache
def _trusting(cafile: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=cafile)


def _watch(exchange: Any) -> None:
    sign, send, pass_on = exchange.sign, exchange.fetch, exchange.on_rest_response
    read = exchange.parse_order

    def signing(*arguments: Any, **named: Any) -> Any:
        seen = _current.get()
        if seen is not None:
            seen.signed, seen.status, seen.body, seen.headers = True, None, "", {}
        return sign(*arguments, **named)

    async def fetch(*arguments: Any, **named: Any) -> Any:
        seen = _current.get()
        if seen is not None and seen.after is not None:
            after, seen.after = seen.after, None
            await after
        return await send(*arguments, **named)

    def answered(
        code: int,
        reason: str,
        url: str,
        method: str,
        response_headers: Mapping[str, str],
        response_body: str,
        request_headers: Any,
        request_body: Any,
    ) -> Any:
        seen = _current.get()
        if seen is not None:
            seen.status, seen.body, seen.headers = code, response_body, response_headers
        return pass_on(
            code,
            reason,
            url,
            method,
            response_headers,
            response_body,
            request_headers,
            request_body,
        )

    def parse_order(order: Any, market: Any = None) -> Any:
        seen = _current.get()
        if seen is None or not seen.is_raw or not isinstance(order, dict):
            return read(order, market)
        return {"info": order, "symbol": order.get("symbol")}

    exchange.sign = signing
    exchange.fetch = fetch
    exchange.on_rest_response = answered
    exchange.parse_order = parse_order


def _leave_texts(exchange: Any, capabilities: Capabilities) -> None:
    """Let ccxt write amounts and prices as it gets them, where ours are written over them anyway."""
    if capabilities.wire.quantity_field:
        exchange.amount_to_precision = _as_given
    if capabilities.wire.price_field:
        exchange.price_to_precision = _as_given


def _as_given(symbol: str, number: str) -> str:
    del symbol
    return number


def _share_nonce(
    exchange: Any,
    capabilities: Capabilities,
    credentials: Credentials | None,
    now_ms: Callable[[], int],
) -> None:
    if capabilities.shares_nonce and credentials is not None:
        source = nonce_source(credentials.api_key)
        exchange.incrementing_nonce = lambda: source.next(now_ms())


def _take_turns(exchange: Any, capabilities: Capabilities, credentials: Credentials | None) -> None:
    """Let a request draw its number and be answered before the next one of the key is made."""
    if not capabilities.shares_nonce or credentials is None:
        return
    send, key = exchange.fetch2, credentials.api_key

    async def fetch2(path: str, api: Any = "public", *arguments: Any, **named: Any) -> Any:
        if PRIVATE not in api:
            return await send(path, api, *arguments, **named)
        async with turn_of(key):
            return await send(path, api, *arguments, **named)

    exchange.fetch2 = fetch2
