"""Private REST endpoints that trade. Source: docs.kraken.com, Trading."""

from datetime import UTC, datetime
from typing import Any, Final

from venues.simulator.commands import PlaceOrder
from venues.simulator.kraken import errors, market_data, numbers, order_rows, trading
from venues.simulator.kraken.context import Call
from venues.simulator.kraken.drafts import (
    FLAGS,
    PREVENTIONS,
    TIMES_IN_FORCE,
    TRIGGERED,
    TYPES,
    Draft,
    note_of,
    require_client_id,
    require_deadline,
    require_type,
    require_userref,
    side_of,
)
from venues.simulator.kraken.errors import KrakenRefusal, invalid
from venues.simulator.kraken.names import Pair
from venues.simulator.kraken.trading import Changes
from venues.simulator.model import Order

BATCH_MIN: Final = 2
BATCH_MAX: Final = 15
CANCEL_BATCH_MAX: Final = 50


def add_order(call: Call) -> Any:
    """POST /0/private/AddOrder."""
    _check_deadline(call)
    draft = read_draft(call, call.pair())
    if draft.is_validation:
        order = trading.validate(call.kraken, call.account, draft)
        return {"descr": {"order": _checked_sentence(draft.pair, order)}}
    placed = trading.place(call.kraken, call.account, draft)
    pair = draft.pair
    return {"descr": order_rows.added_row(pair, placed), "txid": [order_rows.txid(pair, placed)]}


def add_order_batch(call: Call) -> Any:
    """POST /0/private/AddOrderBatch: orders of one pair, each done or refused by itself.

    All of them are read before the first one is placed: a malformed one refuses the whole batch.
    """
    _check_deadline(call)
    pair, rows = call.pair(), call.sent.get("orders")
    if not isinstance(rows, list) or not BATCH_MIN <= len(rows) <= BATCH_MAX:
        raise invalid("orders")
    if not all(isinstance(row, dict) for row in rows):
        raise invalid("orders")
    is_validation = {"validate": "true"} if call.flag("validate") else {}
    calls = [Call(call.kraken, row | is_validation, call.caller, call.api_key) for row in rows]
    drafts = [read_draft(each, pair) for each in calls]
    return {"orders": [_batched(call, draft) for draft in drafts]}


def cancel_order(call: Call) -> Any:
    """POST /0/private/CancelOrder, by id, user reference or client order id."""
    found = _named(call)
    return {"count": trading.cancel_many(call.kraken, call.account, found)}


def cancel_order_batch(call: Call) -> Any:
    """POST /0/private/CancelOrderBatch: what of the named orders is open."""
    names, client_ids = _list(call, "orders"), _list(call, "cl_ord_ids")
    if not 1 <= len(names) + len(client_ids) <= CANCEL_BATCH_MAX:
        raise invalid("orders")
    found: dict[tuple[str, int], Order] = {}
    for txid, client_id in [(n, "") for n in names] + [("", c) for c in client_ids]:
        try:
            orders = trading.find_open(
                call.kraken, call.account, txid=txid, client_order_id=client_id
            )
        except KrakenRefusal:
            continue
        found |= {(order.symbol, order.order_id): order for order in orders}
    if not found:
        raise KrakenRefusal(errors.UNKNOWN_ORDER)
    return {"count": trading.cancel_many(call.kraken, call.account, list(found.values()))}


def cancel_all(call: Call) -> Any:
    """POST /0/private/CancelAll."""
    return {"count": trading.cancel_all(call.kraken, call.account)}


def cancel_all_orders_after(call: Call) -> Any:
    """POST /0/private/CancelAllOrdersAfter: the dead man's switch."""
    call.text("timeout")
    timeout_s = call.integer("timeout", 0)
    now_ms, fires_ms = trading.cancel_all_after(call.kraken, call.account, timeout_s)
    return {
        "currentTime": whole_second(now_ms),
        "triggerTime": whole_second(fires_ms) if fires_ms else "0",
    }


def amend_order(call: Call) -> Any:
    """POST /0/private/AmendOrder: the order keeps its ids."""
    _check_deadline(call)
    order = _one_named(call)
    changes = Changes(
        volume=call.optional_text("order_qty"),
        price=call.optional_text("limit_price"),
        trigger=call.optional_text("trigger_price"),
        display=call.optional_text("display_qty"),
        post_only=call.flag("post_only"),
    )
    return {"amend_id": trading.amend(call.kraken, call.account, order, changes)}


def edit_order(call: Call) -> Any:
    """POST /0/private/EditOrder: the order is cancelled and another one takes its place."""
    _check_deadline(call)
    pair, order = call.pair(), _one_named(call)
    if order.symbol != pair.spec.name:
        raise KrakenRefusal(errors.UNKNOWN_ORDER)
    note = note_of(order.note)
    is_stop = TYPES[note.type] in TRIGGERED
    changes = Changes(
        volume=call.optional_text("volume"),
        price=call.optional_text("price2" if is_stop else "price"),
        trigger=call.optional_text("price") if is_stop else "",
        display=call.optional_text("displayvol"),
        flags=_flags(call) if call.has("oflags") else None,
        userref=_userref(call),
    )
    edited = trading.edit(call.kraken, call.account, order, changes)
    row = order_rows.description(pair, edited)
    return {
        "status": "ok",
        "txid": order_rows.txid(pair, edited),
        "originaltxid": order_rows.txid(pair, order),
        "volume": market_data.plain(edited.quantity_lots * pair.spec.lot_units),
        "price": row["price"],
        "price2": row["price2"],
        "orders_cancelled": 1,
        "descr": {"order": row["order"]},
    }


def read_draft(call: Call, pair: Pair) -> Draft:
    """A new order as REST describes it.

    Raises:
        KrakenRefusal: a parameter is missing or malformed.
    """
    kind = require_type(call.text("ordertype"), "ordertype")
    good_till = call.optional_text("timeinforce", "GTC").upper()
    prevention = call.optional_text("stptype", "cancel-newest")
    if good_till not in TIMES_IN_FORCE:
        raise invalid("timeinforce")
    if prevention not in PREVENTIONS:
        raise invalid("stptype")
    _refuse_what_is_not_spot(call)
    is_stop = TYPES[kind] in TRIGGERED
    client_id = call.optional_text("cl_ord_id")
    return Draft(
        pair=pair,
        side=side_of(call.text("type"), "type"),
        type=kind,
        volume=call.text("volume"),
        price=call.optional_text("price2" if is_stop else "price"),
        trigger=call.text("price") if is_stop else "",
        good_till=good_till,
        expire_ms=_expiry(call),
        flags=_flags(call),
        prevention=prevention,
        display=call.optional_text("displayvol"),
        client_order_id=require_client_id(client_id) if client_id else "",
        userref=_userref(call),
        is_validation=call.flag("validate"),
    )


def whole_second(at_ms: int) -> str:
    """A time to the second: `2021-03-24T17:41:56Z`."""
    return f"{datetime.fromtimestamp(at_ms // 1000, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def _checked_sentence(pair: Pair, order: PlaceOrder) -> str:
    note, spec = note_of(order.note), pair.spec
    limit, trigger = order.price_ticks, order.trigger_ticks
    return order_rows.sentence(
        pair,
        note,
        order.side,
        order.quantity_lots,
        note.limit_offset or numbers.price(spec, limit or 0),
        note.trail or numbers.price(spec, trigger or 0),
    )


def _batched(call: Call, draft: Draft) -> Any:
    try:
        if draft.is_validation:
            order = trading.validate(call.kraken, call.account, draft)
            return {"descr": {"order": _checked_sentence(draft.pair, order)}}
        placed = trading.place(call.kraken, call.account, draft)
    except KrakenRefusal as refusal:
        return {"error": refusal.text}
    pair = draft.pair
    return {"descr": order_rows.added_row(pair, placed), "txid": order_rows.txid(pair, placed)}


def _named(call: Call) -> list[Order]:
    client_id = call.optional_text("cl_ord_id")
    txid = "" if client_id else call.text("txid")
    return trading.find_open(call.kraken, call.account, txid=txid, client_order_id=client_id)


def _one_named(call: Call) -> Order:
    found = _named(call)
    if len(found) > 1:
        raise invalid("txid")
    return found[0]


def _list(call: Call, name: str) -> list[str]:
    rows = call.sent.get(name, [])
    if not isinstance(rows, list):
        raise invalid(name)
    return [str(row["txid"] if isinstance(row, dict) and "txid" in row else row) for row in rows]


def _check_deadline(call: Call) -> None:
    if call.has("deadline"):
        require_deadline(call.text("deadline"), call.core.now_ms())


def _refuse_what_is_not_spot(call: Call) -> None:
    if call.optional_text("leverage", "none") not in ("none", "0", "1"):
        raise KrakenRefusal(errors.MARGIN_REFUSED)
    if call.flag("reduce_only"):
        raise KrakenRefusal(errors.REDUCE_ONLY_REFUSED)
    if call.optional_text("trigger", "last") != "last":
        raise invalid("trigger")
    if call.optional_text("starttm", "0") != "0":
        raise invalid("starttm")
    if any(name.startswith("close") and call.has(name) for name in call.sent):
        raise invalid("close")


def _flags(call: Call) -> frozenset[str]:
    names = frozenset(name for name in call.optional_text("oflags").split(",") if name)
    if names - FLAGS:
        raise invalid("oflags")
    return names


def _userref(call: Call) -> int:
    return require_userref(call.text("userref"), "userref") if call.has("userref") else 0


def _expiry(call: Call) -> int | None:
    """`expiretm`: 0 for none, `+n` seconds from now, or a time in seconds."""
    text = call.optional_text("expiretm", "0")
    now_ms = call.core.now_ms()
    seconds = text.removeprefix("+")
    if not seconds.isdigit() or len(seconds) > 12:
        raise invalid("expiretm")
    if not int(seconds):
        return None
    expire_ms = int(seconds) * 1000 + (now_ms if text.startswith("+") else 0)
    if expire_ms <= now_ms:
        raise invalid("expiretm")
    return expire_ms
