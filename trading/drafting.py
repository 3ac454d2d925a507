"""From a request and what is on record to the deal that it would be, or to what is wrong. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import Final, TypeAlias
from uuid import UUID

from kernel.clock import iso
from kernel.errors import BadInput, Refused
from kernel.ids import derive_id
from kernel.money import Asset, Rounding, divide
from marketdata.errors import NoPrice
from marketdata.model import PriceRecord, Quality, RecordedPrice
from marketdata.price_model import PPM, Pair, PriceKind
from registry.errors import UnknownRecord
from registry.model import Party, PartyKind
from risk.model import ProposedDeal
from trading.errors import OffMarketPrice
from trading.model import Deal, DealPurpose, DealRequest, DealState
from trading.off_market import OffMarket, judge
from trading.postings import require_desk
from trading.terms.model import ClientTerms, Settlement, SettlementQuestion

MID_AGE_MAX: Final = timedelta(minutes=15)
"""A mid observed longer before the deal says nothing of its market; no quote stands for so long."""
LASTING: Final[Mapping[str, timedelta]] = MappingProxyType(
    {PriceKind.MANUAL: timedelta.max, PriceKind.FIAT_RATE: timedelta(days=6)}
)
"""For how long prices of other kinds hold: a manual one for as long as two people let it, published
rates over five days without a new one (`marketdata.fx`)."""
OUR_OWN: Final = frozenset({PriceKind.AGREED, PriceKind.FILL})
"""Kinds of prices that are evidence of a deal or a trade of ours, never of the market."""

Refusal: TypeAlias = Refused | BadInput
Moment: TypeAlias = tuple[Pair, datetime]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the moment at which its two sides agreed."""

    request: DealRequest
    at: datetime

    @property
    def moment(self) -> Moment:
        """Return of what, and when, the market's mid is looked for if none is named."""
        return Pair(self.request.base, self.request.quote), self.at

    @property
    def party_day(self) -> tuple[str, date]:
        """Return whose terms of which day (UTC) hold."""
        return self.request.party, self.at.date()

    def question(self, terms: ClientTerms) -> SettlementQuestion:
        """Return what is asked to know when and how the deal settles."""
        asked = self.request
        return SettlementQuestion(
            party=asked.party,
            base=asked.base,
            quote=asked.quote,
            trade_date=self.at.date(),
            value_date=asked.value_date,
            terms=terms,
            agreed_at=self.at,
        )


@dataclass(frozen=True, slots=True)
class Known:
    """What is on record of what the requests name."""

    parties: Mapping[str, Party]
    assets: Mapping[str, Asset]
    prices: Mapping[UUID, RecordedPrice]
    terms: Mapping[tuple[str, date], ClientTerms]


@dataclass(frozen=True, slots=True)
class Draft:
    """A deal about to be booked, and the price to record with it if its request named none."""

    deal: Deal
    evidence: RecordedPrice | None

    @property
    def reference(self) -> str:
        """Return the client reference, by which a deal is told from another before it has a row."""
        return self.deal.request.client_ref


def find_fault(asked: Asked, known: Known, *, now: datetime) -> Refusal | None:
    """Return the first thing that is wrong with a request by itself, if any."""
    request = asked.request
    if asked.at > now:
        return BadInput(f"deal {request.client_ref} was agreed later than now")
    return (
        _fault_of_names(request)
        or _fault_of_party(request, known.parties.get(request.party))
        or _fault_of_assets(request, known.assets)
        or _fault_of_price(request, request.price_id, known.prices)
        or _fault_of_price(request, request.mid_price_id, known.prices)
        or _fault_of_mid(asked, known.prices)
    )


def draft(
    asked: Asked,
    known: Known,
    settlement: Settlement,
    mid: RecordedPrice | None,
    *,
    amends: UUID | None,
    book: int,
    now: datetime,
) -> Draft | Refusal:
    """Return the deal of a request without fault, unless its price is off the market.

    The price is judged by the market's mid; where there is none, by the price that the deal was
    made on, if that is the market's; else by nothing.
    """
    request, terms = asked.request, known.terms[asked.party_day]
    named = None if request.price_id is None else known.prices[request.price_id]
    off = _judge(request, mid or named, terms)
    if off is not None and not request.off_market_reason:
        return _refuse_price(request, off)
    deal_id = derive_id(now, "deal", book, request.client_ref)
    evidence = None if named is not None else _evidence(asked, deal_id, now)
    made_on = named or evidence
    assert made_on is not None, "one of the two"
    mid_id = None if mid is None else mid.id
    deal = Deal(
        id=deal_id,
        book=book,
        request=replace(
            request,
            price_id=made_on.id,
            mid_price_id=mid_id,
            value_date=settlement.value_date,
            agreed_at=asked.at,
        ),
        quote_units=request.quote_units,
        value_date=settlement.value_date,
        agreed_at=asked.at,
        price_id=made_on.id,
        mid_price_id=mid_id,
        terms_version=terms.version,
        calendars=settlement.calendars,
        instructions=settlement.instructions,
        off_market_ppm=None if off is None else off.ppm,
        state=DealState.BOOKED,
        pulled_at=None,
        amends=amends,
        created_at=now,
        updated_at=now,
    )
    return Draft(deal, evidence)


def with_fee(request: DealRequest, terms: ClientTerms, fee_units: int | None) -> DealRequest:
    """Return *request* with a fee; None: that of the terms, which only a client pays.

    What is less than a unit favours the client.
    """
    if fee_units is None:
        is_client = request.purpose is DealPurpose.CLIENT
        ppm = terms.fee_ppm if is_client else 0
        fee_units = divide(request.quote_units * ppm, PPM, Rounding.DOWN)
    return replace(request, fee_units=fee_units)


def proposed(deal: Deal, replaces: Deal | None) -> ProposedDeal:
    """Return what *deal* would leave open with its party, for the limits to judge."""
    return ProposedDeal(
        party=deal.request.party,
        desk=deal.request.desk,
        receives=deal.receives,
        pays=deal.pays,
        reference=deal.request.client_ref,
        fee=deal.fee,
        replaces=None if replaces is None else proposed(replaces, None),
    )


def _evidence(asked: Asked, deal_id: UUID, now: datetime) -> RecordedPrice:
    """Return what the two agreed as a price of its own: evidence of the deal, not of the market."""
    request = asked.request
    record = PriceRecord(
        price=request.price,
        kind=PriceKind.AGREED,
        quality=Quality.MANUAL,
        constituents=(
            {"deal": str(deal_id), "client_ref": request.client_ref, "by": request.booked_by},
        ),
        observed_at=asked.at,
    )
    return RecordedPrice(id=record.id, record=record, recorded_at=now)


def _judge(
    request: DealRequest, market: RecordedPrice | None, terms: ClientTerms
) -> OffMarket | None:
    if market is None or market.record.kind in OUR_OWN:
        return None
    return judge(request.price, market.record.price, request.side, terms.off_market_ppm)


def _refuse_price(request: DealRequest, off: OffMarket) -> Refusal:
    where = "above" if off.ppm > 0 else "below"
    gains = "the desk" if off.favours_desk else request.party
    return OffMarketPrice(
        f"deal {request.client_ref} is {abs(off.ppm)} ppm {where} the market, in favour of {gains};"
        f" the terms allow {off.tolerance_ppm}",
        remedy="Correct the price, or say why it is right (--off-market)",
    )


def _fault_of_names(request: DealRequest) -> Refusal | None:
    if not request.client_ref:
        return BadInput(
            "a deal needs a client reference: by it the deal is booked once",
            remedy="Give one that no other deal has",
        )
    try:
        require_desk(request.desk)
    except BadInput as error:
        return error
    return None


def _fault_of_party(request: DealRequest, party: Party | None) -> Refusal | None:
    if request.purpose is DealPurpose.TRANSFER:
        return None
    if party is None:
        return UnknownRecord(
            f"there is no party {request.party!r}",
            where="registry",
            remedy="Look at the registry's list, or propose it",
        )
    if request.purpose is DealPurpose.HEDGE and party.kind is not PartyKind.COUNTERPARTY:
        return BadInput(
            f"{party.code} is a {party.kind}, and a hedge is dealt with a counterparty",
            remedy="Book it as a client's deal",
        )
    return None


def _fault_of_assets(request: DealRequest, assets: Mapping[str, Asset]) -> Refusal | None:
    for asset in (request.base, request.quote):
        known = assets.get(asset.code)
        if known is None:
            return UnknownRecord(
                f"there is no asset {asset.code!r}",
                where="registry",
                remedy="Look at the registry's list, or propose it",
            )
        if known != asset:
            return BadInput(f"{asset.code} has {known.scale} decimal places, not {asset.scale}")
    return None


def _fault_of_price(
    request: DealRequest, price_id: UUID | None, prices: Mapping[UUID, RecordedPrice]
) -> Refusal | None:
    if price_id is None:
        return None
    found = prices.get(price_id)
    if found is None:
        return NoPrice(f"no price {price_id} is on record")
    priced = found.record.price
    if (priced.base.code, priced.quote.code) != (request.base.code, request.quote.code):
        return BadInput(
            f"price {price_id} is of {priced.base.code}/{priced.quote.code},"
            f" not of {request.base.code}/{request.quote.code}"
        )
    return None


def _fault_of_mid(asked: Asked, prices: Mapping[UUID, RecordedPrice]) -> Refusal | None:
    """Refuse a mid that is none: a price of our own, or one of another hour."""
    price_id = asked.request.mid_price_id
    if price_id is None:
        return None
    record = prices[price_id].record
    if record.kind in OUR_OWN:
        return BadInput(f"price {price_id} is of kind {record.kind}: it is not the market's")
    age = asked.at - record.observed_at
    if not timedelta() <= age <= LASTING.get(record.kind, MID_AGE_MAX):
        return Refused(
            f"price {price_id} was observed at {iso(record.observed_at)},"
            f" the deal was agreed at {iso(asked.at)}",
            remedy="Leave the mid out: the recorded one of that moment is found",
        )
    return None
