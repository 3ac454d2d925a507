"""By which rail an asset moves between us and a party."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from registry.asset_chains import list_chain_kinds
from registry.model import BITCOIN
from trading.terms import agreement_store, store
from trading.terms.model import Rail, StandingInstruction
from trading.terms.netting_model import NettingAgreement
from trading.terms.standing_rules import in_force
from trading.terms.value_dates import CALENDAR_OF

PAID_BY: Final = (Rail.EVM, Rail.BITCOIN, Rail.BANK)
"""The rails on which somebody is paid out, in the order in which they are asked."""


@dataclass(frozen=True, slots=True)
class Rails:
    """What is known of how parties are paid, to answer for any of their assets.

    Attributes:
        agreements: of the parties that are asked about.
        standing: every version, by party, asset and rail.
        kinds: the kinds of chains that each asset is on.
    """

    agreements: Sequence[NettingAgreement]
    standing: Mapping[tuple[str, str, Rail], Sequence[StandingInstruction]]
    kinds: Mapping[str, Collection[str]]

    def is_prefunded(self, party: str, asset: str, on: date) -> bool:
        """Tell whether *party* settles *asset* by book on a day."""
        return any(
            item.party == party
            and item.prefunded
            and item.covers(on)
            and (item.assets is None or asset in item.assets)
            for item in self.agreements
        )

    def paid_at(self, party: str, asset: str, on: date) -> StandingInstruction | None:
        """Return where *party* is paid on a day, by the rail that `rail` names."""
        return in_force(self.standing.get((party, asset, self.paid_by(party, asset, on)), ()), on)

    def paid_by(self, party: str, asset: str, on: date) -> Rail:
        """Return by which rail value leaves the house for *party*, prefunded or not."""
        given = {
            rail
            for rail in PAID_BY
            if in_force(self.standing.get((party, asset, rail), ()), on) is not None
        }
        return choose_rail(given, rail_of_asset(asset, self.kinds))

    def rail(self, party: str, asset: str, on: date) -> Rail:
        """Return by which rail *asset* settles with *party* on a day."""
        if self.is_prefunded(party, asset, on):
            return Rail.BOOK
        return self.paid_by(party, asset, on)


async def load_rails(conn: AsyncConnection, parties: Collection[str]) -> Rails:
    """Return how *parties* are paid, read in a fixed number of statements."""
    standing: dict[tuple[str, str, Rail], list[StandingInstruction]] = {}
    for item in await store.list_standing_instructions(conn, parties=parties):
        standing.setdefault((item.party, item.asset, item.rail), []).append(item)
    found = await agreement_store.list_newest(conn, parties)
    return Rails([item.agreement for item in found], standing, await list_chain_kinds(conn))


async def settlement_rails(
    conn: AsyncConnection, keys: Collection[tuple[str, str]], *, on: date
) -> dict[tuple[str, str], Rail]:
    """Return by which rail each (party, asset) settles on a day (UTC), in a few statements.

    A party that is prefunded for the asset settles by book. Else the rail on which it said where it
    is paid; where it named several, the asset's own comes first. Else the asset's own rail.
    """
    known = await load_rails(conn, {party for party, _ in keys})
    return {(party, asset): known.rail(party, asset, on) for party, asset in keys}


def choose_rail(given: Collection[Rail], own: Rail) -> Rail:
    """Return the rail to use of those *given* in standing instructions; *own* is the asset's."""
    if own in given:
        return own
    return next((rail for rail in PAID_BY if rail in given), own)


def rail_of_asset(asset: str, kinds: Mapping[str, Collection[str]]) -> Rail:
    """Return how an asset moves where nobody said anything else.

    Args:
        asset: its code.
        kinds: the kinds of chains that each asset is on, by code.
    """
    chains = kinds.get(asset, ())
    if not chains and asset in CALENDAR_OF:
        return Rail.BANK
    if chains and set(chains) == {BITCOIN}:
        return Rail.BITCOIN
    return Rail.EVM
