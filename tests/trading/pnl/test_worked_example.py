"""The worked example of docs/profit-and-loss.md, played on a real ledger."""

from __future__ import annotations

import re

from sqlalchemy.ext.asyncio import AsyncEngine

from matching.model import Side
from registry.testing import ETH, USDT
from tests.docs.machines import REPOSITORY
from tests.trading.conftest import BOOK, DESK, balances
from tests.trading.pnl.stories import BNB, Story, quotient, units_of
from trading.model import DealSide
from trading.pnl.model import Component, Run
from trading.pnl.runs import day_pnl_units

PAGE = (REPOSITORY / "docs" / "profit-and-loss.md").read_text()
NUMBER = r"(-?[\d,.]+ [A-Z]+)"
EVENT = re.compile(rf"(deal|fill)  (\w+)  (buys|sells) {NUMBER} for {NUMBER}(.*)")
TABLE_ROW = re.compile(
    r"^\| (ETH|BNB|USDT) \|.*\| ([-\d,.]+) \| [\d,.]+ \| ([-\d,.]+) \|$", re.MULTILINE
)


def block(kind: str) -> list[str]:
    found = re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1].splitlines()


def number(amount: str) -> str:
    return amount.partition(" ")[0]


async def told(house: AsyncEngine) -> Story:
    """Play the page's block of events."""
    story = Story(house)
    for line in block("pnl"):
        if line.startswith("mark"):
            _, code, price, _ = line.split()
            await story.market(units_of(f"0 {code}")[1], price)
            continue
        event = EVENT.fullmatch(line)
        assert event is not None, line
        await _play(story, *event.groups())
    return story


async def _play(
    story: Story, kind: str, name: str, way: str, base: str, paid: str, rest: str
) -> None:
    units, _ = units_of(base)
    price = quotient(number(paid), number(base))
    fee = re.search(rf"fee {NUMBER}", rest)
    charge, asset = units_of(fee[1]) if fee else (0, USDT)
    if kind == "deal":
        side = DealSide.DESK_SELLS if way == "sells" else DealSide.DESK_BUYS
        mid = re.search(r"mid ([\d,]+)", rest)
        await story.deal(name, side, units, price, mid=mid and mid[1], fee=charge)
        return
    if asset == BNB:
        value = re.search(rf"= {NUMBER}", rest)
        assert value is not None
        await story.market(BNB, quotient(number(value[1]), number(str(fee and fee[1]))))
    side_there = Side.BUY if way == "buys" else Side.SELL
    await story.fill(name, side_there, units, price, fee=charge, fee_asset=asset)


def described(story: Story, run: Run) -> list[str]:
    """Write the lines of a result as the page does, those of one cause as one."""
    totals: dict[tuple[Component, str], int] = {}
    for line in run.result.lines:
        parts = (line.cause.deal, line.cause.flow)
        names = " ".join(story.names[ident] for ident in parts if ident is not None)
        key = (line.cause.component, names)
        totals[key] = totals.get(key, 0) + line.value
    return sorted(f"{part} {who} {USDT.format(value)}" for (part, who), value in totals.items())


async def test_the_example_of_the_page_comes_to_what_the_page_says(house: AsyncEngine) -> None:
    story = await told(house)

    run = await story.result()

    said = [re.sub(r" {2,}", "  ", line).split("  ")[:3] for line in block("result")]
    assert described(story, run) == sorted(" ".join(words) for words in said)
    assert USDT.format(run.result.trading, code=False) == "81.852"
    assert USDT.format(run.result.net, code=False) == "96.84"
    assert "81.852" in PAGE
    assert "**96.84**" in PAGE


async def test_the_account_of_the_example_holds_what_the_page_says(house: AsyncEngine) -> None:
    await told(house)

    there = await balances(house)

    rows = {code: (held, value) for code, held, value in TABLE_ROW.findall(PAGE)}
    assert set(rows) == {"ETH", "BNB", "USDT"}
    for code, asset in (("ETH", ETH), ("USDT", USDT)):
        assert there[f"conversion:{DESK} {code}"] == rows[code][0]
        assert asset.code == code
    assert int(there[f"conversion:{DESK} BNB"]) == BNB.parse(rows["BNB"][0])


async def test_the_day_of_the_example_is_known_without_any_allocation(house: AsyncEngine) -> None:
    story = await told(house)

    async with house.connect() as conn:
        units = await day_pnl_units(conn, BOOK, DESK, currency=USDT, now=story.tick())

    assert units == USDT.parse("96.84")
