"""When and how a deal settles: calendars of its assets, value dates, rails and instructions."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput, CausewayError, Refused
from kernel.money import Asset
from registry.calendars import (
    CALENDARS_VERSION,
    TENOR_DAYS_MAX,
    Calendar,
    KeptCalendar,
    is_joint_business_day,
)
from registry.holiday_model import Holidays
from registry.kept_calendars import calendar_bytes, take_over
from registry.queries import get_operator
from registry.testing import ETH, USDT, operator_keypair
from tests.trading.conftest import NOW
from trading.terms.model import (
    DEFAULT_TERMS,
    Agreement,
    Rail,
    Settlement,
    SettlementQuestion,
    SettlementTarget,
)
from trading.terms.resolution import resolve_settlement, resolve_settlements
from trading.terms.testing import call_back, set_agreement, set_standing_instruction
from trading.terms.value_dates import calendars_of, describe_calendars, find_value_date

HOME = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
ELSEWHERE = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
TODAY = NOW.date()
IN_TIME, LATE = "2026-11-20T15:59:59Z", "2026-11-20T16:00:00Z"
USD, EUR, GBP, BTC = Asset("USD", 2), Asset("EUR", 2), Asset("GBP", 2), Asset("BTC", 8)


def asked(
    traded: date | str = TODAY,
    value: date | str | None = None,
    *,
    tenor: int = 0,
    pair: tuple[Asset, Asset] = (ETH, USDT),
    party: str = "acme",
    at: str | None = None,
) -> SettlementQuestion:
    """A deal of acme in ETH for USDT, unless changed."""
    return SettlementQuestion(
        party=party,
        base=pair[0],
        quote=pair[1],
        trade_date=date.fromisoformat(traded) if isinstance(traded, str) else traded,
        value_date=date.fromisoformat(value) if isinstance(value, str) else value,
        terms=replace(DEFAULT_TERMS, party=party, tenor_days=tenor),
        agreed_at=None if at is None else datetime.fromisoformat(at),
    )


@pytest.mark.parametrize(
    ("pair", "calendars", "described"),
    [
        (("ETH", "USDT"), {Calendar.ALWAYS}, "always"),
        (("BTC", "USD"), {Calendar.ALWAYS, Calendar.FEDWIRE}, "fedwire"),
        (("EUR", "USDC"), {Calendar.ALWAYS, Calendar.TARGET}, "target"),
        (("EUR", "USD"), {Calendar.TARGET, Calendar.FEDWIRE}, "fedwire+target"),
        (("GBP", "USD"), {Calendar.WEEKDAYS, Calendar.FEDWIRE}, "fedwire+weekdays"),
    ],
    ids=lambda value: "/".join(value) if isinstance(value, tuple) else "",
)
def test_a_deal_settles_by_the_calendars_of_both_assets(
    pair: tuple[str, str], calendars: set[Calendar], described: str
) -> None:
    assert calendars_of(*pair) == calendars
    assert describe_calendars(calendars) == f"{CALENDARS_VERSION}:{described}"


@pytest.mark.parametrize(
    ("story", "question", "expected"),
    [
        ("coins move on a Sunday", asked("2026-11-22"), "2026-11-22"),
        ("dollars do not", asked("2026-11-22", pair=(BTC, USD)), "2026-11-23"),
        ("two days on", asked("2026-11-25", tenor=2, pair=(BTC, USD)), "2026-11-30"),
        ("as agreed", asked("2026-11-20", "2026-11-24", pair=(BTC, USD)), "2026-11-24"),
        ("euros in time", asked("2026-11-20", pair=(EUR, USDT), at=IN_TIME), "2026-11-20"),
        ("euros too late", asked("2026-11-20", pair=(EUR, USDT), at=LATE), "2026-11-23"),
        (
            "euros of tomorrow",
            asked("2026-11-19", tenor=1, pair=(EUR, USDT), at=LATE),
            "2026-11-23",
        ),
        ("coins are never late", asked("2026-11-20", at=LATE), "2026-11-20"),
        ("as agreed, not as the terms", asked("2026-11-20", "2026-11-20", tenor=2), "2026-11-20"),
        ("the last day that is no forward", asked("2026-01-05", "2026-02-04"), "2026-02-04"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_value_date_is(story: str, question: SettlementQuestion, expected: str) -> None:
    assert find_value_date(question).isoformat() == expected


@pytest.mark.parametrize(
    ("story", "question", "kind", "because"),
    [
        (
            "on a Saturday",
            asked("2026-11-20", "2026-11-21", pair=(BTC, USD)),
            Refused,
            "2026-11-21 is no business day of BTC and USD .* next one is 2026-11-23",
        ),
        (
            "where one of two is closed",
            asked("2026-03-30", "2026-04-03", pair=(EUR, USD)),
            Refused,
            "fedwire.target.* next one is 2026-04-07",
        ),
        (
            "after the cut-off",
            asked("2026-11-20", "2026-11-20", pair=(EUR, USDT), at=LATE),
            Refused,
            "no payment in EUR and USDT has value on 2026-11-20 any more.*is 2026-11-23",
        ),
        (
            "a forward",
            asked("2026-01-05", "2026-02-05"),
            Refused,
            "2026-02-05 is a forward.* last day possible is 2026-02-04",
        ),
        (
            "a typed year, on a Saturday",
            asked("2026-11-20", "2062-11-25", pair=(BTC, USD)),
            Refused,
            "2062-11-25 is a forward.* last day possible is 2027-01-06",
        ),
        (
            "before the deal",
            asked("2026-11-20", "2026-11-19"),
            BadInput,
            "before the deal of 2026-11-20.* first day possible is 2026-11-20",
        ),
        (
            "before a deal of a Sunday",
            asked("2026-11-22", "2026-11-20", pair=(BTC, USD)),
            BadInput,
            "first day possible is 2026-11-23",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_a_value_date_is_refused_and_the_next_possible_one_is_named(
    story: str, question: SettlementQuestion, kind: type[CausewayError], because: str
) -> None:
    with pytest.raises(kind, match=because):
        find_value_date(question)


@given(
    st.dates(date(2020, 1, 1), date(2060, 1, 1)),
    st.integers(0, TENOR_DAYS_MAX),
    st.sampled_from([(BTC, USDT), (BTC, USD), (EUR, USDT), (EUR, USD)]),
)
def test_what_the_terms_say_could_have_been_agreed(
    traded: date, tenor: int, pair: tuple[Asset, Asset]
) -> None:
    question = asked(traded, tenor=tenor, pair=pair)
    found = find_value_date(question)

    assert found >= traded + timedelta(days=tenor)
    assert is_joint_business_day(calendars_of(pair[0].code, pair[1].code), found)
    assert find_value_date(replace(question, value_date=found)) == found


async def resolved(house: AsyncEngine, *questions: SettlementQuestion) -> list[object]:
    return list(await transact(house, lambda conn: resolve_settlements(conn, questions)))


async def test_a_party_of_whom_nothing_is_known_settles_on_chain_to_nowhere_yet(
    house: AsyncEngine,
) -> None:
    assert await resolved(house, asked()) == [
        Settlement(
            value_date=TODAY,
            calendars=f"{CALENDARS_VERSION}:always",
            instructions=(
                SettlementTarget(asset="ETH", rail=Rail.EVM, version=None),
                SettlementTarget(asset="USDT", rail=Rail.EVM, version=None),
            ),
        )
    ]


async def test_a_deal_keeps_the_version_that_was_in_force_when_it_was_made(
    house: AsyncEngine,
) -> None:
    async def versions(on: date) -> list[int | None]:
        (answer,) = await resolved(house, asked(on))
        assert isinstance(answer, Settlement)
        return [target.version for target in answer.instructions]

    await transact(house, lambda c: set_standing_instruction(c, "acme", "ETH", HOME, now=NOW))
    await transact(
        house,
        lambda c: set_standing_instruction(c, "acme", "ETH", ELSEWHERE, version=2, now=NOW),
    )
    assert await versions(TODAY + timedelta(days=5)) == [1, None]
    await transact(house, lambda c: call_back(c, "acme", "ETH", 2, now=NOW))

    assert await versions(TODAY + timedelta(days=1)) == [1, None]
    assert await versions(TODAY + timedelta(days=2)) == [2, None]


async def test_a_party_that_is_prefunded_on_the_value_date_settles_by_book(
    house: AsyncEngine,
) -> None:
    start = TODAY + timedelta(days=3)
    agreement = Agreement(party="birch", effective_from=start, prefunded=True)
    await transact(house, lambda conn: set_agreement(conn, agreement, now=NOW))

    before, after = await resolved(
        house,
        asked(TODAY, start - timedelta(days=1), party="birch"),
        asked(TODAY, start, party="birch"),
    )

    assert isinstance(before, Settlement)
    assert isinstance(after, Settlement)
    assert {target.rail for target in before.instructions} == {Rail.EVM}
    assert {target.rail for target in after.instructions} == {Rail.BOOK}


async def test_what_is_refused_is_the_answer_to_its_own_question(house: AsyncEngine) -> None:
    good, bad = asked(), asked(TODAY, TODAY - timedelta(days=1))
    one, two, three = await resolved(house, good, bad, good)

    assert isinstance(one, Settlement)
    assert isinstance(two, BadInput)
    assert three == one
    with pytest.raises(BadInput, match="before the deal"):
        await transact(
            house,
            lambda conn: resolve_settlement(
                conn,
                party=bad.party,
                base=bad.base,
                quote=bad.quote,
                trade_date=bad.trade_date,
                value_date=bad.value_date,
                terms=bad.terms,
            ),
        )


async def test_however_many_deals_are_asked_about_a_few_statements_answer(
    house: AsyncEngine,
) -> None:
    sent: list[str] = []

    def note(*arguments: object) -> None:
        sent.append(str(arguments[2]))

    async with house.connect() as conn:
        event.listen(house.sync_engine, "before_cursor_execute", note)
        try:
            await resolve_settlements(
                conn, [asked(party=party) for party in ("acme", "birch") for _ in range(50)]
            )
            assert await resolve_settlements(conn, []) == []
        finally:
            event.remove(house.sync_engine, "before_cursor_execute", note)

    assert len(sent) == 4


async def test_holidays_that_were_taken_over_move_value_dates_and_are_told_by_version(
    house: AsyncEngine,
) -> None:
    monday = date(2026, 8, 31)
    question = asked(date(2026, 8, 28), tenor=1, pair=(GBP, USDT))
    (before,) = await resolved(house, question)
    await transact(house, lambda conn: take_british_holidays(conn, {monday: "Bank holiday"}))
    (after,) = await resolved(house, question)
    (agreed,) = await resolved(house, replace(question, value_date=monday))

    assert isinstance(before, Settlement)
    assert isinstance(after, Settlement)
    assert (before.value_date, before.calendars) == (monday, f"{CALENDARS_VERSION}:weekdays")
    assert after.value_date == monday + timedelta(days=1)
    assert after.calendars == f"{CALENDARS_VERSION}:gb@1"
    assert isinstance(agreed, Refused)


async def take_british_holidays(conn: AsyncConnection, names: dict[date, str]) -> None:
    calendar = KeptCalendar(
        code="gb",
        version=1,
        first_day=date(2026, 1, 1),
        last_day=date(2027, 12, 31),
        closed=frozenset(names),
    )
    taken = Holidays(calendar, names, "a list")
    await take_over(
        conn,
        taken,
        by=await get_operator(conn, "ada"),
        approver=await get_operator(conn, "ben"),
        signature=operator_keypair("ben").sign(calendar_bytes(taken, version=1)),
        now=NOW,
    )
