"""``causeway custody thaw, resume, abandon``: what two people decide about a security hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import (
    CHAIN_DEFAULT,
    AsJson,
    Chain,
    DryRun,
    Money,
    Reason,
    chain_nodes,
    clock,
    on_database,
    rehearse,
    run,
    show,
    write,
)
from app.cli.custody_explain import payout_facts
from app.cli.custody_rescue import providers_of, spend_of
from app.cli.operators import (
    Approver,
    ApproverKey,
    As,
    Key,
    Person,
    credentials,
    signatures_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from custody.bitcoin.spend_model import Spend
    from custody.payout_model import Payout

PayoutId = Annotated[UUID, typer.Argument(metavar="PAYOUT", help="Id of a payout on hold.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    for command in (thaw, resume, abandon):
        app.command()(command)


def thaw(
    sender: Annotated[str, typer.Argument(metavar="ADDRESS", help="Ours, from which it paid.")],
    *,
    reason: Reason,
    chain: Chain = CHAIN_DEFAULT,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Go on with the payouts of an address on security hold, as two operators say; both sign.

    On Bitcoin it is a transaction that is on hold and no address: see `causeway custody resume`.

    Example: `causeway custody thaw 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --reason "a known sweep" --as ada
    --key ada.key --approver ben --approver-key ben.key`
    """
    one, two = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> list[dict[str, str]]:
        people = (await one.person(conn), await two.person(conn))
        return await _facts(conn, await _resume_sender(conn, chain, sender, people, reason))

    _show(f"Payouts of {sender}", write(work, dry_run=dry_run), dry_run=dry_run, as_json=as_json)


def resume(
    payout_id: PayoutId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a payout on security hold, and with all that are held with it; two operators sign.

    It goes on with the bytes that exist, or with asking for them, so nothing is paid twice by it. On
    Bitcoin that is every payout of its transaction; elsewhere, all of its sending address. A wallet
    that is frozen is opened apart: see `causeway custody unfreeze`.

    Example: `causeway custody resume 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "the block is gone" --as ada
    --key ada.key --approver ben --approver-key ben.key`
    """
    one, two = credentials(as_, key), credentials(approver, approver_key)

    async def work(engine: AsyncEngine) -> list[dict[str, str]]:
        from custody.payouts import get_payout
        from kernel.db import transact

        people = [await transact(engine, who.person) for who in (one, two)]
        spend = await spend_of(engine, payout_id)

        async def change(conn: AsyncConnection) -> list[dict[str, str]]:
            if spend is not None:
                return await _resume_spend(conn, spend, people, reason)
            seen = await get_payout(conn, payout_id)
            held = await _resume_sender(conn, seen.chain, seen.sender, people, reason)
            return await _facts(conn, held)

        return await _change(engine, change, dry_run=dry_run)

    found = run(lambda: on_database(work))
    _show("Payouts that go on", found, dry_run=dry_run, as_json=as_json)


def abandon(
    payout_id: PayoutId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give a payout on security hold up, once its bytes can never be mined; two operators sign.

    That is so when another transaction, which is final, has spent its nonce, or a coin of each of
    its attempts; its claim then has its money back. On Bitcoin every payout of its transaction is
    given up with it. Needs CAUSEWAY_EVM_URL, or CAUSEWAY_BITCOIN_URL, which say what is final.

    Example: `causeway custody abandon 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "a stranger has the key" --as ada
    --key ada.key --approver ben --approver-key ben.key`
    """
    one, two = credentials(as_, key), credentials(approver, approver_key)

    async def work(engine: AsyncEngine) -> list[dict[str, str]]:
        from kernel.db import transact

        people = [await transact(engine, who.person) for who in (one, two)]
        spend = await spend_of(engine, payout_id)
        if spend is not None:
            async with await chain_nodes(engine, spend.chain) as node:
                final = await node.finalized_height()
            return await _change(
                engine,
                lambda conn: _abandon_spend(conn, spend, people, reason, final),
                dry_run=dry_run,
            )
        async with await providers_of(engine, payout_id) as gateway:
            final = await gateway.finalized_height()
        return await _change(
            engine,
            lambda conn: _abandon_payout(conn, payout_id, people, reason, final),
            dry_run=dry_run,
        )

    found = run(lambda: on_database(work))
    _show("Payouts given up", found, dry_run=dry_run, as_json=as_json)


async def _resume_sender(
    conn: AsyncConnection, chain: str, sender: str, people: Sequence[Person], reason: str
) -> Sequence[Payout]:
    from custody.payout_rescue import resume_bytes, resume_sender

    return await resume_sender(
        conn,
        chain,
        sender,
        signatures=signatures_of(people, resume_bytes(chain, sender, reason)),
        reason=reason,
        now=clock().now(),
    )


async def _resume_spend(
    conn: AsyncConnection, spend: Spend, people: Sequence[Person], reason: str
) -> list[dict[str, str]]:
    from custody.bitcoin.spend_rescue import resume_spend, spend_resume_bytes

    signatures = signatures_of(people, spend_resume_bytes(spend.id, reason))
    await resume_spend(conn, spend.id, signatures=signatures, reason=reason, now=clock().now())
    return await _spend_facts(conn, spend)


async def _abandon_spend(
    conn: AsyncConnection, spend: Spend, people: Sequence[Person], reason: str, final: int
) -> list[dict[str, str]]:
    from custody.bitcoin.spend_rescue import abandon_spend, spend_abandon_bytes

    await abandon_spend(
        conn,
        spend.id,
        signatures=signatures_of(people, spend_abandon_bytes(spend.id, reason)),
        reason=reason,
        finalized=final,
        now=clock().now(),
    )
    return await _spend_facts(conn, spend)


async def _abandon_payout(
    conn: AsyncConnection, payout_id: UUID, people: Sequence[Person], reason: str, final: int
) -> list[dict[str, str]]:
    from custody.payout_rescue import abandon_bytes, abandon_payout

    done = await abandon_payout(
        conn,
        payout_id,
        signatures=signatures_of(people, abandon_bytes(payout_id, reason)),
        reason=reason,
        finalized=final,
        now=clock().now(),
    )
    return await _facts(conn, [done])


async def _change(
    engine: AsyncEngine,
    work: Callable[[AsyncConnection], Awaitable[list[dict[str, str]]]],
    *,
    dry_run: bool,
) -> list[dict[str, str]]:
    from kernel.db import transact

    return await (rehearse(engine, work) if dry_run else transact(engine, work))


async def _spend_facts(conn: AsyncConnection, spend: Spend) -> list[dict[str, str]]:
    from custody.bitcoin.spend_moves import load_carried

    return await _facts(conn, (await load_carried(conn, spend.id)).payouts)


async def _facts(conn: AsyncConnection, payouts: Sequence[Payout]) -> list[dict[str, str]]:
    money = await Money.load(conn)
    return [payout_facts(item, money) for item in payouts]


def _show(title: str, found: Sequence[dict[str, str]], *, dry_run: bool, as_json: bool) -> None:
    columns = tuple(found[0]) if found else ("id",)
    name = f"{title} (rehearsed)" if dry_run else title
    show(name, columns, [tuple(item.values()) for item in found], as_json=as_json)
