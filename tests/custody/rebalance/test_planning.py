"""Which coins should move: scenarios as tables, and what no plan may ever do."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.rebalance.document import from_document, parse_rules, to_document
from custody.rebalance.model import (
    AddressView,
    Band,
    Fees,
    OpenTransfer,
    OwnTransfer,
    RebalanceRules,
    SweepRule,
    Tier,
    TransferKind,
    TreasuryView,
    WalletView,
)
from custody.rebalance.planning import (
    ABOVE_CAP,
    BELOW_MINIMUM,
    NOWHERE_TO_DRAIN,
    plan,
)
from kernel.errors import BadInput
from registry.testing import ETH, USDT

WALLETS = {
    code: WalletView(code=code, chain="evm", owner=owner, hot_address=f"hot-{code}")
    for code, owner in (
        ("pool", "client"),
        ("pool-warm", "client"),
        ("pool-cold", "client"),
        ("house", "house"),
        ("house-cold", "house"),
    )
}
FEES = Fees(native=10, token=50)


def band(wallet: str, tier: Tier, low: int, target: int, high: int, **more: object) -> Band:
    return Band(
        wallet=wallet,
        asset="ETH",
        tier=tier,
        minimum=low,
        target=target,
        maximum=high,
        **more,  # type: ignore[arg-type]
    )


HOT = band("pool", Tier.HOT, 1_000, 2_000, 3_000, cap=9_000)
WARM = band("pool-warm", Tier.WARM, 1_000, 5_000, 8_000)
COLD = band("pool-cold", Tier.COLD, 0, 0, 10**9)


def rules(*bands: Band, **more: object) -> RebalanceRules:
    return RebalanceRules(version=1, bands=bands, **more)  # type: ignore[arg-type]


def view(**levels: int) -> TreasuryView:
    """Everything that a wallet has lies at its hot address."""
    amounts = {(name.replace("_", "-"), "ETH"): amount for name, amount in levels.items()}
    return TreasuryView(
        native_asset="ETH",
        wallets=WALLETS,
        available=amounts,
        held=amounts,
        hot=amounts,
        fees=FEES,
    )


def told(transfers: tuple[OwnTransfer, ...]) -> list[tuple[str, str, str, int, bool]]:
    return [(str(t.kind), t.wallet, t.to_wallet, t.amount, t.by_hand) for t in transfers]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({"pool": 2_500, "pool_warm": 5_000, "pool_cold": 0}, []),
        (
            {"pool": 500, "pool_warm": 5_000, "pool_cold": 0},
            [("fill", "pool-warm", "pool", 1_500, False)],
        ),
        # The warm wallet gives down to its minimum; people bring the rest from the cold one.
        (
            {"pool": 500, "pool_warm": 1_700, "pool_cold": 9_000},
            [("fill", "pool-cold", "pool", 800, True), ("fill", "pool-warm", "pool", 700, False)],
        ),
        (
            {"pool": 4_000, "pool_warm": 5_000, "pool_cold": 0},
            [("drain", "pool", "pool-warm", 2_000, False)],
        ),
        # The warm wallet has room for some; the rest goes to the cold one.
        (
            {"pool": 4_000, "pool_warm": 7_000, "pool_cold": 0},
            [
                ("drain", "pool", "pool-cold", 1_000, False),
                ("drain", "pool", "pool-warm", 1_000, False),
            ],
        ),
        (
            {"pool": 2_000, "pool_warm": 9_000, "pool_cold": 0},
            [("drain", "pool-warm", "pool-cold", 4_000, False)],
        ),
        (
            {"pool": 2_000, "pool_warm": 500, "pool_cold": 50_000},
            [("fill", "pool-cold", "pool-warm", 4_500, True)],
        ),
    ],
)
def test_a_wallet_outside_its_band_is_filled_or_drained_to_its_target(
    levels: dict[str, int], expected: list[tuple[str, str, str, int, bool]]
) -> None:
    found = plan(rules(HOT, WARM, COLD), view(**levels))

    assert sorted(told(found.transfers)) == sorted(expected)
    assert found.alarms == ()


def test_what_is_under_way_counts_as_if_it_had_arrived() -> None:
    seen = view(pool=500, pool_warm=5_000, pool_cold=0)
    (fill,) = plan(rules(HOT, WARM, COLD), seen).transfers

    again = plan(rules(HOT, WARM, COLD), under_way(seen, fill))

    assert again.transfers == ()


def test_what_people_carry_out_is_not_proposed_again_in_the_next_window() -> None:
    seen = view(pool=500, pool_warm=1_000, pool_cold=9_000)
    (fill,) = plan(rules(HOT, WARM, COLD), seen).transfers
    assert fill.by_hand

    assert plan(rules(HOT, WARM, COLD), under_way(seen, fill)).transfers == ()


def test_coins_that_are_not_at_the_hot_address_yet_are_swept_before_they_are_drained() -> None:
    seen = replace(view(pool=9_000, pool_warm=1_000), hot={("pool", "ETH"): 1_210})

    (drain,) = plan(rules(HOT, WARM), seen).transfers

    assert drain.amount == 1_200  # and the fee of 10 stays


def test_above_its_cap_a_hot_wallet_raises_an_alarm() -> None:
    found = plan(rules(HOT, WARM, COLD), view(pool=9_001, pool_warm=5_000, pool_cold=0))

    assert [(a.name, a.wallet) for a in found.alarms] == [(ABOVE_CAP, "pool")]
    assert [t.kind for t in found.transfers] == [TransferKind.DRAIN, TransferKind.DRAIN]


def test_where_nothing_is_to_be_had_or_nowhere_is_room_people_are_told() -> None:
    empty = plan(rules(HOT), view(pool=0))
    full = plan(rules(HOT), view(pool=4_000))

    assert [a.name for a in empty.alarms] == [BELOW_MINIMUM]
    assert [a.name for a in full.alarms] == [NOWHERE_TO_DRAIN]


def test_clients_coins_never_go_to_wallets_of_the_house() -> None:
    house_cold = band("house-cold", Tier.COLD, 0, 0, 10**9)

    found = plan(rules(HOT, house_cold), view(pool=4_000, house_cold=10**6))
    short = plan(rules(HOT, house_cold), view(pool=0, house_cold=10**6))

    assert (found.transfers, short.transfers) == ((), ())


def token_at(address: str, amount: int, native: int) -> AddressView:
    return AddressView(wallet="pool", address=address, asset="USDT", amount=amount, native=native)


def coin_at(address: str, amount: int) -> AddressView:
    return AddressView(wallet="pool", address=address, asset="ETH", amount=amount, native=amount)


USDT_RULE = SweepRule(wallet="pool", asset="USDT", minimum=100, fee_max=60)
ETH_RULE = SweepRule(wallet="pool", asset="ETH", minimum=100, fee_max=20)
SWEEPS = rules(sweeps=(USDT_RULE, ETH_RULE))


def sweeping(*found: AddressView, hot: int = 1_000) -> TreasuryView:
    return replace(view(pool=hot), sweepable=found)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (token_at("a", 100, 50), [("sweep", "a", "hot-pool", "USDT", 100)]),
        (token_at("a", 99, 50), []),
        # It cannot pay for the sweep: it gets what that may cost, and is swept once it has it.
        (token_at("a", 100, 49), [("top_up", "hot-pool", "a", "ETH", 11)]),
        (token_at("a", 100, 0), [("top_up", "hot-pool", "a", "ETH", 60)]),
        # What the sweep may cost stays behind.
        (coin_at("a", 120), [("sweep", "a", "hot-pool", "ETH", 100)]),
        (coin_at("a", 119), []),
    ],
)
def test_an_address_is_swept_when_it_is_worth_it_and_can_pay(
    seen: AddressView, expected: list[tuple[str, str, str, str, int]]
) -> None:
    found = plan(SWEEPS, sweeping(seen)).transfers

    assert [(str(t.kind), t.address, t.to_address, t.asset, t.amount) for t in found] == expected


def test_when_the_network_is_too_dear_nothing_is_swept_or_topped_up() -> None:
    seen = sweeping(token_at("a", 10**6, 0), coin_at("b", 10**6))

    assert plan(SWEEPS, replace(seen, fees=Fees(native=21, token=61))).transfers == ()


def test_the_coin_that_pays_for_a_token_sweep_is_not_swept_away_before() -> None:
    both = (token_at("a", 100, 5_000), coin_at("a", 5_000))

    found = plan(SWEEPS, sweeping(*both)).transfers

    assert [(t.kind, t.asset) for t in found] == [(TransferKind.SWEEP, "USDT")]


def test_an_address_with_a_transfer_under_way_is_left_alone() -> None:
    seen = sweeping(token_at("a", 100, 0))
    (top_up,) = plan(SWEEPS, seen).transfers
    swept = sweeping(token_at("a", 100, 60))
    (sweep,) = plan(SWEEPS, swept).transfers

    assert plan(SWEEPS, under_way(seen, top_up)).transfers == ()
    assert plan(SWEEPS, under_way(swept, sweep)).transfers == ()


def test_top_ups_never_promise_more_than_the_hot_address_has() -> None:
    poor = sweeping(*(token_at(name, 100, 0) for name in "abcd"), hot=150)

    found = plan(SWEEPS, poor).transfers

    assert sum(t.amount + FEES.native for t in found) <= 150
    assert len(found) == 2


def test_a_window_that_has_no_room_for_all_says_how_many_it_leaves() -> None:
    some = replace(SWEEPS, transfers_max=2)
    seen = sweeping(*(token_at(name, 100 + n, 50) for n, name in enumerate("abcde")))

    found = plan(some, seen)

    assert ([t.amount for t in found.transfers], found.left_over) == ([104, 103], 3)


def under_way(seen: TreasuryView, *transfers: OwnTransfer) -> TreasuryView:
    """The same, once these are asked for: the books hold what leaves, unless it is by hand."""
    available = dict(seen.available)
    for item in transfers:
        if not item.by_hand and (item.wallet, item.asset) in available:
            available[item.wallet, item.asset] -= item.amount
    moves = tuple(
        OpenTransfer(
            wallet=t.wallet,
            address=t.address,
            to_wallet=t.to_wallet,
            to_address=t.to_address,
            asset=t.asset,
            amount=t.amount,
            reserved=not t.by_hand,
        )
        for t in transfers
    )
    return replace(seen, available=available, open_transfers=(*seen.open_transfers, *moves))


amounts = st.integers(0, 20_000)
addresses = st.lists(
    st.builds(
        AddressView,
        wallet=st.just("pool"),
        address=st.sampled_from([f"a{n}" for n in range(6)]),
        asset=st.sampled_from(["USDT", "ETH"]),
        amount=amounts,
        native=st.integers(0, 200),
    ),
    max_size=8,
    unique_by=lambda a: (a.address, a.asset),
)


@given(
    st.fixed_dictionaries(dict.fromkeys(("pool", "pool_warm", "pool_cold", "house"), amounts)),
    addresses,
)
def test_no_plan_takes_more_than_there_is_or_changes_the_owner_or_repeats_itself(
    levels: dict[str, int], found: list[AddressView]
) -> None:
    made = rules(
        HOT,
        WARM,
        COLD,
        band("house", Tier.HOT, 100, 500, 900),
        sweeps=(USDT_RULE, ETH_RULE),
        transfers_max=500,
    )
    seen = replace(view(**levels), sweepable=tuple(found))
    transfers = plan(made, seen).transfers

    left = dict(seen.hot)
    for item in transfers:
        assert item.amount > 0
        assert item.address != item.to_address
        assert WALLETS[item.wallet].owner == WALLETS[item.to_wallet].owner
        assert item.by_hand == (item.wallet == "pool-cold")
        if item.kind is not TransferKind.SWEEP:
            left[item.wallet, item.asset] -= item.amount
    assert min(left.values()) >= 0
    keys = [(t.kind, t.address, t.to_address, t.asset) for t in transfers]
    assert len(set(keys)) == len(keys)
    swept = [t for t in transfers if t.kind is TransferKind.SWEEP]
    held = {(a.address, a.asset): a.amount for a in found}
    assert all(t.amount <= held[t.address, t.asset] for t in swept)

    assert plan(made, seen).transfers == transfers
    again = plan(made, under_way(seen, *transfers)).transfers
    assert {(t.address, t.asset) for t in again if t.kind is TransferKind.SWEEP}.isdisjoint(
        (t.address, t.asset) for t in swept
    )


# The rules themselves.


def test_rules_are_read_from_a_file_and_come_back_from_what_is_stored() -> None:
    text = """{"window_s": 600, "lifetime_s": 7200, "transfers_max": 9,
      "bands": [{"wallet": "pool", "asset": "ETH", "tier": "hot", "minimum": "1", "target": "2",
                 "maximum": "3", "cap": "4"}],
      "sweeps": [{"wallet": "pool", "asset": "USDT", "minimum": "50", "fee_max": "0.002"}]}"""

    read = parse_rules(text, 7, {"ETH": ETH, "USDT": USDT}, {"pool": "ETH"})

    assert (read.window, read.lifetime) == (timedelta(minutes=10), timedelta(hours=2))
    assert read.bands[0].cap == 4 * 10**18
    assert read.sweeps == (
        SweepRule(wallet="pool", asset="USDT", minimum=50_000_000, fee_max=2 * 10**15),
    )
    assert from_document(7, to_document(read)) == read


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minimum": "3"}, "minimum ≤ target"),
        ({"cap": "2.5"}, "a cap is of a hot wallet"),
        ({"tier": "warm", "cap": "4"}, "a cap is of a hot wallet"),
        ({"tier": "lukewarm"}, "has the tier"),
        ({"wallet": "nowhere"}, "is not registered"),
        ({"asset": "DOGE"}, "is not registered"),
        ({"target": 2}, "is 2"),
        ({"ceiling": "3"}, "has the field 'ceiling'"),
    ],
)
def test_rules_that_make_no_sense_are_refused(change: dict[str, object], message: str) -> None:
    item = {
        "wallet": "pool",
        "asset": "ETH",
        "tier": "hot",
        "minimum": "1",
        "target": "2",
        "maximum": "3",
    }
    text = json.dumps({"bands": [{**item, **change}]})

    with pytest.raises(BadInput, match=message):
        parse_rules(text, 1, {"ETH": ETH}, {"pool": "ETH"})


def test_windows_follow_one_another_without_gap_or_overlap() -> None:
    hourly = rules(HOT)
    noon = datetime(2026, 1, 5, 12, tzinfo=UTC)

    assert hourly.window_start(noon) == noon
    assert hourly.window_start(noon + timedelta(minutes=59, microseconds=7)) == noon
    assert hourly.window_start(noon - timedelta(microseconds=1)) == noon - timedelta(hours=1)


@pytest.mark.parametrize(("taken", "drained"), [(True, 4_990), (False, 990)])
def test_coins_that_a_transaction_has_taken_are_not_taken_off_once_more(
    *, taken: bool, drained: int
) -> None:
    """What may be spent is counted without them; of a transfer that has none yet, they are in it."""
    open_transfer = OpenTransfer(
        wallet="pool",
        address="hot-pool",
        to_wallet="pool-warm",
        to_address="hot-pool-warm",
        asset="ETH",
        amount=4_000,
        taken=taken,
    )
    seen = replace(
        view(pool=10_000),
        hot={("pool", "ETH"): 5_000},
        open_transfers=(open_transfer,),
        of_coins=True,
    )
    cold = band("pool-cold", Tier.COLD, 0, 0, 10**9)
    found = plan(rules(band("pool", Tier.HOT, 0, 2_000, 3_000), cold), seen).transfers
    assert told(found) == [("drain", "pool", "pool-cold", drained, False)]
