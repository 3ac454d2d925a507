"""Any story of a desk ties: what the result says is what the ledger has, to the unit.

The stories are random and the ledger is real. What is compared with is read from elsewhere: balances
of the trial balance, and the deals' own rows.
"""

from __future__ import annotations

import os
import random
from datetime import datetime
from fractions import Fraction
from math import floor

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.money import Rounding
from ledger.queries import trial_balance
from marketdata.prices import get_price
from matching.model import Side
from registry.testing import ETH, USDT
from tests.trading.conftest import BOOK, DESK
from tests.trading.pnl.stories import BNB, Story
from trading.deals import list_deals
from trading.model import TREASURY, Deal, DealPurpose, DealSide, DealState
from trading.pnl.model import Component, Marks, Run
from trading.pnl.runs import day_pnl_units

STORIES = {"dev": 2, "ci": 3, "soak": 100}[os.environ.get("CAUSEWAY_HYPOTHESIS", "dev")]
STEPS = 14
LOT = 10**14
SELLS, BUYS = DealSide.DESK_SELLS, DealSide.DESK_BUYS


async def step(story: Story, chance: random.Random, number: int) -> None:
    """Let one thing happen."""
    standing = await deals(story, DealState.BOOKED)
    clients = [deal for deal in standing if deal.request.purpose is DealPurpose.CLIENT]
    match chance.choice(("deal", "deal", "deal", "fill", "fill", "transfer", "amend", "cancel")):
        case "amend" if clients:
            await story.amend(chance.choice(clients), f"n{number}", units(chance), price(chance))
        case "cancel" if standing:
            await story.cancel(chance.choice(standing))
        case "transfer":
            side = chance.choice((SELLS, BUYS))
            purpose = DealPurpose.TRANSFER
            name = f"t{number}"
            await story.deal(name, side, units(chance), price(chance), mid=None, purpose=purpose)
        case "fill":
            asset, fee = chance.choice(
                ((USDT, small(chance)), (ETH, small(chance) * LOT // 10**6), (BNB, small(chance)))
            )
            side_there = chance.choice((Side.BUY, Side.SELL))
            await story.fill(
                f"f{number}", side_there, units(chance), price(chance), fee=fee, fee_asset=asset
            )
        case _:
            mid = chance.choice((None, price(chance), price(chance)))
            fee = chance.choice((0, abs(small(chance))))
            side = chance.choice((SELLS, BUYS))
            await story.deal(f"d{number}", side, units(chance), price(chance), mid=mid, fee=fee)


def units(chance: random.Random) -> int:
    return chance.randrange(1, 30_000) * LOT + chance.randrange(LOT)


def price(chance: random.Random) -> str:
    """A price with odd digits, so that everything rounds."""
    return f"{chance.randrange(2_900, 3_100)}.{chance.randrange(1, 999_999):06d}"


def small(chance: random.Random) -> int:
    return chance.randrange(-3_000_000, 9_000_000)


async def deals(story: Story, *states: DealState) -> list[Deal]:
    async with story.engine.connect() as conn:
        return await list_deals(conn, BOOK, states=states)


async def account(story: Story, path: str, at: datetime | None = None) -> dict[str, int]:
    async with story.engine.connect() as conn:
        rows = await trial_balance(conn, BOOK, at_time=at)
    return {row.asset: row.balance for row in rows if row.path == path and row.balance}


def valued(balances: dict[str, int], marks: Marks) -> Fraction:
    return sum((count * marks.of(asset) for asset, count in balances.items()), start=Fraction(0))


async def spread(story: Story) -> int:
    """What the deals that stand are better than their mids by, from their own rows."""
    total = 0
    for deal in await deals(story, DealState.BOOKED):
        if deal.mid_price_id is None or deal.request.purpose is not DealPurpose.CLIENT:
            continue
        async with story.engine.connect() as conn:
            mid = (await get_price(conn, deal.mid_price_id)).record.price
        better = deal.quote_units - mid.to_quote(deal.request.base_units, Rounding.DOWN)
        total += better if deal.request.side is SELLS else -better
    return total


async def ties(story: Story, run: Run, desk: str) -> None:
    """What the whole result says of a desk is what the ledger has."""
    there = await account(story, f"conversion:{desk}")
    assert run.result.account_value == valued(there, run.end)
    assert run.result.trading == floor(valued(there, run.end))
    per_asset: dict[str, int] = {}
    for line in run.result.lines:
        if not line.cause.component.is_charge:
            per_asset[line.asset] = per_asset.get(line.asset, 0) + line.units
    assert {asset: count for asset, count in per_asset.items() if count} == there


@pytest.mark.parametrize("seed", range(STORIES))
async def test_any_story_ties_to_the_ledger(house: AsyncEngine, seed: int) -> None:
    chance, story = random.Random(seed), Story(house)
    await story.market(BNB, "601.7")
    for number in range(STEPS):
        await step(story, chance, number)
    await story.market(ETH, "2997.123457")
    await story.market(BNB, "611.3")
    middle = await story.result()
    for number in range(STEPS, STEPS + STEPS // 2):
        await step(story, chance, number)
    await story.market(ETH, "3003.000001")
    end = await story.result()

    await ties(story, end, DESK)
    await ties(story, await story.result(desk=TREASURY), TREASURY)
    part = end.result.by_component
    assert part.get(Component.CLIENT_SPREAD, 0) == await spread(story)
    fees = (await account(story, "income:fee")).get("USDT", 0)
    assert part.get(Component.DEAL_FEE, 0) == fees
    paid = valued(await account(story, "expense:venue-fee"), end.end)
    assert abs(part.get(Component.VENUE_FEE, 0) + paid) <= 1
    async with house.connect() as conn:
        today = await day_pnl_units(conn, BOOK, DESK, currency=USDT, now=end.interval.until)
    assert today == end.result.net, "the whole story is one day, and totals know it"
    later = await story.result(since=middle.interval.until, until=end.interval.until)
    assert later.interval.after == middle.interval.through
    whole = middle.result.account_value + later.result.account_value
    assert whole == end.result.account_value
