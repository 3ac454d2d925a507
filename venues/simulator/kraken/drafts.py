"""New orders as clients describe them, over REST and over WebSocket v2, brought to one form.

Pure. A draft is what the request said, checked against the pair's grid and minimums; `command` makes
the core's order of it. The exchange then checks funds, post-only and the rest.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from matching.model import SelfTradePrevention, Side, TimeInForce
from venues.simulator.commands import PlaceOrder
from venues.simulator.decimals import UNIT
from venues.simulator.kraken import errors, numbers
from venues.simulator.kraken.errors import KrakenRefusal, invalid, too_precise
from venues.simulator.kraken.names import Pair
from venues.simulator.model import PPM, FeeIn, OrderType, SymbolSpec

TYPES: Final = {
    "market": OrderType.MARKET,
    "limit": OrderType.LIMIT,
    "iceberg": OrderType.LIMIT,
    "stop-loss": OrderType.STOP_LOSS,
    "stop-loss-limit": OrderType.STOP_LOSS_LIMIT,
    "take-profit": OrderType.TAKE_PROFIT,
    "take-profit-limit": OrderType.TAKE_PROFIT_LIMIT,
    "trailing-stop": OrderType.TRAILING_STOP,
    "trailing-stop-limit": OrderType.TRAILING_STOP_LIMIT,
}
TRAILING: Final = (OrderType.TRAILING_STOP, OrderType.TRAILING_STOP_LIMIT)
TRIGGERED: Final = (
    OrderType.STOP_LOSS,
    OrderType.STOP_LOSS_LIMIT,
    OrderType.TAKE_PROFIT,
    OrderType.TAKE_PROFIT_LIMIT,
    *TRAILING,
)
LIMITED: Final = (
    OrderType.LIMIT,
    OrderType.STOP_LOSS_LIMIT,
    OrderType.TAKE_PROFIT_LIMIT,
    OrderType.TRAILING_STOP_LIMIT,
)
PREVENTIONS: Final = {
    "cancel-newest": SelfTradePrevention.EXPIRE_TAKER,
    "cancel-oldest": SelfTradePrevention.EXPIRE_MAKER,
    "cancel-both": SelfTradePrevention.EXPIRE_BOTH,
}
TIMES_IN_FORCE: Final = {
    "GTC": TimeInForce.GTC,
    "GTD": TimeInForce.GTC,
    "IOC": TimeInForce.IOC,
    "FOK": TimeInForce.FOK,
}
FLAGS: Final = frozenset({"post", "fcib", "fciq", "nompp", "viqc"})
DEADLINE_MAX_MS: Final = 60_000
PRICE_MAX_TICKS: Final = 10**12

_USERREF_MAX: Final = (1 << 31) - 1
# Long UUID, short UUID or up to 18 characters of free text.
# Source: docs.kraken.com, Spot Client Order Identifiers.
_CLIENT_ID: Final = re.compile(
    r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-9A-Fa-f]{32}|[\x21-\x7e]{1,18}"
)


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the core keeps with an order though only this dialect knows it."""

    userref: int = 0
    type: str = "limit"
    flags: tuple[str, ...] = ("fciq",)
    good_till: str = "GTC"
    trail: str = ""
    limit_offset: str = ""

    def text(self) -> str:
        """The note as the core stores it."""
        return msgspec.json.encode(self).decode()


def note_of(text: str) -> Note:
    """The note of an order; an order of another dialect has none."""
    return msgspec.json.decode(text, type=Note) if text else Note()


@dataclass(frozen=True, slots=True)
class Draft:
    """A new order. Texts are as they were sent; `flags` are REST's `oflags`."""

    pair: Pair
    side: Side
    type: str
    volume: str
    price: str = ""
    trigger: str = ""
    good_till: str = "GTC"
    expire_ms: int | None = None
    flags: frozenset[str] = frozenset()
    prevention: str = "cancel-newest"
    display: str = ""
    client_order_id: str = ""
    userref: int = 0
    is_validation: bool = False

    @property
    def kind(self) -> OrderType:
        """The core's type of the order."""
        return TYPES[self.type]


def side_of(text: str, argument: str) -> Side:
    """The side a text names.

    Raises:
        KrakenRefusal: it names none.
    """
    if text not in ("buy", "sell"):
        raise invalid(argument)
    return Side.BUY if text == "buy" else Side.SELL


def require_type(text: str, argument: str) -> str:
    """An order type the venue knows.

    Raises:
        KrakenRefusal: it is none, or one of margin trading.
    """
    if text not in TYPES:
        raise invalid(argument)
    return text


def require_client_id(text: str) -> str:
    """A client order id in one of the three forms.

    Raises:
        KrakenRefusal: it has none of them.
    """
    if _CLIENT_ID.fullmatch(text) is None:
        raise invalid("cl_ord_id")
    return text


def require_userref(value: Any, argument: str) -> int:
    """A user reference: a signed number of 32 bits.

    Raises:
        KrakenRefusal: it is none.
    """
    text = str(value)
    if re.fullmatch(r"-?[0-9]{1,10}", text) is None or abs(int(text)) > _USERREF_MAX:
        raise invalid(argument)
    return int(text)


def require_deadline(text: str, now_ms: int) -> None:
    """Refuse a request that comes too late, or that may come much later than it should.

    The venue asks for two seconds at least when a request is made; how long it was on its way is
    not to be seen here, so that a deadline not yet over is taken.

    Raises:
        KrakenRefusal: the deadline is over, or no time of the next minute.
    """
    deadline_ms = numbers.ms_from_rfc3339(text)
    if deadline_ms is None or deadline_ms > now_ms + DEADLINE_MAX_MS:
        raise invalid("deadline")
    if deadline_ms <= now_ms:
        raise KrakenRefusal(errors.DEADLINE_ELAPSED)


def command(
    draft: Draft, *, account: str, at_ms: int, last_ticks: int, quote_lots: int | None = None
) -> PlaceOrder:
    """The order for the core. `last_ticks` is what relative prices are relative to.

    `quote_lots` are the lots that a volume in quote currency stands for.

    Raises:
        KrakenRefusal: an argument is missing, malformed, off the grid or below a minimum.
    """
    spec, kind = draft.pair.spec, draft.kind
    lots = quote_lots if quote_lots is not None else volume_lots(draft.pair, draft.volume)
    limit_ticks, offset_ticks = None, None
    if kind is OrderType.TRAILING_STOP_LIMIT:
        # The core counts away from the stop in the direction the order trades.
        away = 1 if draft.side is Side.BUY else -1
        offset_ticks = away * _signed_offset(draft.pair, draft.price, last_ticks)
    elif kind in LIMITED:
        limit_ticks = price_ticks(draft.pair, draft.price, last_ticks)
    ppm, ticks = _trail(draft, last_ticks) if kind in TRAILING else (0, 0)
    stop = draft.trigger if kind in TRIGGERED and kind not in TRAILING else ""
    trigger_ticks = price_ticks(draft.pair, draft.trigger, last_ticks) if stop else None
    if kind in TRIGGERED and kind not in TRAILING and trigger_ticks is None:
        raise invalid("price")
    reference = limit_ticks or trigger_ticks or last_ticks
    _require_minimums(spec, reference, lots)
    _require_consistent(draft)
    flags = _stored_flags(draft)
    return PlaceOrder(
        at_ms=at_ms,
        account=account,
        symbol=spec.name,
        client_order_id=draft.client_order_id,
        side=draft.side,
        type=kind,
        time_in_force=TIMES_IN_FORCE[draft.good_till],
        price_ticks=limit_ticks,
        quantity_lots=lots,
        self_trade_prevention=PREVENTIONS[draft.prevention],
        post_only="post" in draft.flags,
        trigger_ticks=trigger_ticks,
        trailing_ppm=ppm,
        trailing_ticks=ticks,
        limit_offset_ticks=offset_ticks,
        expire_ms=draft.expire_ms if draft.good_till == "GTD" else None,
        display_lots=volume_lots(draft.pair, draft.display) if draft.display else 0,
        fee_in=FeeIn.BASE if "fcib" in flags else FeeIn.QUOTE,
        note=Note(
            userref=draft.userref,
            type=draft.type,
            flags=flags,
            good_till=draft.good_till,
            trail=draft.trigger if kind in TRAILING else "",
            limit_offset=draft.price if kind is OrderType.TRAILING_STOP_LIMIT else "",
        ).text(),
    )


def price_ticks(pair: Pair, text: str, last_ticks: int) -> int:
    """Ticks of a price, absolute or relative to the last trade (`+100`, `-2%`).

    Raises:
        KrakenRefusal: it is missing, no number, not positive or off the grid.
    """
    if text[:1] in ("+", "-"):
        ticks = last_ticks + _signed_offset(pair, text, last_ticks)
    else:
        units = numbers.units_of(text)
        if units is None or units <= 0:
            raise invalid("price")
        ticks, rest = divmod(units, pair.spec.tick_units)
        if rest:
            raise too_precise(pair.altname, "price", numbers.price_decimals(pair.spec))
    if not 0 < ticks <= PRICE_MAX_TICKS:
        raise invalid("price")
    return ticks


def volume_lots(pair: Pair, text: str) -> int:
    """Lots of a volume in base currency.

    Raises:
        KrakenRefusal: it is no positive number or too precise for the pair.
    """
    units = numbers.units_of(text)
    if units is None or units <= 0:
        raise invalid("volume")
    lots, rest = divmod(units, pair.spec.lot_units)
    if rest:
        raise too_precise(pair.altname, "volume", numbers.lot_decimals(pair.spec))
    if lots > pair.spec.max_lots:
        raise invalid("volume")
    return lots


def quote_units(draft: Draft) -> int:
    """Quote units of a volume in quote currency.

    Raises:
        KrakenRefusal: it is no positive number, or the order is no market order.
    """
    units = numbers.units_of(draft.volume)
    if draft.kind is not OrderType.MARKET:
        raise invalid("viqc")
    if units is None or units <= 0:
        raise invalid("volume")
    return units


def _require_minimums(spec: SymbolSpec, ticks: int, lots: int) -> None:
    if lots < 1:
        raise KrakenRefusal(errors.ORDER_MINIMUM)
    if spec.notional_units(ticks, lots) < spec.min_notional_units:
        raise KrakenRefusal(errors.COST_MINIMUM)


def _require_consistent(draft: Draft) -> None:
    if draft.client_order_id and draft.userref:
        raise invalid("cl_ord_id and userref are mutually exclusive")
    if "post" in draft.flags and (draft.kind is not OrderType.LIMIT or draft.good_till == "IOC"):
        raise invalid("oflags")
    if {"fcib", "fciq"} <= draft.flags:
        raise invalid("oflags")
    if (draft.type == "iceberg") != bool(draft.display):
        raise invalid("displayvol")
    if draft.good_till == "GTD" and draft.expire_ms is None:
        raise invalid("expiretm")


def _stored_flags(draft: Draft) -> tuple[str, ...]:
    """The flags an order shows: the fee's currency is always told."""
    fee = "fcib" if "fcib" in draft.flags else "fciq"
    return tuple(sorted((draft.flags - {"fcib", "fciq"}) | {fee}))


def _signed_offset(pair: Pair, text: str, last_ticks: int) -> int:
    """Ticks of `+100`, `-100`, `+2%`; cut off to the grid.

    Raises:
        KrakenRefusal: it is no offset.
    """
    is_percent = text.endswith("%")
    units = numbers.units_of(text.removesuffix("%"))
    if units is None or text[:1] not in ("+", "-"):
        raise invalid("price")
    size = abs(units)
    ticks = last_ticks * size // (100 * UNIT) if is_percent else size // pair.spec.tick_units
    return -ticks if units < 0 else ticks


def _trail(draft: Draft, last_ticks: int) -> tuple[int, int]:
    """How far a trailing stop follows: (millionths, ticks), one of them zero.

    Raises:
        KrakenRefusal: it is not a positive relative price.
    """
    text = draft.trigger
    if text.endswith("%"):
        units = numbers.units_of(text.removesuffix("%"))
        ppm, ticks = (units or 0) * PPM // (100 * UNIT), 0
    else:
        ppm, ticks = 0, _signed_offset(draft.pair, text, last_ticks)
    if not text.startswith("+") or ppm < 0 or ticks < 0 or not ppm + ticks:
        raise invalid("price")
    return ppm, ticks
