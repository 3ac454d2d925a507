"""Withdrawals that a restored database has forgotten, at venues that list no id of ours.

Such a venue's list says what was paid, and not under which reference we asked. Two people who settle it
may say that, and then the reference is refused. Until they have, and where nobody knows, whatever is
like it is refused: the same amount of the same asset to the same address may be the same withdrawal.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from custody.errors import NotPossible
from custody.restore_tables import restore_item, restore_withdrawal
from custody.venues.model import Place, VenueWithdrawal
from kernel.errors import Refused
from venues.treasury_model import WithdrawalRecord, same_address


async def save_forgotten(
    conn: AsyncConnection,
    restore_id: UUID,
    source: str,
    key: str,
    place: Place,
    record: WithdrawalRecord,
) -> None:
    """Keep what a withdrawal was beside its item; what people have said of it stays."""
    values = {
        "restore_id": restore_id,
        "source": source,
        "key": key,
        "venue": place.venue,
        "account": place.account,
        "asset": record.asset,
        "network": record.network,
        "address": record.address,
        "sent": record.sent,
        "fee": record.fee,
    }
    await conn.execute(insert(restore_withdrawal).values(**values).on_conflict_do_nothing())


async def name_forgotten(
    conn: AsyncConnection, restore_id: UUID, source: str, key: str, reference: str
) -> None:
    """Write under which reference a forgotten withdrawal was asked for.

    Raises:
        NotPossible: the item is none whose reference people have to say.
    """
    table = restore_withdrawal
    row = (table.c.restore_id == restore_id, table.c.source == source, table.c.key == key)
    done = await conn.execute(update(table).where(*row).values(reference=reference))
    if done.rowcount != 1:
        raise NotPossible(
            f"{key} of {source} is no withdrawal whose reference is to be said",
            remedy="Leave the reference out",
        )


async def require_not_forgotten(conn: AsyncConnection, item: VenueWithdrawal) -> None:
    """Refuse a new withdrawal that was made before the database was restored, or may have been.

    Raises:
        Refused: names the item that people have dealt with.
    """
    table = restore_withdrawal
    query = (
        select(table)
        .join(restore_item)
        # One that the venue did not pay after all is nobody's concern any more.
        .where(restore_item.c.state != "restored")
        .where(table.c.venue == item.venue, table.c.account == item.account)
    )
    for row in await conn.execute(query.order_by(table.c.restore_id, table.c.key)):
        where = f"{row.source} {row.key}"
        if row.reference == item.client_ref:
            raise Refused(
                f"reference {item.client_ref!r} was asked for before the database was restored",
                where=where,
                remedy="Use a new reference for a new withdrawal",
            )
        alike = (
            (row.asset, row.network) == (item.asset, item.network)
            and same_address(row.address, item.address)
            and item.amount in {row.sent, row.sent + row.fee}
        )
        if row.reference is None and alike:
            raise Refused(
                f"a withdrawal of {item.text} {item.asset} to {item.address} was made before the"
                " database was restored, and nobody has said under which reference",
                where=where,
                remedy="If this is another one, ask for another amount",
            )
