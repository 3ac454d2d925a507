"""What matches rest on: receipts that custody still has, in the epoch in which they were matched."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.deposit_model import Receipt, ReceiptState
from custody.receipts import get_receipt
from settlement import instruction_store
from settlement.model import Instruction, ReceiptMatch


def stands(match: ReceiptMatch, receipt: Receipt) -> bool:
    """Tell whether the receipt is still the one that was matched.

    A receipt whose block vanished is reversed; mined again, it is in its next epoch, and whatever it
    paid before has to be matched again.
    """
    return receipt.state is ReceiptState.MATCHED and receipt.epoch == match.epoch


async def find_stale_matches(
    conn: AsyncConnection, instructions: Collection[Instruction]
) -> list[ReceiptMatch]:
    """Return the matches of *instructions* that stand here although their receipts are gone."""
    if not instructions:
        return []
    matches = await instruction_store.list_matches(
        conn, instructions={item.id for item in instructions}
    )
    return [m for m in matches if not stands(m, await get_receipt(conn, m.receipt_id))]
