"""A desk's first day at a venue, told on the command line: a real database, a real simulator process."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from matching.model import TimeInForce
from tests.app.cli.conftest import Answer, Cli
from tests.app.cli.venue_day import Day, private
from venues.simulator.testing import SimulatorProcess

As = Callable[[str], tuple[str, ...]]
PLACE = "binance/desk"
HELD = ("--balance", "ETH=1000", "USDT=5000000")
"""Nothing but what is registered."""


@pytest.fixture
def venue(tmp_path: Path) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path / "venue", "--step-ms", "0", *HELD) as process:
        yield process


@pytest.fixture
def day(
    house: AsyncEngine, tmp_path: Path, venue: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> Day:
    monkeypatch.chdir(tmp_path)
    found = Day(house, tmp_path, venue)
    found.write()
    return found


@pytest.mark.timeout(240)
async def test_a_day_of_a_desk_at_a_venue(cli: Cli, day: Day, as_: As) -> None:
    said: list[Answer] = []

    async def ask(*words: str, code: int = 0, by: str = "") -> Answer:
        who = as_(by) if by else ()
        answer = await asyncio.to_thread(cli, "venues", *words, *who)
        said.append(answer)
        assert answer.code == code, f"{words}: {answer.out}{answer.err}"
        assert "Traceback" not in answer.err
        return answer

    at = ("--house", "house.toml", "--json")
    enrol = ("key", "enrol", PLACE, "--file", "binance.json", "--kek", "venues.kek")

    # An account that nobody knows is refused, not shown as empty or halted.
    for words in (("orders", PLACE), ("mode", PLACE), ("gaps", PLACE), ("breaks", PLACE)):
        assert "venues key enrol" in (await ask(*words, code=1)).err
    assert "VENUE/ACCOUNT" in (await ask("orders", "binance", code=2)).err
    assert "house file says nothing" in (await ask("balances", "x/y", *at, code=2)).err

    # Keys.
    await ask("key", "new-kek", "venues.kek")
    await ask("key", "new-kek", "venues.kek", code=1)
    assert "key enrol" in (await ask("balances", PLACE, *at, code=1)).err
    assert (await ask(*enrol, "--reason", "first", "--json", by="dan")).json["version"] == "1"
    withdrawal = ("--purpose", "withdrawal", "--reason", "the same key")
    assert "Make two keys" in (await ask(*enrol, *withdrawal, code=1, by="dan")).err
    assert (
        "is not admin or operations" in (await ask(*enrol, "--reason", "x", code=1, by="cleo")).err
    )
    private(day.folder / "wrong.kek", secrets.token_hex(32))
    text = (day.folder / "house.toml").read_text()
    (day.folder / "wrong.toml").write_text(text.replace("venues.kek", "wrong.kek"))
    wrong = await ask("balances", PLACE, "--house", "wrong.toml", code=2)
    assert (wrong.out, PLACE in wrong.err) == ("", True)

    # The account, and the line whose trades are posted.
    opened = await ask("open", PLACE, *at, by="dan")
    assert {row["asset"] for row in opened.json} == {"ETH", "USDT"}
    again = await ask("open", PLACE, "--house", "house.toml", by="dan")
    assert "is open already" in " ".join(again.out.split())
    stray = {"account": "desk", "asset": "BNB", "free": "0.5"}
    day.venue.control("POST", "balance", stray)
    told = " ".join((await ask("balances", PLACE, *at)).err.split())
    assert "also holds 0.5 BNB, an asset that is not registered" in told
    day.venue.control("POST", "balance", {**stray, "free": "0"})
    line = ("line", "open", "otc", "ETH", PLACE, "--symbol", "ETHUSDT", "--reason", "opened")
    await ask(*line, by="dan")
    assert [row["place"] for row in (await ask("line", "list", "--json")).json] == [PLACE]

    # Orders.
    filled = await day.order("one", "3500", TimeInForce.IOC)
    resting = await day.order("two", "2000", TimeInForce.GTC)
    await day.turn()
    orders = (await ask("orders", PLACE, "--json")).json
    assert [(row["state"], row["executed"]) for row in orders] == [
        ("filled", "1 ETH"),
        ("acked", "0 ETH"),
    ]
    story = (await ask("explain", str(filled.id), "--json")).json
    assert (story["place"], len(story["trades"])) == (PLACE, 1)
    fills = await ask("fills", PLACE, "--symbol", "ETHUSDT", "--json")
    assert sum(row["amount"] == "1 ETH" for row in fills.json) == 1
    assert (await ask("cancel", str(resting.id), *at)).json["state"] == "cancelled"
    decide = ("decide", str(filled.id), "--verdict", "not-placed", "--evidence", "none")
    assert "is filled" in (await ask(*decide, code=1, by="dan")).err

    # Clean, a break, its explanation, and two people who close it.
    assert (await ask("reconcile", PLACE, *at)).json["outcome"] == "clean"
    day.venue.control("POST", "balance", {"account": "desk", "asset": "USDT", "free": "4000000"})
    broken = await ask("reconcile", PLACE, *at, code=1)
    (found,) = broken.json["breaks"]
    (item,) = (await ask("breaks", PLACE, "--json")).json
    assert (item["id"], item["state"], item["subject"]) == (
        found,
        "open",
        "balance:USDT",
    )
    await ask("explain-break", found, "--reason", "we ask the venue", by="cleo")
    assert "propos" in (await ask("dismiss-break", found, code=1, by="ada")).err
    await ask("propose-dismissal", found, "--reason", "ticket 4711", by="dan")
    await ask("dismiss-break", found, code=1, by="dan")
    closed = await ask("dismiss-break", found, "--json", by="ada")
    assert closed.json["state"] == "dismissed"
    assert (await ask("breaks", PLACE, "--json")).json == []

    # The switch, and the rest of the keys' life.
    assert (
        "there is no account"
        in (await ask("halt", "binance/dsk", "--reason", "odd", code=1, by="dan")).err
    )
    await ask("halt", PLACE, "--reason", "odd prices", by="dan")
    assert (await ask("mode", PLACE, "--json")).json["mode"] == "halted"
    assert (await ask("release", PLACE, "--reason", "seen", "--json", by="dan")).json["mode"] == (
        "active"
    )
    assert (await ask("gaps", PLACE, "--json")).json == []
    private(day.folder / "next.kek", secrets.token_hex(32))
    rewrap = ("key", "rewrap", "--new-kek", "next.kek", "--kek")
    await ask(*rewrap, "wrong.kek", code=2, by="dan")
    await ask(*rewrap, "venues.kek", by="dan")
    await ask("balances", PLACE, *at, code=2)
    await ask("key", "retire", PLACE, "--reason", "over", by="dan")
    assert (await ask("key", "list", "--json")).json == []

    # A venue that is gone, told once and on standard error alone.
    (day.folder / "house.toml").write_text(text.replace("venues.kek", "next.kek"))
    next_key = (*enrol[:-1], "next.kek", "--reason", "a new key")
    await ask(*next_key, by="dan")
    day.venue.stop()
    gone = await ask("balances", PLACE, *at, code=3)
    assert (gone.out, gone.err.count("\n"), "Try again" in gone.err) == ("", 1, True)

    whole = "".join(answer.out + answer.err for answer in said)
    assert [secret for secret in day.secrets if secret in whole] == []


async def test_a_trading_key_that_can_withdraw_is_refused(
    cli: Cli, house: AsyncEngine, tmp_path: Path, as_: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("--step-ms", "0", "--trading-key-can-withdraw")
    with SimulatorProcess(tmp_path / "venue", *arguments) as venue:
        Day(house, tmp_path, venue).write()
        private(tmp_path / "venues.kek", secrets.token_hex(32))
        words = ("venues", "key", "enrol", PLACE, "--file", "binance.json", "--kek", "venues.kek")
        enrolled = await asyncio.to_thread(cli, *words, "--reason", "first", *as_("dan"))
        opening = ("venues", "open", PLACE, "--house", "house.toml", *as_("dan"))
        refused = await asyncio.to_thread(cli, *opening)

    assert enrolled.code == 0
    assert (refused.code, refused.out) == (1, "")
    assert "can withdraw" in refused.err
