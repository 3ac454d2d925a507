"""Freeze switches: one closes, two open."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody.control_messages import ScopeKind
from custody.errors import Frozen, NotPossible
from custody.freeze_model import FREEZE_STATES, GLOBAL, Scope, find_match, freeze_bytes, thaw_bytes
from custody.freezes import (
    Freeze,
    close,
    close_automatically,
    derive_freeze_id,
    find_freeze,
    list_freezes,
    load_freezes,
    open_again,
    require_open,
    sign_automatic,
)
from custody.signer_sync import list_messages
from kernel.db import transact
from kernel.errors import BadInput, Refused
from kernel.events import list_history
from kernel.states import trigger_statements
from registry.authority import verify_signature
from registry.changes import found
from registry.queries import get_operator
from registry.testing import demo_founding, operator_keypair
from tests.custody.revisions import load_revision

T = TypeVar("T")
NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
SCOPES = [
    pytest.param(GLOBAL, id="global"),
    pytest.param(Scope(ScopeKind.CHAIN, "evm"), id="chain"),
    pytest.param(Scope(ScopeKind.ASSET, "USDT"), id="asset"),
    pytest.param(Scope(ScopeKind.WALLET, "house-hot"), id="wallet"),
    pytest.param(Scope(ScopeKind.CLIENT, "acme"), id="client"),
]
UNSIGNED = """
INSERT INTO custody.freeze (id, kind, name, state, closed_by, closed_reason, closed_at)
VALUES (gen_random_uuid(), 'chain', 'evm', 'closed', 'dan', 'x', now())"""
POLICY_WITH_A_SERVICE = """
INSERT INTO custody.payout_policy (version, document, state, proposed_by, proposed_at, proposal_signature)
VALUES (7, CAST(:document AS jsonb), 'proposed', 'ada', :now, 'x')"""
A_THOUSAND_AND_ONE = """
INSERT INTO custody.freeze (id, kind, name, state, closed_by, closed_reason, closed_at)
SELECT gen_random_uuid(), 'client', 'client-' || n, 'closed', 'system:test', 'x', '2026-01-04T00:00:00Z'
  FROM generate_series(0, 1000) n"""
EVERYTHING = {"chain": "evm", "asset": "USDT", "wallet": "house-hot", "client": "acme"}
OTHERS = {"chain": "evm2", "asset": "ETH", "wallet": "client-pool", "client": "birch"}


class Desk:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await transact(self.engine, work)

    async def close(self, scope: Scope, *, by: str = "dan", now: datetime = NOW) -> Freeze:
        payload = freeze_bytes(derive_freeze_id(scope, now), scope, "odd traffic")
        signature = operator_keypair(by).sign(payload)
        return await self.run(
            lambda conn: close(
                conn, scope, by=by, signature=signature, reason="odd traffic", now=now
            )
        )

    async def open(self, item: Freeze, *people: str, reason: str = "looked at") -> Freeze:
        payload = thaw_bytes(item.id, reason)
        signatures = {code: operator_keypair(code).sign(payload) for code in people}
        return await self.run(
            lambda conn: open_again(
                conn, item.scope, signatures=signatures, reason="looked at", now=NOW
            )
        )


@pytest.fixture
async def desk(engine: AsyncEngine) -> Desk:
    made = Desk(engine)
    await made.run(lambda conn: found(conn, demo_founding(), now=NOW))
    return made


@pytest.mark.parametrize("scope", SCOPES)
async def test_one_person_closes_and_what_it_names_is_shut(desk: Desk, scope: Scope) -> None:
    await desk.run(lambda conn: require_open(conn, **EVERYTHING))

    closed = await desk.close(scope)

    with pytest.raises(Frozen, match=r"frozen since 2026-01-05.* by dan: odd traffic"):
        await desk.run(lambda conn: require_open(conn, **EVERYTHING))
    assert await desk.run(load_freezes) == (closed,)
    assert find_match([closed], **EVERYTHING) == closed


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_freeze_stops_nothing_else_unless_it_is_global(desk: Desk, scope: Scope) -> None:
    closed = await desk.close(scope)

    found_one = await desk.run(lambda conn: find_freeze(conn, **OTHERS))
    nameless = await desk.run(find_freeze)

    expected = closed if scope is GLOBAL else None
    assert (found_one, nameless) == (expected, expected)
    assert find_match([closed], **OTHERS) == expected
    assert find_match([closed]) == expected


async def test_a_door_sees_every_freeze_however_many_there_are(desk: Desk) -> None:
    """One that is left out does not hold; and whoever is last is the one that matters now."""
    await desk.run(lambda conn: conn.execute(text(A_THOUSAND_AND_ONE)))
    last = await desk.close(Scope(ScopeKind.CLIENT, "acme"))

    assert find_match(await desk.run(load_freezes), **EVERYTHING) == last


async def test_two_people_open_what_one_has_closed(desk: Desk) -> None:
    closed = await desk.close(GLOBAL)

    with pytest.raises(Refused, match="1 of 2 people"):
        await desk.open(closed, "ada")
    with pytest.raises(Refused, match="dan is not"):
        await desk.open(closed, "ada", "dan")
    with pytest.raises(Refused, match="signature is not ada's"):
        await desk.open(closed, "ada", "ben", reason="something else")
    with pytest.raises(Frozen):
        await desk.run(require_open)
    opened = await desk.open(closed, "ada", "ben")

    await desk.run(require_open)
    assert set(opened.opened_by or {}) == {"ada", "ben"}
    with pytest.raises(NotPossible, match="global is not frozen"):
        await desk.open(closed, "ada", "ben")
    names = [item.name for item in await desk.run(lambda c: list_history(c, "freeze", closed.id))]
    assert names == ["FreezeClosed", "FreezeOpened"]


async def test_signatures_of_an_earlier_opening_open_nothing_again(desk: Desk) -> None:
    first = await desk.close(GLOBAL)
    await desk.open(first, "ada", "ben")
    again = await desk.close(GLOBAL, now=NOW + timedelta(hours=1))
    old = {code: operator_keypair(code).sign(thaw_bytes(first.id, "x")) for code in ("ada", "ben")}

    with pytest.raises(Refused, match="signature is not"):
        await desk.run(lambda c: open_again(c, GLOBAL, signatures=old, reason="x", now=NOW))
    assert await desk.run(list_freezes) == [again]
    assert [item.id for item in await desk.run(lambda c: list_freezes(c, past=True))] == [
        again.id,
        first.id,
    ]


async def test_closing_twice_is_one_freeze(desk: Desk) -> None:
    first = await desk.close(GLOBAL)

    assert await desk.close(GLOBAL, by="ben", now=NOW + timedelta(minutes=1)) == first


async def test_what_was_closed_and_opened_in_one_millisecond_closes_again_in_the_next(
    desk: Desk,
) -> None:
    first = await desk.close(GLOBAL)
    await desk.open(first, "ada", "ben")

    with pytest.raises(NotPossible, match="no longer stands") as caught:
        await desk.close(GLOBAL)
    assert caught.value.where == f"freeze {first.id}"
    with pytest.raises(NotPossible, match="no longer stands"):
        await desk.run(
            lambda c: close_automatically(c, GLOBAL, by="system:watch", reason="odd", now=NOW)
        )

    again = await desk.close(GLOBAL, now=NOW + timedelta(milliseconds=1))
    assert await desk.run(load_freezes) == (again,)


async def test_a_persons_freeze_of_the_moment_of_an_automatic_one_leaves_that_one_in_force(
    desk: Desk,
) -> None:
    made = await desk.run(
        lambda c: close_automatically(c, GLOBAL, by="system:watch", reason="odd", now=NOW)
    )

    with pytest.raises(NotPossible, match="Close it again"):
        await desk.close(GLOBAL)

    assert await desk.run(load_freezes) == (made,)


async def test_a_process_may_close_without_a_signature_and_a_person_may_not(desk: Desk) -> None:
    with pytest.raises(BadInput, match="a person signs"):
        await desk.run(lambda c: close_automatically(c, GLOBAL, by="dan", reason="nonce", now=NOW))
    await desk.run(
        lambda c: close_automatically(c, GLOBAL, by="system:payouts", reason="nonce", now=NOW)
    )
    with pytest.raises(Frozen, match="by system:payouts"):
        await desk.run(require_open)


async def automatic(desk: Desk, scope: Scope) -> Freeze:
    return await desk.run(
        lambda c: close_automatically(c, scope, by="system:watch", reason="odd", now=NOW)
    )


async def queued(desk: Desk) -> list[tuple[str, str, list[str]]]:
    """Return (kind, freeze, who signed) of what waits for the signer."""
    found = await desk.run(list_messages)
    return [(m.kind, m.subject, [s.operator for s in m.message.signatures]) for m in found]


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_persons_freeze_takes_the_place_of_an_automatic_one_and_reaches_the_signer(
    desk: Desk, scope: Scope
) -> None:
    before = await automatic(desk, scope)
    assert await queued(desk) == []

    after = await desk.close(scope, now=NOW + timedelta(minutes=1))

    assert (after.id != before.id, after.closed_by, after.signed_by) == (True, "dan", "dan")
    assert await desk.run(load_freezes) == (after,)
    assert await queued(desk) == [("freeze", str(after.id), ["dan"])]
    told = await desk.run(lambda c: list_history(c, "freeze", before.id))
    assert [(e.name, e.to_state) for e in told] == [
        ("FreezeClosed", "closed"),
        ("FreezeSuperseded", "superseded"),
    ]
    with pytest.raises(Refused, match="signature is not ada's"):
        await desk.open(before, "ada", "ben")
    with pytest.raises(Refused, match="1 of 2 people"):
        await desk.open(after, "ada")
    with pytest.raises(Frozen):
        await desk.run(lambda c: require_open(c, **EVERYTHING))
    await desk.open(after, "ada", "ben")
    await desk.run(lambda c: require_open(c, **EVERYTHING))


async def test_an_automatic_freeze_does_not_take_the_place_of_a_persons(desk: Desk) -> None:
    first = await desk.close(GLOBAL)

    assert await automatic(desk, GLOBAL) == first
    assert await desk.close(GLOBAL, by="ben", now=NOW + timedelta(minutes=1)) == first


async def test_the_house_signs_what_its_processes_froze_once(desk: Desk) -> None:
    item = await automatic(desk, GLOBAL)
    service = await desk.run(lambda c: get_operator(c, "cleo"))
    sign = operator_keypair("cleo").sign

    done = await desk.run(lambda c: sign_automatic(c, by=service, sign=sign, now=NOW))
    again = await desk.run(lambda c: sign_automatic(c, by=service, sign=sign, now=NOW))

    assert ([f.id for f in done], again) == ([item.id], [])
    assert await queued(desk) == [("freeze", str(item.id), ["cleo"])]
    stands = await desk.close(GLOBAL, now=NOW + timedelta(minutes=1))
    assert (stands.id, stands.closed_by, stands.signed_by) == (item.id, "system:watch", "cleo")
    verify_signature(service, freeze_bytes(item.id, GLOBAL, "odd"), stands.closed_signature or b"")
    with pytest.raises(Refused, match="1 of 2 people"):
        await desk.open(stands, "ada")


async def test_a_service_is_none_of_the_two_people_who_open(desk: Desk) -> None:
    item = await automatic(desk, GLOBAL)
    document = json.dumps({"services": ["ben"]})
    put = text(POLICY_WITH_A_SERVICE)
    await desk.run(lambda c: c.execute(put, {"document": document, "now": NOW}))
    approve = (
        "UPDATE custody.payout_policy SET state = 'active', approved_by = 'cleo', signature = 'x'"
    )
    await desk.run(lambda c: c.execute(text(approve)))

    with pytest.raises(Refused, match="ben is a service, not a person"):
        await desk.open(item, "ada", "ben")
    assert await desk.run(load_freezes) == (item,)


async def test_the_database_itself_keeps_a_freeze_signed_and_opened_as_a_whole(
    desk: Desk, owner_engine: AsyncEngine
) -> None:
    closed = await desk.close(GLOBAL)
    for statement in (
        "UPDATE custody.freeze SET state = 'open'",
        UNSIGNED,
    ):
        with pytest.raises(DBAPIError, match="violates check constraint"):
            async with owner_engine.begin() as conn:
                await conn.execute(text(statement))
    assert await desk.run(load_freezes) == (closed,)


def test_a_scope_is_read_as_it_is_written() -> None:
    for text_ in ("global", "chain:evm", "client:acme"):
        assert str(Scope.parse(text_)) == text_
    for wrong in ("planet:earth", "chain", "global:x", ""):
        with pytest.raises(BadInput):
            Scope.parse(wrong)


def test_the_trigger_of_the_revision_is_that_of_the_machine() -> None:
    first = load_revision("0018_pre_payout_control")
    newest = load_revision("0028_pre_reconciled_pages")
    written = (newest.FREEZE_FUNCTION, first.FREEZE_TRIGGER)

    assert written == trigger_statements(FREEZE_STATES)
