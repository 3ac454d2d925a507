"""What two people match, and what they take apart again: each names the receipt, what it pays, and why.

The first enters it, the second signs the very bytes. What they took apart no rule matches again; only
people do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from kernel.leases import wait_for
from ledger.posting import post, require_applied
from ledger.queries import get_balance, list_transfers
from registry.authority import signing_bytes
from registry.model import Operator, Role
from registry.people import require_operator, require_second
from settlement import instruction_store
from settlement.matching import sources, store
from settlement.matching.model import (
    SUBSET_MAX,
    Incoming,
    Match,
    Part,
    ReceiptMatch,
    Rule,
    Verdict,
)
from settlement.matching.posting import (
    AWAITED_RAILS,
    Said,
    apply,
    list_matchable,
    lock_matchable,
)
from settlement.matching.postings import EXCESS, match_id, unapplied_lock
from settlement.matching.rules import get_rules, require_reason
from settlement.matching.undoing import lock_runs, undo
from settlement.model import Direction, Instruction, InstructionState, RunState
from settlement.steps import Why

MAY_ENTER: Final = (Role.OPERATIONS, Role.TREASURER, Role.FINANCE)
MAY_SIGN: Final = (Role.TREASURER, Role.FINANCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a receipt pays of one instruction.

    Attributes:
        amount: smallest units of the receipt.
        charge: what the house bears, so that the instruction is paid.
    """

    instruction_id: UUID
    amount: int
    charge: int = 0


def match_bytes(receipt: Incoming, shares: Sequence[Share], reason: str) -> bytes:
    """Return what the second person signs: this receipt, as it stands, pays these."""
    return signing_bytes(
        "settlement.match",
        {
            "receipt": receipt.id,
            "epoch": receipt.epoch,
            "round": receipt.round,
            "asset": receipt.asset,
            "value": str(receipt.value),
            "shares": [
                {
                    "instruction": share.instruction_id,
                    "amount": str(share.amount),
                    "charge": str(share.charge),
                }
                for share in shares
            ],
            "reason": reason,
        },
    )


def unmatch_bytes(receipt_id: UUID, matches: Sequence[UUID], reason: str) -> bytes:
    """Return what the second person signs: these matches of the receipt do not stand."""
    return signing_bytes(
        "settlement.unmatch",
        {"receipt": receipt_id, "matches": sorted(map(str, matches)), "reason": reason},
    )


async def match_by_hand(
    conn: AsyncConnection,
    receipt_id: UUID,
    shares: Sequence[Share],
    *,
    book: int,
    by: Operator,
    second: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> list[Match]:
    """Let a receipt pay what two people say.

    What is left of it once every instruction named is paid, is owed to the party.

    Args:
        signature: of *second*, of `match_bytes`.

    Raises:
        BadInput: the shares do not add up, or are of several parties.
        Refused: the receipt does not wait, or an instruction does not await a receipt.
        SamePerson, NotAuthorised: see `registry.people`.
    """
    require_reason(reason)
    first = await require_operator(conn, by, *MAY_ENTER)
    ids = {share.instruction_id for share in shares}
    locked = await instruction_store.list_instructions(conn, book=book, only=ids, lock=True)
    items = {item.id: item for item in locked}
    receipts = await lock_matchable(conn, {receipt_id}, by_people=True)
    if receipt_id not in receipts:
        raise Refused(
            f"receipt {receipt_id} does not wait to be matched",
            remedy="Take its match apart first, or wait until it is final",
        )
    receipt = receipts[receipt_id]
    payload = match_bytes(receipt, shares, reason)
    other = await require_second(
        conn, first, second, *MAY_SIGN, payload=payload, signature=signature
    )
    verdict = Verdict(
        incoming=(receipt_id,), rule=Rule.BY_HAND, parts=share_out(receipt, shares, items)
    )
    said = Said(Why(first.code, reason, now), (await get_rules(conn)).version, other.code)
    return await apply(conn, book, [verdict], receipts, items, said)


async def get_waiting(conn: AsyncConnection, book: int, receipt_id: UUID) -> Incoming:
    """Return a receipt that waits to be matched.

    Raises:
        Refused: it does not.
    """
    for item in await list_matchable(conn, book, by_people=True):
        if item.id == receipt_id:
            return item
    raise Refused(
        f"receipt {receipt_id} does not wait to be matched",
        remedy="See `causeway settle match list`; what is matched is taken apart first",
    )


async def list_standing(conn: AsyncConnection, receipt_id: UUID) -> list[ReceiptMatch]:
    """Return the matches of a receipt that stand."""
    return await store.list_matches(conn, receipts={receipt_id})


async def match_history(conn: AsyncConnection, receipt_id: UUID) -> list[dict[str, Any]]:
    """Return every match of a receipt, those that were undone too, the oldest first.

    Raises:
        Refused: there never was one.
    """
    found = await store.history(conn, receipt_id)
    if not found:
        raise Refused(
            f"receipt {receipt_id} was never matched", remedy="See `causeway settle match list`"
        )
    return found


def share_out(
    receipt: Incoming, shares: Sequence[Share], items: dict[UUID, Instruction]
) -> tuple[Part, ...]:
    """Return what a receipt pays by *shares*; the excess is on the last one. Pure.

    Raises:
        BadInput, Refused: see `match_by_hand`.
    """
    if not 0 < len(shares) <= SUBSET_MAX or len({s.instruction_id for s in shares}) != len(shares):
        raise BadInput(f"a receipt pays 1 to {SUBSET_MAX} instructions, each once")
    chosen = [_require_awaited(share, items, receipt) for share in shares]
    if len({item.party for item in chosen}) != 1:
        raise BadInput("a receipt pays what one party owes")
    excess = receipt.value - sum(share.amount for share in shares)
    paid = all(
        share.amount + share.charge == item.remaining
        for share, item in zip(shares, chosen, strict=True)
    )
    if excess < 0 or (excess and not paid):
        raise BadInput(
            f"receipt {receipt.id} is of {receipt.value}, its shares come to"
            f" {receipt.value - excess}",
            remedy="Share all of it out; more than is owed, only once everything named is paid",
        )
    return tuple(
        Part(
            incoming=receipt.id,
            expected=share.instruction_id,
            applied=share.amount,
            charge=share.charge,
            excess=excess if share is shares[-1] else 0,
        )
        for share in shares
    )


async def unmatch(
    conn: AsyncConnection,
    receipt_id: UUID,
    *,
    book: int,
    by: Operator,
    second: Operator,
    signature: bytes,
    reason: str,
    now: datetime,
) -> list[Instruction]:
    """Take the matches of a receipt apart: it waits again, and its instructions await the value.

    Args:
        signature: of *second*, of `unmatch_bytes`, with every match that stands.

    Raises:
        Refused: nothing stands; or a run of it is final, and what was settled stays so; or the excess
            was spent.
        SamePerson, NotAuthorised: see `registry.people`.
    """
    require_reason(reason)
    first = await require_operator(conn, by, *MAY_ENTER)
    ids = {match.instruction_id for match in await store.list_matches(conn, receipts={receipt_id})}
    known = await instruction_store.list_instructions(conn, book=book, only=ids)
    runs = await lock_runs(conn, known)
    locked = await instruction_store.list_instructions(conn, book=book, only=ids, lock=True)
    items = {item.id: item for item in locked}
    matches = await store.list_matches(conn, receipts={receipt_id}, lock=True)
    if not matches or {match.instruction_id for match in matches} != items.keys():
        raise Refused(f"receipt {receipt_id} is not matched in book {book}")
    final = [run for run in runs if run.state is RunState.FINAL]
    if final:
        raise Refused(
            f"run {final[0].id} is final",
            remedy="What is settled stays so: send the money back, and it is owed anew",
        )
    payload = unmatch_bytes(receipt_id, [match.id for match in matches], reason)
    other = await require_second(
        conn, first, second, *MAY_SIGN, payload=payload, signature=signature
    )
    await _require_excess(conn, book, matches)
    why = Why(first.code, reason, now)
    transfers = await undo(conn, matches, items, why, name="ReceiptUnmatched", second=other.code)
    await sources.put_back(conn, matches[0].rail, receipt_id, by=first.code, reason=reason, now=now)
    require_applied(await post(conn, book, transfers, now=now))
    return list(items.values())


def _require_awaited(
    share: Share, items: dict[UUID, Instruction], receipt: Incoming
) -> Instruction:
    item = items.get(share.instruction_id)
    if (
        item is None
        or item.direction is not Direction.RECEIVE
        or item.rail not in AWAITED_RAILS
        or item.state is not InstructionState.RELEASED
    ):
        raise Refused(
            f"instruction {share.instruction_id} does not await a receipt",
            remedy="Choose a released instruction to receive, of this book",
        )
    if item.asset != receipt.asset:
        raise BadInput(f"instruction {item.id} is of {item.asset}, not of {receipt.asset}")
    complete = share.amount + share.charge == item.remaining
    if share.amount <= 0 or share.charge < 0 or (share.charge and not complete):
        raise BadInput(
            f"{share.amount} and a charge of {share.charge} are no share of {item.remaining}",
            remedy="A share is above zero; a charge is the rest of what is owed",
        )
    if share.amount + share.charge > item.remaining:
        raise BadInput(f"{item.remaining} are left of instruction {item.id}")
    return item


async def _require_excess(
    conn: AsyncConnection, book: int, matches: Sequence[ReceiptMatch]
) -> None:
    """Refuse to take apart what was paid too much and is given back already."""
    for match in [match for match in matches if match.excess]:
        posted = await list_transfers(
            conn, book, correlation=match.instruction_id, code=f"settlement.receipt.{EXCESS}"
        )
        (excess,) = [one for one in posted if one.id == match_id(match, EXCESS)]
        await wait_for(conn, unapplied_lock(book, excess.credit, excess.asset))
        balance = await get_balance(conn, book, excess.credit, excess.asset)
        if balance.available < match.excess:
            raise Refused(
                f"receipt {match.receipt_id} was {match.excess} units too much, of which"
                f" {excess.credit} holds {balance.available}",
                remedy="What was given back stays given back: a further receipt is matched anew",
            )
