"""``causeway custody rebalance``, ``sweep``: bands, sweeps, and what a window proposes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.common import (
    BOOK_DEFAULT,
    CHAIN_DEFAULT,
    AsJson,
    Book,
    Chain,
    DryRun,
    Money,
    Reason,
    chain_nodes,
    chain_providers,
    clock,
    emit,
    node_url,
    on_database,
    read,
    run,
    show,
    show_one,
    write,
)
from app.cli.operators import As, Key, credentials
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from custody.rebalance.model import (
        OwnTransfer,
        Proposal,
        RebalanceReport,
        RulesRow,
        TreasuryPlan,
    )

rebalance = typer.Typer(
    help="Where our own coins should lie, and moving them.", no_args_is_help=True
)
bands = typer.Typer(help="Bands and sweeps, made by two people.", no_args_is_help=True)
rebalance.add_typer(bands, name="bands")

ProposalId = Annotated[UUID, typer.Argument(metavar="PROPOSAL", help="Id of the proposal.")]
Version = Annotated[int, typer.Argument(min=1, help="Version of the rules.")]
TRANSFER = ("kind", "from wallet", "from", "to wallet", "to", "amount", "by hand", "reason")


def register(app: typer.Typer) -> None:
    """Add these commands to a group."""
    app.add_typer(rebalance, name="rebalance")
    app.command()(sweep)


@rebalance.command("plan")
def rebalance_plan(
    *, chain: Chain = CHAIN_DEFAULT, book: Book = BOOK_DEFAULT, as_json: AsJson = False
) -> None:
    """Show what a window that began now would propose; nothing is written.

    Needs CAUSEWAY_EVM_URL, or CAUSEWAY_BITCOIN_URL for a chain of Bitcoin.

    Example: `causeway custody rebalance plan --json`
    """
    _show_plan(chain, book, (), as_json=as_json)


def sweep(
    *, chain: Chain = CHAIN_DEFAULT, book: Book = BOOK_DEFAULT, as_json: AsJson = False
) -> None:
    """Show the sweeps, gas top-ups and consolidations that a window that began now would propose.

    Needs CAUSEWAY_EVM_URL, or CAUSEWAY_BITCOIN_URL for a chain of Bitcoin. `causeway custody rebalance run` asks for them.

    Example: `causeway custody sweep --json`
    """
    _show_plan(chain, book, ("sweep", "top_up", "consolidate"), as_json=as_json)


@rebalance.command("run")
def rebalance_run(
    *, chain: Chain = CHAIN_DEFAULT, book: Book = BOOK_DEFAULT, as_json: AsJson = False
) -> None:
    """Plan the present window unless it is planned, and ask for what it proposes.

    Needs CAUSEWAY_EVM_URL, or CAUSEWAY_BITCOIN_URL for a chain of Bitcoin. Each transfer becomes a
    payout that waits for its approvals; a second run in the same window asks for nothing again. Ends with exit code 1 where something was refused or
    an alarm was raised.

    Example: `causeway custody rebalance run`
    """

    async def work(engine: AsyncEngine) -> RebalanceReport:
        from custody.rebalance.worker import advance_coins, advance_rebalance

        if await _has_coins(engine, chain):
            async with await chain_nodes(engine, chain) as node:
                return await advance_coins(engine, node, chain=chain, book=book, clock=clock())
        async with await chain_providers(engine, chain, node_url()) as gateway:
            return await advance_rebalance(engine, gateway, chain=chain, book=book, clock=clock())

    report = run(lambda: on_database(work))
    facts = {
        "window": "" if report.window is None else iso(report.window),
        "planned": "now" if report.planned else "before",
        "proposed": str(len(report.proposed)),
        "requested": str(len(report.requested)),
        "lapsed": str(len(report.lapsed)),
        "left over": str(report.left_over),
        "refused": "; ".join(f"{key}: {why}" for key, why in report.refused.items()),
        "alarms": "; ".join(f"{a.name} {a.wallet} {a.asset}: {a.reason}" for a in report.alarms),
        "waiting": report.waiting,
    }
    show_one("Rebalancing", facts, as_json=as_json)
    if report.refused or report.alarms:
        raise typer.Exit(1)


@rebalance.command("list")
def rebalance_list(
    *,
    chain: Chain = CHAIN_DEFAULT,
    book: Book = BOOK_DEFAULT,
    by_hand: Annotated[
        bool, typer.Option("--by-hand", help="Only those that people carry out and have not.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List what windows proposed, the newest first, and what became of it.

    Example: `causeway custody rebalance list --by-hand`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.rebalance.model import ProposalState
        from custody.rebalance.proposals import list_proposals

        money = await Money.load(conn)
        states = [ProposalState.PROPOSED] if by_hand else []
        page = await list_proposals(
            conn, book=book, chain=chain, states=states, by_hand=True if by_hand else None
        )
        return [tuple(_proposal(item, money).values()) for item in page]

    columns = ("id", "window", "state", *TRANSFER, "payout", "detail")
    show("Proposals", columns, read(work), as_json=as_json, right=("amount",))


@rebalance.command("hand-over")
def rebalance_hand_over(proposal_id: ProposalId, *, as_json: AsJson = False) -> None:
    """Print what people have to sign to move coins out of a cold wallet.

    Example: `causeway custody rebalance hand-over 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --json`
    """

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.rebalance.proposals import hand_over

        return {name: str(value) for name, value in (await hand_over(conn, proposal_id)).items()}

    show_one("To sign", read(work), as_json=as_json)


@rebalance.command("carried-out")
def rebalance_carried_out(
    proposal_id: ProposalId,
    *,
    transaction: Annotated[str, typer.Option(help="Hash of the transaction that did it.")],
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write that people moved the coins; the books follow the block that has the transaction.

    Example: `causeway custody rebalance carried-out 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --transaction
    0x3f1c0e1b5d0e8a6f4c2b9a7d8e6f5c4b3a291807f6e5d4c3b2a190807f6e5d4c --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.rebalance.proposals import carried_out

        me = await who.person(conn)
        done = await carried_out(
            conn, proposal_id, tx_hash=transaction, by=me.code, now=clock().now()
        )
        return _proposal(done, await Money.load(conn))

    found = write(work, dry_run=dry_run)
    show_one("Proposal", found, as_json=as_json, dry_run=dry_run)


@rebalance.command("dismiss")
def rebalance_dismiss(
    proposal_id: ProposalId,
    *,
    reason: Reason,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say that a proposed transfer shall not be.

    Example: `causeway custody rebalance dismiss 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "not today"
    --as ada --key ada.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.rebalance.proposals import dismiss

        me = await who.person(conn)
        done = await dismiss(conn, proposal_id, reason=reason, by=me.code, now=clock().now())
        return _proposal(done, await Money.load(conn))

    found = write(work, dry_run=dry_run)
    show_one("Proposal", found, as_json=as_json, dry_run=dry_run)


@bands.command("list")
def bands_list(*, as_json: AsJson = False) -> None:
    """List the versions of the rules, the newest first.

    Example: `causeway custody rebalance bands list`
    """

    async def work(conn: AsyncConnection) -> list[tuple[str, ...]]:
        from custody.rebalance.rules import list_rules

        return [tuple(_rules(row).values()) for row in await list_rules(conn)]

    columns = (
        *("version", "state", "bands", "sweeps", "consolidations"),
        *("window", "proposed by", "approved by"),
    )
    show("Rebalancing rules", columns, read(work), as_json=as_json)


@bands.command("show")
def bands_show(version: Version, *, as_json: AsJson = False) -> None:
    """Show one version of the rules; amounts in smallest units, as they are signed.

    Example: `causeway custody rebalance bands show 1 --json`
    """

    async def work(conn: AsyncConnection) -> RulesRow:
        from custody.rebalance.rules import get_rules

        return await get_rules(conn, version)

    row = read(work)
    from custody.rebalance.document import to_document

    document = to_document(row.rules)
    if as_json:
        emit({**_rules(row), "rules": document})
        return
    show_one("Rules", _rules(row), as_json=False)
    for name in ("bands", "sweeps", "consolidations"):
        items = document[name]
        columns = tuple(items[0]) if items else ("wallet", "asset")
        rows = [tuple("" if v is None else str(v) for v in item.values()) for item in items]
        show(name.capitalize(), columns, rows, as_json=False)


@bands.command("propose")
def bands_propose(
    file: Annotated[Path, typer.Argument(help="The rules, JSON.")],
    *,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Propose the next version of the rules from a file; those in force stay in force.

    Example: `causeway custody rebalance bands propose bands.json --as ada --key ada.key`
    """
    who, text = credentials(as_, key), _read_text(file)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.rebalance.rules import propose_rules
        from registry.queries import list_chains

        me = await who.person(conn)
        chains = [item.code for item in await list_chains(conn)]
        return _rules(await propose_rules(conn, text, chains=chains, by=me.code, now=clock().now()))

    found = write(work, dry_run=dry_run)
    show_one("Rules", found, as_json=as_json, dry_run=dry_run)


@bands.command("approve")
def bands_approve(
    version: Version, *, as_: As, key: Key, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Put a proposed version in force, as another treasurer or administrator.

    Example: `causeway custody rebalance bands approve 1 --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.rebalance.rules import approve_rules, get_rules, rules_bytes

        me = await who.person(conn)
        signature = me.sign(rules_bytes(await get_rules(conn, version)))
        return _rules(
            await approve_rules(conn, version, by=me.code, signature=signature, now=clock().now())
        )

    found = write(work, dry_run=dry_run)
    show_one("Rules", found, as_json=as_json, dry_run=dry_run)


@bands.command("reject")
def bands_reject(
    version: Version, *, as_: As, key: Key, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Say no to a proposed version.

    Example: `causeway custody rebalance bands reject 1 --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from custody.rebalance.rules import reject_rules

        me = await who.person(conn)
        return _rules(await reject_rules(conn, version, by=me.code, now=clock().now()))

    found = write(work, dry_run=dry_run)
    show_one("Rules", found, as_json=as_json, dry_run=dry_run)


def _read_text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the rules cannot be read: {error}", where=str(file)) from error


def _show_plan(chain: str, book: int, kinds: tuple[str, ...], *, as_json: bool) -> None:
    async def work(engine: AsyncEngine) -> tuple[list[tuple[str, ...]], list[str]]:
        from kernel.db import transact

        made = await _preview(engine, chain, book)
        money = await transact(engine, Money.load)
        rows = [
            tuple(_transfer(item, money).values())
            for item in made.transfers
            if not kinds or item.kind in kinds
        ]
        return rows, [f"{a.name}: {a.wallet} {a.asset} {a.reason}" for a in made.alarms]

    rows, alarms = run(lambda: on_database(work))
    show(f"Own transfers on {chain}", TRANSFER, rows, as_json=as_json, right=("amount",))
    for line in () if kinds else alarms:
        typer.echo(line, err=True)


async def _preview(engine: AsyncEngine, chain: str, book: int) -> TreasuryPlan:
    from custody.rebalance.worker import preview, preview_coins

    if await _has_coins(engine, chain):
        async with await chain_nodes(engine, chain) as node:
            return await preview_coins(engine, node, chain=chain, book=book)
    async with await chain_providers(engine, chain, node_url()) as gateway:
        return await preview(engine, gateway, chain=chain, book=book)


async def _has_coins(engine: AsyncEngine, chain: str) -> bool:
    from kernel.db import transact
    from registry.model import BITCOIN
    from registry.queries import get_chain

    return (await transact(engine, lambda conn: get_chain(conn, chain))).kind == BITCOIN


def _transfer(item: OwnTransfer, money: Money) -> dict[str, str]:
    return {
        "kind": str(item.kind),
        "from wallet": item.wallet,
        "from": item.address,
        "to wallet": item.to_wallet,
        "to": item.to_address or "a fresh address",
        "amount": money.text(item.amount, item.asset),
        "by hand": "yes" if item.by_hand else "",
        "reason": item.reason,
    }


def _proposal(item: Proposal, money: Money) -> dict[str, str]:
    return {
        "id": str(item.id),
        "window": iso(item.window),
        "state": str(item.state),
        **_transfer(item.transfer, money),
        "payout": "" if item.payout_id is None else str(item.payout_id),
        "detail": item.detail,
    }


def _rules(row: RulesRow) -> dict[str, str]:
    return {
        "version": str(row.rules.version),
        "state": str(row.state),
        "bands": str(len(row.rules.bands)),
        "sweeps": str(len(row.rules.sweeps)),
        "consolidations": str(len(row.rules.consolidations)),
        "window": f"{int(row.rules.window.total_seconds())} s",
        "proposed by": row.proposed_by,
        "approved by": row.approved_by or "",
    }
