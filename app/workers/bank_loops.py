"""The loops of a house that has accounts at banks: payment files go out, what banks send comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.bank import StatementInbox
from app.workers.bank_file import BankSection
from app.workers.bank_payments import REPORTS, BankPayer
from app.workers.loops import Loop
from banks.folder_gateway import FolderGateway
from banks.http_gateway import HttpGateway
from banks.submission import BankGateway
from custody.banks.entry_model import BankFileState
from custody.compliance.ports import Screening
from kernel.clock import Clock


def bank_loops(
    engine: AsyncEngine,
    sections: Sequence[BankSection],
    *,
    book: int,
    clock: Clock,
    screening: Screening,
    holder: str,
    pause: timedelta,
) -> list[Loop]:
    """Return the loops of *sections*; none where there are no accounts."""
    if not sections:
        return []
    doors = {section.account: door for section in sections if (door := _door(section)) is not None}
    payer = BankPayer(
        engine=engine,
        clock=clock,
        book=book,
        holder=holder,
        gateways=doors,
        screening=screening,
        gather=max(section.gather for section in sections),
    )
    folders = sorted({section.inbox for section in sections if section.inbox is not None})
    inboxes = [
        StatementInbox(
            engine=engine,
            clock=clock,
            folder=folder,
            readers={REPORTS: payer.read_report},
        )
        for folder in folders
    ]

    async def pay() -> Mapping[str, object]:
        done = await payer.turn()
        counts = {
            "drafted": len(done.drafted),
            "released": len(done.released),
            "submitted": len(done.submitted),
            "unknown": len(done.unknown),
            "held": len(done.held),
        }
        return {name: count for name, count in counts.items() if count}

    async def read() -> Mapping[str, object]:
        turns = [await inbox.turn() for inbox in inboxes]
        reports = [report for turn in turns for report in turn.reports if report.new]
        imported = [r for r in reports if r.file.state is BankFileState.IMPORTED]
        counts = {
            "imported": len(imported),
            "quarantined": len(reports) - len(imported),
            "handed_on": sum(len(turn.handed_on) for turn in turns),
        }
        return {name: count for name, count in counts.items() if count}

    loops = [Loop(name="bank-payments", turn=pay, pause=pause)]
    return [*loops, Loop(name="bank-statements", turn=read, pause=pause)] if inboxes else loops


def _door(section: BankSection) -> BankGateway | None:
    if section.url is not None:
        return HttpGateway(section.url)
    return None if section.orders is None else FolderGateway(section.orders)
