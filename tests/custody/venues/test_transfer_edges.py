"""A death around each edge of transfers to and from venues: before its commit, after it, after the act.

For every edge of the three machines there is a life that takes it. The process dies in the transaction
that writes the edge, right before or right after its commit: nothing of it happens any more. Whoever was
at it is at it again, as another process, and the transfer ends once, in books that say what both sides
say. All lives are led in one world, one after the other.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.databases import Server, cloned
from custody.venues import store
from custody.venues.addresses import reject_address, revoke_address, verify_address
from custody.venues.model import (
    ADDRESS_STATES,
    DEPOSIT_STATES,
    MACHINES,
    WITHDRAWAL_STATES,
    AddressState,
    RegisteredAddress,
    VenueDeposit,
    VenueDepositState,
    VenueWithdrawal,
    WithdrawalState,
)
from custody.venues.sending import LEASE
from custody.venues.withdrawals import cancel_withdrawal, reject_withdrawal
from kernel.db import APP_ROLE, create_engine
from kernel.errors import Refused
from kernel.events import list_history
from tests.conftest import IDLE_MS
from tests.custody.payout_world import ETH
from tests.custody.venues.test_decisions import decide, give_up
from tests.custody.venues.transfer_world import (
    ETHEREUM,
    FEE,
    HELD,
    OTHER_ADDRESS,
    PLACE,
    TransferWorld,
    make_transfer_world,
    payment,
)
from venues.treasury_model import VenueAddress, WithdrawalRecord, WithdrawalStatus
from venues.treasury_testing import Answer

A, D, W = AddressState, VenueDepositState, WithdrawalState
NUMBERS = count(1)
TURNS = 6
"""In so many turns a worker brings a transfer to its end, once both sides have done theirs."""
LAPSES = 3 * LEASE
"""After what a transfer lapses that nobody sends; whoever asked and died asks again after a lease."""
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Died(Exception):
    """The process dies here."""


@dataclass
class Death:
    """Ends the process around the commit of the transaction that writes an edge.

    Attributes:
        edge: machine and both states, as the event of the edge has them; None: nobody dies.
        after: whether the commit is done still.
    """

    edge: Edge | None = None
    after: bool = False
    is_dead: bool = False
    _doomed: set[int] = field(default_factory=set)

    def aim(self, edge: Edge, *, after: bool) -> None:
        self.edge, self.after, self.is_dead = edge, after, False

    def rest(self) -> None:
        self.edge, self.is_dead = None, False
        self._doomed.clear()

    def statement(self, conn: Connection, _: object, text: str, values: Any, *__: object) -> None:
        if self.is_dead:
            raise Died
        if self.edge is None or not text.startswith("INSERT INTO kernel.history "):
            return
        rows = json.loads(values[0])
        if any(self.edge == (r["entity_type"], r["from_state"], r["to_state"]) for r in rows):
            self._doomed.add(id(conn))

    def commit(self, conn: Connection) -> None:
        if id(conn) in self._doomed:
            self._doomed.clear()
            self.is_dead = True
            if not self.after:
                conn.invalidate()  # its connection goes with the process
                raise Died


class NotListed(Exception):
    """The venue was never asked for it."""


@dataclass
class Life:
    """One transfer, or one registration: its row is found by what it was asked for with."""

    world: TransferWorld
    ref: str
    amount: int = ETH
    answer: Answer = Answer.ACCEPT
    expires: bool = False
    tx: Any = None
    key: UUID | None = None

    @property
    def now(self) -> Any:
        return self.world.desk.clock.now()

    # From the venue.

    async def ask(self) -> None:
        lapses = self.now + LAPSES if self.expires else None
        await self.world.request(self.amount, client_ref=self.ref, expires_at=lapses)

    async def item(self) -> VenueWithdrawal:
        found = await self.world.desk.run(
            lambda conn: store.find_withdrawal(conn, 1, PLACE, self.ref)
        )
        assert found is not None
        return found

    async def asked(self) -> None:
        await self.ask()
        self.world.treasury.answers = [self.answer]

    async def allow(self) -> None:
        await self.world.approve(await self.item())

    async def allowed(self) -> None:
        await self.asked()
        await self.allow()

    async def lapsing(self) -> None:
        self.expires = True
        await self.asked()

    async def lapsing_and_allowed(self) -> None:
        await self.lapsing()
        await self.allow()

    async def too_much(self) -> None:
        self.amount = 10 * HELD

    async def refuse(self) -> None:
        key = (await self.item()).id
        await self.world.desk.run(
            lambda c: reject_withdrawal(c, key, by="ben", reason="no", now=self.now)
        )

    async def cancel(self) -> None:
        key = (await self.item()).id
        await self.world.desk.run(
            lambda c: cancel_withdrawal(c, key, by="dan", reason="no", now=self.now)
        )

    async def turn(self) -> None:
        await self.world.work(11)

    async def turns(self) -> None:
        for _ in range(TURNS):
            await self.turn()

    async def lapse(self) -> None:
        await self.world.work(2 * LAPSES.total_seconds())

    async def long_turn(self) -> None:
        await self.world.work(self.world.policy.escalate_after.total_seconds())

    async def listed(self) -> str:
        """Return the id under which the venue has it.

        Raises:
            NotListed: it has none.
        """
        own = (await self.item()).withdrawal_id
        refs = [r.venue_ref for r in self.world.treasury.withdrawals.values()]
        found = [r for r in refs if self.world.treasury.withdrawals[r].withdrawal_id == own]
        if not found:
            raise NotListed(self.ref)
        return found[0]

    async def unanswered(self) -> None:
        """Have it sent while the venue says nothing."""
        await self.allowed()
        self.world.treasury.down = True
        await self.turn()

    async def lost(self) -> None:
        self.answer = Answer.LOSE_AFTER
        await self.unanswered()

    async def never_came(self) -> None:
        self.answer = Answer.LOSE_BEFORE
        await self.unanswered()
        self.world.treasury.down = False

    async def escalated(self) -> None:
        await self.lost()
        await self.long_turn()
        self.world.treasury.down = False

    async def escalated_for_nothing(self) -> None:
        self.answer = Answer.LOSE_BEFORE
        await self.unanswered()
        await self.long_turn()
        self.world.treasury.down = False

    async def contradicted(self) -> None:
        """Have the venue send half of what it was asked for."""
        await self.acked()
        ref = await self.listed()
        record = self.world.treasury.withdrawals[ref]
        sent = record.sent // 2
        self.world.treasury.withdrawals[ref] = replace(record, sent=sent)
        self.world.treasury.balances["ETH"] += record.sent - sent
        await self.turn()

    async def say_it_is(self) -> None:
        await decide(self.world, await self.item(), await self.listed())

    async def say_it_is_none(self) -> None:
        await decide(self.world, await self.item(), None)

    async def say_what_moved(self) -> None:
        ref = await self.listed()
        record = self.world.treasury.withdrawals[ref]
        await decide(self.world, await self.item(), ref, (record.sent, record.fee))

    async def acked(self) -> None:
        """Have it accepted, and no list answered."""
        await self.unanswered()
        self.world.treasury.down = False

    async def unlisted(self) -> None:
        await self.acked()
        self.world.treasury.withheld = {await self.listed()}

    async def failed(self) -> None:
        await self.acked()
        self.world.treasury.fail(await self.listed())

    async def debited(self) -> None:
        await self.allowed()
        await self.turn()

    async def debited_and_failed(self) -> None:
        await self.debited()
        self.world.treasury.fail(await self.listed())

    async def pay(self) -> None:
        """Have the venue name its transaction, which no block has yet."""
        ref, item = await self.listed(), await self.item()
        record = self.world.treasury.withdrawals[ref]
        self.tx = payment(item.address, record.sent, salt=self.ref)
        self.world.treasury.pay(ref, self.tx.hash)

    async def paid(self) -> None:
        await self.debited()
        await self.pay()

    async def on_its_way(self) -> None:
        await self.paid()
        await self.turn()

    async def on_its_way_and_failed(self) -> None:
        await self.on_its_way()
        self.world.treasury.fail(await self.listed())

    async def in_a_block(self) -> None:
        await self.on_its_way()
        self.world.desk.gateway.mine(self.tx)
        await self.world.confirm()

    async def arrived_and_lost(self) -> None:
        await self.in_a_block()
        await self.turn()
        await self.lose_blocks()

    async def lose_blocks(self) -> None:
        self.world.desk.gateway.reorg(4, [[], [], [], [], []])
        await self.world.desk.follow()

    async def write_off(self) -> None:
        await give_up(self.world, await self.item())

    async def hidden_and_given_up(self) -> None:
        await self.lost()
        self.world.treasury.down = False
        self.world.treasury.withheld = {await self.listed()}
        await self.turns()
        self.world.treasury.withheld = set()

    async def refused_and_listed(self) -> None:
        """Have the venue refuse it and make it all the same."""
        self.answer = Answer.REFUSE
        await self.allowed()
        await self.turn()
        item, treasury = await self.item(), self.world.treasury
        treasury.balances["ETH"] -= item.amount
        treasury.withdrawals[self.ref] = WithdrawalRecord(
            venue_ref=self.ref,
            withdrawal_id=item.withdrawal_id,
            asset="ETH",
            network=ETHEREUM,
            address=item.address,
            tag="",
            sent=item.amount - FEE,
            fee=FEE,
            status=WithdrawalStatus.PROCESSING,
            tx_id="",
            at=self.now,
        )

    async def with_answer(self, answer: Answer) -> None:
        self.answer = answer
        await self.allowed()

    async def end(self) -> None:
        """Let both sides do what is left, until nothing is."""
        treasury = self.world.treasury
        treasury.down, treasury.withheld = False, set()
        if not await self.is_there():
            return
        for _ in range(TURNS):
            await self.turn()
            item = await self.item()
            if item.state is W.PENDING_APPROVAL:
                await self.allow()
            elif item.state is W.ESCALATED:
                await self.say_it_is()
            elif item.state is W.DEBITED and self.tx is None:
                await self.pay()
            elif item.state is W.SENT:
                self.world.desk.gateway.mine(self.tx)
                await self.world.confirm()
            elif item.state is not W.DEBITED and item.state not in UNDER_WAY:
                return

    async def is_there(self) -> bool:
        found = await self.world.desk.run(
            lambda conn: store.find_withdrawal(conn, 1, PLACE, self.ref)
        )
        return found is not None

    # To the venue.

    async def row(self) -> VenueDeposit:
        rows = await self.world.rows_out()
        return next(row for row in rows if row.payout_id == self.key)

    async def sent_out(self) -> None:
        payout = await self.world.send_and_mine(self.amount, client_ref=self.ref)
        self.key = payout.id
        await self.world.confirm()
        self.world.treasury.show_deposit(payout.tx_hash or "", "ETH", ETHEREUM, self.amount)

    async def rejected_out(self) -> None:
        payout, _ = await self.world.send(10**6 * ETH, client_ref=self.ref)
        self.key = payout.id

    async def credited_and_lost(self) -> None:
        await self.sent_out()
        await self.turn()
        await self.lose_blocks()

    async def send_again(self) -> None:
        if (await self.row()).state is D.OPEN:
            for _ in range(2):
                await self.world.desk.advance()
            await self.world.desk.mine()
            await self.world.confirm()
        await self.turn()

    # Where it goes.

    async def address(self) -> RegisteredAddress:
        assert self.key is not None
        return await self.world.desk.run(partial(store.get_address, address_id=self.key))

    async def proposed(self) -> None:
        self.key = (await self.world.propose("USDT")).id

    async def registered(self) -> None:
        self.key = (await self.world.register("USDT")).id

    async def register(self) -> None:
        await self.world.approve_address(await self.address())

    async def turn_down(self) -> None:
        await self._about(reject_address)

    async def revoke(self) -> None:
        await self._about(revoke_address)

    async def _about(self, verb: Callable[..., Awaitable[object]]) -> None:
        key = self.key
        await self.world.desk.run(
            lambda conn: verb(conn, key, by="ben", reason="closed", now=self.now)
        )

    async def renamed(self) -> None:
        await self.registered()
        self.world.treasury.addresses["USDT", ETHEREUM] = VenueAddress(OTHER_ADDRESS)

    async def renamed_and_seen(self) -> None:
        await self.renamed()
        await self.look()

    async def look(self) -> None:
        assert self.key is not None
        desk = self.world.desk
        await verify_address(desk.engine, self.world.treasury, self.key, clock=desk.clock)

    async def forget(self) -> None:
        """Leave the place free for the next life."""
        ether = self.world.treasury.addresses["ETH", ETHEREUM]
        self.world.treasury.addresses["USDT", ETHEREUM] = ether
        if (await self.address()).state in {A.ACTIVE, A.CHANGED}:
            await self.revoke()


UNDER_WAY = {*(W.APPROVED, W.SUBMITTING, W.UNKNOWN, W.ACKED), W.SENT}
Edge = tuple[str, str, str]
"""Machine, state before, state after."""
Act = Callable[[Life], Awaitable[None]]


@dataclass(frozen=True)
class Way:
    """A life that takes an edge: what was before, who is at it when the process dies, how it ends."""

    before: Act
    act: Act
    ends: frozenset[str]
    then: Act = Life.end


def way(before: Act, act: Act, *ends: str, then: Act = Life.end) -> Way:
    return Way(before, act, frozenset(ends), then)


async def nothing(_: Life) -> None:
    """Nothing was before."""


def answered(answer: Answer) -> Act:
    return lambda life: life.with_answer(answer)


OUT, BACK, WHERE = DEPOSIT_STATES.table, WITHDRAWAL_STATES.table, ADDRESS_STATES.table
WAYS: dict[Edge, Way] = {
    (WHERE, A.PROPOSED, A.ACTIVE): way(Life.proposed, Life.register, A.REVOKED, then=Life.forget),
    (WHERE, A.PROPOSED, A.REJECTED): way(
        Life.proposed, Life.turn_down, A.REJECTED, then=Life.forget
    ),
    (WHERE, A.ACTIVE, A.CHANGED): way(Life.renamed, Life.look, A.REVOKED, then=Life.forget),
    (WHERE, A.ACTIVE, A.REVOKED): way(Life.registered, Life.revoke, A.REVOKED, then=Life.forget),
    (WHERE, A.CHANGED, A.REVOKED): way(
        Life.renamed_and_seen, Life.revoke, A.REVOKED, then=Life.forget
    ),
    (OUT, D.OPEN, D.CREDITED): way(Life.sent_out, Life.turn, D.CREDITED, then=Life.send_again),
    (OUT, D.OPEN, D.ENDED): way(Life.rejected_out, Life.turn, D.ENDED, then=Life.turn),
    (OUT, D.CREDITED, D.OPEN): way(
        Life.credited_and_lost, Life.turn, D.CREDITED, then=Life.send_again
    ),
    (BACK, W.REQUESTED, W.PENDING_APPROVAL): way(nothing, Life.ask, W.ARRIVED),
    (BACK, W.REQUESTED, W.REJECTED): way(Life.too_much, Life.ask, W.REJECTED),
    (BACK, W.PENDING_APPROVAL, W.APPROVED): way(Life.asked, Life.allow, W.ARRIVED),
    (BACK, W.PENDING_APPROVAL, W.REJECTED): way(Life.asked, Life.refuse, W.REJECTED),
    (BACK, W.PENDING_APPROVAL, W.CANCELLED): way(Life.asked, Life.cancel, W.CANCELLED),
    (BACK, W.PENDING_APPROVAL, W.EXPIRED): way(Life.lapsing, Life.lapse, W.EXPIRED),
    (BACK, W.APPROVED, W.REJECTED): way(Life.allowed, Life.refuse, W.REJECTED),
    (BACK, W.APPROVED, W.CANCELLED): way(Life.allowed, Life.cancel, W.CANCELLED),
    (BACK, W.APPROVED, W.EXPIRED): way(Life.lapsing_and_allowed, Life.lapse, W.EXPIRED),
    (BACK, W.APPROVED, W.SUBMITTING): way(Life.allowed, Life.turn, W.ARRIVED, W.NOT_PLACED),
    (BACK, W.SUBMITTING, W.ACKED): way(Life.allowed, Life.turn, W.ARRIVED),
    (BACK, W.SUBMITTING, W.REFUSED): way(
        answered(Answer.REFUSE), Life.turn, W.REFUSED, W.NOT_PLACED
    ),
    (BACK, W.SUBMITTING, W.UNKNOWN): way(answered(Answer.LOSE_AFTER), Life.turn, W.ARRIVED),
    (BACK, W.UNKNOWN, W.ACKED): way(answered(Answer.LOSE_AFTER), Life.turn, W.ARRIVED),
    (BACK, W.UNKNOWN, W.NOT_PLACED): way(Life.never_came, Life.turns, W.NOT_PLACED),
    (BACK, W.UNKNOWN, W.ESCALATED): way(Life.lost, Life.long_turn, W.ARRIVED),
    (BACK, W.ESCALATED, W.ACKED): way(Life.escalated, Life.say_it_is, W.ARRIVED),
    (BACK, W.ESCALATED, W.NOT_PLACED): way(
        Life.escalated_for_nothing, Life.say_it_is_none, W.NOT_PLACED
    ),
    (BACK, W.ESCALATED, W.DEBITED): way(Life.contradicted, Life.say_what_moved, W.ARRIVED),
    (BACK, W.ACKED, W.DEBITED): way(Life.acked, Life.turn, W.ARRIVED),
    (BACK, W.ACKED, W.RETURNED): way(Life.failed, Life.turn, W.RETURNED),
    (BACK, W.ACKED, W.ESCALATED): way(Life.unlisted, Life.long_turn, W.ARRIVED),
    (BACK, W.DEBITED, W.SENT): way(Life.paid, Life.turn, W.ARRIVED),
    (BACK, W.DEBITED, W.RETURNED): way(Life.debited_and_failed, Life.turn, W.RETURNED),
    (BACK, W.DEBITED, W.LOST): way(Life.debited, Life.write_off, W.LOST),
    (BACK, W.SENT, W.ARRIVED): way(Life.in_a_block, Life.turn, W.ARRIVED),
    (BACK, W.SENT, W.RETURNED): way(Life.on_its_way_and_failed, Life.turn, W.RETURNED),
    (BACK, W.SENT, W.LOST): way(Life.on_its_way, Life.write_off, W.LOST),
    (BACK, W.ARRIVED, W.SENT): way(Life.arrived_and_lost, Life.turn, W.ARRIVED),
    (BACK, W.NOT_PLACED, W.ACKED): way(Life.hidden_and_given_up, Life.turn, W.ARRIVED),
    (BACK, W.REFUSED, W.ACKED): way(Life.refused_and_listed, Life.turn, W.ARRIVED),
}


def every_edge() -> set[Edge]:
    return {(m.table, str(a), str(b)) for m in MACHINES for a, b in m.edges}


async def test_every_edge_has_a_way() -> None:
    assert set(WAYS) == every_edge()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(database_server: Server, database_template: str) -> AsyncIterator[AsyncEngine]:
    name = f"causeway_edges_{secrets.token_hex(6)}"
    with cloned(database_server, database_template, name) as database:
        made = create_engine(
            database.app_url,
            role=APP_ROLE,
            injected_clock=True,
            idle_in_transaction_timeout_ms=IDLE_MS,
        )
        yield made
        await made.dispose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    engine: AsyncEngine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[TransferWorld]:
    async with make_transfer_world(engine, tmp_path_factory.mktemp("edges")) as made:
        yield made


@pytest.fixture
def world(shared: TransferWorld, death: Death) -> TransferWorld:
    """The one world, where nobody is dying and the venue is well."""
    death.rest()
    treasury = shared.treasury
    treasury.down, treasury.withheld, treasury.answers = False, set(), []
    return shared


@pytest.fixture(scope="module")
def death(engine: AsyncEngine) -> Death:
    made = Death()
    event.listen(engine.sync_engine, "before_cursor_execute", made.statement)
    event.listen(engine.sync_engine, "commit", made.commit)
    return made


async def history(life: Life, table: str) -> list[Edge]:
    if table == BACK:
        if not await life.is_there():
            return []
        key = (await life.item()).id
    else:
        key = (await life.row()).id if table == OUT else life.key or UUID(int=0)
    events = await life.world.desk.run(lambda conn: list_history(conn, table, key))
    return [(table, str(e.from_state), str(e.to_state)) for e in events]


async def state(life: Life, table: str) -> str:
    if table == BACK:
        return (await life.item()).state
    return (await (life.row() if table == OUT else life.address())).state


async def goes_on(life: Life, edge: Edge, chosen: Way, before: Rest, *, done: bool) -> None:
    """Have another process go on, and see the transfer end once."""
    world = life.world
    world.holder = f"treasurer-{next(NUMBERS)}"
    world.desk.clock.advance(LEASE + timedelta(seconds=1))
    try:
        await chosen.act(life)
    except Refused:
        assert done, "what did not happen can be done again"
    await chosen.then(life)

    assert await state(life, edge[0]) in chosen.ends
    counted = (await history(life, edge[0])).count(edge)
    assert counted == 1 or edge in MAY_BE_MISSED, (edge, counted)
    assert await rest_of(world) == before
    sent = [ticket.withdrawal_id for ticket in world.treasury.requests]
    assert len(sent) == len(set(sent))
    await world.desk.assert_rule_two()


MAY_BE_MISSED = {
    (BACK, W.APPROVED, W.SUBMITTING),
    (BACK, W.SUBMITTING, W.ACKED),
    (BACK, W.SUBMITTING, W.REFUSED),
    (BACK, W.SUBMITTING, W.UNKNOWN),
}
"""What the venue answered is known to nobody when the process dies with it: evidence takes another way."""


@dataclass(frozen=True)
class Rest:
    """What is on its way, and by how much the books and the venue differ."""

    ways: frozenset[tuple[str, tuple[int, int, int]]]
    pending: tuple[int, int]
    apart: int


async def rest_of(world: TransferWorld) -> Rest:
    """Look at the books: of a life nothing may be left in them but what both sides have."""
    books = await world.desk.books()
    balance, *pending = books[PLACE.path, "ETH"]
    ways = {(p, figures) for (p, _), figures in books.items() if p.startswith(("tran", "susp"))}
    apart = balance - world.treasury.balances["ETH"]
    return Rest(frozenset(ways), (pending[0], pending[1]), apart)


@pytest.mark.parametrize("edge", sorted(WAYS), ids="-".join)
async def test_a_death_around_an_edge_changes_nothing_of_how_it_ends(
    world: TransferWorld, death: Death, edge: Edge
) -> None:
    for after in (False, True):
        life, chosen = Life(world, f"life-{next(NUMBERS)}"), WAYS[edge]
        before = await rest_of(world)
        world.desk.clock.advance(timedelta(seconds=1))
        await chosen.before(life)
        death.aim(edge, after=after)
        with suppress(Died):
            await chosen.act(life)
        assert death.is_dead, "the edge was not taken"
        death.rest()
        assert (edge in await history(life, edge[0])) is after
        await goes_on(life, edge, chosen, before, done=after)


@pytest.mark.parametrize("answer", Answer)
async def test_a_death_right_after_the_venue_has_acted_ends_with_the_venues_truth(
    world: TransferWorld, answer: Answer
) -> None:
    life = Life(world, f"life-{next(NUMBERS)}", answer=answer)
    before = await rest_of(world)
    await life.allowed()

    def die() -> None:
        raise Died

    world.treasury.on_withdraw = die
    with pytest.raises(Died):
        await life.turn()
    world.treasury.on_withdraw = None
    edge = (BACK, str(W.APPROVED), str(W.SUBMITTING))
    assert edge in await history(life, BACK)
    end = W.ARRIVED if answer in {Answer.ACCEPT, Answer.LOSE_AFTER} else W.NOT_PLACED
    await goes_on(life, edge, way(nothing, Life.turn, end), before, done=True)
