"""The books against a bank's statements, on real rows: what differs, who takes it on, how it ends."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.errors import Refused
from kernel.events import list_history
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import chain, transfer
from ledger.posting import post, require_applied
from registry.errors import SamePerson
from registry.queries import get_operator
from registry.testing import operator_keypair
from reporting.recon.breaks import (
    ENTITY,
    age_days,
    assign,
    list_breaks,
    resolution_bytes,
    resolve,
)
from reporting.recon.comparing import age
from reporting.recon.model import Break, BreakKind, BreakState, Found, PlaceKind, Result, Run
from reporting.recon.runs import reconcile_daily, reconcile_house, verify_run
from reporting.recon.store import insert_breaks
from tests.custody.banks.bank_house import BOOK, BankHouse

DESK = "bank:desk-eur"


@pytest.fixture
async def house(engine: AsyncEngine) -> BankHouse:
    made = await BankHouse(engine).open()
    made.credit(1_000_00)
    (statement,) = made.end_of_day()
    await made.take_in(statement)
    return made


async def run(house: BankHouse) -> Run:
    return await house.do(lambda conn: reconcile_house(conn, BOOK, now=house.now))


async def standing(house: BankHouse, *states: BreakState) -> list[Break]:
    asked = states or (BreakState.OPEN, BreakState.ASSIGNED)
    return await house.do(lambda conn: list_breaks(conn, BOOK, states=asked))


async def miscount(house: BankHouse, units: int) -> None:
    """Post into the bank account what no statement says."""
    house.clock.advance(timedelta(minutes=1))

    async def work(conn: AsyncConnection) -> None:
        keys = {(DESK, "EUR"), ("equity:capital", "EUR")}
        await ensure_accounts(conn, BOOK, keys, now=house.now)
        key = derive_id(house.now, "miscount")
        wrong = transfer(key, DESK, "equity:capital", units, "EUR", code="test.miscount")
        require_applied(await post(conn, BOOK, chain(wrong), now=house.now))

    await house.do(work)


async def sign(house: BankHouse, item: Break, by: str = "cleo", second: str = "ada") -> Break:
    reason = "the bank corrects it tomorrow"

    async def work(conn: AsyncConnection) -> Break:
        return await resolve(
            conn,
            item.id,
            reason=reason,
            by=await get_operator(conn, by),
            second=await get_operator(conn, second),
            signature=operator_keypair(second).sign(resolution_bytes(item, reason)),
            now=house.now,
        )

    return await house.do(work)


async def test_what_a_statement_says_is_what_the_books_say(house: BankHouse) -> None:
    made = await run(house)

    (line,) = (item for item in made.lines if item.place == "desk-eur")
    assert (made.result, line.books, line.outside, line.difference) == (
        Result.CLEAN,
        100_000,
        100_000,
        0,
    )
    assert await house.do(lambda conn: verify_run(conn, made.id))


async def test_a_difference_is_one_break_from_its_first_run_to_the_last(house: BankHouse) -> None:
    await miscount(house, 25)
    first = await run(house)
    house.clock.advance(timedelta(days=1))
    second = await run(house)

    (found,) = await standing(house)
    assert (first.result, second.result) == (Result.DIFFERENT, Result.DIFFERENT)
    assert (found.found.kind, found.found.amount) == (BreakKind.DIFFERENCE, -25)
    assert found.opened_at < found.seen_at
    # Opened on a Monday evening: Friday is its fourth business day.
    assert age_days(found, date(2026, 1, 9)) == 4
    assert age_days(found, date(2026, 1, 12)) == 5


async def test_it_is_assigned_resolved_by_two_and_opens_again_at_another_figure(
    house: BankHouse,
) -> None:
    await miscount(house, 25)
    await run(house)
    (found,) = await standing(house)

    async def give(conn: AsyncConnection) -> Break:
        ada = await get_operator(conn, "ada")
        return await assign(conn, found.id, to="cleo", by=ada, now=house.now)

    assert (await house.do(give)).assigned_to == "cleo"
    with pytest.raises(SamePerson):
        await sign(house, found, second="cleo")
    resolved = await sign(house, found)
    quiet = await run(house)
    again = await standing(house)
    with pytest.raises(Refused, match="is resolved"):
        await sign(house, found)
    await miscount(house, 5)
    await run(house)
    (reopened,) = await standing(house)

    assert (resolved.state, resolved.resolved_by) == (BreakState.RESOLVED, ("cleo", "ada"))
    # The run says what it finds, whoever knows about it; only nobody has to work on it.
    assert (quiet.result, again) == (Result.DIFFERENT, [])
    assert (reopened.id, reopened.found.amount) == (found.id, -30)
    history = await house.do(lambda conn: list_history(conn, ENTITY, found.id))
    assert [event.name for event in history] == [
        "BreakFound",
        "BreakAssigned",
        "BreakResolved",
        "BreakReopened",
    ]


async def test_a_break_is_over_when_it_is_not_found_any_more(house: BankHouse) -> None:
    await miscount(house, 25)
    await run(house)
    house.bank.execute(
        {"verb": "credit", "account": "DE89370400440532013000", "amount": 25, "end_to_end": "fix"}
        | {"iban": "DE75512108001245126199", "name": "Acme"}
    )
    house.clock.advance(timedelta(days=1))
    (statement,) = house.end_of_day()
    # The bank has it now, and so have the books: twice. Somebody takes the wrong one back.
    await house.take_in(statement)

    async def take_back(conn: AsyncConnection) -> None:
        key = derive_id(house.now, "take back")
        right = transfer(key, "equity:capital", DESK, 25, "EUR", code="test.miscount")
        require_applied(await post(conn, BOOK, chain(right), now=house.now))

    await house.do(take_back)
    after = await run(house)

    assert after.result is Result.CLEAN
    assert await standing(house) == []
    (over,) = await standing(house, BreakState.CLEARED)
    assert over.cleared_at == house.now


async def test_a_missing_statement_leaves_the_account_unknown_and_is_a_break_itself(
    house: BankHouse,
) -> None:
    house.credit(1)
    house.end_of_day()
    house.credit(2)
    (third,) = house.end_of_day()
    await house.take_in(third)

    made = await run(house)

    found = await standing(house)
    assert {item.found.kind for item in found} == {BreakKind.GAP, BreakKind.UNKNOWN}
    assert made.result is Result.DIFFERENT


async def test_what_nobody_outside_speaks_about_is_not_taken_for_right(house: BankHouse) -> None:
    async def lose(conn: AsyncConnection) -> None:
        keys = {("custody:house-hot", "ETH"), ("equity:capital", "ETH")}
        await ensure_accounts(conn, BOOK, keys, now=house.now)
        key = derive_id(house.now, "coins")
        held = transfer(key, "custody:house-hot", "equity:capital", 5, "ETH", code="test.opening")
        require_applied(await post(conn, BOOK, chain(held), now=house.now))

    await house.do(lose)

    assert (await run(house)).result is Result.UNKNOWN
    (found,) = await standing(house)
    assert (found.found.kind, found.found.place) == (BreakKind.UNKNOWN, "house-hot")


async def test_a_day_has_one_run_of_its_own_whoever_makes_it(house: BankHouse) -> None:
    early = house.now.replace(hour=5)
    too_early = await house.do(lambda conn: reconcile_daily(conn, BOOK, now=early))
    first = await house.do(lambda conn: reconcile_daily(conn, BOOK, now=house.now))
    second = await house.do(lambda conn: reconcile_daily(conn, BOOK, now=house.now))
    house.clock.advance(timedelta(days=1))
    third = await house.do(lambda conn: reconcile_daily(conn, BOOK, now=house.now))

    assert too_early is None
    assert first is not None
    assert second is None
    assert third is not None
    assert first.slot != third.slot


async def test_however_many_breaks_a_run_finds_they_are_written(house: BankHouse) -> None:
    made = await run(house)
    many = [
        Found(
            key=f"chain/evm/hot/ETH/{number}",
            kind=BreakKind.ITEM,
            place_kind=PlaceKind.CHAIN,
            place="hot",
            asset="ETH",
            amount=10**30 + number,
            text=f"address {number}",
        )
        for number in range(2_500)
    ]
    aged = age([], many, book=BOOK, run_id=made.id, now=house.now)

    written = await house.do(lambda conn: insert_breaks(conn, aged.new, made.id))
    again = await house.do(lambda conn: insert_breaks(conn, aged.new, made.id))

    assert written == {item.id for item in aged.new}
    assert again == set()
    assert (await standing(house))[0].found.amount is not None
