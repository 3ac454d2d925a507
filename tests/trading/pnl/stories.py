"""A desk on a real ledger: what the market said, deals, fills and their posting, one word each."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.money import Asset, Price, Rounding
from marketdata.model import PriceRecord, Quality, RecordedPrice
from marketdata.prices import record_price
from matching.model import Side
from registry.testing import ETH, USDT
from tests.trading.conftest import BOOK, DESK, booked, request
from trading.deals import amend_deal, cancel_deal
from trading.hedges.fills import post_fills
from trading.hedges.lines import open_line
from trading.hedges.model import HedgeLine, HedgePlace
from trading.model import TREASURY, Deal, DealPurpose, DealSide
from trading.pnl.model import Run
from trading.pnl.runs import THE_BEGINNING, pnl
from venues.fills import record_fills
from venues.model import VenueFill

BNB = Asset("BNB", 8)
ASSETS = {asset.code: asset for asset in (ETH, USDT, BNB)}
PLACE = HedgePlace("sim", "desk", "ETHUSDT")
SECOND = timedelta(seconds=1)
PARTIES = {
    DealPurpose.CLIENT: "acme",
    DealPurpose.HEDGE: "maker",
    DealPurpose.TRANSFER: TREASURY,
}


@dataclass(slots=True)
class Story:
    """A desk whose clock goes on by a second with every word."""

    engine: AsyncEngine
    now: datetime = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
    is_open: bool = False
    fills: int = 0
    names: dict[UUID, str] = field(default_factory=dict)

    def tick(self) -> datetime:
        self.now += SECOND
        return self.now

    async def market(self, asset: Asset, price: str) -> RecordedPrice:
        """Somebody publishes an index of the asset in USDT."""
        at = self.tick()
        record = PriceRecord(
            price=Price.parse(price, asset, USDT),
            kind="index",
            quality=Quality.GOOD,
            observed_at=at,
        )
        return await transact(self.engine, lambda conn: record_price(conn, record, now=at))

    async def deal(
        self,
        name: str,
        side: DealSide,
        units: int,
        price: str,
        *,
        mid: str | None,
        fee: int = 0,
        purpose: DealPurpose = DealPurpose.CLIENT,
        desk: str = DESK,
    ) -> Deal:
        """A deal is booked at a price, with the mid that the market had."""
        found = None if mid is None else await self.market(ETH, mid)
        asked = request(
            name,
            desk=desk,
            side=side,
            base_units=units,
            price=Price.parse(price, ETH, USDT),
            fee_units=fee,
            mid_price_id=found and found.id,
            purpose=purpose,
            value_date=self.now.date(),
            party=PARTIES[purpose],
            off_market_reason="as agreed",
        )
        deal = await booked(self.engine, asked, self.tick())
        self.names[deal.id] = name
        return deal

    async def fill(
        self,
        name: str,
        side: Side,
        units: int,
        price: str,
        *,
        fee: int = 0,
        fee_asset: Asset = USDT,
        executed_at: datetime | None = None,
    ) -> VenueFill:
        """The venue trades for us, and the trade is posted: at once, unless it was *executed_at*."""
        at = self.tick()
        self.fills += 1
        fill = VenueFill(
            venue=PLACE.venue,
            account=PLACE.account,
            symbol=PLACE.symbol,
            trade_id=str(self.fills),
            venue_order_id=str(self.fills),
            side=side,
            price=price,
            base=ETH.code,
            base_units=units,
            quote=USDT.code,
            quote_units=Price.parse(price, ETH, USDT).to_quote(units, Rounding.UP),
            quote_dust=0,
            fee_asset=fee_asset.code,
            fee_units=fee,
            fee_dust=0,
            is_maker=False,
            executed_at=executed_at or at,
        )

        async def work(conn: AsyncConnection) -> None:
            if not self.is_open:
                line = HedgeLine(desk=DESK, asset="ETH", places=(PLACE,))
                await open_line(conn, line, by="dora", reason="test", now=at)
            await record_fills(conn, [fill], source="rest", now=at)
            await post_fills(conn, DESK, "ETH", book=BOOK, now=at)

        await transact(self.engine, work)
        self.is_open = True
        self.names[fill.id] = name
        return fill

    async def cancel(self, deal: Deal) -> None:
        at = self.tick()
        await transact(
            self.engine, lambda conn: cancel_deal(conn, deal.id, by="dora", reason="test", now=at)
        )

    async def amend(self, deal: Deal, name: str, units: int, price: str) -> Deal:
        at = self.tick()
        changed = request(
            name,
            side=deal.request.side,
            base_units=units,
            price=Price.parse(price, ETH, USDT),
            fee_units=deal.request.fee_units,
            mid_price_id=deal.mid_price_id,
            agreed_at=deal.agreed_at,
            value_date=self.now.date(),
            off_market_reason="as agreed",
        )
        new = await transact(self.engine, lambda conn: amend_deal(conn, deal.id, changed, now=at))
        self.names[new.id] = name
        return new

    async def result(
        self, *, since: datetime = THE_BEGINNING, until: datetime | None = None, desk: str = DESK
    ) -> Run:
        """The result up to now, or of an interval."""
        now = self.tick()

        async def work(conn: AsyncConnection) -> Run:
            return await pnl(
                conn, BOOK, desk, since=since, until=until or now, currency=USDT, now=now
            )

        return await transact(self.engine, work)


def units_of(amount: str) -> tuple[int, Asset]:
    """Read ``10 ETH``."""
    asset = ASSETS[amount.split()[1]]
    return asset.parse(amount), asset


def quotient(total: str, amount: str) -> str:
    """Return the price of one unit, exactly, of what was paid for an amount."""
    return f"{Decimal(total.replace(',', '')) / Decimal(amount.replace(',', '')):f}"
