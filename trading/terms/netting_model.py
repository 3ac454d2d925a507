"""Netting agreements as objects: whose, what they cover, from when until when."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from kernel.errors import BadInput
from kernel.ids import stable_id
from trading.terms.model import Agreement

ENTITY: Final = "netting-agreement"
MASTER: Final = "master"
"""The name of a party's agreement over everything, unless it was given another."""
SCOPE_MAX: Final = 200
"""Products, offices or assets that one agreement names."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9\-]{0,31}")


class AgreementKind(StrEnum):
    """What kind of paper it is."""

    ISDA_2002 = "isda-2002"
    ISDA_1992 = "isda-1992"
    TERMS_OF_BUSINESS = "terms-of-business"
    BESPOKE = "bespoke"


class Product(StrEnum):
    """What an obligation comes from."""

    SPOT = "spot"
    """A deal of the desk."""
    COLLATERAL = "collateral"
    """What is given or taken as security, on its way there or back."""
    OTHER = "other"
    """What was entered by hand or by file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NettingAgreement:
    """One version of a netting agreement; the newest of its name is the one that holds.

    Attributes:
        name: what the party's agreements are told apart by.
        products, offices, assets: what it covers; None: every one. An office is one of our legal
            entities, by its code. Obligations of two offices never net with each other.
        effective_from: the first value date that nets.
        ends_on: the last one; None: no end is known.
        trades_from: only what was traded from that day on nets; None: whatever was traded.
        prefunded: what it covers settles by book, from funds that the party holds here.
        multilateral: the party has agreed that its debts are set off in cycles with others'.
        close_out: on default everything may be closed out into one sum.
    """

    party: str
    version: int = 1
    name: str = MASTER
    kind: AgreementKind = AgreementKind.BESPOKE
    products: frozenset[Product] | None = None
    offices: frozenset[str] | None = None
    assets: frozenset[str] | None = None
    effective_from: date
    ends_on: date | None = None
    trades_from: date | None = None
    prefunded: bool = False
    multilateral: bool = False
    close_out: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BadInput(
                f"{self.name!r} is no name of an agreement",
                remedy="Use up to 32 small letters, digits and hyphens",
            )
        for what, scope in (
            ("products", self.products),
            ("offices", self.offices),
            ("assets", self.assets),
        ):
            if scope is not None and not 0 < len(scope) <= SCOPE_MAX:
                raise BadInput(
                    f"an agreement names {len(scope)} {what}",
                    remedy=f"Name 1 to {SCOPE_MAX}, or leave them out: then it covers every one",
                )
        if self.ends_on is not None and self.ends_on < self.effective_from:
            raise BadInput(f"agreement {self.name} of {self.party} ends before it begins")

    @property
    def id(self) -> UUID:
        """Return what names it in all its versions."""
        return stable_id(ENTITY, self.key)

    @property
    def key(self) -> str:
        """Return what its history is kept under."""
        return self.party if self.name == MASTER else f"{self.party}/{self.name}"

    @property
    def is_whole(self) -> bool:
        """Tell whether it covers everything that settles while it is in force."""
        scopes = (self.products, self.offices, self.assets, self.trades_from)
        return all(scope is None for scope in scopes)

    def covers(self, day: date) -> bool:
        """Tell whether it is in force on *day*."""
        return self.effective_from <= day and (self.ends_on is None or day <= self.ends_on)

    def includes(self, item: NettingItem) -> bool:
        """Tell whether *item* is of what it covers, whatever the day."""
        return (
            item.party == self.party
            and _is_in(item.product, self.products)
            and _is_in(item.office, self.offices)
            and _is_in(item.asset, self.assets)
            and (self.trades_from is None or item.trade_date >= self.trades_from)
        )


class Signed(NamedTuple):
    """A version of an agreement, and the paper and people behind it."""

    agreement: NettingAgreement
    document_hash: str
    agreed_by: str
    approved_by: str
    at: datetime


class NettingItem(NamedTuple):
    """An obligation, as far as it matters for what it nets with.

    Attributes:
        office: which of our legal entities owes it or is owed it, by code.
        trade_id: of the deal behind it; the legs of one deal in one asset net without agreement.
    """

    id: UUID
    party: str
    office: str
    product: str
    asset: str
    trade_date: date
    value_date: date
    trade_id: UUID | None = None


def whole(agreement: Agreement, *, version: int = 1) -> NettingAgreement:
    """Return an agreement over everything as an object."""
    return NettingAgreement(
        party=agreement.party,
        version=version,
        effective_from=agreement.effective_from,
        ends_on=agreement.ends_on,
        prefunded=agreement.prefunded,
    )


def overlap(one: NettingAgreement, other: NettingAgreement) -> bool:
    """Tell whether something could be covered by both, so that nobody knew which one nets it."""
    return (
        one.party == other.party
        and one.name != other.name
        and _meet(one.products, other.products)
        and _meet(one.offices, other.offices)
        and _meet(one.assets, other.assets)
        and (other.ends_on is None or one.effective_from <= other.ends_on)
        and (one.ends_on is None or other.effective_from <= one.ends_on)
    )


def netting_set(item: NettingItem, agreements: Iterable[NettingAgreement], on: date) -> str:
    """Return with what *item* nets on a day: all of one party that have the same set net together.

    Of an agreement one set for each office (ISDA 2002 Master Agreement, section 2(c): the election
    to net across transactions applies separately to each pairing of offices). Without one, what
    belongs to one trade is a set, and what belongs to none is one by itself.
    """
    for agreement in agreements:
        if agreement.covers(on) and agreement.includes(item):
            return f"{agreement.name}@{item.office}"
    return f"trade:{item.trade_id}" if item.trade_id is not None else f"alone:{item.id}"


def _is_in(value: str, scope: frozenset[str] | frozenset[Product] | None) -> bool:
    return scope is None or value in scope


def _meet(
    one: frozenset[str] | frozenset[Product] | None,
    other: frozenset[str] | frozenset[Product] | None,
) -> bool:
    return one is None or other is None or not one.isdisjoint(other)
