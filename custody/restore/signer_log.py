"""Reading the signer's own log again: every record proved to be in its tree, none believed otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from custody.control_messages import ControlMessage
from custody.ports import ControlledSigner
from custody.restore.store import moment
from custody.restore_marks import About, Mark
from custody.signer.errors import StoreUnusable
from custody.signer.wire import Intent, SpendIntent
from custody.signer_sync import check_continued
from kernel.clock import to_unix_ms
from kernel.errors import BadInput
from ledger.merkle import leaf_hash, verify_inclusion

MARGIN: Final = timedelta(days=1)
"""How much further back is read: what was signed just before the restore's moment may be missing too."""
RECORDS_MAX: Final = 1_000_000
SIGNED: Final = "signed"
SPENT: Final = "spent"
MARKED: Final = "marked"
CONTROL: Final = "control"


class SignedRecord(msgspec.Struct, frozen=True):
    """What a record of a signature says, as far as it is needed here."""

    intent: Intent
    unsigned: bytes
    raw: bytes
    approvers: list[str]


class SpentRecord(msgspec.Struct, frozen=True):
    """What a record of a signed spend of Bitcoin says, as far as it is needed here."""

    intent: SpendIntent
    raw: bytes


@dataclass(slots=True)
class SignedSince:
    """What the signer's log says from a moment on.

    Attributes:
        store: the verifier key of the signer's store.
        records: size of the log.
        payments: what was signed of each payout, the first one first, with its record's number.
        spends: signed transactions of Bitcoin, with their records' numbers.
        about: what the house said of payouts before it had them signed.
        messages: control messages that it took.
        common_at: when the newest mark that both know was shown; None: the database lacks none.
    """

    store: str
    records: int
    payments: dict[UUID, list[tuple[int, SignedRecord]]] = field(default_factory=dict)
    spends: list[tuple[int, SpentRecord]] = field(default_factory=list)
    about: dict[UUID, About] = field(default_factory=dict)
    messages: list[tuple[int, ControlMessage]] = field(default_factory=list)
    common_at: datetime | None = None


async def read_log(
    signer: ControlledSigner, *, since: datetime, common: int | None = None
) -> SignedSince:
    """Return what was signed from `MARGIN` before *since* on; the log is read from its end.

    Args:
        signer: the signer.
        since: from when on acts may be missing, as the database or a person says.
        common: the newest mark that the database and the signer both know. Where the signer knows a
            later one, the log is read back to `MARGIN` before it was shown, whatever *since* is.

    Raises:
        OutsideUnavailable: the signer does not answer.
        StoreUnusable: a record is not proved to be in its log.
        BadInput: it is longer than anybody reads.
    """
    health = await signer.health()
    _, newest = await check_continued(signer, None)
    found = SignedSince(store=health.verifier_key, records=newest.size)
    margin_ms = MARGIN // timedelta(milliseconds=1)
    until_ms = to_unix_ms(since) - margin_ms
    read: list[tuple[int, str, str]] = []
    lacks = common is not None and health.mark > common
    for index in range(newest.size - 1, -1, -1):
        shown = await signer.audit(index, size=newest.size)
        leaf = leaf_hash(shown.record)
        if not verify_inclusion(leaf, index, newest.size, shown.proof, newest.root):
            raise StoreUnusable(f"record {index} is not in the checkpoint of {newest.size} records")
        seq, at, kind, _, body = msgspec.json.decode(shown.record)
        if seq != index:
            raise StoreUnusable(f"record {index} calls itself {seq}")
        if at < until_ms and not lacks:
            break
        if lacks and kind == MARKED and _first_of(body) <= max(common or 0, 1):
            lacks, found.common_at = False, moment(at)
            until_ms = min(until_ms, at - margin_ms)
        read.append((index, kind, body))
        if len(read) > RECORDS_MAX:
            raise BadInput(f"the signer has more than {RECORDS_MAX} records since")
    for index, kind, body in reversed(read):
        _take(found, index, kind, body)
    return found


def _take(found: SignedSince, index: int, kind: str, body: str) -> None:
    match kind:
        case "signed":
            payment = msgspec.json.decode(body, type=SignedRecord)
            found.payments.setdefault(payment.intent.payout_id, []).append((index, payment))
        case "spent":
            found.spends.append((index, msgspec.json.decode(body, type=SpentRecord)))
        case "marked":
            for mark in msgspec.json.decode(body, type=list[Mark]):
                found.about.update(_about(mark))
        case "control":
            found.messages.append((index, msgspec.json.decode(body, type=ControlMessage)))
        case _:
            pass


def _first_of(body: str) -> int:
    return min((mark.number for mark in msgspec.json.decode(body, type=list[Mark])), default=0)


def _about(mark: Mark) -> Mapping[UUID, Any]:
    return {item.payout_id: item for item in mark.about}
