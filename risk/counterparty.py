"""What is at risk with each counterparty now: from deals, in settlement, and at venues.

A query over the ledger: nothing is kept, so nothing can be out of date. What is reserved to arrive
counts, what is reserved to leave has not left, and nothing is netted, as in `risk.pre_deal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, unique
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import Refused
from ledger.model import Account
from ledger.queries import list_accounts
from risk.errors import NotValued
from risk.limits import list_party_limits
from risk.model import EVERY, PartyLimits
from risk.valuation import FOR_CREDIT, load_worth
from risk.worth import Worth


@unique
class ExposureKind(StrEnum):
    """Where an amount stands between a deal and its settlement."""

    DEAL_OWED_TO_US = "deal, owed to us"
    DEAL_OWED_BY_US = "deal, owed by us"
    SETTLEMENT_OWED_TO_US = "settlement, owed to us"
    SETTLEMENT_OWED_BY_US = "settlement, owed by us"
    DEBT = "debt"
    """Of a reorganised deposit, or lent."""
    VENUE = "at the venue"
    """What a venue holds for us: an unsecured claim."""


_KINDS: Final[Mapping[tuple[str, str], ExposureKind]] = {
    ("receivable", "open"): ExposureKind.DEAL_OWED_TO_US,
    ("receivable", "netted"): ExposureKind.SETTLEMENT_OWED_TO_US,
    ("receivable", "reorg"): ExposureKind.DEBT,
    ("receivable", "loan"): ExposureKind.DEBT,
    ("payable", "open"): ExposureKind.DEAL_OWED_BY_US,
    ("payable", "netted"): ExposureKind.SETTLEMENT_OWED_BY_US,
    ("payable", "unapplied"): ExposureKind.SETTLEMENT_OWED_BY_US,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyExposure:
    """What is at risk with one counterparty.

    Attributes:
        amounts: by kind and asset, in smallest units; nothing that is zero.
        worth: prices in the currency that was asked for.
        limits: what holds for it, its own or the default; in a currency of their own.
    """

    party: str
    amounts: Mapping[tuple[ExposureKind, str], int]
    worth: Worth
    limits: PartyLimits | None = None

    def value(self, kind: ExposureKind | None = None) -> int | None:
        """Return what the amounts of a kind (None: all) are worth; None: one has no price."""
        chosen = [
            (asset, units)
            for (of_kind, asset), units in sorted(self.amounts.items())
            if kind in {None, of_kind}
        ]
        try:
            return self.worth.total(chosen)
        except NotValued:
            return None


async def exposures(
    conn: AsyncConnection, book: int, currency: str, *, now: datetime, party: str | None = None
) -> list[PartyExposure]:
    """Return what is at risk with every counterparty (or this one), by its code."""
    found: dict[str, dict[tuple[ExposureKind, str], int]] = {}
    for prefix in ("payable:", "receivable:", "venue:"):
        for account in await list_accounts(conn, book, prefix):
            _add(found, account)
    limits = {item.party: item for item in await list_party_limits(conn)}
    chosen = {code: amounts for code, amounts in found.items() if party in {None, code}}
    assets = {asset for amounts in chosen.values() for _, asset in amounts}
    worth = await load_worth(conn, currency, assets, now=now, hierarchies=FOR_CREDIT)
    return [
        PartyExposure(
            party=code,
            amounts=amounts,
            worth=worth,
            limits=limits.get(code, limits.get(EVERY)),
        )
        for code, amounts in sorted(chosen.items())
        if amounts
    ]


def _add(found: dict[str, dict[tuple[ExposureKind, str], int]], account: Account) -> None:
    """Add an account's balance to its party's amounts."""
    units = max(account.balance.posted + account.balance.incoming, 0)
    if units == 0:
        return
    root, _, rest = account.path.partition(":")
    if root == "venue":
        party, kind = rest.partition("/")[0], ExposureKind.VENUE
    else:
        party, _, part = rest.rpartition(":")
        if (root, part) not in _KINDS:
            raise Refused(f"nobody has said what risk {account.path} stands for")
        kind = _KINDS[root, part]
    amounts = found.setdefault(party, {})
    amounts[kind, account.spec.asset] = amounts.get((kind, account.spec.asset), 0) + units
