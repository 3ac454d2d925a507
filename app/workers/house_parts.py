"""What the loops of a house share: what they run on, and how a turn's figures are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from random import SystemRandom
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from app.vitals import Vitals
from app.workers.house_file import HouseFile
from app.workers.service import Service
from app.workers.watching import Turn as WatcherTurn
from custody.compliance.address_list import AddressList
from custody.compliance.travel_rule import TravelRule
from custody.policy import ConfirmationPolicy
from kernel.clock import Clock
from kernel.settings import Settings

USUAL: Final = frozenset({"included", "alarms"})
"""Figures of a watcher that are no news: each alarm is a warning of its own, once."""

REPLICA_BITS: Final = 32

REBALANCE_PAUSE: Final = timedelta(minutes=1)
"""Between two looks whether a new window has begun: the rules say how long one is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What the workers run on.

    Attributes:
        service: None: what a rule allows waits for a person.
        write: takes one line of standard output: the ready line, then domain events.
        facts: what else the ready line says.
        chance: gives numbers in [0, 1) that spread reconnections.
        replica: another text for each process: what it leases is known by it.
        vitals: how this process is, for whoever asks; None: nobody does.
    """

    engine: AsyncEngine
    settings: Settings
    evm_url: str
    file: HouseFile
    clock: Clock
    write: Callable[[str], None]
    facts: Mapping[str, Any]
    service: Service | None = None
    chance: Callable[[], float] = SystemRandom().random
    replica: str = field(default_factory=lambda: f"{SystemRandom().getrandbits(REPLICA_BITS):08x}")
    vitals: Vitals | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What the files say about arrivals and payments, the same on every chain."""

    policy: ConfirmationPolicy
    screening: AddressList
    travel_rule: TravelRule


def holder(house: House, what: str) -> str:
    """Return who leases: another name for each replica, for a lease is one worker's."""
    return f"{what}{mark(house)}"


def mark(house: House) -> str:
    """Return how the name of every holder of this process ends."""
    return f"/{house.replica}"


def told(turn: WatcherTurn) -> dict[str, object]:
    """Return the figures of a watcher's turn."""
    done: dict[str, object] = {
        "included": turn.followed.included,
        "orphaned": turn.followed.orphaned,
        "deposits": len(turn.deposits),
        "receipts": len(turn.receipts),
        "payouts": len(turn.payouts),
        "signed": len(turn.work.signed),
        "sent": len(turn.work.sent),
        "bumped": len(turn.work.bumped),
        "filled": len(turn.work.filled),
        "alarms": len(turn.work.alarms),
    }
    if turn.followed.reason:
        done["halted"] = turn.followed.reason
    if turn.tip is None and turn.followed.cursor is not None:
        done["unconfirmed"] = "the providers do not agree on a block"
    return nonzero(done)


def nonzero(figures: Mapping[str, object]) -> dict[str, object]:
    """Return the figures that are news."""
    return {name: value for name, value in figures.items() if value}
