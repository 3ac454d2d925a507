"""A client asks what ten cost, through the command line, with the desk's process running or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Database
from kernel.clock import SystemClock
from kernel.db import APP_ROLE, create_engine, transact
from kernel.money import Asset
from marketdata.consolidated import VenueBook
from tests.app.cli.conftest import Cli
from tests.trading.quotes.market import POLICY, shown
from trading.quotes.maker import serve_quotes
from trading.terms.model import LastLook
from trading.terms.testing import give_terms

As = Callable[[str], tuple[str, ...]]
ASK = ("desk", "quote", "acme", "--against", "USDT", "--json", "--wait", "10")


class Fresh:
    """Books that arrived just now."""

    def __init__(self, *books: VenueBook) -> None:
        self._books = books

    def books(self, base: Asset, quote: Asset) -> list[VenueBook]:
        """Return the books of ETH/USDT."""
        now = SystemClock().now()
        return [
            replace(item, view=item.view and replace(item.view, received_at=now))
            for item in self._books
            if (item.instrument.base.code, item.instrument.quote.code) == (base.code, quote.code)
        ]


@contextmanager
def working(database: Database, source: Fresh) -> Iterator[None]:
    """The desk's process, as far as quotes are concerned, in a thread of its own."""
    stop = Event()

    async def serve() -> None:
        engine = create_engine(database.app_url, role=APP_ROLE)
        try:
            while not stop.is_set():
                await serve_quotes(engine, source, SystemClock(), POLICY, 1)
                await asyncio.sleep(0.01)
        finally:
            await engine.dispose()

    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def patient(engine: AsyncEngine, **terms: Any) -> None:
    """Give acme terms whose quotes outlive a test on a busy machine."""
    now = SystemClock().now()
    await transact(engine, lambda c: give_terms(c, "acme", now=now, quote_seconds=600, **terms))


async def test_a_quote_is_asked_for_taken_and_asked_about(
    cli: Cli, as_: As, database: Database, house: AsyncEngine
) -> None:
    await patient(house)
    dan = as_("dan")
    with working(database, Fresh(shown())):
        made = cli(*ASK, "--two-way", "10 ETH", "--ref", "q-1", *dan)
        again = cli(*ASK, "--two-way", "10 ETH", "--ref", "q-1", *dan)
        one_way = cli(*ASK, "--sell", "1 ETH", "--ref", "q-2", *dan)
        worth = cli(
            *("desk", "quote", "acme", "--sell", "3000 USDT", "--of", "ETH", "--ref", "q-3"),
            *("--json", *dan),
        )
        too_much = cli(*ASK, "--buy", "1000 ETH", "--ref", "q-4", *dan)

    assert made.code == 0, made.err
    assert (made.json["state"], made.json["pair"]) == ("quoted", "ETH/USDT")
    assert (made.json["bid"], made.json["ask"]) == ("2,995.5 USDT/ETH", "3,004.51 USDT/ETH")
    assert made.json["desk_sells"] == "10 ETH for 30,045.1 USDT"
    assert again.json["id"] == made.json["id"]
    assert (one_way.json["bid"], one_way.json["desk_sells"]) == ("", "1 ETH for 3,004.01 USDT")
    assert worth.json["size"] == "3,000 USDT"
    assert " ETH for " in worth.json["desk_sells"]
    assert (too_much.code, too_much.json["why_not"]) == (1, "too_thin")

    take = ("desk", "accept", made.json["id"], "--side", "sell", "--json", *dan)
    rehearsed = cli(*take, "--ref", "a-0", "--dry-run")
    assert (rehearsed.json["outcome"], rehearsed.json["dry_run"]) == ("booked", True)
    done = cli(*take, "--ref", "a-1")
    assert (done.code, done.json["outcome"]) == (0, "booked")
    assert done.json["exchanged"] == "10 ETH for 30,045.1 USDT"
    assert cli(*take, "--ref", "a-1").json == done.json
    late = cli(*take, "--ref", "a-2")
    assert (late.code, late.json["outcome"]) == (1, "taken")
    assert cli("desk", "outcome", "a-1", "--json").json == done.json
    assert cli("desk", "outcome", "a-2", "--json").json["outcome"] == "taken"

    (deal,) = cli("desk", "deals", "--json").json
    assert (deal["id"], deal["origin"]) == (done.json["deal"], "quote")
    listed = cli("desk", "quotes", "--party", "acme", "--json").json
    assert [row["state"] for row in listed] == ["refused", "quoted", "quoted", "booked"]
    assert len(cli("desk", "quotes", "--state", "booked", "--json").json) == 1
    back = cli("desk", "withdraw", one_way.json["id"], "--reason", "news", "--json", *dan)
    assert back.json["state"] == "withdrawn"
    story = cli("desk", "explain", made.json["id"]).out
    assert "QuoteBooked" in story


@pytest.mark.usefixtures("house")
def test_without_the_desk_s_process_a_quote_ends_with_3_and_says_what_to_start(
    cli: Cli, as_: As
) -> None:
    asked = ("desk", "quote", "acme", "--sell", "1 ETH", "--against", "USDT", "--ref", "q-1")
    answer = cli(*asked, "--wait", "0", *as_("dan"))

    assert answer.code == 3
    assert "causeway up" in answer.err
    assert len(cli("desk", "quotes", "--state", "requested", "--json").json) == 1


async def test_a_last_look_is_waited_for_and_its_declines_are_counted(
    cli: Cli, as_: As, database: Database, house: AsyncEngine
) -> None:
    await patient(house, last_look=LastLook(window_ms=10_000, tolerance_ppm=1_000))
    dan = as_("dan")
    with working(database, Fresh(shown())):
        ids = [
            cli(*ASK, "--sell", "1 ETH", "--ref", ref, *dan).json["id"]
            for ref in ("q-1", "q-2", "q-3")
        ]
    assert cli("desk", "quotes", "--json").json[0]["deal"] == ""
    take = ("desk", "accept", "--side", "sell", "--json", *dan)
    unseen = cli(*take, ids[2], "--ref", "a-0", "--wait", "0")
    assert (unseen.code, unseen.out) == (3, "")
    assert cli("desk", "outcome", "a-0", "--json").json["outcome"] == "accepted"

    with working(database, Fresh(shown())):
        done = cli(*take, ids[0], "--ref", "a-1")
    up = Fresh(shown(bids=(("3099", "9"),), asks=(("3101", "9"),)))
    with working(database, up):
        declined = cli(*take, ids[1], "--ref", "a-2")

    assert (done.code, done.json["outcome"]) == (0, "booked")
    assert (declined.code, declined.json["outcome"]) == (1, "declined")
    (rate,) = cli("desk", "quotes", "--declines", "--json").json
    # The one that nobody looked at may have been declined meanwhile, too.
    assert (rate["party"], rate["declined"]) in {("acme", "1"), ("acme", "2")}
    assert "1 moved_against_desk" in rate["reasons"]


@pytest.mark.parametrize(
    "words",
    [
        ("quote", "acme", "--against", "USDT"),
        ("quote", "acme", "--sell", "1 ETH", "--buy", "1 ETH", "--against", "USDT"),
        ("quote", "acme", "--sell", "1 ETH"),
        ("quote", "acme", "--sell", "1 ETH", "--against", "USDT", "--of", "BTC"),
        ("quote", "acme", "--sell", "1", "--against", "USDT"),
        ("accept", "0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80", "--side", "desk_sells"),
    ],
)
def test_what_cannot_be_understood_is_2_before_anything_is_asked(
    words: tuple[str, ...], cli: Cli, as_: As
) -> None:
    answer = cli("desk", *words, "--ref", "r", *as_("dan"))

    assert answer.code == 2
    assert answer.err.startswith("error: ")


@pytest.mark.usefixtures("house")
def test_only_dealers_and_the_treasury_ask_and_take(cli: Cli, as_: As) -> None:
    asked = ("desk", "quote", "acme", "--sell", "1 ETH", "--against", "USDT", "--ref", "q-1")

    assert cli(*asked, *as_("cleo")).code == 1
    assert cli(*asked, *as_("mallory")).code == 1
    assert cli("desk", "quotes", "--json").json == []
