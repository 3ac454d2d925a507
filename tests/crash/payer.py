"""A process that works for a desk, turn after turn, until it is killed.

It takes payouts from approved to sent; or it is a whole watcher, which follows the chain, books and
credits deposits, bumps, cancels and confirms payouts as well.

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

from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.watcher import Watcher
from chain.evm.gateway import EvmGateway
from chain.model import FollowPolicy
from custody.evm_rail import EvmRail
from custody.payout_rules import BumpPolicy
from custody.payout_worker import advance_payouts
from custody.policy import ConfirmationPolicy, Requirement
from custody.signer.client import SignerClient
from kernel.clock import Clock, to_unix_ns
from kernel.db import APP_ROLE, create_engine

NEVER: Final = timedelta(days=365)
PATIENT: Final = BumpPolicy(bump_after=NEVER, underpriced_after=NEVER, deadline=2 * NEVER)
"""Fees are not raised: how long a worker took is not to show in the books."""
PAUSE_S: Final = 0.01
DEPTH: Final = 3
"""Blocks after which a watcher believes what it saw."""


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
        limit: payouts that it claims at once, unless it is a watcher.
        start: the height from which a watcher follows the chain; None: it only pays.
        bump_s: age at which a watcher offers more for the head of a line; 0: never.
        cancel_s: age at which a watcher cancels the head of a line instead; 0: never.
    """

    url: str
    node: str
    socket: str
    book: int
    holder: str
    now: str
    limit: int = 100
    start: int | None = None
    bump_s: int = 0
    cancel_s: int = 0

    @property
    def bump(self) -> BumpPolicy:
        """Return when more is offered: never, unless the order says when."""
        if not self.bump_s:
            return PATIENT
        after = timedelta(seconds=self.bump_s)
        cancel = timedelta(seconds=self.cancel_s) if self.cancel_s else None
        return BumpPolicy(
            bump_after=after, underpriced_after=after, deadline=NEVER, cancel_after=cancel
        )


class Running:
    """A clock that begins where it is told."""

    def __init__(self, began: datetime) -> None:
        self._began = began
        self._at = asyncio.get_running_loop().time()

    def now(self) -> datetime:
        """Return the beginning and what has passed since."""
        return self._began + timedelta(seconds=asyncio.get_running_loop().time() - self._at)

    def now_ns(self) -> int:
        """Return the same in nanoseconds since 1970."""
        return to_unix_ns(self.now())


async def run(order: Order) -> None:
    """Carry an order out: for ever."""
    engine = create_engine(order.url, role=APP_ROLE, pool_size=2, injected_clock=True)
    clock = Running(datetime.fromisoformat(order.now))
    signer = SignerClient(Path(order.socket))
    async with EvmGateway(order.node, chain="evm", network_id=31337) as gateway:
        if order.start is not None:
            await watch(order, engine, gateway, signer, clock)
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


async def watch(
    order: Order,
    engine: AsyncEngine,
    gateway: EvmGateway,
    signer: SignerClient,
    clock: Clock,
) -> None:
    """Be the watcher of the chain: for ever."""
    assert order.start is not None
    watcher = Watcher(
        engine=engine,
        gateway=gateway,
        signer=signer,
        clock=clock,
        chain="evm",
        book=order.book,
        policy=ConfirmationPolicy.uniform(DEPTH),
        payout_requirement=Requirement(DEPTH),
        follow_policy=FollowPolicy(start_height=order.start),
        holder=order.holder,
        bump=order.bump,
    )
    while True:
        await watcher.turn()
        await asyncio.sleep(PAUSE_S)


def main() -> None:
    """Fork a worker for each order."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # What a worker logs is not what the nursery says.
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            asyncio.run(run(Order(**order)))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


def as_line(order: Order) -> bytes:
    """Return an order as the nursery reads it."""
    return json.dumps(asdict(order)).encode() + b"\n"


if __name__ == "__main__":
    main()
