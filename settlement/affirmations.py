"""Affirmations: how a party's word to a version of its run is entered, and on what proof.

Either the party's own key signed the statement (`affirm_signed`), or one of our people enters it
with evidence and a second one who saw it (`settlement.runs.affirm`). A dispute by file takes the
same signature and freezes what it names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from settlement import calculation_store, cycle_store, store
from settlement.clocks import is_too_late_to_affirm
from settlement.disputes import freeze
from settlement.errors import NotTheirs, TooLate
from settlement.model import Calculation, ObligationState, Run, RunState, Statement
from settlement.statements import Answer, Verdict, answer_bytes
from settlement.steps import Why, record_run, step_obligations
from trading.confirmations.keys import list_keys
from trading.confirmations.model import ConfirmationKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What an affirmation rests on: a witness who saw the evidence, or the party's signature.

    Attributes:
        evidence_hash: SHA-256 of the message in which the party agreed, or of the signed file.
        key_version: which of the party's keys signed.
    """

    evidence_hash: str
    witnessed_by: str | None = None
    key_version: int | None = None
    signature: bytes | None = None


async def answer_signed(
    conn: AsyncConnection, answer: Answer, *, content: bytes, why: Why
) -> tuple[Run, Calculation]:
    """Enter what a party signed to a statement: that it agrees, or what it disputes.

    Args:
        conn: the caller's transaction.
        answer: as read from the file.
        content: the file's bytes; their hash is kept as the evidence.
        why: who brought the file (anybody may: the signature is the proof), and when.

    Raises:
        NotTheirs: no statement with that hash was issued to the party, or no key of it in force
            made the signature.
        Refused, TooLate: as `settlement.runs.affirm` and `settlement.disputes.dispute`.
    """
    statement = await _issued(conn, answer)
    key = _signer(await list_keys(conn, answer.party), answer)
    told = f"signed by key {key.version} of {key.party} ({key.label})"
    if answer.verdict is Verdict.DISPUTED:
        run = await store.lock_run(conn, statement.run_id)
        _require_newest(run, statement.version)
        _require_in_time(run, why.now)
        reason = f"{answer.reason}; {told}"
        return await freeze(
            conn,
            run.id,
            set(answer.obligations),
            replace(why, reason=reason),
            party=answer.party,
        )
    run = await store.lock_run(conn, statement.run_id)
    result = await calculation_store.get_calculation(conn, run.id, statement.version)
    proof = Proof(
        evidence_hash=hashlib.sha256(content).hexdigest(),
        key_version=key.version,
        signature=answer.signature,
    )
    after = await enter(conn, run, result, answer.party, proof, replace(why, reason=told))
    return after, result


async def enter(
    conn: AsyncConnection, run: Run, result: Calculation, party: str, proof: Proof, why: Why
) -> Run:
    """Enter that *party* agrees to a version of a locked run; it is affirmed when all have.

    The same affirmation again changes nothing.

    Raises:
        BadInput: the party has no part in it.
        TooLate: the time to affirm is over.
        Refused: it has affirmed otherwise, or the version is not open to affirmation any more.
    """
    parties = {item.party for item in result.items}
    if party not in parties:
        raise BadInput(f"{party} has no part in run {run.id}")
    known = await calculation_store.find_affirmation(conn, run.id, result.version, party)
    if known == proof.evidence_hash:
        return run
    if known is not None:
        raise Refused(
            f"{party} has affirmed version {result.version} already",
            where=f"evidence {known}",
            remedy="An affirmation is entered once; what is wrong in it is disputed",
        )
    _require_newest(run, result.version)
    _require_in_time(run, why.now)
    await calculation_store.insert_affirmation(
        conn,
        run_id=run.id,
        version=result.version,
        party=party,
        entered_by=why.by,
        witnessed_by=proof.witnessed_by,
        evidence_hash=proof.evidence_hash,
        key_version=proof.key_version,
        signature=proof.signature,
        at=why.now,
    )
    return await _affirmed(conn, run, parties, party, why)


def _require_newest(run: Run, version: int) -> None:
    if version != run.version or run.state is not RunState.CALCULATED:
        raise Refused(
            f"version {version} of run {run.id} is not open to affirmation",
            remedy=f"The run is {run.state} at version {run.version}",
        )


def _require_in_time(run: Run, now: datetime) -> None:
    """Refuse a party's answer after its time: a late dispute would give it more of it."""
    if is_too_late_to_affirm(run, now):
        raise TooLate(
            f"the time to affirm run {run.id} was over at {run.affirm_until}",
            remedy="What lapses is open again, for the next cycle",
        )


async def _affirmed(
    conn: AsyncConnection, run: Run, parties: Collection[str], party: str, why: Why
) -> Run:
    within = await store.lock_run_obligations(conn, run.id)
    theirs = [o for o in within if o.party == party and o.state is ObligationState.CALCULATED]
    await step_obligations(conn, theirs, ObligationState.AFFIRMED, why, run_id=run.id)
    affirmed = await calculation_store.affirmed_parties(conn, run.id, run.version)
    complete = affirmed == parties
    state = RunState.AFFIRMED if complete else RunState.CALCULATED
    if complete:
        await store.move_run(conn, run, state, version=run.version)
    await record_run(conn, run, "PartyAffirmed", state, why)
    return replace(run, state=state)


async def _issued(conn: AsyncConnection, answer: Answer) -> Statement:
    found = await cycle_store.find_statement_by_hash(conn, answer.statement_sha256)
    if found is None or found.party != answer.party:
        raise NotTheirs(
            f"no statement {answer.statement_sha256} was issued to {answer.party}",
            remedy="Look which one the party signed: causeway settle statement",
        )
    return found


def _signer(keys: Collection[ConfirmationKey], answer: Answer) -> ConfirmationKey:
    """Return the party's key in force that made the signature."""
    payload = answer_bytes(answer)
    for key in keys:
        if key.revoked_at is None and _holds(key, payload, answer.signature):
            return key
    raise NotTheirs(
        f"no key of {answer.party} in force made this signature",
        where=f"statement {answer.statement_sha256}",
        remedy="Check that the newest statement was signed, and that the key is enrolled",
    )


def _holds(key: ConfirmationKey, payload: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, payload)
    except (InvalidSignature, ValueError):
        return False
    return True
