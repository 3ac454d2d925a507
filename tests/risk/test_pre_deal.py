"""Deals against the limits of their party: everything open counts, and two at once see each other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import Refused
from kernel.ids import derive_id
from kernel.money import Price
from ledger.accounts import ensure_accounts
from ledger.model import Transfer, chain, hold, transfer
from ledger.posting import post, require_applied
from ledger.testing import enforce_lock_order
from marketdata.price_model import PriceKind
from marketdata.prices import record_price
from registry.testing import ETH, USDT
from risk.deal_limits import OpenAmounts, after_deal, judge_deal
from risk.errors import LimitExceeded, NotValued
from risk.model import EVERY, Amount, PartyLimits, ProposedDeal
from risk.pre_deal import check_deals, open_amounts
from risk.valuation import CREDIT_AGE_MAX
from risk.worth import Worth
from tests.risk.conftest import BOOK, NOW, eth_at, limit_party

WORTH = Worth("USDT", {"ETH": Price.parse("3000", ETH, USDT)})


def eth(text: str) -> Amount:
    return "ETH", ETH.parse(text)


def usdt(text: str) -> Amount:
    return "USDT", USDT.parse(text)


def sale(
    reference: str = "d", units: str = "1", party: str = "acme", **changes: Any
) -> ProposedDeal:
    """The desk sells ETH at 3,000: the party owes USDT, we owe ETH."""
    values: dict[str, Any] = {
        "party": party,
        "desk": "otc",
        "receives": usdt(str(3000 * int(units))),
        "pays": eth(units),
        "reference": reference,
    }
    return ProposedDeal(**(values | changes))


async def booked(engine: AsyncEngine, items: Sequence[ProposedDeal]) -> list[Refused | None]:
    """Check deals and post what passes in one transaction, as booking does."""

    async def work(conn: AsyncConnection) -> list[Refused | None]:
        answers = await check_deals(conn, BOOK, items, now=NOW)
        lines = [
            line
            for item, answer in zip(items, answers, strict=True)
            if answer is None
            for line in _chain(item)
        ]
        keys = {(path, line.asset) for line in lines for path in (line.debit, line.credit)}
        await ensure_accounts(conn, BOOK, keys, now=NOW)
        require_applied(await post(conn, BOOK, lines, now=NOW))
        return answers

    return await transact(engine, work)


def _chain(item: ProposedDeal) -> tuple[Transfer, ...]:
    legs = (
        (f"receivable:{item.party}:open", "conversion:otc", item.receives),
        ("conversion:otc", f"payable:{item.party}:open", item.pays),
    )
    return chain(
        *(
            transfer(
                derive_id(NOW, "test", item.reference, number),
                debit,
                credit,
                units,
                asset,
                code="deal.booked",
                reference=item.reference,
            )
            for number, (debit, credit, (asset, units)) in enumerate(legs)
        )
    )


def passed(answers: Sequence[Refused | None]) -> list[bool]:
    return [answer is None for answer in answers]


async def test_a_party_without_limits_is_not_limited_and_nobody_waits_for_it(
    house: AsyncEngine,
) -> None:
    await limit_party(house, "birch", exposure_units=0)

    assert passed(await booked(house, [sale("a", "1000"), sale("b", party="birch")])) == [
        True,
        False,
    ]


async def test_receivables_and_payables_are_added_and_the_batch_counts_itself(
    house: AsyncEngine,
) -> None:
    """One ETH at 3,000 opens 6,000: 3,000 owed to us, one ETH owed by us."""
    await limit_party(house, exposure_units=USDT.parse("18000"))

    with enforce_lock_order(house):
        answers = await booked(house, [sale("a"), sale("b"), sale("c", "2"), sale("d"), sale("e")])

    assert passed(answers) == [True, True, False, True, False]
    refusal = answers[2]
    assert isinstance(refusal, LimitExceeded)
    assert refusal.what == ("deal c would take the exposure to acme to 24,000 USDT of 18,000 USDT")
    assert refusal.where == "limits of acme, version 1"


@pytest.mark.parametrize(
    ("limits", "parties"),
    [
        ({"exposure_units": USDT.parse("30000")}, ("acme",)),
        ({"settlement_units": USDT.parse("15000")}, ("acme",)),
        ({"exposure_units": USDT.parse("30000"), "party": EVERY}, ("acme",)),
        ({"exposure_units": USDT.parse("30000"), "party": EVERY}, ("acme", "birch")),
    ],
)
async def test_of_ten_deals_at_once_exactly_as_many_are_booked_as_the_limit_lets(
    house: AsyncEngine, limits: dict[str, Any], parties: tuple[str, ...]
) -> None:
    await limit_party(house, **limits)

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                # Every other one has the parties the other way round, which must not deadlock.
                booked(house, [sale(f"d{n}-{p}", party=p) for p in parties[:: 1 if n % 2 else -1]])
            )
            for n in range(10)
        ]

    answers = [answer for task in tasks for answer in task.result()]
    assert sum(passed(answers)) == 5 * len(parties)
    async with house.connect() as conn:
        for amounts in (await open_amounts(conn, BOOK, parties)).values():
            assert amounts == OpenAmounts(dict([usdt("15000")]), dict([eth("5")]))


async def test_limits_that_are_set_meanwhile_hold_for_the_next_and_wait_for_this(
    house: AsyncEngine,
) -> None:
    """Whoever sets limits waits for what is being booked under the old ones."""
    await limit_party(house, exposure_units=USDT.parse("6000"))
    order: list[str] = []
    holding = asyncio.Event()

    async def book(conn: AsyncConnection) -> None:
        assert passed(await check_deals(conn, BOOK, [sale("a")], now=NOW)) == [True]
        holding.set()
        await asyncio.sleep(0.05)
        order.append("booked")

    async def lower() -> None:
        await holding.wait()
        await limit_party(house, version=2, exposure_units=0)
        order.append("lowered")

    async with asyncio.TaskGroup() as group:
        group.create_task(transact(house, book))
        group.create_task(lower())

    assert order == ["booked", "lowered"]
    assert passed(await booked(house, [sale("b")])) == [False]


async def test_pending_amounts_count_and_what_is_reserved_to_leave_has_not_left(
    house: AsyncEngine,
) -> None:
    lines = [
        ("receivable:acme:open", "conversion:otc", usdt("100"), False),
        ("receivable:acme:netted", "conversion:otc", usdt("20"), True),
        ("bank:main", "receivable:acme:open", usdt("70"), True),
        ("conversion:otc", "payable:acme:netted", eth("2"), False),
        ("payable:acme:netted", "in-flight:evm", eth("1"), True),
        ("custody:hot", "payable:acme:unapplied", usdt("3"), False),
    ]
    transfers = [
        (partial(hold, purpose="test") if is_pending else transfer)(
            derive_id(NOW, "open", number), debit, credit, units, asset, code="test", reference="r"
        )
        for number, (debit, credit, (asset, units), is_pending) in enumerate(lines)
    ]

    async def work(conn: AsyncConnection) -> None:
        keys = {(path, line.asset) for line in transfers for path in (line.debit, line.credit)}
        await ensure_accounts(conn, BOOK, keys, now=NOW)
        require_applied(await post(conn, BOOK, transfers, now=NOW))

    await transact(house, work)

    async with house.connect() as conn:
        found = await open_amounts(conn, BOOK, ["acme", "birch"])
    assert found == {
        "acme": OpenAmounts(dict([usdt("120")]), dict([eth("2"), usdt("3")])),
        "birch": OpenAmounts({}, {}),
    }


async def test_a_deal_is_judged_by_an_older_price_where_none_is_fresh_and_by_none_that_is_too_old(
    house: AsyncEngine,
) -> None:
    await limit_party(house, exposure_units=USDT.parse("18000"))

    async def judged(deal: ProposedDeal, after: timedelta) -> Refused | None:
        later = NOW + after
        (answer,) = await transact(house, lambda conn: check_deals(conn, BOOK, [deal], now=later))
        return answer

    assert await judged(sale(), CREDIT_AGE_MAX) is None
    assert isinstance(await judged(sale(units="4"), CREDIT_AGE_MAX), LimitExceeded)
    stale = await judged(sale(), CREDIT_AGE_MAX + timedelta(seconds=1))
    assert isinstance(stale, NotValued)
    assert str(stale).startswith("no recorded price of ETH in USDT is fresh enough")

    # A price of a minute ago at a lower rung is better than an older one at a higher.
    at = NOW + timedelta(minutes=5)
    mid = replace(eth_at("6000", at), kind=PriceKind.VENUE_MID)
    await transact(house, lambda conn: record_price(conn, mid, now=at))
    assert isinstance(await judged(sale(units="3"), timedelta(minutes=5)), LimitExceeded)


def test_an_amendment_is_judged_without_the_deal_that_it_replaces() -> None:
    limits = PartyLimits(party="acme", currency="USDT", exposure_units=USDT.parse("60000"))
    before = after_deal(OpenAmounts(), sale("a", "10", fee=usdt("300")))
    assert judge_deal(limits, OpenAmounts(), sale("a", "10", fee=usdt("300")), WORTH) is not None

    smaller = sale("b", "10", replaces=sale("a", "10", fee=usdt("300")))
    assert judge_deal(limits, before, smaller, WORTH) is None
    assert after_deal(before, smaller) == OpenAmounts(
        {"USDT": USDT.parse("30000")}, {"ETH": ETH.parse("10")}
    )
    # Another party's deal leaves nothing with this one.
    others = sale("b", "10", replaces=sale("a", "10", party="birch"))
    assert judge_deal(limits, before, others, WORTH) is not None


def test_a_deal_that_leaves_no_more_open_passes_though_the_limit_is_passed_already() -> None:
    limits = PartyLimits(party="acme", currency="USDT", exposure_units=0)
    before = after_deal(OpenAmounts(), sale("a", "10"))

    assert judge_deal(limits, before, sale("b", "9", replaces=sale("a", "10")), WORTH) is None
    assert judge_deal(limits, before, sale("b", "10", replaces=sale("a", "10")), WORTH) is None
    assert judge_deal(limits, before, sale("b", "11", replaces=sale("a", "10")), WORTH) is not None


def test_an_amendment_that_opens_no_more_passes_where_nothing_has_a_price() -> None:
    limits = PartyLimits(party="acme", currency="USDT", exposure_units=USDT.parse("60000"))
    before, unpriced = after_deal(OpenAmounts(), sale("a", "10")), Worth("USDT", {})

    assert judge_deal(limits, before, sale("b", "9", replaces=sale("a", "10")), unpriced) is None
    more = judge_deal(limits, before, sale("b", "11", replaces=sale("a", "10")), unpriced)
    assert isinstance(more, NotValued)


def test_amounts_are_valued_against_us() -> None:
    third = Worth("USDT", {"ETH": Price.of(1, 3, ETH, USDT)})
    limits = PartyLimits(party="acme", currency="USDT", exposure_units=0)
    speck = sale(receives=("ETH", 1), pays=("USDT", 0))

    assert judge_deal(limits, OpenAmounts(), speck, third) is not None


DEALS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), max_size=12)


@given(st.integers(0, 40), st.integers(0, 40), DEALS)
def test_whatever_is_asked_what_passes_never_exceeds_either_limit(
    exposure: int, settlement: int, asked: list[tuple[int, int]]
) -> None:
    worth = Worth("USDT", {"ETH": Price.of(2, 3, ETH, USDT)})
    limits = PartyLimits(
        party="acme", currency="USDT", exposure_units=exposure, settlement_units=settlement
    )
    amounts = OpenAmounts()
    for receives, fee in asked:
        item = sale(receives=("USDT", receives), pays=("ETH", receives), fee=("ETH", fee))
        then = after_deal(amounts, item)
        fits = then.exposure(worth) <= exposure and then.owed_to_us(worth) <= settlement

        assert (judge_deal(limits, amounts, item, worth) is None) == fits
        amounts = then if fits else amounts
    assert amounts.exposure(worth) <= exposure
    assert amounts.owed_to_us(worth) <= settlement
