"""Value from one book to another: step by step, each step in one book, once, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.book_mover import BookMover
from app.workers.jobs import JobWorker
from kernel.db import constraint_name, sqlstate
from kernel.errors import BadInput, Refused
from kernel.jobs import claim_due
from ledger.accounts import ensure_accounts, set_frozen
from ledger.errors import BookNotOpen, NotInChart
from ledger.interbook.errors import MoveNotPossible, MoveReferenceTaken, NoSuchMove
from ledger.interbook.model import (
    JOB,
    NOT_COVERED,
    NOT_HELD,
    ClearingStanding,
    Move,
    MoveRequest,
    MoveState,
)
from ledger.interbook.moving import (
    advance_move,
    derive_move_id,
    get_move,
    list_moves,
    request_move,
)
from ledger.interbook.postings import move_bytes
from ledger.interbook.standing import clearing_standings
from ledger.model import hold
from ledger.posting import post, require_applied
from ledger.queries import list_open_holds
from ledger.testing import enforce_lock_order
from ledger.verification import verify
from registry.errors import NotAuthorised
from registry.testing import operator_keypair
from tests.ledger.by_hand import BOOK, OTHER, Hand, open_house

OWNERS = {"bank:clients": "client", "bank:house": "house"}
BOTH = MoveRequest(
    reference="mv-1",
    from_book=BOOK,
    to_book=OTHER,
    asset="USDT",
    amount=60,
    claim_from="client:acme",
    claim_to="client:acme",
    funds_from="bank:clients",
    funds_to="bank:clients",
    reason="acme moves to the trust",
)
FUNDS = replace(
    BOTH,
    claim_from="",
    claim_to="",
    funds_from="bank:house",
    funds_to="bank:house",
    reason="the trust's working capital",
)
CLAIM = replace(
    BOTH,
    claim_from="equity:capital",
    claim_to="equity:capital",
    funds_from="",
    funds_to="",
    reason="capital is assigned",
)


@pytest.fixture
async def hand(engine: AsyncEngine) -> Hand:
    hand = await open_house(engine, OWNERS)
    await hand.move("a", "bank:clients", "client:acme", 100)
    await hand.move("b", "bank:house", "equity:capital", 100)
    return hand


async def request(
    hand: Hand,
    asked: MoveRequest = BOTH,
    *,
    by: str = "eve",
    approver: str = "ben",
    signed: MoveRequest | None = None,
    signer: str = "",
) -> Move:
    now = hand.clock.now()
    payload = move_bytes(derive_move_id(signed or asked, now), signed or asked, by)
    signature = operator_keypair(signer or approver).sign(payload)
    return await hand.do(
        lambda conn: request_move(
            conn, asked, by=by, approver=approver, signature=signature, now=now
        )
    )


async def advance(hand: Hand, move: Move) -> Move:
    now = hand.later(seconds=1)
    return await hand.do(lambda conn: advance_move(conn, move.id, now=now))


async def to_the_end(hand: Hand, move: Move) -> list[MoveState]:
    states = []
    while (await hand.do(lambda conn: get_move(conn, move.id))).in_flight:
        states.append((await advance(hand, move)).state)
    return states


async def standings(hand: Hand) -> list[ClearingStanding]:
    return await hand.do(clearing_standings)


async def proved(hand: Hand) -> None:
    for book in (BOOK, OTHER):
        assert await verify(hand.engine, book) == []
        async with hand.engine.connect() as conn:
            assert await list_open_holds(conn, book) == []
    assert all(item.agrees and item.moves == 0 for item in await standings(hand))


async def test_a_claim_and_its_funds_go_over_and_clearing_is_zero_on_either_side(
    hand: Hand,
) -> None:
    with enforce_lock_order(hand.engine):
        move = await request(hand)
        assert await to_the_end(hand, move) == [
            MoveState.HELD,
            MoveState.ARRIVED,
            MoveState.SETTLED,
        ]

    for path, left in (("client:acme", 40), ("bank:clients", 40), ("clearing:2", 0)):
        assert await hand.balance(path) == left
    for path, arrived in (("client:acme", 60), ("bank:clients", 60), ("clearing:1", 0)):
        assert await hand.balance(path, book=OTHER) == arrived
    await proved(hand)
    events = await hand.history("book-move", move)
    assert [(e.name, e.actor) for e in events] == [
        ("BookMoveRequested", "eve"),
        ("BookMoveHeld", "system:book-mover"),
        ("BookMoveArrived", "system:book-mover"),
        ("BookMoveSettled", "system:book-mover"),
    ]
    assert events[0].reason == "acme moves to the trust"


@pytest.mark.parametrize(("asked", "left", "right"), [(FUNDS, 60, -60), (CLAIM, -60, 60)])
async def test_of_one_without_the_other_the_pair_sums_to_zero(
    hand: Hand, asked: MoveRequest, left: int, right: int
) -> None:
    await to_the_end(hand, await request(hand, asked))

    assert await hand.balance("clearing:2") == left
    assert await hand.balance("clearing:1", book=OTHER) == right
    (item,) = await standings(hand)
    assert (item.left, item.right, item.asset) == (BOOK, OTHER, "USDT")
    assert (item.left_posted, item.right_posted, item.difference) == (left, right, 0)
    await proved(hand)


@pytest.mark.parametrize("asked", [BOTH, FUNDS, CLAIM])
async def test_what_is_in_flight_is_explained_at_every_step(hand: Hand, asked: MoveRequest) -> None:
    move = await request(hand, asked)
    net = bool(asked.claim_from) - bool(asked.funds_from)
    seen = []
    while move.in_flight:
        (item,) = await standings(hand)
        assert item.agrees, move.state
        seen.append((str(move.state), item.moves, item.held, item.one_sided))
        move = await advance(hand, move)

    assert seen == [
        ("requested", 1, 0, 0),
        ("held", 1, -60 * net, 0),
        ("arrived", 1, -60 * net, 60 * net),
    ]


async def test_what_something_else_wrote_to_clearing_is_a_difference(hand: Hand) -> None:
    await to_the_end(hand, await request(hand))
    await hand.move("stray", "clearing:2", "equity:capital", 7)

    (item,) = await standings(hand)

    assert (item.agrees, item.difference) == (False, 7)


async def test_what_the_first_book_does_not_have_never_leaves_it(hand: Hand) -> None:
    await hand.move("c", "bank:clients", "client:birch", 1)
    move = await request(hand, replace(BOTH, amount=101))

    refused = await advance(hand, move)

    assert (refused.state, refused.outcome) == (MoveState.REFUSED, "exceeds_credits")
    assert await advance(hand, move) == refused
    assert await hand.balance("client:acme") == 100
    await proved(hand)


async def test_no_holding_hands_over_more_than_it_has(hand: Hand) -> None:
    """Nothing guards a bank account, because facts move it: a decision looks at what it holds."""
    asked = replace(BOTH, claim_from="", claim_to="", amount=60)
    house = replace(asked, funds_from="bank:house", funds_to="bank:house")
    first = await advance(hand, await request(hand, house))
    second = await advance(hand, await request(hand, replace(house, reference="mv-2", amount=41)))
    exact = await advance(hand, await request(hand, replace(house, reference="mv-3", amount=40)))

    assert (first.state, exact.state) == (MoveState.HELD, MoveState.HELD)
    assert (second.state, second.outcome) == (MoveState.REFUSED, NOT_HELD)


async def test_what_the_second_book_refuses_is_given_back_in_the_first(hand: Hand) -> None:
    now = hand.clock.now()

    async def freeze(conn: AsyncConnection) -> None:
        await ensure_accounts(conn, OTHER, [("client:acme", "USDT")], now=now)
        await set_frozen(conn, OTHER, "client:acme", "USDT", frozen=True, reason="held", now=now)

    await hand.do(freeze)
    move = await request(hand)

    assert await to_the_end(hand, move) == [
        MoveState.HELD,
        MoveState.BOUNCED,
        MoveState.RETURNED,
    ]
    ended = await hand.do(lambda conn: get_move(conn, move.id))
    assert ended.outcome == "credit_account_frozen"
    assert await hand.balance("client:acme") == 100
    assert await hand.balance("bank:clients", book=OTHER) == 0
    await proved(hand)


async def test_clients_are_never_left_uncovered_in_either_book(hand: Hand) -> None:
    """A client's claim without holdings behind it bounces; clients' holdings without it stay."""
    claim = replace(BOTH, funds_from="", funds_to="")
    assert await to_the_end(hand, await request(hand, claim)) == [
        MoveState.HELD,
        MoveState.BOUNCED,
        MoveState.RETURNED,
    ]
    funds = replace(BOTH, claim_from="", claim_to="", reference="mv-2")
    refused = await advance(hand, await request(hand, funds))
    assert (refused.state, refused.outcome) == (MoveState.REFUSED, NOT_COVERED)
    await proved(hand)

    # What is promised already counts as gone.
    held = await advance(hand, await request(hand, replace(BOTH, reference="mv-3", amount=80)))
    assert held.state is MoveState.HELD
    rest = await request(hand, replace(funds, reference="mv-4", amount=1))
    assert (await advance(hand, rest)).outcome == NOT_COVERED


async def test_what_a_client_has_asked_for_is_owed_until_its_coins_are_gone(hand: Hand) -> None:
    """A reserved payout holds the claim long before it holds coins: it frees no funds."""

    async def reserve(conn: AsyncConnection) -> None:
        await ensure_accounts(conn, BOOK, [("in-flight:bank", "USDT")], now=hand.clock.now())
        places = "client:acme", "in-flight:bank"
        wanted = hold(UUID(int=7), *places, 50, "USDT", code="test", purpose="payout")
        require_applied(await post(conn, BOOK, [wanted], now=hand.clock.now()))

    await hand.do(reserve)
    funds = replace(BOTH, claim_from="", claim_to="", amount=50)
    refused = await advance(hand, await request(hand, funds))

    assert (refused.state, refused.outcome) == (MoveState.REFUSED, NOT_COVERED)
    # A claim that goes with its funds changes nothing about that.
    assert (await to_the_end(hand, await request(hand, replace(BOTH, reference="b", amount=50))))[
        -1
    ] is MoveState.SETTLED


async def test_each_step_is_a_transaction_that_touches_one_book(hand: Hand) -> None:
    touched: list[set[int]] = []

    @asynccontextmanager
    async def watched() -> AsyncIterator[None]:
        async with hand.engine.connect() as conn:
            before = {r.book: r.sequence for r in await conn.execute(HEADS)}
        yield
        async with hand.engine.connect() as conn:
            after = {r.book: r.sequence for r in await conn.execute(HEADS)}
        touched.append({book for book in after if after[book] != before[book]})

    move = await request(hand)
    while move.in_flight:
        async with watched():
            move = await advance(hand, move)

    assert touched == [{BOOK}, {OTHER}, {BOOK}]


HEADS = text("SELECT book, sequence FROM ledger.head")


@pytest.mark.parametrize("crash_at", [0, 1, 2])
async def test_a_crash_before_the_commit_of_any_step_changes_nothing(
    hand: Hand, crash_at: int
) -> None:
    move = await request(hand)
    for _ in range(crash_at):
        await advance(hand, move)
    before = await hand.do(lambda conn: get_move(conn, move.id))

    class Killed(Exception):
        pass

    async def killed(conn: AsyncConnection) -> None:
        await advance_move(conn, move.id, now=hand.later(seconds=1))
        raise Killed

    with pytest.raises(Killed):
        await hand.do(killed)

    assert await hand.do(lambda conn: get_move(conn, move.id)) == before
    await to_the_end(hand, move)
    assert await hand.balance("client:acme", book=OTHER) == 60
    await proved(hand)


async def test_workers_side_by_side_do_each_step_once(hand: Hand) -> None:
    moves = [
        await request(hand, replace(BOTH, reference=f"mv-{number}", amount=10))
        for number in range(5)
    ]
    workers = [
        JobWorker(
            engine=hand.engine,
            clock=hand.clock,
            handlers={JOB: BookMover(hand.engine, hand.clock).move},
            holder=f"worker-{number}",
        )
        for number in range(3)
    ]

    async def drive(move: Move) -> None:
        # A second worker on the same move, without any lease: the row decides.
        await BookMover(hand.engine, hand.clock).drive(move.id)

    async with asyncio.TaskGroup() as group:
        turns = [group.create_task(worker.turn()) for worker in workers]
        for move in moves:
            group.create_task(drive(move))

    assert sum(len(turn.result().done) for turn in turns) == 5
    assert [turn.result().failed for turn in turns] == [{}] * 3
    ended = await hand.do(lambda conn: list_moves(conn, book=OTHER))
    assert [item.state for item in ended] == [MoveState.SETTLED] * 5
    assert await hand.balance("client:acme") == 50
    assert await hand.balance("client:acme", book=OTHER) == 50
    await proved(hand)


async def test_moves_of_one_moment_have_a_job_each(hand: Hand) -> None:
    for number in range(4):
        await request(hand, replace(BOTH, reference=f"mv-{number}", amount=1))

    now = hand.clock.now()
    async with hand.engine.begin() as conn:
        jobs = await claim_due(
            conn, [JOB], holder="test", now=now, lease_for=hand.later(hours=1) - now
        )

    assert len({job.payload["move"] for job in jobs}) == 4


async def test_the_same_request_again_is_the_same_move(hand: Hand) -> None:
    move = await request(hand)
    hand.later(hours=1)

    assert await request(hand) == move
    with pytest.raises(MoveReferenceTaken):
        await request(hand, replace(BOTH, amount=61))
    async with hand.engine.connect() as conn:
        assert await conn.scalar(text("SELECT count(*) FROM kernel.job")) == 1


async def test_two_people_have_to_want_it(hand: Hand) -> None:
    with pytest.raises(NotAuthorised, match="proposed this"):
        await request(hand, by="ada", approver="ada")
    for by, approver in (("dan", "ben"), ("eve", "dan"), ("ben", "ada"), ("eve", "gone")):
        with pytest.raises(NotAuthorised):
            await request(hand, by=by, approver=approver)
    for other in (
        replace(BOTH, amount=1),
        replace(BOTH, claim_to="client:birch"),
        replace(BOTH, to_book=3),
        replace(BOTH, reason="another"),
    ):
        with pytest.raises(NotAuthorised, match="signature"):
            await request(hand, signed=other)
    with pytest.raises(NotAuthorised, match="signature"):
        await request(hand, signer="ada")
    assert await hand.do(list_moves) == []


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"amount": 0}, BadInput, "more than nothing"),
        ({"to_book": BOOK}, MoveNotPossible, "are one"),
        ({"to_book": 9}, BookNotOpen, "9"),
        ({"asset": "NOPE"}, Refused, "NOPE"),
        ({"reason": " "}, BadInput, "reason"),
        ({"reference": "a b"}, BadInput, "opaque"),
        ({"reference": ""}, BadInput, "reference"),
        ({"claim_to": ""}, MoveNotPossible, "both books"),
        ({"funds_from": ""}, MoveNotPossible, "both books"),
        ({"claim_from": "bank:x"}, MoveNotPossible, "no claim"),
        ({"claim_from": "nowhere"}, NotInChart, "nowhere"),
        ({"funds_from": "custody:client-pool"}, MoveNotPossible, "on their chain"),
        ({"funds_to": "client:acme"}, MoveNotPossible, "no holding"),
        ({"funds_to": "bank:none"}, MoveNotPossible, "no account"),
        ({"funds_to": "bank:house"}, MoveNotPossible, "belongs to"),
        (
            {"claim_from": "", "claim_to": "", "funds_from": "", "funds_to": ""},
            MoveNotPossible,
            "nothing is moved",
        ),
    ],
)
async def test_a_move_that_no_book_could_take_is_refused_at_once(
    hand: Hand, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await request(hand, replace(BOTH, **changes))
    with pytest.raises(NoSuchMove):
        await hand.do(lambda conn: get_move(conn, UUID(int=1)))


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("UPDATE books.book_move SET amount = 1", "42501"),
        ("UPDATE books.book_move SET claim_to = 'client:x'", "42501"),
        ("DELETE FROM books.book_move", "42501"),
        ("UPDATE books.book_move SET state = 'settled'", "book_move_state_edges"),
        ("UPDATE books.book_move SET state = 'refused'", "ck_book_move_outcome"),
    ],
)
async def test_the_database_itself_refuses_what_no_verb_does(
    hand: Hand, statement: str, refused: str
) -> None:
    await request(hand)

    with pytest.raises(DBAPIError) as caught:
        await hand.do(lambda conn: conn.execute(text(statement)))

    assert refused in {sqlstate(caught.value), constraint_name(caught.value)}
