"""Builders for tests and demonstrations: agreements and affirmations by test operators.

The operators are those of `registry.testing`; their keys are derived from their codes.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from registry.queries import get_operator
from registry.testing import operator_keypair
from settlement.agreements import agree, agreement_bytes, instruct, standing_instruction_bytes
from settlement.model import Agreement, Rail, Run
from settlement.queries import get_calculation, get_run
from settlement.runs import affirm, affirmation_bytes

DOCUMENT: Final = hashlib.sha256(b"a signed netting agreement").hexdigest()
EVIDENCE: Final = hashlib.sha256(b"we agree").hexdigest()


async def set_agreement(
    conn: AsyncConnection,
    agreement: Agreement,
    *,
    now: datetime,
    version: int = 1,
    by: str = "ada",
    second: str = "ben",
) -> int:
    """Put a netting agreement into force by two test operators and return its version."""
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
    version: int = 1,
    by: str = "ada",
    second: str = "ben",
) -> int:
    """Say where a party is paid on chain by two test operators and return the version."""
    payload = standing_instruction_bytes(party, asset, Rail.EVM, destination, version=version)
    return await instruct(
        conn,
        party=party,
        asset=asset,
        rail=Rail.EVM,
        destination=destination,
        by=await get_operator(conn, by),
        approver=await get_operator(conn, second),
        signature=operator_keypair(second).sign(payload),
        now=now,
    )


async def affirm_all(
    conn: AsyncConnection, run_id: UUID, *, now: datetime, by: str = "dan", witness: str = "ada"
) -> Run:
    """Affirm the newest version of a run for every party in it."""
    run = await get_run(conn, run_id)
    result = await get_calculation(conn, run_id, run.version)
    after = run
    for party in sorted({item.party for item in result.items}):
        payload = affirmation_bytes(run, result, party, EVIDENCE)
        after = await affirm(
            conn,
            run_id,
            version=run.version,
            party=party,
            by=await get_operator(conn, by),
            witness=await get_operator(conn, witness),
            signature=operator_keypair(witness).sign(payload),
            evidence_hash=EVIDENCE,
            now=now,
        )
    return after
