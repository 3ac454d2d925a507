"""How a venue's public data is reached, and with how much patience."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from venues.capabilities import BucketRule, CallClass, RateLimits, Refill


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPolicy:
    """How a feed is watched and rebuilt. What a silence means is each machine's own policy.

    Attributes:
        connect_timeout: until a socket that does not open is given up.
        look_every: how often the machine is given the time, by which it judges what is too old.
        answer_timeout: until a request for a book is given up.
        asking_max: requests under way at once; one that hangs takes one of these places.
        backoff_min, backoff_max: pauses before a connection or a request is made again.
        steady_after: a connection that lived this long was a good one; the pauses begin anew.
        session_max: the longest life of a socket; Binance ends one after 24 hours by itself.
        view_levels: levels of each side that consumers are shown.
        keep_every: how often status rows are written.
    """

    connect_timeout: timedelta = timedelta(seconds=10)
    look_every: timedelta = timedelta(milliseconds=500)
    answer_timeout: timedelta = timedelta(seconds=5)
    asking_max: int = 8
    backoff_min: timedelta = timedelta(milliseconds=200)
    backoff_max: timedelta = timedelta(seconds=20)
    steady_after: timedelta = timedelta(seconds=30)
    session_max: timedelta = timedelta(hours=23)
    view_levels: int = 100
    keep_every: timedelta = timedelta(seconds=5)


def polite(per_minute: int, *, book: int = 1, check: int = 1, used_header: str = "") -> RateLimits:
    """Return limits of *per_minute* weight for books (*book* each) and checks (*check* each).

    A third of it is kept for books: without one nothing can be shown.
    """
    rule = BucketRule(
        name="weight",
        capacity=per_minute,
        period=timedelta(minutes=1),
        refill=Refill.STEADY,
        order_reserve=per_minute // 3,
        used_header=used_header,
    )
    costs = {CallClass.BOOK: {"weight": book}, CallClass.BOOK_CHECK: {"weight": check}}
    return RateLimits(buckets=(rule,), costs=costs, back_off=timedelta(seconds=10))


NO_LIMITS: Final = RateLimits(buckets=(), costs={}, back_off=timedelta(seconds=10))


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueWire:
    """A venue's public addresses, as values; `WebTransport` speaks to them.

    Attributes:
        ws_url: of the socket that every lane opens one of.
        book_url: address of the whole book of a symbol, to stitch updates to; None: it comes over
            the socket.
        check_url: address of a symbol's book to compare ours with; None: it is never compared.
        limits: what may be asked by REST (`CallClass.BOOK`, `CallClass.BOOK_CHECK`).
        heartbeat: WebSocket pings are sent this often and have to be answered; None: the venue
            pings us, or has a heartbeat of its own.
        send_every: pause after each frame that we send; Binance takes 5 in a second.
        frame_bytes_max: a longer frame ends the connection.
    """

    ws_url: str
    book_url: Callable[[str], str] | None = None
    check_url: Callable[[str], str] | None = None
    limits: RateLimits = NO_LIMITS
    heartbeat: timedelta | None = timedelta(seconds=15)
    send_every: timedelta = timedelta(milliseconds=250)
    frame_bytes_max: int = 16 * 2**20
    headers: Mapping[str, str] = field(default_factory=dict)
