"""Saying whose an unattributed deposit is: two people, and nothing that compliance holds."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.follow import require_running
from custody import arrivals, store
from custody.attribution import client_of, decide_attribution
from custody.books import apply_plan
from custody.compliance import store as compliance_store
from custody.compliance.model import PASSED
from custody.deposit_model import Attribution, Deposit, DepositState
from custody.errors import ClientsUncovered, NotPossible
from custody.freezes import require_open
from custody.payout_coverage import count_spare
from custody.plan import Plan
from registry.queries import get_operator, get_party, get_wallet


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
) -> Deposit:
    """Move an unattributed deposit to the account that two people say it belongs to.

    Args:
        credit: ``client:<id>``, ``equity:capital`` or ``equity:opening``.
        first, second: codes of two operators; each signed `custody.attribution.attribution_bytes`.

    Raises:
        ChainHalted: the block that holds it may be gone; people have to look first.
        NotPossible: it is not unattributed, compliance has not let it go, or the wallet does not fit.
        NotAuthorised: the two are one, or may not say so, or did not sign this.
        ClientsUncovered: clients would be owed more than is held for them.
        Frozen: something of it is frozen.
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
    if client is not None:
        await _require_passed(conn, deposit)
        await require_open(
            conn, chain=deposit.chain, asset=deposit.asset, wallet=deposit.wallet, client=client
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


async def _require_passed(conn: AsyncConnection, deposit: Deposit) -> None:
    found = await compliance_store.lock_deposit_cases(conn, [(deposit.id, deposit.epoch)])
    case = found.get(deposit.id)
    if case is None or case.state not in PASSED:
        why = "nobody has screened it yet" if case is None else f"{case.state}: {case.reason}"
        raise NotPossible(
            f"screening speaks against it: {why}",
            where=f"deposit {deposit.id}",
            remedy="Look at `causeway custody compliance queue`",
        )


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
