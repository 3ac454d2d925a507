"""Random commands of every kind: money is conserved, funds are held, a restart loses nothing."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kernel.clock import ManualClock
from matching.model import SelfTradePrevention, Side, TimeInForce
from venues.simulator.commands import (
    AmendOrder,
    CancelAll,
    CancelOrder,
    CancelWithdrawal,
    Command,
    CreditDeposit,
    LateFill,
    MirrorLevels,
    MirrorTrade,
    MoveMid,
    PlaceOrder,
    PlaceOrderList,
    RequestWithdrawal,
    SetDeadMan,
    StepMaker,
)
from venues.simulator.core import VenueCore
from venues.simulator.decimals import UNIT
from venues.simulator.errors import VenueRefusal
from venues.simulator.journal import FILE_NAME
from venues.simulator.model import (
    FeeIn,
    FeeRates,
    MakerSpec,
    Order,
    OrderListKind,
    OrderType,
    WithdrawalStatus,
)
from venues.simulator.orders import held_units, spent_asset
from venues.simulator.settings import VenueSimulatorSettings, account_spec
from venues.simulator.truth import true_state

AT_MS = 1_700_000_000_000
CLOCK = ManualClock(datetime.fromtimestamp(AT_MS // 1000, tz=UTC))
EXAMPLES = settings().max_examples
ACCOUNTS = ("desk", "other")
SYMBOL = "ETHUSDT"
BALANCES = {"ETH": 5 * UNIT, "USDT": 20_000 * UNIT, "BNB": UNIT // 100}

Nth = tuple[str, int, Any]


def placed(draw: st.DrawFn, kind: OrderType, account: str, side: Side, lots: int) -> PlaceOrder:
    price = draw(st.integers(296_000, 304_000))
    trails = kind in (OrderType.TRAILING_STOP, OrderType.TRAILING_STOP_LIMIT)
    limit_trails = kind is OrderType.TRAILING_STOP_LIMIT
    return PlaceOrder(
        at_ms=AT_MS,
        account=account,
        symbol=SYMBOL,
        client_order_id=draw(st.sampled_from(["", "a", "b", "c", "d", "e"])),
        side=side,
        type=kind,
        time_in_force=draw(st.sampled_from(TimeInForce)),
        price_ticks=price if kind.has_limit and not limit_trails else None,
        quantity_lots=lots,
        self_trade_prevention=draw(st.sampled_from(SelfTradePrevention)),
        post_only=draw(st.integers(0, 4)) == 0,
        trigger_ticks=draw(st.integers(296_000, 304_000)) if kind.waits and not trails else None,
        trailing_ppm=draw(st.integers(100, 5_000)) if trails else 0,
        limit_offset_ticks=draw(st.integers(0, 500)) if limit_trails else None,
        expire_ms=draw(st.sampled_from([None, None, AT_MS + 5, AT_MS + 20])),
        display_lots=draw(st.sampled_from([0, 0, 1, 100])),
        fee_in=draw(st.sampled_from(FeeIn)),
    )


@st.composite
def orders(draw: st.DrawFn) -> PlaceOrder:
    return placed(
        draw,
        draw(st.sampled_from(OrderType)),
        draw(st.sampled_from(ACCOUNTS)),
        draw(st.sampled_from(Side)),
        draw(st.integers(1, 30_000)),
    )


@st.composite
def lists(draw: st.DrawFn) -> PlaceOrderList:
    account, side = draw(st.sampled_from(ACCOUNTS)), draw(st.sampled_from(Side))
    kind, lots = draw(st.sampled_from(OrderListKind)), draw(st.integers(1, 10_000))
    types = {
        OrderListKind.OCO: (OrderType.LIMIT, OrderType.STOP_LOSS_LIMIT),
        OrderListKind.OTO: (OrderType.LIMIT, OrderType.LIMIT),
        OrderListKind.OTOCO: (OrderType.LIMIT, OrderType.LIMIT, OrderType.STOP_LOSS),
    }[kind]
    sides = [side] + [side if kind is OrderListKind.OCO else side.opposite] * (len(types) - 1)
    legs = tuple(
        replace(placed(draw, t, account, s, lots), client_order_id="")
        for t, s in zip(types, sides, strict=True)
    )
    return PlaceOrderList(AT_MS, account, SYMBOL, kind, "", legs)


LEVELS = st.lists(
    st.tuples(st.sampled_from(Side), st.integers(296_000, 304_000), st.integers(0, 5_000)),
    max_size=4,
).map(tuple)
FIXED: st.SearchStrategy[Command] = st.one_of(
    st.just(StepMaker(AT_MS)),
    st.builds(MoveMid, st.just(AT_MS), st.just(SYMBOL), st.integers(297_000, 303_000)),
    st.builds(MirrorLevels, st.just(AT_MS), st.just(SYMBOL), LEVELS, st.booleans()),
    st.builds(
        MirrorTrade,
        st.just(AT_MS),
        st.just(SYMBOL),
        st.sampled_from(Side),
        st.integers(296_000, 304_000),
        st.integers(1, 20_000),
    ),
    st.builds(CancelAll, st.just(AT_MS), st.sampled_from(ACCOUNTS)),
    st.builds(
        SetDeadMan,
        st.just(AT_MS),
        st.sampled_from(ACCOUNTS),
        st.sampled_from([None, AT_MS + 3, AT_MS + 10]),
    ),
    st.builds(
        RequestWithdrawal,
        st.just(AT_MS),
        st.sampled_from(ACCOUNTS),
        st.sampled_from(["ETH", "USDT"]),
        st.just(""),
        st.just("0xab"),
        st.just(""),
        st.integers(UNIT, 20 * UNIT),
        st.just(""),
    ),
    st.builds(
        CreditDeposit,
        st.just(AT_MS),
        st.sampled_from(ACCOUNTS),
        st.just("USDT"),
        st.integers(1, 10 * UNIT),
        st.just("ETH"),
        st.just("0xab"),
        st.sampled_from(["", "0x1"]),
        st.booleans(),
    ),
)
AIMED: st.SearchStrategy[Nth] = st.tuples(
    st.sampled_from(["cancel", "amend", "late", "take-back"]),
    st.integers(0, 7),
    st.tuples(
        st.integers(1, 30_000), st.sampled_from([None, 297_000, 303_000]), st.sampled_from("abcde")
    ),
)
ACTIONS = st.lists(st.one_of(orders(), orders(), orders(), lists(), FIXED, AIMED), max_size=30)


def core_at(directory: Path) -> VenueCore:
    desk = account_spec(1, "desk", balances=BALANCES, fees=FeeRates(1_000, 2_000))
    other = account_spec(1, "other", balances=BALANCES, fees=FeeRates(asset="BNB"))
    options = VenueSimulatorSettings(
        data_dir=directory,
        maker=MakerSpec(levels=3, level_notional_units=10_000 * UNIT),
        accounts=(desk, other),
        withdrawal_delay_ms=None,
        fsync=False,
    )
    return VenueCore(options, CLOCK, publish=lambda _: None, failed=lambda _: None)


def aimed(core: VenueCore, action: Nth, at_ms: int) -> Command | None:
    """The command that an action on the nth order is, if there is such an order."""
    verb, nth, (lots, price, name) = action
    found = core.state.all_orders_of("desk")
    if verb == "take-back":
        kept = list(core.state.accounts["desk"].withdrawals)
        return CancelWithdrawal(at_ms, "desk", kept[nth]) if nth < len(kept) else None
    if verb != "late":
        found = core.state.all_open_orders_of("desk")
    if nth >= len(found):
        return None
    order = found[-1 - nth]
    key = ("desk", SYMBOL, order.order_id)
    if verb == "cancel":
        return CancelOrder(at_ms, *key, "x")
    if verb == "amend":
        return AmendOrder(at_ms, *key, lots, price, client_order_id=name)
    return LateFill(at_ms, *key, min(lots, order.remaining_lots))


def play(core: VenueCore, actions: list[Any]) -> list[tuple[int, Any]]:
    """Execute what is not refused; the journal's size and the state after each command."""
    marks = [(size(core), image(core))]
    for number, action in enumerate(actions):
        at_ms = AT_MS + number
        command = aimed(core, action, at_ms) if isinstance(action, tuple) else action
        if command is None:
            continue
        try:
            core.pass_time(at_ms)
            marks.append((size(core), image(core)))
            core.execute(timed(command, at_ms))
        except VenueRefusal:
            continue
        marks.append((size(core), image(core)))
    return marks


def timed(command: Command, at_ms: int) -> Command:
    if isinstance(command, PlaceOrderList):
        return replace(
            command, at_ms=at_ms, orders=tuple(replace(o, at_ms=at_ms) for o in command.orders)
        )
    moved: Command = replace(command, at_ms=at_ms)
    return moved


def size(core: VenueCore) -> int:
    return (core.directory / FILE_NAME).stat().st_size


def image(core: VenueCore) -> dict[str, Any]:
    """All that must be the same after a restart."""
    state, market = core.state, core.state.markets[SYMBOL]
    truth = {key: value for key, value in true_state(core).items() if key != "replayed"}
    return truth | {
        "records": [order for name in ACCOUNTS for order in state.all_orders_of(name)],
        "book": {side: market.book.orders(side) for side in Side},
        "seen": {side: market.depth(side) for side in Side},
        "waiting": sorted(market.waiting),
        "last": market.last_ticks,
        "lists": [state.order_lists_of(name) for name in ACCOUNTS],
        "ledger": [tuple(state.accounts[name].ledger) for name in ACCOUNTS],
        "prevented": [tuple(state.prevented_matches_of(name)) for name in ACCOUNTS],
        "amendments": state.amendments(),
        "names": [
            found.order_id if (found := state.find_by_client_id(name, SYMBOL, client)) else None
            for name in ACCOUNTS
            for client in "abcde"
        ],
        "bars": [(b.volume_lots, b.count, b.taker_buy_lots) for b in market.bars],
    }


@settings(deadline=None)
@given(ACTIONS)
def test_money_is_conserved_and_open_orders_hold_what_they_need(
    tmp_path_factory: pytest.TempPathFactory, actions: list[Any]
) -> None:
    core = core_at(tmp_path_factory.mktemp("money"))

    play(core, actions)

    core.close()
    for name in ACCOUNTS:
        assert_conserved(core, name)
        assert_held(core, name)
        assert_ledger(core, name)
    assert_books_agree(core)


@settings(deadline=None, max_examples=EXAMPLES * 4 // 5)
@given(ACTIONS, st.integers(0, 30), st.integers(0, 400))
def test_a_restart_after_a_tear_anywhere_has_exactly_what_was_written_whole(
    tmp_path_factory: pytest.TempPathFactory,
    actions: list[Any],
    checkpoint_after: int,
    torn_bytes: int,
) -> None:
    directory = tmp_path_factory.mktemp("torn")
    core = core_at(directory)
    play(core, actions[:checkpoint_after])
    if checkpoint_after % 2:
        core.save_checkpoint()
    kept = size(core)
    marks = play(core, actions[checkpoint_after:])
    core.close()
    journal = directory / FILE_NAME
    content = journal.read_bytes()
    cut = max(kept, len(content) - torn_bytes)
    journal.write_bytes(content[:cut])

    again = core_at(directory)
    again.close()

    expected = [state for written, state in marks if written <= cut][-1]
    assert image(again) == expected


@settings(deadline=None, max_examples=EXAMPLES * 2 // 5)
@given(ACTIONS, ACTIONS)
def test_a_restarted_venue_goes_on_as_the_other_does(
    tmp_path_factory: pytest.TempPathFactory, before: list[Any], after: list[Any]
) -> None:
    directory = tmp_path_factory.mktemp("on")
    core = core_at(directory)
    play(core, before)
    core.save_checkpoint()
    core.close()
    content = (directory / FILE_NAME).read_bytes()
    again = core_at(directory)
    second = tmp_path_factory.mktemp("replayed")
    (second / FILE_NAME).write_bytes(content)
    replayed = core_at(second)

    states = [play(one, after)[-1][1] for one in (again, replayed)]

    again.close()
    replayed.close()
    assert states[0] == states[1]


def assert_conserved(core: VenueCore, name: str) -> None:
    """Start + fills - fees - withdrawals + deposits = free + locked, and nothing is below zero."""
    account, spec = core.state.accounts[name], core.state.markets[SYMBOL].spec
    expected = dict(BALANCES)
    for fill in account.fills:
        sign = 1 if fill.side is Side.BUY else -1
        expected["ETH"] += sign * fill.quantity_lots * spec.lot_units
        expected["USDT"] -= sign * fill.quote_units
        expected[fill.fee_asset] -= fill.fee_units
    for withdrawal in account.withdrawals.values():
        if withdrawal.status is not WithdrawalStatus.CANCELLED:
            expected[withdrawal.asset] -= withdrawal.amount_units + withdrawal.fee_units
    for entry in account.ledger:
        if entry.kind.value == "deposit":
            expected[entry.asset] += entry.amount_units
    wallet = account.wallet
    assert expected == {asset: wallet.free(asset) + wallet.locked(asset) for asset in expected}
    assert all(wallet.free(asset) >= 0 and wallet.locked(asset) >= 0 for asset in expected)


def assert_held(core: VenueCore, name: str) -> None:
    """What is locked is what open orders hold; each alone holds what it needs, a list once."""
    spec, wallet = core.state.markets[SYMBOL].spec, core.state.accounts[name].wallet
    found = core.state.all_orders_of(name)
    for asset in ("ETH", "USDT"):
        holding = [order for order in found if spent_asset(order, spec) == asset]
        assert wallet.locked(asset) == sum(order.locked_units for order in holding)
    for order in found:
        if order.order_list_id < 0:
            assert order.locked_units == held_units(order, spec)
        elif not order.status.is_open:
            assert order.locked_units == 0
    for order_list in core.state.order_lists_of(name):
        legs = [core.state.order(SYMBOL, order_id) for order_id in order_list.order_ids]
        assert_list_held([leg for leg in legs if leg is not None and leg.status.is_open], core)


def assert_list_held(legs: list[Order], core: VenueCore) -> None:
    spec = core.state.markets[SYMBOL].spec
    begun = [leg for leg in legs if held_units(leg, spec)]
    if begun:
        needed = max(held_units(leg, spec) for leg in begun)
        assert sum(leg.locked_units for leg in begun) >= needed


def assert_ledger(core: VenueCore, name: str) -> None:
    """The last entry of each asset says its balance."""
    account = core.state.accounts[name]
    last = {entry.asset: entry.balance_units for entry in account.ledger}
    for asset, units in last.items():
        assert units == account.wallet.free(asset) + account.wallet.locked(asset)


def assert_books_agree(core: VenueCore) -> None:
    """What rests in the book is what the records say works, and who waits is not in it."""
    market = core.state.markets[SYMBOL]
    resting = {
        order.order_id: order.remaining_lots
        for side in Side
        for order in market.book.orders(side)
        if order.owner in ACCOUNTS
    }
    found = [order for name in ACCOUNTS for order in core.state.all_orders_of(name)]
    assert resting == {o.order_id: o.remaining_lots for o in found if o.is_working}
    assert set(market.waiting) == {o.order_id for o in found if o.is_waiting}
    bid, ask = market.book.best_ticks(Side.BUY), market.book.best_ticks(Side.SELL)
    assert bid is None or ask is None or bid < ask
