"""Builders for tests and demonstrations: agreements, instructions and terms by test operators.

The operators are those of `registry.testing`; their keys are derived from their codes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from registry.queries import get_operator
from registry.testing import operator_keypair
from trading.terms.agreements import agree, agreement_bytes, agreement_version
from trading.terms.client_terms import newest_terms, set_terms, terms_bytes
from trading.terms.model import Agreement, ClientTerms, Rail
from trading.terms.netting_model import NettingAgreement
from trading.terms.standing import instruct, record_call_back, standing_instruction_bytes
from trading.terms.standing_rules import earliest_start

DOCUMENT: Final = hashlib.sha256(b"a signed netting agreement").hexdigest()


async def set_agreement(
    conn: AsyncConnection,
    agreement: Agreement,
    *,
    now: datetime,
    version: int = 1,
    by: str = "ada",
    second: str = "ben",
) -> int:
    """Put an agreement over everything into force by two test operators, as this version."""
    payload = agreement_bytes(agreement, DOCUMENT, version=version)
    return await agree(
        conn,
        agreement,
        document_hash=DOCUMENT,
        by=await get_operator(conn, by),
        approver=await get_operator(conn, second),
        signature=operator_keypair(second).sign(payload),
        now=now,
    )


async def agree_netting(
    conn: AsyncConnection,
    agreement: NettingAgreement,
    *,
    now: datetime,
    by: str = "ada",
    second: str = "ben",
) -> int:
    """Put the next version of a netting agreement into force and return its number."""
    version = await agreement_version(conn, agreement.party, agreement.name) + 1
    payload = agreement_bytes(agreement, DOCUMENT, version=version)
    return await agree(
        conn,
        agreement,
        document_hash=DOCUMENT,
        by=await get_operator(conn, by),
        approver=await get_operator(conn, second),
        signature=operator_keypair(second).sign(payload),
        now=now,
    )


async def set_standing_instruction(
    conn: AsyncConnection,
    party: str,
    asset: str,
    destination: str,
    *,
    now: datetime,
    rail: Rail = Rail.EVM,
    effective_from: date | None = None,
    version: int = 1,
    by: str = "ada",
    second: str = "ben",
) -> int:
    """Say where a party is paid by two test operators and return the version."""
    start = effective_from or earliest_start(version, now.date())
    payload = standing_instruction_bytes(
        party, asset, rail, destination, effective_from=start, version=version
    )
    return await instruct(
        conn,
        party=party,
        asset=asset,
        rail=rail,
        destination=destination,
        effective_from=start,
        by=await get_operator(conn, by),
        approver=await get_operator(conn, second),
        signature=operator_keypair(second).sign(payload),
        now=now,
    )


async def call_back(
    conn: AsyncConnection,
    party: str,
    asset: str,
    version: int,
    *,
    now: datetime,
    confirmed: bool = True,
    by: str = "dan",
) -> None:
    """Record that a test operator has called the party back."""
    await record_call_back(
        conn,
        party=party,
        asset=asset,
        rail=Rail.EVM,
        version=version,
        confirmed=confirmed,
        reference="call/1",
        by=await get_operator(conn, by),
        now=now,
    )


async def give_terms(
    conn: AsyncConnection,
    party: str,
    *,
    now: datetime,
    by: str = "dan",
    second: str = "ada",
    **changes: Any,
) -> ClientTerms:
    """Give a party its newest terms with *changes*, from today on, and return them."""
    newest = await newest_terms(conn, party)
    values: dict[str, Any] = {
        "version": newest.version + 1,
        "effective_from": now.date(),
        **changes,
    }
    terms = replace(newest, **values)
    await set_terms(
        conn,
        terms,
        by=await get_operator(conn, by),
        approver=await get_operator(conn, second),
        signature=operator_keypair(second).sign(terms_bytes(terms)),
        now=now,
    )
    return terms
