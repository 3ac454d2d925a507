"""Payment files that a bank was given and the database does not know: taken in again from their bytes.

A file says which payouts it pays (EndToEndId is the payout's id), how much, to whom, and under which
reference. With the party on whose allow-list the payee stands, the id proves the claim and the reference.
The file, its lines and payouts are written as they were when the bank's door had taken it, so that the
statement which books them finds them; nothing is handed over again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from lxml import etree
from sqlalchemy.ext.asyncio import AsyncConnection

from banks.pain001 import NAMESPACE, SCHEMA
from banks.payee import Payee
from banks.safe_xml import BYTES_MAX, parse_xml, validate
from custody import payout_rows
from custody.allow_list import list_destinations
from custody.banks import payment_store
from custody.banks.payment_files import approval_bytes, require_approvers
from custody.banks.payment_model import (
    APPROVALS_MIN,
    OUT,
    UNRELEASED,
    FileApproval,
    FileState,
    LineState,
    PaymentFile,
    PaymentLine,
)
from custody.banks.payment_moves import FILE, move_file, move_lines
from custody.errors import NotPossible, UnknownRow
from custody.lost_payouts import claims_of
from custody.payout_model import BANK_NETWORK_ID, Payout, PayoutState
from custody.payout_postings import signed
from custody.restore import rebuilding, store
from custody.restore.model import WHAT_LENGTH_MAX, Item, ItemState, Restore, bank_files_of
from custody.restore.taking import note_sent_together
from custody.restore_gate import BY
from custody.restore_marks import About
from kernel.errors import BadInput, Refused
from kernel.events import DomainEvent, record
from ledger.model import Transfer
from ledger.posting import post, require_applied
from registry.model import BANK, BankAccount
from registry.queries import find_bank_account, get_asset, list_entities

PREFIX: Final = "CW"
"""How the message ids of our own files begin; a file's id follows."""
WALK: Final = (FileState.APPROVED, FileState.RELEASED, FileState.SUBMITTED)
UNSENT: Final = frozenset(
    {PayoutState.RESERVED, PayoutState.PENDING_APPROVAL, PayoutState.APPROVED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPayment:
    """One payment of a file."""

    payout_id: UUID
    amount: int
    payee: Payee
    remittance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile:
    """What a payment file of ours says."""

    id: UUID
    message_id: str
    created_at: datetime
    execution_date: date
    account: BankAccount
    payments: tuple[ReadPayment, ...]


async def bank_file_bytes(conn: AsyncConnection, raw: bytes) -> bytes:
    """Return what each of the two signs who say that a bank has this file: its approval, once more.

    Raises:
        BadInput: it is no payment file of ours.
    """
    file = await read_payment_file(conn, raw)
    return approval_bytes(_written(file, raw, book=0, now=file.created_at))


async def take_bank_file(
    conn: AsyncConnection, raw: bytes, *, signatures: Mapping[str, bytes], now: datetime
) -> Item:
    """Take in a payment file that a bank has; one that is known to be out changes nothing.

    One that stands here as never released is released as it was. What of it cannot be taken in is an item that two people settle, and nothing of the file is written.

    Args:
        signatures: Ed25519 over `bank_file_bytes`, by operator code: a file is out only if two people
            have approved it, and what they signed then is lost.

    Raises:
        NotPossible: no restore stands, or two people have dealt with the file by hand.
        BadInput: it is no payment file of ours.
        Refused: not two different approvers, or a signature is not theirs or not of this file.
    """
    standing = await store.require_standing(conn, lock=True)
    file = await read_payment_file(conn, raw)
    source = bank_files_of(file.account.code)
    known = await payment_store.find_file(conn, file.message_id, lock=True)
    if known is not None and known.state in OUT:
        return _item(standing, source, file, ItemState.NOTED, "is known", now)
    if await store.is_settled(conn, standing.id, source, file.message_id):
        raise NotPossible(
            f"two people have dealt with file {file.message_id} by hand: it is not taken in, too"
        )
    item = _item(standing, source, file, ItemState.RESTORED, "is taken in", now)
    try:
        async with conn.begin_nested():
            await store.save_item(conn, item)
            await _write(conn, file, raw, known, signatures, now=now)
    except (NotPossible, UnknownRow) as error:
        item = _item(standing, source, file, ItemState.UNRESOLVED, error.what, now)
        await store.save_item(conn, item)
        await note_sent_together(conn, item, [paid.payout_id for paid in file.payments])
    return item


async def read_payment_file(conn: AsyncConnection, raw: bytes) -> ReadFile:
    """Return what a payment file says, held against the schema and the registry.

    Raises:
        BadInput: it is none of ours.
    """
    if len(raw) > BYTES_MAX:
        raise BadInput(f"the file has {len(raw)} bytes, more than {BYTES_MAX}")
    root = parse_xml(raw)
    validate(root, SCHEMA)
    message_id = _text(root, "GrpHdr/MsgId")
    account = await find_bank_account(conn, _text(root, "PmtInf/DbtrAcct/Id/IBAN"))
    if account is None:
        raise BadInput(f"file {message_id} pays from no account of ours")
    asset = await get_asset(conn, account.asset)
    return ReadFile(
        id=_id(message_id.removeprefix(PREFIX)),
        message_id=message_id,
        created_at=datetime.fromisoformat(_text(root, "GrpHdr/CreDtTm")).astimezone(UTC),
        execution_date=date.fromisoformat(_text(root, "PmtInf/ReqdExctnDt/Dt")),
        account=account,
        payments=tuple(
            ReadPayment(
                payout_id=_id(_text(item, "PmtId/EndToEndId", of=item)),
                amount=asset.parse(_text(item, "Amt/InstdAmt", of=item)),
                payee=Payee.of(
                    _text(item, "CdtrAcct/Id/IBAN", of=item),
                    _optional(item, "CdtrAgt/FinInstnId/BICFI"),
                    _text(item, "Cdtr/Nm", of=item),
                ),
                remittance=_optional(item, "RmtInf/Ustrd"),
            )
            for item in root.iterfind(_path("CstmrCdtTrfInitn/PmtInf/CdtTrfTxInf"))
        ),
    )


async def _write(
    conn: AsyncConnection,
    file: ReadFile,
    raw: bytes,
    known: PaymentFile | None,
    signatures: Mapping[str, bytes],
    *,
    now: datetime,
) -> None:
    if known is not None:
        await _release_known(conn, known, raw, signatures, now=now)
        return
    books = {item.code: item.book for item in await list_entities(conn)}
    book, account = books[file.account.entity], file.account
    locked = await payout_rows.lock_many(conn, [item.payout_id for item in file.payments])
    lost: list[Payout] = []
    payouts: list[Payout] = []
    for payment in file.payments:
        payout = locked.get(payment.payout_id)
        if payout is None:
            found = await _find_lost(conn, payment, account, book=book)
            payout = await rebuilding.insert_lost(conn, found)
            lost.append(payout)
        elif payout.state not in UNSENT:
            raise NotPossible(f"payout {payout.id} is {payout.state} here, and a bank was given it")
        if (payout.destination, payout.amount) != (payment.payee.text, payment.amount):
            raise NotPossible(f"payout {payout.id} pays somebody else, or something else")
        payouts.append(payout)
    lines = [
        PaymentLine(
            file_id=file.id,
            number=number,
            payout_id=payment.payout_id,
            end_to_end=payment.payout_id.hex,
            amount=payment.amount,
            destination=payout.destination,
            state=LineState.WRITTEN,
        )
        for number, (payment, payout) in enumerate(zip(file.payments, payouts, strict=True), 1)
    ]
    written = _written(file, raw, book=book, now=now)
    approvals = await _require_signed(conn, written, signatures, now=now)
    await payment_store.insert_file(conn, written, lines)
    await record(conn, [_drafted(written)])
    await _release(conn, written, lines, payouts, approvals, lost=lost, now=now)


async def _release_known(
    conn: AsyncConnection,
    known: PaymentFile,
    raw: bytes,
    signatures: Mapping[str, bytes],
    *,
    now: datetime,
) -> None:
    """Release a file that stands here as drafted or approved, for the bank was given it."""
    lines = await payment_store.list_lines(conn, known.id)
    locked = await payout_rows.lock_many(conn, [item.payout_id for item in lines])
    payouts = [locked[item.payout_id] for item in lines]
    if known.state not in UNRELEASED or known.content != raw:
        raise NotPossible(f"file {known.message_id} stands as {known.state} here")
    if any(item.state is not PayoutState.ALLOCATED for item in payouts):
        raise NotPossible(f"a payment of file {known.message_id} is not allocated to it here")
    approvals = await _require_signed(conn, known, signatures, now=now)
    await _release(conn, known, lines, payouts, approvals, lost=[], now=now)


async def _require_signed(
    conn: AsyncConnection, file: PaymentFile, signatures: Mapping[str, bytes], *, now: datetime
) -> list[FileApproval]:
    approvals = [
        FileApproval(file_id=file.id, operator=code, signature=signature, at=now)
        for code, signature in sorted(signatures.items())
    ]
    people = await require_approvers(conn, file, approvals)
    if people < APPROVALS_MIN:
        raise Refused(
            f"{people} of {APPROVALS_MIN} people say that the bank has file {file.message_id}",
            remedy="Have another approver sign the same",
        )
    return approvals


async def _release(
    conn: AsyncConnection,
    file: PaymentFile,
    lines: Sequence[PaymentLine],
    payouts: Sequence[Payout],
    approvals: Sequence[FileApproval],
    *,
    lost: Sequence[Payout],
    now: datetime,
) -> None:
    """Post what the file's payouts have posted, and move everything to where the bank has it."""
    for approval in approvals:
        await payment_store.insert_approval(conn, approval)
    await rebuilding.open_accounts(conn, payouts, now)
    batch: list[Transfer] = await rebuilding.reserve_lost(conn, lost, now) if lost else []
    batch += [transfer for item in payouts for transfer in signed(item)]
    require_applied(await post(conn, file.book, batch, now=now))
    for payout in payouts:
        moved = payout
        if payout.state is not PayoutState.ALLOCATED:
            moved = await rebuilding.walk(conn, payout, PayoutState.ALLOCATED, now=now)
        await rebuilding.walk(conn, moved, PayoutState.SIGNED, now=now)
    await move_lines(conn, lines, LineState.RELEASED)
    for state in WALK[WALK.index(file.state) + 1 :] if file.state in WALK else WALK:
        more: dict[str, Any] = {"released_at": now} if state is FileState.RELEASED else {}
        file, event = await move_file(
            conn, file, state, by=BY, now=now, reason=rebuilding.WHY, **more
        )
        await record(conn, [event])


def _written(file: ReadFile, raw: bytes, *, book: int, now: datetime) -> PaymentFile:
    return PaymentFile(
        id=file.id,
        book=book,
        account=file.account.code,
        asset=file.account.asset,
        message_id=file.message_id,
        execution_date=file.execution_date,
        content=raw,
        sha256=sha256(raw).hexdigest(),
        line_count=len(file.payments),
        total=sum(item.amount for item in file.payments),
        state=FileState.DRAFTED,
        drafted_by=BY,
        drafted_at=now,
        submissions=1,
        waiting_for="",
        bank_status="",
        run_after=now,
        released_at=None,
        fence=0,
    )


async def _find_lost(
    conn: AsyncConnection, payment: ReadPayment, account: BankAccount, *, book: int
) -> Payout:
    """Return the payout that a payment made, requested after the restore's moment.

    Raises:
        UnknownRow: no party that may be paid there gives the id.
    """
    destination = payment.payee.text
    parties = {
        item.party
        for item in await list_destinations(conn)
        if item.chain == BANK and item.address == destination
    }
    for party in sorted(parties):
        for claim in claims_of(party):
            if rebuilding.is_id_of(
                payment.payout_id, book=book, claim=claim, client_ref=payment.remittance
            ):
                return _payout(payment, account, destination, claim, book=book)
    raise UnknownRow(
        f"nobody who may be paid at {payment.payee.iban} has asked for payout {payment.payout_id}"
        f" as {payment.remittance!r}"
    )


def _payout(
    payment: ReadPayment,
    account: BankAccount,
    destination: str,
    claim: str,
    *,
    book: int,
) -> Payout:
    about = About(
        payout_id=payment.payout_id,
        book=book,
        claim=claim,
        client_ref=payment.remittance,
        rail=BANK,
        asset=account.asset,
        amount=str(payment.amount),
        native_asset=account.asset,
        reason=rebuilding.WHY,
    )
    return rebuilding.lost_payout(
        payment.payout_id,
        about,
        chain=BANK,
        chain_id=BANK_NETWORK_ID,
        source_wallet=account.code,
        sender=account.iban,
        sender_path="",
        contract=None,
        chain_amount=payment.amount,
        destination=destination,
        requested_by=BY,
        policy_version=0,
        rule=0,
    )


def _item(
    standing: Restore, source: str, file: ReadFile, state: ItemState, why: str, now: datetime
) -> Item:
    total = sum(item.amount for item in file.payments)
    what = f"file of {len(file.payments)} payments, {total} of {file.account.asset}: {why}"
    return Item(
        restore_id=standing.id,
        source=source,
        key=file.message_id,
        state=state,
        what=what[:WHAT_LENGTH_MAX],
        found_at=now,
    )


def _drafted(file: PaymentFile) -> DomainEvent:
    return DomainEvent(
        entity_type=FILE,
        entity_id=file.id,
        version=1,
        name="PaymentFileDrafted",
        at=file.drafted_at,
        actor=BY,
        reason=rebuilding.WHY,
        to_state=file.state,
        payload={"account": file.account, "sha256": file.sha256, "restored": True},
    )


def _id(text: str) -> UUID:
    try:
        return UUID(hex=text)
    except ValueError as error:
        raise BadInput(f"{text!r} is no id of ours: the file is another's") from error


def _path(path: str) -> str:
    return "/".join(f"{{{NAMESPACE}}}{name}" for name in path.split("/"))


def _optional(element: etree._Element, path: str) -> str:
    return element.findtext(_path(path)) or ""


def _text(root: etree._Element, path: str, *, of: etree._Element | None = None) -> str:
    found = (
        root.findtext(_path(f"CstmrCdtTrfInitn/{path}")) if of is None else of.findtext(_path(path))
    )
    if not found:
        raise BadInput(f"the file has no {path}")
    return found
