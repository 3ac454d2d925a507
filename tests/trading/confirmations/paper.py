"""Deals and facts to confirm, without a database."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from kernel.money import Asset, Price
from marketdata.model import PriceRecord, Quality, RecordedPrice
from marketdata.price_model import PriceKind
from registry.testing import ENTITY, ETH, USDT
from trading.confirmations.model import ConfirmationKind
from trading.confirmations.wording import Paid, TradeFacts
from trading.model import Deal, DealRequest, DealSide, DealState
from trading.terms.model import Rail, SettlementTarget

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ADDRESS = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
DEAL_ID = UUID(int=0xD0)


def deal(deal_id: UUID = DEAL_ID, **changes: Any) -> Deal:
    """The desk sells 10 ETH to acme at 3,000 with a fee of 300, unless changed."""
    asked: dict[str, Any] = {
        "client_ref": "deal-1",
        "desk": "otc",
        "party": "acme",
        "side": DealSide.DESK_SELLS,
        "base": ETH,
        "quote": USDT,
        "base_units": ETH.parse("10"),
        "price": Price.parse("3000", ETH, USDT),
        "fee_units": USDT.parse("300"),
        "value_date": date(2026, 1, 6),
        "booked_by": "dan",
        **changes,
    }
    request = DealRequest(**asked)
    return Deal(
        id=deal_id,
        book=1,
        request=request,
        quote_units=request.quote_units,
        value_date=asked["value_date"],
        agreed_at=NOW,
        price_id=UUID(int=0xF0),
        mid_price_id=None,
        terms_version=2,
        calendars="2026.1:always",
        instructions=tuple(target(asset) for asset in (request.base, request.quote)),
        off_market_ppm=None,
        state=DealState.BOOKED,
        pulled_at=None,
        amends=None,
        created_at=NOW,
        updated_at=NOW,
    )


def target(asset: Asset) -> SettlementTarget:
    return SettlementTarget(asset=asset.code, rail=Rail.EVM, version=3)


def facts(found: Deal | None = None, **changes: Any) -> TradeFacts:
    """All that the first confirmation of *found* says, unless changed."""
    found = deal() if found is None else found
    record = PriceRecord(
        price=found.request.price, kind=PriceKind.AGREED, quality=Quality.MANUAL, observed_at=NOW
    )
    values: dict[str, Any] = {
        "confirmation_id": UUID(int=0xC0),
        "trade_id": DEAL_ID,
        "version": 1,
        "kind": ConfirmationKind.NEW,
        "deal": found,
        "before": None,
        "entity": ENTITY,
        "price": RecordedPrice(id=found.price_id, record=record, recorded_at=NOW),
        "agreed": None,
        "paid": {
            item.code: Paid(Rail.EVM, 3, ADDRESS)
            for item in (found.request.base, found.request.quote)
        },
        "issued_by": "system:confirmations",
        "issued_at": NOW,
        **changes,
    }
    return TradeFacts(**values)
