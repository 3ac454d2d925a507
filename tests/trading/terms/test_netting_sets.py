"""What nets with what: scope of agreements, offices, dates, and nothing without an agreement."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.errors import CausewayError
from tests.trading.conftest import NOW, wait_or_are_done
from trading.terms.agreements import (
    agreement_version,
    find_agreement,
    get_agreements,
    list_agreement_versions,
    list_agreements,
    netting_sets,
)
from trading.terms.model import Rail
from trading.terms.netting_model import NettingAgreement, NettingItem, Product, netting_set
from trading.terms.rails import settlement_rails
from trading.terms.testing import agree_netting

TODAY = NOW.date()
OFFICE = "causeway-desk"
SPOT = NettingAgreement(
    party="acme", name="spot", products=frozenset({Product.SPOT}), effective_from=TODAY
)


def item(number: int = 1, **changes: Any) -> NettingItem:
    """A leg of a deal of acme."""
    values: dict[str, Any] = {
        "id": UUID(int=number),
        "party": "acme",
        "office": OFFICE,
        "product": Product.SPOT,
        "asset": "ETH",
        "trade_date": TODAY - timedelta(days=1),
        "value_date": TODAY,
        "trade_id": UUID(int=100 + number),
        **changes,
    }
    return NettingItem(**values)


@pytest.mark.parametrize(
    ("story", "agreement", "of", "nets"),
    [
        ("covered", {}, {}, True),
        ("another product", {}, {"product": Product.OTHER}, False),
        ("another asset", {"assets": frozenset({"USDT"})}, {}, False),
        ("an asset that is named", {"assets": frozenset({"ETH"})}, {}, True),
        ("another office", {"offices": frozenset({"elsewhere"})}, {}, False),
        ("an office that is named", {"offices": frozenset({OFFICE})}, {}, True),
        ("it begins tomorrow", {"effective_from": TODAY + timedelta(days=1)}, {}, False),
        ("it ends today", {"ends_on": TODAY}, {}, True),
        (
            "it ended yesterday",
            {"effective_from": date(2025, 1, 1), "ends_on": TODAY - timedelta(days=1)},
            {},
            False,
        ),
        ("it is for trades from today on", {"trades_from": TODAY}, {}, False),
        ("it is for trades of yesterday too", {"trades_from": TODAY - timedelta(days=1)}, {}, True),
        ("another party", {"party": "birch"}, {}, False),
    ],
)
def test_an_obligation_nets_only_under_an_agreement_that_covers_it(
    story: str, agreement: dict[str, Any], of: dict[str, Any], nets: object
) -> None:
    found = netting_set(item(**of), [replace(SPOT, **agreement)], TODAY)

    assert found == (f"spot@{OFFICE}" if nets else f"trade:{UUID(int=101)}")


def test_two_offices_never_net_with_each_other() -> None:
    sets = {netting_set(item(office=office), [SPOT], TODAY) for office in ("one", "two")}

    assert len(sets) == 2


def test_without_an_agreement_only_what_belongs_to_one_trade_nets() -> None:
    trade = UUID(int=7)
    sets = [
        netting_set(item(number, trade_id=of), [], TODAY)
        for number, of in enumerate([trade, trade, UUID(int=8), None, None])
    ]

    assert sets[0] == sets[1]
    assert len(set(sets)) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Spot"},
        {"products": frozenset()},
        {"assets": frozenset(f"A{number}" for number in range(201))},
        {"ends_on": TODAY - timedelta(days=1)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_agreement_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CausewayError):
        replace(SPOT, **changes)


async def agreed(house: AsyncEngine, agreement: NettingAgreement, **changes: Any) -> int:
    return await transact(house, lambda conn: agree_netting(conn, agreement, now=NOW, **changes))


async def test_sets_are_told_for_many_parties_in_one_answer(house: AsyncEngine) -> None:
    await agreed(house, SPOT)
    items = [item(1), item(2), item(3, product=Product.OTHER), item(4, party="birch")]

    found = await transact(house, lambda conn: netting_sets(conn, items, on=TODAY))

    assert found[UUID(int=1)] == found[UUID(int=2)] == f"spot@{OFFICE}"
    assert found[UUID(int=3)] == f"trade:{UUID(int=103)}"
    assert found[UUID(int=4)] == f"trade:{UUID(int=104)}"


async def test_of_two_agreements_that_would_cover_the_same_the_second_is_refused(
    house: AsyncEngine,
) -> None:
    await agreed(house, SPOT)
    everything = NettingAgreement(party="acme", effective_from=TODAY)
    rest = replace(everything, name="rest", products=frozenset({Product.OTHER}))

    with pytest.raises(CausewayError, match=r"spot of acme covers some.*End or narrow spot"):
        await agreed(house, everything)
    assert await agreed(house, rest) == 1
    assert await agreed(house, replace(everything, party="birch")) == 1


async def test_of_two_at_once_that_would_cover_the_same_one_is_agreed(house: AsyncEngine) -> None:
    async def one(name: str) -> str:
        try:
            return str(await agreed(house, replace(SPOT, name=name)))
        except CausewayError as error:
            return type(error).__name__

    async with asyncio.TaskGroup() as group, house.begin() as conn:
        await agree_netting(conn, replace(SPOT, name="one"), now=NOW)
        second = group.create_task(one("two"))
        await wait_or_are_done(house, second)

    assert second.result() == "Refused"


async def test_an_agreement_is_ended_and_another_one_may_follow(house: AsyncEngine) -> None:
    await agreed(house, SPOT)
    last = TODAY + timedelta(days=9)
    assert await agreed(house, replace(SPOT, ends_on=last)) == 2
    after = replace(SPOT, name="next", effective_from=last + timedelta(days=1))
    assert await agreed(house, after) == 1

    async def sets(on: date) -> str:
        found = await transact(house, lambda conn: netting_sets(conn, [item()], on=on))
        return found[UUID(int=1)]

    assert await sets(last) == f"spot@{OFFICE}"
    assert await sets(last + timedelta(days=1)) == f"next@{OFFICE}"
    history = await transact(house, lambda conn: list_agreement_versions(conn, "acme", "spot"))
    assert [(found.agreement.version, found.agreement.ends_on) for found in history] == [
        (1, None),
        (2, last),
    ]


async def test_what_an_agreement_names_has_to_be_registered(house: AsyncEngine) -> None:
    nowhere = replace(SPOT, offices=frozenset({"nowhere"}))
    nothing = replace(SPOT, assets=frozenset({"XYZ"}))
    for agreement in (nowhere, nothing):
        with pytest.raises(CausewayError, match="is registered"):
            await agreed(house, agreement)


async def test_an_agreement_of_a_part_is_not_told_as_one_over_everything(
    house: AsyncEngine,
) -> None:
    """Whoever asks only for those would net what nobody agreed to net."""
    await agreed(house, SPOT)

    assert await transact(house, get_agreements) == {}
    assert await transact(house, lambda conn: find_agreement(conn, "acme")) is None
    assert await transact(house, lambda conn: agreement_version(conn, "acme", "spot")) == 1
    (found,) = await transact(house, list_agreements)
    assert (found.agreement, found.agreed_by, found.approved_by) == (SPOT, "ada", "ben")


async def test_a_party_may_be_prefunded_for_some_assets(house: AsyncEngine) -> None:
    await agreed(house, replace(SPOT, prefunded=True, assets=frozenset({"ETH"})))

    found = await transact(
        house,
        lambda conn: settlement_rails(conn, [("acme", "ETH"), ("acme", "USDT")], on=TODAY),
    )

    assert found == {("acme", "ETH"): Rail.BOOK, ("acme", "USDT"): Rail.EVM}


async def test_the_same_agreement_again_is_not_a_new_version(house: AsyncEngine) -> None:
    assert [await agreed(house, SPOT), await agreed(house, SPOT)] == [1, 1]


async def test_nobody_signs_alone(house: AsyncEngine) -> None:
    with pytest.raises(CausewayError, match="cannot approve what ada entered"):
        await agreed(house, SPOT, second="ada")
