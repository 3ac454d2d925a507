"""What a party may owe in settlement in one asset, and what it owes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

from kernel.errors import BadInput
from risk.model import UNITS_MAX, require_name


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementLimit:
    """How much a party may owe us in settlement in one asset while our own leg may leave.

    In smallest units of the asset. A limit of nothing: it has to pay before we do.

    Attributes:
        party: its code; `risk.model.EVERY`: of whoever has no limit of its own in the asset.
        gross_units: of everything that is sealed and not paid; None: not limited.
        net_units: of the same less what we owe it in the asset and the collateral that we took;
            None: not limited.
    """

    party: str
    asset: str
    version: int = 1
    gross_units: int | None = None
    net_units: int | None = None

    def __post_init__(self) -> None:
        require_name(self.party, "party")
        if self.gross_units is None and self.net_units is None:
            raise BadInput(
                f"a settlement limit of {self.party} limits nothing",
                remedy="Say what may be owed, gross or net; 0 is nothing",
            )
        for units in (self.gross_units, self.net_units):
            if units is not None and not 0 <= units <= UNITS_MAX:
                raise BadInput(f"a limit of {self.party} is negative, or larger than any amount")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """What a party owes us in settlement in an asset, in smallest units.

    Attributes:
        gross: sealed and not paid.
        net: *gross* less what we owe it there and the collateral that we took; never below zero.
    """

    gross: int = 0
    net: int = 0


@unique
class Bound(StrEnum):
    """Which part of a limit is meant."""

    NONE = "none"
    """No limit is on record, so nothing leaves on credit."""
    GROSS = "gross"
    NET = "net"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementViolation:
    """Why a party's word is not enough for our leg to leave."""

    party: str
    asset: str
    bound: Bound
    used: int
    allowed: int

    def __str__(self) -> str:
        """Return it as people read it."""
        if self.bound is Bound.NONE:
            return f"no settlement limit of {self.party} in {self.asset} is on record"
        return (
            f"{self.party} would owe {self.used} units of {self.asset} in settlement, {self.bound},"
            f" and {self.allowed} are allowed"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUse:
    """How far a limit is used."""

    party: str
    asset: str
    bound: Bound
    used: int
    allowed: int

    def reaches(self, percent: int) -> bool:
        """Tell whether so much of it is used; of a limit of nothing: whether anything is owed."""
        return self.used > 0 and 100 * self.used >= percent * self.allowed


def judge(
    limit: SettlementLimit | None, party: str, asset: str, owed: Owed
) -> SettlementViolation | None:
    """Return what of *limit* would be exceeded by what is *owed*, gross before net."""
    if limit is None:
        return SettlementViolation(
            party=party, asset=asset, bound=Bound.NONE, used=owed.gross, allowed=0
        )
    for use in uses(limit, party, owed):
        if use.used > use.allowed:
            return SettlementViolation(
                party=party, asset=asset, bound=use.bound, used=use.used, allowed=use.allowed
            )
    return None


def uses(limit: SettlementLimit, party: str, owed: Owed) -> list[LimitUse]:
    """Return how far *party* uses each part of a limit, gross before net."""
    parts = ((Bound.GROSS, owed.gross, limit.gross_units), (Bound.NET, owed.net, limit.net_units))
    return [
        LimitUse(party=party, asset=limit.asset, bound=bound, used=used, allowed=allowed)
        for bound, used, allowed in parts
        if allowed is not None
    ]
