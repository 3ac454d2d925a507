"""What a freeze is: a switch that one person closes and two open. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from custody.control_messages import (
    ControlKind,
    Frozen,
    ScopeKind,
    Thawed,
    control_bytes,
)
from kernel.errors import BadInput
from kernel.states import StateTable

NAME_LENGTH_MAX: Final = 120


@dataclass(frozen=True, slots=True)
class Scope:
    """What a switch closes; *name* is the code of the chain, asset, wallet or client."""

    kind: ScopeKind
    name: str = ""

    def __post_init__(self) -> None:
        if (self.kind is ScopeKind.GLOBAL) != (self.name == ""):
            raise BadInput(
                f"a freeze of {self.kind} {self.name!r}",
                remedy="Write global, or chain, asset, wallet or client with its code",
            )
        if len(self.name) > NAME_LENGTH_MAX:
            raise BadInput(f"a name has at most {NAME_LENGTH_MAX} characters")

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read ``global``, ``chain:<code>``, ``asset:<code>``, ``wallet:<code>``, ``client:<id>``."""
        kind, _, name = text.partition(":")
        if kind not in set(ScopeKind):
            known = ", ".join(ScopeKind)
            raise BadInput(f"{text!r} is nothing to freeze", remedy=f"Begin with one of {known}")
        return cls(ScopeKind(kind), name)

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return f"{self.kind}:{self.name}" if self.name else str(self.kind)


GLOBAL: Final = Scope(ScopeKind.GLOBAL)


class FreezeState(StrEnum):
    """Where a freeze is: while it is closed, nothing of its scope moves."""

    CLOSED = "closed"
    OPEN = "open"
    SUPERSEDED = "superseded"
    """A person closed it too: that freeze stands in its place, and two people open that one."""


FREEZE_STATES: Final = StateTable(
    schema="custody",
    table="freeze",
    initial=frozenset({FreezeState.CLOSED}),
    edges=frozenset(
        {
            (FreezeState.CLOSED, FreezeState.OPEN),
            (FreezeState.CLOSED, FreezeState.SUPERSEDED),
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """One closing of a switch, for ever: to close again makes another.

    Attributes:
        closed_signature: of `freeze_bytes`; None where a process of ours closed it and no service has
            signed that.
        signed_by: whose key the signature is of.
        opened_by: the signatures of `thaw_bytes` by operator code; None while it is closed.
    """

    id: UUID
    scope: Scope
    state: FreezeState
    closed_by: str
    closed_signature: bytes | None
    closed_reason: str
    closed_at: datetime
    signed_by: str | None = None
    opened_by: Mapping[str, bytes] | None = None
    opened_reason: str | None = None
    opened_at: datetime | None = None


def find_match(
    freezes: Iterable[Freeze],
    *,
    chain: str = "",
    asset: str = "",
    wallet: str = "",
    client: str = "",
) -> Freeze | None:
    """Return the first of *freezes* that stops something of these; a global one stops all."""
    named = {
        ScopeKind.GLOBAL: "",
        ScopeKind.CHAIN: chain,
        ScopeKind.ASSET: asset,
        ScopeKind.WALLET: wallet,
        ScopeKind.CLIENT: client,
    }
    for item in freezes:
        name = named[item.scope.kind]
        if item.scope.kind is ScopeKind.GLOBAL or (name and name == item.scope.name):
            return item
    return None


def freeze_bytes(freeze_id: UUID, scope: Scope, reason: str) -> bytes:
    """Return what the one who closes signs; the signer takes the same bytes."""
    body = Frozen(id=freeze_id, scope=scope.kind, name=scope.name, reason=reason)
    return control_bytes(ControlKind.FREEZE, body.plain())


def thaw_bytes(freeze_id: UUID, reason: str) -> bytes:
    """Return what each of the two who open signs; the signer takes the same bytes."""
    return control_bytes(ControlKind.THAW, Thawed(id=freeze_id, reason=reason).plain())
