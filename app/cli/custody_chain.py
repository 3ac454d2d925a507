"""``causeway custody chain``: whether a chain is followed, stopping it, and two people going on."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import (
    CHAIN_DEFAULT,
    AsJson,
    Chain,
    DryRun,
    Reason,
    clock,
    read,
    show,
    show_one,
    write,
)
from app.cli.operators import Approver, ApproverKey, As, Key, credentials
from kernel.clock import iso

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from chain.model import Following

chain_app = typer.Typer(
    help="Following a chain: status, halt, resume, what its pool and strangers send.",
    no_args_is_help=True,
)


@chain_app.command()
def status(*, chain: Chain = CHAIN_DEFAULT, as_json: AsJson = False) -> None:
    """Tell where the books are on a chain, whether and why it is halted, and what is read twice.

    A block is read a second time when enough blocks stand on it. Where that fails turn after turn,
    this says so: what the first reading missed may lie there.

    Example: `causeway custody chain status --json`
    """
    show_one("Chain", read(lambda conn: _facts(conn, chain)), as_json=as_json)


@chain_app.command()
def explain(*, chain: Chain = CHAIN_DEFAULT, as_json: AsJson = False) -> None:
    """Tell the life of a chain: halts, who resumed it, blocks that left it, blocks completed late.

    Example: `causeway custody chain explain`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from chain.halts import list_chain_history
        from registry.queries import get_chain

        await get_chain(conn, chain)
        return [
            (
                str(event.version),
                iso(event.at),
                event.name,
                event.actor,
                event.reason,
                ", ".join(f"{k}={v}" for k, v in (event.payload or {}).items() if k in SHOWN),
            )
            for event in await list_chain_history(conn, chain)
        ]

    columns = ("version", "at", "event", "by", "reason", "facts")
    show(f"Life of {chain}", columns, read(work), as_json=as_json, right=("version",))


@chain_app.command()
def pool(*, chain: Chain = CHAIN_DEFAULT, as_json: AsJson = False) -> None:
    """Count what pools show, or showed, of payments to our addresses, by state and token.

    Amounts are as the chain counts. Nothing of it is in the books before a block has it.

    Example: `causeway custody chain pool --json`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.pending import count_pending
        from registry.queries import get_chain

        await get_chain(conn, chain)
        return [
            (
                str(item.state),
                item.contract or "",
                str(item.count),
                str(item.amount),
                iso(item.last_seen_at),
            )
            for item in await count_pending(conn, chain)
        ]

    columns = ("state", "contract", "count", "amount", "last seen")
    show(f"Pool of {chain}", columns, read(work), as_json=as_json, right=("count", "amount"))


@chain_app.command()
def unregistered(
    *,
    chain: Chain = CHAIN_DEFAULT,
    days: Annotated[
        int, typer.Option(help="How many days, the newest first.", min=1, max=366)
    ] = 30,
    as_json: AsJson = False,
) -> None:
    """Count transfers of tokens that are not registered: kept in quarantine, and left out, by day.

    Example: `causeway custody chain unregistered --days 7`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.unregistered import list_days
        from registry.queries import get_chain

        await get_chain(conn, chain)
        since = clock().now().date() - timedelta(days=days - 1)
        return [
            (item.day.isoformat(), item.contract or "others", str(item.kept), str(item.left_out))
            for item in await list_days(conn, chain, since=since)
        ]

    columns = ("day", "contract", "kept", "left out")
    title = f"Unregistered tokens on {chain}"
    show(title, columns, read(work), as_json=as_json, right=("kept", "left out"))


@chain_app.command()
def halt(
    *,
    chain: Chain = CHAIN_DEFAULT,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Stop following a chain: nothing is credited and nothing sent until two operators resume it.

    Example: `causeway custody chain halt --reason "providers disagree" --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from chain.halts import halt as verb
        from registry.queries import get_chain

        me = await who.person(conn)
        await get_chain(conn, chain)
        await verb(conn, chain, by=me.code, reason=reason, now=clock().now())
        return await _facts(conn, chain)

    found = write(work, dry_run=dry_run)
    show_one("Chain", found, as_json=as_json, dry_run=dry_run)


@chain_app.command()
def resume(
    *,
    chain: Chain = CHAIN_DEFAULT,
    depth: Annotated[
        int, typer.Option(help="Blocks that the next walk-back may orphan.", min=0)
    ] = 0,
    reason: Reason,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let a halted chain be followed again; two operators sign for exactly this halt.

    Example: `causeway custody chain resume --depth 120 --reason "the fork was announced" --as dan
    --key dan.key --approver ada --approver-key ada.key`
    """
    one, two = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from chain.halts import RESUMER_ROLES, resume_request
        from chain.halts import resume as verb

        first = await one.person(conn, *RESUMER_ROLES)
        second = await two.person(conn, *RESUMER_ROLES)
        request = await resume_request(conn, chain, reason=reason, depth=depth)
        payload = request.payload()
        await verb(
            conn,
            chain,
            signatures={person.code: person.sign(payload) for person in (first, second)},
            reason=reason,
            depth=depth,
            now=clock().now(),
        )
        return await _facts(conn, chain)

    found = write(work, dry_run=dry_run)
    show_one("Chain", found, as_json=as_json, dry_run=dry_run)


SHOWN = frozenset({"height", "hash", "depth", "approved_by", "movements", "outcomes"})
"""What a line about an event shows; signatures are in the event itself."""


async def _facts(conn: AsyncConnection, chain: str) -> dict[str, str]:
    from chain.follow import get_cursor, get_following
    from registry.queries import get_chain

    await get_chain(conn, chain)
    following, cursor = await get_following(conn, chain), await get_cursor(conn, chain)
    return {
        "chain": chain,
        "state": str(following.state),
        "reason": following.reason,
        "height": "" if cursor is None else str(cursor.height),
        "block": "" if cursor is None else cursor.hash,
        "time": "" if cursor is None else iso(cursor.time),
        "second reading": second_reading(following),
    }


def second_reading(following: Following) -> str:
    """Say up to where blocks were read a second time, and why it gets no further, if so."""
    done = "" if following.reread is None else f"done to block {following.reread}"
    if not following.reread_failures:
        return done
    turns = f"no further for {following.reread_failures} turns: {following.reread_trouble}"
    return f"{done}, {turns}" if done else turns
