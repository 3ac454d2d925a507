"""Where the money is: the books beside what chain, venue and bank say themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from app.demo.guided.told import Place
from app.demo.guided.tour import Tour
from app.demo.stage import BOOK
from app.oracles.model import Position
from app.oracles.outside import BankView, EvmView, Outside, VenueView
from app.oracles.places import positions
from registry.testing import EVM

ORDER: Final = ("ETH", "USDT", "EUR")


def outside_of(tour: Tour) -> Outside:
    """Return everybody outside who can be asked what is there."""
    stage = tour.stage

    async def balances() -> Mapping[str, int]:
        state = await asyncio.to_thread(tour.bank.state)
        return {item["iban"]: int(item["balance"]) for item in state["accounts"]}

    return Outside(
        chains=(EvmView(EVM, stage.gateway),),
        venues=(VenueView(tour.room.gateway, stage.clock),),
        banks=(BankView(balances),),
    )


async def look(tour: Tour) -> Sequence[Place]:
    """Ask the books and every place outside, and return a row for each asset."""
    found = await positions(tour.stage.world.engine, outside_of(tour), book=BOOK)
    rows = [_place(tour, item) for item in found if item.ledger or item.difference]
    known = {code: number for number, code in enumerate(ORDER)}
    return sorted(rows, key=lambda row: known.get(row.asset.code, len(known)))


def _place(tour: Tour, found: Position) -> Place:
    return Place(
        asset=tour.stage.assets[found.asset],
        ledger=found.ledger,
        chain=found.chain or 0,
        venue=found.venue or 0,
        bank=found.bank or 0,
        under_way=found.transit,
        difference=found.difference,
    )
