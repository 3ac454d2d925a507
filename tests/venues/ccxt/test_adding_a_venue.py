"""The page on adding a venue is true: the record it shows trades."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.conformance.connectors.bench import CLOCK, Connector, settings_for
from tests.venues.in_thread import SimulatorThread
from venues.capabilities import Capabilities, Dialect
from venues.ccxt.gateway import open_gateway
from venues.model import Accepted, OrderKind, PlacementRefused, PlacementUnknown, VenueStatus
from venues.records import RECORDS

PAGE = Path(__file__).parents[3] / "docs" / "adding-a-venue.md"


def shown_record() -> Capabilities:
    """Run the page's code and return the record that it makes."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102  our own page
    record = names["NEW_VENUE"]
    assert isinstance(record, Capabilities)
    return record


async def test_the_record_on_the_page_is_all_that_a_venue_needs(tmp_path: Path) -> None:
    record = shown_record()
    with SimulatorThread(tmp_path / "venue", "--step-ms", "0") as sim:
        wanted = replace(settings_for("binanceus", sim), capabilities=record, rate_limit=True)
        async with open_gateway(wanted, CLOCK) as gateway:
            grid = await gateway.instrument("ETHUSDT")
            venue = Connector("new", sim, gateway, grid)
            taking, resting = venue.order(), venue.resting()

            placed = await gateway.place(taking)
            again = [await gateway.place(resting), await gateway.place(resting)]
            poor = await gateway.place(venue.order(quantity="400000"))
            market = await gateway.place(venue.order(kind=OrderKind.MARKET, price=None))
            ended = await gateway.cancel(resting)
            page = await gateway.fills("ETHUSDT", "")

    assert isinstance(placed, Accepted)
    assert isinstance(again[0], Accepted)
    assert isinstance(again[1], PlacementUnknown)
    assert isinstance(poor, PlacementRefused)
    assert isinstance(market, PlacementRefused)
    assert market.reason.startswith("not sent")
    assert ended is not None
    assert ended.status is VenueStatus.CANCELLED
    assert sum(fill.base_units for fill in page.fills) == taking.base_units


def test_a_third_venue_has_nothing_but_its_record() -> None:
    third = RECORDS["binanceus"]

    assert third.dialect is Dialect.GENERIC
    assert shown_record().dialect is Dialect.GENERIC


def test_the_page_names_what_there_is() -> None:
    text = PAGE.read_text()

    for name in re.findall(r"`((?:wire\.)?[a-z_]+)`", text):
        holder: Any = RECORDS["kraken"]
        *path, last = name.split(".")
        for step in path:
            holder = getattr(holder, step)
        if "_" in last and name not in {"test_cards", "binanceus"}:
            assert hasattr(holder, last) or hasattr(holder.errors, last), name
