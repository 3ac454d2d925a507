"""The verbs of a manual journal: proposed by one operator, posted with the signature of another.

Locks: the row, then the book's head; behind that nothing waits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.events import DomainEvent, next_version, record
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.answers import first_refusal
from ledger.journals import store
from ledger.journals.decisions import (
    decide_request,
    decide_taking,
    journal_bytes,
    require_open_journal,
    require_reason,
    require_same,
)
from ledger.journals.errors import NotOurs
from ledger.journals.model import JournalRequest, JournalState, ManualJournal
from ledger.journals.templates import (
    Template,
    house_holdings,
    journal_chain,
    template_name,
    to_content,
    unguarded_source,
)
from ledger.model import PostResult, Transfer
from ledger.people import require_approver, require_proposer, require_rejecter, require_sha256
from ledger.posting import lock_book, post
from ledger.queries import get_balance, head
from registry.queries import get_asset, get_wallet

ENTITY: Final = "manual-journal"

get_journal = store.get_journal


async def list_journals(
    conn: AsyncConnection,
    book: int,
    states: Collection[JournalState] = tuple(JournalState),
    *,
    after: UUID | None = None,
    limit: int = store.PAGE_MAX,
) -> list[ManualJournal]:
    """Return a page of the manual journals in the given states, oldest first.

    Args:
        conn: a connection to read with.
        book: of which book.
        states: only those in one of these.
        after: id of the last one of the page before.
        limit: how many at most; never more than `store.PAGE_MAX`.
    """
    return await store.list_journals(conn, book, states, after=after, limit=limit)


async def propose_journal(
    conn: AsyncConnection, request: JournalRequest, *, book: int, by: str, now: datetime
) -> ManualJournal:
    """Propose a manual journal; the same request again returns it as it stands.

    Args:
        conn: the caller's transaction.
        request: what shall be posted, and why.
        book: in which book.
        by: code of the operator, authenticated by the caller.
        now: the time of the proposal.

    Raises:
        NotAuthorised: the operator may not propose.
        BadInput: a field that cannot be, or a day that has not come.
        PeriodNotClosable: the day is in a closed period.
        NotOurs: a holding belongs to clients.
        ReferenceTaken: the reference names a journal of other content.
    """
    operator = await require_proposer(conn, by)
    require_sha256(request.attachment, "attachment")
    standing = await head(conn, book)
    decide_request(
        request, closed_through=standing.closed_through, block_time=standing.block_time, now=now
    )
    await get_asset(conn, request.template.asset)
    await _require_house(conn, request.template)
    item = ManualJournal(
        id=derive_id(now, ENTITY, book, request.reference),
        book=book,
        request=request,
        state=JournalState.PROPOSED,
        proposed_by=operator.code,
        proposed_at=now,
    )
    if not await store.insert_journal(conn, item):
        known = await store.get_journal_by_reference(conn, book, request.reference)
        require_same(request, known)
        return known
    await _record(conn, item, None, by=by, reason=request.reason, now=now)
    return item


async def approve_journal(
    conn: AsyncConnection, journal_id: UUID, *, by: str, signature: bytes, now: datetime
) -> ManualJournal:
    """Approve a manual journal and post it; commit whatever comes back.

    What the ledger refuses is recorded with its outcome: the journal is REFUSED then, and a new one
    has to be proposed. The same approval again returns the journal as it stands.

    Args:
        conn: the caller's transaction.
        journal_id: the journal.
        by: code of an operator who did not propose it.
        signature: theirs, Ed25519, over `decisions.journal_bytes` of the journal as it stands.
        now: the time of the approval.

    Raises:
        NotAuthorised: the same person, a missing role, or a signature of other content.
        NotOpen: it was decided otherwise before, or is too old.
        NotOurs: a holding belongs to clients, more is written off than is owed, or more taken from
            suspense than has arrived.
    """
    item = await store.get_journal(conn, journal_id, lock=True)
    await require_approver(
        conn, by, proposed_by=item.proposed_by, payload=journal_bytes(item), signature=signature
    )
    if item.state is not JournalState.REJECTED and item.decided_by == by:
        return item
    require_open_journal(item, now)
    template = item.request.template
    await _require_house(conn, template)
    transfers = journal_chain(
        template,
        journal=item.id,
        created_at=item.proposed_at,
        effective_on=item.request.effective_on,
        attachment=item.request.attachment,
    )
    results = await _post(conn, item, transfers, now)
    return await _decided(conn, item, results, by=by, signature=signature, now=now)


async def reject_journal(
    conn: AsyncConnection, journal_id: UUID, *, by: str, reason: str, now: datetime
) -> ManualJournal:
    """Say no to a manual journal, or take back one's own; nothing is posted.

    Raises:
        NotAuthorised: neither an approver nor the proposer.
        NotOpen: it was posted, or refused, before.
    """
    require_reason(reason)
    item = await store.get_journal(conn, journal_id, lock=True)
    await require_rejecter(conn, by, proposed_by=item.proposed_by)
    if item.state is JournalState.REJECTED:
        return item
    require_open_journal(item)
    after = await store.move_journal(
        conn,
        item,
        JournalState.REJECTED,
        decided_by=by,
        decided_at=now,
        decision_reason=reason,
    )
    await _record(conn, after, item.state, by=by, reason=reason, now=now)
    return after


async def _require_house(conn: AsyncConnection, template: Template) -> None:
    """Refuse to move coins of a wallet that holds clients' money.

    Bank and venue accounts say whose they are themselves: see `_post`.
    """
    for path in house_holdings(template):
        kind, _, rest = path.partition(":")
        if kind != "custody":
            continue
        wallet = await get_wallet(conn, rest.partition(":")[0])
        if wallet.holds_client_money:
            raise NotOurs(
                f"{path} belongs to {wallet.owner}, not to the house",
                remedy="A manual journal moves the house's own money only",
            )


async def _post(
    conn: AsyncConnection, item: ManualJournal, transfers: Sequence[Transfer], now: datetime
) -> list[PostResult]:
    template = item.request.template
    taken_from = unguarded_source(template)
    if taken_from is not None:
        # Nothing guards these, because facts move them too: a decision looks, under the lock.
        await lock_book(conn, item.book)
        standing = await get_balance(conn, item.book, taken_from, template.asset)
        decide_taking(template, standing=standing.available)
    await ensure_accounts(
        conn,
        item.book,
        {(path, leg.asset) for leg in transfers for path in (leg.debit, leg.credit)},
        owners=dict.fromkeys(house_holdings(template), "house"),
        now=now,
    )
    return await post(conn, item.book, transfers, now=now)


async def _decided(
    conn: AsyncConnection,
    item: ManualJournal,
    results: Sequence[PostResult],
    *,
    by: str,
    signature: bytes,
    now: datetime,
) -> ManualJournal:
    decision = {"decided_by": by, "decided_at": now, "signature": signature}
    outcome = first_refusal(results)
    if outcome is None:
        sequence = max(result.sequence or 0 for result in results)
        after = await store.move_journal(
            conn, item, JournalState.POSTED, sequence=sequence, **decision
        )
        reason = item.request.reason
    else:
        after = await store.move_journal(
            conn, item, JournalState.REFUSED, outcome=outcome, **decision
        )
        reason = f"the ledger refused it: {outcome}"
    await _record(conn, after, item.state, by=by, reason=reason, now=now)
    return after


async def _record(
    conn: AsyncConnection,
    item: ManualJournal,
    before: JournalState | None,
    *,
    by: str,
    reason: str,
    now: datetime,
) -> None:
    event = DomainEvent(
        entity_type=ENTITY,
        entity_id=item.id,
        version=await next_version(conn, ENTITY, item.id),
        name=f"ManualJournal{item.state.capitalize()}",
        at=now,
        actor=by,
        reason=reason,
        from_state=before,
        to_state=item.state,
        payload=_payload(item),
    )
    await record(conn, [event])


def _payload(item: ManualJournal) -> Mapping[str, object]:
    payload: dict[str, object] = {
        "book": item.book,
        "reference": item.request.reference,
        "template": template_name(item.request.template),
        "content": to_content(item.request.template),
        "attachment": item.request.attachment,
        "effective_on": item.request.effective_on.isoformat(),
        "proposed_by": item.proposed_by,
    }
    if item.outcome:
        payload["outcome"] = item.outcome
    if item.sequence is not None:
        payload["sequence"] = item.sequence
    return payload
