"""Before a deal is booked: would it take its counterparty beyond a limit?

Locks: the rows of the parties, in the order of their codes, until the caller's transaction ends. The
ledger is read after that, so of two deals with one party the second one sees the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from ledger.queries import get_balances
from registry.queries import list_assets
from risk import store
from risk.deal_limits import OpenAmounts, after_deal, judge_deal
from risk.model import PartyLimits, ProposedDeal
from risk.valuation import FOR_CREDIT, load_worth
from risk.worth import Worth

RECEIVABLE: Final = ("open", "netted", "reorg", "loan")
PAYABLE: Final = ("open", "netted", "unapplied")
"""The accounts of a party in the chart of the ledger, below ``receivable:<party>:``, ``payable:…``."""


async def check_deals(
    conn: AsyncConnection, book: int, items: Sequence[ProposedDeal], *, now: datetime
) -> list[Refused | None]:
    """Return for each of *items*, in their order, why it may not be booked, or None.

    Each is judged on top of those before it that pass. A party without limits of its own has those of
    `EVERY` where the house has set some, else none. Call it before the first unique insert and before
    posting, in the transaction that books what passes; the house's own deals are not for it.
    """
    limits = await store.lock_party_limits(conn, {item.party for item in items})
    if not limits:
        return [None] * len(items)
    amounts = await open_amounts(conn, book, sorted(limits))
    worths = await _worths(conn, limits, amounts, items, now=now)
    answers: list[Refused | None] = []
    for item in items:
        bound = limits.get(item.party)
        if bound is None:
            answers.append(None)
            continue
        refused = judge_deal(bound, amounts[item.party], item, worths[bound.currency])
        if refused is None:
            amounts[item.party] = after_deal(amounts[item.party], item)
        answers.append(refused)
    return answers


async def open_amounts(
    conn: AsyncConnection, book: int, parties: Sequence[str]
) -> dict[str, OpenAmounts]:
    """Return what is open with each of *parties*, as the ledger has it at one instant."""
    assets = [asset.code for asset in await list_assets(conn)]
    receivable = {f"receivable:{p}:{part}": p for p in parties for part in RECEIVABLE}
    payable = {f"payable:{p}:{part}": p for p in parties for part in PAYABLE}
    keys = [(path, asset) for path in (*receivable, *payable) for asset in assets]
    owed_to_us: dict[str, dict[str, int]] = {party: {} for party in parties}
    owed_by_us: dict[str, dict[str, int]] = {party: {} for party in parties}
    for (path, asset), balance in (await get_balances(conn, book, keys)).items():
        side = owed_to_us[receivable[path]] if path in receivable else owed_by_us[payable[path]]
        # What is reserved to leave has not left; one account that stands on the other side of zero
        # does not make another one smaller.
        side[asset] = side.get(asset, 0) + max(balance.posted + balance.incoming, 0)
    return {party: OpenAmounts(owed_to_us[party], owed_by_us[party]) for party in parties}


async def _worths(
    conn: AsyncConnection,
    limits: Mapping[str, PartyLimits],
    amounts: Mapping[str, OpenAmounts],
    items: Sequence[ProposedDeal],
    *,
    now: datetime,
) -> dict[str, Worth]:
    """Return the prices that the limits need, by currency."""
    needed: dict[str, set[str]] = {}
    for party, bound in limits.items():
        open_assets = {*amounts[party].receivable, *amounts[party].payable}
        needed.setdefault(bound.currency, set()).update(open_assets)
    for item in items:
        if item.party in limits:
            fee = () if item.fee is None else (item.fee[0],)
            needed[limits[item.party].currency].update((item.receives[0], item.pays[0], *fee))
    return {
        currency: await load_worth(conn, currency, assets, now=now, hierarchies=FOR_CREDIT)
        for currency, assets in sorted(needed.items())
    }
