"""Chapter 3: the desk sells and buys, and hedges what is left at the venue through ccxt.

The venue is killed in the middle of the hedge and comes back: the order is looked up, not guessed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from app.demo.deposits import ACME, BIRCH
from app.demo.stage import BOOK, Stage
from kernel.errors import OutsideUnavailable
from kernel.money import Price
from kernel.settings import Secret
from marketdata.model import PriceQuality, PriceRecord
from marketdata.prices import record_price
from trading.deals import book_deal
from trading.hedging_loop import Hedger, hedge_until_done
from trading.lines import open_line
from trading.model import Deal, DealRequest, DealSide, HedgeLine, HedgePolicy
from trading.position import position
from trading.venue_accounts import open_venue_account
from venues.ccxt.endpoint import Credentials, Endpoint
from venues.ccxt.feed import BookFeed
from venues.ccxt.gateway import BinanceGateway, GatewaySettings, open_gateway

DESK: Final = "otc"
VENUE: Final = "binance"
ACCOUNT: Final = "desk"
SYMBOL: Final = "ETH/USDT"
BOOK_WAIT: Final = timedelta(seconds=15)
SPREAD_PPM: Final = 2_000
"""What the desk asks above the mid, or bids below it, in millionths."""
PPM: Final = 1_000_000
PASSES_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class DeskRoom:
    """The venue's gateway and its live book."""

    gateway: BinanceGateway
    feed: BookFeed
    hedger: Hedger
