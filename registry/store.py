"""Rows of the registry to records and back. Private to this package."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Row,
    Table,
    Text,
    any_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.db import constraint_name
from kernel.money import Asset
from registry import tables
from registry.errors import AlreadyFounded, ChangeRefused, UnknownRecord
from registry.model import (
    BankAccount,
    Chain,
    ChainAsset,
    LegalEntity,
    Operator,
    Party,
    PartyKind,
    Proposal,
    ProposalState,
    Record,
    RecordKind,
    Revision,
    Role,
    Versioned,
    Wallet,
    WalletPurpose,
)
from registry.records import kind_of, to_content

LIST_MAX: Final = 10_000
"""Records read at once, at most: reference data is small."""

_TABLES: Final[Mapping[RecordKind, Table]] = {
    RecordKind.ENTITY: tables.entity,
    RecordKind.ASSET: tables.asset,
    RecordKind.CHAIN: tables.chain,
    RecordKind.CHAIN_ASSET: tables.chain_asset,
    RecordKind.PARTY: tables.party,
    RecordKind.OPERATOR: tables.operator,
    RecordKind.WALLET: tables.wallet,
    RecordKind.BANK_ACCOUNT: tables.bank_account,
}
_CONSTRAINTS: Final[Mapping[str, str]] = {
    "uq_entity_book": "another legal entity has that book",
    "uq_operator_public_key": "another operator has that key",
    "uq_wallet_account_xpub": "another wallet has that extended public key",
    "uq_wallet_token_key": "another wallet has that token's key",
    "uq_wallet_token_public_key": "another wallet has that public key",
    "uq_wallet_cosigners": "another wallet has those cosigners",
    "uq_chain_asset_chain_asset": "the chain has that asset already",
    "uq_chain_asset_chain_contract": "the chain has an asset with that contract already",
    "fk_chain_native_asset_asset": "there is no such native asset",
    "fk_chain_asset_chain_chain": "there is no such chain",
    "fk_chain_asset_asset_asset": "there is no such asset",
    "fk_party_entity_entity": "there is no such legal entity",
    "fk_wallet_chain_chain": "there is no such chain",
    "fk_wallet_owner_party_party": "there is no such client",
    "uq_bank_account_iban_asset": "another bank account has that IBAN in that currency",
    "fk_bank_account_asset_asset": "there is no such asset",
    "fk_bank_account_owner_party_party": "there is no such client",
    "fk_bank_account_entity_entity": "there is no such legal entity",
}


async def list_records(
    conn: AsyncConnection,
    kind: RecordKind,
    *,
    equal: Mapping[str, Any] | None = None,
    lock: bool = False,
) -> list[Versioned]:
    """Return the records whose columns equal *equal*, by code; locked for change if asked."""
    table = _TABLES[kind]
    query = select(table).order_by(table.c.code).limit(LIST_MAX)
    for name, value in (equal or {}).items():
        query = query.where(table.c[name] == value)
    rows = (await conn.execute(query.with_for_update() if lock else query)).all()
    roles = await _roles(conn, [row.code for row in rows]) if kind is RecordKind.OPERATOR else {}
    return [Versioned(_record(kind, row, roles), row.version, row.valid_from) for row in rows]


async def find_records(
    conn: AsyncConnection, kind: RecordKind, codes: Collection[str]
) -> dict[str, Record]:
    """Return those of *codes* that have a record, by code, in one statement; never operators."""
    table = _TABLES[kind]
    wanted = bindparam("codes", type_=ARRAY(Text))
    query = select(table).where(table.c.code == any_(wanted))
    rows = await conn.execute(query, {wanted.key: list(codes)})
    return {row.code: _record(kind, row, {}) for row in rows}


async def find_record(
    conn: AsyncConnection, kind: RecordKind, code: str, *, lock: bool = False
) -> Versioned | None:
    """Return the record as it stands, None if there is none."""
    found = await list_records(conn, kind, equal={"code": code}, lock=lock)
    return found[0] if found else None


async def get_record(
    conn: AsyncConnection, kind: RecordKind, code: str, *, lock: bool = False
) -> Record:
    """Return the record as it stands.

    Raises:
        UnknownRecord: nothing of that kind has that code.
    """
    found = await find_record(conn, kind, code, lock=lock)
    if found is None:
        raise UnknownRecord(
            f"there is no {kind.replace('_', ' ')} {code!r}",
            where="registry",
            remedy="Look at the registry's list, or propose it",
        )
    return found.record


async def save_record(
    conn: AsyncConnection,
    record: Record,
    *,
    version: int,
    proposal_id: UUID | None,
    now: datetime,
) -> None:
    """Write the record as it shall stand, and its revision.

    Raises:
        ChangeRefused: another record stands in the way, or one that is referred to is missing.
    """
    kind = kind_of(record)
    table = _TABLES[kind]
    values = _values(record) | {"version": version, "valid_from": now}
    try:
        if version == 1:
            await conn.execute(insert(table).values(values))
        else:
            await conn.execute(
                update(table)
                .where(table.c.code == record.code, table.c.version == version - 1)
                .values(_changeable(kind, values))
            )
    except IntegrityError as error:
        name = constraint_name(error) or ""
        said = "it exists already" if name == f"pk_{table.name}" else _CONSTRAINTS.get(name)
        if said is None:
            raise
        raise ChangeRefused(
            f"{kind} {record.code} cannot be registered: {said}",
            remedy="Correct it and propose again",
        ) from error
    if isinstance(record, Operator):
        await _save_roles(conn, record)
    await conn.execute(
        insert(tables.revision).values(
            kind=kind,
            code=record.code,
            version=version,
            content=to_content(record),
            proposal_id=proposal_id,
            valid_from=now,
        )
    )


async def insert_genesis(conn: AsyncConnection, now: datetime) -> None:
    """Take the one place of the founding.

    Raises:
        AlreadyFounded: it is taken, or records exist without it.
    """
    placed = await conn.execute(
        upsert(tables.genesis).values(singleton=True, founded_at=now).on_conflict_do_nothing()
    )
    revisions = await conn.scalar(select(func.count()).select_from(tables.revision))
    if placed.rowcount != 1 or revisions:
        raise AlreadyFounded(
            "the registry is founded already", remedy="Propose a change, and have it approved"
        )


async def insert_proposal(conn: AsyncConnection, proposal: Proposal) -> bool:
    """Write the proposal; False if its id exists."""
    values = {f.name: getattr(proposal, f.name) for f in fields(Proposal)}
    statement = upsert(tables.proposal).values(values).on_conflict_do_nothing()
    return (await conn.execute(statement)).rowcount == 1


async def get_proposal(conn: AsyncConnection, proposal_id: UUID, *, lock: bool = False) -> Proposal:
    """Return a proposal, locked for its decision if asked.

    Raises:
        UnknownRecord: there is none with that id.
    """
    query = select(tables.proposal).where(tables.proposal.c.id == proposal_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise UnknownRecord(f"there is no proposal {proposal_id}", where="registry")
    return _proposal(row)


async def list_proposals(conn: AsyncConnection, state: ProposalState | None) -> list[Proposal]:
    """Return proposals, oldest first, of one state or of all."""
    query = select(tables.proposal).order_by(tables.proposal.c.proposed_at, tables.proposal.c.id)
    if state is not None:
        query = query.where(tables.proposal.c.state == state)
    return [_proposal(row) for row in await conn.execute(query.limit(LIST_MAX))]


async def decide_proposal(
    conn: AsyncConnection,
    proposal: Proposal,
    *,
    state: ProposalState,
    by: str,
    signature: bytes,
    reason: str,
    now: datetime,
) -> None:
    """Write the decision over a proposal whose row is locked."""
    await conn.execute(
        insert(tables.approval).values(
            proposal_id=proposal.id,
            proposed_by=proposal.proposed_by,
            decided_by=by,
            approved=state is ProposalState.APPROVED,
            signature=signature,
            reason=reason,
            decided_at=now,
        )
    )
    await conn.execute(
        update(tables.proposal).where(tables.proposal.c.id == proposal.id).values(state=state)
    )


async def list_revisions(conn: AsyncConnection, kind: RecordKind, code: str) -> list[Revision]:
    """Return every version a record had, the first one first."""
    rows = await conn.execute(
        select(tables.revision)
        .where(tables.revision.c.kind == kind, tables.revision.c.code == code)
        .order_by(tables.revision.c.version)
    )
    return [
        Revision(
            RecordKind(r.kind), r.code, r.version, dict(r.content), r.proposal_id, r.valid_from
        )
        for r in rows
    ]


async def _save_roles(conn: AsyncConnection, record: Operator) -> None:
    roles = tables.operator_role
    await conn.execute(delete(roles).where(roles.c.operator == record.code))
    if record.roles:
        rows = [{"operator": record.code, "role": str(role)} for role in sorted(record.roles)]
        await conn.execute(insert(roles), rows)


async def _roles(conn: AsyncConnection, codes: Sequence[str]) -> dict[str, set[Role]]:
    table = tables.operator_role
    roles: dict[str, set[Role]] = {code: set() for code in codes}
    for row in await conn.execute(select(table).where(table.c.operator.in_(codes))):
        roles[row.operator].add(Role(row.role))
    return roles


def _values(record: Record) -> dict[str, Any]:
    values = {f.name: getattr(record, f.name) for f in fields(record) if f.name != "roles"}
    if isinstance(record, Wallet):
        values |= {"owner_party": record.owner_party, "cosigners": list(record.cosigners)}
    if isinstance(record, BankAccount):
        values["owner_party"] = record.owner_party
    return values


def _changeable(kind: RecordKind, values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the columns that the runtime role may not write, because they never change."""
    return {name: value for name, value in values.items() if name in CHANGEABLE[kind]}


CHANGEABLE: Final[Mapping[RecordKind, frozenset[str]]] = {
    RecordKind.ENTITY: frozenset({"name", "version", "valid_from"}),
    RecordKind.ASSET: frozenset({"version", "valid_from"}),
    RecordKind.CHAIN: frozenset({"version", "valid_from"}),
    RecordKind.CHAIN_ASSET: frozenset({"supply_max", "version", "valid_from"}),
    RecordKind.PARTY: frozenset({"kind", "entity", "version", "valid_from"}),
    RecordKind.OPERATOR: frozenset({"public_key", "active", "version", "valid_from"}),
    RecordKind.WALLET: frozenset({"purpose", "version", "valid_from"}),
    RecordKind.BANK_ACCOUNT: frozenset({"bank", "bic", "active", "version", "valid_from"}),
}
"""The columns each kind may change; the migration grants UPDATE on exactly these."""


def _record(kind: RecordKind, row: Row[Any], roles: Mapping[str, set[Role]]) -> Record:
    match kind:
        case RecordKind.ENTITY:
            return LegalEntity(row.code, row.name, row.book)
        case RecordKind.ASSET:
            return Asset(row.code, row.scale)
        case RecordKind.CHAIN:
            return Chain(row.code, row.kind, row.network_id, row.native_asset)
        case RecordKind.CHAIN_ASSET:
            bound = None if row.supply_max is None else int(row.supply_max)
            return ChainAsset(row.code, row.chain, row.contract, row.decimals, row.asset, bound)
        case RecordKind.PARTY:
            return Party(row.code, PartyKind(row.kind), row.entity)
        case RecordKind.OPERATOR:
            return Operator(row.code, row.public_key, frozenset(roles[row.code]), row.active)
        case RecordKind.BANK_ACCOUNT:
            names = (field.name for field in fields(BankAccount))
            return BankAccount(**{name: getattr(row, name) for name in names})
        case RecordKind.WALLET:
            return Wallet(
                row.code,
                row.chain,
                row.owner,
                WalletPurpose(row.purpose),
                row.account_xpub,
                row.account_path,
                row.token_key,
                row.token_public_key,
                tuple(row.cosigners),
                row.required,
            )


def _proposal(row: Row[Any]) -> Proposal:
    return Proposal(
        id=row.id,
        kind=RecordKind(row.kind),
        code=row.code,
        base_version=row.base_version,
        content=dict(row.content),
        proposed_by=row.proposed_by,
        reason=row.reason,
        proposed_at=row.proposed_at,
        state=ProposalState(row.state),
    )
