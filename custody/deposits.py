"""A deposit's way from a block to its owner: confirmed by policy, screened, credited.

`advance_deposits` does all of it. Between its transactions it asks the outside: whoever screens, and
the balances that say whether a token really came. Nothing is credited that has no answer.

In each transaction rows are locked and written first, and the ledger is posted to last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import is_canonical, require_running
from chain.model import Block
from chain.ports import ChainGateway
from custody import arrivals, store
from custody.books import apply_plan
from custody.compliance import store as compliance_store
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.model import Case, CaseState
from custody.compliance.ports import Screening
from custody.compliance.screening import screen_deposits
from custody.compliance.travel_rule import NO_TRAVEL_RULE, TravelRule
from custody.crediting import ACTOR, Turn
from custody.deposit_model import (
    Attribution,
    Deposit,
    DepositState,
    Observation,
)
from custody.errors import NotPossible
from custody.freezes import load_freezes
from custody.model import reorg_account
from custody.plan import Plan
from custody.policy import ConfirmationPolicy, requirement_of
from custody.policy_versions import keep_policy
from custody.received import prove
from custody.reversals import open_frozen, shut_again
from kernel.db import transact
from kernel.errors import OutsideUnavailable
from kernel.events import DomainEvent, list_history
from ledger.accounts import ensure_accounts
from ledger.posting import post
from ledger.queries import get_balance

PAGES_MAX: Final = 20
"""Pages of deposits that one turn takes through each step, at most; the next turn goes on."""


async def advance_deposits(
    engine: AsyncEngine,
    chain: str,
    *,
    book: int,
    tip: Block,
    finalized: int,
    policy: ConfirmationPolicy,
    now: datetime,
    screening: Screening = NOBODY_LISTED,
    travel_rule: TravelRule = NO_TRAVEL_RULE,
    gateway: ChainGateway | None = None,
) -> list[Deposit]:
    """Take every deposit that is deep enough to its owner; return those that moved.

    Args:
        tip: the block at which the books are exact (`chain.follow.get_cursor`), or the highest one
            below it that enough providers have.
        finalized: height up to which the chain itself promises that nothing changes.
        screening: asked, for a client's deposit, whether compliance has to look first.
        gateway: asked what really arrived of a token; None: what the contract logged is believed.

    Raises:
        ChainHalted: nothing is credited on a chain that people have to look at.
        NotPossible: *tip* is not on the chain that we follow any more; ask again with the new one.
        OutsideUnavailable: the node does not answer. (What whoever screens does not answer waits.)
    """

    async def confirm(conn: AsyncConnection) -> list[Deposit]:
        return await confirm_deposits(
            conn, chain, tip=tip, finalized=finalized, policy=policy, now=now
        )

    async def credit(
        conn: AsyncConnection, after: UUID | None
    ) -> tuple[list[Deposit], UUID | None]:
        return await credit_deposits(
            conn, chain, book=book, now=now, after=after, proven=gateway is not None
        )

    moved: dict[UUID, Deposit] = {}
    for _ in range(PAGES_MAX):
        confirmed = await transact(engine, confirm)
        moved |= {item.id: item for item in confirmed}
        if len(confirmed) < store.PAGE_MAX:
            break
    if gateway is not None:
        await prove(engine, gateway, chain, Deposit, book=book, tip=tip, now=now)
    for _ in range(PAGES_MAX):
        asked: list[Case] = []
        # Who screens may be away: what has no answer waits, and what has one goes on.
        with contextlib.suppress(OutsideUnavailable):
            asked = await screen_deposits(
                engine, screening, chain, now=now, travel_rule=travel_rule
            )
        if not any(case.state is not CaseState.OPEN for case in asked):
            break
    last: UUID | None = None
    for _ in range(PAGES_MAX):
        credited, last = await transact(engine, partial(credit, after=last))
        moved |= {item.id: item for item in credited}
        if last is None:
            break
    await transact(engine, lambda conn: follow_refunds(conn, now=now))
    return list(moved.values())


async def confirm_deposits(
    conn: AsyncConnection,
    chain: str,
    *,
    tip: Block,
    finalized: int,
    policy: ConfirmationPolicy,
    now: datetime,
) -> list[Deposit]:
    """Confirm a page of deposits that are deep enough; return those.

    Raises:
        ChainHalted, NotPossible: as `advance_deposits`.
    """
    await require_running(conn, chain)
    await require_canonical(conn, chain, tip)
    waiting = await store.claim_arrivals(
        conn, Deposit, chain, {DepositState.INCLUDED}, tip=tip.height, finalized=finalized
    )
    if not waiting:
        return []
    await keep_policy(conn, policy, now=now)
    rows, done, plan = [], [], Plan()
    for deposit in waiting:
        asked = policy.raised(deposit)
        if not requirement_of(asked).is_met(
            height=deposit.height, tip=tip.height, finalized_height=finalized
        ):
            rows += [asked] if asked != deposit else []
            continue
        after = arrivals.moved(asked, DepositState.CONFIRMED)
        why = f"policy {policy.version}, rule {after.policy_rule}: {policy.require(asked)[1]}"
        plan.tell(
            arrivals.event(deposit, after, "DepositConfirmed", at=now, actor=ACTOR, reason=why)
        )
        done.append(after)
    await store.save_arrivals(conn, [*rows, *done])
    await apply_plan(conn, plan, book=0, now=now)
    return done


async def require_canonical(conn: AsyncConnection, chain: str, tip: Block) -> None:
    """Refuse a tip that is not on the chain that we follow.

    Raises:
        NotPossible: ask again with the new one.
    """
    if not await is_canonical(conn, chain, tip.hash):
        raise NotPossible(
            f"block {tip.hash} is not on {chain} any more", remedy="Ask again with the new tip"
        )


async def credit_deposits(
    conn: AsyncConnection,
    chain: str,
    *,
    book: int,
    now: datetime,
    after: UUID | None = None,
    proven: bool = False,
) -> tuple[list[Deposit], UUID | None]:
    """Post a page of confirmed deposits that wait for nobody's answer any more.

    Return those that moved, and behind which the next page begins (None: there is none).

    Args:
        proven: whether the balances have to have said that a token arrived.

    Raises:
        ChainHalted: nothing is credited on a chain that people have to look at.
    """
    await require_running(conn, chain)
    claimed = await store.claim_answered(conn, chain, after=after, proven=proven)
    if not claimed:
        return [], None
    cases = await compliance_store.lock_deposit_cases(conn, [(d.id, d.epoch) for d in claimed])
    turn = Turn(now, await load_freezes(conn), cases)
    for deposit in claimed:
        turn.settle(deposit)
    # A row goes through several states: each is written, so that the trigger sees every edge.
    for rows in turn.layers():
        await store.save_arrivals(conn, rows)
    plan = turn.plan
    await pay_back(conn, turn.owing, plan, book=book, now=now)
    touched = {key for deposit in turn.booked for key in arrivals.accounts_of(deposit)}
    # One frozen client must not keep every deposit of the chain waiting.
    shut = await open_frozen(conn, touched, book=book, now=now)
    await apply_plan(conn, plan, book=book, now=now)
    await shut_again(conn, shut, book=book, now=now)
    last = claimed[-1].id if len(claimed) == store.PAGE_MAX else None
    return turn.done, last


async def pay_back(
    conn: AsyncConnection, owing: Sequence[Deposit], plan: Plan, *, book: int, now: datetime
) -> None:
    """Let deposits that came back pay first what their clients owe since they vanished."""
    if not owing:
        return
    accounts = {(reorg_account(str(d.party)), d.asset) for d in owing}
    await ensure_accounts(conn, book, accounts, now=now)
    # An empty batch takes the head's lock: what is owed cannot change before it is paid.
    await post(conn, book, [], now=now)
    owed = {key: (await get_balance(conn, book, *key)).posted for key in sorted(accounts)}
    for deposit in owing:
        key = (reorg_account(str(deposit.party)), deposit.asset)
        # A contract may log less when it runs on another branch: the rest stays owed.
        amount = max(0, min(deposit.shortfall, deposit.amount, owed[key]))
        if amount:
            owed[key] -= amount
            plan.post(arrivals.settled_shortfall(deposit, str(deposit.party), amount))


async def follow_refunds(conn: AsyncConnection, *, now: datetime) -> list[Deposit]:
    """Write what became of deposits that are given back: the payout says."""
    found = dict(await store.list_refunds(conn))
    states = {DepositState.REFUNDING, DepositState.REFUNDED}
    rows, cases, plan = [], [], Plan()
    locked = await store.lock_deposits(conn, found, states) if found else []
    for deposit in locked:
        state = found[deposit.id]
        after = _refund_step(deposit, state)
        if after is None:
            continue
        rows.append(after)
        if after.state is DepositState.HELD:
            cases.append((deposit.id, deposit.epoch))
        why = f"payout {deposit.refund} is {state}"
        name = f"DepositRefund{'ed' if after.state is DepositState.REFUNDED else 'Moved'}"
        plan.tell(arrivals.event(deposit, after, name, at=now, actor=ACTOR, reason=why))
    await store.save_arrivals(conn, rows)
    await compliance_store.hold_again(conn, cases)
    await apply_plan(conn, plan, book=0, now=now)
    return rows


def _refund_step(deposit: Deposit, payout_state: str) -> Deposit | None:
    paid = payout_state == "confirmed"
    if deposit.state is DepositState.REFUNDED:
        return None if paid else arrivals.moved(deposit, DepositState.REFUNDING)
    if paid:
        return arrivals.moved(deposit, DepositState.REFUNDED)
    # The claim is whole again: two people decide anew.
    return arrivals.moved(deposit, DepositState.HELD, refund=None)


# Reading.


async def get_deposit(conn: AsyncConnection, deposit_id: UUID) -> Deposit:
    """Return a deposit.

    Raises:
        UnknownRow: there is none with that id.
    """
    return await store.get_arrival(conn, Deposit, deposit_id)


async def list_deposits(
    conn: AsyncConnection,
    *,
    chain: str | None = None,
    state: DepositState | None = None,
    party: str | None = None,
    after: UUID | None = None,
    limit: int = store.PAGE_MAX,
) -> list[Deposit]:
    """Return a page of deposits in the order in which they were first seen."""
    return await store.list_arrivals(
        conn, Deposit, chain=chain, state=state, party=party, after=after, limit=limit
    )


async def list_inclusions(conn: AsyncConnection, arrival_id: UUID) -> list[Observation]:
    """Return every block that ever held a deposit or receipt, the first one first."""
    return await store.list_observations(conn, arrival_id)


async def list_attributions(conn: AsyncConnection, deposit_id: UUID) -> list[Attribution]:
    """Return what two people said about a deposit, the first statement first."""
    return await store.list_attributions(conn, deposit_id)


async def explain(conn: AsyncConnection, deposit_id: UUID) -> list[DomainEvent]:
    """Return the life of a deposit, oldest event first."""
    return await list_history(conn, "deposit", deposit_id)
