"""One step of a chain: what a block does to our wallets, and that any reorganisation undoes it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.model import TOP, Block, BlockContents, Included, Movement, Orphaned
from chain.testing import ScriptedTransaction
from custody.arrivals import Token, guarded, judge, split_shortfalls
from custody.books import in_batches
from custody.compliance.address_list import AddressList
from custody.compliance.model import Answer, Question, Verdict
from custody.deposit_model import (
    PLAUSIBLE_AMOUNT_MAX,
    DepositKind,
    DepositState,
    SourceClass,
)
from custody.errors import NotPossible
from custody.inclusion import apply_step
from custody.model import Address, AddressPurpose
from custody.plan import Plan
from custody.policy import ConfirmationPolicy
from custody.testing import allow
from kernel.ids import derive_id
from kernel.money import Asset
from ledger.model import transfer
from ledger.testing import enforce_lock_order
from registry.model import ChainAsset
from registry.testing import TOKEN
from tests.custody.house import BOOK, ETHER, FAKE_TOKEN, STRANGER, House

NOW = datetime(2026, 1, 5, tzinfo=UTC)
USDT = Token(ChainAsset("evm:USDT", "evm", TOKEN, 6, "USDT"), Asset("USDT", 6))


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[House]:
    with enforce_lock_order(engine):
        yield await House(engine).open()


def block(height: int, *, fork: str = "a") -> Block:
    return Block("evm", height, f"0x{fork}{height}", f"0x{fork}{height - 1}", NOW)


def move(to: str, amount: int, *, contract: str | None = TOKEN, tx: str = "0xt") -> Movement:
    return Movement(tx, TOP if contract is None else "log:0", STRANGER, to, contract, amount)


def address(purpose: AddressPurpose, party: str | None = "acme") -> Address:
    return Address("evm", "0x1", "w", 0, 0, purpose, party, "", NOW)


# What a movement is.


@pytest.mark.parametrize(
    ("purpose", "token", "amount", "circumstances", "kind", "credit"),
    [
        (AddressPurpose.DEPOSIT, USDT, 100, {}, "client", "client:acme"),
        (AddressPurpose.DEPOSIT, USDT, 100, {"minimum": 100}, "client", "client:acme"),
        (AddressPurpose.DEPOSIT, USDT, 99, {"minimum": 100}, "dust", "suspense:dust"),
        (
            AddressPurpose.DEPOSIT,
            USDT,
            100,
            {"blocked": True},
            "unattributed",
            "suspense:unattributed:evm",
        ),
        (AddressPurpose.HOT, USDT, 1, {"minimum": 5}, "unattributed", "suspense:unattributed:evm"),
        (AddressPurpose.SETTLEMENT, USDT, 1, {"minimum": 5}, "client", "suspense:evm"),
        (AddressPurpose.DEPOSIT, None, 100, {}, "quarantined", ""),
        (AddressPurpose.SETTLEMENT, None, 100, {}, "quarantined", ""),
        (AddressPurpose.DEPOSIT, USDT, PLAUSIBLE_AMOUNT_MAX, {}, "client", "client:acme"),
        (AddressPurpose.DEPOSIT, USDT, PLAUSIBLE_AMOUNT_MAX + 1, {}, "quarantined", ""),
    ],
)
def test_where_it_arrives_decides_whose_it_is(
    purpose: AddressPurpose,
    token: Token | None,
    amount: int,
    circumstances: dict[str, int],
    kind: str,
    credit: str,
) -> None:
    judged = judge(move("0x1", amount), address(purpose), token, **circumstances)  # type: ignore[arg-type]  # the table above

    assert (str(judged.kind), judged.credit, judged.amount) == (kind, credit, amount)


def test_a_chain_with_fewer_places_is_booked_in_the_assets_units() -> None:
    coarse = Token(ChainAsset("evm:USDT", "evm", TOKEN, 2, "USDT"), Asset("USDT", 6))

    judged = judge(move("0x1", 7), address(AddressPurpose.DEPOSIT), coarse)

    assert judged.amount == 70_000


# One step.


async def step(house: House, *movements: Movement, height: int = 1) -> None:
    contents = BlockContents(block(height), movements)
    await house.do(lambda c: apply_step(c, Included(contents), book=BOOK, now=house.now))


async def unstep(house: House, *movements: Movement, height: int = 1) -> None:
    contents = BlockContents(block(height), movements)
    await house.do(lambda c: apply_step(c, Orphaned(contents), book=BOOK, now=house.now))


async def test_a_contract_that_is_not_registered_is_quarantined_and_not_posted(
    house: House,
) -> None:
    fake = move(house.acme, 10**9, contract=FAKE_TOKEN)
    await step(house, fake)

    (deposit,) = await house.deposits()
    assert (deposit.state, deposit.kind) == (DepositState.QUARANTINED, DepositKind.QUARANTINED)
    assert (deposit.asset, deposit.credit) == ("", "")
    assert deposit.reason == f"contract {FAKE_TOKEN} is not registered"
    assert await house.balances() == {}

    await unstep(house, fake)
    assert await house.states() == ["orphaned"]
    await step(house, fake, height=2)
    assert await house.states() == ["quarantined"]
    assert await house.balances() == {}


async def test_an_impossible_amount_of_a_real_token_is_quarantined(house: House) -> None:
    await step(house, move(house.acme, 2**256 - 1))

    assert await house.states() == ["quarantined"]
    assert await house.balances() == {}


async def test_what_one_of_our_addresses_sends_to_another_is_no_clients_deposit(
    house: House,
) -> None:
    house.gateway.fund(house.hot, ETHER)
    own = Movement("0xown", TOP, house.hot, house.acme, None, 5)
    await step(house, own)

    assert await house.deposits() == []
    assert not any(path.startswith("client:") for path in await house.balances())


async def test_the_same_block_twice_is_refused_and_changes_nothing(house: House) -> None:
    await step(house, move(house.acme, 10))
    before = await house.balances()

    for height in (1, 2):
        with pytest.raises(NotPossible, match="is in block 0xa1"):
            await step(house, move(house.acme, 10), height=height)

    assert await house.balances() == before
    assert [d.epoch for d in await house.deposits()] == [1]


async def test_a_block_full_of_small_payments_does_not_stop_the_chain(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever pays the gas can put more transfers to us into a block than one batch takes."""
    for module in ("ledger.posting", "custody.books"):
        monkeypatch.setattr(f"{module}.BATCH_MAX", 4, raising=False)
    house.mine(house.pay_token(*((house.acme, n) for n in range(1, 10))), empty_after=2)
    await house.catch_up()
    assert (await house.balances())["client:acme USDT"] == (45, 0)

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()

    assert await house.balances() == {}
    assert await house.differences() == {}


def test_a_chain_of_transfers_is_posted_as_a_whole() -> None:
    plan = Plan()
    for length in (1, 3, 2, 1):
        ids = (derive_id(NOW, length, n) for n in range(length))
        plan.post(*(transfer(i, "client:a", "client:b", length, "ETH", code="t") for i in ids))

    batches = [[item.amount for item in batch] for batch in in_batches(plan.transfers, 4)]

    assert batches == [[1, 3, 3, 3], [2, 2, 1]]


async def test_a_refused_step_leaves_no_row_behind(house: House) -> None:
    async def crash(conn: AsyncConnection) -> None:
        contents = BlockContents(block(1), (move(house.acme, 10),))
        await apply_step(conn, Included(contents), book=BOOK, now=house.now)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await house.do(crash)

    assert await house.deposits() == []
    assert await house.balances() == {}


async def test_a_sender_whom_two_people_allowed_is_known(house: House) -> None:
    await house.do(lambda conn: allow(conn, "acme", STRANGER, now=house.now))
    await step(house, move(house.acme, 10, tx="0xa"), move(house.birch, 10, tx="0xb"))

    sources = {d.party: d.source for d in await house.deposits()}
    assert sources == {"acme": SourceClass.KNOWN, "birch": SourceClass.UNKNOWN}


# Shortfalls.


async def test_shortfalls_are_counted_one_after_the_other(house: House) -> None:
    house.mine(
        house.pay_token((house.acme, 100), (house.acme, 50), (house.birch, 30)), empty_after=2
    )
    await house.catch_up()
    credited = await house.deposits()
    assert {found.party for d in credited if (found := guarded(d))} == {"acme", "birch"}

    split = split_shortfalls(
        sorted(credited, key=lambda d: -d.amount),
        {("client:acme", "USDT"): 120, ("client:birch", "USDT"): -4},
    )

    assert [(item.amount, short) for item, short in split] == [(100, 0), (50, 30), (30, 34)]


# Any schedule of reorganisations.


def payments(house: House, rng: random.Random) -> list[ScriptedTransaction]:
    ends = [house.acme, house.birch, house.settlement, house.hot]
    made = []
    for _ in range(rng.randint(4, 8)):
        if rng.random() < 0.5:
            made.append(house.pay(rng.choice(ends), rng.randint(1, 9) * ETHER))
        else:
            legs = [(rng.choice(ends), rng.randint(1, 999)) for _ in range(rng.randint(1, 3))]
            made.append(house.pay_token(*legs, logs_before=rng.randint(0, 2)))
    return made


@pytest.mark.parametrize("seed", range(8))
async def test_any_schedule_of_reorganisations_ends_in_the_books_of_a_clean_run(
    house: House, seed: int
) -> None:
    """The expected books are counted from what the final chain says, by other code than ours."""
    rng = random.Random(seed)
    house.policy = ConfirmationPolicy.uniform(rng.randint(1, 4))
    house.proves = rng.random() < 0.5
    waiting = payments(house, rng)
    paid = list(waiting)
    for _ in range(rng.randint(5, 9)):
        depth = rng.randint(0, min(4, len(house.gateway.blocks) - 1))
        if depth and rng.random() < 0.5:
            waiting += house.gateway.rollback(depth)
        for _ in range(depth + 1):
            taken, waiting = waiting[:2], waiting[2:]
            rng.shuffle(taken)
            house.mine(*taken)
        # Whoever screens is away now and then, and policy is changed: neither may change the end.
        house.screening = rng.choice([AddressList(1), AddressList(2), Silent(1)])
        if rng.random() < 0.3:
            next_version = house.policy.version + 1
            house.policy = ConfirmationPolicy.uniform(rng.randint(1, 4), version=next_version)
        if rng.random() < 0.7:
            await house.follow()
        for _ in range(rng.randint(0, 2)):
            await house.catch_up()
    house.screening = AddressList(3)
    house.mine(*waiting, empty_after=4)
    await house.catch_up()

    assert await house.balances() == expected(house, paid)
    assert await house.open_holds() == []
    assert await house.differences() == {}


class Silent(AddressList):
    """Answers nothing."""

    async def screen(self, questions: Sequence[Question]) -> Sequence[Answer]:
        return [Answer(Verdict.UNKNOWN) for _ in questions]


def expected(house: House, paid: list[ScriptedTransaction]) -> dict[str, tuple[int, int]]:
    places = {
        house.acme: ("custody:client-pool", "client:acme"),
        house.birch: ("custody:client-pool", "client:birch"),
        house.settlement: ("custody:house-settlement", "suspense:evm"),
        house.hot: ("custody:house-hot", "suspense:unattributed:evm"),
    }
    totals: dict[str, int] = {}
    for item in paid:
        for movement in item.movements():
            asset = "ETH" if movement.contract is None else "USDT"
            for path in places[movement.recipient]:
                totals[f"{path} {asset}"] = totals.get(f"{path} {asset}", 0) + movement.amount
    return {path: (total, 0) for path, total in totals.items()}
