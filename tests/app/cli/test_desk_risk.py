"""Limits, the kill switch and what is at risk, through the command line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.clock import SystemClock
from kernel.db import transact
from kernel.money import Price
from marketdata.model import PriceRecord, Quality
from marketdata.price_model import PriceKind
from marketdata.prices import record_price
from matching.model import Side, TimeInForce
from registry.testing import ETH, USDT
from tests.app.cli.conftest import Cli
from trading.hedges.lines import open_line
from trading.hedges.model import HedgeLine, HedgePlace
from venues.model import OrderTicket, VenueOrder
from venues.orders import intend, submit
from venues.testing import GRID, Conduct, ScriptedVenue

As = Callable[[str], tuple[str, ...]]
SOLD = ("desk", "deal", "acme", "--price", "3000 USDT", "--reason", "agreed by phone")


@pytest.fixture
def two(as_: As, keys: dict[str, Path]) -> tuple[str, ...]:
    """The options by which ada enters and ben signs."""
    return (*as_("ada"), "--approver", "ben", "--approver-key", str(keys["ben"]))


async def eth_at(engine: AsyncEngine, price: str) -> None:
    now = SystemClock().now()
    record = PriceRecord(
        price=Price.parse(price, ETH, USDT),
        kind=PriceKind.INDEX,
        quality=Quality.GOOD,
        observed_at=now,
    )
    await transact(engine, lambda conn: record_price(conn, record, now=now))


async def resting(engine: AsyncEngine) -> VenueOrder:
    """Place an order that rests at the account of the line."""
    venue = ScriptedVenue(venue="binance", account="desk", conduct=lambda _: Conduct(trades=()))
    ticket = OrderTicket(
        venue="binance",
        account="desk",
        symbol="ETHUSDT",
        instrument_version=1,
        side=Side.BUY,
        base_units=100 * GRID.lot,
        quantity=GRID.quantity_text(100),
        price="3000.00",
        time_in_force=TimeInForce.GTC,
        reference="test",
        intent="resting",
    )

    async def work(conn: AsyncConnection) -> VenueOrder:
        return await intend(
            conn,
            ticket,
            capabilities=venue.capabilities,
            recv_window=timedelta(seconds=3),
            actor="system:test",
            reason="test",
            now=venue.now(),
        )

    order = await transact(engine, work)
    return await submit(engine, venue, order.id, holder="test", clock=venue)


@pytest.mark.usefixtures("house")
def test_limits_are_set_by_two_people_and_what_is_not_named_stays(
    cli: Cli, two: tuple[str, ...], as_: As
) -> None:
    nothing = cli("desk", "limits", "show", "--desk", "otc", "--json").json
    assert [(row["of"], row["allowed"]) for row in nothing] == [("desk otc", "no limit")]
    given = ("desk", "limits", "set", "--desk", "otc", "--reason", "risk committee")
    figures = ("--asset", "50 ETH", "--notional", "200000 USDT", "--venue", "kraken=5000 USDT")

    assert cli(*given, *figures, *two).code == 2
    rehearsed = cli(*given, "--currency", "USDT", *figures, *two, "--dry-run", "--json")
    assert rehearsed.json["dry_run"] is True
    done = cli(*given, "--currency", "USDT", *figures, *two, "--json")
    assert done.code == 0, done.err
    assert "No line of otc buys or sells ETH" in done.err
    assert done.json == {
        "version": "1",
        "position in ETH": "50 ETH",
        "under way at kraken": "5,000 USDT",
        "notional": "200,000 USDT",
        "order notional": "no limit",
        "loss": "no limit",
        "orders per minute": "no limit",
        "unknown orders": "no limit",
        "book age max ms": "no limit",
    }
    changes = ("--orders-per-minute", "60", "--asset", "ETH none", "--venue", "kraken=none")
    again = cli(*given, *changes, "--loss", "5000 USDT", *two, "--json").json
    assert (again["version"], again["notional"], again["loss"]) == (
        *("2", "200,000 USDT", "5,000 USDT"),
    )
    assert "position in ETH" not in again
    assert "under way at kraken" not in again
    assert "orders per minute" in cli("desk", "limits", "show").out
    for wrong in (
        ("--exposure", "1 USDT"),
        ("--loss", "5 ETH"),
        ("--unknown-orders", "many"),
        ("--party", "acme"),
    ):
        assert cli(*given, *wrong, *two).code == 2
    alone = (*as_("ada"), "--approver", "ada", "--approver-key", two[3])
    assert cli(*given, "--loss", "1 USDT", *alone).code == 1


async def test_a_deal_beyond_the_partys_limit_is_refused_and_what_is_open_is_shown(
    house: AsyncEngine, cli: Cli, two: tuple[str, ...], as_: As
) -> None:
    await eth_at(house, "3000")
    given = ("desk", "limits", "set", "--party", "acme", "--currency", "USDT", "--reason", "r")
    assert cli(*given, "--exposure", "15000 USDT", *two).code == 0

    fits = cli(*SOLD, "--sell", "2 ETH", "--ref", "d-1", *as_("dan"))
    assert fits.code == 0, fits.err
    too_much = cli(*SOLD, "--sell", "1 ETH", "--ref", "d-2", *as_("dan"))
    assert too_much.code == 1
    assert "exposure to acme" in too_much.err

    (shown,) = cli("desk", "exposure", "--party", "acme", "--json").json
    assert shown == {
        "party": "acme",
        "worth": "12,000 USDT",
        "limit": "15,000 USDT",
        "parts": [
            {"kind": "deal, owed by us", "asset": "ETH", "amount": "2 ETH"},
            {"kind": "deal, owed to us", "asset": "USDT", "amount": "6,000 USDT"},
        ],
    }
    assert "limit: 15,000 USDT" in cli("desk", "exposure").out
    assert cli("desk", "exposure", "--currency", "XYZ").code == 1


async def test_a_kill_halts_at_once_and_two_people_resume(
    house: AsyncEngine, cli: Cli, two: tuple[str, ...], as_: As
) -> None:
    stop = ("desk", "kill", "--desk", "otc", "--reason", "a bad feed", *as_("dan"), "--json")
    killed = cli(*stop)
    assert killed.code == 0, killed.err
    assert (killed.json["state"], killed.json["by"], killed.json["clear"]) == (
        *("halted", "dan", True),
    )
    assert "otc hedges nowhere" in killed.err
    assert cli("desk", "resume", "--desk", "otc", "--reason", "r", *as_("ada")).code == 2
    eased = cli("desk", "resume", "--desk", "otc", "--to", "reducing", "--reason", "r", *two)
    assert eased.code == 0, eased.err
    done = cli("desk", "resume", "--desk", "otc", "--reason", "mended", *two, "--json").json
    assert (done["state"], done["by"], done["reason"]) == ("active", "ada and ben", "mended")
    assert cli("desk", "resume", "--desk", "otc", "--reason", "again", *two).code == 1

    line = HedgeLine(desk="otc", asset="ETH", places=(HedgePlace("binance", "desk", "ETHUSDT"),))
    now = datetime(2026, 1, 5, tzinfo=UTC)
    await transact(house, lambda conn: open_line(conn, line, by="dan", reason="test", now=now))
    bounds = ("--currency", "USDT", "--asset", "5 ETH", "--asset", "9 USDT", "--reason", "r")
    places = ("--venue", "binance=5 USDT", "--venue", "binanse=5 USDT")
    told = cli("desk", "limits", "set", "--desk", "otc", *bounds, *places, *two).err
    assert [text.partition(":")[0] for text in told.splitlines()] == [
        "No line of otc buys or sells USDT",
        "No line of otc trades at binanse",
    ]
    done = cli("desk", "kill", "--all", "--reason", "stop", *as_("dan"), "--json")
    assert done.code == 0, done.err
    (account,) = done.json["accounts"]
    assert (account["account"], account["clear"], account["rounds"]) == ("binance/desk", "yes", "0")
    assert "the venue was not asked" in account["reason"]
    order = await resting(house)
    left = cli("desk", "kill", "--all", "--wait", "1", "--reason", "stop", *as_("dan"), "--json")
    assert left.code == 3
    assert "may still trade" in left.err
    assert [item["left"] for item in left.json["accounts"]] == [order.client_order_id]
    listed = cli("desk", "switches", "--json").json
    assert [(item["of"], item["state"]) for item in listed] == [
        *(("*", "halted"), ("otc", "active")),
    ]
    assert cli("desk", "kill", "--reason", "r", *as_("dan")).code == 2
