"""Who may pay what: the policy, what is reserved, what is owed, who has to sign, what is frozen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from custody import control_store, payouts
from custody.auto_approval import approve_allowed
from custody.control_messages import ScopeKind
from custody.errors import Frozen, NotPossible
from custody.freeze_model import GLOBAL, Scope
from custody.freezes import close_automatically
from custody.payout_approvals import approval_bytes
from custody.payout_control import (
    approve_policy,
    draft_policy,
    get_active_policy,
    policy_bytes,
    propose_policy,
)
from custody.payout_model import Payout, PayoutRequest, PayoutState, Quorum
from custody.payouts import approval_line, approve_payouts, explain, request_payouts
from custody.policy_model import (
    Action,
    PolicyDocument,
    PolicyRule,
    VelocityLimit,
)
from custody.policy_review import dry_run
from custody.set_off import Due, netted_account, note_due, overdue
from custody.testing import set_policy
from kernel.errors import BadInput, Refused
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from registry.queries import get_operator
from registry.testing import operator_keypair
from tests.custody.payout_world import BOOK, ETH, PAYEE, USDT, World, make_world
from tests.custody.waits import waits_for_a_lock

DAY = 86_400
REORG = "receivable:acme:reorg"


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


async def put_in_force(world: World, *rules: PolicyRule, **more: Any) -> None:
    document = PolicyDocument(rules=rules, **more)
    await world.run(lambda c: set_policy(c, now=world.clock.now(), document=document))


async def give(world: World, debit: str, credit: str, amount: int, asset: str) -> None:
    """Post something that happened elsewhere."""
    now = world.clock.now()
    moved = transfer(
        derive_id(now, debit, credit, amount), debit, credit, amount, asset, code="test.given"
    )

    async def work(conn: AsyncConnection) -> None:
        await ensure_accounts(conn, BOOK, [(debit, asset), (credit, asset)], now=now)
        require_applied(await post(conn, BOOK, [moved], now=now))

    await world.run(work)


async def why(world: World, payout: Payout) -> str:
    story = await world.run(lambda conn: explain(conn, payout.id))
    return story.timeline[-1].what


# The same request again.


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"reason": "another"}, "reason"),
        ({"claim": "client:acme:held"}, "claim"),
        ({"rail": "evm2"}, "rail"),
    ],
)
async def test_8_a_retry_with_another_body_is_a_conflict_that_names_the_field(
    world: World, changes: dict[str, Any], field: str
) -> None:
    """Failure 8: a retry is the same payout, or it is refused; it never pays twice."""
    first = await world.request()

    with pytest.raises(Refused, match=f"used with another {field}"):
        await world.request(**changes)
    assert await world.request() == first


async def test_8_requests_of_one_reference_at_once_make_one_payout(world: World) -> None:
    """Failure 8: peatio paid twice where a retry met the first attempt on its way."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(world.request()) for _ in range(4)]

    assert len({task.result().id for task in tasks}) == 1
    assert (await world.books())["client:acme", "ETH"] == (10 * ETH, 2 * ETH, 0)


async def test_an_expiry_that_the_policy_shortens_is_still_the_same_request(world: World) -> None:
    await put_in_force(world, PolicyRule(expires_s=3_600))
    asked = world.clock.now() + timedelta(days=1)

    payout = await world.request(expires_at=asked)

    assert payout.expires_at == world.clock.now() + timedelta(hours=1)
    assert await world.request(expires_at=asked) == payout
    world.clock.advance(timedelta(hours=1))
    with pytest.raises(NotPossible, match=r"the time of payout .* is over"):
        await world.approve(payout)
    gone = await world.run(
        lambda conn: payouts.expire_payouts(conn, book=BOOK, now=world.clock.now())
    )
    assert [item.state for item in gone] == [PayoutState.EXPIRED]


# Many at once.


def ask(number: int, **changes: Any) -> PayoutRequest:
    values: dict[str, Any] = {
        "client_ref": f"many-{number}",
        "claim": "client:acme",
        "source_wallet": "client-pool",
        "asset": "USDT",
        "amount": USDT,
        "destination": PAYEE,
        "requested_by": "dan",
    }
    return PayoutRequest(**{**values, **changes})


async def ask_many(world: World, requests: list[PayoutRequest]) -> list[Payout]:
    return await world.run(
        lambda conn: request_payouts(conn, requests, book=BOOK, now=world.clock.now())
    )


async def test_many_requests_are_what_each_would_be_alone(world: World) -> None:
    known = await world.request(client_ref="known", asset="USDT", amount=USDT)
    requests = [ask(n) for n in range(5)]
    requests.insert(2, ask(0, client_ref="known"))
    requests.append(ask(0, client_ref="large", amount=6_000 * USDT))

    made = await ask_many(world, requests)

    assert [item.client_ref for item in made] == [item.client_ref for item in requests]
    assert made[2] == known
    assert made[-1].state is PayoutState.REJECTED
    assert {item.state for item in made[:-1]} == {PayoutState.PENDING_APPROVAL}
    stored = [await world.get(item) for item in made]
    assert stored == made
    assert (await world.books())["client:acme", "USDT"] == (5_000 * USDT, 6 * USDT, 0)
    assert await ask_many(world, requests) == made


async def test_one_request_that_must_not_be_stops_the_whole_batch(world: World) -> None:
    before = await world.books()

    with pytest.raises(Refused, match="cannot pay a client"):
        await ask_many(world, [ask(1), ask(2, source_wallet="house-hot")])
    with pytest.raises(BadInput, match="each reference once"):
        await ask_many(world, [ask(1), ask(1)])

    assert await world.books() == before


async def test_own_transfers_of_one_batch_cannot_promise_coins_twice(world: World) -> None:
    own = {
        "claim": "own:house-settlement",
        "source_wallet": "house-hot",
        "asset": "ETH",
        "amount": 12 * ETH,
        "destination": world.hot["house-settlement"],
    }

    made = await ask_many(world, [ask(1, **own), ask(2, **own)])

    assert [item.state for item in made] == [PayoutState.PENDING_APPROVAL, PayoutState.REJECTED]
    assert "custody:house-hot has" in await why(world, made[1])


# What is reserved.

LIMITED = VelocityLimit(asset="ETH", amount_max=5 * ETH, window_s=DAY)


async def test_a_limit_counts_what_is_reserved_and_not_yet_sent(world: World) -> None:
    await put_in_force(world, PolicyRule(), limits=(LIMITED,))

    first = await world.request(client_ref="a", amount=3 * ETH)
    second = await world.request(client_ref="b", amount=3 * ETH)
    fits = await world.request(client_ref="c", amount=2 * ETH)

    assert [item.state for item in (first, second, fits)] == [
        PayoutState.PENDING_APPROVAL,
        PayoutState.REJECTED,
        PayoutState.PENDING_APPROVAL,
    ]
    assert f"limit 1 of approval policy 2: {3 * ETH} ETH are reserved" in await why(world, second)


async def test_what_is_given_back_does_not_count_any_more(world: World) -> None:
    await put_in_force(world, PolicyRule(), limits=(LIMITED,))
    first = await world.request(client_ref="a", amount=5 * ETH)

    async def cancel(conn: AsyncConnection) -> None:
        dan = await get_operator(conn, "dan")
        now = world.clock.now()
        await payouts.cancel_payout(conn, first.id, by=dan, reason="x", book=BOOK, now=now)

    await world.run(cancel)
    assert (await world.request(client_ref="b", amount=5 * ETH)).state is (
        PayoutState.PENDING_APPROVAL
    )


async def test_a_window_moves_on(world: World) -> None:
    await put_in_force(world, PolicyRule(), limits=(LIMITED,))
    await world.request(client_ref="a", amount=5 * ETH)

    world.clock.advance(timedelta(days=1) - timedelta(seconds=1))
    assert (await world.request(client_ref="b", amount=ETH)).state is PayoutState.REJECTED
    world.clock.advance(timedelta(seconds=1))
    assert (await world.request(client_ref="c", amount=ETH)).state is PayoutState.PENDING_APPROVAL


async def test_requests_of_one_batch_count_for_each_other(world: World) -> None:
    await put_in_force(world, PolicyRule(), limits=(LIMITED,))

    made = await ask_many(world, [ask(n, asset="ETH", amount=2 * ETH) for n in range(3)])

    assert [item.state for item in made] == [
        PayoutState.PENDING_APPROVAL,
        PayoutState.PENDING_APPROVAL,
        PayoutState.REJECTED,
    ]


async def test_two_requests_at_once_cannot_both_have_the_last_of_a_limit(world: World) -> None:
    """Each has counted before the other is committed, unless the lane makes one wait."""
    await put_in_force(world, PolicyRule(), limits=(LIMITED,))

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(world.request(client_ref=f"{n}", amount=3 * ETH)) for n in range(4)
        ]

    states = [task.result().state for task in tasks]
    assert states.count(PayoutState.PENDING_APPROVAL) == 1


async def test_a_lane_is_held_until_what_was_counted_is_committed(world: World) -> None:
    await put_in_force(world, PolicyRule(), limits=(LIMITED,))
    async with world.engine.connect() as other, asyncio.TaskGroup() as group:
        await control_store.lock_lanes(other, BOOK, {"ETH"})
        asking = group.create_task(world.request())
        await waits_for_a_lock(world.engine)
        await other.commit()
    assert asking.result().state is PayoutState.PENDING_APPROVAL


async def test_a_rule_over_a_window_hands_over_to_the_next_rule(world: World) -> None:
    small = PolicyRule(asset="ETH", amount_max=3 * ETH, window_s=DAY)
    await put_in_force(world, small, PolicyRule(approvals=2))

    first = await world.request(client_ref="a", amount=2 * ETH)
    second = await world.request(client_ref="b", amount=2 * ETH)

    assert [(item.rule, item.approvals_required) for item in (first, second)] == [(1, 1), (2, 2)]


# What is owed.


async def test_a_debt_of_a_reorganisation_is_settled_before_the_client_is_paid(
    world: World,
) -> None:
    await give(world, REORG, "client:acme", ETH, "ETH")

    payout = await world.request(amount=2 * ETH)

    assert payout.state is PayoutState.PENDING_APPROVAL
    books = await world.books()
    assert books["client:acme", "ETH"] == (10 * ETH, 2 * ETH, 0)
    assert (REORG, "ETH") not in books
    story = await world.run(lambda conn: explain(conn, payout.id))
    assert [item.code for item in story.postings] == ["payout.set-off", "payout.reserved"]


async def test_a_debt_is_settled_though_nothing_is_left_for_the_payout(world: World) -> None:
    await give(world, REORG, "client:acme", 3 * ETH, "ETH")

    payout = await world.request(amount=11 * ETH)

    assert payout.state is PayoutState.REJECTED
    books = await world.books()
    assert books["client:acme", "ETH"] == (10 * ETH, 0, 0)
    assert (REORG, "ETH") not in books


async def test_a_debt_is_settled_once_for_a_whole_batch(world: World) -> None:
    await give(world, REORG, "client:acme", ETH, "ETH")

    made = await ask_many(world, [ask(n, asset="ETH", amount=5 * ETH) for n in range(3)])

    assert [item.state for item in made] == [
        PayoutState.PENDING_APPROVAL,
        PayoutState.PENDING_APPROVAL,
        PayoutState.REJECTED,
    ]
    assert (await world.books())["client:acme", "ETH"] == (10 * ETH, 10 * ETH, 0)


async def test_who_owes_what_is_overdue_is_not_paid(world: World) -> None:
    netted = netted_account("acme")
    await give(world, netted, "equity:capital", ETH, "ETH")
    due = Due("run-1", "acme", "ETH", 2 * ETH, world.clock.now() + timedelta(hours=1))
    await world.run(lambda c: note_due(c, BOOK, [due]))

    before = await world.request(client_ref="a")
    world.clock.advance(timedelta(hours=2))
    after = await world.request(client_ref="b")
    other = await world.request(client_ref="c", asset="USDT", amount=USDT)

    assert [item.state for item in (before, after, other)] == [
        PayoutState.PENDING_APPROVAL,
        PayoutState.REJECTED,
        PayoutState.PENDING_APPROVAL,
    ]
    assert f"acme owes {ETH} ETH that is overdue" in await why(world, after)
    assert (await world.books())[netted, "ETH"] == (ETH, 0, 0)


@pytest.mark.parametrize(
    ("owed", "past", "later", "expected"),
    [
        (0, 5, 0, 0),  # paid
        (5, 5, 0, 5),
        (8, 5, 3, 5),  # one run is overdue, another not yet due
        (3, 5, 3, 0),  # the first is paid
        (2, 5, 0, 2),  # paid in part
        (7, 0, 0, 0),  # nobody said when it is due
        (1, 0, 3, 0),  # paid before it was due
    ],
)
def test_what_is_overdue_follows_from_what_is_owed_and_when_it_was_due(
    owed: int, past: int, later: int, expected: int
) -> None:
    assert overdue(owed, past, later) == expected


async def test_what_we_owe_is_not_paid_to_who_owes_us_since_a_deposit_vanished(
    world: World,
) -> None:
    await give(world, "receivable:birch:reorg", "equity:capital", USDT, "USDT")
    owed = {"claim": "payable:birch:netted", "source_wallet": "house-hot"}

    payout = await world.request(**owed, asset="USDT", amount=2 * USDT)

    assert payout.state is PayoutState.REJECTED
    assert f"birch owes {USDT} USDT since a deposit vanished" in await why(world, payout)


# Who has to sign.

TWO_GROUPS = (Quorum("compliance", 1), Quorum("treasury", 1))
PEOPLE = {"treasury": ("ada", "ben"), "compliance": ("cleo", "ben")}


async def test_each_group_has_to_approve_and_nobody_counts_for_two(world: World) -> None:
    await put_in_force(world, PolicyRule(groups=TWO_GROUPS), groups=PEOPLE)
    payout = await world.request()
    assert payout.required == TWO_GROUPS

    [once] = await world.approve(payout, by="ben")
    [again] = await world.approve(payout, by="ben")
    [done] = await world.approve(payout, by="cleo")

    assert [item.state for item in (once, again, done)] == [
        PayoutState.PENDING_APPROVAL,
        PayoutState.PENDING_APPROVAL,
        PayoutState.APPROVED,
    ]


async def test_two_people_of_one_group_do_not_fill_the_other(world: World) -> None:
    await put_in_force(
        world,
        PolicyRule(groups=TWO_GROUPS),
        groups={"treasury": ("ada", "ben"), "compliance": ("cleo",)},
    )
    payout = await world.request()

    await world.approve(payout, by="ben")
    [item] = await world.approve(payout, by="ada")

    assert item.state is PayoutState.PENDING_APPROVAL
    with pytest.raises(Refused, match="dan requested"):
        await world.approve(payout, by="dan")


async def test_the_role_alone_does_not_make_a_member_of_a_group(world: World) -> None:
    treasury = (Quorum("treasury", 1),)
    await put_in_force(world, PolicyRule(groups=treasury), groups={"treasury": ("ada",)})

    with pytest.raises(Refused, match=r"ben is in none of the groups .*: treasury"):
        await world.approve(await world.request(), by="ben")


async def test_groups_are_those_of_the_policy_under_which_it_was_requested(world: World) -> None:
    treasury = (Quorum("treasury", 1),)
    await put_in_force(world, PolicyRule(groups=treasury), groups={"treasury": ("ada",)})
    payout = await world.request()
    await put_in_force(world, PolicyRule(groups=treasury), groups={"treasury": ("ben",)})

    with pytest.raises(Refused, match="ben is in none of the groups"):
        await world.approve(payout, by="ben")
    [done] = await world.approve(payout, by="ada")
    assert done.state is PayoutState.APPROVED


async def test_the_database_itself_keeps_the_initiator_from_approving(world: World) -> None:
    """The guard below the guard: a row that says so cannot be written."""
    payout = await world.request()

    async def forge(conn: AsyncConnection) -> None:
        await control_store.insert_statement(
            conn,
            statement_id=derive_id(world.clock.now(), "forged"),
            operator="dan",
            signature=b"x" * 64,
            lines=[],
            payout_ids=[payout.id],
            at=world.clock.now(),
        )

    with pytest.raises(DBAPIError, match="dan requested payout"):
        await world.run(forge)


@pytest.mark.parametrize(
    "changes",
    [
        {"destination": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"},
        {"chain_amount": 1},
        {"asset": "USDT"},
        {"chain_id": 1},
        {"chain": "evm2"},
        {"requested_by": "cleo"},
        {"policy_version": 9},
        {"rule": 9},
    ],
    ids=str,
)
async def test_13_an_approval_is_of_the_decoded_payment_and_of_no_other(
    world: World, changes: dict[str, Any]
) -> None:
    """Failure 13: what approvers see is what they sign, field by field; another page signs nothing."""
    payout = await world.request()
    shown = replace(payout, **changes)
    signature = operator_keypair("ben").sign(approval_bytes([approval_line(shown)]))

    async def work(conn: AsyncConnection) -> None:
        ben = await get_operator(conn, "ben")
        now = world.clock.now()
        await approve_payouts(conn, [payout.id], by=ben, signature=signature, book=BOOK, now=now)

    with pytest.raises(Refused, match="signature is not ben's"):
        await world.run(work)


async def test_what_is_signed_once_is_stored_once(world: World) -> None:
    made = await ask_many(world, [ask(n) for n in range(3)])

    await world.approve(*made)

    rows = await world.run(
        lambda conn: conn.execute(text("SELECT count(*) FROM custody.approval_statement"))
    )
    assert rows.scalar_one() == 1
    found = await world.run(lambda c: control_store.list_approvals(c, [p.id for p in made]))
    assert [[item.operator for item in items] for items in found.values()] == [["ben"]] * 3
    assert all(len(items[0].lines) == 3 for items in found.values())


# What a rule allows.


async def allow_by_service(world: World, service: str = "cleo") -> list[Payout]:
    async def work(conn: AsyncConnection) -> list[Payout]:
        return await approve_allowed(
            conn,
            by=await get_operator(conn, service),
            sign=operator_keypair(service).sign,
            book=BOOK,
            now=world.clock.now(),
        )

    return await world.run(work)


async def test_a_service_approves_what_a_rule_allows_and_nothing_else(world: World) -> None:
    small = PolicyRule(asset="USDT", amount_max=10 * USDT, action=Action.ALLOW)
    await put_in_force(world, small, PolicyRule(), services=("cleo",))
    allowed = await world.request(client_ref="a", asset="USDT", amount=10 * USDT)
    large = await world.request(client_ref="b", asset="USDT", amount=11 * USDT)

    [done] = await allow_by_service(world)

    assert (done.id, done.state) == (allowed.id, PayoutState.APPROVED)
    with pytest.raises(Refused, match="cleo is in none of the groups"):
        await world.approve(large, by="cleo")
    assert await allow_by_service(world) == []


async def test_without_a_service_an_approver_completes_what_a_rule_allows(world: World) -> None:
    await put_in_force(world, PolicyRule(action=Action.ALLOW), services=("cleo",))
    payout = await world.request()

    assert await allow_by_service(world, "ada") == []
    [done] = await world.approve(payout, by="ben")

    assert done.state is PayoutState.APPROVED


# The policy itself.


async def test_a_policy_takes_two_administrators_who_sign_the_same(world: World) -> None:
    now = world.clock.now()
    document = PolicyDocument(rules=(PolicyRule(approvals=2),))
    draft = await world.run(lambda c: draft_policy(c, document, by="ada", now=now))
    by_ada, by_ben = (operator_keypair(who).sign(policy_bytes(draft)) for who in ("ada", "ben"))

    async def propose(conn: AsyncConnection, signature: bytes) -> None:
        await propose_policy(conn, document, by="ada", signature=signature, now=now)

    with pytest.raises(Refused, match="signature is not ada's"):
        await world.run(lambda c: propose(c, by_ben))
    await world.run(lambda c: propose(c, by_ada))
    with pytest.raises(Refused, match="ada proposed this policy"):
        await world.run(
            lambda c: approve_policy(c, draft.version, by="ada", signature=by_ada, now=now)
        )
    await world.run(lambda c: approve_policy(c, draft.version, by="ben", signature=by_ben, now=now))

    active = await world.run(get_active_policy)
    assert (active.version, active.proposal_signature, active.signature) == (2, by_ada, by_ben)


# Freezes.


@pytest.mark.parametrize(
    "scope",
    [
        GLOBAL,
        Scope(ScopeKind.CHAIN, "evm"),
        Scope(ScopeKind.ASSET, "ETH"),
        Scope(ScopeKind.WALLET, "client-pool"),
        Scope(ScopeKind.CLIENT, "acme"),
    ],
    ids=str,
)
async def test_nothing_is_requested_while_something_of_it_is_frozen(
    world: World, scope: Scope
) -> None:
    before = await world.books()
    await world.run(
        lambda c: close_automatically(
            c, scope, by="system:test", reason="drill", now=world.clock.now()
        )
    )

    with pytest.raises(Frozen, match=f"{scope} is frozen"):
        await world.request()

    assert await world.books() == before


async def test_explain_tells_the_decision_and_what_stops_the_payout(world: World) -> None:
    await put_in_force(world, PolicyRule(asset="USDT"), PolicyRule(approvals=2))
    payout = await world.request()
    await world.run(
        lambda c: close_automatically(
            c, GLOBAL, by="system:test", reason="drill", now=world.clock.now()
        )
    )

    story = await world.run(lambda conn: explain(conn, payout.id))

    assert story.decision is not None
    assert story.worked_out is not None
    assert (story.decision.policy_version, story.decision.rule) == (2, 2)
    assert [(miss.rule, miss.fields) for miss in story.worked_out.misses] == [(1, ("asset",))]
    assert story.frozen is not None


# A policy on past requests.


async def test_a_dry_run_lists_each_answer_that_would_change_with_its_rule(world: World) -> None:
    begin = world.clock.now()
    small = await world.request(client_ref="small", amount=ETH)
    large = await world.request(client_ref="large", amount=4 * ETH)
    token = await world.request(client_ref="token", asset="USDT", amount=USDT)

    tried = PolicyDocument(
        rules=(
            PolicyRule(asset="ETH", amount_max=ETH),
            PolicyRule(asset="ETH", approvals=2),
        )
    )
    found = await run_dry(world, tried, since=begin)

    assert found.judged == 3
    assert [
        (item.before.payout_id, item.after.rule, item.after.action) for item in found.changed
    ] == [
        (large.id, 2, Action.APPROVE),
        (token.id, 3, Action.BLOCK),
    ]
    assert [item.reference for item in found.changed] == ["large", "token"]
    assert found.unfounded == ()
    assert small.id not in {item.before.payout_id for item in found.changed}
    later = await run_dry(world, tried, since=begin + timedelta(hours=1))
    assert (later.judged, later.changed) == (0, ())


async def test_a_dry_run_also_judges_what_was_blocked(world: World) -> None:
    await put_in_force(world, PolicyRule(asset="USDT"))
    blocked = await world.request()
    assert blocked.state is PayoutState.REJECTED

    found = await run_dry(world, PolicyDocument(rules=(PolicyRule(),)), since=world.clock.now())

    [changed] = found.changed
    assert (changed.before.action, changed.after.action) == (Action.BLOCK, Action.APPROVE)


async def test_a_dry_run_adds_up_windows_that_nobody_asked_for_then(world: World) -> None:
    """As it stood then: what was cancelled since was reserved, what came later was not."""
    begin = world.clock.now()
    first = await world.request(client_ref="a", amount=2 * ETH)
    second = await world.request(client_ref="b", amount=2 * ETH)
    world.clock.advance(timedelta(minutes=1))

    async def cancel(conn: AsyncConnection) -> None:
        dan = await get_operator(conn, "dan")
        now = world.clock.now()
        await payouts.cancel_payout(conn, first.id, by=dan, reason="x", book=BOOK, now=now)

    await world.run(cancel)
    third = await world.request(client_ref="c", amount=2 * ETH)
    limit = VelocityLimit(asset="ETH", amount_max=3 * ETH, window_s=DAY)

    found = await run_dry(
        world, PolicyDocument(rules=(PolicyRule(),), limits=(limit,)), since=begin
    )

    assert [item.before.payout_id for item in found.changed] == [second.id, third.id]
    assert f"{2 * ETH} ETH are reserved" in found.changed[0].after.reason
    assert f"{2 * ETH} ETH are reserved" in found.changed[1].after.reason


async def test_a_dry_run_comes_in_pages(world: World) -> None:
    begin = world.clock.now()
    await ask_many(world, [ask(n) for n in range(5)])
    tried = PolicyDocument(rules=(PolicyRule(approvals=2),))

    pages = [await run_dry(world, tried, since=begin, limit=2)]
    while (after := pages[-1].after) is not None:
        pages.append(await run_dry(world, tried, since=begin, limit=2, after=after))

    assert [page.judged for page in pages] == [2, 2, 1]
    assert sum(len(page.changed) for page in pages) == 5


async def test_a_dry_run_finds_an_answer_that_does_not_follow_from_its_facts(
    world: World, owner_engine: AsyncEngine
) -> None:
    payout = await world.request()
    async with owner_engine.begin() as conn:
        await conn.execute(
            text("ALTER TABLE custody.payout_decision DISABLE TRIGGER payout_decision_kept")
        )
        await conn.execute(
            text("UPDATE custody.payout_decision SET required = '[]', action = 'allow'")
        )

    found = await run_dry(world, PolicyDocument(rules=(PolicyRule(),)), since=world.clock.now())

    assert found.unfounded == (payout.id,)


async def run_dry(world: World, document: PolicyDocument, **how: Any) -> Any:
    async def work(conn: AsyncConnection) -> Any:
        draft = await draft_policy(conn, document, by="ada", now=world.clock.now())
        return await dry_run(conn, draft, book=BOOK, **how)

    return await world.run(work)
