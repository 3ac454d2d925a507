"""The desk's result and board at the command line: shown, kept, computed again."""

from __future__ import annotations

import io
import os
import pty
import select
import sys
import termios
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.cli.desk_board import keys_pressed
from app.cli.desk_pnl import PART_TEXTS
from kernel.clock import SystemClock
from kernel.db import transact
from ledger.posting import open_book
from matching.model import Side
from registry.changes import found
from registry.testing import ETH, USDT, demo_founding
from tests.app.cli.conftest import Cli
from tests.trading.conftest import BOOK
from tests.trading.pnl.stories import Story
from trading.model import Deal, DealSide
from trading.pnl.model import Component

MONDAY = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
DAY = ("--day", "2026-01-05")
Signed = Callable[[str], tuple[str, ...]]


@pytest.fixture
async def story(engine: AsyncEngine, environment: None) -> Story:
    """A desk that opened on a Monday."""

    async def work(conn: AsyncConnection) -> None:
        await found(conn, demo_founding(), now=MONDAY)
        await open_book(conn, BOOK, entity="causeway-desk", now=MONDAY)

    await transact(engine, work)
    return Story(engine, now=MONDAY)


async def a_hedged_sale(story: Story) -> Deal:
    """A sale of 2 ETH, of which one is hedged; at midnight the market is 4 above the mid."""
    one = ETH.parse("1")
    deal = await story.deal(
        "a", DealSide.DESK_SELLS, 2 * one, "3010", mid="3000", fee=USDT.parse("5")
    )
    await story.fill("x", Side.BUY, one, "3001", fee=USDT.parse("1"))
    story.now = MONDAY.replace(hour=23, minute=59)
    await story.market(ETH, "3004")
    return deal


async def test_a_day_is_shown_by_part_and_by_deal(cli: Cli, story: Story) -> None:
    deal = await a_hedged_sale(story)

    shown = cli("desk", "pnl", *DAY, "--json").json

    assert shown["parts"] == {
        "client_spread": "20 USDT",
        "hedge_slippage": "-1 USDT",
        "inventory": "-4 USDT",
        "deal_fee": "5 USDT",
        "venue_fee": "-1 USDT",
    }
    assert (shown["trading"], shown["net"], shown["currency"]) == ("15 USDT", "19 USDT", "USDT")
    (mine,) = shown["deals"]
    assert (mine["deal"], mine["reference"], mine["party"]) == (str(deal.id), "a", "acme")
    assert mine["net"] == shown["net"]
    assert shown["marks"]["end"] == {"ETH": "3,004 USDT/ETH"}
    assert shown["without_mid"] == []
    table = cli("desk", "pnl", *DAY)
    assert table.code == 0
    words = [
        line.split()[0] for line in table.out.partition("By deal")[0].splitlines() if line.strip()
    ]
    summed = ["client_spread", "hedge_slippage", "inventory", "trading", "deal_fee", "venue_fee"]
    assert words[-7:] == [*summed, "net"], "a total stands under what it is the sum of"
    for word in ("15 USDT", "19 USDT", str(deal.id)):
        assert word in table.out


def test_every_part_is_told_in_words() -> None:
    assert set(PART_TEXTS) == set(Component)


async def test_a_range_and_a_deal_are_shown(cli: Cli, story: Story) -> None:
    deal = await a_hedged_sale(story)

    ranged = cli("desk", "pnl", "--from", "2026-01-05", "--to", "2026-01-05", "--json").json
    mine = cli("desk", "pnl", *DAY, "--deal", str(deal.id), "--json").json
    nobody = cli("desk", "pnl", *DAY, "--deal", "0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80")

    assert ranged["net"] == mine["net"] == "19 USDT"
    assert {line["part"] for line in mine["lines"]} == set(ranged["parts"])
    assert mine["has_mid"] is True
    assert nobody.code == 1
    assert "no deal" in nobody.err


async def test_a_result_is_kept_once_and_computed_again(
    cli: Cli, as_: Signed, story: Story, owner_engine: AsyncEngine
) -> None:
    await a_hedged_sale(story)
    record = ("desk", "pnl-record", *DAY, *as_("dan"), "--json")

    rehearsed = cli(*record, "--dry-run").json
    assert cli("desk", "pnl-runs", "--json").json == []
    kept = cli(*record).json
    again = cli(*record).json

    assert (kept["id"], kept["run_by"], kept["net"]) == (rehearsed["id"], "dan", "19 USDT")
    assert again == kept
    assert cli("desk", "pnl-runs", "--json").json == [kept]
    verified = cli("desk", "pnl-verify", kept["id"], "--json")
    assert (verified.code, verified.json["verdict"]) == (0, "the same")
    change = text("UPDATE trading.pnl_line SET value = value + 1 WHERE number = 1")
    await transact(owner_engine, lambda conn: conn.execute(change))
    changed = cli("desk", "pnl-verify", kept["id"], "--json")
    assert (changed.code, changed.json["verdict"]) == (1, "different")
    assert len(changed.json["differences"]) == 1


async def test_a_result_that_is_only_shown_leaves_nothing_behind(cli: Cli, story: Story) -> None:
    await a_hedged_sale(story)

    cli("desk", "pnl", *DAY)

    assert cli("desk", "pnl-runs", "--json").json == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--day", "2026-01-05", "--from", "2026-01-05"), 2, "--day is one day"),
        (("--from", "2026-01-06", "--to", "2026-01-05"), 2, "is before"),
        (("--day", "soon"), 2, "is not a date"),
        (("--day", "2126-01-05"), 2, "has begun"),
        (("--desk", "quiet"), 2, "in which asset"),
        (("--in", "DOGE"), 1, "not registered"),
    ],
)
async def test_what_cannot_be_shown_says_why(
    cli: Cli, story: Story, words: tuple[str, ...], code: int, said: str
) -> None:
    await story.deal("a", DealSide.DESK_SELLS, ETH.parse("1"), "3010", mid="3000")

    answer = cli("desk", "pnl", *words)

    assert answer.code == code
    assert said in answer.err


async def test_a_day_without_a_mark_is_refused_and_names_the_asset(cli: Cli, story: Story) -> None:
    await story.deal("a", DealSide.DESK_SELLS, ETH.parse("1"), "3010", mid="3000")

    answer = cli("desk", "pnl", *DAY)

    assert answer.code == 1
    assert "no price of ETH/USDT" in answer.err


async def test_the_position_has_what_is_under_way_and_what_it_is_worth(
    cli: Cli, story: Story
) -> None:
    story.now = SystemClock().now() - timedelta(minutes=1)
    await story.deal("a", DealSide.DESK_SELLS, 2 * ETH.parse("1"), "3010", mid="3000")
    await story.fill("x", Side.BUY, ETH.parse("1"), "3001")

    rows = {row["asset"]: row for row in cli("desk", "position", "--json").json}

    assert (rows["ETH"]["position"], rows["ETH"]["side"]) == ("-1 ETH", "short")
    assert (rows["ETH"]["low"], rows["ETH"]["high"]) == ("-1 ETH", "-1 ETH")
    assert rows["ETH"]["need"] == "1 ETH"
    assert (rows["ETH"]["mark"], rows["ETH"]["value"]) == ("3,000 USDT/ETH", "-3,000 USDT")
    assert (rows["USDT"]["position"], rows["USDT"]["value"]) == ("3,019 USDT", "3,019 USDT")
    assert rows["USDT"]["need"] == ""
    table = cli("desk", "position").out
    assert "need" in table
    assert "verdict" not in table, "nobody has looked at the line, so there is no such column"


async def test_the_board_tells_the_day_and_the_switch_and_ends(cli: Cli, story: Story) -> None:
    # A minute ago, or at the day's first moment: the day's result is asked for.
    midnight = SystemClock().now().replace(hour=0, minute=0, second=0, microsecond=0)
    story.now = max(SystemClock().now() - timedelta(minutes=1), midnight)
    await story.deal("a", DealSide.DESK_SELLS, ETH.parse("1"), "3010", mid="3000")

    found = cli("desk", "board", "--json").json
    drawn = cli("desk", "board")
    live = cli("desk", "position", "--live", "--for", "1")

    assert (found["control"], found["currency"], found["day"]) == ("active", "USDT", "10 USDT")
    assert [row["asset"] for row in found["assets"]] == ["ETH", "USDT"]
    for answer in (drawn, live):
        assert answer.code == 0
        assert "day's result 10 USDT; active" in answer.out


async def test_a_board_without_a_price_says_so_instead_of_failing(cli: Cli, story: Story) -> None:
    await story.deal("a", DealSide.DESK_SELLS, ETH.parse("1"), "3010", mid="3000")

    found = cli("desk", "board", "--json").json

    assert found["day"] is None
    assert "no price of ETH/USDT" in found["day_why"]
    assert found["assets"][0]["value"] == ""


def test_keys_are_heard_at_once_and_the_terminal_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        before = termios.tcgetattr(theirs)
        with keys_pressed() as pressed:
            assert pressed() == ""
            os.write(ours, b"abq")
            select.select([theirs], [], [], 10)
            assert pressed() == "abq"
            assert pressed() == ""
        assert termios.tcgetattr(theirs) == before
    os.close(ours)


def test_where_no_terminal_is_no_key_is_pressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("q"))

    with keys_pressed() as pressed:
        assert pressed() == ""
