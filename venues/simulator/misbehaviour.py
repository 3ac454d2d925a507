"""What faults on requests do: how they look to the client, and what the venue does wrong besides."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web
from msgspec.structs import replace as changed

from venues.simulator.commands import LateFill, OrderUpdated, SetFees, VenueEvent
from venues.simulator.core import VenueCore
from venues.simulator.dialect import Canned, Dialect
from venues.simulator.errors import VenueRefusal
from venues.simulator.faults import UNACCEPTED, Fault, FaultKind
from venues.simulator.model import Execution, FeeRates, Order

RETRY_AFTER_S: Final = 1

_LINGER_NONE: Final = struct.pack("ii", 1, 0)
_HTML: Final = "<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"

# What any venue's gateway answers; the rest is the dialect's.
_GATEWAY: Final = {
    FaultKind.HTML_502_AFTER_ACCEPT: Canned(True, 502, _HTML.format("502 Bad Gateway")),
    FaultKind.HTML_504: Canned(False, 504, _HTML.format("504 Gateway Time-out")),
    FaultKind.HTML_504_AFTER_ACCEPT: Canned(True, 504, _HTML.format("504 Gateway Time-out")),
}

_HANGS: Final = frozenset((FaultKind.HANG_BEFORE_ACCEPT, FaultKind.HANG_AFTER_ACCEPT))
_ACCEPTED: Final = frozenset((FaultKind.HANG_AFTER_ACCEPT, FaultKind.RESET_AFTER_ACCEPT))

Answer = Callable[[], Awaitable[web.StreamResponse]]


class Misbehaviour:
    """Treats requests as their faults say."""

    def __init__(self, core: VenueCore, dialect: Dialect, stopping: asyncio.Event) -> None:
        self._core = core
        self._dialect = dialect
        self._stopping = stopping

    async def treat(self, fault: Fault, request: web.Request, answer: Answer) -> web.StreamResponse:
        """Answer a request badly; `answer` does what the venue would have done."""
        match fault.kind:
            case FaultKind.CLOCK_SKEW:
                return await self._skewed(fault, answer)
            case FaultKind.WITHHOLD_ORDER:
                return await self._withheld(fault, answer)
            case FaultKind.LATE_FILL_AFTER_CANCEL:
                return await self._filled_late(fault, answer)
            case FaultKind.FEE_IN_THIRD_ASSET:
                return await self._charged_otherwise(answer)
            case FaultKind.DELAY_BEFORE_ACCEPT:
                await self._wait(fault.lasting_s)
                return await answer()
            case FaultKind.TRUNCATED_200:
                return _truncated(await answer())
            case _:
                return await self._kept_from(fault, request, answer)

    async def _kept_from(
        self, fault: Fault, request: web.Request, answer: Answer
    ) -> web.StreamResponse:
        """Keep the answer from the client, whether there is one or not."""
        canned = self._canned(fault.kind)
        if fault.kind in _ACCEPTED or (canned is not None and canned.after_accept):
            await answer()
        if canned is not None:
            return _response(canned)
        if fault.kind in _HANGS:
            await self._wait(fault.lasting_s)
        return _drop(request)

    def _canned(self, kind: FaultKind) -> Canned | None:
        twin = UNACCEPTED.get(kind)
        found = self._dialect.canned(kind) or _GATEWAY.get(kind)
        if found is not None or twin is None:
            return found
        found = self._dialect.canned(twin) or _GATEWAY.get(twin)
        return None if found is None else Canned(False, found.status, found.body)

    async def _skewed(self, fault: Fault, answer: Answer) -> web.StreamResponse:
        """The venue's clock runs ahead for one request."""
        before = self._core.skew_ms
        self._core.skew_ms = before + int(fault.lasting_s * 1000)
        try:
            return await answer()
        finally:
            self._core.skew_ms = before

    async def _withheld(self, fault: Fault, answer: Answer) -> web.StreamResponse:
        """Accept an order, answer as after a timeout, and deny the order for a while."""
        with self._core.overhearing() as heard:
            await answer()
        state = self._core.state
        keys = {(order.symbol, order.order_id) for order in _orders(heard, Execution.NEW)}
        state.withheld |= keys
        asyncio.get_running_loop().call_later(
            fault.lasting_s, state.withheld.difference_update, keys
        )
        canned = self._canned(FaultKind.TIMEOUT_1007_AFTER_ACCEPT)
        return _response(canned or _GATEWAY[FaultKind.HTML_504_AFTER_ACCEPT])

    async def _filled_late(self, fault: Fault, answer: Answer) -> web.StreamResponse:
        """Confirm a cancel, and fill what was cancelled all the same."""
        with self._core.overhearing() as heard:
            response = await answer()
        loop = asyncio.get_running_loop()
        for order in _orders(heard, Execution.CANCELED):
            loop.call_later(fault.lasting_s, self._fill_late, order)
        return response

    def _fill_late(self, order: Order) -> None:
        if self._stopping.is_set() or order.price_ticks is None or not order.remaining_lots:
            return
        lots, at_ms = order.remaining_lots, self._core.accepted_at()
        try:
            self._core.execute(LateFill(at_ms, order.account, order.symbol, order.order_id, lots))
        except VenueRefusal:
            return  # the account has spent what the order had held: nobody can fill it any more

    async def _charged_otherwise(self, answer: Answer) -> web.StreamResponse:
        """Charge commissions of one request in a third asset, where the accounts have one."""
        core = self._core
        third = next(iter(core.state.genesis.fee_asset_prices), None)
        before = {name: account.fees for name, account in core.state.accounts.items()}
        self._set_fees({name: changed(fees, asset=third) for name, fees in before.items()})
        try:
            return await answer()
        finally:
            self._set_fees(before)

    def _set_fees(self, fees: dict[str, FeeRates]) -> None:
        for name, rates in fees.items():
            self._core.execute(SetFees(self._core.accepted_at(), name, rates))

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def _orders(heard: Sequence[VenueEvent], execution: Execution) -> list[Order]:
    return [
        event.order
        for event in heard
        if isinstance(event, OrderUpdated) and event.execution is execution
    ]


def _response(canned: Canned) -> web.Response:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if canned.status in (418, 429) else {}
    kind = "application/json" if canned.body.startswith("{") else "text/html"
    return web.Response(status=canned.status, text=canned.body, content_type=kind, headers=headers)


def _truncated(whole: web.StreamResponse) -> web.Response:
    assert isinstance(whole, web.Response)
    body = whole.body
    assert isinstance(body, bytes)
    return web.Response(status=200, body=body[: len(body) // 2], content_type="application/json")


def _drop(request: web.Request) -> web.Response:
    """Reset the connection: the client sees ECONNRESET, and the response goes nowhere."""
    transport = request.transport
    if transport is not None:
        peer = transport.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        transport.abort()
    return web.Response(status=503)
