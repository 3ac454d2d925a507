"""Where a payment goes: to the version of the standing instruction that its deals were made under.

A change of where somebody is paid, between the deal and its payment, is how settlement fraud works.
So a payment whose deals kept another version than the one in force now is refused, until two people
have looked at it and chosen the one in force for this very payment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from registry.authority import signing_bytes
from registry.errors import UnknownRecord
from registry.model import Operator, Role
from settlement import instruction_store, terms_store
from settlement.model import Instruction
from trading.deals import find_deals_by_id
from trading.model import Deal
from trading.terms.errors import NoStandingInstruction
from trading.terms.model import SettlementTarget, StandingInstruction
from trading.terms.rails import Rails, load_rails
from trading.terms.signing import record_change, require_two
from trading.terms.standing_rules import in_force

ENTITY: Final = "standing-choice"
ENTERED_BY: Final = (Role.TREASURER, Role.OPERATIONS)
REASON_LENGTH_MAX: Final = 500


class InstructionChanged(Refused):
    """Where the party is paid has changed since the deal was made: people have to look."""

    def __init__(self, item: Instruction, kept: Collection[str], now: StandingInstruction) -> None:
        super().__init__(
            f"{item.party} is to be paid {item.asset} by {now.rail}, version {now.version}, and the"
            f" deals behind instruction {item.id} were made under {', '.join(sorted(kept))}",
            remedy="Call the party back, then let two people choose: `causeway settle pay-to`",
        )


async def standing_for(
    conn: AsyncConnection, item: Instruction, *, on: date
) -> StandingInstruction:
    """Return where a payment goes; see `standing_for_all`.

    Raises:
        NoStandingInstruction: none is in force.
        InstructionChanged: it has changed since the deals were made.
    """
    found = (await standing_for_all(conn, [item], on=on))[item.id]
    if isinstance(found, Refused):
        raise found
    return found


async def standing_for_all(
    conn: AsyncConnection, items: Sequence[Instruction], *, on: date
) -> dict[UUID, StandingInstruction | Refused]:
    """Return where each payment goes on a day (UTC), or why nobody knows, in a few statements."""
    deals_of = await terms_store.deals_paid(conn, {item.run_id for item in items})
    deals = await find_deals_by_id(conn, {one for of in deals_of.values() for one in of})
    chosen = await terms_store.list_choices(conn, [item.id for item in items])
    rails = await load_rails(conn, {item.party for item in items})
    answers: dict[UUID, StandingInstruction | Refused] = {}
    for item in items:
        kept = _kept(item, deals_of.get((item.run_id, item.party, item.asset), ()), deals)
        answers[item.id] = judge_standing(
            item, _in_force(rails, item, on), kept, chosen.get(item.id, ())
        )
    return answers


def judge_standing(
    item: Instruction,
    now: StandingInstruction | None,
    kept: Collection[SettlementTarget],
    chosen: Collection[int],
) -> StandingInstruction | Refused:
    """Return where *item* is paid, or why it is not.

    Args:
        item: the payment.
        now: what is in force for its party, asset and rail.
        kept: what its deals were made under; a deal of a time when nobody had said anything leaves
            the version open, and binds nobody.
        chosen: versions that two people chose for it.
    """
    if now is None:
        return NoStandingInstruction(
            f"{item.party} has no standing instruction for {item.asset} on {item.rail}"
            " that is in force",
            remedy="Propose one and have a second person approve it; a change is called back first",
        )
    other = {
        f"{target.rail}, version {target.version}"
        for target in kept
        if target.version is not None and (target.rail, target.version) != (now.rail, now.version)
    }
    if other and now.version not in chosen:
        return InstructionChanged(item, other, now)
    return now


def choice_bytes(instruction_id: UUID, version: int, reason: str) -> bytes:
    """Return what the second operator signs to have a payment go to *version*."""
    return signing_bytes(
        "settlement.standing_choice",
        {"instruction": instruction_id, "version": version, "reason": reason},
    )


async def choose_standing(
    conn: AsyncConnection,
    instruction_id: UUID,
    version: int,
    *,
    by: Operator,
    approver: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> StandingInstruction:
    """Have a payment go to the version that is in force, though its deals were made under another.

    Args:
        conn: the caller's transaction.
        instruction_id, version: which payment, to which version.
        by: who says so: the treasury or operations.
        approver: who signs it: the treasury or an approver.
        signature: the approver's, over `choice_bytes`.
        reason: what the party said when it was called back, and where the note of it is.
        now: the time.

    Raises:
        Refused: another version is in force, or the people may not.
        UnknownRecord: no such instruction.
        BadInput: no reason.
    """
    if not 0 < len(reason.strip()) <= len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(f"a choice has a reason of 1 to {REASON_LENGTH_MAX} characters")
    found = await instruction_store.list_instructions(conn, only=[instruction_id])
    if not found:
        raise UnknownRecord(f"there is no instruction {instruction_id}")
    (item,) = found
    standing = _in_force(await load_rails(conn, {item.party}), item, now.date())
    if standing is None or standing.version != version:
        is_now = "none" if standing is None else f"version {standing.version}"
        raise Refused(
            f"{is_now} of where {item.party} is paid {item.asset} is in force, not {version}",
            remedy="Look at `causeway settle instructions`",
        )
    payload = choice_bytes(instruction_id, version, reason)
    people = await require_two(conn, by, approver, payload, signature, entered_by=ENTERED_BY)
    if await terms_store.insert_choice(
        conn,
        instruction_id,
        version,
        chosen_by=people.first.code,
        approved_by=people.second.code,
        reason=reason,
        at=now,
    ):
        details = {"party": item.party, "standing_version": version, "why": reason}
        await record_change(
            conn, ENTITY, str(instruction_id), "StandingChosen", details, people, now
        )
    return standing


def _in_force(rails: Rails, item: Instruction, on: date) -> StandingInstruction | None:
    return in_force(rails.standing.get((item.party, item.asset, item.rail), ()), on)


def _kept(
    item: Instruction, deal_ids: Collection[UUID], deals: Mapping[UUID, Deal]
) -> list[SettlementTarget]:
    return [
        target
        for deal_id in deal_ids
        if deal_id in deals
        for target in deals[deal_id].instructions
        if target.asset == item.asset
    ]
