"""Hedge lines and trades entered by hand, by the command line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.house_file import read_house
from app.workers.venue_desk import open_desk
from kernel.clock import SystemClock
from kernel.db import transact
from kernel.money import Price
from kernel.settings import Secret
from marketdata.instruments import record_instrument
from registry.testing import ETH, USDT
from tests.app.cli.conftest import BOOK, Cli
from tests.venues.in_thread import SimulatorThread
from trading.deals import book_deal
from trading.hedges.lines import open_line
from trading.hedges.model import HedgeLine, HedgePlace
from trading.model import DealRequest, DealSide
from trading.venue_accounts import open_venue_account
from venues.ccxt.endpoint import Credentials
from venues.credentials.model import KeyPurpose, Slot
from venues.credentials.vault import enrol
from venues.simulator.testing import SimulatorProcess

As = Callable[[str], tuple[str, ...]]
WHY = ("--reason", "a test")


@pytest.fixture
async def line(house: AsyncEngine) -> HedgeLine:
    wanted = HedgeLine(desk="otc", asset="ETH", places=(HedgePlace("north", "desk", "ETHUSDT"),))
    now = SystemClock().now()
    return await transact(house, lambda c: open_line(c, wanted, by="dan", reason="", now=now))


def test_a_place_is_added_closed_and_shown(cli: Cli, as_: As, line: HedgeLine) -> None:
    named = ("otc", line.asset, "lp/phone", "--symbol", "ETH-USDT", *WHY, *as_("dan"), "--json")

    unknown = cli("venues", "line", "place", *named)
    added = cli("venues", "line", "place", *named, "--by-hand")
    closed = cli("venues", "line", "close", *named)
    shown = cli("desk", "lines", "--json")

    assert unknown.code == 1
    assert added.json["place"] == "lp/phone, north/desk"
    assert closed.json["symbol"] == "ETH-USDT (closed), ETHUSDT"
    assert [(row["desk"], row["detail"]) for row in shown.json] == [
        ("otc", "nobody has looked yet")
    ]


def test_a_trade_is_entered_by_one_and_posted_once_another_approves(
    cli: Cli, as_: As, line: HedgeLine
) -> None:
    place = line.places[0]
    said = (
        *("desk", "fill", "enter", place.name, "--symbol", place.symbol, "--trade", "t-7"),
        *("--buy", "2 ETH", "--price", "3000 USDT", "--fee", "3 USDT"),
        *("--at", "2026-01-06T10:00:00Z", "--evidence", "ticket 7", *as_("dan"), "--json"),
    )

    rehearsed = cli(*said, "--dry-run")
    none = cli("desk", "fill", "list", "--json").json
    entered = cli(*said)
    own = cli("desk", "fill", "approve", entered.json["id"], *as_("dan"))
    approved = cli("desk", "fill", "approve", entered.json["id"], *as_("cleo"), "--json")
    position = cli("desk", "position", "--desk", "otc", "--json")

    assert (rehearsed.code, none) == (0, [])
    assert entered.json["state"] == "proposed"
    assert own.code == 1
    assert approved.json["state"] == "approved", approved.err
    assert any(row["asset"] == "ETH" and "2" in row["position"] for row in position.json)


def test_a_house_file_without_the_lines_account_says_so(
    cli: Cli, as_: As, line: HedgeLine, tmp_path: Path
) -> None:
    missing = tmp_path / "house.toml"

    answer = cli("desk", "hedge", "otc", line.asset, "--house", str(missing), *as_("dan"))

    assert answer.code != 0
    assert "house" in answer.err


CLOCK = SystemClock()
KEK = bytes(range(32))
HOUSE = """
chain = "evm"
book = {book}
signer_socket = "signer.sock"
confirmations = "confirmations.json"
payout_depth = 6
start_height = 1

[desk]

[[hedge]]
desk = "otc"
asset = "ETH"
book_age_ms = 600_000

[[venue]]
venue = "binance"
account = "desk"
connector = "binance"
kek = "venues.kek"
taker_ppm = 1_000
http_url = "{http}"
ws_url = "{ws}"

[[feed]]
venue = "binance"
connector = "binance"
symbols = ["ETHUSDT"]
channels = ["book"]
check_seconds = 0
http_url = "{http}"
ws_url = "{ws}"
"""


async def a_house_at(sim: SimulatorProcess, engine: AsyncEngine, folder: Path) -> Path:
    """A house file with the simulator's account, which is in the books, and its feed."""
    kek, path = folder / "venues.kek", folder / "house.toml"
    kek.touch(mode=0o600)
    kek.write_text(KEK.hex())
    path.write_text(HOUSE.format(book=BOOK, http=sim.url, ws=sim.ws_url))
    key = Credentials(api_key=sim.ready["api_key"], secret=Secret(sim.ready["secret"]))
    slot = Slot("binance", "desk", KeyPurpose.TRADING)
    wanted = HedgeLine(desk="otc", asset="ETH", places=(HedgePlace("binance", "desk", "ETHUSDT"),))

    async def work(conn: AsyncConnection) -> None:
        now = CLOCK.now()
        await enrol(conn, slot, key, KEK, random=os.urandom, by="olga", reason="a test", now=now)
        await open_line(conn, wanted, by="dan", reason="", now=now)

    await transact(engine, work)
    section = read_house(path).venues[0]
    async with open_desk(
        engine, section, book=BOOK, clock=CLOCK, chance=Random(1).random
    ) as account:
        await open_venue_account(engine, account.gateway, ["ETHUSDT"], book=BOOK, clock=CLOCK)
        grid = await account.gateway.instrument("ETHUSDT")
    await transact(engine, lambda conn: record_instrument(conn, grid, now=CLOCK.now()))
    return path


async def test_a_line_is_hedged_by_hand(
    cli: Cli, as_: As, house: AsyncEngine, tmp_path: Path
) -> None:
    sold = DealRequest(
        client_ref="d-1",
        desk="otc",
        party="acme",
        side=DealSide.DESK_SELLS,
        base=ETH,
        quote=USDT,
        base_units=ETH.parse("2"),
        price=Price.parse("3000", ETH, USDT),
        booked_by="dan",
        reason="agreed by phone",
    )
    with SimulatorThread(
        tmp_path / "venue", "--step-ms", "0", "--balance", "ETH=1000", "USDT=5000000"
    ) as sim:
        path = await a_house_at(sim, house, tmp_path)
        await transact(house, lambda conn: book_deal(conn, sold, book=BOOK, now=CLOCK.now()))
        words = ("desk", "hedge", "otc", "ETH", "--house", str(path), *as_("dan"), "--json")

        rehearsed = await asyncio.to_thread(cli, *words, "--dry-run")
        before = await asyncio.to_thread(cli, "desk", "orders", "--json")
        hedged = await asyncio.to_thread(cli, *words)

    assert (rehearsed.code, rehearsed.json["verdict"]) == (0, "order"), rehearsed.err
    assert before.json == []
    assert hedged.code == 0, hedged.err
    assert hedged.json["before"].startswith("-2")
    assert int(hedged.json["fills_posted"]) >= int(hedged.json["orders"]) >= 1
    assert abs(ETH.parse(hedged.json["after"].split()[0])) < 10**14
