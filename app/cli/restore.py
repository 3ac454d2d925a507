"""``causeway restore …``: after the database was restored, before anything is paid again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import (
    CHAIN_DEFAULT,
    AsJson,
    Chain,
    DryRun,
    chain_nodes,
    chain_providers,
    clock,
    emit,
    node_url,
    on_database,
    parse_time,
    read,
    run,
    show,
    show_one,
    write,
)
from app.cli.custody_signer import Endpoint, Tls, signer_client
from app.cli.operators import (
    Approver,
    ApproverKey,
    As,
    Key,
    credentials,
    people_of,
    signatures_of,
)
from kernel.clock import iso
from kernel.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from custody.restore.model import Item, Restore
    from custody.restore.status import Status
    from custody.restore.watching import Look

app = typer.Typer(no_args_is_help=True, help="After a restore of the database: nothing twice.")

Why = Annotated[str, typer.Option("--reason", help="Why; it is signed and stays in the history.")]
SourceText = Annotated[str, typer.Argument(metavar="SOURCE", help="As `restore status` names it.")]
WitnessFile = Annotated[
    Path | None,
    typer.Option("--witness", metavar="FILE", help="The witness that the house file names."),
]


@app.command("look")
def look_(*, witness: WitnessFile = None, as_json: AsJson = False) -> None:
    """Compare the server with its witness; the house does that by itself at every start of the server.

    Example: `causeway restore look --witness restore.witness`
    """

    async def work(engine: AsyncEngine) -> Look:
        from custody.restore.watching import look

        return await look(engine, clock=clock(), witness=witness)

    seen = run(lambda: on_database(work))
    facts = {"compared": str(seen.compared).lower(), "evidence": seen.evidence}
    show_one("Look", facts, as_json=as_json)
    if seen.evidence:
        raise typer.Exit(1)


@app.command()
def begin(
    *,
    since: Annotated[
        str, typer.Option("--since", help="The moment that it was restored to, ISO 8601.")
    ],
    reason: Why,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say that the database was restored, before the house finds it: one person shuts every door.

    Example: `causeway restore begin --since 2026-11-20T08:00:00Z --reason "disk lost" --as dan --key dan.key`
    """
    who, moment = credentials(as_, key), parse_time(since)
    if moment is None:
        raise BadInput("say since when, as 2026-11-20T08:00:00Z")

    async def work(conn: AsyncConnection) -> Restore:
        from custody.restore.finding import begin_by_hand
        from custody.restore.model import begin_bytes

        me = await who.person(conn)
        signature = me.sign(begin_bytes(moment, reason))
        return await begin_by_hand(
            conn, since=moment, by=me.code, signature=signature, reason=reason, now=clock().now()
        )

    show_one("Restore", _facts(write(work, dry_run=dry_run)), as_json=as_json, dry_run=dry_run)


@app.command()
def status(*, as_json: AsJson = False) -> None:
    """Show what stands: what is read again, what was found, what keeps the doors shut.

    Ends with 1 while they are shut.

    Example: `causeway restore status`
    """

    async def work(conn: AsyncConnection) -> Status:
        from custody.restore.status import find_status

        return await find_status(conn, with_unclaimed=True)

    _show_status(read(work), as_json=as_json)


@app.command("history")
def history(*, as_json: AsJson = False) -> None:
    """List every restore there was, newest first, and who opened it.

    Example: `causeway restore history`
    """

    async def work(conn: AsyncConnection) -> list[Restore]:
        from custody.restore.status import list_restores

        return await list_restores(conn)

    rows = [tuple(_facts(item).values()) for item in read(work)]
    show("Restores", tuple(FACTS), rows, as_json=as_json)


@app.command("import")
def import_(*, signer: Endpoint, tls: Tls = None, as_json: AsJson = False) -> None:
    """Take in what the signer has signed and the database has lost; the house does that by itself.

    Addresses that were perhaps given out are watched first.

    Example: `causeway restore import --signer /run/causeway/signer.sock`
    """

    async def work(engine: AsyncEngine) -> list[Item]:
        from custody.restore.signed_payouts import take_signed
        from custody.restore.skipping import watch_skipped

        items = await watch_skipped(engine, clock=clock())
        return items + await take_signed(engine, signer_client(signer, tls), clock=clock())

    _show_items(run(lambda: on_database(work)), as_json=as_json)


@app.command("import-file")
def import_file(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="As the bank has them.")],
    *,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take in payment files that a bank was given and the database has lost; two approvers sign.

    When the bank has no other one, say so: `causeway restore vouch bank-files:ACCOUNT`.

    Example: `causeway restore import-file payments.xml --as ada --key ada.key --approver ben
    --approver-key ben.key`
    """
    both = credentials(as_, key), credentials(approver, approver_key)
    contents = [_read(path) for path in files]

    async def work(conn: AsyncConnection) -> list[Item]:
        from custody.restore.bank_files import bank_file_bytes, take_bank_file

        people = await people_of(conn, both)
        found = []
        for raw in contents:
            payload = await bank_file_bytes(conn, raw)
            signatures = signatures_of(people, payload)
            now = clock().now()
            found.append(await take_bank_file(conn, raw, signatures=signatures, now=now))
        return found

    _show_items(write(work, dry_run=dry_run), as_json=as_json)


@app.command()
def cover(*, chain: Chain = CHAIN_DEFAULT, as_json: AsJson = False) -> None:
    """Note what is followed to its end again: a chain, statements; the house does that by itself.

    Example: `causeway restore cover --chain evm`
    """

    async def work(engine: AsyncEngine) -> Status:
        from custody.restore.coverage import cover_chain, cover_statements
        from custody.restore.status import find_status
        from kernel.db import transact
        from registry.model import BITCOIN
        from registry.queries import get_chain

        found = await transact(engine, lambda conn: get_chain(conn, chain))
        if found.kind == BITCOIN:
            async with await chain_nodes(engine, chain) as nodes:
                await cover_chain(engine, nodes, chain, clock=clock())
        else:
            async with await chain_providers(engine, chain, node_url()) as gateway:
                await cover_chain(engine, gateway, chain, clock=clock())
        await transact(engine, lambda conn: cover_statements(conn, now=clock().now()))
        return await transact(engine, find_status)

    _show_status(run(lambda: on_database(work)), as_json=as_json)


@app.command()
def vouch(
    source: SourceText,
    *,
    reason: Why,
    as_: As,
    key: Key,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say, as a person who has looked, that a place has nothing more that is missing here.

    Example: `causeway restore vouch bank-files:house-eur --reason "asked the bank" --as dan --key dan.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> None:
        from custody.restore.coverage import vouch as do_vouch
        from custody.restore.model import vouching_bytes
        from custody.restore.status import get_source

        me = await who.person(conn)
        signature = me.sign(vouching_bytes(await get_source(conn, source), reason))
        await do_vouch(
            conn, source, by=me.code, signature=signature, reason=reason, now=clock().now()
        )

    write(work, dry_run=dry_run)
    show_one("Vouched", {"source": source, "by": as_}, as_json=as_json, dry_run=dry_run)


@app.command()
def settle(
    source: SourceText,
    item: Annotated[str, typer.Argument(metavar="ITEM", help="As `restore status` names it.")],
    *,
    reason: Why,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    reference: Annotated[
        str,
        typer.Option(
            "--reference",
            help="Of a withdrawal: under which it was asked for, where the venue lists none of ours.",
        ),
    ] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Say, as two people, how you have dealt with what could not be taken in.

    Example: `causeway restore settle signer spend-17 --reason "journal 4 posted" --as ada --key ada.key
    --approver ben --approver-key ben.key`
    """
    both = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> Item:
        from custody.restore.model import settling_bytes
        from custody.restore.opening import settle as do_settle
        from custody.restore.status import get_item

        people = await people_of(conn, both)
        payload = settling_bytes(await get_item(conn, source, item), reason, reference)
        return await do_settle(
            conn,
            source,
            item,
            signatures=signatures_of(people, payload),
            reason=reason,
            reference=reference,
            now=clock().now(),
        )

    _show_items([write(work, dry_run=dry_run)], as_json=as_json)


@app.command("open")
def open_(
    *,
    reason: Why,
    as_: As,
    key: Key,
    approver: Approver,
    approver_key: ApproverKey,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Open every door again: two people sign, and the signer takes the same signatures.

    Example: `causeway restore open --reason "all is known again" --as ada --key ada.key --approver ben
    --approver-key ben.key`
    """
    both = credentials(as_, key), credentials(approver, approver_key)

    async def work(conn: AsyncConnection) -> Restore:
        from custody.restore.model import opening_bytes
        from custody.restore.opening import open_restore
        from custody.restore.status import get_standing

        people = await people_of(conn, both)
        payload = opening_bytes(await get_standing(conn), reason)
        signatures = signatures_of(people, payload)
        return await open_restore(conn, signatures=signatures, reason=reason, now=clock().now())

    show_one("Restore", _facts(write(work, dry_run=dry_run)), as_json=as_json, dry_run=dry_run)


FACTS = ("id", "state", "found_at", "found_by", "since", "evidence", "opened_by", "opened_at")


def _facts(item: Restore) -> dict[str, str]:
    return {
        "id": str(item.id),
        "state": str(item.state),
        "found_at": iso(item.found_at),
        "found_by": item.found_by,
        "since": iso(item.since),
        "evidence": item.evidence,
        "opened_by": " and ".join(item.opened_by or ()),
        "opened_at": "" if item.opened_at is None else iso(item.opened_at),
    }


def _show_status(found: Status, *, as_json: bool) -> None:
    sources = [
        (item.source, str(item.stage), str(item.state), item.done_by or "", item.detail)
        for item in found.sources
    ]
    unclaimed = [
        (
            *(str(item.id), item.wallet, item.address, item.asset, str(item.amount)),
            *(str(item.state), iso(item.first_seen_at)),
        )
        for item in found.unclaimed
    ]
    if as_json:
        emit(
            {
                "open": found.gate is None,
                "why": "" if found.gate is None else found.gate.reason,
                "restore": None if found.restore is None else _facts(found.restore),
                "sources": [dict(zip(SOURCES, row, strict=True)) for row in sources],
                "items": [dict(zip(ITEMS, _row(item), strict=True)) for item in found.items],
                "missing": list(found.missing),
                "unclaimed": [dict(zip(UNCLAIMED, row, strict=True)) for row in unclaimed],
            }
        )
    elif found.gate is None:
        typer.echo("every door is as people have set it: no restore stands")
    else:
        typer.echo(f"every door is shut: {found.gate.reason}")
        if found.restore is not None:
            show("Read again", SOURCES, sources, as_json=False)
            show("Found", ITEMS, [_row(item) for item in found.items], as_json=False)
            for line in found.missing:
                typer.echo(line)
    if unclaimed and not as_json:
        show("Nobody's yet, at addresses of lost hours", UNCLAIMED, unclaimed, as_json=False)
    if found.gate is not None:
        raise typer.Exit(1)


SOURCES = ("source", "stage", "state", "by", "detail")
UNCLAIMED = ("deposit", "wallet", "address", "asset", "amount", "state", "seen")
ITEMS = ("source", "item", "state", "what")


def _row(item: Item) -> tuple[str, ...]:
    return item.source, item.key, str(item.state), item.what


def _show_items(items: list[Item], *, as_json: bool) -> None:
    show("Found", ITEMS, [_row(item) for item in items], as_json=as_json)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"it cannot be read: {error.strerror}", where=str(path)) from error
