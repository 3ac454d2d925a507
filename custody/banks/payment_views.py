"""Reading payment files: what people and other packages look at."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks import payment_store
from custody.banks.payment_moves import FILE
from kernel.events import DomainEvent
from kernel.events import list_history as list_events

get_file = payment_store.get_file
list_files = payment_store.list_files
list_lines = payment_store.list_lines
list_approvals = payment_store.list_approvals
list_reports = payment_store.list_reports
find_line_of = payment_store.find_line_of
list_returned = payment_store.list_returned


async def list_told(conn: AsyncConnection, file_id: UUID) -> list[DomainEvent]:
    """Return the life of a payment file, oldest event first."""
    return await list_events(conn, FILE, file_id)
