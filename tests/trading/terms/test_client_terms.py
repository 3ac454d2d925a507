"""Terms of dealing: two people, versions, which one holds on a day, which spread fits a deal."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import constraint_name, sqlstate, transact
from kernel.errors import BadInput, CausewayError
from kernel.events import list_history
from kernel.ids import stable_id
from registry.queries import get_operator
from registry.testing import operator_keypair
from tests.trading.conftest import NOW
from trading.terms.client_terms import (
    holding_on,
    list_terms,
    set_terms,
    terms_bytes,
    terms_of,
    terms_of_many,
)
from trading.terms.model import (
    ANY,
    DEFAULT_TERMS,
    HALF_SPREAD_PPM_MAX,
    ClientTerms,
    LastLook,
    SpreadRule,
)
from trading.terms.spreads import spread_for
from trading.terms.testing import give_terms

TODAY = NOW.date()
DAY = timedelta(days=1)
ANYTHING = SpreadRule(base=ANY, quote=ANY, half_spread_ppm=1_000)
FIRST = ClientTerms(
    party="acme",
    version=1,
    effective_from=TODAY,
    tenor_days=1,
    fee_ppm=500,
    spreads=(ANYTHING, SpreadRule(base="ETH", quote="USDT", from_units=10**40, half_spread_ppm=1)),
    quote_seconds=15,
    last_look=LastLook(window_ms=300, tolerance_ppm=200),
    off_market_ppm=30_000,
    desk="otc",
)
SECOND = replace(FIRST, version=2, tenor_days=2)


async def given_to_acme(house: AsyncEngine, terms: ClientTerms = FIRST, **changes: Any) -> int:
    """Let dan enter them and ada sign them, unless changed."""
    by, approver = changes.get("by", "dan"), changes.get("approver", "ada")
    payload = terms_bytes(changes.get("signed", terms))
    async with house.begin() as conn:
        return await set_terms(
            conn,
            terms,
            by=await get_operator(conn, by),
            approver=await get_operator(conn, approver),
            signature=operator_keypair(approver).sign(payload),
            now=NOW,
        )


async def test_a_party_without_terms_has_those_of_the_house(house: AsyncEngine) -> None:
    found = await transact(house, lambda conn: terms_of(conn, "acme", on=TODAY))

    assert found == replace(DEFAULT_TERMS, party="acme")
    assert await transact(house, list_terms) == []


async def test_terms_are_read_as_they_were_written(house: AsyncEngine) -> None:
    assert await given_to_acme(house) == 1

    assert await transact(house, lambda conn: terms_of(conn, "acme", on=TODAY)) == FIRST
    async with house.connect() as conn:
        (event,) = await list_history(conn, "client-terms", stable_id("client-terms", "acme"))
    assert (event.actor, event.reason) == ("dan", "approved by ada")
    assert event.payload["terms_version"] == 1
    assert event.payload["spreads"][1]["from_units"] == str(10**40)


@pytest.mark.parametrize(
    ("story", "terms", "changes", "because"),
    [
        ("one person", FIRST, {"by": "ada"}, "cannot approve what ada entered"),
        ("signed by a dealer", FIRST, {"approver": "dan", "by": "ada"}, "is not treasurer or"),
        ("entered by an approver", FIRST, {"by": "cleo"}, "cleo is not dealer or treasurer"),
        ("other terms signed", FIRST, {"signed": SECOND}, "not ada's, or not of this"),
        ("a version left out", SECOND, {}, "version 2 of the terms of acme is not the next"),
        ("in the past", replace(FIRST, effective_from=TODAY - DAY), {}, "possible is 2026-01-05"),
        ("a stranger", replace(FIRST, party="nobody"), {}, "nobody"),
        ("no desk", replace(FIRST, desk=""), {}, "'' is no name of a desk"),
        ("no such desk's account", replace(FIRST, desk="otc/eu"), {}, "'otc/eu' is no name of"),
        (
            "an unknown asset",
            replace(FIRST, spreads=(ANYTHING, replace(ANYTHING, base="DOGE"))),
            {},
            "no asset 'DOGE' is registered",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 25 else "",
)
async def test_terms_are_refused(
    house: AsyncEngine, story: str, terms: ClientTerms, changes: dict[str, str], because: str
) -> None:
    with pytest.raises(CausewayError, match=because):
        await given_to_acme(house, terms, **changes)

    assert await transact(house, list_terms) == []


async def test_an_old_signature_does_not_bring_old_terms_back(house: AsyncEngine) -> None:
    """Whoever kept ada's signature of version 1 can only say it again, or be refused."""
    await given_to_acme(house)
    assert await given_to_acme(house) == 1
    assert await given_to_acme(house, SECOND) == 2

    with pytest.raises(CausewayError, match="version 1 of the terms of acme is not the next"):
        await given_to_acme(house, FIRST)
    with pytest.raises(CausewayError, match="not ada's, or not of this"):
        await given_to_acme(house, replace(FIRST, version=3), signed=FIRST)
    assert [item.version for item in await transact(house, list_terms)] == [1, 2]


async def test_of_two_changes_at_once_one_is_a_version(house: AsyncEngine) -> None:
    async def one(tenor: int) -> str:
        try:
            return str(await given_to_acme(house, replace(FIRST, tenor_days=tenor)))
        except CausewayError as error:
            return type(error).__name__

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(tenor)) for tenor in (3, 4)]

    assert {task.result() for task in tasks} == {"1", "TermsChanged"}


async def test_many_parties_and_days_are_answered_at_once(house: AsyncEngine) -> None:
    await transact(house, lambda conn: give_terms(conn, "acme", now=NOW, tenor_days=1))
    later = await transact(
        house,
        lambda conn: give_terms(conn, "acme", now=NOW, tenor_days=2, effective_from=TODAY + DAY),
    )
    asked = [("acme", TODAY - DAY), ("acme", TODAY), ("acme", TODAY + DAY), ("birch", TODAY)]

    found = await transact(house, lambda conn: terms_of_many(conn, asked))

    assert [found[key].tenor_days for key in asked] == [0, 1, 2, 0]
    assert found["acme", TODAY + DAY] == later
    assert found["birch", TODAY] == replace(DEFAULT_TERMS, party="birch")
    assert await transact(house, lambda conn: terms_of_many(conn, [])) == {}


def test_a_newer_version_that_begins_earlier_takes_the_place_of_one_that_was_to_come() -> None:
    versions = [
        FIRST,
        replace(FIRST, version=2, effective_from=TODAY + 5 * DAY),
        replace(FIRST, version=3, effective_from=TODAY + 2 * DAY),
    ]

    held = [holding_on(versions, TODAY + n * DAY) for n in range(-1, 7)]
    assert [item.version if item else 0 for item in held] == [0, 1, 1, 3, 3, 3, 3, 3]


async def test_the_database_refuses_to_rewrite_terms(house: AsyncEngine) -> None:
    await given_to_acme(house)
    for statement, refused in (
        ("UPDATE trading.client_terms SET fee_ppm = 0", "42501"),
        ("DELETE FROM trading.client_terms", "42501"),
        (COPIED.format("approved_by", "entered_by"), "ck_client_terms_two_people"),
        (COPIED.format("last_look_ppm", "NULL"), "ck_client_terms_last_look"),
        (COPIED.format("quote_seconds", "0"), "ck_client_terms_figures"),
    ):

        async def work(conn: AsyncConnection, statement: str = statement) -> None:
            await conn.execute(text(statement))

        with pytest.raises(DBAPIError) as caught:
            await transact(house, work)
        assert refused in {sqlstate(caught.value), constraint_name(caught.value)}


COPIED = (
    "INSERT INTO trading.client_terms SELECT (jsonb_populate_record(t, jsonb_build_object("
    "'version', 2, '{0}', {1}))).* FROM trading.client_terms t"
)


RULES = (
    ANYTHING,
    SpreadRule(base=ANY, quote="USDC", half_spread_ppm=900),
    SpreadRule(base="BTC", quote=ANY, half_spread_ppm=800),
    SpreadRule(base="BTC", quote=ANY, from_units=500, half_spread_ppm=700),
    SpreadRule(base="BTC", quote="USDT", from_units=10, half_spread_ppm=600),
    SpreadRule(base="BTC", quote="USDT", from_units=100, half_spread_ppm=400),
)


@pytest.mark.parametrize(
    ("base", "quote", "units", "expected"),
    [
        ("ETH", "USDT", 1, 1_000),
        ("ETH", "USDC", 10**30, 900),
        ("BTC", "USDC", 1, 800),
        ("BTC", "USDC", 500, 700),
        ("BTC", "USDT", 9, 800),
        ("BTC", "USDT", 10, 600),
        ("BTC", "USDT", 99, 600),
        ("BTC", "USDT", 100, 400),
        # A rule that names the pair wins over a larger size of one that does not.
        ("BTC", "USDT", 10**9, 400),
    ],
)
def test_the_rule_that_names_most_wins_then_the_largest_size(
    base: str, quote: str, units: int, expected: int
) -> None:
    assert spread_for(replace(FIRST, spreads=RULES), base, quote, units) == expected
    assert spread_for(replace(FIRST, spreads=RULES[::-1]), base, quote, units) == expected


CODES = st.sampled_from([ANY, "BTC", "ETH", "USDT"])
SPREADS = st.lists(
    st.tuples(CODES, CODES, st.integers(0, 20), st.integers(0, 5_000)),
    max_size=8,
    unique_by=lambda rule: (rule[0], rule[1], rule[2] if rule[0] != ANY else 0),
)


@given(SPREADS, st.sampled_from(["BTC", "ETH"]), st.integers(1, 30))
def test_every_deal_has_a_spread_and_it_is_of_a_rule_that_fits(
    rules: list[tuple[str, str, int, int]], base: str, units: int
) -> None:
    made = [
        SpreadRule(base=b, quote=q, from_units=0 if b == ANY else size, half_spread_ppm=ppm)
        for b, q, size, ppm in rules
        if (b, q) != (ANY, ANY)
    ]
    terms = replace(FIRST, spreads=(ANYTHING, *made))

    fitting = {
        rule.half_spread_ppm
        for rule in terms.spreads
        if rule.base in {ANY, base} and rule.quote in {ANY, "USDT"} and rule.from_units <= units
    }
    assert spread_for(terms, base, "USDT", units) in fitting


@pytest.mark.parametrize(
    ("story", "changes"),
    [
        ("a forward", {"tenor_days": 31}),
        ("settled before it is made", {"tenor_days": -1}),
        ("all of it a fee", {"fee_ppm": 1_000_000}),
        ("a quote of no time", {"quote_seconds": 0}),
        ("a quote of an hour", {"quote_seconds": 3_600}),
        ("no market", {"off_market_ppm": 1_000_000}),
        ("nothing for other pairs", {"spreads": RULES[1:]}),
        ("two for the same", {"spreads": (ANYTHING, ANYTHING)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_terms_that_cannot_be(story: str, changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        replace(FIRST, **changes)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (LastLook, {"window_ms": 0, "tolerance_ppm": 1}),
        (LastLook, {"window_ms": 60_000, "tolerance_ppm": 1}),
        (LastLook, {"window_ms": 100, "tolerance_ppm": -1}),
        (SpreadRule, {"base": "BTC", "quote": ANY, "half_spread_ppm": -1}),
        (SpreadRule, {"base": "BTC", "quote": ANY, "half_spread_ppm": HALF_SPREAD_PPM_MAX + 1}),
        (SpreadRule, {"base": "BTC", "quote": ANY, "from_units": -1, "half_spread_ppm": 1}),
        (SpreadRule, {"base": ANY, "quote": "USDT", "from_units": 1, "half_spread_ppm": 1}),
    ],
    ids=str,
)
def test_parts_of_terms_that_cannot_be(kind: type, values: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        kind(**values)


@pytest.mark.parametrize(
    "changes",
    [
        {"party": "birch"},
        {"version": 2},
        {"effective_from": date(2026, 1, 6)},
        {"tenor_days": 3},
        {"fee_ppm": 501},
        {"spreads": (ANYTHING,)},
        {"quote_seconds": 16},
        {"last_look": None},
        {"last_look": LastLook(window_ms=300, tolerance_ppm=201)},
        {"off_market_ppm": 1},
        {"desk": "prop"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_differs_is_signed(changes: dict[str, Any]) -> None:
    assert terms_bytes(replace(FIRST, **changes)) != terms_bytes(FIRST)
