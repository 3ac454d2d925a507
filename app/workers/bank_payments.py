"""The worker of payments through banks: files written, released, handed over; status reports read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from banks.submission import BankGateway
from custody.banks.payment_moves import WORKER
from custody.banks.payment_reports import take_report
from custody.banks.payment_worker import BankWork, advance_bank_payments
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.ports import Screening
from kernel.clock import Clock
from kernel.db import transact

REPORTS: Final = "pain.002"
"""The word of a status report's namespace: what `app.workers.bank` hands to `BankPayer.read_report`."""

log = structlog.get_logger("bank-payments")


@dataclass(frozen=True, slots=True, kw_only=True)
class BankPayer:
    """Everything that is needed; `turn` is safe to call again after any error or crash.

    Attributes:
        gateways: the door of each account's bank, by code of the account.
        gather: a file waits until the oldest of its payouts is so old, so that it has many.
        drafts: False: files are written only when a person asks for one.
    """

    engine: AsyncEngine
    clock: Clock
    book: int
    holder: str
    gateways: Mapping[str, BankGateway]
    screening: Screening = NOBODY_LISTED
    gather: timedelta = timedelta(0)
    drafts: bool = True

    async def turn(self) -> BankWork:
        """Take everything as far as it goes now."""
        done = await advance_bank_payments(
            self.engine,
            self.gateways,
            book=self.book,
            holder=self.holder,
            clock=self.clock,
            screening=self.screening,
            drafts=self.drafts,
            gather=self.gather,
        )
        for file_id in done.held:
            log.error("payment file on hold: the bank's door refuses it", file=str(file_id))
        return done

    async def read_report(self, name: str, raw: bytes) -> None:
        """Take in a status report; what people have to look at in it is told."""
        taken = await transact(
            self.engine, lambda conn: take_report(conn, raw, by=WORKER, now=self.clock.now())
        )
        if taken.detail and not taken.known:
            log.error("status report of a bank", name=name, look_at=taken.detail)
