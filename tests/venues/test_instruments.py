"""All of a venue's markets on record: versions kept, what cannot be read named, the rest left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from kernel.money import Asset
from marketdata.instruments import get_instrument, list_instruments
from tests.venues.in_thread import SimulatorThread
from venues.ccxt.endpoint import Endpoint
from venues.errors import VenueUnavailable
from venues.history import open_public
from venues.instruments import Listing, Refreshed, read_instruments, refresh_instruments
from venues.records import RECORDS
from venues.simulator.testing import SimulatorProcess

ASSETS = {
    asset.code: asset
    for asset in (Asset("BTC", 8), Asset("ETH", 18), Asset("USDT", 6), Asset("USD", 2))
}
NOW = datetime(2026, 2, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    folder: Path = tmp_path_factory.mktemp("kraken") / "venue"
    with SimulatorThread(folder, "--step-ms", "0", "--dialect", "kraken") as process:
        yield process


async def listing_of(sim: SimulatorProcess, assets: dict[str, Asset] | None = None) -> Listing:
    endpoint = Endpoint(http_url=sim.url, ws_url=sim.ws_url)
    wire = open_public(RECORDS["kraken"], endpoint, SystemClock(), venue="k", rate_limit=False)
    try:
        return await read_instruments(wire, RECORDS["kraken"], assets or ASSETS, venue="k")
    finally:
        await wire.close()


async def refreshed(engine: AsyncEngine, listing: Listing) -> Refreshed:
    return await transact(engine, lambda conn: refresh_instruments(conn, "k", listing, now=NOW))


async def test_every_market_is_put_on_record_once(
    engine: AsyncEngine, sim: SimulatorProcess
) -> None:
    listing = await listing_of(sim)
    first = await refreshed(engine, listing)
    again = await refreshed(engine, await listing_of(sim))

    symbols = {"XXBTZUSD", "XETHZUSD", "XBTUSDT", "ETHUSDT"}
    assert {item.symbol for item in first.new} == symbols
    assert {item.version for item in first.new} == {1}
    assert (again.new, again.changed, again.unchanged, again.vanished) == ((), (), 4, ())
    async with engine.connect() as conn:
        assert {item.symbol for item in await list_instruments(conn, "k")} == symbols


async def test_a_changed_grid_is_another_version_and_the_old_one_stays(
    engine: AsyncEngine, sim: SimulatorProcess
) -> None:
    listing = await listing_of(sim)
    await refreshed(engine, listing)
    coarser = tuple(
        replace(item, tick=item.tick * 5) if item.symbol == "XXBTZUSD" else item
        for item in listing.found
    )
    found = await refreshed(engine, replace(listing, found=coarser))

    assert [(item.symbol, item.version) for item in found.changed] == [("XXBTZUSD", 2)]
    async with engine.connect() as conn:
        old = await get_instrument(conn, "k", "XXBTZUSD", version=1)
        new = await get_instrument(conn, "k", "XXBTZUSD")
    assert (old.tick * 5, new.version) == (new.tick, 2)


async def test_what_is_not_listed_any_more_is_named_and_stays(
    engine: AsyncEngine, sim: SimulatorProcess
) -> None:
    listing = await listing_of(sim)
    await refreshed(engine, listing)
    found = await refreshed(engine, replace(listing, found=listing.found[1:]))

    assert found.vanished == (listing.found[0].symbol,)
    async with engine.connect() as conn:
        assert len(await list_instruments(conn, "k")) == 4


async def test_a_market_of_assets_that_nobody_registered_is_left_out_with_the_reason(
    sim: SimulatorProcess,
) -> None:
    listing = await listing_of(sim, {code: ASSETS[code] for code in ("BTC", "USD")})

    assert [item.symbol for item in listing.found] == ["XXBTZUSD"]
    assert {one.symbol for one in listing.left_out} == {"XETHZUSD", "XBTUSDT", "ETHUSDT"}
    assert all("not a known asset" in one.why for one in listing.left_out)


async def test_a_venue_that_does_not_answer_changes_nothing(
    engine: AsyncEngine, sim: SimulatorProcess
) -> None:
    sim.fault("status_503", "/0/public")
    try:
        with pytest.raises(VenueUnavailable):
            await listing_of(sim)
    finally:
        sim.control("DELETE", "faults")
    async with engine.connect() as conn:
        assert await list_instruments(conn, "k") == []
