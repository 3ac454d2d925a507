"""Booking a file of deals: one transaction, one answer for each line, as often as one likes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import BadInput, Refused
from registry.queries import list_assets
from trading.deal_file import DealLine, read_deals
from trading.deals import Outcome, book_deals, find_deals
from trading.model import Deal, DealPurpose, DealRequest
from trading.terms.client_terms import terms_of_many


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedDeal:
    """What became of a line of the file.

    Attributes:
        line: where it stands; 1 is the header.
        outcome: the deal, or why there is none.
        is_new: it was booked now; otherwise it was on record already, or stands in an earlier line.
    """

    line: int
    client_ref: str
    outcome: Outcome
    is_new: bool


async def import_deals(
    conn: AsyncConnection,
    name: str,
    data: bytes,
    *,
    purposes: Collection[DealPurpose] = frozenset(DealPurpose),
    book: int,
    by: str,
    now: datetime,
) -> list[ImportedDeal]:
    """Book every deal of a file that can be booked; those on record already are left as they are.

    Args:
        conn: the caller's transaction: roll it back to only see what would become of each line.
        name: of the file, for its faults.
        data: CSV as `trading.deal_file` describes it.
        purposes: what deals *by* may book; a line of another purpose is refused.
        book: where to.
        by: who imports it.
        now: when.

    Raises:
        FilesNotValid: the file has faults; then nothing is booked.
    """
    assets = {asset.code: asset for asset in await list_assets(conn)}
    lines = read_deals(name, data, assets)
    known = await find_deals(conn, book, [line.client_ref for line in lines])
    lines = tuple(_as_booked(line, known.get(line.client_ref)) for line in lines)
    asked = await _requests(conn, lines, purposes, by, now)
    requests = [item for item in asked if isinstance(item, DealRequest)]
    outcomes = iter(await book_deals(conn, requests, book=book, now=now))
    answers = [next(outcomes) if isinstance(item, DealRequest) else item for item in asked]
    booked: set[str] = set()
    found = []
    for line, answer in zip(lines, answers, strict=True):
        reference = line.client_ref
        is_booked = isinstance(answer, Deal) and answer.created_at == now
        is_new = is_booked and reference not in booked
        item = ImportedDeal(line=line.line, client_ref=reference, outcome=answer, is_new=is_new)
        found.append(item)
        if is_new:
            booked.add(reference)
    return found


def _as_booked(line: DealLine, known: Deal | None) -> DealLine:
    """Return *line* with what it leaves to the terms as it was found when it was first booked.

    Otherwise other terms would make another deal of the same file.
    """
    if known is None:
        return line
    asked = known.request
    fee_units = asked.fee_units if line.fee_units is None else line.fee_units
    return replace(line, fee_units=fee_units, desk=line.desk or asked.desk)


async def _requests(
    conn: AsyncConnection,
    lines: Sequence[DealLine],
    purposes: Collection[DealPurpose],
    by: str,
    now: datetime,
) -> list[DealRequest | Refused | BadInput]:
    keys = [(line.party, (line.agreed_at or now).date()) for line in lines]
    terms = await terms_of_many(conn, set(keys))
    asked: list[DealRequest | Refused | BadInput] = []
    for line, key in zip(lines, keys, strict=True):
        if line.purpose not in purposes:
            asked.append(Refused(f"{by} may not book a deal of purpose {line.purpose}"))
            continue
        try:
            asked.append(line.request(terms[key], by=by))
        except BadInput as error:
            asked.append(error)
    return asked
