"""Builders for tests and demonstrations: affirmations by test operators.

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
from settlement.model import Run
from settlement.queries import get_calculation, get_run
from settlement.runs import affirm, affirmation_bytes

EVIDENCE: Final = hashlib.sha256(b"we agree").hexdigest()


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
