"""Settlement limits: what a party may owe while we pay, gross and net, by two people."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput, CausewayError
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from registry.queries import get_operator
from registry.testing import operator_keypair
from risk.errors import LimitsChanged
from risk.model import EVERY
from risk.settlement_limit_model import Bound, Owed, SettlementLimit, judge
from risk.settlement_limits import (
    judge_settlement,
    list_settlement_limits,
    set_settlement_limit,
    settlement_limit_bytes,
    usage,
)
from tests.risk.conftest import BOOK, NOW

LIMIT = SettlementLimit(party="acme", asset="USDT", gross_units=100, net_units=40)


@pytest.mark.parametrize(
    ("story", "gross", "net", "bound"),
    [
        ("nothing is owed", 0, 0, None),
        ("just as much as may be", 100, 40, None),
        ("a unit more, gross", 101, 40, Bound.GROSS),
        ("a unit more, net", 100, 41, Bound.NET),
        ("both: gross is told", 101, 41, Bound.GROSS),
    ],
)
def test_a_limit_is_exceeded_by_the_unit(
    story: str, gross: int, net: int, bound: Bound | None
) -> None:
    found = judge(LIMIT, "acme", "USDT", Owed(gross=gross, net=net))

    assert (None if found is None else found.bound) is bound


def test_a_limit_that_limits_nothing_is_none() -> None:
    with pytest.raises(BadInput, match="limits nothing"):
        SettlementLimit(party="acme", asset="USDT")
    with pytest.raises(BadInput, match="negative"):
        SettlementLimit(party="acme", asset="USDT", net_units=-1)


async def limited(house: AsyncEngine, limit: SettlementLimit = LIMIT, **changes: Any) -> None:
    """Let ada enter it and ben sign it, unless changed."""
    second, signed = changes.pop("second", "ben"), changes.pop("signed", limit)
    reason = "agreed by the risk committee"

    async def work(conn: AsyncConnection) -> None:
        await set_settlement_limit(
            conn,
            limit,
            by=await get_operator(conn, "ada"),
            approver=await get_operator(conn, second),
            signature=operator_keypair(second).sign(settlement_limit_bytes(signed, reason)),
            reason=reason,
            now=NOW,
        )

    await transact(house, work)


async def books(house: AsyncEngine, *lines: tuple[str, str, int], salt: int = 0) -> None:
    """Post debit, credit and amount in USDT."""

    async def work(conn: AsyncConnection) -> None:
        keys = {(path, "USDT") for debit, credit, _ in lines for path in (debit, credit)}
        await ensure_accounts(conn, BOOK, keys, now=NOW)
        batch = [
            transfer(
                derive_id(NOW, "line", salt, number),
                debit,
                credit,
                amount,
                "USDT",
                code="test.line",
            )
            for number, (debit, credit, amount) in enumerate(lines)
        ]
        require_applied(await post(conn, BOOK, batch, now=NOW))

    await transact(house, work)


async def judged(house: AsyncEngine, party: str = "acme", **added: int) -> Bound | None:
    found = await transact(
        house, lambda conn: judge_settlement(conn, BOOK, party, "USDT", now=NOW, **added)
    )
    return None if found is None else found.bound


async def test_without_a_limit_nothing_leaves_on_a_partys_word(house: AsyncEngine) -> None:
    assert await judged(house) is Bound.NONE
    await limited(house)
    assert await judged(house) is None
    assert await judged(house, "birch") is Bound.NONE
    await limited(house, SettlementLimit(party=EVERY, asset="USDT", gross_units=0))
    assert await judged(house, "birch") is None
    assert await judged(house, "birch", gross=1) is Bound.GROSS


async def test_what_is_owed_is_what_the_books_say(house: AsyncEngine) -> None:
    await limited(house)
    await books(
        house,
        ("receivable:acme:netted", "conversion:otc", 90),
        ("conversion:otc", "payable:acme:netted", 30),
        ("conversion:otc", "collateral:taken:acme", 25),
        ("receivable:birch:netted", "conversion:otc", 500),
    )

    assert await judged(house) is None
    assert await judged(house, gross=11) is Bound.GROSS
    assert await judged(house, net=6) is Bound.NET
    told = [
        (use.party, use.bound, use.used, use.allowed, use.reaches(80), use.reaches(91))
        for use in await transact(house, lambda conn: usage(conn, BOOK))
    ]
    assert told == [
        ("acme", Bound.GROSS, 90, 100, True, False),
        ("acme", Bound.NET, 35, 40, True, False),
    ]


async def test_the_default_is_told_of_whoever_owes_something(house: AsyncEngine) -> None:
    await limited(house, SettlementLimit(party=EVERY, asset="USDT", net_units=0))
    await books(house, ("receivable:birch:netted", "conversion:otc", 5))

    (use,) = await transact(house, lambda conn: usage(conn, BOOK))
    assert (use.party, use.used, use.allowed, use.reaches(80)) == ("birch", 5, 0, True)


@pytest.mark.parametrize(
    ("story", "limit", "changes", "because"),
    [
        ("one person", LIMIT, {"second": "ada"}, "cannot approve what ada entered"),
        ("another one signs", LIMIT, {"second": "dan"}, "dan is not"),
        (
            "another limit was signed",
            LIMIT,
            {"signed": SettlementLimit(party="acme", asset="USDT", gross_units=1)},
            "not ben's, or not of this",
        ),
        (
            "a stranger",
            SettlementLimit(party="nobody", asset="USDT", gross_units=1),
            {},
            "nobody",
        ),
        (
            "not the next version",
            SettlementLimit(party="acme", asset="USDT", version=2, gross_units=1),
            {},
            "0 is in force",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_limit_is_refused(
    house: AsyncEngine,
    story: str,
    limit: SettlementLimit,
    changes: dict[str, Any],
    because: str,
) -> None:
    with pytest.raises(CausewayError, match=because):
        await limited(house, limit, **changes)

    assert await transact(house, list_settlement_limits) == []


async def test_the_newest_version_holds_and_no_signature_brings_an_old_one_back(
    house: AsyncEngine,
) -> None:
    await limited(house)
    tighter = SettlementLimit(party="acme", asset="USDT", version=2, gross_units=0)
    await limited(house, tighter)

    with pytest.raises(LimitsChanged, match="2 is in force"):
        await limited(house)
    assert await transact(house, list_settlement_limits) == [tighter]


async def test_security_counts_once_it_is_here(house: AsyncEngine) -> None:
    """What is to be given stands in the books as taken, and as owed, from the moment it is agreed."""
    await limited(house)
    await books(
        house,
        ("receivable:acme:netted", "conversion:otc", 90),
        ("receivable:acme:open", "collateral:taken:acme", 60),
    )
    assert await judged(house) is Bound.NET

    # Sealed, it is owed like the rest; paid, it is here.
    await books(house, ("receivable:acme:netted", "receivable:acme:open", 60), salt=1)
    assert await judged(house) is Bound.GROSS
    await books(house, ("conversion:otc", "receivable:acme:netted", 60), salt=2)
    assert await judged(house) is None
