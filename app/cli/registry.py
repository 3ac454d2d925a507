"""``causeway registry``: reference data, changed by two people and versioned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from app.cli.common import AsJson, Reason, clock, emit, one_of, read, show, show_one, write
from app.cli.operators import As, Key, credentials, make_key
from kernel.clock import iso
from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from registry.model import Founding, Proposal, Record, RecordKind, Revision

app = typer.Typer(
    help="Entities, assets, parties, operators, wallets, bank accounts.", no_args_is_help=True
)

Kind = Annotated[
    str,
    typer.Argument(
        help="entity, asset, chain, chain_asset, party, operator, wallet or bank_account."
    ),
]
ProposalId = Annotated[UUID, typer.Argument(metavar="PROPOSAL", help="Id of the proposal.")]


@app.command("list")
def list_(kind: Kind, *, as_json: AsJson = False) -> None:
    """List the records of one kind, as they stand.

    Example: `causeway registry list party`
    """
    wanted = _kind(kind)

    async def work(conn: AsyncConnection) -> list[dict[str, Any]]:
        from registry.records import to_content

        return [to_content(item) for item in await _records(conn, wanted)]

    found = read(work)
    if as_json:
        emit(found)
        return
    columns = tuple(found[0]) if found else ("code",)
    rows = [tuple(_cell(value) for value in item.values()) for item in found]
    show(f"Registry: {wanted}", columns, rows, as_json=False)


@app.command("show")
def show_(kind: Kind, code: str, *, as_json: AsJson = False) -> None:
    """Show a record with every version it had.

    Example: `causeway registry show operator ada`
    """
    wanted = _kind(kind)

    async def work(conn: AsyncConnection) -> list[Revision]:
        from registry.queries import list_revisions

        return await list_revisions(conn, wanted, code)

    versions = read(work)
    if not versions:
        raise Refused(
            f"no {wanted} {code} is registered", remedy=f"Look at `causeway registry list {wanted}`"
        )
    columns = ("version", "valid_from", "proposal", "content")
    rows = [
        (
            str(item.version),
            iso(item.valid_from),
            str(item.proposal_id or "founding"),
            json.dumps(dict(item.content), sort_keys=True),
        )
        for item in versions
    ]
    if as_json:
        lines = [dict(zip(columns, row, strict=True)) for row in rows]
        emit(
            {
                "kind": str(wanted),
                **versions[-1].content,
                "versions": [
                    {**line, "content": dict(item.content)}
                    for line, item in zip(lines, versions, strict=True)
                ],
            }
        )
        return
    facts = {name: _cell(value) for name, value in versions[-1].content.items()}
    show_one(f"{wanted} {code}", facts, as_json=False)
    show("Versions", columns, rows, as_json=False)


@app.command()
def found(file: Path, *, as_json: AsJson = False) -> None:
    """Write the first records of an empty database, and open the books of its entities.

    The file is a JSON object with lists entities, assets, chains, chain_assets, parties, operators
    and wallets, each record as `causeway registry list --json` prints it.

    Example: `causeway registry found founding.json`
    """
    founding = parse_founding(read_json(file), file)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        await found_house(conn, founding)
        records = founding.records
        return {"records": str(len(records)), "books": str(len(founding.entities))}

    show_one("Founded", write(work), as_json=as_json)


@app.command()
def propose(
    kind: Kind,
    file: Annotated[Path, typer.Argument(help="The record as a JSON object, in full.")],
    *,
    reason: Reason,
    as_: As,
    key: Key,
    as_json: AsJson = False,
) -> None:
    """Propose that a record shall stand as the file gives it; another administrator decides.

    Example: `causeway registry propose party acme.json --reason "new client" --as ada --key ada.key`
    """
    who = credentials(as_, key)
    wanted = _kind(kind)
    record = parse_record(wanted, read_json(file), file)

    async def work(conn: AsyncConnection) -> Proposal:
        from registry.changes import propose as verb

        me = await who.person(conn)
        return await verb(conn, record, by=me.code, reason=reason, now=clock().now())

    show_one("Proposal", _proposal(write(work)), as_json=as_json)


@app.command()
def proposals(
    *,
    state: Annotated[str | None, typer.Option("--state", help="Only those in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List proposals, oldest first.

    Example: `causeway registry proposals --state proposed`
    """
    from registry.model import ProposalState

    wanted = None if state is None else one_of(ProposalState, state, "state of a proposal")

    async def work(conn: AsyncConnection) -> list[Proposal]:
        from registry.queries import list_proposals

        return await list_proposals(conn, wanted)

    columns = (
        *("id", "state", "kind", "code", "base_version", "proposed_by", "reason"),
        *("proposed", "content"),
    )
    rows = [tuple(_proposal(item).values()) for item in read(work)]
    show("Proposals", columns, rows, as_json=as_json)


@app.command()
def approve(proposal_id: ProposalId, *, as_: As, key: Key, as_json: AsJson = False) -> None:
    """Approve a proposal: your key signs its content, and it comes into force.

    Example: `causeway registry approve 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --as ben --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> dict[str, str]:
        from registry.changes import approve as verb
        from registry.decisions import approval_bytes
        from registry.queries import get_proposal

        me = await who.person(conn)
        pending = await get_proposal(conn, proposal_id)
        signature = me.sign(approval_bytes(pending))
        done = await verb(conn, proposal_id, by=me.code, signature=signature, now=clock().now())
        await _check_keys(conn, [done.record])
        return {
            "kind": str(pending.kind),
            "code": pending.code,
            "version": str(done.version),
            "valid_from": iso(done.valid_from),
        }

    show_one("In force", write(work), as_json=as_json)


@app.command()
def reject(
    proposal_id: ProposalId, *, reason: Reason, as_: As, key: Key, as_json: AsJson = False
) -> None:
    """Reject a proposal: it can never come into force.

    Example: `causeway registry reject 0198f2c4-7d21-8a6e-9c30-5b1f4e6a7d80 --reason "wrong entity" --as ben
    --key ben.key`
    """
    who = credentials(as_, key)

    async def work(conn: AsyncConnection) -> Proposal:
        from registry.changes import reject as verb
        from registry.decisions import REJECT, approval_bytes
        from registry.queries import get_proposal

        me = await who.person(conn)
        signature = me.sign(approval_bytes(await get_proposal(conn, proposal_id), REJECT))
        await verb(
            conn, proposal_id, by=me.code, signature=signature, reason=reason, now=clock().now()
        )
        return await get_proposal(conn, proposal_id)

    show_one("Proposal", _proposal(write(work)), as_json=as_json)


@app.command("new-key")
def new_key(
    file: Annotated[Path, typer.Argument(help="A file that does not exist yet.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Make an operator's key; the public half, which is printed, is what gets enrolled.

    Example: `causeway registry new-key dan.key`
    """
    public = make_key(file)
    show_one("Key", {"file": str(file), "public_key": public.hex()}, as_json=as_json)


def parse_record(kind: RecordKind, document: object, where: Path) -> Record:
    """Return the record that a JSON object describes.

    Raises:
        BadInput: a field is missing, unknown or of another type.
    """
    from registry.records import from_content

    if not isinstance(document, dict):
        raise BadInput(f"the {kind} is not a JSON object", where=str(where))
    try:
        return from_content(kind, document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"the {kind} is not complete and correct: {error}",
            where=str(where),
            remedy=f"Write the fields that `causeway registry list {kind} --json` prints",
        ) from error


def parse_founding(document: object, where: Path) -> Founding:
    """Return the founding that a JSON object describes.

    Raises:
        BadInput: a list is unknown, or a record in it is not complete and correct.
    """
    from registry.model import Founding, RecordKind

    lists = {
        "entities": RecordKind.ENTITY,
        "assets": RecordKind.ASSET,
        "chains": RecordKind.CHAIN,
        "chain_assets": RecordKind.CHAIN_ASSET,
        "parties": RecordKind.PARTY,
        "operators": RecordKind.OPERATOR,
        "wallets": RecordKind.WALLET,
        "bank_accounts": RecordKind.BANK_ACCOUNT,
    }
    if not isinstance(document, dict) or not document.keys() <= lists.keys():
        raise BadInput(
            "the founding is not a JSON object of lists of records",
            where=str(where),
            remedy=f"Known lists are {', '.join(lists)}",
        )
    records: dict[str, Any] = {"entities": ()}
    for name, items in document.items():
        if not isinstance(items, list):
            raise BadInput(f"{name} of the founding is not a list", where=str(where))
        records[name] = tuple(parse_record(lists[name], item, where) for item in items)
    return Founding(**records)


async def found_house(conn: AsyncConnection, founding: Founding) -> None:
    """Write the first records and open the book of every entity."""
    from ledger.posting import open_book
    from registry.changes import found as verb

    await verb(conn, founding, now=clock().now())
    await _check_keys(conn, founding.wallets)
    for entity in founding.entities:
        await open_book(conn, entity.book, entity=entity.code)


async def _check_keys(conn: AsyncConnection, records: Sequence[Record]) -> None:
    """Derive the first address of new wallets by two libraries, and keep it as the known answer.

    Raises:
        BadKey: an account key is not valid, or not at its path.
        DerivationDisagrees: the libraries do not agree, or the wallet began with another key.
    """
    from custody.addresses import check_wallet_key
    from registry.model import Wallet

    for record in records:
        if isinstance(record, Wallet):
            await check_wallet_key(conn, record, now=clock().now())


async def _records(conn: AsyncConnection, kind: RecordKind) -> Sequence[Record]:
    from registry import queries
    from registry.model import RecordKind

    match kind:
        case RecordKind.ENTITY:
            return await queries.list_entities(conn)
        case RecordKind.ASSET:
            return await queries.list_assets(conn)
        case RecordKind.CHAIN:
            return await queries.list_chains(conn)
        case RecordKind.PARTY:
            return await queries.list_parties(conn)
        case RecordKind.OPERATOR:
            return await queries.list_operators(conn)
        case RecordKind.BANK_ACCOUNT:
            return await queries.list_bank_accounts(conn)
        case RecordKind.CHAIN_ASSET | RecordKind.WALLET:
            found: list[Record] = []
            for chain in await queries.list_chains(conn):
                if kind is RecordKind.WALLET:
                    found += await queries.list_wallets(conn, chain.code)
                else:
                    found += await queries.list_chain_assets(conn, chain.code)
            return found


def _kind(text: str) -> RecordKind:
    from registry.model import RecordKind

    return one_of(RecordKind, text, "kind of record")


def read_json(path: Path) -> object:
    """Read a JSON file.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"the file cannot be read as JSON: {error}", where=str(path)) from error


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)


def _proposal(item: Proposal) -> dict[str, str]:
    return {
        "id": str(item.id),
        "state": str(item.state),
        "kind": str(item.kind),
        "code": item.code,
        "base_version": str(item.base_version),
        "proposed_by": item.proposed_by,
        "reason": item.reason,
        "proposed": iso(item.proposed_at),
        "content": json.dumps(dict(item.content), sort_keys=True),
    }
