"""The state machine: what commands do to wallets and orders, and that a replay does the same."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kernel.clock import ManualClock
from matching.model import Side, TimeInForce
from venues.simulator.commands import (
    CancelOrder,
    Command,
    CreditDeposit,
    MoveMid,
    PlaceOrder,
    RequestWithdrawal,
    SettleWithdrawal,
    StepMaker,
    VenueEvent,
    WithdrawQuotes,
)
from venues.simulator.core import VenueCore
from venues.simulator.decimals import UNIT
from venues.simulator.errors import (
    JournalDamaged,
    JournalInUse,
    JournalMismatch,
    Refusal,
    VenueRefusal,
)
from venues.simulator.exchange import Exchange
from venues.simulator.journal import FILE_NAME
from venues.simulator.model import FeeRates, Genesis, MakerSpec, OrderStatus, OrderType
from venues.simulator.model import WithdrawalStatus as Status
from venues.simulator.settings import VenueSimulatorSettings, account_spec
from venues.simulator.truth import true_state

AT_MS = 1_700_000_000_000
CLOCK = ManualClock(datetime.fromtimestamp(AT_MS // 1000, tz=UTC))
SMALL_MAKER = MakerSpec(levels=3, level_notional_units=10_000 * UNIT)


def genesis(seed: int = 1, **changes: Any) -> Genesis:
    made = VenueSimulatorSettings(
        data_dir=Path("unused"),
        seed=seed,
        maker=SMALL_MAKER,
        accounts=(account_spec(seed, "desk"), account_spec(seed, "other")),
    ).genesis(AT_MS)
    return replace(made, **changes)


def order(
    side: Side,
    lots: int,
    price_ticks: int | None = None,
    *,
    account: str = "desk",
    tif: TimeInForce = TimeInForce.GTC,
    client_order_id: str = "c",
    type: OrderType | None = None,  # noqa: A002  the order's own word
    at_ms: int = AT_MS,
    **options: Any,
) -> PlaceOrder:
    kind = type or (OrderType.MARKET if price_ticks is None else OrderType.LIMIT)
    return PlaceOrder(
        at_ms=at_ms,
        account=account,
        symbol="ETHUSDT",
        client_order_id=client_order_id,
        side=side,
        type=kind,
        time_in_force=tif,
        price_ticks=price_ticks,
        quantity_lots=lots,
        quote_quantity_units=0,
        **options,
    )


def run(exchange: Exchange, command: Command) -> tuple[VenueEvent, ...]:
    exchange.check(command)
    return exchange.apply(command)


def funds(exchange: Exchange, asset: str, account: str = "desk") -> tuple[int, int]:
    wallet = exchange.state.accounts[account].wallet
    return wallet.free(asset), wallet.locked(asset)


def test_a_limit_buy_that_improves_gets_the_difference_back() -> None:
    exchange = Exchange(genesis())
    best = exchange.state.markets["ETHUSDT"].book.best_ticks(Side.SELL)
    assert best is not None
    free, _ = funds(exchange, "USDT")

    run(exchange, order(Side.BUY, 100, best + 10_000))

    cost = exchange.state.markets["ETHUSDT"].spec.notional_units(best, 100)
    assert funds(exchange, "USDT") == (free - cost, 0)
    assert funds(exchange, "ETH") == (1_000 * UNIT + 100 * 10_000 * 999 // 1000, 0)


def test_self_trade_prevention_gives_the_makers_lock_back() -> None:
    exchange = Exchange(genesis())
    run(exchange, WithdrawQuotes(AT_MS, "ETHUSDT"))
    run(exchange, order(Side.SELL, 100, 300_000, client_order_id="maker"))

    run(exchange, order(Side.BUY, 100, 300_000, client_order_id="taker"))

    maker = exchange.state.find_by_client_id("desk", "ETHUSDT", "maker")
    assert maker is not None
    assert maker.status is OrderStatus.EXPIRED_IN_MATCH
    assert funds(exchange, "ETH") == (1_000 * UNIT, 0)


def test_two_accounts_trade_with_each_other_and_both_pay() -> None:
    exchange = Exchange(genesis())
    run(exchange, WithdrawQuotes(AT_MS, "ETHUSDT"))
    run(exchange, order(Side.SELL, 10_000, 300_000))

    run(exchange, order(Side.BUY, 10_000, account="other"))

    assert funds(exchange, "ETH") == (999 * UNIT, 0)
    assert funds(exchange, "USDT") == (5_000_000 * UNIT + 2_997 * UNIT, 0)
    assert funds(exchange, "ETH", "other") == (1_000 * UNIT + 99_900_000, 0)
    assert funds(exchange, "USDT", "other") == (5_000_000 * UNIT - 3_000 * UNIT, 0)


def test_a_third_asset_pays_the_fee_until_it_is_used_up() -> None:
    spec = replace(
        account_spec(1, "desk"),
        balances={"USDT": 10_000 * UNIT, "BNB": 600_000},
        fees=FeeRates(asset="BNB"),
    )
    exchange = Exchange(genesis(accounts=(spec,)))

    for number in range(2):
        run(exchange, order(Side.BUY, 10_000, client_order_id=str(number)))

    assets = [fill.fee_asset for fill in exchange.state.accounts["desk"].fills]
    assert assets == ["BNB", "ETH"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (order(Side.BUY, 10**9, 300_000), Refusal.INSUFFICIENT_FUNDS),
        (order(Side.SELL, 10**9), Refusal.INSUFFICIENT_FUNDS),
        (order(Side.BUY, 1, 10**9, post_only=True), Refusal.WOULD_TAKE),
        (CancelOrder(AT_MS, "desk", "ETHUSDT", 1, "x"), Refusal.UNKNOWN_ORDER),
        (RequestWithdrawal(AT_MS, "desk", "DOGE", "", "a", "", UNIT, ""), Refusal.UNKNOWN_ASSET),
        (
            RequestWithdrawal(AT_MS, "desk", "ETH", "TRON", "a", "", UNIT, ""),
            Refusal.UNKNOWN_NETWORK,
        ),
        (RequestWithdrawal(AT_MS, "desk", "ETH", "", "a", "", 1, ""), Refusal.BELOW_MINIMUM),
        (
            RequestWithdrawal(AT_MS, "desk", "ETH", "", "a", "", 10**15, ""),
            Refusal.INSUFFICIENT_FUNDS,
        ),
        (SettleWithdrawal(AT_MS, "nope", Status.COMPLETED, ""), Refusal.UNKNOWN_WITHDRAWAL),
    ],
)
def test_commands_that_cannot_be_applied_are_refused(command: Command, reason: Refusal) -> None:
    exchange = Exchange(genesis())

    with pytest.raises(VenueRefusal) as refusal:
        exchange.check(command)

    assert refusal.value.refusal is reason


def test_a_failed_withdrawal_is_credited_back_once() -> None:
    exchange = Exchange(genesis(withdrawal_delay_ms=None))
    run(exchange, RequestWithdrawal(AT_MS, "desk", "ETH", "", "0xab", "", UNIT, "w1"))
    withdrawal_id = next(iter(exchange.state.accounts["desk"].withdrawals))
    assert funds(exchange, "ETH") == (999 * UNIT, 0)

    run(exchange, SettleWithdrawal(AT_MS, withdrawal_id, Status.FAILED, ""))

    assert funds(exchange, "ETH") == (1_000 * UNIT, 0)
    with pytest.raises(VenueRefusal):
        exchange.check(SettleWithdrawal(AT_MS, withdrawal_id, Status.COMPLETED, ""))


def test_the_market_maker_is_the_same_for_the_same_seed() -> None:
    books = []
    for seed in (1, 1, 2):
        exchange = Exchange(genesis(seed))
        for _ in range(30):
            run(exchange, StepMaker(AT_MS))
        market = exchange.state.markets["ETHUSDT"]
        books.append((market.mid_ticks, market.book.depth(Side.BUY), tuple(market.trades)))

    assert books[0] == books[1] != books[2]


def test_liquidity_comes_back_after_it_was_taken() -> None:
    exchange = Exchange(genesis())
    book = exchange.state.markets["ETHUSDT"].book
    everything = sum(level.quantity_lots for level in book.depth(Side.SELL))
    run(exchange, CreditDeposit(AT_MS, "desk", "USDT", 10**9 * UNIT, "", "", ""))
    run(exchange, order(Side.BUY, everything + 1))
    assert book.depth(Side.SELL) == ()

    run(exchange, StepMaker(AT_MS))

    assert len(book.depth(Side.SELL)) == SMALL_MAKER.levels


@dataclass(frozen=True)
class CancelNth:
    nth: int


PLACEMENTS = st.builds(
    order,
    side=st.sampled_from(Side),
    lots=st.integers(20, 50_000),
    price_ticks=st.one_of(st.none(), st.integers(290_000, 310_000)),
    account=st.sampled_from(["desk", "other"]),
    tif=st.sampled_from(TimeInForce),
    client_order_id=st.sampled_from(["a", "b", "c", "d"]),
)
ACTIONS = st.lists(
    st.one_of(
        PLACEMENTS,
        PLACEMENTS,
        st.builds(CancelNth, st.integers(0, 9)),
        st.just(StepMaker(AT_MS)),
        st.builds(MoveMid, st.just(AT_MS), st.just("ETHUSDT"), st.integers(290_000, 310_000)),
        st.builds(
            RequestWithdrawal,
            st.just(AT_MS),
            st.just("desk"),
            st.sampled_from(["ETH", "USDT"]),
            st.just(""),
            st.just("0xab"),
            st.just(""),
            st.integers(1, 20 * UNIT),
            st.just(""),
        ),
    ),
    max_size=30,
)


def play(core: VenueCore, actions: list[Command | CancelNth]) -> None:
    for action in actions:
        command = action
        if isinstance(command, CancelNth):
            open_orders = core.state.open_orders_of("desk")
            if command.nth >= len(open_orders):
                continue
            command = CancelOrder(AT_MS, "desk", "ETHUSDT", open_orders[command.nth].order_id, "x")
        try:
            core.execute(command)
        except VenueRefusal:
            continue


def core_at(directory: Path) -> VenueCore:
    options = VenueSimulatorSettings(
        data_dir=directory,
        maker=SMALL_MAKER,
        accounts=(account_spec(1, "desk"), account_spec(1, "other")),
        fsync=False,
    )
    return VenueCore(options, CLOCK, publish=lambda _: None, failed=lambda _: None)


def truth(core: VenueCore) -> dict[str, Any]:
    return {key: value for key, value in true_state(core).items() if key != "replayed"}


@settings(deadline=None, max_examples=60)
@given(ACTIONS, st.integers(0, 30))
def test_replay_rebuilds_the_same_state_and_books_balance(
    tmp_path_factory: pytest.TempPathFactory,
    actions: list[Command | CancelNth],
    checkpoint_after: int,
) -> None:
    directory = tmp_path_factory.mktemp("replay")
    core = core_at(directory)
    play(core, actions[:checkpoint_after])
    if checkpoint_after % 2:
        core.save_checkpoint()
    play(core, actions[checkpoint_after:])
    core.close()

    again = core_at(directory)
    again.close()

    assert truth(again) == truth(core)
    for symbol, market in core.state.markets.items():
        for side in Side:
            assert again.state.markets[symbol].book.orders(side) == market.book.orders(side)
    for name in ("desk", "other"):
        assert_conserved(core, name)
    for exchange in (core.exchange, again.exchange):
        run(exchange, StepMaker(AT_MS))
        run(exchange, StepMaker(AT_MS))
    assert truth(again) == truth(core)


def assert_conserved(core: VenueCore, name: str) -> None:
    """Start + fills - fees - withdrawals = free + locked, and open orders hold what is locked."""
    account, spec = core.state.accounts[name], core.state.markets["ETHUSDT"].spec
    expected = dict(account.spec.balances)
    for fill in account.fills:
        sign = 1 if fill.side is Side.BUY else -1
        expected["ETH"] += sign * fill.quantity_lots * spec.lot_units
        expected["USDT"] -= sign * fill.quote_units
        expected[fill.fee_asset] -= fill.fee_units
    for withdrawal in account.withdrawals.values():
        expected[withdrawal.asset] -= withdrawal.amount_units + withdrawal.fee_units
    wallet = account.wallet
    assert expected == {asset: wallet.free(asset) + wallet.locked(asset) for asset in expected}
    assert all(wallet.free(asset) >= 0 for asset in expected)
    open_orders = core.state.open_orders_of(name)
    for asset, side in (("USDT", Side.BUY), ("ETH", Side.SELL)):
        held = sum(order.locked_units for order in open_orders if order.side is side)
        assert wallet.locked(asset) == held


def test_a_torn_last_line_was_never_accepted(tmp_path: Path) -> None:
    core = core_at(tmp_path)
    core.execute(order(Side.BUY, 1_000, 200_000, client_order_id="whole"))
    core.execute(order(Side.BUY, 1_000, 200_000, client_order_id="torn"))
    core.close()
    journal = tmp_path / FILE_NAME
    journal.write_bytes(journal.read_bytes()[:-7])

    again = core_at(tmp_path)
    again.execute(order(Side.BUY, 1_000, 200_000, client_order_id="next"))
    again.close()

    third = core_at(tmp_path)
    third.close()
    assert [o.client_order_id for o in third.state.orders_of("desk")] == ["whole", "next"]


def test_a_damaged_line_in_the_middle_stops_the_start(tmp_path: Path) -> None:
    core = core_at(tmp_path)
    core.execute(order(Side.BUY, 1_000, 200_000, client_order_id="one"))
    core.close()
    journal = tmp_path / FILE_NAME
    journal.write_bytes(journal.read_bytes().replace(b'"place"', b'"plaze"') + b"{}\n")

    with pytest.raises(JournalDamaged, match="byte"):
        core_at(tmp_path)


def test_a_checkpoint_shortens_the_replay(tmp_path: Path) -> None:
    core = core_at(tmp_path)
    play(core, [StepMaker(AT_MS)] * 10)
    core.save_checkpoint()
    play(core, [StepMaker(AT_MS)] * 3)
    core.close()

    again = core_at(tmp_path)
    play(again, [StepMaker(AT_MS)] * 5)
    again.close()

    assert again.replayed == 3
    assert again.state.step == core.state.step + 5


def test_a_data_directory_belongs_to_one_simulator(tmp_path: Path) -> None:
    core = core_at(tmp_path)

    with pytest.raises(JournalInUse, match="in use"):
        core_at(tmp_path)

    core.close()


def test_a_journal_of_other_settings_is_refused(tmp_path: Path) -> None:
    core_at(tmp_path).close()
    other = VenueSimulatorSettings(data_dir=tmp_path, seed=9, fsync=False)

    with pytest.raises(JournalMismatch, match="seed"):
        VenueCore(other, CLOCK, publish=lambda _: None, failed=lambda _: None)
