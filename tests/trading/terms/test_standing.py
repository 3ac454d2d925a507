"""Standing settlement instructions: two people, a call back by a third, nothing rewritten."""

from __future__ import annotations

import asyncio
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import constraint_name, sqlstate, transact
from kernel.errors import CausewayError
from kernel.events import list_history
from kernel.ids import stable_id
from kernel.money import Asset
from registry.model import Chain, ChainAsset
from registry.queries import get_operator
from registry.testing import change, operator_keypair
from tests.trading.conftest import NOW
from trading.terms.errors import NoStandingInstruction, NoSuchVersion, TermsChanged
from trading.terms.model import CallBack, Rail, StandingInstruction
from trading.terms.standing import (
    find_standing_instruction,
    get_standing_instruction,
    get_version,
    instruct,
    list_standing_instructions,
    next_version,
    record_call_back,
    standing_instruction_bytes,
)
from trading.terms.standing_rules import earliest_start

HOME = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
ELSEWHERE = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
TODAY = NOW.date()
SOON = TODAY + timedelta(days=2)


async def instructed(house: AsyncEngine, destination: str = HOME, **changes: Any) -> int:
    """Let ada enter and ben sign where acme is paid in ETH, unless changed."""
    version, now = changes.pop("version", 1), changes.pop("now", NOW)
    by, approver = changes.pop("by", "ada"), changes.pop("approver", "ben")
    values: dict[str, Any] = {"party": "acme", "asset": "ETH", "rail": Rail.EVM, **changes}
    values.setdefault("effective_from", earliest_start(version, now.date()))
    payload = standing_instruction_bytes(**values, destination=destination, version=version)
    async with house.begin() as conn:
        return await instruct(
            conn,
            **values,
            destination=destination,
            by=await get_operator(conn, by),
            approver=await get_operator(conn, approver),
            signature=operator_keypair(approver).sign(payload),
            now=now,
        )


async def called_back(
    house: AsyncEngine, version: int, *, by: str = "dan", now: datetime = NOW, **changes: Any
) -> StandingInstruction:
    """Let dan record that acme confirmed a version, unless changed."""
    values = {"confirmed": True, "reference": "calls/17", **changes}
    async with house.begin() as conn:
        return await record_call_back(
            conn,
            party="acme",
            asset="ETH",
            rail=Rail.EVM,
            version=version,
            by=await get_operator(conn, by),
            now=now,
            **values,
        )


async def paid_at(house: AsyncEngine, on: date) -> str | None:
    """Where acme is paid in ETH on a day."""
    found = await transact(
        house, lambda conn: find_standing_instruction(conn, "acme", "ETH", Rail.EVM, on=on)
    )
    return None if found is None else found.destination


@pytest.mark.parametrize(
    ("story", "changes", "because"),
    [
        ("one person", {"approver": "ada"}, "cannot approve what ada entered"),
        ("no address", {"destination": "0x12"}, "0x12"),
        ("a broken checksum", {"destination": HOME.swapcase()}, HOME.swapcase()),
        ("a stranger", {"party": "nobody"}, "nobody"),
        ("an unknown asset", {"asset": "DOGE"}, "DOGE"),
        ("by book", {"rail": Rail.BOOK}, "nobody is paid out by book"),
        ("in the past", {"effective_from": date(2026, 1, 4)}, "first day possible is 2026-01-05"),
        ("a later version signed", {"version": 2}, "not ben's, or not of this"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_standing_instruction_is_refused(
    house: AsyncEngine, story: str, changes: dict[str, Any], because: str
) -> None:
    with pytest.raises(CausewayError, match=because):
        await instructed(house, **changes)

    assert await transact(house, list_standing_instructions) == []


async def test_the_first_instruction_counts_from_its_day_on(house: AsyncEngine) -> None:
    assert (await instructed(house), await instructed(house)) == (1, 1)

    assert await paid_at(house, TODAY) == HOME
    assert await paid_at(house, TODAY - timedelta(days=1)) is None
    assert await transact(house, lambda c: next_version(c, "acme", "ETH", Rail.EVM)) == 2


async def test_a_change_counts_once_it_has_cooled_off_and_was_called_back(
    house: AsyncEngine,
) -> None:
    await instructed(house)
    assert await instructed(house, ELSEWHERE, version=2) == 2
    assert await paid_at(house, SOON) == HOME

    item = await called_back(house, 2)

    assert item.call_back == CallBack(confirmed=True, reference="calls/17", by="dan", at=NOW)
    assert await paid_at(house, SOON - timedelta(days=1)) == HOME
    assert await paid_at(house, SOON) == ELSEWHERE


@pytest.mark.parametrize(
    "start", [TODAY, TODAY + timedelta(days=1)], ids=["at once", "the next day"]
)
async def test_a_change_cannot_be_signed_to_begin_before_it_has_cooled_off(
    house: AsyncEngine, start: date
) -> None:
    await instructed(house)

    with pytest.raises(CausewayError, match="first day possible is 2026-01-07"):
        await instructed(house, ELSEWHERE, version=2, effective_from=start)
    assert await paid_at(house, SOON) == HOME


async def test_a_change_that_the_party_denies_never_counts(house: AsyncEngine) -> None:
    await instructed(house)
    await instructed(house, ELSEWHERE, version=2)

    await called_back(house, 2, confirmed=False)

    assert await paid_at(house, SOON) == HOME
    with pytest.raises(TermsChanged, match="another answer about version 2"):
        await called_back(house, 2)
    assert await instructed(house, ELSEWHERE, version=3) == 3


async def test_a_first_instruction_that_is_denied_is_out_of_force_at_once(
    house: AsyncEngine,
) -> None:
    await instructed(house)
    await called_back(house, 1, confirmed=False)

    assert await paid_at(house, TODAY) is None
    with pytest.raises(NoStandingInstruction, match="acme has no standing instruction for ETH"):
        await transact(
            house, lambda c: get_standing_instruction(c, "acme", "ETH", Rail.EVM, on=TODAY)
        )


async def test_whoever_entered_a_change_cannot_confirm_it_but_can_take_it_back(
    house: AsyncEngine,
) -> None:
    await instructed(house)
    await instructed(house, ELSEWHERE, version=2)

    with pytest.raises(CausewayError, match="ada entered the change and cannot confirm it"):
        await called_back(house, 2, by="ada")
    await called_back(house, 2, by="ada", confirmed=False)
    assert await paid_at(house, SOON) == HOME


async def test_a_call_back_is_recorded_once_and_for_good(house: AsyncEngine) -> None:
    await instructed(house)
    await instructed(house, ELSEWHERE, version=2)
    first = await called_back(house, 2)

    assert await called_back(house, 2, by="cleo", now=NOW + timedelta(hours=1)) == first
    with pytest.raises(TermsChanged):
        await called_back(house, 2, confirmed=False)

    async with house.connect() as conn:
        entity = "standing-instruction"
        events = await list_history(conn, entity, stable_id(entity, "acme/ETH/evm"))
    assert [(e.name, e.actor) for e in events] == [
        ("StandingInstructionSet", "ada"),
        ("StandingInstructionSet", "ada"),
        ("StandingInstructionConfirmed", "dan"),
    ]


@pytest.mark.parametrize(
    ("story", "changes", "because"),
    [
        ("no such version", {"version": 7}, "acme has no version 7"),
        ("no reference", {"reference": ""}, "has no reference"),
        ("a name in the reference", {"reference": "spoke to Jane"}, "not an opaque token"),
        ("a dealer of the desk", {"by": "mallory"}, "mallory"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
async def test_a_call_back_is_refused(
    house: AsyncEngine, story: str, changes: dict[str, Any], because: str
) -> None:
    await instructed(house)
    values = {"version": 1, **changes}

    with pytest.raises(CausewayError, match=because):
        await called_back(house, **values)


async def test_an_old_signature_does_not_bring_an_old_address_back(house: AsyncEngine) -> None:
    await instructed(house)
    await instructed(house, ELSEWHERE, version=2)

    with pytest.raises(CausewayError, match="not ben's, or not of this"):
        await instructed(house, HOME, version=1, effective_from=SOON)
    assert await instructed(house, HOME, version=3) == 3


async def test_every_version_can_be_read_for_ever(house: AsyncEngine) -> None:
    await instructed(house)
    await instructed(house, ELSEWHERE, version=2)
    await called_back(house, 2)

    old = await transact(house, lambda c: get_version(c, "acme", "ETH", Rail.EVM, 1))
    assert (old.destination, old.proposed_by, old.approved_by) == (HOME, "ada", "ben")
    listed = await transact(house, lambda c: list_standing_instructions(c, "acme"))
    assert [item.version for item in listed] == [1, 2]
    assert await transact(house, lambda c: list_standing_instructions(c, "birch")) == []
    with pytest.raises(NoSuchVersion):
        await transact(house, lambda c: get_version(c, "acme", "ETH", Rail.EVM, 3))


async def test_of_two_instructions_at_once_one_is_a_version(house: AsyncEngine) -> None:
    async def one(destination: str) -> str:
        try:
            return str(await instructed(house, destination))
        except CausewayError as error:
            return type(error).__name__

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(to)) for to in (HOME, ELSEWHERE)]

    # The slower one is told to look again, or that a change has to cool off.
    assert {task.result() for task in tasks} in ({"1", "TermsChanged"}, {"1", "Refused"})


REWRITTEN = (
    ("UPDATE trading.standing_instruction SET destination = 'x'", "42501"),
    ("UPDATE trading.standing_instruction SET effective_from = '2020-01-01'", "42501"),
    ("UPDATE trading.standing_instruction SET needs_call_back = false", "42501"),
    ("UPDATE trading.call_back SET confirmed = true", "42501"),
    ("DELETE FROM trading.call_back", "42501"),
    ("UPDATE settlement.standing_instruction SET destination = 'x'", "42501"),
    (
        "INSERT INTO trading.standing_instruction VALUES ('acme', 'ETH', 'evm', 9, 'x', 'ada', 'ada', now())",
        "ck_standing_instruction_two_people",
    ),
    (
        "INSERT INTO trading.call_back VALUES ('acme', 'ETH', 'evm', 9, true, 'x', 'dan', now())",
        "fk_call_back_standing_instruction",
    ),
    (
        "INSERT INTO trading.call_back VALUES ('acme', 'ETH', 'evm', 2, true, 'x', 'dan', now())",
        "pk_call_back",
    ),
)


async def test_the_database_refuses_to_rewrite_where_somebody_is_paid(house: AsyncEngine) -> None:
    await instructed(house)
    await instructed(house, ELSEWHERE, version=2)
    await called_back(house, 2, confirmed=False)
    for statement, refused in REWRITTEN:

        async def work(conn: AsyncConnection, statement: str = statement) -> None:
            await conn.execute(text(statement))

        with pytest.raises(DBAPIError) as caught:
            await transact(house, work)
        assert refused in {sqlstate(caught.value), constraint_name(caught.value)}, statement


async def test_code_of_before_sees_only_what_is_in_force_under_the_old_name(
    house: AsyncEngine,
) -> None:
    """Times of the database count in the view, so the versions begin well before or after now."""
    await instructed(house)
    await instructed(house, ELSEWHERE, version=2)
    await instructed(house, HOME, version=3, effective_from=date(2100, 1, 1))
    assert await _old_name(house) == [1]

    await called_back(house, 2)
    await called_back(house, 3)
    assert await _old_name(house) == [1, 2]

    async with house.begin() as conn:
        await conn.execute(
            text(
                "INSERT INTO settlement.standing_instruction VALUES"
                " ('birch', 'ETH', 'evm', 1, :to, 'ada', 'ben', :at) ON CONFLICT DO NOTHING"
            ),
            {"to": HOME, "at": NOW},
        )
    (made,) = await transact(house, lambda c: list_standing_instructions(c, "birch"))
    assert (made.destination, made.needs_call_back) == (HOME, False)
    assert await transact(
        house, lambda c: find_standing_instruction(c, "birch", "ETH", Rail.EVM, on=TODAY)
    )


async def _old_name(house: AsyncEngine) -> list[int]:
    async with house.connect() as conn:
        rows = await conn.execute(
            text("SELECT version FROM settlement.standing_instruction ORDER BY version")
        )
        return list(rows.scalars())


IBAN = "DE89370400440532013000"
PAYEE = f"{IBAN}|COBADEFFXXX|Acme GmbH"
BTC_ADDRESS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"


async def test_a_party_is_paid_at_its_bank(house: AsyncEngine) -> None:
    assert await instructed(house, rail=Rail.BANK, asset="USDT", destination=PAYEE) == 1

    async with house.connect() as conn:
        found = await get_standing_instruction(conn, "acme", "USDT", Rail.BANK, on=TODAY)
    assert found.destination == PAYEE


@pytest.mark.parametrize(
    ("story", "rail", "destination", "because"),
    [
        ("a digit is wrong", Rail.BANK, PAYEE.replace("3000|", "3001|"), "not an IBAN"),
        ("no name", Rail.BANK, f"{IBAN}|COBADEFFXXX", "whom a bank shall pay"),
        ("another spelling", Rail.BANK, PAYEE.lower(), f"Write it as it is kept: {IBAN}"),
        ("an address", Rail.BANK, HOME, "whom a bank shall pay"),
        ("no chain of bitcoin", Rail.BITCOIN, BTC_ADDRESS, "ETH is on no chain of kind bitcoin"),
    ],
)
async def test_a_destination_is_one_of_its_rail_and_in_one_spelling(
    house: AsyncEngine, story: str, rail: Rail, destination: str, because: str
) -> None:
    with pytest.raises(CausewayError, match=because):
        await instructed(house, rail=rail, destination=destination)


async def test_a_party_is_paid_on_a_chain_of_bitcoin(house: AsyncEngine) -> None:
    btc = Asset("BTC", 8)
    async with house.begin() as conn:
        await change(conn, btc, now=NOW)
        await change(conn, Chain("btc", "bitcoin", 0xFABFB5DA, "BTC"), now=NOW)
        await change(conn, ChainAsset("btc:BTC", "btc", None, 8, "BTC"), now=NOW)

    with pytest.raises(CausewayError, match="Write it as it is kept: bcrt1"):
        await instructed(house, rail=Rail.BITCOIN, asset="BTC", destination=BTC_ADDRESS.upper())
    assert await instructed(house, rail=Rail.BITCOIN, asset="BTC", destination=BTC_ADDRESS) == 1
