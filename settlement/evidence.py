"""What matches rest on: receipts that `custody` still has, in the epoch in which they were matched."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks.entry_model import BankReceipt, BankReceiptKind, BankReceiptState
from custody.banks.receipts import list_bank_receipts
from custody.deposit_model import Receipt, ReceiptState
from custody.receipts import get_receipt
from settlement import store as run_store
from settlement.matching import store
from settlement.matching.model import ReceiptMatch
from settlement.model import Instruction
from trading.terms.model import Rail

PAGE: Final = 500


def stands(match: ReceiptMatch, receipt: Receipt) -> bool:
    """Tell whether the receipt is still the one that was matched.

    A receipt whose block vanished is reversed; mined again, it is in its next epoch, and whatever it
    paid before has to be matched again.
    """
    return receipt.state is ReceiptState.MATCHED and receipt.epoch == match.epoch


async def find_stale_matches(
    conn: AsyncConnection, instructions: Collection[Instruction]
) -> list[ReceiptMatch]:
    """Return the matches of *instructions* that stand here although their receipts are gone.

    A bank's credit is gone as soon as the bank has recalled it.
    """
    if not instructions:
        return []
    matches = await store.list_matches(conn, instructions={item.id for item in instructions})
    recalled: set[UUID | None] = set()
    if any(match.rail is Rail.BANK for match in matches):
        run = await run_store.get_run(conn, next(iter(instructions)).run_id)
        recalled = {item.recalls for item in await open_recalls(conn, run.book)}
    return [match for match in matches if await _is_gone(conn, match, recalled)]


async def open_recalls(conn: AsyncConnection, book: int) -> list[BankReceipt]:
    """Return what banks took back of credits that were matched, and that nobody dealt with yet."""
    found: list[BankReceipt] = []
    after: UUID | None = None
    while page := await list_bank_receipts(
        conn,
        book,
        state=BankReceiptState.UNMATCHED,
        kinds={BankReceiptKind.RECALL},
        after=after,
        limit=PAGE,
    ):
        found += page
        after = page[-1].id
    return found


async def _is_gone(
    conn: AsyncConnection, match: ReceiptMatch, recalled: Collection[UUID | None]
) -> bool:
    if match.rail is Rail.BANK:
        return match.receipt_id in recalled
    return not stands(match, await get_receipt(conn, match.receipt_id))
