"""What a restore is: found and frozen, its places read again, opened by two people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from custody.control_messages import ControlKind, RestoreOpened, control_bytes
from kernel.states import StateTable
from registry.authority import signing_bytes

SCHEMA: Final = "custody"
REASON_LENGTH_MAX: Final = 500
WHAT_LENGTH_MAX: Final = 1_000
SETTLE_VERB: Final = "restore.settle"
VOUCH_VERB: Final = "restore.vouch"
BEGIN_VERB: Final = "restore.begin"


class RestoreState(StrEnum):
    """Where a restore is."""

    FROZEN = "frozen"
    """Every door is shut."""
    OPEN = "open"
    """Two people have opened them again; for ever."""


RESTORE_STATES: Final = StateTable(
    schema=SCHEMA,
    table="restore",
    initial=frozenset({RestoreState.FROZEN}),
    edges=frozenset({(RestoreState.FROZEN, RestoreState.OPEN)}),
)


class SourceState(StrEnum):
    """Whether a place was read again."""

    WAITING = "waiting"
    DONE = "done"
    """Read up to its end."""
    VOUCHED = "vouched"
    """A person has looked and says that it has nothing that is missing here."""


SOURCE_STATES: Final = StateTable(
    schema=SCHEMA,
    table="restore_source",
    initial=frozenset({SourceState.WAITING}),
    edges=frozenset(
        {
            (SourceState.WAITING, SourceState.DONE),
            (SourceState.WAITING, SourceState.VOUCHED),
            # What was read is read once more, and has more.
            (SourceState.DONE, SourceState.WAITING),
        }
    ),
)


class ItemState(StrEnum):
    """What became of something that was done outside and is missing here."""

    UNRESOLVED = "unresolved"
    """It could not be taken in: people must look."""
    RESTORED = "restored"
    """It is in the books again, or will be by its own way."""
    NOTED = "noted"
    """It moved nothing: it is only said."""
    SETTLED = "settled"
    """Two people have dealt with it by hand, and say how."""


ITEM_STATES: Final = StateTable(
    schema=SCHEMA,
    table="restore_item",
    initial=frozenset({ItemState.UNRESOLVED, ItemState.RESTORED, ItemState.NOTED}),
    edges=frozenset(
        {
            (ItemState.UNRESOLVED, ItemState.RESTORED),
            (ItemState.UNRESOLVED, ItemState.SETTLED),
        }
    ),
)


class Stage(StrEnum):
    """What a place is read for: what we sent comes before what came of it."""

    SENT = "sent"
    FACTS = "facts"


SIGNER_LOG: Final = "signer"
"""The source whose records are what was signed."""
ADDRESSES: Final = "addresses"
"""The source that is the addresses which were perhaps given out: skipped, and watched from now on."""
HANDED_OUT: Final = "handed-out"
"""Whose items are addresses that were given out after the moment, by a database that was set back."""


def bank_files_of(account: str) -> str:
    """Return the source of the payment files that the bank of an account was given."""
    return f"bank-files:{account}"


def statements_of(account: str) -> str:
    """Return the source of an account's statements."""
    return f"statements:{account}"


def chain_of(chain: str) -> str:
    """Return the source of a chain's blocks."""
    return f"chain:{chain}"


def venue_of(venue: str, account: str) -> str:
    """Return the source of the orders and trades of an account at a venue."""
    return f"venue:{venue}/{account}"


def withdrawals_of(venue: str, account: str) -> str:
    """Return the source of what was asked back from an account at a venue."""
    return f"withdrawals:{venue}/{account}"


def cold_of(wallet: str) -> str:
    """Return the source of what people signed for a cold wallet: no log of ours has it."""
    return f"cold:{wallet}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """A database that is older than what it did.

    Attributes:
        evidence: what showed it, in words.
        since: from when on acts may be missing.
        signer: the verifier key of the signer's store; "" where none was asked.
        signer_mark, signer_token: the newest mark it knew when it was read.
        mark, token: the newest mark that both know; (0, "") where there is none.
        records: how many records of its log were read.
        sent_known_at: when everything that was sent was known again: from then on facts are read.
        worked_on: whether the database may have been worked with between its being set back and its
            being found; None: nobody has said.
    """

    id: UUID
    state: RestoreState
    found_by: str
    found_at: datetime
    evidence: str
    since: datetime
    signer: str = ""
    signer_mark: int = 0
    signer_token: str = ""
    mark: int = 0
    token: str = ""
    records: int = 0
    sent_known_at: datetime | None = None
    worked_on: bool | None = None
    opened_by: Mapping[str, str] | None = None
    opened_reason: str | None = None
    opened_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place that did not go back with the database; *detail* is what was read, in words."""

    restore_id: UUID
    source: str
    stage: Stage
    state: SourceState
    detail: str = ""
    done_by: str | None = None
    done_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something that was done outside and that the database had lost; *key* names it in its source."""

    restore_id: UUID
    source: str
    key: str
    state: ItemState
    what: str
    found_at: datetime
    payout_id: UUID | None = None
    reason: str | None = None


def opening_bytes(found: Restore, reason: str) -> bytes:
    """Return what each of the two who open signs; the signer takes the same bytes."""
    return control_bytes(ControlKind.RESTORE_OPEN, opening_body(found, reason).plain())


def opening_body(found: Restore, reason: str) -> RestoreOpened:
    """Return the message's body that an opening makes."""
    return RestoreOpened(
        id=found.id, mark=found.mark, token=found.token, records=found.records, reason=reason
    )


def begin_bytes(since: datetime, reason: str) -> bytes:
    """Return what the one signs who says that the database was restored to *since*."""
    return signing_bytes(BEGIN_VERB, {"since": since.isoformat(), "reason": reason})


def settling_bytes(item: Item, reason: str, reference: str = "") -> bytes:
    """Return what each of the two signs who have dealt with an item by hand.

    Args:
        reference: under which a withdrawal was asked for, where the venue does not list it.
    """
    said = {
        "restore": item.restore_id,
        "source": item.source,
        "key": item.key,
        "what": item.what,
        "reason": reason,
    }
    return signing_bytes(SETTLE_VERB, {**said, "reference": reference} if reference else said)


def vouching_bytes(source: Source, reason: str) -> bytes:
    """Return what the one signs who says that a place has nothing that is missing here."""
    return signing_bytes(
        VOUCH_VERB, {"restore": source.restore_id, "source": source.source, "reason": reason}
    )
