"""A payout through a bank, from its request to the entry of a statement."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, time, timedelta
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from banks.safe_xml import parse_xml, validate
from custody.allow_list import revocation_bytes, revoke_destination
from custody.banks.payment_files import (
    approval_bytes,
    approve_file,
    count_available,
    discard_file,
    draft_file,
    execution_day,
)
from custody.banks.payment_model import FileState, LineState, PaymentFile
from custody.control_messages import ScopeKind
from custody.freeze_model import Scope, freeze_bytes
from custody.freezes import close, derive_freeze_id
from custody.payout_model import Payout, PayoutState
from custody.payouts import cancel_payout, expire_payouts, explain
from custody.testing import allow, propose
from kernel.errors import BadInput, Refused
from kernel.events import list_history
from kernel.ids import derive_id, stable_id
from ledger.model import transfer
from ledger.posting import post, require_applied
from ledger.queries import list_open_holds
from registry.kept_calendars import cutoff_bytes, set_cutoff
from registry.model import BANK
from registry.queries import get_operator
from registry.rail_cutoffs_model import RailCutoff
from registry.testing import change, operator_keypair
from reporting.holds import payout_holds
from tests.custody.banks.pay_world import (
    ACME,
    BIRCH,
    BOOK,
    CLIENTS,
    HOUSE,
    World,
    entry,
)


async def test_a_payout_goes_from_request_to_the_booked_entry(world: World) -> None:
    payout = await world.approved()
    assert (payout.rail, payout.chain, payout.chain_id, payout.sender) == (
        *(BANK, BANK, 0, CLIENTS.iban),
    )
    assert (await world.books())["client:acme"] == (500_000, 10_050, 0)

    file = await world.drafted()
    assert (file.state, file.line_count, file.total) == (FileState.DRAFTED, 1, 10_050)
    assert file.sha256 == sha256(file.content).hexdigest()
    validate(parse_xml(file.content), "pain.001.001.09.xsd")
    assert (await world.get(payout)).state is PayoutState.ALLOCATED
    assert world.door.copies == []

    assert (await world.sign_file(file.id, "ben")).state is FileState.DRAFTED
    assert (await world.sign_file(file.id, "cleo")).state is FileState.APPROVED
    done = await world.advance()
    assert (done.released, done.submitted) == ([file.id], [file.id])
    assert world.door.copies == [(f"{file.message_id}.xml", file.content)]
    assert (await world.get(payout)).state is PayoutState.SIGNED
    books = await world.books()
    assert books["client:acme"] == (489_950, 0, 0)
    assert books["in-flight:bank"] == (10_050, 0, 0)
    assert books["bank:client-eur"] == (500_000, 0, 0)

    assert len(await world.book(entry(payout, -10_050))) == 1
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    books = await world.books()
    assert "in-flight:bank" not in books
    assert books["bank:client-eur"] == (489_950, 0, 0)
    assert (await world.file(file.id)).state is FileState.CLOSED
    names = [
        event.name for event in await world.run(lambda c: list_history(c, "payout", payout.id))
    ]
    assert names[-3:] == ["PayoutAllocated", "PayoutSigned", "PayoutConfirmed"]
    story = await world.run(lambda conn: explain(conn, payout.id))
    assert [item.code for item in story.postings] == [
        *("payout.reserved", "payout.signed", "payout.booked"),
    ]


async def test_what_is_held_for_a_bank_payment_is_what_its_state_says(world: World) -> None:
    payout = await world.approved()
    assert await _held(world, payout) == [(payout.id, 10_050)]
    await world.signed_file()
    assert await _held(world, payout) == [(payout.id, 10_050)]
    await world.advance()
    assert await _held(world, payout) == []


async def _held(world: World, payout: Payout) -> list[tuple[object, int]]:
    """What is on hold, which is what reporting expects of the payout as it stands."""
    found = await world.run(lambda conn: list_open_holds(conn, BOOK))
    held: list[tuple[object, int]] = [(item.correlation, item.amount) for item in found]
    expected = payout_holds(await world.get(payout))
    assert held == [(item.correlation, item.amount) for item in expected]
    return held


async def test_many_payouts_of_an_account_are_one_file_each_account_its_own(world: World) -> None:
    for number in range(3):
        await world.approved(client_ref=f"w-{number}", amount=100 + number)
    await world.owed(amount=5_000)
    drafted = (await world.advance()).drafted
    files = [await world.file(file_id) for file_id in drafted]
    assert [(f.account, f.line_count, f.total) for f in files] == [
        (CLIENTS.code, 3, 303),
        (HOUSE.code, 1, 5_000),
    ]
    assert (await world.advance()).drafted == []


@pytest.mark.parametrize(
    ("now", "zone", "local", "day"),
    [
        # TARGET pays until 17:00 in Frankfurt; a bank may have agreed to less, or to more.
        ("2026-01-05T16:30:00Z", "", "", "2026-01-06"),
        ("2026-01-05T10:59:59Z", "Europe/Berlin", "12:00", "2026-01-05"),
        ("2026-01-05T11:00:00Z", "Europe/Berlin", "12:00", "2026-01-06"),
        ("2026-07-06T10:00:00Z", "Europe/Berlin", "12:00", "2026-07-07"),
        ("2026-01-05T16:30:00Z", "Europe/Berlin", "18:00", "2026-01-05"),
        # A Friday evening goes over the weekend, the day before a holiday over the holiday.
        ("2026-01-09T16:30:00Z", "Europe/Berlin", "12:00", "2026-01-12"),
        ("2025-12-31T16:30:00Z", "Europe/Berlin", "12:00", "2026-01-02"),
        # The days on which the clocks change are Sundays.
        ("2026-03-28T12:00:00Z", "Europe/Berlin", "12:00", "2026-03-30"),
        # Which day it is, is said where the cut-off is.
        ("2026-01-07T01:00:00Z", "America/Los_Angeles", "20:00", "2026-01-06"),
        ("2026-01-06T15:30:00Z", "Asia/Tokyo", "09:00", "2026-01-07"),
    ],
)
def test_a_file_says_the_first_day_that_the_cut_off_still_allows(
    now: str, zone: str, local: str, day: str
) -> None:
    cutoff = None
    if zone:
        wall = time.fromisoformat(local)
        cutoff = RailCutoff(asset="EUR", rail=BANK, local=wall, zone=zone)
    moment = datetime.fromisoformat(now)
    assert execution_day("EUR", moment, cutoff) == date.fromisoformat(day)


async def test_a_cut_off_that_two_people_have_set_decides_the_day_of_a_file(world: World) -> None:
    early = RailCutoff(asset="EUR", rail=BANK, local=time(9, 30), zone="Europe/Berlin")

    async def agree(conn: AsyncConnection) -> None:
        await set_cutoff(
            conn,
            early,
            by=await get_operator(conn, "ada"),
            approver=await get_operator(conn, "ben"),
            signature=operator_keypair("ben").sign(cutoff_bytes(early)),
            now=world.now,
        )

    await world.run(agree)
    await world.approved()
    await world.advance(drafts=False)  # it is screened

    async def draft(conn: AsyncConnection, day: date | None) -> PaymentFile | None:
        return await draft_file(
            *(conn, CLIENTS.code), book=BOOK, by="ada", now=world.now, execution_date=day
        )

    with pytest.raises(Refused, match="pays nothing before 2026-01-06 any more"):
        await world.run(lambda conn: draft(conn, date(2026, 1, 5)))
    file = await world.run(lambda conn: draft(conn, None))
    assert file is not None
    assert file.execution_date == date(2026, 1, 6)


async def test_what_the_sum_of_a_file_has_no_room_for_goes_into_the_next(world: World) -> None:
    half = 10**17 * 6
    fund = transfer(
        derive_id(world.now, "much"),
        *("bank:client-eur", "client:acme", 2 * half, "EUR"),
        code="test.opening",
    )
    posted = await world.run(lambda conn: post(conn, BOOK, [fund], now=world.now))
    require_applied(posted)
    for number in range(2):
        await world.approved(client_ref=f"w-{number}", amount=half)
    assert (await world.drafted()).total == half
    assert (await world.drafted()).total == half


async def test_a_file_waits_until_the_oldest_of_its_payouts_is_old_enough(world: World) -> None:
    await world.approved()
    patient = {"gather": timedelta(minutes=5)}
    assert (await world.advance(**patient)).drafted == []
    world.clock.advance(timedelta(minutes=5))
    assert len((await world.advance(**patient)).drafted) == 1


NOT_PAID: tuple[tuple[dict[str, Any], str], ...] = (
    ({"source_wallet": HOUSE.code}, "is owned by house and cannot pay a client"),
    ({"claim": "payable:birch:netted", "destination": BIRCH}, "is owned by client and cannot"),
    ({"claim": "own:house-hot"}, "a bank pays others"),
    ({"asset": "USDT"}, "is in EUR, and USDT"),
    ({"destination": BIRCH}, "is not an allowed destination of acme"),
    ({"destination": ACME.replace("Acme", "Acne")}, "is not an allowed destination"),
    ({"destination": f"{HOUSE.iban}||Us"}, "is our own account"),
    ({"destination": "GB82WEST12345698765433|WESTGB22|Acme GmbH"}, "is not an IBAN"),
    ({"source_wallet": "house-hot"}, "there is no bank account"),
    ({"source_address": HOUSE.iban}, "has one number"),
    ({"rail": ""}, "there is no wallet"),
)


async def test_what_may_not_be_paid_is_refused_and_nothing_is_reserved(world: World) -> None:
    before = await world.books()
    for changes, says in NOT_PAID:
        with pytest.raises((Refused, BadInput), match=says):
            await world.request(**changes)
    assert await world.books() == before


async def test_an_account_of_another_entity_pays_nothing_in_this_book(world: World) -> None:
    with pytest.raises(Refused, match="whose book is 1, not 2"):
        await world.request(book=2)


async def test_a_reference_again_is_the_same_payout_however_its_payee_is_typed(
    world: World,
) -> None:
    first = await world.request()
    again = await world.request(destination=ACME.lower().replace("acme gmbh", "Acme  GmbH"))
    assert again.id == first.id
    with pytest.raises(Refused, match="another amount"):
        await world.request(amount=1)


async def test_a_closed_account_pays_nothing_more(world: World) -> None:
    file = await _approved_file(world)
    closed = replace(CLIENTS, active=False)
    await world.run(lambda conn: change(conn, closed, now=world.now))
    with pytest.raises(Refused, match="nothing is paid from bank account client-eur any more"):
        await world.request(client_ref="w-2")
    waiting = (await world.advance()).waiting
    assert "nothing is paid from bank account" in waiting[file.message_id]
    assert world.door.copies == []


async def _approved_file(world: World) -> PaymentFile:
    await world.approved()
    return await world.signed_file()


async def test_more_than_the_account_has_waits_and_the_rest_goes(world: World) -> None:
    big = await world.owed(amount=90_000)
    world.clock.advance(timedelta(seconds=1))
    more = await world.approved(client_ref="w-9", amount=450_000)
    drafted = [await world.file(item) for item in (await world.advance()).drafted]
    assert sorted(item.total for item in drafted) == [90_000, 450_000]
    assert {(await world.get(p)).state for p in (big, more)} == {PayoutState.ALLOCATED}


async def test_what_files_will_take_is_not_free_any_more(world: World) -> None:
    await world.owed(amount=60_000)
    await world.drafted()
    free = await world.run(lambda conn: count_available(conn, BOOK, [HOUSE, CLIENTS]))
    assert free == {HOUSE.code: 40_000, CLIENTS.code: 500_000}


async def test_a_payout_that_the_account_does_not_cover_says_so(world: World) -> None:
    await world.owed(amount=60_000)
    await world.drafted()
    # The desk owes less than it has, so the account is emptied by another payment of it.
    other = await world.owed(client_ref="s-2", amount=30_000)
    await world.run(lambda conn: _spend(conn, 20_000))
    assert (await world.advance()).drafted == []
    assert (await world.get(other)).waiting_for == (
        "bank:house-eur has 20000 EUR (smallest units) free"
    )


async def _spend(conn: AsyncConnection, amount: int) -> None:
    spent = transfer(
        stable_id("spent"), "equity:capital", "bank:house-eur", amount, "EUR", code="test.spent"
    )
    require_applied(await post(conn, BOOK, [spent]))


# People.


async def test_two_people_approve_a_file_and_neither_asked_for_its_payments(world: World) -> None:
    await world.approved(requested_by="ada")
    file = await world.drafted()
    with pytest.raises(Refused, match="asked for one of its payments"):
        await world.sign_file(file.id, "ada")
    with pytest.raises(Refused, match="is not approver or treasurer"):
        await world.sign_file(file.id, "dan")
    await world.sign_file(file.id, "ben")
    with pytest.raises(Refused, match="has approved payment file"):
        await world.sign_file(file.id, "ben")
    assert (await world.advance()).released == []
    assert world.door.copies == []


async def test_who_had_a_file_made_does_not_approve_it(world: World) -> None:
    await world.approved()
    await world.advance(drafts=False)
    file = await world.run(
        lambda conn: draft_file(conn, CLIENTS.code, book=BOOK, by="cleo", now=world.now)
    )
    assert file is not None
    with pytest.raises(Refused, match="had payment file"):
        await world.sign_file(file.id, "cleo")


async def test_a_signature_of_other_bytes_counts_for_nothing(world: World) -> None:
    await world.approved()
    file = await world.drafted()
    other = approval_bytes(replace(file, sha256="0" * 64))

    async def work(conn: AsyncConnection) -> None:
        ben = await get_operator(conn, "ben")
        signature = operator_keypair("ben").sign(other)
        await approve_file(conn, file.id, by=ben, signature=signature, now=world.now)

    with pytest.raises(Refused, match="signature is not ben's, or not of this"):
        await world.run(work)


async def test_the_approval_of_somebody_revoked_since_does_not_release_a_file(
    world: World,
) -> None:
    file = await _approved_file(world)
    async with world.engine.connect() as conn:
        cleo = await get_operator(conn, "cleo")
    await world.run(lambda conn: change(conn, replace(cleo, active=False), now=world.now))
    assert "cleo is not active" in (await world.advance()).waiting[file.message_id]
    assert world.door.copies == []


async def test_the_database_releases_no_file_without_two_people(world: World) -> None:
    await world.approved()
    file = await world.drafted()
    await world.sign_file(file.id, "ben")

    async def force(conn: AsyncConnection) -> None:
        for statement in (
            "UPDATE custody.payment_file SET state = 'approved'",
            "UPDATE custody.payment_file SET state = 'released', released_at = now()",
        ):
            await conn.execute(text(statement))

    with pytest.raises(DBAPIError, match="two people approve a payment file"):
        await world.run(force)


async def test_a_process_may_not_write_what_was_approved(world: World) -> None:
    await world.approved()
    await world.drafted()
    for column in ("content", "sha256", "total", "message_id", "account"):
        statement = text(f"UPDATE custody.payment_file SET {column} = {column}")  # noqa: S608  names of the line above
        with pytest.raises(DBAPIError, match="permission denied"):
            async with world.engine.connect() as conn:
                await conn.execute(statement)


# Before it is out.


async def test_a_discarded_file_lets_its_payouts_into_another_with_the_same_ids(
    world: World,
) -> None:
    payout = await world.approved()
    first = await world.signed_file()

    async def end(conn: AsyncConnection) -> PaymentFile:
        dan = await get_operator(conn, "dan")
        return await discard_file(conn, first.id, by=dan, reason="wrong day", now=world.now)

    assert (await world.run(end)).state is FileState.DISCARDED
    second = await world.signed_file()
    lines = [(await world.lines(file.id))[0] for file in (first, second)]
    assert [line.state for line in lines] == [LineState.DISCARDED, LineState.WRITTEN]
    assert lines[0].end_to_end == lines[1].end_to_end == payout.id.hex
    await world.advance()
    assert [name for name, _ in world.door.copies] == [second.name]
    with pytest.raises(Refused, match="the bank may have it"):
        await world.run(lambda conn: _discard(conn, world, second))


async def _discard(conn: AsyncConnection, world: World, file: PaymentFile) -> PaymentFile:
    dan = await get_operator(conn, "dan")
    return await discard_file(conn, file.id, by=dan, reason="too late", now=world.now)


async def test_the_database_lets_no_payout_into_two_files(world: World) -> None:
    await world.approved()
    file = await world.drafted()
    copy = text(
        "INSERT INTO custody.payment_line SELECT file_id, 2, payout_id, 'x', amount, destination,"
        " 'written', '', '', NULL, NULL FROM custody.payment_line"
    )
    with pytest.raises(DBAPIError, match="uq_payment_line_payout"):
        await world.run(lambda conn: conn.execute(copy))
    assert len(await world.lines(file.id)) == 1


async def test_a_payout_in_a_file_is_cancelled_by_nobody_and_one_in_none_is(world: World) -> None:
    inside = await world.approved()
    await world.drafted()
    outside = await world.approved(client_ref="w-2")

    async def cancel(conn: AsyncConnection, which: Any) -> Any:
        dan = await get_operator(conn, "dan")
        return await cancel_payout(conn, which.id, by=dan, reason="no", book=BOOK, now=world.now)

    with pytest.raises(Refused, match="is allocated and cannot be cancelled"):
        await world.run(lambda conn: cancel(conn, inside))
    assert (await world.run(lambda conn: cancel(conn, outside))).state is PayoutState.CANCELLED
    assert (await world.books())["client:acme"] == (500_000, 10_050, 0)


@pytest.mark.parametrize("approved", [False, True])
async def test_a_file_whose_payments_lapse_is_discarded_and_they_are_given_back(
    world: World, *, approved: bool
) -> None:
    payout = await world.approved(expires_at=world.now + timedelta(hours=1))
    file = await (world.signed_file() if approved else world.drafted())
    world.clock.advance(timedelta(hours=2))
    assert (await world.advance()).discarded == [file.id]
    await world.run(lambda conn: expire_payouts(conn, book=BOOK, now=world.now))
    assert (await world.get(payout)).state is PayoutState.EXPIRED
    assert (await world.books())["client:acme"] == (500_000, 0, 0)
    assert world.door.copies == []


@pytest.mark.parametrize(
    "scope",
    [
        Scope(ScopeKind.CHAIN, BANK),
        Scope(ScopeKind.WALLET, CLIENTS.code),
        Scope(ScopeKind.ASSET, "EUR"),
        Scope(ScopeKind.CLIENT, "acme"),
        Scope(ScopeKind.GLOBAL, ""),
    ],
)
async def test_a_freeze_stops_a_bank_payment_at_each_door(world: World, scope: Scope) -> None:
    file = await _approved_file(world)
    signature = operator_keypair("ben").sign(
        freeze_bytes(derive_freeze_id(scope, world.now), scope, "fraud")
    )
    await world.run(
        lambda c: close(c, scope, by="ben", signature=signature, reason="fraud", now=world.now)
    )
    with pytest.raises(Refused, match="frozen"):
        await world.request(client_ref="w-2")
    assert "frozen" in (await world.advance()).waiting[file.message_id]
    assert world.door.copies == []
    assert (await world.file(file.id)).state is FileState.APPROVED


async def test_a_payee_taken_off_the_list_stops_a_file_that_was_approved(world: World) -> None:
    payout = await world.approved()
    file = await world.signed_file()
    assert payout.destination_id is not None
    gone = payout.destination_id
    signature = operator_keypair("ben").sign(revocation_bytes(gone))
    await world.run(
        lambda conn: revoke_destination(
            conn, gone, by="ben", signature=signature, reason="not theirs", now=world.now
        )
    )
    assert "is not an allowed destination" in (await world.advance()).waiting[file.message_id]
    assert world.door.copies == []


# The allow-list.


async def test_a_known_account_under_another_name_has_to_be_acknowledged(world: World) -> None:
    fraud = ACME.replace("Acme GmbH", "Mallory Ltd")
    with pytest.raises(Refused, match="begins and ends like"):
        await world.run(lambda c: propose(c, "acme", fraud, now=world.now, chain=BANK))
    await world.run(
        lambda c: propose(c, "acme", fraud, now=world.now, chain=BANK, acknowledged=(ACME,))
    )


async def test_our_own_account_is_nobodys_destination(world: World) -> None:
    with pytest.raises(Refused, match="is our own account house-eur"):
        await world.run(
            lambda c: allow(c, "acme", f"{HOUSE.iban}||Acme", now=world.now, chain=BANK)
        )


async def test_the_history_of_a_payee_names_neither_number_nor_name(world: World) -> None:
    payout = await world.request()
    destination = payout.destination_id
    assert destination is not None
    told = await world.run(lambda c: list_history(c, "allowed_destination", destination))
    told += await world.run(lambda c: list_history(c, "payout", payout.id))
    words = str([event.payload for event in told])
    assert "GB82...5432" in words
    assert "Acme" not in words and "WEST1234" not in words  # noqa: PT018  one claim
