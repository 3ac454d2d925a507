"""WebSocket v2 requests that trade: the same verbs as over REST, in other words.

Source: docs.kraken.com, WebSocket v2: add_order, amend_order, edit_order, cancel_order, cancel_all,
cancel_all_orders_after, batch_add, batch_cancel.
"""

from collections.abc import Callable
from typing import Final

from venues.simulator.connections import Json
from venues.simulator.kraken import errors, numbers, order_rows, trading
from venues.simulator.kraken.context import Call
from venues.simulator.kraken.drafts import (
    PREVENTIONS,
    TIMES_IN_FORCE,
    TRAILING,
    TRIGGERED,
    TYPES,
    Draft,
    require_client_id,
    require_deadline,
    require_type,
    require_userref,
    side_of,
)
from venues.simulator.kraken.errors import KrakenRefusal, invalid
from venues.simulator.kraken.names import Pair
from venues.simulator.kraken.rest_trading import BATCH_MAX, BATCH_MIN, whole_second
from venues.simulator.kraken.trading import Changes
from venues.simulator.model import Order

BATCH_CANCEL_MAX: Final = 50

# Answers of a request: some have one per order. A refused one is a KrakenRefusal among them.
Answers = list[Json | KrakenRefusal]


def add_order(call: Call) -> Answers:
    """Place an order."""
    _check_deadline(call)
    draft = read_draft(call, _pair(call))
    if draft.is_validation:
        trading.validate(call.kraken, call.account, draft)
        return [{}]
    return [_placed(call, draft)]


def amend_order(call: Call) -> Answers:
    """Change an order, which keeps its ids."""
    _check_deadline(call)
    order = _one(call)
    changes = Changes(
        volume=call.optional_text("order_qty"),
        price=call.optional_text("limit_price"),
        trigger=call.optional_text("trigger_price"),
        display=call.optional_text("display_qty"),
        post_only=call.flag("post_only"),
    )
    amend_id = trading.amend(call.kraken, call.account, order, changes)
    answer: Json = {"amend_id": amend_id, "order_id": trading.order_id(call.kraken, order)}
    if order.client_order_id:
        answer["cl_ord_id"] = order.client_order_id
    return [answer]


def edit_order(call: Call) -> Answers:
    """Cancel an order and place another one in its place."""
    _check_deadline(call)
    pair, order = _pair(call), _one(call)
    if order.symbol != pair.spec.name:
        raise KrakenRefusal(errors.UNKNOWN_ORDER)
    sent_triggers = call.sent.get("triggers")
    trigger = sent_triggers.get("price") if isinstance(sent_triggers, dict) else None
    changes = Changes(
        volume=call.optional_text("order_qty"),
        price=call.optional_text("limit_price"),
        trigger="" if trigger is None else str(trigger),
        display=call.optional_text("display_qty"),
        userref=_userref(call),
        flags=frozenset({"post"}) if call.flag("post_only") else None,
    )
    edited = trading.edit(call.kraken, call.account, order, changes)
    return [
        {
            "order_id": order_rows.txid(pair, edited),
            "original_order_id": order_rows.txid(pair, order),
        }
    ]


def cancel_order(call: Call) -> Answers:
    """Cancel the named orders: one answer for each."""
    return [_cancelled(call, txid, client_id) for txid, client_id in _named(call)]


def cancel_all(call: Call) -> Answers:
    """Cancel all open orders."""
    return [{"count": trading.cancel_all(call.kraken, call.account)}]


def cancel_all_orders_after(call: Call) -> Answers:
    """Set the dead man's switch."""
    call.text("timeout")
    timeout_s = call.integer("timeout", 0)
    now_ms, fires_ms = trading.cancel_all_after(call.kraken, call.account, timeout_s)
    fires = whole_second(fires_ms) if fires_ms else "0"
    return [{"currentTime": whole_second(now_ms), "triggerTime": fires}]


def batch_add(call: Call) -> Answers:
    """Place orders of one pair; the answer holds one result for each."""
    _check_deadline(call)
    pair, rows = _pair(call), call.sent.get("orders")
    if not isinstance(rows, list) or not BATCH_MIN <= len(rows) <= BATCH_MAX:
        raise invalid("orders")
    if not all(isinstance(row, dict) for row in rows):
        raise invalid("orders")
    calls = [Call(call.kraken, row, call.caller, call.api_key) for row in rows]
    drafts = [read_draft(each, pair) for each in calls]
    if call.flag("validate"):
        for draft in drafts:
            trading.validate(call.kraken, call.account, draft)
        return [{}]
    return [{"result": [_placed_or_error(call, draft) for draft in drafts]}]


def batch_cancel(call: Call) -> Answers:
    """Cancel what of the named orders is open; the count stands beside the result."""
    found: dict[tuple[str, int], Order] = {}
    named = _named(call, names="orders")
    if len(named) > BATCH_CANCEL_MAX:
        raise invalid("orders")
    for txid, client_id in named:
        try:
            orders = trading.find_open(
                call.kraken, call.account, txid=txid, client_order_id=client_id
            )
        except KrakenRefusal:
            continue
        found |= {(order.symbol, order.order_id): order for order in orders}
    count = trading.cancel_many(call.kraken, call.account, list(found.values()))
    return [{"orders_cancelled": count}]


METHODS: Final[dict[str, Callable[[Call], Answers]]] = {
    "add_order": add_order,
    "amend_order": amend_order,
    "edit_order": edit_order,
    "cancel_order": cancel_order,
    "cancel_all": cancel_all,
    "cancel_all_orders_after": cancel_all_orders_after,
    "batch_add": batch_add,
    "batch_cancel": batch_cancel,
}


def read_draft(call: Call, pair: Pair) -> Draft:
    """A new order as WebSocket v2 describes it.

    Raises:
        KrakenRefusal: a parameter is missing or malformed.
    """
    kind = require_type(call.text("order_type"), "order_type")
    good_till = call.optional_text("time_in_force", "gtc").upper()
    prevention = call.optional_text("stp_type", "cancel_newest").replace("_", "-")
    if good_till not in TIMES_IN_FORCE:
        raise invalid("time_in_force")
    if prevention not in PREVENTIONS:
        raise invalid("stp_type")
    _refuse_what_is_not_spot(call)
    in_quote = call.has("cash_order_qty")
    client_id = call.optional_text("cl_ord_id")
    return Draft(
        pair=pair,
        side=side_of(call.text("side"), "side"),
        type=kind,
        volume=call.text("cash_order_qty" if in_quote else "order_qty"),
        price=_relative(call, "limit_price", call.optional_text("limit_price_type", "static")),
        trigger=_trigger(call) if TYPES[kind] in TRIGGERED else "",
        good_till=good_till,
        expire_ms=_expiry(call),
        flags=_flags(call, in_quote=in_quote),
        prevention=prevention,
        display=call.optional_text("display_qty"),
        client_order_id=require_client_id(client_id) if client_id else "",
        userref=_userref(call),
        is_validation=call.flag("validate"),
    )


def _placed(call: Call, draft: Draft) -> Json:
    order = trading.place(call.kraken, call.account, draft)
    answer: Json = {"order_id": order_rows.txid(draft.pair, order)}
    if draft.client_order_id:
        answer["cl_ord_id"] = draft.client_order_id
    if draft.userref:
        answer["order_userref"] = draft.userref
    return answer


def _placed_or_error(call: Call, draft: Draft) -> Json:
    try:
        return _placed(call, draft)
    except KrakenRefusal as refusal:
        return {"error": refusal.text}


def _cancelled(call: Call, txid: str, client_id: str) -> Json | KrakenRefusal:
    try:
        found = trading.find_open(call.kraken, call.account, txid=txid, client_order_id=client_id)
        trading.cancel_many(call.kraken, call.account, found)
    except KrakenRefusal as refusal:
        return refusal
    if client_id:
        return {"cl_ord_id": client_id}
    return {"order_id": trading.order_id(call.kraken, found[0])}


def _named(call: Call, names: str = "order_id") -> list[tuple[str, str]]:
    """(id or user reference, client id) of every order a request names."""
    found = [(name, "") for name in _list(call, names) + _list(call, "order_userref")]
    found += [("", client_id) for client_id in _list(call, "cl_ord_id")]
    if not found:
        raise invalid(names)
    return found


def _one(call: Call) -> Order:
    txid, client_id = _named(call)[0]
    return trading.find_open(call.kraken, call.account, txid=txid, client_order_id=client_id)[0]


def _list(call: Call, name: str) -> list[str]:
    value = call.sent.get(name, [])
    return [str(each) for each in (value if isinstance(value, list) else [value])]


def _pair(call: Call) -> Pair:
    name = call.text("symbol")
    found = call.kraken.directory.find_symbol(name)
    if found is None:
        raise KrakenRefusal(f"Currency pair not supported {name}")
    return found


def _check_deadline(call: Call) -> None:
    if call.has("deadline"):
        require_deadline(call.text("deadline"), call.core.now_ms())


def _refuse_what_is_not_spot(call: Call) -> None:
    if call.flag("margin"):
        raise KrakenRefusal(errors.MARGIN_REFUSED)
    if call.flag("reduce_only"):
        raise KrakenRefusal(errors.REDUCE_ONLY_REFUSED)
    for name in ("conditional", "effective_time"):
        if call.has(name):
            raise invalid(name)


def _trigger(call: Call) -> str:
    """The trigger price as REST writes it: absolute, or with a sign and maybe a percent."""
    sent = call.sent.get("triggers")
    if not isinstance(sent, dict) or sent.get("price") is None:
        raise invalid("triggers")
    if sent.get("reference", "last") != "last":
        raise invalid("triggers")
    inner = Call(call.kraken, sent)
    kind = TYPES[call.text("order_type")]
    default = "quote" if kind in TRAILING else "static"
    return _relative(inner, "price", inner.optional_text("price_type", default))


def _relative(call: Call, name: str, price_type: str) -> str:
    text = call.optional_text(name)
    if not text or price_type == "static":
        return text
    if price_type not in ("pct", "quote"):
        raise invalid(name)
    signed = text if text[0] in "+-" else f"+{text}"
    return f"{signed}%" if price_type == "pct" else signed


def _flags(call: Call, *, in_quote: bool) -> frozenset[str]:
    preference = call.optional_text("fee_preference", "quote")
    if preference not in ("base", "quote"):
        raise invalid("fee_preference")
    named = {
        "post": call.flag("post_only"),
        "nompp": call.flag("no_mpp"),
        "viqc": in_quote,
        "fcib": preference == "base",
    }
    return frozenset(name for name, is_set in named.items() if is_set)


def _userref(call: Call) -> int:
    if not call.has("order_userref"):
        return 0
    return require_userref(call.text("order_userref"), "order_userref")


def _expiry(call: Call) -> int | None:
    if not call.has("expire_time"):
        return None
    expire_ms = numbers.ms_from_rfc3339(call.text("expire_time"))
    if expire_ms is None or expire_ms <= call.core.now_ms():
        raise invalid("expire_time")
    return expire_ms
