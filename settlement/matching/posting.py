"""Receipts of every rail against what is awaited: decided, marked, posted; many in one transaction.

It is read and decided without a lock; then the instructions are locked, then the receipts, and what
has changed meanwhile is left for the next time. A receipt whose earlier match still stands waits for
`settlement.reopening`, and one that two people took apart waits for people.

* exact, or the parts of a sum: the instruction is final;
* short within the tolerance: final, and the house bears what banks kept;
* short: the instruction stays released with the rest open;
* over: the excess is owed to the party; it is never sent back by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import Transfer
from ledger.posting import post, require_applied
from settlement import instruction_store
from settlement import store as run_store
from settlement.matching import sources, store
from settlement.matching.decide import find_matches, match_all
from settlement.matching.model import Expected, Incoming, Match, Part, ReceiptMatch, Rule, Verdict
from settlement.matching.postings import accounts_of, matching_transfers
from settlement.matching.references import reference_of
from settlement.matching.rules import get_rules
from settlement.model import Direction, Instruction, InstructionState, RunState
from settlement.steps import SYSTEM, Applied, Why, step_applied
from trading.terms.model import Rail

BATCH_MAX: Final = 2_000
"""Parts carried out in one transaction, in a fixed number of statements; each posts at most three."""
AWAITED_RAILS: Final = frozenset({Rail.EVM, Rail.BITCOIN, Rail.BANK})
"""Rails on which something arrives; a book transfer has no receipt."""


@dataclass(frozen=True, slots=True)
class Said:
    """Who matches, and on what ground; *second* where people do."""

    why: Why
    rules_version: int
    second: str | None = None


async def match_receipts(
    conn: AsyncConnection, *, book: int, now: datetime, limit: int = BATCH_MAX
) -> list[Match]:
    """Match what can be matched, the oldest first, and post it; empty when nothing can.

    Args:
        limit: parts at most, or those of the first verdict; call again for more.
    """
    verdicts, awaited, version = await _decide(conn, book)
    chosen = _first(verdicts, limit)
    if not chosen:
        return []
    items = await _lock_unchanged(conn, chosen, awaited)
    receipts = await lock_matchable(conn, {key for v in chosen for key in v.incoming})
    kept = [
        verdict
        for verdict in chosen
        if all(key in receipts for key in verdict.incoming)
        and all(part.expected in items for part in verdict.parts)
    ]
    said = Said(Why(SYSTEM, "", now), version)
    return await apply(conn, book, kept, receipts, items, said)


async def suggestions(conn: AsyncConnection, book: int) -> list[tuple[Incoming, Verdict]]:
    """Return what waits and is for people to match, as it was seen, with what they may look at."""
    waiting = {item.id: item for item in await list_matchable(conn, book, by_people=True)}
    awaited = await list_awaited(conn, book)
    rules = await get_rules(conn)
    apart = await store.taken_apart(conn, waiting)
    decided = match_all(waiting.values(), await expected_of(conn, book, awaited), rules)
    return [
        (waiting[verdict.incoming[0]], verdict)
        for verdict in decided
        if verdict.rule is None
        or any((waiting[key].id, waiting[key].epoch) in apart for key in verdict.incoming)
    ]


async def list_awaited(conn: AsyncConnection, book: int) -> list[Instruction]:
    """Return the instructions that await a receipt, the oldest first."""
    found = await instruction_store.list_instructions(
        conn, book=book, states={InstructionState.RELEASED}, direction=Direction.RECEIVE
    )
    return [item for item in found if item.rail in AWAITED_RAILS and item.remaining > 0]


async def expected_of(
    conn: AsyncConnection, book: int, awaited: Sequence[Instruction]
) -> list[Expected]:
    """Return instructions as the decision takes them."""
    released = run_store.every_run(conn, book, {RunState.RELEASED})
    days = {run.id: run.value_date async for run in released}
    return [
        Expected(
            id=item.id,
            party=item.party,
            asset=item.asset,
            remaining=item.remaining,
            value_date=days.get(item.run_id, item.created_at.date()),
            rail=item.rail,
            references=(reference_of(item.id), item.id.hex),
        )
        for item in awaited
    ]


async def list_matchable(
    conn: AsyncConnection, book: int, *, by_people: bool = False
) -> list[Incoming]:
    """Return what waits, without that of which a match still stands.

    Args:
        by_people: also what two people took apart, which no rule may match again.
    """
    waiting = await sources.list_waiting(conn, book)
    return await _free(conn, waiting, by_people=by_people)


async def lock_matchable(
    conn: AsyncConnection, ids: Collection[UUID], *, by_people: bool = False
) -> dict[UUID, Incoming]:
    """Lock receipts, and return those that may be matched: nobody was quicker."""
    locked = await sources.lock_waiting(conn, ids)
    return {item.id: item for item in await _free(conn, list(locked.values()), by_people=by_people)}


async def apply(
    conn: AsyncConnection,
    book: int,
    verdicts: Sequence[Verdict],
    receipts: Mapping[UUID, Incoming],
    items: dict[UUID, Instruction],
    said: Said,
) -> list[Match]:
    """Carry out verdicts on locked instructions and receipts: marks, rows, steps, then the ledger.

    Args:
        items: the locked instructions; each is replaced by what becomes of it.
    """
    done: list[Match] = []
    steps: list[Applied] = []
    transfers: list[Transfer] = []
    for verdict in verdicts:
        for part in verdict.parts:
            receipt = receipts[part.incoming]
            match = Match(_row(verdict, part, receipt, said), items[part.expected])
            step = _step(match, said)
            items[part.expected] = step.after
            transfers += matching_transfers(
                match.row, match.instruction, suspense=receipt.suspense, owner=receipt.owner
            )
            steps.append(step)
            done.append(match)
    await step_applied(conn, steps, name="ReceiptMatched")
    why = said.why
    paid = {
        receipts[receipt_id]: (_names(matches), matches[0].instruction.party)
        for receipt_id, matches in _by_receipt(done).items()
    }
    await sources.mark(conn, paid, by=why.by, reason=why.reason, now=why.now)
    await store.insert_matches(conn, [match.row for match in done], why.now)
    if transfers:
        await ensure_accounts(conn, book, accounts_of(transfers), now=why.now)
        require_applied(await post(conn, book, transfers, now=why.now))
    return done


async def _decide(
    conn: AsyncConnection, book: int
) -> tuple[list[Verdict], dict[UUID, Instruction], int]:
    awaited = await list_awaited(conn, book)
    waiting = await list_matchable(conn, book) if awaited else []
    if not waiting:
        return [], {}, 0
    rules = await get_rules(conn)
    expected = await expected_of(conn, book, awaited)
    # In a thread: what many receipts take must not keep the process from its leases.
    verdicts = await asyncio.to_thread(find_matches, waiting, expected, rules)
    return verdicts, {item.id: item for item in awaited}, rules.version


async def _lock_unchanged(
    conn: AsyncConnection, verdicts: Sequence[Verdict], awaited: Mapping[UUID, Instruction]
) -> dict[UUID, Instruction]:
    """Lock the instructions of verdicts; return those that are as they were when it was decided."""
    ids = {part.expected for verdict in verdicts for part in verdict.parts}
    locked = await instruction_store.list_instructions(conn, only=ids, lock=True)
    return {
        item.id: item
        for item in locked
        if (item.state, item.applied) == (awaited[item.id].state, awaited[item.id].applied)
    }


async def _free(
    conn: AsyncConnection, waiting: list[Incoming], *, by_people: bool
) -> list[Incoming]:
    ids = {item.id for item in waiting}
    if not ids:
        return []
    standing = {match.receipt_id for match in await store.list_matches(conn, receipts=ids)}
    rounds = await store.last_rounds(conn, ids)
    apart = set() if by_people else await store.taken_apart(conn, ids)
    return [
        replace(item, round=rounds[item.id, item.epoch])
        if (item.id, item.epoch) in rounds
        else item
        for item in waiting
        if item.id not in standing and (item.id, item.epoch) not in apart
    ]


def _first(verdicts: Sequence[Verdict], limit: int) -> list[Verdict]:
    """Return the first verdicts that have *limit* parts together, at least one of them."""
    chosen: list[Verdict] = []
    parts = 0
    for verdict in verdicts:
        parts += len(verdict.parts)
        if chosen and parts > limit:
            break
        chosen.append(verdict)
    return chosen


def _step(match: Match, said: Said) -> Applied:
    item, row = match.instruction, match.row
    state = InstructionState.FINAL if match.completes else InstructionState.RELEASED
    after = replace(item, state=state, applied=item.applied + row.applied + row.charge)
    reason = said.why.reason or f"receipt {row.receipt_id}, by {row.rule}"
    return Applied(item, after, replace(said.why, reason=reason))


def _row(verdict: Verdict, part: Part, receipt: Incoming, said: Said) -> ReceiptMatch:
    number = receipt.round + 1
    return ReceiptMatch(
        id=derive_id(
            receipt.first_seen_at,
            "receipt-match",
            receipt.id,
            receipt.epoch,
            number,
            part.expected,
        ),
        receipt_id=receipt.id,
        epoch=receipt.epoch,
        round=number,
        instruction_id=part.expected,
        rail=receipt.rail,
        applied=part.applied,
        charge=part.charge,
        excess=part.excess,
        rule=verdict.rule or Rule.BY_HAND,
        by=said.why.by,
        second=said.second,
        reason=said.why.reason,
        rules_version=said.rules_version,
        first_seen_at=receipt.first_seen_at,
    )


def _by_receipt(done: Sequence[Match]) -> dict[UUID, list[Match]]:
    found: dict[UUID, list[Match]] = {}
    for match in done:
        found.setdefault(match.receipt_id, []).append(match)
    return found


def _names(paid: Sequence[Match]) -> str:
    first = str(paid[0].instruction.id)
    return first if len(paid) == 1 else f"{first} and {len(paid) - 1} more"
