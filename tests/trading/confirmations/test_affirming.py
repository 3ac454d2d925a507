"""Affirming: the party's own signature, or two people who did not make the trade."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.errors import BadInput, Refused
from kernel.events import list_history
from registry.errors import NotAuthorised, SamePerson
from registry.model import Operator, Role
from registry.testing import ETH, operator, operator_keypair
from tests.trading.confirmations.conftest import (
    BOOK,
    NOW,
    amended,
    booked,
    cancelled,
    confirmed,
    run,
)
from trading.confirmations.affirming import (
    affirm_by_evidence,
    affirm_by_signature,
    affirmation_bytes,
    dispute,
    evidence_bytes,
)
from trading.confirmations.errors import (
    KeyTaken,
    NoConfirmationKey,
    NotAffirmable,
    OwnDeal,
)
from trading.confirmations.keys import enrol_key, key_bytes, list_keys, revoke_key
from trading.confirmations.model import (
    Confirmation,
    ConfirmationKey,
    ConfirmationState,
    Unaffirmed,
    Verdict,
)
from trading.confirmations.queries import list_affirmations, list_unaffirmed

EVIDENCE = "cd" * 32
CLIENT = operator_keypair("acme's back office")
ADA = operator("ada", Role.ADMIN, Role.TREASURER)
BEN = operator("ben", Role.ADMIN, Role.APPROVER)
CLEO = operator("cleo", Role.APPROVER, Role.FINANCE)
DAN = operator("dan", Role.DEALER, Role.OPERATIONS)


async def enrolled(
    engine: AsyncEngine,
    *,
    party: str = "acme",
    version: int = 1,
    public_key: bytes = CLIENT.public,
    by: Operator = ADA,
    approver: Operator = BEN,
    signer: str | None = None,
) -> ConfirmationKey:
    payload = key_bytes(party, "back-office", public_key, version=version)
    signature = operator_keypair(signer or approver.code).sign(payload)
    return await run(
        engine,
        lambda conn: enrol_key(
            conn,
            party=party,
            label="back-office",
            public_key=public_key,
            by=by,
            approver=approver,
            signature=signature,
            now=NOW,
        ),
    )


async def signed(
    engine: AsyncEngine, item: Confirmation, signature: bytes | None = None
) -> Confirmation:
    given = CLIENT.sign(affirmation_bytes(item.text_sha256)) if signature is None else signature
    return await run(
        engine, lambda conn: affirm_by_signature(conn, item.id, given, by="system:api", now=NOW)
    )


async def entered(
    engine: AsyncEngine,
    item: Confirmation,
    *,
    by: Operator = ADA,
    approver: Operator = CLEO,
    evidence: str = EVIDENCE,
    payload: bytes | None = None,
) -> Confirmation:
    what = evidence_bytes(item.text_sha256, evidence) if payload is None else payload
    signature = operator_keypair(approver.code).sign(what)
    return await run(
        engine,
        lambda conn: affirm_by_evidence(
            conn,
            item.id,
            evidence=evidence,
            by=by,
            approver=approver,
            signature=signature,
            reason="mail of their back office",
            now=NOW,
        ),
    )


async def disputed(engine: AsyncEngine, item: Confirmation, reason: str = "we bought 9") -> Any:
    return await run(engine, lambda conn: dispute(conn, item.id, reason=reason, by=DAN, now=NOW))


async def open_list(engine: AsyncEngine, hours: int = 0) -> list[Unaffirmed]:
    async with engine.connect() as conn:
        return await list_unaffirmed(conn, BOOK, now=NOW + timedelta(hours=hours))


async def test_a_party_affirms_by_the_signature_of_its_own_key(house: AsyncEngine) -> None:
    item = await confirmed(house, await booked(house))
    key = await enrolled(house)

    done = await signed(house, item)
    again = await signed(house, item)

    assert done.state is ConfirmationState.AFFIRMED
    assert again == done
    async with house.connect() as conn:
        (said,) = await list_affirmations(conn, item.id)
        names = [event.name for event in await list_history(conn, "confirmation", item.id)]
    assert (said.verdict, said.key_version, said.approved_by) == (
        Verdict.AFFIRMED,
        key.version,
        None,
    )
    assert names == ["ConfirmationIssued", "ConfirmationAffirmed"]
    assert await open_list(house) == []


@pytest.mark.parametrize(
    "signature",
    [
        operator_keypair("somebody else").sign(affirmation_bytes("ab" * 32)),
        CLIENT.sign(affirmation_bytes("ab" * 32)),
        CLIENT.sign(b"the trade"),
        b"",
        bytes(64),
    ],
    ids=["of another key", "of another text", "of something else", "empty", "zeros"],
)
async def test_a_signature_that_is_not_of_this_text_by_this_party_affirms_nothing(
    house: AsyncEngine, signature: bytes
) -> None:
    item = await confirmed(house, await booked(house))
    await enrolled(house)

    with pytest.raises(NoConfirmationKey):
        await signed(house, item, signature)
    assert len(await open_list(house)) == 1


async def test_the_key_of_one_party_does_not_affirm_for_another(house: AsyncEngine) -> None:
    item = await confirmed(house, await booked(house))
    await enrolled(house, party="birch")

    with pytest.raises(NoConfirmationKey):
        await signed(house, item)


async def test_a_revoked_key_affirms_nothing_more_and_can_be_enrolled_again_only_anew(
    house: AsyncEngine,
) -> None:
    item = await confirmed(house, await booked(house))
    key = await enrolled(house)
    for _ in range(2):
        await run(
            house,
            lambda conn: revoke_key(conn, "acme", 1, by=DAN, reason="laptop lost", now=NOW),
        )

    with pytest.raises(NoConfirmationKey):
        await signed(house, item)
    with pytest.raises(NotAuthorised):
        await enrolled(house, version=1)
    assert (await enrolled(house, version=2)).version == 2
    async with house.connect() as conn:
        revoked, fresh = await list_keys(conn, "acme")
    assert (revoked.version, revoked.revoked_by) == (key.version, "dan")
    assert fresh.revoked_at is None
    assert (await signed(house, item)).state is ConfirmationState.AFFIRMED


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"approver": ADA}, SamePerson),
        ({"by": CLEO}, NotAuthorised),
        ({"approver": DAN}, NotAuthorised),
        ({"signer": "dan"}, NotAuthorised),
        ({"version": 2}, NotAuthorised),
        ({"public_key": ADA.public_key}, KeyTaken),
        ({"public_key": b"short"}, BadInput),
        ({"party": "nobody"}, Refused),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_key_takes_two_people_and_is_nobody_elses(
    house: AsyncEngine, changes: dict[str, Any], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        await enrolled(house, **changes)
    async with house.connect() as conn:
        assert await list_keys(conn) == []


async def test_a_key_is_enrolled_once_and_for_one_party(house: AsyncEngine) -> None:
    first = await enrolled(house)

    assert await enrolled(house) == first
    with pytest.raises(KeyTaken, match="acme's key 1"):
        await enrolled(house, party="birch")


async def test_two_people_who_did_not_make_the_trade_affirm_from_evidence(
    house: AsyncEngine,
) -> None:
    item = await confirmed(house, await booked(house))

    done = await entered(house, item)

    assert done.state is ConfirmationState.AFFIRMED
    async with house.connect() as conn:
        (said,) = await list_affirmations(conn, item.id)
    assert (said.evidence, said.entered_by, said.approved_by) == (EVIDENCE, "ada", "cleo")
    assert said.reason == "mail of their back office"


@pytest.mark.parametrize(
    ("booked_by", "by", "approver", "refusal"),
    [
        ("dan", DAN, CLEO, OwnDeal),
        ("ada", DAN, ADA, OwnDeal),
        ("dan", ADA, ADA, SamePerson),
        ("dan", BEN, CLEO, NotAuthorised),
        ("ada", CLEO, DAN, NotAuthorised),
    ],
)
async def test_whoever_booked_the_deal_or_may_not_is_neither_of_the_two(
    house: AsyncEngine,
    booked_by: str,
    by: Operator,
    approver: Operator,
    refusal: type[Exception],
) -> None:
    item = await confirmed(house, await booked(house, booked_by=booked_by))

    with pytest.raises(refusal):
        await entered(house, item, by=by, approver=approver)
    assert len(await open_list(house)) == 1


async def test_whoever_cancelled_the_deal_does_not_affirm_the_cancellation(
    house: AsyncEngine,
) -> None:
    deal = await booked(house, booked_by="ben")
    await cancelled(house, deal)
    item = await confirmed(house, deal)

    with pytest.raises(OwnDeal, match="dan cancelled the deal"):
        await entered(house, item, by=DAN)
    assert (await entered(house, item)).state is ConfirmationState.AFFIRMED


async def test_what_the_second_person_signed_must_be_this_evidence_for_this_text(
    house: AsyncEngine,
) -> None:
    item = await confirmed(house, await booked(house))

    for payload in (
        evidence_bytes(item.text_sha256, "ef" * 32),
        evidence_bytes("ef" * 32, EVIDENCE),
    ):
        with pytest.raises(NotAuthorised):
            await entered(house, item, payload=payload)
    with pytest.raises(BadInput, match="SHA-256"):
        await entered(house, item, evidence="a mail")


async def test_a_dispute_needs_one_person_and_a_reason_and_can_be_repeated_and_resolved(
    house: AsyncEngine,
) -> None:
    item = await confirmed(house, await booked(house))

    await disputed(house, item)
    again = await disputed(house, item, "and the fee is 200")

    assert again.state is ConfirmationState.DISPUTED
    (waiting,) = await open_list(house)
    assert waiting.confirmation.state is ConfirmationState.DISPUTED
    async with house.connect() as conn:
        reasons = {said.reason for said in await list_affirmations(conn, item.id)}
    assert reasons == {"we bought 9", "and the fee is 200"}
    assert (await entered(house, item)).state is ConfirmationState.AFFIRMED
    with pytest.raises(NotAffirmable):
        await disputed(house, item, "after all")


async def test_a_dispute_without_a_reason_is_refused(house: AsyncEngine) -> None:
    item = await confirmed(house, await booked(house))

    with pytest.raises(BadInput):
        await disputed(house, item, " ")


async def test_a_superseded_version_is_neither_affirmed_nor_disputed(house: AsyncEngine) -> None:
    deal = await booked(house)
    old = await confirmed(house, deal)
    await confirmed(house, await amended(house, deal, "deal-1b", base_units=ETH.parse("9")))
    await enrolled(house)

    for attempt in (signed(house, old), entered(house, old), disputed(house, old)):
        with pytest.raises(NotAffirmable, match="superseded"):
            await attempt


@pytest.mark.parametrize("ending", ["amended", "cancelled"])
async def test_a_version_whose_deal_has_changed_meanwhile_is_not_affirmed(
    house: AsyncEngine, ending: str
) -> None:
    deal = await booked(house)
    item = await confirmed(house, deal)
    if ending == "amended":
        await amended(house, deal, "deal-1b", base_units=ETH.parse("9"))
    else:
        await cancelled(house, deal)

    with pytest.raises(NotAffirmable, match=ending):
        await entered(house, item)


async def test_a_cancellation_is_affirmed_like_a_trade(house: AsyncEngine) -> None:
    notice = await confirmed(house, await cancelled(house, await booked(house)))

    assert (await entered(house, notice)).state is ConfirmationState.AFFIRMED


async def test_affirmed_by_several_at_once_it_is_affirmed_once(house: AsyncEngine) -> None:
    item = await confirmed(house, await booked(house))
    await enrolled(house)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(signed(house, item))
            group.create_task(entered(house, item))

    async with house.connect() as conn:
        assert len(await list_affirmations(conn, item.id)) == 1


async def test_the_list_of_the_unaffirmed_begins_with_the_nearest_value_date_and_ages(
    house: AsyncEngine,
) -> None:
    for name, day in (("later", 9), ("soon", 6), ("due", 5)):
        await confirmed(house, await booked(house, name, value_date=date(2026, 1, day)))

    waiting = await open_list(house, hours=2)

    assert [(item.client_ref, item.is_late) for item in waiting] == [
        ("due", True),
        ("soon", False),
        ("later", False),
    ]
    assert {item.age_s for item in waiting} == {7_200}


@pytest.mark.parametrize(
    ("change", "guard"),
    [
        ("signature = NULL, key_party = NULL, key_version = NULL", "ck_affirmation_proof"),
        ("key_version = NULL", "ck_affirmation_signed"),
        ("verdict = 'disputed'", "ck_affirmation_reason"),
        ("key_version = 7", "fk_affirmation_key"),
    ],
)
async def test_the_database_takes_no_affirmation_without_its_proof(
    house: AsyncEngine, owner_engine: AsyncEngine, change: str, guard: str
) -> None:
    item = await confirmed(house, await booked(house))
    await enrolled(house)
    await signed(house, item)

    statement = text(f"UPDATE trading.affirmation SET {change}")  # noqa: S608  words of this test
    with pytest.raises(DBAPIError, match=guard):
        async with owner_engine.begin() as conn:
            await conn.execute(statement)


async def test_the_program_may_not_change_what_was_said(house: AsyncEngine) -> None:
    async def work(conn: AsyncConnection) -> None:
        await conn.execute(text("UPDATE trading.affirmation SET reason = 'other'"))

    with pytest.raises(DBAPIError, match="permission denied"):
        await run(house, work)
