"""``causeway custody bump, cancel-signed, attribute``: what people decide where machines stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    AsJson,
    Book,
    DryRun,
    Money,
    Reason,
    chain_nodes,
    chain_providers,
    clock,
    node_url,
    on_database,
    rehearse,
    run,
    show_one,
    write,
)
from app.cli.custody_explain import payout_facts
from app.cli.operators import Approver, ApproverKey, As, Key, Person, credentials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from chain.evm.providers import ProviderSet
    from custody.bitcoin.spend_model import Spend
    from custody.bitcoin.spend_replace import Write as WriteSpend
    from custody.deposit_model import Deposit
    from custody.payout_replace import Write

DepositId = Annotated[UUID, typer.Argument(metavar="DEPOSIT", help="Id of the deposit.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (bump, cancel_signed, attribute):
        app.command()(command)


def bump(
    payout_id: Annotated[UUID, typer.Argument(metavar="PAYOUT", help="Id of the payout.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Offer a payment again for a higher fee, in its place: at most one of the two is mined.

    On Bitcoin every payout of its transaction is bumped with it. Needs CAUSEWAY_EVM_URL, or
    CAUSEWAY_BITCOIN_URL; the worker has the replacement signed and sends it.

    Example: `causeway custody bump 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "stuck" --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def work(engine: AsyncEngine) -> dict[str, str]:
        from custody.payout_replace import prepare_bump
        from kernel.db import transact

        me = await transact(engine, who.person)
        spend = await spend_of(engine, payout_id)
        if spend is not None:
            return await _bump_spend(engine, spend, payout_id, me, reason, dry_run=dry_run)
        async with await providers_of(engine, payout_id) as gateway:
            change = await prepare_bump(
                engine, gateway, payout_id, by=me.operator, reason=reason, clock=clock()
            )
        return await _replace(engine, change, dry_run=dry_run)

    found = run(lambda: on_database(work))
    show_one("Payout", found, as_json=as_json, dry_run=dry_run)


def cancel_signed(
    payout_id: Annotated[UUID, typer.Argument(metavar="PAYOUT", help="Id of the payout.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Cancel a payment that is signed, by what pays nobody in its place; two operators sign.

    Whichever of the two is mined first counts. The claim has its money back when what cancels it is
    final. On Bitcoin every payout of its transaction is cancelled with it. Needs CAUSEWAY_EVM_URL, or
    CAUSEWAY_BITCOIN_URL; the worker has it signed and sends it.

    Example: `causeway custody cancel-signed 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "sent to the wrong person"
    --as ada --key ada.key --approver ben --approver-key ben.key`
    """
    one, two = credentials(as_, key), credentials(approver, approver_key)

    async def work(engine: AsyncEngine) -> dict[str, str]:
        from custody.payout_replace import cancel_bytes, prepare_cancellation
        from kernel.db import transact

        people = [await transact(engine, who.person) for who in (one, two)]
        spend = await spend_of(engine, payout_id)
        if spend is not None:
            return await _cancel_spend(engine, spend, payout_id, people, reason, dry_run=dry_run)
        payload = cancel_bytes(payout_id, reason)
        async with await providers_of(engine, payout_id) as gateway:
            change = await prepare_cancellation(
                engine,
                gateway,
                payout_id,
                signatures={person.code: person.sign(payload) for person in people},
                reason=reason,
                clock=clock(),
            )
        return await _replace(engine, change, dry_run=dry_run)

    found = run(lambda: on_database(work))
    show_one("Payout", found, as_json=as_json, dry_run=dry_run)


async def spend_of(engine: AsyncEngine, payout_id: UUID) -> Spend | None:
    """Return the transaction of Bitcoin that carries a payout; None where it goes another way."""
    from custody.bitcoin.spend_replace import find_spend
    from custody.payouts import get_payout
    from kernel.db import transact
    from registry.model import BITCOIN

    async def work(conn: AsyncConnection) -> Spend | None:
        seen = await get_payout(conn, payout_id)
        return await find_spend(conn, payout_id) if seen.rail == BITCOIN else None

    return await transact(engine, work)


async def _bump_spend(
    engine: AsyncEngine,
    spend: Spend,
    payout_id: UUID,
    me: Person,
    reason: str,
    *,
    dry_run: bool,
) -> dict[str, str]:
    from custody.bitcoin.spend_replace import prepare_spend_bump

    async with await chain_nodes(engine, spend.chain) as node:
        change = await prepare_spend_bump(
            engine, node, spend.id, by=me.operator, reason=reason, clock=clock()
        )
    return await _replace_spend(engine, change, payout_id, dry_run=dry_run)


async def _cancel_spend(
    engine: AsyncEngine,
    spend: Spend,
    payout_id: UUID,
    people: Sequence[Person],
    reason: str,
    *,
    dry_run: bool,
) -> dict[str, str]:
    from custody.bitcoin.spend_replace import prepare_spend_cancellation, spend_cancel_bytes

    payload = spend_cancel_bytes(spend.id, reason)
    async with await chain_nodes(engine, spend.chain) as node:
        change = await prepare_spend_cancellation(
            engine,
            node,
            spend.id,
            signatures={person.code: person.sign(payload) for person in people},
            reason=reason,
            clock=clock(),
        )
    return await _replace_spend(engine, change, payout_id, dry_run=dry_run)


async def _replace_spend(
    engine: AsyncEngine, change: WriteSpend, payout_id: UUID, *, dry_run: bool
) -> dict[str, str]:
    """Write the replacement; return the payout, and which transaction carries it with how many."""
    from custody.bitcoin.spend_moves import load_carried
    from custody.payouts import get_payout
    from kernel.db import transact

    async def work(conn: AsyncConnection) -> dict[str, str]:
        done = await change(conn)
        carried = await load_carried(conn, done.id)
        money = await Money.load(conn)
        facts = payout_facts(await get_payout(conn, payout_id), money)
        new = carried.current
        coin = carried.payouts[0].native_asset
        more = {"spend": str(done.id), "payouts": str(len(carried.payouts))}
        return facts | more | {"attempt": new.tx_id, "spend_fee": money.text(new.fee, coin)}

    return await (rehearse(engine, work) if dry_run else transact(engine, work))


async def providers_of(engine: AsyncEngine, payout_id: UUID) -> ProviderSet:
    """Return the providers of a payout's chain, not yet opened."""
    from custody.payouts import get_payout
    from kernel.db import transact

    seen = await transact(engine, lambda conn: get_payout(conn, payout_id))
    return await chain_providers(engine, seen.chain, node_url())


async def _replace(engine: AsyncEngine, change: Write, *, dry_run: bool) -> dict[str, str]:
    from kernel.db import transact

    done = await (rehearse(engine, change) if dry_run else transact(engine, change))
    return payout_facts(done, await transact(engine, Money.load))


def attribute(
    deposit_id: DepositId,
    *,
    credit: Annotated[
        str, typer.Option(help="Whose it is: client:ID, equity:capital or equity:opening.")
    ],
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    book: Book = BOOK_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Move a deposit that nobody was named for to whom two operators say it belongs; both sign.

    Example: `causeway custody attribute 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --credit equity:capital
    --reason "paid in by the owners" --as ada --key ada.key --approver cleo --approver-key cleo.key`
    """
    one, two = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.attribution import attribution_bytes
        from custody.attributions import attribute as verb
        from custody.deposits import get_deposit

        first, second = await one.person(conn), await two.person(conn)
        payload = attribution_bytes(await get_deposit(conn, deposit_id), credit, reason)
        done = await verb(
            conn,
            deposit_id,
            credit=credit,
            reason=reason,
            first=first.code,
            first_signature=first.sign(payload),
            second=second.code,
            second_signature=second.sign(payload),
            book=book,
            now=clock().now(),
        )
        return _deposit(done, await Money.load(conn))

    found = write(work, dry_run=dry_run)
    show_one("Deposit", found, as_json=as_json, dry_run=dry_run)


def _deposit(item: Deposit, money: Money) -> dict[str, str]:
    return {
        "id": str(item.id),
        "state": str(item.state),
        "amount": money.text(item.amount, item.asset),
        "credit": item.credit,
        "reason": item.reason,
    }
