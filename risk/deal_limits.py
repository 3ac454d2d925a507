"""Whether a deal fits into what is open with its counterparty. Pure.

Exposure is everything open between us: what the party owes us and what we owe it, posted and pending,
each asset at its price, nothing netted, because until it has settled either side may fail alone. What
the party holds with us in custody does not reduce it: that is its own money.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from kernel.errors import Refused
from risk.errors import LimitExceeded, NotValued
from risk.model import Amount, PartyLimits, ProposedDeal
from risk.worth import Worth

NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class OpenAmounts:
    """What is open with a party, in smallest units by asset.

    Attributes:
        receivable: what it owes us, pending too.
        payable: what we owe it, pending too.
    """

    receivable: Mapping[str, int] = field(default_factory=lambda: NOTHING)
    payable: Mapping[str, int] = field(default_factory=lambda: NOTHING)

    def exposure(self, worth: Worth) -> int:
        """Return what all of it is worth, both ways added."""
        return self.owed_to_us(worth) + worth.total(self.payable.items())

    def owed_to_us(self, worth: Worth) -> int:
        """Return what the receivables are worth."""
        return worth.total(self.receivable.items())


def after_deal(amounts: OpenAmounts, deal: ProposedDeal) -> OpenAmounts:
    """Return what is open once *deal* is booked; what it replaces is taken back first."""
    receivable, payable = dict(amounts.receivable), dict(amounts.payable)
    old = deal.replaces
    if old is not None and old.party == deal.party:
        _add(receivable, old.receives, -1)
        _add(payable, old.pays, -1)
        if old.fee is not None:
            _add(receivable, old.fee, -1)
    _add(receivable, deal.receives, 1)
    _add(payable, deal.pays, 1)
    if deal.fee is not None:
        _add(receivable, deal.fee, 1)
    return OpenAmounts(receivable, payable)


def judge_deal(
    limits: PartyLimits, amounts: OpenAmounts, deal: ProposedDeal, worth: Worth
) -> Refused | None:
    """Return why *deal* may not be booked on top of *amounts*, or None.

    A deal that leaves no more open than before passes, whatever the limit: an amendment downwards is
    how one gets back below it.
    """
    then = after_deal(amounts, deal)
    if not _opens_more(amounts, then):
        return None  # whatever the prices are, and where there are none
    try:
        checks = (
            ("exposure", limits.exposure_units, OpenAmounts.exposure),
            ("settlement", limits.settlement_units, OpenAmounts.owed_to_us),
        )
        for name, allowed, measure in checks:
            if allowed is None:
                continue
            comes_to = measure(then, worth)
            if comes_to > allowed and comes_to > measure(amounts, worth):
                return LimitExceeded(
                    f"deal {deal.reference} would take the {name} to {deal.party} to"
                    f" {worth.text(comes_to)} of {worth.text(allowed)}",
                    where=f"limits of {limits.party}, version {limits.version}",
                    remedy="Settle what is open first, or let two people raise the limit",
                )
    except NotValued as error:
        return error
    return None


def _opens_more(before: OpenAmounts, then: OpenAmounts) -> bool:
    """Tell whether more of anything is open than before."""
    return any(
        units > known.get(asset, 0)
        for known, now in (
            (before.receivable, then.receivable),
            (before.payable, then.payable),
        )
        for asset, units in now.items()
    )


def _add(amounts: dict[str, int], amount: Amount, sign: int) -> None:
    asset, units = amount
    # What is taken back may have settled meanwhile; nobody owes less than nothing.
    amounts[asset] = max(amounts.get(asset, 0) + sign * units, 0)
