"""What must not happen to deposits: one stops the others, coins counted twice, a signature used again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.errors import UnreadableAnswer
from chain.jsonrpc import RpcRefusal
from chain.model import Block, BlockContents, Included, Movement, WatchList
from chain.testing import ScriptedGateway
from custody import quarantine
from custody.compliance import decisions, people
from custody.compliance.address_list import NOBODY_LISTED, AddressList
from custody.compliance.model import Answer, CaseState, LegalHold, Question
from custody.compliance.screening import rescreen
from custody.control_messages import ScopeKind
from custody.deposit_model import DepositState
from custody.errors import Frozen, NotPossible
from custody.freezes import Scope, close_automatically
from custody.inclusion import apply_step
from custody.model import AddressPurpose
from custody.reconciliation import reconcile, reconcile_turn
from custody.surplus import book_surpluses
from custody.testing import allow, approve, set_policy
from kernel.money import Asset
from ledger.accounts import set_frozen
from ledger.queries import get_balance
from ledger.testing import enforce_lock_order
from registry.errors import NotAuthorised
from registry.model import ChainAsset
from registry.testing import TOKEN, change, operator_keypair
from tests.custody.house import BOOK, ETHER, FAKE_TOKEN, OTHER, STRANGER, House

LISTED = AddressList.blocking(1, {STRANGER}, "stolen")
FINAL = 70


class OddGateway(ScriptedGateway):
    """A node that shows transfers of unregistered tokens, and a token that does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.shows: frozenset[str] = frozenset()
        self.trouble: Exception | None = None

    async def contents(self, block: Block, watch: WatchList) -> BlockContents:
        return await super().contents(
            block, WatchList(watch.addresses, watch.contracts | self.shows)
        )

    async def balance(self, address: str, contract: str | None, *, at: Block) -> int:
        if contract == TOKEN and self.trouble is not None:
            raise self.trouble
        return await super().balance(address, contract, at=at)


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[House]:
    with enforce_lock_order(engine):
        yield await House(engine, gateway=OddGateway()).open()


def odd(house: House) -> OddGateway:
    assert isinstance(house.gateway, OddGateway)
    return house.gateway


def signed(payload: bytes, *codes: str) -> dict[str, bytes]:
    return {code: operator_keypair(code).sign(payload) for code in codes}


# One stops no other.


@pytest.mark.parametrize(
    "trouble",
    [RpcRefusal("eth_call", 3, "execution reverted: paused"), UnreadableAnswer("is it a token?")],
)
async def test_a_token_that_does_not_tell_its_balances_keeps_no_other_deposit_waiting(
    house: House, trouble: Exception
) -> None:
    house.proves = True
    odd(house).trouble = trouble
    house.mine(house.pay_token((house.acme, 100)), house.pay(house.birch, 5), empty_after=2)
    await house.catch_up()

    by_asset = {d.asset: d for d in await house.deposits()}
    assert by_asset["ETH"].state is DepositState.CREDITED
    assert by_asset["USDT"].state is DepositState.CONFIRMED
    assert "does not tell" in by_asset["USDT"].waiting_for

    odd(house).trouble = None
    await house.advance()
    assert set(await house.states()) == {"credited"}


async def test_a_frozen_held_account_keeps_no_other_deposit_waiting(house: House) -> None:
    house.screening = LISTED
    house.mine(house.pay(house.acme, 1), empty_after=2)
    await house.catch_up()

    async def freeze(conn: AsyncConnection) -> None:
        await set_frozen(
            conn, BOOK, "client:acme:held", "ETH", frozen=True, reason="court", now=house.now
        )

    await house.do(freeze)
    house.mine(house.pay(house.acme, 2), house.pay(house.birch, 5, sender=OTHER), empty_after=2)
    await house.catch_up()

    assert sorted(await house.states()) == ["credited", "held", "held"]


# Counted once.


async def register_fake(house: House) -> None:
    await house.do(lambda conn: change(conn, Asset("FAKE", 6), now=house.now))
    token = ChainAsset("evm:FAKE", "evm", FAKE_TOKEN, 6, "FAKE")
    await house.do(lambda conn: change(conn, token, now=house.now))


async def turn(house: House) -> Any:
    _, booked = await reconcile_turn(house.engine, house.gateway, "evm", book=BOOK, now=house.now)
    return booked


async def blocks(house: House, count: int = 1) -> None:
    for _ in range(count):
        house.gateway.mine()
    await house.follow()


async def quarantined(house: House) -> Any:
    odd(house).shows = frozenset({FAKE_TOKEN})
    house.mine(house.pay_token((house.acme, 5), contract=FAKE_TOKEN), empty_after=2)
    await house.catch_up()
    (deposit,) = await house.deposits()
    assert deposit.state is DepositState.QUARANTINED
    return deposit


async def book_surplus(house: House) -> Any:
    await blocks(house)
    await turn(house)
    await blocks(house)
    await turn(house)
    await blocks(house, FINAL)
    return await book_surpluses(house.engine, house.gateway, "evm", book=BOOK, now=house.now)


async def test_what_lies_in_quarantine_is_not_booked_as_a_surplus_once_its_token_is_known(
    house: House,
) -> None:
    await quarantined(house)
    await register_fake(house)

    assert await book_surplus(house) == []


async def test_what_was_dismissed_and_booked_as_a_surplus_is_not_let_in_again(
    house: House,
) -> None:
    deposit = await quarantined(house)
    await register_fake(house)
    payload = people.deposit_bytes(people.DISMISS_VERB, deposit, "not ours")
    await house.do(
        lambda conn: quarantine.dismiss(
            conn, deposit.id, signatures=signed(payload, "ben"), reason="not ours", now=house.now
        )
    )
    (booked,) = await book_surplus(house)
    assert booked.amount == 5

    payload = people.deposit_bytes(people.ADOPT_VERB, deposit, "known now")
    with pytest.raises(NotPossible, match="booked as a surplus"):
        await house.do(
            lambda conn: quarantine.adopt(
                conn,
                deposit.id,
                signatures=signed(payload, "ben", "cleo"),
                reason="known now",
                book=BOOK,
                now=house.now,
            )
        )
    made = await reconcile(house.engine, house.gateway, "evm", book=BOOK, now=house.now)
    assert made.is_clean


# Signed once.


async def held(house: House) -> Any:
    house.screening = LISTED
    house.mine(house.pay(house.acme, ETHER), empty_after=2)
    await house.catch_up()
    return (await house.deposits())[-1]


async def hold(house: House, deposit: Any, reason: str = "a tip") -> Any:
    payload = people.case_bytes(people.HOLD_VERB, await house.case(deposit.id), reason)
    return await house.do(
        lambda conn: decisions.hold(
            conn, deposit.id, signatures=signed(payload, "dan"), reason=reason, now=house.now
        )
    )


async def test_signatures_that_let_go_once_do_not_let_go_what_is_held_again(house: House) -> None:
    deposit = await held(house)
    payload = people.case_bytes(people.RELEASE_VERB, await house.case(deposit.id), "fine")
    kept = signed(payload, "ben", "cleo")

    async def let_go(conn: AsyncConnection) -> Any:
        return await decisions.release(
            conn, deposit.id, signatures=kept, reason="fine", book=BOOK, now=house.now
        )

    await house.do(let_go)
    await hold(house, deposit)
    with pytest.raises(NotAuthorised):
        await house.do(let_go)
    assert (await house.case(deposit.id)).state is CaseState.HELD


async def test_signatures_that_lifted_a_legal_hold_do_not_lift_the_next_of_the_same_order(
    house: House,
) -> None:
    async def place(conn: AsyncConnection) -> LegalHold:
        payload = people.legal_hold_bytes(people.LEGAL_HOLD_VERB, "acme", "7 Js", "ordered")
        return await decisions.place_legal_hold(
            conn,
            "acme",
            order="7 Js",
            signatures=signed(payload, "dan"),
            reason="ordered",
            now=house.now,
        )

    first = await house.do(place)
    kept = signed(people.lift_bytes(first, "withdrawn"), "ben", "cleo")

    async def lift(conn: AsyncConnection, which: LegalHold) -> LegalHold:
        return await decisions.lift_legal_hold(
            conn, which.id, signatures=kept, reason="withdrawn", now=house.now
        )

    await house.do(lambda conn: lift(conn, first))
    house.clock.advance(timedelta(days=1))
    second = await house.do(place)
    with pytest.raises(NotAuthorised):
        await house.do(lambda conn: lift(conn, second))


# Doors.


async def test_nothing_is_let_go_to_a_client_while_something_of_it_is_frozen(house: House) -> None:
    deposit = await held(house)

    async def freeze(conn: AsyncConnection) -> None:
        await close_automatically(
            conn, Scope(ScopeKind.CLIENT, "acme"), by="system:test", reason="theft", now=house.now
        )

    await house.do(freeze)
    with pytest.raises(Frozen):
        await house.release(deposit.id)
    assert await house.states() == ["held"]


# Answers.


async def test_an_answer_by_the_list_before_that_comes_after_the_new_one_was_asked_is_asked_again(
    house: House,
) -> None:
    class Slow:
        name = NOBODY_LISTED.name

        async def version(self) -> str:
            return "0"

        async def screen(self, questions: Sequence[Question]) -> Sequence[Answer]:
            # While this answer is on its way, everything is asked by the new list.
            await rescreen(house.engine, LISTED, now=house.now)
            return await NOBODY_LISTED.screen(questions)

    house.screening = Slow()
    house.mine(house.pay(house.acme, ETHER), empty_after=2)
    await house.catch_up()
    (deposit,) = await house.deposits()

    await rescreen(house.engine, LISTED, now=house.now)

    assert (await house.case(deposit.id)).state is CaseState.HELD


# Surpluses.


async def test_rounds_that_always_end_at_the_tip_book_a_surplus_once_both_blocks_are_final(
    house: House,
) -> None:
    house.gateway.fund(house.acme, ETHER)
    found = []
    for _ in range(4):
        await blocks(house, FINAL)
        found += await turn(house)

    assert [item.amount for item in found] == [ETHER]
    assert (await house.balances())["suspense:unattributed:evm ETH"] == (0, ETHER)


async def test_what_is_let_in_after_a_run_that_missed_it_is_not_booked_as_a_surplus_too(
    house: House,
) -> None:
    deposit = await quarantined(house)
    await register_fake(house)
    for _ in range(2):
        await blocks(house)
        await turn(house)
    await blocks(house, FINAL)
    payload = people.deposit_bytes(people.ADOPT_VERB, deposit, "known now")
    await house.do(
        lambda conn: quarantine.adopt(
            conn,
            deposit.id,
            signatures=signed(payload, "ben", "cleo"),
            reason="known now",
            book=BOOK,
            now=house.now,
        )
    )

    booked = await book_surpluses(house.engine, house.gateway, "evm", book=BOOK, now=house.now)
    assert booked == []
    assert await turn(house) == []


async def test_what_is_found_late_after_a_run_that_missed_it_is_not_booked_as_a_surplus_too(
    house: House,
) -> None:
    await blocks(house)
    house.gateway.fund(house.acme, ETHER)
    for _ in range(2):
        await blocks(house)
        await turn(house)
    await blocks(house, FINAL)
    block = await house.gateway.block_at(2)
    assert block is not None
    move = Movement("0x" + "a" * 64, "trace:0.1", STRANGER, house.acme, None, ETHER)
    house.clock.advance(timedelta(seconds=1))
    step = Included(BlockContents(block, (move,)))
    await house.do(lambda conn: apply_step(conn, step, book=BOOK, now=house.now))

    booked = await book_surpluses(house.engine, house.gateway, "evm", book=BOOK, now=house.now)
    assert booked == []


# Refunds.


async def refunding(house: House) -> Any:
    deposit = await held(house)

    async def prepare(conn: AsyncConnection) -> None:
        await set_policy(conn, now=house.now)
        await allow(conn, "acme", OTHER, now=house.now)

    await house.assign("client-pool", AddressPurpose.HOT, None)
    await house.do(prepare)
    case = await house.case(deposit.id)
    payload = people.refund_bytes(case, "sent in error", destination=OTHER, wallet="client-pool")
    return await house.do(
        lambda conn: decisions.refund(
            conn,
            deposit.id,
            destination=OTHER,
            source_wallet="client-pool",
            signatures=signed(payload, "ben", "cleo"),
            reason="sent in error",
            book=BOOK,
            now=house.now,
        )
    )


async def test_what_is_given_back_is_not_held_by_one_person(house: House) -> None:
    payout = await refunding(house)
    (deposit,) = await house.deposits()
    assert deposit.refund == payout.id

    with pytest.raises(NotPossible, match="refunded"):
        await hold(house, deposit)


async def test_a_refund_that_left_takes_nothing_of_what_is_held_for_other_deposits(
    house: House,
) -> None:
    other = await held(house)
    payout = await refunding(house)

    async def on_its_way(conn: AsyncConnection) -> None:
        # Stands for a worker that took it: it has a nonce, and is not cancelled any more.
        await approve(conn, [payout], now=house.now, by="ada")
        await conn.execute(
            text("UPDATE custody.payout SET state = 'allocated' WHERE id = :id"), {"id": payout.id}
        )

    await house.do(on_its_way)
    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()

    assert sorted(await house.states()) == ["held", "reversed"]
    balances = await house.balances()
    assert balances["receivable:acme:reorg ETH"] == (ETHER, 0)
    house.clock.advance(timedelta(hours=1))
    await house.release(other.id)
    assert (await house.balances())["client:acme ETH"] == (ETHER, 0)
    held_now = await house.do(lambda c: get_balance(c, BOOK, "client:acme:held", "ETH"))
    assert held_now.available == 0
