"""The reference's words in the ledger's, and the ledger's answers and rows in the reference's."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text

from kernel.db import metadata
from ledger import tables
from ledger.model import AccountSpec, Kind, PostResult, Side, Transfer
from tests.properties.ledger_words import Answer, Ask, Spec

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

LEDGER_TABLES: Final = sorted(
    table.name for table in metadata.tables.values() if table.schema == tables.SCHEMA
)
DIGEST: Final = text(
    " UNION ALL ".join(
        f"SELECT '{name}' AS name, coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '')"  # noqa: S608  ours
        f" AS digest FROM ledger.{name} t WHERE book = :book"
        for name in LEDGER_TABLES
    )
)
BALANCES: Final = text(
    "SELECT a.path, a.asset, b.debits_pending, b.debits_posted, b.credits_pending,"
    " b.credits_posted, b.version, b.closed::int, b.credit_limit FROM ledger.balance b"
    " JOIN ledger.account a ON (a.book, a.number) = (b.book, b.account) WHERE a.book = :book"
)
ELSEWHEN: Final = text(
    "SELECT a.path, a.asset, e.effective_on, e.debits, e.credits FROM ledger.effective_entry e"
    " JOIN ledger.account a ON (a.book, a.number) = (e.book, e.account) WHERE a.book = :book"
)


def moment(at: int) -> datetime:
    return EPOCH + timedelta(microseconds=at)


def day_of(number: int) -> date:
    return date(1970, 1, 1) + timedelta(days=number)


def some_id(number: int | None) -> UUID | None:
    return None if number is None else UUID(int=number)


def as_transfer(ask: Ask) -> Transfer:
    """Say a request in the ledger's words."""
    return Transfer(
        id=UUID(int=ask.id),
        kind=Kind[ask.kind.upper()],
        debit=ask.debit,
        credit=ask.credit,
        asset=ask.asset,
        amount=ask.amount,
        code=ask.code,
        pending_id=some_id(ask.pending_id),
        reverses=some_id(ask.reverses),
        purpose=ask.purpose,
        timeout=None if ask.timeout is None else timedelta(microseconds=ask.timeout),
        linked=ask.linked,
        effective_at=None if ask.effective is None else moment(ask.effective),
        reference=ask.reference,
        correlation=some_id(ask.correlation),
        metadata=dict(ask.metadata),
        **dict.fromkeys(ask.flags, True),
    )


def as_spec(spec: Spec) -> AccountSpec:
    """Say an account in the ledger's words."""
    return AccountSpec(
        path=spec.path,
        asset=spec.asset,
        side=Side(spec.side),
        owner=spec.owner,
        debits_must_not_exceed_credits=spec.guard in {"debits", "both"},
        credits_must_not_exceed_debits=spec.guard in {"credits", "both"},
        purpose=spec.purpose,
        metadata=dict(spec.metadata),
        effective_at=None if spec.since is None else moment(spec.since),
    )


def as_answer(result: PostResult) -> Answer:
    """Say an answer of the ledger in the reference's words."""
    return Answer(
        str(result.outcome),
        result.sequence,
        result.amount,
        None if result.first is None else str(result.first),
        result.replayed,
    )
