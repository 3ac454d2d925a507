"""A deposit's way from a block to its owner: confirmed by policy, screened, credited.

Every verb runs in the caller's transaction: rows are locked and written first, the ledger is posted
to last.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.follow import is_canonical, require_running
from chain.model import Block
from custody import arrivals, store
from custody.attribution import client_of, decide_attribution
from custody.books import apply_plan
from custody.deposit_model import (
    REASON_LENGTH_MAX,
    Attribution,
    Deposit,
    DepositState,
    Observation,
)
from custody.errors import ClientsUncovered, NotPossible
from custody.model import DUST_ACCOUNT, held_account, reorg_account, unattributed_account
from custody.payout_coverage import count_spare
from custody.plan import Plan
from custody.policy import ConfirmationPolicy, requirement_of
from custody.reversals import open_frozen, shut_again
from custody.screening import Screen, nobody_blocked
from kernel.errors import BadInput
from kernel.events import DomainEvent, list_history
from ledger.accounts import ensure_accounts
from ledger.posting import post
from ledger.queries import get_balance
from registry.authority import require_role
from registry.model import Role
from registry.queries import get_operator, get_party, get_wallet

ACTOR: Final = "system:deposits"
WAITING: Final = frozenset({DepositState.INCLUDED, DepositState.CONFIRMED})


async def advance_deposits(
    conn: AsyncConnection,
    chain: str,
    *,
    book: int,
    tip: Block,
    finalized: int,
    policy: ConfirmationPolicy,
    now: datetime,
    screen: Screen = nobody_blocked,
) -> list[Deposit]:
    """Take every deposit that is deep enough to its owner; return those that moved.

    Args:
        tip: the block at which the books are exact (`chain.follow.get_cursor`).
        finalized: height up to which the chain itself promises that nothing changes.
        screen: decides, for a client's deposit, whether compliance has to look first.

    Raises:
        ChainHalted: nothing is credited on a chain that people have to look at.
        NotPossible: *tip* is not on the chain that we follow any more; ask again with the new one.
    """
    await require_running(conn, chain)
    if not await is_canonical(conn, chain, tip.hash):
        raise NotPossible(
            f"block {tip.hash} is not on {chain} any more", remedy="Ask again with the new tip"
        )
    waiting = await store.claim_arrivals(
        conn, Deposit, chain, WAITING, tip=tip.height, finalized=finalized
    )
    plan, done, owing = Plan(), [], []
    for deposit in waiting:
        asked = policy.raised(deposit)
        if not requirement_of(asked).is_met(
            height=deposit.height, tip=tip.height, finalized_height=finalized
        ):
            if asked != deposit:
                await store.save_arrival(conn, asked)
            continue
        settled = await _settle(conn, asked, plan, policy, screen, now)
        done.append(settled)
        if settled.state is DepositState.CREDITED and asked.shortfall:
            owing.append(asked)
    await _pay_back(conn, owing, plan, book=book, now=now)
    owed_by = {key for deposit in owing for key in arrivals.accounts_of(deposit)}
    # One frozen client must not keep every deposit of the chain waiting.
    shut = await open_frozen(conn, owed_by, book=book, now=now)
    await apply_plan(conn, plan, book=book, now=now)
    await shut_again(conn, shut, book=book, now=now)
    return done


async def release_deposit(
    conn: AsyncConnection, deposit_id: UUID, *, by: str, reason: str, book: int, now: datetime
) -> Deposit:
    """Credit the client with a deposit that screening held.

    Args:
        by: code of an operator with role approver.

    Raises:
        NotPossible: it is not held.
        ChainHalted: the block that holds it may be gone; people have to look first.
        NotAuthorised: the operator may not decide this.
    """
    if not reason.strip():
        raise BadInput("a release needs a reason", remedy="Say what was found and why it is fine")
    require_role(await get_operator(conn, by), Role.APPROVER)
    deposit = await store.get_arrival(conn, Deposit, deposit_id, lock=True)
    await require_running(conn, deposit.chain)
    if deposit.state is not DepositState.HELD or deposit.party is None:
        raise NotPossible(f"deposit {deposit.id} is {deposit.state}, not held")
    move = arrivals.released(deposit, deposit.party)
    after = arrivals.moved(
        deposit,
        DepositState.CREDITED,
        postings=(*deposit.postings, move.id),
        shortfall=0,
        reason=reason,
    )
    await store.save_arrival(conn, after)
    plan = Plan()
    plan.post(move)
    plan.tell(arrivals.event(deposit, after, "DepositReleased", at=now, actor=by, reason=reason))
    await _pay_back(conn, [deposit] if deposit.shortfall else [], plan, book=book, now=now)
    await apply_plan(conn, plan, book=book, now=now)
    return after


async def attribute(
    conn: AsyncConnection,
    deposit_id: UUID,
    *,
    credit: str,
    reason: str,
    first: str,
    first_signature: bytes,
    second: str,
    second_signature: bytes,
    book: int,
    now: datetime,
    screen: Screen = nobody_blocked,
) -> Deposit:
    """Move an unattributed deposit to the account that two people say it belongs to.

    Args:
        credit: ``client:<id>``, ``equity:capital`` or ``equity:opening``.
        first, second: codes of two operators; each signed `custody.attribution.attribution_bytes`.
        screen: a client is not credited with what it finds something against.

    Raises:
        ChainHalted: the block that holds it may be gone; people have to look first.
        NotPossible: it is not unattributed, screening found something, or the wallet does not fit.
        NotAuthorised: the two are one, or may not say so, or did not sign this.
        ClientsUncovered: clients would be owed more than is held for them.
    """
    deposit = await store.get_arrival(conn, Deposit, deposit_id, lock=True)
    await require_running(conn, deposit.chain)
    client = client_of(credit)
    decide_attribution(
        deposit,
        credit,
        reason,
        wallet=await get_wallet(conn, deposit.wallet),
        client=None if client is None else await get_party(conn, client),
        first=(await get_operator(conn, first), first_signature),
        second=(await get_operator(conn, second), second_signature),
    )
    finding = None if client is None else screen(deposit)
    if finding is not None:
        raise NotPossible(
            f"screening speaks against it: {finding.reason}", where=f"deposit {deposit.id}"
        )
    move = arrivals.attributed(deposit, credit)
    after = arrivals.moved(
        deposit,
        DepositState.ATTRIBUTED,
        credit=credit,
        postings=(*deposit.postings, move.id),
        reason=reason,
    )
    await store.save_arrival(conn, after)
    await store.insert_attribution(
        conn,
        Attribution(
            *(deposit.id, deposit.epoch, credit, reason),
            *(first, first_signature, second, second_signature),
            now,
        ),
    )
    plan = Plan()
    plan.post(move)
    plan.tell(
        arrivals.event(deposit, after, "DepositAttributed", at=now, actor=first, reason=reason)
    )
    await apply_plan(conn, plan, book=book, now=now)
    if client is not None:
        await _require_covered(conn, book, deposit.asset)
    return after


async def _require_covered(conn: AsyncConnection, book: int, asset: str) -> None:
    """Refuse to owe clients coins that have been spent on something else meanwhile.

    The ledger's head is locked already: nobody else can take what is counted here.
    """
    spare = (await count_spare(conn, book, {asset}))[asset]
    if spare < 0:
        raise ClientsUncovered(
            f"clients would be owed {-spare} {asset} (smallest units) more than is held for them",
            remedy="Move house coins into a wallet of class client first",
        )


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


async def _settle(
    conn: AsyncConnection,
    deposit: Deposit,
    plan: Plan,
    policy: ConfirmationPolicy,
    screen: Screen,
    now: datetime,
) -> Deposit:
    """Take one confirmed deposit as far as it goes; every state it passes is written."""
    if deposit.state is DepositState.INCLUDED:
        number, wanted = policy.require(deposit)
        why = f"policy {policy.version}, rule {number}: {wanted}"
        deposit = await _step(
            conn, deposit, DepositState.CONFIRMED, "DepositConfirmed", plan, now, why
        )
    if deposit.credit == DUST_ACCOUNT:
        return await _post(conn, deposit, DepositState.DUST, "DepositIsDust", plan, now)
    if deposit.credit == unattributed_account(deposit.chain) or deposit.party is None:
        return await _post(
            conn, deposit, DepositState.UNATTRIBUTED, "DepositUnattributed", plan, now
        )
    finding = screen(deposit)
    if finding is not None:
        return await _hold(conn, deposit, deposit.party, finding.reason, plan, now)
    deposit = await _step(conn, deposit, DepositState.SCREENED, "DepositScreened", plan, now)
    return await _post(conn, deposit, DepositState.CREDITED, "DepositCredited", plan, now)


async def _step(
    conn: AsyncConnection,
    deposit: Deposit,
    state: DepositState,
    name: str,
    plan: Plan,
    now: datetime,
    reason: str = "",
    **changes: object,
) -> Deposit:
    after = arrivals.moved(deposit, state, **changes)
    await store.save_arrival(conn, after)
    plan.tell(arrivals.event(deposit, after, name, at=now, actor=ACTOR, reason=reason))
    return after


async def _post(
    conn: AsyncConnection,
    deposit: Deposit,
    state: DepositState,
    name: str,
    plan: Plan,
    now: datetime,
) -> Deposit:
    posting = arrivals.posted(deposit, str(state))
    plan.post(posting)
    return await _step(conn, deposit, state, name, plan, now, postings=(posting.id,), shortfall=0)


async def _hold(
    conn: AsyncConnection, deposit: Deposit, party: str, reason: str, plan: Plan, now: datetime
) -> Deposit:
    # The longest words must not keep other deposits waiting.
    deposit = replace(deposit, reason=reason[:REASON_LENGTH_MAX])
    void, credit = arrivals.held(deposit, party)
    plan.need(held_account(party), deposit.asset)
    plan.post(void, credit)
    return await _step(
        conn,
        deposit,
        DepositState.HELD,
        "DepositHeld",
        plan,
        now,
        deposit.reason,
        postings=(credit.id,),
    )


async def _pay_back(
    conn: AsyncConnection, owing: list[Deposit], plan: Plan, *, book: int, now: datetime
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
