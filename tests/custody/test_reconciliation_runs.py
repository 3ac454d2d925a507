"""Recorded reconciliations: where exactly books and chain differ, why, for how long, and what stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.errors import NodeUnavailable
from chain.model import BlockContents, Included, Movement
from custody import reconciliation_reading
from custody.balance_reading import read_balances
from custody.control_messages import ScopeKind
from custody.deposit_model import PLAUSIBLE_AMOUNT_MAX
from custody.freeze_model import thaw_bytes
from custody.freezes import Scope, find_freeze, open_again
from custody.inclusion import apply_step
from custody.model import AddressPurpose
from custody.reconciliation import (
    explain_run,
    list_differences,
    list_runs,
    reconcile,
)
from custody.reconciliation_items import Arrived, Known, Place, age, itemise
from custody.reconciliation_model import (
    NO_ADDRESS,
    DifferenceState,
    Reason,
    Reconciled,
    Result,
    Run,
)
from custody.reconciliation_reading import read_books, survey
from custody.reconciliation_tally import IMPLAUSIBLE, Counted, Tally
from kernel.events import list_history
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from ledger.testing import enforce_lock_order
from registry.testing import TOKEN, operator_keypair
from tests.custody.house import BOOK, ETHER, FAKE_TOKEN, STRANGER, House
from tests.custody.test_reconciliation import BLOCK


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[House]:
    with enforce_lock_order(engine):
        yield await House(engine).open()


async def run(house: House, **more: Any) -> Run:
    return await reconcile(house.engine, house.gateway, "evm", book=BOOK, now=house.now, **more)


async def standing(house: House) -> list[tuple[str, str, int]]:
    found = await house.do(lambda c: list_differences(c, book=BOOK, chain="evm"))
    return [(item.address, item.asset, item.amount) for item in found]


async def invent(house: House, debit: str, amount: int, asset: str = "ETH") -> None:
    async def work(conn: AsyncConnection) -> None:
        credit = "equity:capital"
        await ensure_accounts(
            conn, BOOK, [(debit, asset), (credit, asset)], owners={debit: "house"}, now=house.now
        )
        made_up = transfer(
            derive_id(house.now, "invent", amount), debit, credit, amount, asset, code="test.x"
        )
        require_applied(await post(conn, BOOK, [made_up], now=house.now))

    await house.do(work)


async def test_a_clean_run_is_recorded_with_its_block_and_every_figure(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER), house.pay_token((house.settlement, 9)))
    await house.catch_up()

    made = await run(house)
    (row,) = await house.do(lambda c: list_runs(c, book=BOOK, chain="evm"))

    assert made.is_clean
    assert (row.id, row.height, row.block_hash, row.result) == (
        made.id,
        made.block.height,
        made.block.hash,
        "clean",
    )
    assert {(f["wallet"], f["asset"]): f["chain"] for f in row.figures}[
        "client-pool", "ETH"
    ] == str(ETHER)
    assert (row.addresses, made.items) == (4, ())


async def test_a_difference_is_told_by_address_and_asset_with_what_may_explain_it(
    house: House,
) -> None:
    house.mine(house.pay(house.acme, ETHER))
    await house.catch_up()
    house.gateway.fund(house.birch, 5)
    house.gateway.fund(house.settlement, 7, TOKEN)
    house.mine()
    await house.follow()

    made = await run(house)
    row, items = await house.do(lambda c: explain_run(c, made.id))

    assert not made.is_clean
    assert row.result == "different"
    assert {(i.address, i.asset): (i.books, i.chain) for i in items} == {
        (house.birch, "ETH"): (0, 5),
        (house.settlement, "USDT"): (0, 7),
    }
    assert {i.address: [e.reason for e in i.explanations] for i in items} == {
        house.birch: [Reason.INTERNAL_TRANSFER, Reason.OPEN_HOLD],
        house.settlement: [Reason.SILENT_TOKEN],
    }


async def test_two_differences_that_cancel_within_a_wallet_are_both_told(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER), house.pay(house.birch, ETHER))
    await house.catch_up()
    house.gateway.fund(house.acme, 5)
    house.gateway.fund(house.birch, -5)
    house.mine()
    await house.follow()

    made = await run(house)

    assert [f.difference for f in made.figures] == [0] * 6
    assert {i.address: i.difference for i in made.differences} == {house.acme: 5, house.birch: -5}
    assert not made.is_clean


async def test_a_token_that_is_not_registered_gets_a_line_and_is_no_difference(
    house: House,
) -> None:
    house.mine()
    await house.follow()
    tip = await house.gateway.head()
    move = Movement("0x" + "7" * 64, "log:0", STRANGER, house.acme, FAKE_TOKEN, 77)
    step = Included(BlockContents(tip, (move,)))
    await house.do(lambda c: apply_step(c, step, book=BOOK, now=house.now))

    made = await run(house)

    assert made.is_clean
    (line,) = made.items
    assert (line.address, line.contract, line.books) == (house.acme, FAKE_TOKEN, 77)
    assert [e.reason for e in line.explanations] == [Reason.UNREGISTERED_TOKEN]


async def test_what_was_posted_without_coins_freezes_the_wallet(house: House) -> None:
    house.mine()
    await house.follow()
    await invent(house, "custody:house-hot", 3)

    made = await run(house)
    frozen = await house.do(lambda c: find_freeze(c, wallet="house-hot"))
    other = await house.do(lambda c: find_freeze(c, wallet="client-pool"))

    (item,) = made.differences
    assert (item.address, item.difference) == (NO_ADDRESS, -3)
    assert [e.reason for e in item.explanations] == [Reason.POSTED_WITHOUT_COINS]
    assert frozen is not None
    assert "less than the books" in frozen.closed_reason
    assert other is None


async def test_a_surplus_freezes_nothing(house: House) -> None:
    house.gateway.fund(house.hot, 5)
    house.mine()
    await house.follow()

    await run(house)

    assert await standing(house) == [(house.hot, "ETH", 5)]
    assert await house.do(lambda c: find_freeze(c, wallet="house-hot")) is None


async def test_opening_balances_without_a_row_lie_where_their_coins_are(house: House) -> None:
    house.gateway.fund(house.hot, 10)
    house.mine()
    await house.follow()
    await invent(house, "custody:house-hot", 10)

    made = await run(house)

    assert made.is_clean


async def test_a_difference_ages_until_a_run_no_longer_shows_it(house: House) -> None:
    house.gateway.fund(house.hot, 5)
    house.mine()
    await house.follow()
    await run(house)
    first = house.now
    house.mine()
    house.clock.advance(timedelta(days=2))
    await house.follow()
    await run(house)

    (still,) = await house.do(lambda c: list_differences(c, book=BOOK, chain="evm"))
    assert still.opened_at == first
    assert still.seen_at - still.opened_at > timedelta(days=2)
    assert (still.first_height, still.last_height) == (1, 2)

    house.gateway.fund(house.hot, 1)
    house.mine()
    await house.follow()
    await run(house)
    (grown,) = await house.do(lambda c: list_differences(c, book=BOOK, chain="evm"))
    assert (grown.amount, grown.opened_at, grown.first_height) == (6, first, 3)

    house.gateway.fund(house.hot, -6)
    house.mine()
    await house.follow()
    await run(house)

    assert await standing(house) == []
    (closed,) = await house.do(
        lambda c: list_differences(c, book=BOOK, chain="evm", state=DifferenceState.CLOSED)
    )
    events = await house.do(lambda c: list_history(c, "difference", closed.id))
    assert [e.name for e in events] == ["DifferenceFound", "DifferenceChanged", "DifferenceClosed"]


async def test_a_wallet_that_two_people_opened_is_frozen_again_only_for_news(
    house: House,
) -> None:
    house.mine()
    await house.follow()
    await invent(house, "custody:house-hot", 3)
    await run(house)
    await open_scope(house, "wallet", "house-hot")

    house.mine()
    await house.follow()
    await run(house)
    same = await house.do(lambda c: find_freeze(c, wallet="house-hot"))
    await invent(house, "custody:house-hot", 4)
    house.mine()
    await house.follow()
    await run(house)
    more = await house.do(lambda c: find_freeze(c, wallet="house-hot"))

    assert same is None
    assert more is not None


async def test_a_wallet_that_two_people_opened_stays_open_until_the_next_block_and_when_coins_are_found(
    house: House,
) -> None:
    house.mine()
    await house.follow()
    await invent(house, "custody:house-hot", 7)
    await run(house)
    await open_scope(house, "wallet", "house-hot")

    await run(house)
    at_the_same_block = await house.do(lambda c: find_freeze(c, wallet="house-hot"))
    house.gateway.fund(house.hot, 3)
    house.mine()
    await house.follow()
    await run(house)
    with_less_missing = await house.do(lambda c: find_freeze(c, wallet="house-hot"))

    assert at_the_same_block is None
    assert with_less_missing is None
    assert sum(amount for _, _, amount in await standing(house)) == -4


async def open_scope(house: House, kind: str, name: str) -> None:
    """Let a wallet or an asset move again, as two test operators say."""
    scope = Scope(ScopeKind(kind), name)
    found = await house.do(lambda c: find_freeze(c, **{kind: name}))
    assert found is not None
    reason = "we know"
    payload = thaw_bytes(found.id, reason)
    signatures = {code: operator_keypair(code).sign(payload) for code in ("ada", "ben")}
    await house.do(
        lambda c: open_again(c, scope, signatures=signatures, reason=reason, now=house.now)
    )


async def test_many_addresses_are_asked_a_few_at_a_time_and_progress_is_told(
    house: House,
) -> None:
    for number in range(30):
        await house.assign("client-pool", AddressPurpose.DEPOSIT, "acme", f"r{number}")
    house.mine()
    await house.follow()
    told: list[tuple[int, int]] = []

    made = await run(house, progress=lambda done, of: told.append((done, of)))

    assert made.addresses == 34
    assert told[-1] == (68, 68)


async def test_a_bulk_answer_is_the_same_as_one_question_each(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER))
    block = await house.gateway.head()
    wanted = [(house.acme, None), (house.acme, TOKEN), (STRANGER, None)]

    found = await read_balances(house.gateway, wanted, at=block)

    for address, contract in wanted:
        expected = await house.gateway.balance(address, contract, at=block)
        assert found[address, contract] == expected


async def test_a_token_that_tells_no_balance_is_one_item_and_the_others_are_compared(
    house: House,
) -> None:
    """The balanceOf of one token reverts: every other wallet and asset is compared all the same."""
    house.mine(house.pay(house.acme, ETHER), house.pay_token((house.settlement, 9)))
    await house.catch_up()
    house.gateway.unreadable.add(TOKEN)
    house.gateway.fund(house.birch, 5)
    house.mine()
    await house.follow()

    made = await run(house)
    row, items = await house.do(lambda c: explain_run(c, made.id))

    assert made.result is Result.DIFFERENT
    assert {(i.wallet, i.asset): i.difference for i in made.differences} == {
        ("client-pool", "ETH"): 5
    }
    assert {(f["wallet"], f["asset"]): f["chain"] for f in row.figures} == {
        ("client-pool", "ETH"): str(ETHER + 5),
        ("client-pool", "USDT"): None,
        ("house-hot", "ETH"): "0",
        ("house-hot", "USDT"): None,
        ("house-settlement", "ETH"): "0",
        ("house-settlement", "USDT"): None,
    }
    silent = {i.wallet: i for i in items if i.chain is None}
    assert silent.keys() == {"client-pool", "house-hot", "house-settlement"}
    told = silent["house-settlement"]
    assert (told.asset, told.contract, told.books) == ("USDT", TOKEN, 9)
    assert [e.reason for e in told.explanations] == [Reason.UNREADABLE_TOKEN]
    assert "refuses to tell balances" in told.explanations[0].detail


async def test_what_is_not_known_is_not_clean_and_closes_nothing(house: House) -> None:
    house.gateway.fund(house.settlement, 7, TOKEN)
    house.mine()
    await house.follow()
    await run(house)
    assert await standing(house) == [(house.settlement, "USDT", 7)]

    house.gateway.unreadable.add(TOKEN)
    house.mine()
    await house.follow()
    made = await run(house)
    (row, *_) = await house.do(lambda c: list_runs(c, book=BOOK, chain="evm"))

    assert (made.is_clean, made.result, row.result) == (False, Result.UNKNOWN, "unknown")
    assert await standing(house) == [(house.settlement, "USDT", 7)]
    assert await house.do(lambda c: find_freeze(c, wallet="house-settlement")) is None


async def test_a_run_that_breaks_off_leaves_nothing_and_the_next_one_is_whole(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation_reading, "PAGE", 1)
    house.mine(house.pay(house.acme, ETHER))
    await house.catch_up()
    house.gateway.fund(house.hot, 5)
    house.mine()
    await house.follow()
    told: list[tuple[int, int]] = []

    def breaks_off(done: int, of: int) -> None:
        told.append((done, of))
        if len(told) == 3:
            house.gateway.faults.append(NodeUnavailable("gone away"))

    with pytest.raises(NodeUnavailable):
        await run(house, progress=breaks_off)
    assert told == [(2, 8), (4, 8), (6, 8)]
    assert await house.do(lambda c: list_runs(c, book=BOOK, chain="evm")) == []
    assert await standing(house) == []

    made = await run(house)
    again = await run(house)

    assert (made.addresses, made.id) == (4, again.id)
    assert len(await house.do(lambda c: list_runs(c, book=BOOK, chain="evm"))) == 1
    assert await standing(house) == [(house.hot, "ETH", 5)]


async def test_of_addresses_that_agree_only_their_sums_are_kept(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER), house.pay(house.birch, 3))
    await house.catch_up()
    house.gateway.fund(house.birch, 4)
    house.mine()
    await house.follow()

    books = await read_books(house.engine, "evm", book=BOOK)
    tally = await survey(house.engine, house.gateway, books, progress=None)

    assert [place.address for place in tally.places] == [house.birch]
    assert tally.on_chain == {(house.birch, "ETH"): 7}
    assert tally.totals == {("client-pool", "ETH"): ETHER + 7}
    assert tally.alike == {("client-pool", "ETH"): ETHER}
    assert tally.addresses == 4


# Pure: the items add up.

KNOWN = Known(
    traces=True, contracts={"ETH": None}, dust={}, arrived=(), spends={}, holds={}, booked={}
)


@pytest.mark.parametrize(
    ("ledger", "rows", "chain", "expected"),
    [
        (10, {"a": 10}, {"a": 10}, {}),
        (10, {}, {"hot": 10}, {}),
        (10, {"a": 4}, {"a": 4, "hot": 6}, {}),
        (10, {"a": 4}, {"a": 5, "hot": 5}, {}),
        (10, {"a": 4}, {"a": 4, "hot": 7}, {"hot": 1}),
        (10, {"a": 4}, {"a": 4, "hot": 5}, {"": -1}),
        (10, {"a": 10}, {"a": 3}, {"a": -7}),
        (10, {"a": 10}, {"a": 3, "b": 7}, {"a": -7, "b": 7}),
    ],
)
def test_the_items_of_a_wallet_add_up_to_its_difference(
    ledger: int, rows: dict[str, int], chain: dict[str, int], expected: dict[str, int]
) -> None:
    figure = Reconciled(
        wallet="w", asset="ETH", ledger=ledger, chain=sum(chain.values()), block=BLOCK
    )
    places = [Place(name, "w", name == "hot") for name in ("a", "b", "hot")]

    items = itemise(
        [figure],
        places,
        {(k, "ETH"): v for k, v in rows.items()},
        {(k, "ETH"): v for k, v in chain.items()},
        KNOWN,
    )

    assert {i.address: i.difference for i in items} == expected
    assert sum(i.difference for i in items) == figure.difference


def test_pieces_smaller_than_a_unit_are_counted_by_wallet_and_lie_at_no_address() -> None:
    """Two addresses hold half a unit each: the wallet has one, and its books say so as dust."""
    figure = Reconciled(wallet="w", asset="ETH", ledger=3, chain=3, block=BLOCK)
    places = [Place(name, "w", is_hot=False) for name in ("a", "b")]
    floored = {("a", "ETH"): 1, ("b", "ETH"): 1}

    assert itemise([figure], places, floored, floored, KNOWN) == []


def test_a_number_that_no_asset_can_have_is_taken_for_silence() -> None:
    counted = Counted("ETH", TOKEN, 18, 18)
    tally = Tally([counted], {})
    tally.count([Place("a", "w", is_hot=False)], {("a", TOKEN): PLAUSIBLE_AMOUNT_MAX + 1})

    assert tally.totals == {}
    assert (tally.silences["w", "ETH"].why, tally.silences["w", "ETH"].count) == (IMPLAUSIBLE, 1)


def test_an_arrival_of_an_orphaned_block_is_named_with_its_transaction() -> None:
    lost = Arrived(
        wallet="w",
        address="a",
        asset="ETH",
        contract=None,
        amount=7,
        tx_hash="0xabc",
        reason=Reason.ORPHANED,
    )
    known = Known(
        traces=True,
        contracts={"ETH": None},
        dust={"ETH": 100},
        arrived=[lost],
        spends={("w", "ETH"): 9},
        holds={},
        booked={},
    )
    figure = Reconciled(wallet="w", asset="ETH", ledger=0, chain=7, block=BLOCK)

    (item,) = itemise([figure], [Place("a", "w", is_hot=False)], {}, {("a", "ETH"): 7}, known)

    assert [(e.reason, e.amount) for e in item.explanations] == [
        (Reason.ORPHANED, 7),
        (Reason.FOREIGN_SPEND, 9),
        (Reason.DUST, 7),
    ]


def test_a_run_at_an_older_block_closes_nothing() -> None:
    def made(height: int) -> Run:
        block = type(BLOCK)("evm", height, f"0x{height}", "0x0", BLOCK.time)
        figure = Reconciled(wallet="w", asset="ETH", ledger=0, chain=5, block=block)
        items = itemise([figure], [Place("a", "w", is_hot=False)], {}, {("a", "ETH"): 5}, KNOWN)
        return Run(
            id=derive_id(BLOCK.time, "x", height),
            book=1,
            chain="evm",
            block=block,
            figures=(figure,),
            items=tuple(items),
            addresses=1,
            at=BLOCK.time,
        )

    opened = age((), made(9)).new
    older = age(opened, replace(made(5), items=()))
    newer = age(opened, replace(made(10), items=()))

    assert (older.closed, len(newer.closed)) == ((), 1)
