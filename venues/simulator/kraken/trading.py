"""What clients do to orders, whichever way they ask: place, cancel, amend, edit, dead man's switch.

Every verb counts in the trading engine's limits before it is done, as on the venue.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from venues.simulator.commands import (
    AmendOrder,
    CancelAll,
    CancelOrder,
    OrderUpdated,
    PlaceOrder,
    SetDeadMan,
    VenueEvent,
)
from venues.simulator.kraken import errors, ids, market_data
from venues.simulator.kraken.context import Kraken
from venues.simulator.kraken.counters import Transaction
from venues.simulator.kraken.drafts import (
    Draft,
    command,
    note_of,
    price_ticks,
    quote_units,
    volume_lots,
)
from venues.simulator.kraken.errors import KrakenRefusal, invalid, translated
from venues.simulator.kraken.ids import Kind
from venues.simulator.kraken.names import Pair
from venues.simulator.model import Order
from venues.simulator.state import Account

DEAD_MAN_S_MAX = 86_400


@dataclass(frozen=True, slots=True)
class Changes:
    """What an amend or an edit asks for; empty texts leave things as they are."""

    volume: str = ""
    price: str = ""
    trigger: str = ""
    display: str = ""
    post_only: bool = False
    flags: frozenset[str] | None = None
    userref: int = 0


def order_id(kraken: Kraken, order: Order) -> str:
    """The order's id as clients see it."""
    index = kraken.directory.of_market(order.symbol).index
    return ids.encode(Kind.ORDER, order.order_id, index)


def find(kraken: Kraken, account: Account, text: str) -> Order | None:
    """The account's order of an id, or None."""
    found = ids.decode(Kind.ORDER, text)
    pairs = kraken.directory.pairs
    if found is None or found[1] >= len(pairs):
        return None
    market = pairs[found[1]].spec.name
    return kraken.core.state.find_order(account.spec.name, market, found[0])


def open_orders(kraken: Kraken, account: Account) -> list[Order]:
    """The account's open orders, oldest first."""
    return kraken.core.state.open_orders_of(account.spec.name)


def find_open(
    kraken: Kraken, account: Account, *, txid: str = "", client_order_id: str = ""
) -> list[Order]:
    """The open orders that an id, a client id or a user reference (a number as id) names.

    Raises:
        KrakenRefusal: there is none.
    """
    if client_order_id:
        found = [
            order
            for order in open_orders(kraken, account)
            if order.client_order_id == client_order_id
        ]
    elif txid.lstrip("-").isdigit():
        userref = int(txid)
        found = [
            order
            for order in open_orders(kraken, account)
            if userref and note_of(order.note).userref == userref
        ]
    else:
        order = find(kraken, account, txid)
        found = [order] if order is not None and order.status.is_open else []
    if not found:
        raise KrakenRefusal(errors.UNKNOWN_ORDER)
    return found


def prepared(kraken: Kraken, account: Account, draft: Draft) -> PlaceOrder:
    """The core's order of a draft, checked but for what the exchange checks.

    Raises:
        KrakenRefusal: the draft cannot be an order.
    """
    core, market = kraken.core, kraken.market(draft.pair)
    client_id = draft.client_order_id
    if client_id and core.state.find_open_by_client_id(account.spec.name, client_id):
        raise KrakenRefusal(errors.NOT_UNIQUE)
    lots = None
    if "viqc" in draft.flags:
        units = quote_units(draft)
        lots = translated(
            lambda: core.exchange.resolve_quantity(draft.pair.spec.name, draft.side, units)
        )
    return command(
        draft,
        account=account.spec.name,
        at_ms=core.accepted_at(),
        last_ticks=market_data.last_ticks(market),
        quote_lots=lots,
    )


def validate(kraken: Kraken, account: Account, draft: Draft) -> PlaceOrder:
    """Check an order as if it were placed.

    Raises:
        KrakenRefusal: it would be refused.
    """
    order = prepared(kraken, account, draft)
    translated(lambda: kraken.core.exchange.check(order))
    return order


def place(kraken: Kraken, account: Account, draft: Draft) -> Order:
    """Place an order; answers it as it stands after its first match.

    Raises:
        KrakenRefusal: the venue refuses it.
    """
    _count(kraken, account, draft.pair, Transaction.ADD.points(0))
    order = prepared(kraken, account, draft)
    _require_room(kraken, account, order.symbol)
    number = kraken.market(draft.pair).next_order_id
    translated(lambda: kraken.core.execute(order))
    placed = kraken.core.state.order(order.symbol, number)
    assert placed is not None
    return placed


def cancel(kraken: Kraken, account: Account, order: Order) -> None:
    """Cancel an open order. It raises the counter but is never refused for it.

    Raises:
        KrakenRefusal: it is not open any more.
    """
    core, market = kraken.core, order.symbol
    points = Transaction.CANCEL.points(core.now_ms() - order.updated_ms)
    kraken.limits.transaction(account.spec.name, market, points, core.now_ms())
    cancelling = CancelOrder(core.accepted_at(), order.account, market, order.order_id)
    translated(lambda: core.execute(cancelling))


def cancel_many(kraken: Kraken, account: Account, orders: Sequence[Order]) -> int:
    """Cancel open orders; answers how many there were."""
    for order in orders:
        cancel(kraken, account, order)
    return len(orders)


def cancel_all(kraken: Kraken, account: Account) -> int:
    """Cancel all open orders of an account; answers how many there were."""
    count = len(open_orders(kraken, account))
    if count:
        kraken.core.execute(CancelAll(kraken.core.accepted_at(), account.spec.name, None))
    return count


def cancel_all_after(kraken: Kraken, account: Account, timeout_s: int) -> tuple[int, int]:
    """Set the dead man's switch, or take it off with 0; answers (now, when it fires or 0), in ms.

    Raises:
        KrakenRefusal: the timeout is out of bounds.
    """
    if not 0 <= timeout_s <= DEAD_MAN_S_MAX:
        raise invalid("timeout")
    now_ms = kraken.core.accepted_at()
    fires_ms = now_ms + timeout_s * 1000 if timeout_s else None
    kraken.core.execute(SetDeadMan(now_ms, account.spec.name, fires_ms))
    return now_ms, fires_ms or 0


def amend(kraken: Kraken, account: Account, order: Order, changes: Changes) -> str:
    """Change an open order, which keeps its ids; answers the amendment's id.

    Raises:
        KrakenRefusal: the venue refuses the change.
    """
    _count_on(kraken, account, order, Transaction.AMEND)
    pair, core = kraken.directory.of_market(order.symbol), kraken.core
    last = market_data.last_ticks(kraken.market(pair))
    if not (changes.volume or changes.price or changes.trigger or changes.display):
        raise invalid("order_qty")
    lots = volume_lots(pair, changes.volume) if changes.volume else order.quantity_lots
    if lots <= order.filled_lots + order.prevented_lots:
        return _amend_to_filled(kraken, pair, order)
    amending = AmendOrder(
        at_ms=core.accepted_at(),
        account=order.account,
        symbol=order.symbol,
        order_id=order.order_id,
        quantity_lots=lots,
        price_ticks=price_ticks(pair, changes.price, last) if changes.price else None,
        trigger_ticks=price_ticks(pair, changes.trigger, last) if changes.trigger else None,
        post_only=changes.post_only,
        display_lots=volume_lots(pair, changes.display) if changes.display else None,
    )
    translated(lambda: core.execute(amending))
    number = len(core.state.amendments_of(order.symbol, order.order_id))
    return ids.encode(Kind.AMEND, order.order_id << 20 | number, pair.index)


def _amend_to_filled(kraken: Kraken, pair: Pair, order: Order) -> str:
    """Cancel what is left of an order whose new quantity has been traded already.

    Source: Kraken's guide "Spot Atomic Amends", "Amending Below Fill Quantity".
    """
    core = kraken.core
    ending = CancelOrder(core.accepted_at(), order.account, order.symbol, order.order_id)
    translated(lambda: core.execute(ending))
    number = len(core.state.amendments_of(order.symbol, order.order_id)) + 1
    return ids.encode(Kind.AMEND, order.order_id << 20 | number, pair.index)


def edit(kraken: Kraken, account: Account, order: Order, changes: Changes) -> Order:
    """Replace an open order by another one with an id of its own; answers the new one.

    What was already traded stays with the old one, and a new volume below it is refused. When the
    venue refuses the new one for a reason that shows only at the book or in the balance, the old one
    is gone all the same: Kraken calls the model "cancel-new" and says no more, so this is the worse
    of the two ways it may be.

    Raises:
        KrakenRefusal: the venue refuses the new order.
    """
    _count_on(kraken, account, order, Transaction.EDIT)
    pair, note = kraken.directory.of_market(order.symbol), note_of(order.note)
    if changes.volume and volume_lots(pair, changes.volume) < order.filled_lots:
        raise invalid("volume")
    draft = replace(
        as_draft(kraken, order),
        volume=changes.volume or _remaining_text(pair, order),
        display=changes.display,
        flags=frozenset(note.flags) if changes.flags is None else changes.flags,
        userref=changes.userref or note.userref,
        client_order_id="",
    )
    if changes.price:
        draft = replace(draft, price=changes.price)
    if changes.trigger:
        draft = replace(draft, trigger=changes.trigger)
    prepared(kraken, account, draft)
    at_ms = kraken.core.accepted_at()
    cancelling = CancelOrder(at_ms, order.account, order.symbol, order.order_id)
    translated(lambda: kraken.core.execute(cancelling))
    return place(kraken, account, draft)


def as_draft(kraken: Kraken, order: Order) -> Draft:
    """The order as its client could have written it, prices absolute."""
    pair, note = kraken.directory.of_market(order.symbol), note_of(order.note)
    spec = pair.spec
    limit, trigger = order.price_ticks, order.trigger_ticks
    return Draft(
        pair=pair,
        side=order.side,
        type=note.type,
        volume=_volume_text(pair, order.quantity_lots),
        price=note.limit_offset
        or ("" if limit is None else market_data.plain(limit * spec.tick_units)),
        trigger=note.trail
        or ("" if trigger is None else market_data.plain(trigger * spec.tick_units)),
        good_till=note.good_till,
        expire_ms=order.expire_ms,
        flags=frozenset(note.flags),
        display=_volume_text(pair, order.display_lots) if order.display_lots else "",
        client_order_id=order.client_order_id,
        userref=note.userref,
    )


def updates_of(events: Sequence[VenueEvent], account: str) -> list[OrderUpdated]:
    """What happened to orders of an account, in order."""
    return [e for e in events if isinstance(e, OrderUpdated) and e.order.account == account]


def _volume_text(pair: Pair, lots: int) -> str:
    return market_data.plain(lots * pair.spec.lot_units)


def _remaining_text(pair: Pair, order: Order) -> str:
    return _volume_text(pair, order.quantity_lots - order.filled_lots)


def _require_room(kraken: Kraken, account: Account, market: str) -> None:
    limits = kraken.limits
    if not limits.enforced:
        return
    of_pair = [order for order in open_orders(kraken, account) if order.symbol == market]
    if len(of_pair) >= limits.tier.open_orders_max:
        raise KrakenRefusal(errors.OPEN_ORDERS_EXCEEDED)


def _count(kraken: Kraken, account: Account, pair: Pair, points: int) -> None:
    now_ms = kraken.core.now_ms()
    if not kraken.limits.transaction(account.spec.name, pair.spec.name, points, now_ms):
        raise KrakenRefusal(errors.ORDERS_EXCEEDED)


def _count_on(kraken: Kraken, account: Account, order: Order, what: Transaction) -> None:
    pair, now_ms = kraken.directory.of_market(order.symbol), kraken.core.now_ms()
    _count(kraken, account, pair, what.points(now_ms - order.updated_ms))
