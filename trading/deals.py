"""Booking deals, amending and cancelling them: each one chain in the ledger.

A batch is booked in a number of statements that does not grow with it, with one answer for each
request: one that is refused touches no other. A single deal is the batch of one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import islice
from operator import attrgetter
from typing import Final, TypeAlias
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput
from ledger.accounts import ensure_accounts
from ledger.errors import PostingRefused
from ledger.model import PostResult, Transfer, chain
from ledger.posting import post, require_applied
from marketdata.prices import record_prices
from risk.pre_deal import check_deals
from trading import store
from trading.capture import draft_deals
from trading.drafting import Draft, Refusal, proposed
from trading.errors import DealConflict, DealNotCancellable
from trading.model import Deal, DealPurpose, DealRequest, DealState
from trading.postings import account_keys, deal_chain, reversal_chain
from trading.tables import deal

DEALS_MAX: Final = 500
"""Deals listed at once, at most."""
BATCH_MAX: Final = 1_000
"""Deals booked at once, at most: their chains are one batch of the ledger."""

Outcome: TypeAlias = Deal | Refusal


async def book_deal(
    conn: AsyncConnection, request: DealRequest, *, book: int, now: datetime
) -> Deal:
    """Book a deal; the same request again returns the deal there is.

    A deal that names no recorded price is its own evidence: what was agreed is recorded as a price
    of kind ``agreed``, so that every deal has the id of one.

    Raises:
        DealConflict: the client reference names a deal of other content (says in which field), or
            the quote is dealt on already.
        UnknownRecord: the party or an asset is not registered.
        NoPrice: there is no price of that id.
        OffMarketPrice: the price is far from the market's, and no reason is given.
        Refused: a limit of the party is used up, or the value date is no business day.
        BadInput: the price is of another pair, or an asset has other decimal places.
    """
    (outcome,) = await book_deals(conn, [request], book=book, now=now)
    return _require(outcome)


async def book_deals(
    conn: AsyncConnection, requests: Sequence[DealRequest], *, book: int, now: datetime
) -> list[Outcome]:
    """Book deals in one posting; return for each request its deal, or why there is none.

    What is refused is what `book_deal` would raise. Limits count the batch itself, in its order.

    Raises:
        BadInput: more than `BATCH_MAX` deals.
    """
    if len(requests) > BATCH_MAX:
        raise BadInput(f"at most {BATCH_MAX} deals are booked at once, not {len(requests)}")
    first: dict[str, DealRequest] = {}
    for request in requests:
        first.setdefault(request.client_ref, request)
    outcomes: dict[str, Outcome] = {**await store.find_deals(conn, book, first)}
    fresh = [request for ref, request in first.items() if ref not in outcomes]
    if fresh:
        outcomes |= await _book(conn, fresh, amends=None, book=book, now=now)
    return [
        _same(outcomes[item.client_ref], item, first[item.client_ref], amends=None)
        for item in requests
    ]


async def cancel_deal(
    conn: AsyncConnection, deal_id: UUID, *, by: str, reason: str, now: datetime
) -> Deal:
    """Cancel a deal before it settles: its booking is reversed in full. Again: nothing happens.

    Raises:
        DealNotCancellable: settlement has its legs, or it was amended.
    """
    item = await store.get_deal(conn, deal_id, lock=True)
    if item.state is DealState.CANCELLED:
        return item
    _require_unsettled(item)
    require_applied(await _post(conn, item.book, reversal_chain(item), now))
    return await store.advance_deal(conn, item, DealState.CANCELLED, by=by, reason=reason, now=now)


async def amend_deal(
    conn: AsyncConnection, deal_id: UUID, replacement: DealRequest, *, now: datetime
) -> Deal:
    """Replace a deal before it settles: reversal and new booking are one chain.

    The replacement has a client reference of its own, by which it is booked once; see
    `trading.amendment`.

    Raises:
        DealNotCancellable: settlement has its legs, or it was cancelled or amended otherwise.
        DealConflict: the replacement's client reference names a deal of other content.
        CausewayError: what `book_deal` raises of the replacement.
    """
    old = await store.get_deal(conn, deal_id, lock=True)
    known = await store.find_deals(conn, old.book, [replacement.client_ref])
    outcomes: Mapping[str, Outcome] = known
    if not known:
        _require_unsettled(old)
        if replacement.purpose is not old.request.purpose:
            raise BadInput(
                f"a deal of purpose {old.request.purpose} is not amended to {replacement.purpose}",
                remedy="Cancel it and book another one",
            )
        outcomes = await _book(conn, [replacement], amends=old, book=old.book, now=now)
    outcome = outcomes[replacement.client_ref]
    new = _require(_same(outcome, replacement, replacement, amends=old.id))
    if not known:
        by, reason = replacement.booked_by, replacement.reason
        await store.advance_deal(conn, old, DealState.AMENDED, by=by, reason=reason, now=now)
    return new


async def get_deal(conn: AsyncConnection, deal_id: UUID) -> Deal:
    """Return a deal.

    Raises:
        NoDeal: there is none.
    """
    return await store.get_deal(conn, deal_id)


async def find_deal(conn: AsyncConnection, book: int, client_ref: str) -> Deal | None:
    """Return the deal with this client reference, if there is one."""
    return (await store.find_deals(conn, book, [client_ref])).get(client_ref)


async def find_deals(
    conn: AsyncConnection, book: int, client_refs: Collection[str]
) -> dict[str, Deal]:
    """Return the deals that have one of these client references, by it."""
    return await store.find_deals(conn, book, client_refs)


async def find_deals_by_id(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Deal]:
    """Return those of *ids* that are deals, by id: what is behind postings, say."""
    return await store.find_deals_by_id(conn, ids)


async def list_deals(
    conn: AsyncConnection,
    book: int,
    *,
    party: str | None = None,
    states: Sequence[DealState] = tuple(DealState),
    limit: int = DEALS_MAX,
) -> list[Deal]:
    """Return the newest deals, newest first; `trading.blotter` has more filters, and pages."""
    query = select(deal).where(
        deal.c.book == book, deal.c.state.in_([str(state) for state in states])
    )
    if party is not None:
        query = query.where(deal.c.party == party)
    rows = await conn.execute(
        query.order_by(deal.c.created_at.desc(), deal.c.id.desc()).limit(min(limit, DEALS_MAX))
    )
    return [store.deal_of(row) for row in rows]


async def _book(
    conn: AsyncConnection,
    requests: Sequence[DealRequest],
    *,
    amends: Deal | None,
    book: int,
    now: datetime,
) -> dict[str, Outcome]:
    """Book deals that are not on record; return by client reference what became of each.

    The locks are taken in the order of every transaction: limits of parties, then unique rows,
    then the ledger's head.
    """
    replaced = None if amends is None else amends.id
    drafts = await draft_deals(conn, requests, amends=replaced, book=book, now=now)
    sound = [item for item in drafts if isinstance(item, Draft)]
    outcomes: dict[str, Outcome] = {
        request.client_ref: item
        for request, item in zip(requests, drafts, strict=True)
        if not isinstance(item, Draft)
    }
    refused = await _judge_limits(conn, book, sound, amends, now)
    outcomes |= refused
    within = [item for item in sound if item.reference not in refused]
    if within:
        outcomes |= await _write(conn, within, amends=amends, book=book, now=now)
    return outcomes


async def _judge_limits(
    conn: AsyncConnection, book: int, drafts: Sequence[Draft], amends: Deal | None, now: datetime
) -> dict[str, Outcome]:
    """Return those that a limit forbids, by client reference; locks the limits of the parties.

    Whoever waited for that lock may find that the same deal is on record by now.
    """
    outside = [item for item in drafts if item.deal.request.purpose is not DealPurpose.TRANSFER]
    if not outside:
        return {}
    verdicts = await check_deals(
        conn, book, [proposed(item.deal, amends) for item in outside], now=now
    )
    refused: dict[str, Outcome] = {
        item.reference: verdict
        for item, verdict in zip(outside, verdicts, strict=True)
        if verdict is not None
    }
    return refused | await store.find_deals(conn, book, refused) if refused else {}


async def _write(
    conn: AsyncConnection,
    drafts: Sequence[Draft],
    *,
    amends: Deal | None,
    book: int,
    now: datetime,
) -> dict[str, Outcome]:
    """Insert and post the deals, and record that they are booked.

    A deal whose chain the ledger refuses (a frozen account) is as if it had never been asked for:
    everything goes back to before it, and the others go again without it.
    """
    refused: dict[str, Outcome] = {}
    while True:
        savepoint = await conn.begin_nested()
        going = [item for item in drafts if item.reference not in refused]
        booked = await _insert(conn, going)
        chains = [_chain(item, amends) for item in booked]
        results = await _post(conn, book, [line for lines in chains for line in lines], now)
        failed = _failures(booked, chains, results)
        if not failed:
            break
        await savepoint.rollback()
        refused |= failed
    await savepoint.commit()
    await store.record_booked(conn, booked, now=now)
    outcomes: dict[str, Outcome] = refused | {i.request.client_ref: i for i in booked}
    taken = [item for item in drafts if item.reference not in outcomes]
    return outcomes | await _taken(conn, book, taken) if taken else outcomes


async def _insert(conn: AsyncConnection, drafts: Sequence[Draft]) -> list[Deal]:
    """Insert the deals, each with the price that it is made on; return those that were free."""
    evidence = [item.evidence for item in drafts if item.evidence is not None]
    await record_prices(conn, evidence)
    inserted = await store.insert_deals(conn, [item.deal for item in drafts])
    return [item.deal for item in drafts if item.deal.id in inserted]


async def _taken(conn: AsyncConnection, book: int, drafts: Sequence[Draft]) -> dict[str, Outcome]:
    """Return what is on record instead: somebody else was first with the reference or the quote."""
    known = await store.find_deals(conn, book, [item.reference for item in drafts])
    return {
        item.reference: known.get(item.reference)
        or DealConflict(
            f"quote {item.deal.request.quote_id} is dealt on already",
            remedy="Look for its deal in the blotter",
        )
        for item in drafts
    }


def _chain(item: Deal, amends: Deal | None) -> tuple[Transfer, ...]:
    before = () if amends is None else reversal_chain(amends)
    return chain(*before, *deal_chain(item))


def _failures(
    deals: Sequence[Deal], chains: Sequence[Sequence[Transfer]], results: Sequence[PostResult]
) -> dict[str, Outcome]:
    """Return the deals whose chains were refused, by client reference, with the reason."""
    failed: dict[str, Outcome] = {}
    answers = iter(results)
    for item, lines in zip(deals, chains, strict=True):
        mine = list(islice(answers, len(lines)))
        try:
            require_applied(mine)
        except PostingRefused as refusal:
            failed[item.request.client_ref] = refusal
    return failed


async def _post(
    conn: AsyncConnection, book: int, lines: Sequence[Transfer], now: datetime
) -> list[PostResult]:
    await ensure_accounts(conn, book, account_keys(lines), now=now)
    return await post(conn, book, lines, now=now)


def _require(outcome: Outcome) -> Deal:
    if isinstance(outcome, Deal):
        return outcome
    raise outcome


def _same(
    outcome: Outcome, asked: DealRequest, first: DealRequest, *, amends: UUID | None
) -> Outcome:
    """Return *outcome*, unless it is a deal, or the refusal of a *first* one, of other content."""
    if not isinstance(outcome, Deal):
        return outcome if asked == first else _asked_twice(asked)
    field = _difference(outcome, asked, amends)
    if field is None:
        return outcome
    return DealConflict(
        f"deal {asked.client_ref} is on record with another {_WORDS.get(field, field)}",
        remedy="Use a new client reference for a new deal, or amend the old one",
    )


def _asked_twice(asked: DealRequest) -> DealConflict:
    return DealConflict(
        f"deal {asked.client_ref} was asked for before in this batch, with other content",
        remedy="Use a client reference for each deal",
    )


_WORDS: Final = {"base_units": "amount", "fee_units": "fee", "value_date": "value date"}

_CONTENT: Final = (
    *("desk", "party", "side", "base", "quote", "base_units", "price", "fee_units"),
    *("purpose", "quote_id"),
)
_content: Final = attrgetter(*_CONTENT)
_CONTENT_IF_GIVEN: Final = ("price_id", "value_date", "agreed_at", "mid_price_id")


def _difference(known: Deal, asked: DealRequest, amends: UUID | None) -> str | None:
    """Return the first field in which a deal differs from what is asked for, if any.

    What the request leaves open is as it was found when the deal was booked.
    """
    if _content(known.request) != _content(asked):
        differing = (n for n in _CONTENT if getattr(known.request, n) != getattr(asked, n))
        return next(differing)
    for name in _CONTENT_IF_GIVEN:
        value = getattr(asked, name)
        if value is not None and value != getattr(known.request, name):
            return name
    return "amended deal" if known.amends != amends else None


def _require_unsettled(item: Deal) -> None:
    if item.state is not DealState.BOOKED:
        raise DealNotCancellable(
            f"deal {item.request.client_ref} is {item.state}",
            remedy=f"`causeway desk explain {item.id}` tells its life",
        )
    if item.pulled_at is not None:
        raise DealNotCancellable(
            f"settlement has taken the legs of deal {item.request.client_ref}",
            remedy="Take its obligations back there first",
        )
