"""A process that takes payouts from approved to sent, over and over, until it is killed.

``python -m tests.crash.payer`` is a nursery: it reads one order a line (JSON), forks a worker for
each and says its process id, so that a worker is born without importing anything. A worker never
ends by itself and tells nobody what it does: all there is of it are rows, bytes and a pool.
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
from typing import Final

from chain.evm.gateway import EvmGateway
from custody.evm_rail import EvmRail
from custody.payout_rules import BumpPolicy
from custody.payout_worker import advance_payouts
from custody.signer.client import SignerClient
from kernel.db import APP_ROLE, create_engine

NEVER: Final = timedelta(days=365)
PATIENT: Final = BumpPolicy(bump_after=NEVER, underpriced_after=NEVER, deadline=2 * NEVER)
"""Fees are not raised: how long a worker took is not to show in the books."""
PAUSE_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker works on.

    Attributes:
        url: of the database.
        node: of the node.
        socket: the signer's.
        book: the book.
        holder: the worker's name.
        now: what its clock says when it begins.
        limit: payouts that it claims at once.
    """

    url: str
    node: str
    socket: str
    book: int
    holder: str
    now: str
    limit: int


class Running:
    """A clock that begins where it is told."""

    def __init__(self, began: datetime) -> None:
        self._began = began
        self._at = asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """Return the beginning and what has passed since."""
        return self._began + timedelta(seconds=asyncio.get_running_loop().time() - self._at)


async def run(order: Order) -> None:
    """Carry an order out: for ever."""
    engine = create_engine(order.url, role=APP_ROLE, pool_size=2, injected_clock=True)
    clock = Running(datetime.fromisoformat(order.now))
    signer = SignerClient(Path(order.socket))
    async with EvmGateway(order.node, chain="evm", network_id=31337) as gateway:
        rail = EvmRail(gateway)
        while True:
            await advance_payouts(
                engine,
                gateway,
                signer,
                chain="evm",
                book=order.book,
                holder=order.holder,
                clock=clock,
                limit=order.limit,
                bump=PATIENT,
                rail=rail,
            )
            await asyncio.sleep(PAUSE_S)


def main() -> None:
    """Fork a worker for each order."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asyncio.run(run(Order(**order)))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


def as_line(order: Order) -> bytes:
    """Return an order as the nursery reads it."""
    return json.dumps(asdict(order)).encode() + b"\n"


if __name__ == "__main__":
    main()
