"""Answers that break off, lie or make no sense, of a venue that has our order all the same.

Between the gateway and the simulator stands a proxy that changes what the venue says, never what it
does. Whatever is said, an order is accepted, refused with proof, or unknown, and found again later.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from matching.model import Side
from tests.conformance.connectors.bench import ASSETS, CLOCK, Connector, settings_for
from tests.conformance.connectors.conftest import CONNECTORS, SPOKEN, Simulators
from venues.capabilities import FillPaging
from venues.ccxt.endpoint import Endpoint
from venues.ccxt.gateway import open_gateway
from venues.errors import VenueUnavailable
from venues.model import Accepted, PlacementUnknown, VenueStatus
from venues.simulator.testing import SimulatorProcess

PLACED = {"binance": "/api/v3/order", "kraken": "/0/private/AddOrder"}
TRADES = {"binance": "/api/v3/myTrades", "kraken": "/0/private/TradesHistory"}
DUPLICATE = {
    "binance": (400, '{"code":-2010,"msg":"Duplicate order sent."}'),
    "kraken": (200, '{"error":["EGeneral:Invalid arguments:cl_ord_id not unique"]}'),
}
Answer = tuple[int, str]


@dataclass(slots=True)
class LyingVenue:
    """A proxy that may say something else than the venue did.

    Attributes:
        instead: answers a request without asking the venue; None: asks it.
        changed: makes another body of the venue's.
        hold: the answer is kept back until it is set.
    """

    sim: SimulatorProcess
    instead: Callable[[web.Request], Answer | None] = lambda _: None
    changed: Callable[[web.Request, str], str] = lambda _, body: body
    held: asyncio.Event = field(default_factory=asyncio.Event)
    hold: bool = False

    async def answer(self, request: web.Request) -> web.Response:
        told = self.instead(request)
        if told is None:
            told = await self._asked(request)
        if self.hold:
            self.held.set()
            await asyncio.sleep(60)
        status, body = told
        return web.Response(status=status, text=body, content_type="application/json")

    async def _asked(self, request: web.Request) -> Answer:
        named = {n: v for n, v in request.headers.items() if n.lower() != "host"}
        async with (
            aiohttp.ClientSession(auto_decompress=True) as session,
            session.request(
                request.method,
                f"{self.sim.url}{request.rel_url}",
                headers=named,
                data=await request.read(),
            ) as found,
        ):
            return found.status, self.changed(request, await found.text())


@asynccontextmanager
async def through(connector: str, sim: SimulatorProcess) -> AsyncIterator[tuple[Connector, Any]]:
    venue = LyingVenue(sim)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", venue.answer)
    async with TestServer(app) as server:
        wanted = settings_for(connector, sim)
        url = str(server.make_url("")).rstrip("/")
        wanted = replace(wanted, endpoint=Endpoint(http_url=url, ws_url=sim.ws_url))
        async with open_gateway(wanted, CLOCK) as gateway:
            grid = await gateway.instrument(CONNECTORS[connector][1])
            yield Connector(connector, sim, gateway, grid), venue
            venue.instead = LyingVenue(sim).instead
            venue.changed, venue.hold = LyingVenue(sim).changed, False
            await gateway.cancel_all(None)


@pytest.fixture(params=[name for name, (spoken, _) in CONNECTORS.items() if spoken in SPOKEN])
async def lying(
    request: pytest.FixtureRequest, simulators: Simulators
) -> AsyncIterator[tuple[Connector, LyingVenue]]:
    async with through(request.param, simulators(CONNECTORS[request.param][0])) as pair:
        yield pair


def is_placing(connector: Connector) -> Callable[[web.Request], bool]:
    path = PLACED[connector.sim.ready["dialect"]]
    return lambda request: request.method == "POST" and request.path == path


async def test_a_placement_cut_off_at_any_byte_is_unknown(
    lying: tuple[Connector, LyingVenue],
) -> None:
    connector, venue = lying
    placing, order = is_placing(connector), connector.resting()
    bodies: list[str] = []

    def keep(request: web.Request, body: str) -> str:
        if placing(request):
            bodies.append(body)
        return body

    venue.changed = keep
    assert isinstance(await connector.gateway.place(order), Accepted)
    whole = bodies[0].rstrip()
    for length in range(len(whole)):
        venue.instead = lambda request, n=length: (200, whole[:n]) if placing(request) else None  # type: ignore[misc]
        placed = await connector.gateway.place(order)
        assert isinstance(placed, PlacementUnknown), (whole[:length], placed)


async def test_a_duplicate_told_in_part_is_never_a_refusal(
    lying: tuple[Connector, LyingVenue],
) -> None:
    """A refusal of the code alone would deny an order that has landed."""
    connector, venue = lying
    placing, order = is_placing(connector), connector.resting()
    status, whole = DUPLICATE[connector.sim.ready["dialect"]]
    for length in range(len(whole) + 1):
        venue.instead = lambda request, n=length: (status, whole[:n]) if placing(request) else None  # type: ignore[misc]
        placed = await connector.gateway.place(order)
        assert isinstance(placed, PlacementUnknown), (whole[:length], placed)


NONSENSE = [
    "",
    "null",
    "[]",
    "{}",
    "7",
    "<html><body>OK</body></html>",
    '{"error":[],"result":{}}',
    '{"orderId":1,"orderId":2}',
    '{"orderId":NaN}',
    '{"orderId":Infinity,"executedQty":1e999}',
    '{"result":{"txid":"O","txid":["OTHER"]}}',
    '{"a":' * 50_000,
    "[" * 50_000,
    '{"orderId":' + "9" * 5_000 + "}",
]


@pytest.mark.parametrize("body", NONSENSE, ids=range(len(NONSENSE)))
async def test_a_placement_answered_with_nonsense_is_unknown_and_the_order_is_found(
    lying: tuple[Connector, LyingVenue], body: str
) -> None:
    connector, venue = lying
    placing, order = is_placing(connector), connector.resting()
    venue.changed = lambda request, said: body if placing(request) else said

    placed = await connector.gateway.place(order)
    found = await connector.gateway.find_order(order)

    assert isinstance(placed, PlacementUnknown)
    assert found is not None
    assert found.status is VenueStatus.OPEN


CHANGES = [
    ("clientOrderId", "somebody-elses"),
    ("symbol", "BTCUSDT"),
    ("side", "SELL"),
    ("origQty", "0.20000000"),
    ("price", "2000.01000000"),
    ("executedQty", "-0.01000000"),
    ("status", "FILLED"),
]


@pytest.mark.parametrize(("name", "value"), CHANGES)
async def test_an_answer_about_another_order_is_no_answer(
    simulators: Simulators, name: str, value: str
) -> None:
    """Neither of the placement nor of the query nor of the cancel; a person hears of it in the end."""

    def other(request: web.Request, body: str) -> str:
        if not request.path.endswith("/order"):
            return body
        answer = json.loads(body)
        if name == "clientOrderId" and "origClientOrderId" in answer:
            answer["origClientOrderId"] = value
        return json.dumps({**answer, name: value})

    async with through("binance", simulators("binance")) as (connector, venue):
        order = connector.resting()
        assert (order.side, order.base_units) == (Side.BUY, ASSETS["ETH"].parse("0.1"))
        venue.changed = other

        placed = await connector.gateway.place(order)

        assert isinstance(placed, PlacementUnknown)
        with pytest.raises(VenueUnavailable, match="speaks of"):
            await connector.gateway.find_order(order)
        if name != "clientOrderId":  # a cancel may be answered under the id of the cancel
            with pytest.raises(VenueUnavailable, match="speaks of"):
                await connector.gateway.cancel(order)


@pytest.mark.parametrize("change", [{"qty": "-1"}, {"qty": "0"}, {"quoteQty": "-1"}])
async def test_a_trade_that_cannot_be_ours_is_kept_unread(
    simulators: Simulators, change: dict[str, str]
) -> None:
    async with through("binance", simulators("binance")) as (connector, venue):
        placed = await connector.gateway.place(connector.order(quantity="0.01"))
        assert isinstance(placed, Accepted)
        venue.changed = lambda request, body: (
            json.dumps([{**row, **change} for row in json.loads(body)])
            if request.path == TRADES["binance"]
            else body
        )
        page = await connector.gateway.fills(connector.grid.symbol, "")

    assert not page.fills
    assert page.unread


async def test_trades_whose_ids_are_no_numbers_are_not_read_past(simulators: Simulators) -> None:
    async with through("binance", simulators("binance")) as (connector, venue):
        await connector.gateway.place(connector.order(quantity="0.01"))
        venue.changed = lambda request, body: (
            json.dumps([{**row, "id": f"T{row['id']}"} for row in json.loads(body)])
            if request.path == TRADES["binance"]
            else body
        )
        with pytest.raises(VenueUnavailable, match="no number"):
            await connector.gateway.fills(connector.grid.symbol, "")


async def test_trades_read_on_by_time_come_out_whole(simulators: Simulators) -> None:
    sim = simulators("binance")
    wanted = settings_for("binanceus", sim)
    record = wanted.capabilities
    by_time = replace(
        record, wire=replace(record.wire, fill_paging=FillPaging.SINCE), fills_page_max=3
    )
    async with (
        open_gateway(wanted, CLOCK) as known,
        open_gateway(replace(wanted, capabilities=by_time), CLOCK) as gateway,
    ):
        connector = Connector("binanceus", sim, known, await known.instrument("ETHUSDT"))
        for _ in range(5):
            placed = await known.place(connector.order(quantity="0.01"))
            assert isinstance(placed, Accepted)
            await asyncio.sleep(0.002)  # more of one moment than a page holds are told, not guessed
        fills, found, cursor, is_last = (await known.fills("ETHUSDT", "")).fills, set(), "", False
        while not is_last:
            page = await gateway.fills("ETHUSDT", cursor)
            assert page.cursor != cursor or page.is_last
            found |= {fill.trade_id for fill in page.fills}
            cursor, is_last = page.cursor, page.is_last

    assert found == {fill.trade_id for fill in fills}


async def test_a_worker_cancelled_while_the_order_is_out_leaves_it_to_be_found(
    lying: tuple[Connector, LyingVenue],
) -> None:
    connector, venue = lying
    order = connector.resting()
    venue.hold = True
    async with asyncio.TaskGroup() as group:
        task = group.create_task(connector.gateway.place(order))
        await venue.held.wait()
        task.cancel()
    assert task.cancelled()
    venue.hold = False

    found = await connector.gateway.find_order(order)
    again = await connector.gateway.place(connector.resting())

    assert found is not None
    assert found.status is VenueStatus.OPEN
    assert isinstance(again, Accepted)
