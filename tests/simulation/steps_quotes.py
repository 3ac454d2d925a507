"""What may happen to prices: asked for, taken in time and too late, by two at once, taken back."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Final

from registry.testing import ETH, USDT
from tests.settlement.desk import BOOK
from tests.simulation.stepping import Step, judged
from tests.simulation.world import World
from trading.model import DealSide
from trading.quotes.accepting import accept_quote, require_won
from trading.quotes.ending import withdraw_quote
from trading.quotes.model import Quote, QuoteRequest, QuoteState
from trading.quotes.queries import list_quotes
from trading.quotes.requesting import request_quote

PARTIES: Final = ("acme", "cedar")
TURN: Final = "quotes"
"""Who has the books is at it at once, as a rule: nobody waits for a price longer than seconds."""


async def ask_price(world: World, random: Random) -> str:
    """A party asks for a price; the same request may come twice."""
    asked = QuoteRequest(
        client_ref=f"q-{world.number()}",
        desk="otc",
        party=random.choice(PARTIES),
        base=ETH,
        quote=USDT,
        units=random.randrange(1, 3 * 10**4) * 10**14,
        requested_by="dan",
    )
    wanted = partial(request_quote, request=asked, book=BOOK, now=world.now)
    said = [await judged(lambda: world.do(wanted)) for _ in range(1 + (random.random() < 0.2))]
    return f"{asked.client_ref} {asked.party} {asked.units}: {' '.join(said)}"


async def take_price(world: World, random: Random) -> str:
    """A party takes a side of a price; it may say so twice, and somebody else after it."""
    open_ = await quotes(world, QuoteState.QUOTED, QuoteState.ACCEPTED, QuoteState.BOOKED)
    if not open_:
        return "nothing is offered"
    item, side = random.choice(open_[-3:]), random.choice(list(DealSide))
    reference = f"a-{world.number()}"
    said = [
        await judged(partial(_take, world, item, side, reference))
        for _ in range(1 + (random.random() < 0.3))
    ]
    if random.random() < 0.2:
        other = f"a-{world.number()}"
        said.append(await judged(partial(_take, world, item, side, other)))
    return f"{item.request.client_ref} {side}: {' '.join(said)}"


async def _take(world: World, item: Quote, side: DealSide, reference: str) -> None:
    attempt = await world.do(
        partial(
            accept_quote,
            quote_id=item.id,
            side=side,
            accept_ref=reference,
            by="dan",
            now=world.now,
        )
    )
    won = require_won(attempt)
    if won.deal_id is not None:
        world.dealt.add(won.deal_id)


async def take_back(world: World, random: Random) -> str:
    """The desk takes a price back."""
    open_ = await quotes(world, QuoteState.REQUESTED, QuoteState.QUOTED)
    if not open_:
        return "nothing is open"
    item = random.choice(open_)
    said = partial(withdraw_quote, quote_id=item.id, by="dan", reason="moved", now=world.now)
    return f"{item.request.client_ref}: {await judged(lambda: world.do(said))}"


async def move_market(world: World, random: Random) -> str:
    """The market moves."""
    world.mid = max(2_900, min(3_100, world.mid + random.randrange(-20, 21)))
    return f"{world.mid}"


async def quotes(world: World, *states: QuoteState) -> list[Quote]:
    """Return the quotes in some states, the oldest first."""
    found = await world.do(partial(list_quotes, book=BOOK, states=states))
    return found[::-1]


STEPS: Final = (
    Step("ask price", 4, ask_price, then=TURN),
    Step("take price", 4, take_price, then=TURN),
    Step("price back", 1, take_back),
    Step("market moves", 1, move_market),
)
