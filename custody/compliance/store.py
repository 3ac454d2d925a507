"""Rows of compliance to values and back. Private to this package."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Text, and_, any_, func, literal, null, or_, select
from sqlalchemy import Uuid as SqlUuid
from sqlalchemy.dialects.postgresql import ARRAY, distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.compliance import tables
from custody.compliance.identity import case_id
from custody.compliance.model import (
    ASKED_AT_ONCE_MAX,
    PASSED,
    AddressProof,
    Case,
    CaseState,
    Decision,
    Direction,
    LegalHold,
    LegalHoldState,
    Opinion,
    ProofState,
    Subject,
)
from custody.deposit_model import DepositKind, DepositState
from custody.errors import UnknownRow
from custody.payout_model import Claim, ClaimKind, ControlState, PayoutState
from custody.payout_tables import allowed_destination, payout
from custody.tables import deposit
from kernel.rows import insert_rows, update_rows

PAGE_MAX: Final = 500
_CASE_CHANGES: Final = (
    *("id", "state", "provider", "list_version", "reason", "answered_at", "version"),
)
_CASE_FIELDS: Final = tuple(f.name for f in fields(Case))


# Cases.


async def insert_cases(conn: AsyncConnection, cases: Sequence[Case]) -> None:
    """Write new cases; those that are known already stay as they are."""
    rows = [{name: getattr(case, name) for name in _CASE_FIELDS} for case in cases]
    await insert_rows(conn, tables.compliance_case, rows, known="ON CONFLICT DO NOTHING")


async def save_cases(conn: AsyncConnection, cases: Sequence[Case]) -> None:
    """Write what may change of cases whose rows are locked."""
    rows = [{name: getattr(case, name) for name in _CASE_CHANGES} for case in cases]
    await update_rows(conn, tables.compliance_case, rows)


async def lock_cases(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Case]:
    """Return these cases, locked."""
    table = tables.compliance_case
    query = select(table).where(_one_of(table.c.id, ids)).order_by(table.c.id).with_for_update()
    return {row.id: _case(row) for row in await conn.execute(query)}


async def get_case(conn: AsyncConnection, case_id: UUID, *, lock: bool = False) -> Case:
    """Return a case, named by its own id or by that of a deposit or payout (its newest epoch).

    Raises:
        UnknownRow: there is none.
    """
    table = tables.compliance_case
    query = (
        select(table)
        .where(or_(table.c.id == case_id, table.c.subject_id == case_id))
        .order_by(table.c.epoch.desc())
        .limit(1)
    )
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise UnknownRow(f"compliance has no case {case_id}", where="custody")
    return _case(row)


async def find_cases(
    conn: AsyncConnection, subject: Subject, subject_ids: Collection[UUID]
) -> dict[UUID, Case]:
    """Return the newest case of each of these subjects that has one."""
    if not subject_ids:
        return {}
    table = tables.compliance_case
    query = (
        select(table)
        .where(table.c.subject == subject, _one_of(table.c.subject_id, subject_ids))
        .order_by(table.c.epoch)
    )
    return {row.subject_id: _case(row) for row in await conn.execute(query)}


async def find_passed(
    conn: AsyncConnection, subject: Subject, subject_ids: Collection[UUID]
) -> set[UUID]:
    """Return those of these subjects whose newest case is cleared or released."""
    table = tables.compliance_case
    query = (
        select(table.c.subject_id, table.c.state)
        .where(table.c.subject == subject, _one_of(table.c.subject_id, subject_ids))
        .order_by(table.c.epoch)
    )
    newest = {row.subject_id: row.state for row in await conn.execute(query)}
    return {subject_id for subject_id, state in newest.items() if state in PASSED}


async def lock_deposit_cases(
    conn: AsyncConnection, deposits: Collection[tuple[UUID, int]]
) -> dict[UUID, Case]:
    """Return the case of each (deposit, epoch) that has one, locked.

    Whoever locks both locks deposits first.
    """
    if not deposits:
        return {}
    table = tables.compliance_case
    ids = [deposit_id for deposit_id, _ in deposits]
    query = select(table).where(
        table.c.subject == Subject.DEPOSIT, _one_of(table.c.subject_id, ids)
    )
    query = query.order_by(table.c.id).with_for_update()
    found = {(row.subject_id, row.epoch): _case(row) for row in await conn.execute(query)}
    return {key[0]: found[key] for key in deposits if key in found}


async def list_cases(
    conn: AsyncConnection,
    *,
    states: Collection[CaseState] = (),
    subject: Subject | None = None,
    party: str | None = None,
    after: UUID | None = None,
    limit: int = PAGE_MAX,
) -> list[Case]:
    """Return a page of cases, oldest first."""
    table = tables.compliance_case
    conditions: list[ColumnElement[bool]] = []
    if states:
        conditions.append(table.c.state.in_(sorted(states)))
    if subject is not None:
        conditions.append(table.c.subject == subject)
    if party is not None:
        conditions.append(table.c.party == party)
    if after is not None:
        conditions.append(table.c.id > after)
    query = select(table).where(*conditions).order_by(table.c.id).limit(min(limit, PAGE_MAX))
    return [_case(row) for row in await conn.execute(query)]


async def list_deposits_to_ask(conn: AsyncConnection, chain: str) -> list[Case]:
    """Return cases of confirmed deposits that nobody has answered for, the longest waiting first.

    Those without a row yet are made up as they will be written.
    """
    case = tables.compliance_case
    of_this_epoch = and_(
        case.c.subject == Subject.DEPOSIT,
        case.c.subject_id == deposit.c.id,
        case.c.epoch == deposit.c.epoch,
    )
    query = (
        select(
            deposit.c.id.label("subject_id"),
            deposit.c.epoch,
            deposit.c.sender.label("address"),
            *(deposit.c.chain, deposit.c.party, deposit.c.asset, deposit.c.amount),
            deposit.c.first_seen_at.label("opened_at"),
            *_known(case),
        )
        .select_from(deposit.outerjoin(case, of_this_epoch))
        .where(
            deposit.c.chain == chain,
            # What is nobody's is asked about as well: somebody will say whose it is.
            deposit.c.state.in_([DepositState.CONFIRMED, DepositState.UNATTRIBUTED]),
            deposit.c.kind != DepositKind.DUST,
            or_(case.c.id.is_(null()), case.c.state == CaseState.OPEN),
        )
        .order_by(case.c.answered_at.asc().nulls_first(), deposit.c.id)
        .limit(ASKED_AT_ONCE_MAX)
    )
    return [_asked(row, Subject.DEPOSIT, Direction.IN) for row in await conn.execute(query)]


async def list_payouts_to_ask(conn: AsyncConnection, chain: str) -> list[Case]:
    """Return cases of payouts to others that have no nonce and that nobody has answered for."""
    case = tables.compliance_case
    of_it = and_(case.c.subject == Subject.PAYOUT, case.c.subject_id == payout.c.id)
    own = payout.c.claim.startswith(f"{ClaimKind.OWN}:")
    query = (
        select(
            payout.c.id.label("subject_id"),
            literal(1).label("epoch"),
            payout.c.destination.label("address"),
            *(payout.c.chain, payout.c.claim, payout.c.asset, payout.c.amount),
            payout.c.created_at.label("opened_at"),
            *_known(case),
        )
        .select_from(payout.outerjoin(case, of_it))
        .where(
            payout.c.chain == chain,
            payout.c.state.in_(_BEFORE_ALLOCATION),
            ~own,
            or_(case.c.id.is_(null()), case.c.state == CaseState.OPEN),
        )
        .order_by(case.c.answered_at.asc().nulls_first(), payout.c.id)
        .limit(ASKED_AT_ONCE_MAX)
    )
    return [_asked(row, Subject.PAYOUT, Direction.OUT) for row in await conn.execute(query)]


async def list_deposits_gone(conn: AsyncConnection, chain: str) -> list[Case]:
    """Return open cases of deposits that vanished, or need no answer any more, the longest waiting first."""
    case = tables.compliance_case
    may_count = select(deposit.c.id).where(
        deposit.c.id == case.c.subject_id,
        deposit.c.epoch == case.c.epoch,
        deposit.c.state.in_(_MAY_COUNT),
    )
    return await _list_open(conn, chain, Subject.DEPOSIT, ~may_count.exists())


async def list_payouts_gone(conn: AsyncConnection, chain: str) -> list[Case]:
    """Return open cases of payouts that were withdrawn, the longest waiting first."""
    return await _list_open(
        conn, chain, Subject.PAYOUT, ~_is_payout_to_come(tables.compliance_case)
    )


async def _list_open(
    conn: AsyncConnection, chain: str, subject: Subject, condition: ColumnElement[bool]
) -> list[Case]:
    case = tables.compliance_case
    query = (
        select(case)
        .where(case.c.chain == chain, case.c.state == CaseState.OPEN, case.c.subject == subject)
        .where(condition)
        .order_by(case.c.answered_at.asc().nulls_first(), case.c.id)
        .limit(ASKED_AT_ONCE_MAX)
    )
    return [_case(row) for row in await conn.execute(query)]


async def list_cases_to_ask_again(
    conn: AsyncConnection,
    provider: str,
    list_version: str,
    *,
    after: UUID | None,
    limit: int = ASKED_AT_ONCE_MAX,
) -> list[Case]:
    """Return a page of cases of another version: of what came in, and of payouts to come."""
    table = tables.compliance_case
    query = (
        select(table)
        .where(table.c.state.in_([CaseState.CLEARED, CaseState.HELD, CaseState.RELEASED]))
        .where(or_(table.c.list_version != list_version, table.c.provider != provider))
        .where(or_(table.c.subject == Subject.DEPOSIT, _is_payout_to_come(table)))
        .order_by(table.c.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(table.c.id > after)
    return [_case(row) for row in await conn.execute(query)]


async def list_destinations_to_ask(
    conn: AsyncConnection, *, now: datetime, after: UUID | None
) -> list[Case]:
    """Return a page of allowed destinations as the cases that they would be."""
    table = allowed_destination
    query = (
        select(table.c.id, table.c.party, table.c.chain, table.c.address, table.c.proposed_at)
        .where(table.c.state == ControlState.ACTIVE)
        .order_by(table.c.id)
        .limit(ASKED_AT_ONCE_MAX)
    )
    if after is not None:
        query = query.where(table.c.id > after)
    return [
        Case(
            id=case_id(Subject.DESTINATION, row.id, 1, row.proposed_at),
            subject=Subject.DESTINATION,
            subject_id=row.id,
            epoch=1,
            direction=Direction.OUT,
            chain=row.chain,
            address=row.address,
            party=row.party,
            asset="",
            amount=0,
            state=CaseState.OPEN,
            provider="",
            list_version="",
            reason="",
            opened_at=now,
            answered_at=None,
            version=0,
        )
        for row in await conn.execute(query)
    ]


async def hold_again(conn: AsyncConnection, deposits: Collection[tuple[UUID, int]]) -> None:
    """Hold the cases of deposits whose refund came to nothing."""
    locked = await lock_deposit_cases(conn, deposits)
    rows = [
        replace(case, state=CaseState.HELD)
        for case in locked.values()
        if case.state is CaseState.REFUNDED
    ]
    await save_cases(conn, rows)


async def insert_opinions(conn: AsyncConnection, opinions: Sequence[Opinion]) -> None:
    """Write answers."""
    rows = [{f.name: getattr(one, f.name) for f in fields(Opinion)} for one in opinions]
    await insert_rows(conn, tables.compliance_opinion, rows)


async def list_opinions(conn: AsyncConnection, case_id: UUID) -> list[Opinion]:
    """Return what was answered about a case, the first answer first."""
    table = tables.compliance_opinion
    columns = [table.c[f.name] for f in fields(Opinion)]
    query = select(*columns).where(table.c.case_id == case_id).order_by(table.c.number)
    return [Opinion(*row) for row in await conn.execute(query)]


async def find_held_destinations(
    conn: AsyncConnection, ends: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Case]:
    """Return the cases of those (chain, address) that something speaks against."""
    table = tables.compliance_case
    query = select(table).where(
        _one_of_texts(table.c.address, {address for _, address in ends}),
        table.c.subject == Subject.DESTINATION,
        table.c.state == CaseState.HELD,
    )
    found = {(row.chain, row.address): _case(row) for row in await conn.execute(query)}
    return {key: case for key, case in found.items() if key in ends}


# What people said.


async def insert_decision(conn: AsyncConnection, new: Decision) -> None:
    """Write what people said and signed."""
    row = {f.name: getattr(new, f.name) for f in fields(Decision)}
    await conn.execute(
        tables.compliance_decision.insert().values(
            **row | {"operators": list(new.operators), "signatures": list(new.signatures)}
        )
    )


async def count_decisions(conn: AsyncConnection, subject_id: UUID) -> int:
    """Return how many there are about a subject, whose row is locked."""
    table = tables.compliance_decision
    query = select(func.count()).where(table.c.subject_id == subject_id)
    return int(await conn.scalar(query) or 0)


async def list_decisions(conn: AsyncConnection, subject_id: UUID) -> list[Decision]:
    """Return what people said about a subject, the first statement first."""
    table = tables.compliance_decision
    query = select(table).where(table.c.subject_id == subject_id).order_by(table.c.number)
    return [
        Decision(
            *(row.subject_id, row.number, row.verb, row.reason),
            *(tuple(row.operators), tuple(row.signatures), row.at),
        )
        for row in await conn.execute(query)
    ]


# Legal holds.


async def insert_legal_hold(conn: AsyncConnection, new: LegalHold) -> None:
    """Write a new legal hold."""
    row = {f.name: getattr(new, f.name) for f in fields(LegalHold)}
    await conn.execute(tables.legal_hold.insert().values(row))


async def save_legal_hold(conn: AsyncConnection, changed: LegalHold) -> None:
    """Write what may change of a legal hold whose row is locked."""
    row = {name: getattr(changed, name) for name in ("id", "state", "lifted_at", "version")}
    await update_rows(conn, tables.legal_hold, [row])


async def get_legal_hold(conn: AsyncConnection, hold_id: UUID, *, lock: bool = False) -> LegalHold:
    """Return a legal hold.

    Raises:
        UnknownRow: there is none with that id.
    """
    table = tables.legal_hold
    query = select(table).where(table.c.id == hold_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no legal hold {hold_id}", where="custody")
    return _legal_hold(row)


async def find_standing_holds(
    conn: AsyncConnection, parties: Collection[str]
) -> dict[str, LegalHold]:
    """Return the oldest legal hold that stands on each of these parties, by party.

    One row for each of them, however many there are: a page would leave some out.
    """
    table = tables.legal_hold
    query = (
        select(table)
        .ext(distinct_on(table.c.party))
        .where(table.c.party.in_(sorted(parties)), table.c.state == LegalHoldState.PLACED)
        .order_by(table.c.party, table.c.id)
    )
    return {row.party: _legal_hold(row) for row in await conn.execute(query)}


async def list_legal_holds(
    conn: AsyncConnection,
    *,
    parties: Collection[str] | None = None,
    state: LegalHoldState | None = None,
    after: UUID | None = None,
) -> list[LegalHold]:
    """Return a page of legal holds, oldest first; *after* is the last one of the page before."""
    table = tables.legal_hold
    query = select(table).order_by(table.c.id).limit(PAGE_MAX)
    if after is not None:
        query = query.where(table.c.id > after)
    if parties is not None:
        query = query.where(table.c.party.in_(sorted(parties)))
    if state is not None:
        query = query.where(table.c.state == state)
    return [_legal_hold(row) for row in await conn.execute(query)]


# Re-screening.


async def is_rescreened(conn: AsyncConnection, provider: str, list_version: str) -> bool:
    """Tell whether everything was asked about under this version."""
    table = tables.rescreening
    query = select(table.c.provider).where(
        table.c.provider == provider, table.c.list_version == list_version
    )
    return (await conn.execute(query)).first() is not None


async def note_rescreened(conn: AsyncConnection, row: dict[str, Any]) -> None:
    """Write that everything was asked about."""
    await insert_rows(conn, tables.rescreening, [row], known="ON CONFLICT DO NOTHING")


# Proofs of addresses.


async def insert_proof(conn: AsyncConnection, new: AddressProof) -> None:
    """Write a challenge."""
    row = {f.name: getattr(new, f.name) for f in fields(AddressProof)}
    await conn.execute(tables.address_proof.insert().values(row))


async def save_proof(conn: AsyncConnection, changed: AddressProof) -> None:
    """Write what may change of a proof whose row is locked."""
    names = ("id", "state", "signature", "proven_at", "version")
    await update_rows(conn, tables.address_proof, [{n: getattr(changed, n) for n in names}])


async def get_proof(conn: AsyncConnection, proof_id: UUID, *, lock: bool = False) -> AddressProof:
    """Return a proof.

    Raises:
        UnknownRow: there is none with that id.
    """
    table = tables.address_proof
    query = select(table).where(table.c.id == proof_id)
    row = (await conn.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no proof of an address {proof_id}", where="custody")
    return AddressProof(**dict(row._mapping) | {"state": ProofState(row.state)})  # noqa: SLF001  the public name of a row's mapping


async def list_proofs(conn: AsyncConnection, party: str) -> list[AddressProof]:
    """Return a party's proofs, oldest first."""
    table = tables.address_proof
    query = select(table).where(table.c.party == party).order_by(table.c.id).limit(PAGE_MAX)
    return [
        AddressProof(**dict(row._mapping) | {"state": ProofState(row.state)})  # noqa: SLF001  the public name of a row's mapping
        for row in await conn.execute(query)
    ]


_BEFORE_ALLOCATION: Final = (
    *(PayoutState.REQUESTED, PayoutState.RESERVED),
    *(PayoutState.PENDING_APPROVAL, PayoutState.APPROVED),
)


_MAY_COUNT: Final = (
    *(DepositState.INCLUDED, DepositState.CONFIRMED, DepositState.UNATTRIBUTED),
    *(DepositState.QUARANTINED, DepositState.DISMISSED),
)
"""Deposits that may still be let in, in the same block: what the travel rule asks for is waited for."""


def _is_payout_to_come(case: Any) -> ColumnElement[bool]:
    to_come = select(payout.c.id).where(
        payout.c.id == case.c.subject_id, payout.c.state.in_(_BEFORE_ALLOCATION)
    )
    return and_(case.c.subject == Subject.PAYOUT, to_come.exists())


def _one_of(column: ColumnElement[UUID], values: Collection[UUID]) -> ColumnElement[bool]:
    return column == any_(literal(sorted(values), ARRAY(SqlUuid)))


def _one_of_texts(column: ColumnElement[str], values: Collection[str]) -> ColumnElement[bool]:
    return column == any_(literal(sorted(values), ARRAY(Text)))


def _known(case: Any) -> list[ColumnElement[Any]]:
    return [
        case.c.id.label("case_id"),
        *(case.c.provider, case.c.list_version, case.c.reason),
        *(case.c.answered_at, case.c.version.label("case_version")),
    ]


def _asked(row: Row[Any], subject: Subject, direction: Direction) -> Case:
    party = row.party if subject is Subject.DEPOSIT else Claim.parse(row.claim).name
    return Case(
        id=row.case_id or case_id(subject, row.subject_id, row.epoch, row.opened_at),
        subject=subject,
        subject_id=row.subject_id,
        epoch=row.epoch,
        direction=direction,
        chain=row.chain,
        address=row.address,
        party=party,
        asset=row.asset,
        amount=int(row.amount),
        state=CaseState.OPEN,
        provider=row.provider or "",
        list_version=row.list_version or "",
        reason=row.reason or "",
        opened_at=row.opened_at,
        answered_at=row.answered_at,
        version=row.case_version or 0,
    )


def _case(row: Row[Any]) -> Case:
    return Case(
        **dict(row._mapping)  # noqa: SLF001  the public name of a row's mapping
        | {
            "subject": Subject(row.subject),
            "direction": Direction(row.direction),
            "state": CaseState(row.state),
        }
    )


def _legal_hold(row: Row[Any]) -> LegalHold:
    return LegalHold(**dict(row._mapping) | {"state": LegalHoldState(row.state)})  # noqa: SLF001  the public name of a row's mapping
