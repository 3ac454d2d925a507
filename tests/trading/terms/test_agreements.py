"""Netting agreements: two people, versions, no old signature again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.errors import CausewayError
from kernel.events import list_history
from kernel.ids import stable_id
from registry.model import Party, PartyKind
from registry.queries import get_operator
from registry.testing import ENTITY, change, operator_keypair
from tests.trading.conftest import NOW
from trading.terms.agreements import agree, agreement_bytes, find_agreement, get_agreements
from trading.terms.model import Agreement
from trading.terms.testing import DOCUMENT

DAY = NOW.date()
ACME = Agreement(party="acme", effective_from=DAY, prefunded=False)
EARLIER = Agreement(party="acme", effective_from=date(2025, 12, 1), prefunded=False)
NEXT_MONTH = Agreement(party="acme", effective_from=date(2026, 2, 1), prefunded=False)
PREFUNDED = Agreement(party="acme", effective_from=DAY, prefunded=True)
WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


async def agreed(house: AsyncEngine, agreement: Agreement = ACME, **changes: Any) -> int:
    """Let ada enter it and ben sign it, unless changed."""
    signed = changes.pop("signed", agreement)
    by, approver = changes.pop("by", "ada"), changes.pop("approver", "ben")
    payload = agreement_bytes(signed, DOCUMENT, version=changes.pop("version", 1))
    values = {"document_hash": DOCUMENT, **changes}
    async with house.begin() as conn:
        return await agree(
            conn,
            agreement,
            by=await get_operator(conn, by),
            approver=await get_operator(conn, approver),
            signature=operator_keypair(approver).sign(payload),
            now=NOW,
            **values,
        )


@pytest.mark.parametrize(
    ("story", "changes", "because"),
    [
        ("one person", {"approver": "ada"}, "cannot approve what ada entered"),
        ("entered by an approver", {"by": "cleo"}, "cleo is not treasurer or operations"),
        ("approved by operations", {"approver": "dan"}, "dan is not treasurer or approver"),
        ("another agreement signed", {"signed": EARLIER}, "not ben's, or not of this"),
        ("no hash of the document", {"document_hash": "x"}, "not a SHA-256"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_agreement_is_refused(
    house: AsyncEngine, story: str, changes: dict[str, Any], because: str
) -> None:
    with pytest.raises(CausewayError, match=because):
        await agreed(house, **changes)

    assert await transact(house, get_agreements) == {}


async def test_an_agreement_that_is_in_force_is_left_as_it_is(house: AsyncEngine) -> None:
    assert (await agreed(house), await agreed(house)) == (1, 1)

    async with house.connect() as conn:
        entity = "netting-agreement"
        events = await list_history(conn, entity, stable_id(entity, "acme"))
    assert [(e.actor, e.reason) for e in events] == [("ada", "approved by ben")]


async def test_another_agreement_needs_a_signature_of_its_own_version(house: AsyncEngine) -> None:
    """Whoever kept ben's signature of version 1 cannot bring the old agreement back."""
    await agreed(house)
    assert await agreed(house, EARLIER, version=2) == 2

    with pytest.raises(CausewayError, match="not ben's, or not of this"):
        await agreed(house, ACME, version=1)
    assert await transact(house, get_agreements) == {"acme": EARLIER}
    assert await agreed(house, ACME, version=3) == 3


async def test_no_agreement_that_is_in_force_gives_way_to_one_that_is_not_yet(
    house: AsyncEngine,
) -> None:
    """Nothing of the party's would net between today and then."""
    await agreed(house)

    with pytest.raises(CausewayError, match=r"in force today.*Enter it on 2026-02-01"):
        await agreed(house, NEXT_MONTH, version=2)
    assert await transact(house, get_agreements) == {"acme": ACME}


async def test_an_agreement_that_is_not_in_force_yet_may_be_put_off(house: AsyncEngine) -> None:
    assert await agreed(house, NEXT_MONTH) == 1

    later = replace(NEXT_MONTH, effective_from=date(2026, 3, 1))
    assert await agreed(house, later, version=2) == 2


async def test_only_a_client_can_be_prefunded(house: AsyncEngine) -> None:
    maker = Party("maker", PartyKind.COUNTERPARTY, ENTITY.code)
    await transact(house, lambda conn: change(conn, maker, now=NOW))
    agreement = Agreement(party="maker", effective_from=DAY, prefunded=True)

    with pytest.raises(CausewayError, match="holds no funds here"):
        await agreed(house, agreement)


async def test_of_two_first_agreements_at_once_one_is_in_force(house: AsyncEngine) -> None:
    async def one(agreement: Agreement) -> str:
        try:
            return str(await agreed(house, agreement))
        except CausewayError as error:
            return type(error).__name__

    async with asyncio.TaskGroup() as group:
        first = group.create_task(one(ACME))
        second = group.create_task(one(EARLIER))

    # The slower one is told to look again, or finds that its signature is of version 1.
    assert {first.result(), second.result()} in ({"1", "TermsChanged"}, {"1", "NotAuthorised"})


async def test_the_slower_of_two_changes_of_an_agreement_is_refused(house: AsyncEngine) -> None:
    """Both have read version 1 and bring a signature of version 2."""
    await agreed(house)
    async with house.connect() as conn, asyncio.TaskGroup() as group:
        payload = agreement_bytes(EARLIER, DOCUMENT, version=2)
        await agree(
            conn,
            EARLIER,
            document_hash=DOCUMENT,
            by=await get_operator(conn, "ada"),
            approver=await get_operator(conn, "ben"),
            signature=operator_keypair("ben").sign(payload),
            now=NOW,
        )
        slower = group.create_task(_refusal(house))
        await _blocked(house)
        await conn.commit()

    assert "the agreement of acme was changed just now" in slower.result()
    assert await transact(house, lambda conn: find_agreement(conn, "acme")) == EARLIER


async def _refusal(house: AsyncEngine) -> str:
    with pytest.raises(CausewayError) as refused:
        await agreed(house, PREFUNDED, version=2)
    return str(refused.value)


async def _blocked(house: AsyncEngine) -> None:
    """Wait until somebody waits for a lock."""
    async with asyncio.timeout(10), house.connect() as conn:
        while not await conn.scalar(WAITING):  # noqa: ASYNC110  the lock is in a database
            await asyncio.sleep(0.01)
