"""A process that takes payment files out of the house, turn after turn, until it is killed.

``python -m tests.crash.bank_payer`` is a nursery: it reads one order a line (JSON), forks a worker for each
and says its process id. A worker puts files into a folder and never ends by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from banks.folder_gateway import FolderGateway
from custody.banks.payment_worker import advance_bank_payments
from kernel.db import APP_ROLE, create_engine
from tests.crash.payer import Running

SPEED = 2_000
"""So many seconds pass for a worker in one: what waits half a minute does not keep the test waiting."""


@dataclass(frozen=True, slots=True)
class BankOrder:
    """What a worker works on; *now* is what its clock says when it begins."""

    url: str
    folder: str
    accounts: list[str]
    book: int
    holder: str
    now: str


class Hurried(Running):
    """A clock that begins where it is told and runs fast."""

    def now(self) -> datetime:
        """Return the beginning and many times what has passed since."""
        passed = super().now() - self._began
        return self._began + timedelta(seconds=passed.total_seconds() * SPEED)


async def run(order: BankOrder) -> None:
    """Carry an order out: for ever."""
    engine = create_engine(order.url, role=APP_ROLE, pool_size=2, injected_clock=True)
    clock = Hurried(datetime.fromisoformat(order.now))
    door = FolderGateway(Path(order.folder))
    while True:
        await advance_bank_payments(
            engine,
            dict.fromkeys(order.accounts, door),
            book=order.book,
            holder=order.holder,
            clock=clock,
        )
        await asyncio.sleep(0)


def main() -> None:
    """Fork a worker for each order."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            asyncio.run(run(BankOrder(**order)))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


def as_line(order: BankOrder) -> bytes:
    """Return an order as the nursery reads it."""
    return json.dumps(asdict(order)).encode() + b"\n"


if __name__ == "__main__":
    main()
