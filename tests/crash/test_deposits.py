"""Whoever takes a deposit along an edge dies there: the next one goes on, and the books are a clean run's.

The points are those of the state table: an edge that no story here takes fails a test.
"""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import chain.walk
import custody.compliance.screening
import custody.deposits
import custody.venues.following
import tests.custody.house
from app.local.databases import Server, cloned
from chain.model import Block, BlockContents, WatchList
from chain.testing import ScriptedGateway, ScriptedTransaction
from custody import quarantine
from custody.attribution import attribution_bytes
from custody.attributions import attribute
from custody.compliance import decisions, people
from custody.compliance.address_list import AddressList
from custody.compliance.model import Answer, Question, Verdict
from custody.deposit_model import DEPOSIT_STATES, Deposit
from custody.model import AddressPurpose
from custody.payouts import reject_payout
from custody.policy import ConfirmationPolicy, Requirement, Rule
from custody.testing import allow, set_policy
from custody.venues.model import Place, TransferPolicy, VenueWithdrawal, WithdrawalState
from custody.venues.store import insert_withdrawal
from custody.venues.worker import advance_venue_transfers
from kernel.db import APP_ROLE, create_engine, transact
from kernel.errors import CausewayError, CommitUnknown
from kernel.ids import derive_id
from kernel.money import Asset
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from ledger.verification import verify
from registry.model import ChainAsset
from registry.queries import get_operator
from registry.testing import TOKEN, change, operator_keypair
from tests.custody.house import BOOK, ETHER, FAKE_TOKEN, OTHER, STRANGER, House
from venues.treasury_testing import ScriptedTreasury

NEW: Final = "new"
Edge = tuple[str, str]


class LossyGateway(ScriptedGateway):
    """A chain with tokens that say they moved more than they did."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: dict[tuple[str, str | None], int] = {}

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        """Show the fake token as well, as if it had been registered when the follower looked."""
        seen = WatchList(watch.addresses, watch.contracts | {FAKE_TOKEN})
        return await super().contents(block, seen)

    async def balance(self, address: str, contract: str | None, *, at: Block) -> int:
        found = await super().balance(address, contract, at=at)
        return max(0, found - self.losses.get((address, contract), 0))


@dataclass
class MortalHouse(House):
    """A house whose workers die, on a chain whose blocks go and whose tokens lie.

    Attributes:
        killer: connects as who may end other connections, and may write past the triggers.
        back: transactions that a reorganisation took away.
    """

    gateway: LossyGateway = field(default_factory=LossyGateway)
    killer: AsyncEngine = None  # type: ignore[assignment]  # always given
    back: list[ScriptedTransaction] = field(default_factory=list)


Act = Callable[[MortalHouse], Awaitable[Any]]


Houses = Callable[[], AbstractAsyncContextManager[MortalHouse]]


@pytest.fixture
def houses(database_server: Server, database_template: str) -> Houses:
    """Give houses, each with a database of its own for as long as it stands."""

    @asynccontextmanager
    async def make() -> AsyncIterator[MortalHouse]:
        name = f"causeway_crash_{secrets.token_hex(6)}"
        with cloned(database_server, database_template, name) as database:
            engine = create_engine(database.app_url, role=APP_ROLE, injected_clock=True)
            killer = create_engine(database.owner_url)
            try:
                yield MortalHouse(engine, killer=killer)
            finally:
                await engine.dispose()
                await killer.dispose()

    return make


class Died(BaseException):
    """The worker is gone: nothing catches this."""


class Death(StrEnum):
    """Where it dies."""

    BEFORE_COMMIT = "before commit"
    AFTER_COMMIT = "after commit"
    CONNECTION_CUT = "connection cut at commit"


IS_SOAK: Final = os.environ.get("CAUSEWAY_HYPOTHESIS") == "soak"
EDGES_AT_ONCE: Final = 12
"""Edges at which a usual run dies, each of one death, drawn anew; a soak dies at each of all deaths."""


@dataclass
class Fate:
    """Dies once, at the transaction that takes the edge."""

    edge: Edge
    death: Death | None
    killer: AsyncEngine
    taken: int = 0

    async def transact(
        self, engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[Any]], **more: Any
    ) -> Any:
        took = False

        async def watched(conn: AsyncConnection) -> Any:
            nonlocal took
            result = await work(conn)
            took = await self._count(conn) > self.taken
            if took and self.death is Death.BEFORE_COMMIT:
                raise self._die()
            if took and self.death is Death.CONNECTION_CUT:
                await self._cut(conn)
            return result

        try:
            result = await transact(engine, watched, **more)
        except CommitUnknown:
            raise self._die() from None
        if took:
            self.taken += 1
            if self.death is Death.AFTER_COMMIT:
                raise self._die()
        return result

    def _die(self) -> Died:
        self.death = None
        return Died()

    async def _count(self, conn: AsyncConnection) -> int:
        before, after = self.edge
        began = "from_state IS NULL" if before == NEW else "from_state = :before"
        query = text(
            "SELECT count(*) FROM kernel.history WHERE entity_type = 'deposit' "  # noqa: S608  of this file
            f"AND to_state = :after AND {began}"
        )
        named = {"after": after} | ({} if before == NEW else {"before": before})
        return int(await conn.scalar(query, named) or 0)

    async def _cut(self, conn: AsyncConnection) -> None:
        pid = await conn.scalar(text("SELECT pg_backend_pid()"))
        async with self.killer.connect() as other:
            await other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


# What workers and people do. Each looks first: what is done already is not done again.


async def follow(house: MortalHouse) -> None:
    await house.follow()


async def advance(house: MortalHouse) -> None:
    await house.advance()


async def one(house: MortalHouse) -> Deposit:
    (found,) = await house.deposits()
    return found


def signed(payload: bytes, *codes: str) -> dict[str, bytes]:
    return {code: operator_keypair(code).sign(payload) for code in codes}


async def release(house: MortalHouse) -> None:
    await house.release((await one(house)).id)


async def refund(house: MortalHouse) -> None:
    deposit = await one(house)
    payload = people.refund_bytes(
        await house.case(deposit.id), "back", destination=OTHER, wallet="client-pool"
    )
    await house.do(
        lambda conn: decisions.refund(
            conn,
            deposit.id,
            destination=OTHER,
            source_wallet="client-pool",
            signatures=signed(payload, "ben", "cleo"),
            reason="back",
            book=BOOK,
            now=house.now,
        )
    )


async def adopt(house: MortalHouse) -> None:
    deposit = await one(house)
    signatures = signed(people.deposit_bytes(people.ADOPT_VERB, deposit, "known"), "ben", "cleo")
    await house.do(
        lambda conn: quarantine.adopt(
            conn, deposit.id, signatures=signatures, reason="known", book=BOOK, now=house.now
        )
    )


async def dismiss(house: MortalHouse) -> None:
    deposit = await one(house)
    signatures = signed(people.deposit_bytes(people.DISMISS_VERB, deposit, "forged"), "ben")
    await house.do(
        lambda conn: quarantine.dismiss(
            conn, deposit.id, signatures=signatures, reason="forged", now=house.now
        )
    )


async def attribute_it(house: MortalHouse) -> None:
    deposit = await one(house)
    payload = attribution_bytes(deposit, "equity:capital", "ours")
    by = signed(payload, "ada", "cleo")
    await house.do(
        lambda conn: attribute(
            conn,
            deposit.id,
            credit="equity:capital",
            reason="ours",
            first="ada",
            first_signature=by["ada"],
            second="cleo",
            second_signature=by["cleo"],
            book=BOOK,
            now=house.now,
        )
    )


async def treasurer(house: MortalHouse) -> None:
    """Look after transfers to and from the venue, which lists nothing new."""
    await advance_venue_transfers(
        house.engine,
        ScriptedTreasury(house.clock),
        book=BOOK,
        holder="treasurer",
        clock=house.clock,
        policy=TransferPolicy(),
    )


# How a deposit gets to where the edge begins.


class Unknowing(AddressList):
    """Answers nothing."""

    def __init__(self) -> None:
        super().__init__(1)

    async def screen(self, questions: Any) -> list[Answer]:
        def answer(_: Question) -> Answer:
            return Answer(Verdict.UNKNOWN)

        return [answer(question) for question in questions]


async def mined(house: MortalHouse) -> None:
    house.mine(house.pay(house.acme, ETHER))


async def fake_mined(house: MortalHouse) -> None:
    house.mine(house.pay_token((house.acme, 5), contract=FAKE_TOKEN))


async def included(house: MortalHouse) -> None:
    await mined(house)
    await follow(house)


async def deep(house: MortalHouse) -> None:
    house.mine(house.pay(house.acme, ETHER), empty_after=2)
    await follow(house)


async def confirmed(house: MortalHouse) -> None:
    house.screening = Unknowing()
    await deep(house)
    await advance(house)


async def answered(house: MortalHouse) -> None:
    await confirmed(house)
    house.screening = AddressList(1)


async def screened(house: MortalHouse) -> None:
    await confirmed(house)
    await house.do(lambda conn: conn.execute(text("UPDATE custody.deposit SET state = 'screened'")))


async def listed(house: MortalHouse) -> None:
    await confirmed(house)
    house.screening = AddressList.blocking(1, {STRANGER})


async def held(house: MortalHouse) -> None:
    await listed(house)
    await advance(house)
    await house.assign("client-pool", AddressPurpose.HOT, None)

    async def rules(conn: AsyncConnection) -> None:
        await set_policy(conn, now=house.now)
        await allow(conn, "acme", OTHER, now=house.now)

    await house.do(rules)


async def refunding(house: MortalHouse) -> None:
    await held(house)
    await refund(house)


async def refund_refused(house: MortalHouse) -> None:
    await refunding(house)
    payout = (await one(house)).refund
    assert payout is not None

    async def refuse(conn: AsyncConnection) -> None:
        cleo = await get_operator(conn, "cleo")
        await reject_payout(conn, payout, by=cleo, reason="no", book=BOOK, now=house.now)

    await house.do(refuse)


IN_A_BLOCK = (
    "UPDATE custody.payout SET tx_hash = '0x01', mined_block = '0x02', mined_height = 1,"
    " fee_paid = 0, succeeded = true"
)


async def set_payout(house: MortalHouse, state: str) -> None:
    """Say what the payout's own machine would have said; its crashes have tests of their own."""
    async with house.killer.begin() as conn:
        await conn.execute(text("ALTER TABLE custody.payout DISABLE TRIGGER USER"))
        if state == "confirmed":
            await conn.execute(text(IN_A_BLOCK))
        await conn.execute(text("UPDATE custody.payout SET state = :state"), {"state": state})
        await conn.execute(text("ALTER TABLE custody.payout ENABLE TRIGGER USER"))


async def refund_paid(house: MortalHouse) -> None:
    await refunding(house)
    await set_payout(house, "confirmed")


async def refunded(house: MortalHouse) -> None:
    await refund_paid(house)
    await advance(house)


async def refund_unpaid(house: MortalHouse) -> None:
    await refunded(house)
    await set_payout(house, "signed")


async def dust_to_come(house: MortalHouse) -> None:
    house.policy = ConfirmationPolicy(1, (Rule(Requirement(3)),), {"evm:ETH": 2 * ETHER})
    await deep(house)


async def stray(house: MortalHouse) -> None:
    house.mine(house.pay(house.hot, ETHER), empty_after=2)
    await follow(house)


async def name_it(house: MortalHouse, transaction: ScriptedTransaction) -> None:
    """Have the venue name the transaction of a withdrawal of ours.

    It says what the withdrawal's own machine would have said, whose crashes have tests of their own.
    """
    item = withdrawal(house, transaction)
    async with house.killer.begin() as conn:
        await conn.execute(text("ALTER TABLE custody.venue_withdrawal DISABLE TRIGGER USER"))
        assert await insert_withdrawal(conn, item)
        await conn.execute(text("ALTER TABLE custody.venue_withdrawal ENABLE TRIGGER USER"))

    async def debit(conn: AsyncConnection) -> None:
        await ensure_accounts(
            conn, BOOK, {(item.route, item.asset), ("equity:opening", item.asset)}, now=house.now
        )
        left = transfer(
            item.id, item.route, "equity:opening", transaction.value, item.asset, code="test"
        )
        require_applied(await post(conn, BOOK, [left], now=house.now))

    await house.do(debit)


def withdrawal(house: MortalHouse, transaction: ScriptedTransaction) -> VenueWithdrawal:
    """Return a withdrawal that the venue has sent with *transaction*."""
    place = Place("sim", "main")
    return VenueWithdrawal(
        id=derive_id(house.now, "withdrawal", transaction.hash),
        book=BOOK,
        client_ref="back",
        venue=place.venue,
        account=place.account,
        asset="ETH",
        network="ETH",
        chain="evm",
        chain_id=1,
        wallet="house-hot",
        address=house.hot,
        amount=transaction.value,
        text="1",
        fee_max=0,
        requested_by="dan",
        reason="",
        policy_version=1,
        rule=1,
        required=(),
        withdrawal_id="ours",
        state=WithdrawalState.SENT,
        signed_at=house.now,
        window=timedelta(seconds=5),
        venue_ref="theirs",
        sent=transaction.value,
        fee=0,
        tx_id=transaction.hash,
        arrival_id=None,
        not_found=0,
        waiting_for="",
        run_after=house.now,
        requested_at=house.now,
        updated_at=house.now,
        expires_at=house.now + timedelta(days=1),
        released_at=house.now,
        late_since=None,
        fence=0,
    )


async def own_coins(house: MortalHouse) -> None:
    """What a venue has named comes to a hot address, deep enough."""
    transaction = house.pay(house.hot, ETHER)
    await name_it(house, transaction)
    house.mine(transaction, empty_after=2)
    await follow(house)


async def named_late(house: MortalHouse) -> None:
    """The venue names a transaction that was taken for nobody's."""
    transaction = house.pay(house.hot, ETHER)
    house.mine(transaction, empty_after=2)
    await follow(house)
    await advance(house)
    await name_it(house, transaction)


async def nothing_came(house: MortalHouse) -> None:
    house.gateway.losses[house.acme, TOKEN] = 100
    house.proves = True
    house.mine(house.pay_token((house.acme, 100)), empty_after=2)
    await follow(house)


async def quarantined(house: MortalHouse) -> None:
    await fake_mined(house)
    await follow(house)


async def registered(house: MortalHouse) -> None:
    await quarantined(house)
    token = ChainAsset("evm:FAKE", "evm", FAKE_TOKEN, 6, "FAKE")
    await house.do(lambda conn: change(conn, Asset("FAKE", 6), now=house.now))
    await house.do(lambda conn: change(conn, token, now=house.now))


async def dismissed(house: MortalHouse) -> None:
    await quarantined(house)
    await dismiss(house)


async def dismissed_registered(house: MortalHouse) -> None:
    await registered(house)
    await dismiss(house)


def then(*acts: Act) -> Act:
    async def all_of_them(house: MortalHouse) -> None:
        for act in acts:
            await act(house)

    return all_of_them


async def gone(house: MortalHouse) -> None:
    """The blocks that hold it are replaced by empty ones."""
    depth = len(house.gateway.blocks) - (await one(house)).height
    house.back = house.gateway.reorg(depth, [[]] * (depth + 1))


async def back(house: MortalHouse) -> None:
    house.mine(*house.back)


async def token_deep(house: MortalHouse) -> None:
    house.mine(house.pay_token((house.acme, 100), tx_hash="0x" + "ab" * 32), empty_after=2)
    await follow(house)


async def back_unbelievable(house: MortalHouse) -> None:
    """The same transaction logs an impossible amount on the other branch."""
    (known,) = house.back
    leg = house.pay_token((house.acme, 2**200), tx_hash=known.hash)
    house.mine(leg)


@dataclass(frozen=True)
class Story:
    prepare: Act
    act: Act
    ends: str


STORIES: Final[dict[Edge, Story]] = {
    (NEW, "included"): Story(mined, follow, "included"),
    (NEW, "quarantined"): Story(fake_mined, follow, "quarantined"),
    ("included", "orphaned"): Story(then(included, gone), follow, "orphaned"),
    ("confirmed", "orphaned"): Story(then(confirmed, gone), follow, "orphaned"),
    ("screened", "orphaned"): Story(then(screened, gone), follow, "orphaned"),
    ("orphaned", "included"): Story(then(included, gone, follow, back), follow, "included"),
    ("quarantined", "orphaned"): Story(then(quarantined, gone), follow, "orphaned"),
    ("dismissed", "orphaned"): Story(then(dismissed, gone), follow, "orphaned"),
    ("orphaned", "quarantined"): Story(
        then(quarantined, gone, follow, back), follow, "quarantined"
    ),
    ("quarantined", "dismissed"): Story(quarantined, dismiss, "dismissed"),
    ("quarantined", "included"): Story(registered, adopt, "included"),
    ("dismissed", "included"): Story(dismissed_registered, adopt, "included"),
    ("confirmed", "quarantined"): Story(nothing_came, advance, "quarantined"),
    ("included", "confirmed"): Story(deep, advance, "credited"),
    ("confirmed", "screened"): Story(answered, advance, "credited"),
    ("screened", "credited"): Story(answered, advance, "credited"),
    ("confirmed", "held"): Story(listed, advance, "held"),
    ("confirmed", "dust"): Story(dust_to_come, advance, "dust"),
    ("confirmed", "unattributed"): Story(stray, advance, "unattributed"),
    ("confirmed", "arrived"): Story(own_coins, advance, "arrived"),
    ("unattributed", "arrived"): Story(named_late, treasurer, "arrived"),
    ("arrived", "reversed"): Story(then(own_coins, advance, gone), follow, "reversed"),
    ("held", "credited"): Story(held, release, "credited"),
    ("held", "refunding"): Story(held, refund, "refunding"),
    ("refunding", "held"): Story(refund_refused, advance, "held"),
    ("refunding", "refunded"): Story(refund_paid, advance, "refunded"),
    ("refunded", "refunding"): Story(refund_unpaid, advance, "refunding"),
    ("unattributed", "attributed"): Story(then(stray, advance), attribute_it, "attributed"),
    ("credited", "reversed"): Story(then(deep, advance, gone), follow, "reversed"),
    ("held", "reversed"): Story(then(held, gone), follow, "reversed"),
    ("refunding", "reversed"): Story(then(refunding, gone), follow, "reversed"),
    ("refunded", "reversed"): Story(then(refunded, gone), follow, "reversed"),
    ("dust", "reversed"): Story(then(dust_to_come, advance, gone), follow, "reversed"),
    ("unattributed", "reversed"): Story(then(stray, advance, gone), follow, "reversed"),
    ("attributed", "reversed"): Story(then(stray, advance, attribute_it, gone), follow, "reversed"),
    ("reversed", "included"): Story(then(deep, advance, gone, follow, back), follow, "included"),
    ("reversed", "quarantined"): Story(
        then(token_deep, advance, gone, follow, back_unbelievable), follow, "quarantined"
    ),
}


def test_every_edge_of_a_deposit_has_a_story() -> None:
    edges = {(str(a), str(b)) for a, b in DEPOSIT_STATES.edges}
    edges |= {(NEW, str(state)) for state in DEPOSIT_STATES.initial}

    assert set(STORIES) == edges


@pytest.mark.timeout(1_800)
async def test_a_death_at_an_edge_changes_nothing_in_the_end(
    houses: Houses, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = list(STORIES) if IS_SOAK else random.sample(list(STORIES), EDGES_AT_ONCE)
    for edge in edges:
        async with houses() as house:
            lived = await play(house, edge, None, monkeypatch)
        assert lived[0] == STORIES[edge].ends, edge

        for death in Death if IS_SOAK else [random.choice(list(Death))]:
            async with houses() as house:
                assert await play(house, edge, death, monkeypatch) == lived, (edge, death)


async def play(
    house: MortalHouse, edge: Edge, death: Death | None, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, ...]:
    """Play the story of an edge with a death in it; return what people and books see at the end."""
    story = STORIES[edge]
    await house.open()
    await story.prepare(house)
    fate = Fate(edge, death, house.killer)
    async with house.engine.connect() as conn:
        fate.taken = await fate._count(conn)
    start = fate.taken
    with monkeypatch.context() as patch:
        for module in (
            chain.walk,
            custody.deposits,
            custody.compliance.screening,
            custody.venues.following,
        ):
            patch.setattr(module, "transact", fate.transact)
        patch.setattr(tests.custody.house, "transact", fate.transact)
        died = 0
        for _ in range(4):
            try:
                await story.act(house)
            except Died:
                died += 1
                house.clock.advance(timedelta(seconds=1))
                continue
            except CausewayError:
                # People look before they say it again: it was done.
                assert died == 1
                assert death is not Death.BEFORE_COMMIT
            break
    assert died == (0 if death is None else 1)
    async with house.engine.connect() as conn:
        assert await fate._count(conn) == start + 1
    await house.advance()
    return await seen(house)


async def seen(house: MortalHouse) -> tuple[Any, ...]:
    deposit = await one(house)
    history = await house.do(lambda conn: custody.deposits.explain(conn, deposit.id))
    assert [event.version for event in history] == list(range(1, len(history) + 1))
    faults = await verify(house.engine, BOOK)
    assert faults == []
    return (
        str(deposit.state),
        deposit.epoch,
        await house.balances(),
        sorted(await house.open_holds()),
        [event.name for event in history],
    )
