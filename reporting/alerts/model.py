"""Nouns of alerts, frozen, and the edges of their two machines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from kernel.errors import BadInput
from kernel.states import StateTable

LEVELS_MAX: Final = 5
CHANNELS_MAX: Final = 20
ROUTES_MAX: Final = 100
ESCALATE_MINUTES_MAX: Final = 24 * 60
TARGET_LENGTH_MAX: Final = 500
KEY_LENGTH_MAX: Final = 200
TEXT_LENGTH_MAX: Final = 1_000
THIS_MACHINE: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class AlertKind(StrEnum):
    """What is wrong."""

    CUT_OFF_UNFUNDED = "cut_off_unfunded"
    """A cut-off is near, and what is to be paid is not there."""
    FAILED_AT_CUT_OFF = "failed_at_cut_off"
    """What was due is not final."""
    STATEMENT_MISSING = "statement_missing"
    """A bank's statement is missing in the sequence, or none has come."""
    RECEIPT_UNMATCHED = "receipt_unmatched"
    """Something arrived that nobody can explain yet."""
    BREAK_AGED = "break_aged"
    """Books and world differ for longer than a business day."""
    INSTRUCTION_CHANGED = "instruction_changed"
    """Where somebody is paid was changed and cools off, or waits for a call back."""
    LIMIT_NEAR = "limit_near"
    """A limit is used to four fifths or more."""
    DEPOSIT_HELD = "deposit_held"
    """A deposit is held by screening, or belongs to nobody."""
    RUN_MISSED = "run_missed"
    """A scheduled run has not been done, or was given up."""
    FINALITY_OVERDUE = "finality_overdue"
    """What was released is not final although it should be."""
    TEST = "test"
    """Somebody tries whether alerts arrive."""


class AlertState(StrEnum):
    """Where an alert is."""

    RAISED = "raised"
    ACKNOWLEDGED = "acknowledged"
    """Somebody has taken it on; it is not escalated any further."""
    CLEARED = "cleared"
    """It is not found any more."""


ALERT_STATES: Final = StateTable(
    schema="reporting",
    table="alert",
    initial=frozenset({AlertState.RAISED}),
    edges=frozenset(
        {
            (AlertState.RAISED, AlertState.ACKNOWLEDGED),
            (AlertState.RAISED, AlertState.CLEARED),
            (AlertState.ACKNOWLEDGED, AlertState.CLEARED),
        }
    ),
)


class DeliveryState(StrEnum):
    """Where one message to one channel is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up after many tries: the channel is down, and somebody has to look at it."""


DELIVERY_STATES: Final = StateTable(
    schema="reporting",
    table="alert_delivery",
    initial=frozenset({DeliveryState.PENDING}),
    edges=frozenset(
        {
            (DeliveryState.PENDING, DeliveryState.DELIVERED),
            (DeliveryState.PENDING, DeliveryState.DEAD),
        }
    ),
)


class ChannelKind(StrEnum):
    """How a channel is reached."""

    WEBHOOK = "webhook"
    EMAIL = "email"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong at this moment.

    Attributes:
        key: tells it apart from others of its kind for as long as it lasts.
        text: one sentence for a person: what, where, how much, since when.
    """

    kind: AlertKind
    key: str
    text: str

    def __post_init__(self) -> None:
        if not 0 < len(self.key) <= KEY_LENGTH_MAX or not 0 < len(self.text) <= TEXT_LENGTH_MAX:
            raise BadInput(
                f"a finding has a key of 1 to {KEY_LENGTH_MAX} characters and a text of 1 to"
                f" {TEXT_LENGTH_MAX}",
                where=f"{self.kind} {self.key[:80]!r}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A finding that lasts, from its first sight until it is gone.

    Attributes:
        level: who is told: 1 first, the next one when nobody acknowledges in time.
        level_since: since when it is at this level.
    """

    id: UUID
    book: int
    kind: AlertKind
    key: str
    text: str
    state: AlertState
    level: int
    level_since: datetime
    raised_at: datetime
    last_seen_at: datetime
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    cleared_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """Where messages go: a web address, or an address for mail."""

    name: str
    kind: ChannelKind
    target: str

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise BadInput(
                f"{self.name!r} is no name of a channel", remedy="Use letters, digits and _"
            )
        if not 0 < len(self.target) <= TARGET_LENGTH_MAX or not self.target.isprintable():
            raise BadInput(f"channel {self.name} has no target that can be used")
        if self.kind is ChannelKind.WEBHOOK and not _is_safe(self.target):
            raise BadInput(
                f"channel {self.name} would send over an open line",
                remedy="Use https:// (or http:// on this machine)",
            )
        if self.kind is ChannelKind.EMAIL and not _is_mail(self.target):
            raise BadInput(
                f"channel {self.name} has no address for mail: {self.target!r}",
                remedy="Write somebody@example.com",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Which channel is told of which kinds at which level; no kinds: of all."""

    level: int
    channel: str
    kinds: frozenset[AlertKind] = frozenset()

    def takes(self, kind: AlertKind) -> bool:
        """Tell whether alerts of *kind* go this way."""
        return not self.kinds or kind in self.kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPolicy:
    """Who is told of what: one version, never rewritten.

    Attributes:
        version: counts from 1; 0 is no policy: nobody is told.
        escalate_after: without an acknowledgement the next level is told.
    """

    version: int
    channels: tuple[Channel, ...]
    routes: tuple[Route, ...]
    escalate_after: timedelta

    def __post_init__(self) -> None:
        names = [channel.name for channel in self.channels]
        if len(set(names)) != len(names) or len(names) > CHANNELS_MAX:
            raise BadInput(f"give at most {CHANNELS_MAX} channels, each with its own name")
        if len(self.routes) > ROUTES_MAX:
            raise BadInput(f"give at most {ROUTES_MAX} routes")
        for route in self.routes:
            if route.channel not in names:
                raise BadInput(
                    f"a route leads to the channel {route.channel!r}, which there is not",
                    remedy=f"Channels: {', '.join(names) or 'none'}",
                )
            if not 1 <= route.level <= LEVELS_MAX:
                raise BadInput(f"level {route.level} is not possible", remedy=f"1 to {LEVELS_MAX}")
        least, most = timedelta(minutes=1), timedelta(minutes=ESCALATE_MINUTES_MAX)
        if not least <= self.escalate_after <= most:
            raise BadInput(
                f"escalation after {self.escalate_after} is not possible",
                remedy=f"Use 1 to {ESCALATE_MINUTES_MAX} minutes",
            )

    def highest(self, kind: AlertKind) -> int:
        """Return the last level that anybody is told of *kind* at; 0: nobody ever is."""
        return max((route.level for route in self.routes if route.takes(kind)), default=0)

    def channels_for(self, kind: AlertKind, level: int) -> list[Channel]:
        """Return whom *level* tells of *kind*, each once, by name."""
        names = {r.channel for r in self.routes if r.level == level and r.takes(kind)}
        return sorted((c for c in self.channels if c.name in names), key=lambda c: c.name)


NO_POLICY: Final = AlertPolicy(
    version=0, channels=(), routes=(), escalate_after=timedelta(minutes=15)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message about an alert to one channel, as a worker has claimed it.

    Attributes:
        id: the receiver knows a repetition by it.
        is_clear: it says that the alert is over.
        channel: as it was when the message was planned.
        fence: must be repeated by whoever reports its end.
    """

    id: UUID
    alert: Alert
    level: int
    is_clear: bool
    channel: Channel
    attempts: int
    fence: int


def _is_safe(target: str) -> bool:
    """Tell whether nobody on the way can read what is sent: over TLS, or never off this machine."""
    try:
        parts = urlsplit(target)
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and host in THIS_MACHINE)
    )


def _is_mail(target: str) -> bool:
    local, _, domain = target.rpartition("@")
    is_domain = "." in domain.strip(".") or domain == "localhost"
    return bool(local) and is_domain and not any(sign in target for sign in " ,;<>\"'()")
