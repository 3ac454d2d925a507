"""Prices on the command line: rates, an index and its frames, manual prices by two, a locked month."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.clock import SystemClock, to_unix_ns
from kernel.money import Price
from marketdata.price_snapshots import month_end
from marketdata.raw import RawItem, RawKind
from marketdata.recording.derive import Deriver
from marketdata.recording.manifest import list_files
from marketdata.recording.testing import TinyMachine, trade_frame
from marketdata.testing import ETH, USDT, eth_usdt
from tests.app.cli.conftest import Cli
from tests.app.cli.price_desk import MINUTE, USD, As, Desk, last_month, opened_desk, rates
from tests.app.cli.venue_day import HOUSE
from tests.marketdata.ecb_files import as_csv, zipped
from venues.simulator.testing import SimulatorProcess


@pytest.fixture
async def desk(engine: AsyncEngine, environment: None, cli: Cli, tmp_path: Path, as_: As) -> Desk:
    return await opened_desk(engine, cli, tmp_path / "recordings", as_)


@pytest.mark.timeout(120)
async def test_an_index_is_explained_by_its_venues_and_their_recorded_frames(desk: Desk) -> None:
    now = SystemClock().now()
    await desk.recorded(now)
    index = await desk.index(2_000, 2_001, 2_300, at=now)

    shown = (await desk.ask("index", "ETH", "USDT")).json
    story = (await desk.ask("explain", str(index.id))).json

    assert (shown["id"], shown["price"]) == (str(index.id), "2,000.5 USDT/ETH")
    assert [item["gate"] for item in shown["venues"]] == ["used", "used", "outlier"]
    assert story["computed_again"] == "the same"
    assert len(story["constituents"]) == 3
    frames = {row["venue"]: row for row in story["recorded_frames"]}
    assert frames["sim"]["file"].startswith("local:raw/")
    assert len(frames["sim"]["sha256"]) == 64
    assert frames["other"]["file"] == "not recorded, or removed"
    (row,) = (await desk.ask("list", "ETH", "USDT", "--kind", "index")).json
    assert row["id"] == str(index.id)
    assert "no index of" in (await desk.ask("index", "ETH", "USD", code=1)).err
    await desk.index(2_500, 2_501, at=now - 3 * MINUTE, quote=USD)
    to_settle = ("index", "ETH", "USD", "--for", "settlement")
    assert "older than 60 s" in (await desk.ask(*to_settle, code=1)).err


@pytest.mark.timeout(120)
async def test_a_price_whose_constituents_say_otherwise_ends_with_1(
    desk: Desk, owner_engine: AsyncEngine
) -> None:
    index = await desk.index(2_000, 2_001, at=SystemClock().now())
    async with owner_engine.begin() as conn:
        await conn.execute(text("UPDATE marketdata.price SET denominator = denominator + 1"))

    answer = await desk.ask("explain", str(index.id), code=1)

    assert answer.json["computed_again"] == "ANOTHER: 2,000.5 USDT/ETH, good"


@pytest.mark.timeout(120)
async def test_rates_of_a_file_price_what_has_no_market(desk: Desk, tmp_path: Path) -> None:
    now = SystemClock().now()
    days = rates(now)
    file = tmp_path / "eurofxref-hist.zip"
    file.write_bytes(zipped(as_csv(days)))

    first = (await desk.ask("fx-import", str(file), by="cleo")).json
    again = (await desk.ask("fx-import", str(file), by="cleo")).json
    listed = (await desk.ask("fx-rates", "USD")).json
    market = await desk.index(2_500, 2_500, at=now, quote=USD)
    cross = (await desk.ask("resolve", "ETH", "EUR", "--for", "valuation")).json
    story = (await desk.ask("explain", cross["id"])).json

    assert (first["is_new"], first["added"], first["missing"]) == ("true", str(len(days)), "")
    assert (again["is_new"], again["id"]) == ("false", first["id"])
    newest = {"day": max(days), "rate": "1.2500", "version": "1", "import": first["id"]}
    assert listed[0] == newest
    assert (cross["price"], cross["from"]) == ("2,000 EUR/ETH", "cross")
    assert "index is missing" in cross["passed_over"]
    assert str(market.id) in story["constituents"][0]["content"]
    assert {row["venue"] for row in story["recorded_frames"]} == {"sim", "other"}
    for wrong in ("dollars", "usd", "EUR"):
        assert "is not a currency" in (await desk.ask("fx-rates", wrong, code=2)).err
    spaced = (now - MINUTE).isoformat(sep=" ")
    (listed,) = (await desk.ask("list", "--since", spaced, "--kind", "cross")).json
    assert listed["id"] == cross["id"]
    path = tmp_path / "house.toml"
    path.write_text(HOUSE + PRICE)
    by_file = ("resolve", "ETH", "EUR", "--house", str(path))
    said = (await desk.ask(*by_file, code=1)).err
    assert "index is missing" in said
    assert "cross" not in said
    locking = ("snapshot", "2026-01", "--pair", "ETH/EUR", "--house", str(path))
    assert "(index is missing or too old)" in (await desk.ask(*locking, by="cleo", code=1)).err
    file.write_bytes(b"<html/>")
    assert "envelope" in (await desk.ask("fx-import", str(file), by="cleo", code=2)).err
    assert "not admin" not in (await desk.ask("fx-import", str(file), by="ben", code=1)).err
    assert "manual is not in force" in (await desk.ask("resolve", "EUR", "USDT", code=1)).err


@pytest.mark.timeout(120)
async def test_a_manual_price_takes_two_people_and_can_be_ended_by_one(desk: Desk) -> None:
    soon = (SystemClock().now() + timedelta(days=1)).isoformat()
    words = ("override", "ETH/USDT", "2500.25", "--expires", soon, "--reason", "venues are down")

    item = (await desk.ask(*words, "--evidence", "quote 4711", by="dan")).json
    refused = await desk.ask("approve", item["id"], by="dan", code=1)
    waiting = (await desk.ask("overrides")).json
    done = (await desk.ask("approve", item["id"], by="cleo")).json
    used = (await desk.ask("resolve", "ETH", "USDT", "--for", "settlement")).json
    story = (await desk.ask("explain", used["id"])).json
    ended = (await desk.ask("revoke", item["id"], "--reason", "they are back", by="ada")).json

    assert "dan is not" in refused.err
    assert [row["state"] for row in waiting] == ["proposed"]
    assert (done["state"], done["decided_by"]) == ("approved", "cleo")
    assert (used["id"], used["from"], used["quality"]) == (done["price_id"], "override", "manual")
    assert json.loads(story["constituents"][0]["content"])["evidence"] == "quote 4711"
    assert ended["state"] == "revoked"
    assert (await desk.ask("overrides")).json == []
    assert len((await desk.ask("overrides", "--all")).json) == 1
    await desk.ask("resolve", "ETH", "USDT", code=1)
    other = (await desk.ask(*words, by="dan")).json
    rejected = await desk.ask("reject", other["id"], "--reason", "no need", by="cleo")
    assert rejected.json["state"] == "rejected"
    assert "is rejected" in (await desk.ask("approve", other["id"], by="cleo", code=1)).err
    for wrong in (("override", "ETHUSDT", *words[2:]), (*words[:2], "x", *words[3:])):
        await desk.ask(*wrong, by="dan", code=2)


@pytest.mark.timeout(120)
async def test_a_month_is_locked_once_and_keeps_its_recordings(
    desk: Desk, owner_engine: AsyncEngine
) -> None:
    month = last_month(SystemClock().now())
    name, end = f"{month:%Y-%m}", month_end(month)
    await desk.recorded(end - MINUTE)
    await desk.index(2_000, 2_001, at=end - MINUTE)
    lock = ("snapshot", name, "--pair", "ETH/USDT")

    lacking = await desk.ask(*lock, "--pair", "EUR/USD", by="cleo", code=1)
    tried = (await desk.ask(*lock, "--dry-run", by="cleo")).json
    none = (await desk.ask("snapshots")).json
    locked = (await desk.ask(*lock, by="cleo")).json
    twice = await desk.ask(*lock, by="ada", code=1)
    await desk.index(2_100, 2_101, at=end - timedelta(seconds=1))
    after = (await desk.ask("snapshots", name)).json

    assert "no price of EUR/USD" in lacking.err
    assert (tried["dry_run"], none) == (True, [])
    assert (locked["hash"], locked["files_held"]) == (tried["hash"], "1")
    assert "locked by cleo" in twice.err
    assert after["lines"] == locked["lines"]
    assert after["lines"][0]["price"] == "2,000.5 USDT/ETH"
    assert [row["month"] for row in (await desk.ask("snapshots")).json] == [name]
    async with desk.engine.connect() as conn:
        (held,) = await list_files(conn, held=True)
    assert held.held_for == f"price snapshot {name}"
    assert (await desk.ask("check-snapshot", name)).json["faults"] == ""
    async with owner_engine.begin() as conn:
        await conn.execute(text("UPDATE marketdata.price_snapshot SET content_hash = 'x'"))
    assert "have hash" in (await desk.ask("check-snapshot", name, code=1)).json["faults"]
    await desk.ask("snapshots", "October", code=2)
    await desk.ask("snapshots", "2020-01", code=1)


@pytest.mark.timeout(120)
async def test_benchmarks_are_computed_from_recorded_trades(desk: Desk) -> None:
    end = datetime(2026, 10, 30, 16, 0, tzinfo=UTC)
    start_ns = to_unix_ns(end - timedelta(hours=1))
    machine = TinyMachine("sim")
    with Deriver(desk.folder, "sim", "0001", [eth_usdt()]) as deriver:
        for number in range(12):
            ticks = 200_000 + 1_200 * (number == 11)
            frame = trade_frame(number, ticks=ticks, units=10**18 * (1 + number))
            at_ns = start_ns + number * 300 * 10**9
            events: Any = machine.take(RawItem(RawKind.FRAME, at_ns, 1, "", frame))
            deriver.write(events)
    window = ("--end", end.isoformat(), "--venue", "sim", "--recordings", str(desk.folder))

    rate = (await desk.ask("benchmark", "reference-rate", "ETH/USDT", *window)).json
    tried = (await desk.ask("benchmark", "vwap", "ETH/USDT", *window, "--dry-run")).json
    twap = (await desk.ask("benchmark", "twap", "ETH/USDT", *window)).json
    story = (await desk.ask("explain", rate["id"])).json

    assert (rate["price"], rate["quality"], rate["trades"]) == ("2,001 USDT/ETH", "good", "12")
    volume_weighted = Price.parse("2000", ETH, USDT).format()
    assert tried["price"] != volume_weighted
    assert tried["price"].startswith("2,001.84615384")
    assert twap["price"] == "2,001 USDT/ETH"
    assert story["computed_again"] == "the same"
    kinds = {row["kind"] for row in (await desk.ask("list")).json}
    assert kinds == {"reference-rate", "twap"}
    short = ("--minutes", "5")
    assert (
        "60 minutes"
        in (await desk.ask("benchmark", "reference-rate", "ETH/USDT", *window, *short, code=2)).err
    )
    soon = ("--end", (SystemClock().now() + MINUTE).isoformat(), *window[2:])
    assert "not over" in (await desk.ask("benchmark", "vwap", "ETH/USDT", *soon, code=2)).err
    a_day = ("--end", "2026-10-30", *window[2:])
    assert "is a day" in (await desk.ask("benchmark", "vwap", "ETH/USDT", *a_day, code=2)).err
    empty = ("--end", "2026-10-29T16:00:00Z", *window[2:])
    assert "no trade" in (await desk.ask("benchmark", "vwap", "ETH/USDT", *empty, code=1)).err
    assert "no benchmark" in (await desk.ask("benchmark", "index", "ETH/USDT", *window, code=2)).err


PRICE = """
[[price]]
base = "ETH"
quote = "EUR"
rungs = ["index"]
"""
HOUSE_OF_INDEX = """
[[feed]]
venue = "{name}"
connector = "binance"
symbols = ["ETHUSDT"]
channels = ["book"]
http_url = "{http}"
ws_url = "{ws}"
"""
INDEX = """
[[index]]
base = "ETH"
quote = "USDT"
venues = ["one", "two"]
venues_min = 2
age_ms = 5000
deviation_ppm = 500000
spread_ppm = 500000
"""


@pytest.mark.timeout(180)
async def test_an_index_is_published_from_the_venues_books_of_this_moment(
    desk: Desk, tmp_path: Path
) -> None:
    with (
        SimulatorProcess(tmp_path / "one", "--step-ms", "50") as one,
        SimulatorProcess(tmp_path / "two", "--step-ms", "50") as two,
    ):
        path = tmp_path / "house.toml"
        feeds = [
            HOUSE_OF_INDEX.format(name=name, http=venue.url, ws=venue.ws_url)
            for name, venue in (("one", one), ("two", two))
        ]
        path.write_text(HOUSE + "".join(feeds) + INDEX)
        for name in ("one", "two"):
            refresh = ("instruments", name, "--refresh", "--house", str(path))
            asked = await asyncio.to_thread(desk.cli, "marketdata", *refresh)
            assert asked.code == 0, asked.err
        here = ("index", "ETH", "USDT", "--house", str(path))

        good = (await desk.ask(*here, "--for", "settlement")).json
        two.stop()
        poor = (await desk.ask(*here, "--wait", "1")).json
        refused = await desk.ask(*here, "--wait", "1", "--for", "settlement", code=1)

    assert [item["gate"] for item in good["venues"]] == ["used", "used"]
    assert (good["quality"], poor["quality"]) == ("good", "degraded")
    assert [item["gate"] for item in poor["venues"]] == ["used", "missing"]
    assert "1 of 2 venues" in refused.err
    assert (await desk.ask("explain", good["id"])).json["computed_again"] == "the same"
    assert "no [[index]]" in (await desk.ask(*here[:2], "EUR", *here[3:], code=2)).err
