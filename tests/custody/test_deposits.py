"""The life of a deposit, told on a scripted chain and a real database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.errors import ChainHalted
from chain.follow import get_cursor
from chain.halts import halt
from chain.testing import ScriptedTransaction
from custody import deposits as verbs
from custody import store
from custody.allow_list import list_destinations
from custody.attribution import attribution_bytes
from custody.attributions import attribute as attribute_verb
from custody.compliance.address_list import AddressList
from custody.compliance.model import Answer, Question, Verdict
from custody.deposit_model import DEPOSIT_STATES, RECEIPT_STATES, Deposit, DepositState
from custody.errors import ClientsUncovered, NotPossible, UnknownRow
from custody.model import AddressPurpose
from custody.payout_model import Payout, PayoutRequest, PayoutState
from custody.payouts import list_payouts, request_payout
from custody.policy import ConfirmationPolicy, Requirement, Rule
from custody.testing import allow, set_policy
from kernel.db import constraint_name
from kernel.errors import BadInput
from kernel.ids import derive_id
from kernel.states import StateTable, trigger_name, trigger_statements
from ledger.accounts import ensure_accounts, set_frozen
from ledger.errors import PostingRefused
from ledger.model import transfer
from ledger.posting import post, require_applied
from ledger.testing import enforce_lock_order
from registry.errors import NotAuthorised
from registry.testing import operator_keypair
from tests.custody.house import BOOK, ETHER, FAKE_TOKEN, OTHER, STRANGER, House


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[House]:
    with enforce_lock_order(engine):
        yield await House(engine).open()


async def test_a_deposit_is_held_when_it_is_included_and_credited_when_it_is_deep(
    house: House,
) -> None:
    house.mine(house.pay_token((house.acme, 5_000_000)))
    await house.catch_up()

    assert await house.states() == ["included"]
    assert await house.balances() == {
        "custody:client-pool USDT": (0, 5_000_000),
        "client:acme USDT": (0, 5_000_000),
    }
    assert await house.open_holds() == [("custody:client-pool", "client:acme", 5_000_000)]
    assert await house.differences() == {}

    house.mine(empty_after=1)
    await house.catch_up()

    assert await house.states() == ["credited"]
    assert await house.balances() == {
        "custody:client-pool USDT": (5_000_000, 0),
        "client:acme USDT": (5_000_000, 0),
    }
    assert await house.open_holds() == []
    assert await house.differences() == {}


async def test_every_step_of_a_deposit_is_told_with_actor_and_reason(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER), empty_after=2)
    await house.catch_up()
    (deposit,) = await house.deposits()

    told = await house.do(lambda conn: verbs.explain(conn, deposit.id))

    assert [(e.version, e.name, e.from_state, e.to_state, e.actor) for e in told] == [
        (1, "DepositIncluded", None, "included", "system:follower"),
        (2, "DepositConfirmed", "included", "confirmed", "system:deposits"),
        (3, "DepositScreened", "confirmed", "screened", "system:deposits"),
        (4, "DepositCredited", "screened", "credited", "system:deposits"),
    ]
    assert told[1].reason == "policy 1, rule 1: 3 blocks"
    assert deposit.version == 4


async def test_one_block_short_of_policy_nothing_is_credited(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER), empty_after=1)
    await house.catch_up()
    assert await house.states() == ["included"]

    house.mine()
    await house.catch_up()
    assert await house.states() == ["credited"]


async def test_advancing_twice_credits_once(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER), empty_after=3)
    await house.catch_up()
    await house.catch_up()

    assert (await house.balances())["client:acme ETH"] == (ETHER, 0)


async def test_two_workers_at_once_credit_once(house: House) -> None:
    house.mine(*(house.pay(house.acme, 1) for _ in range(12)), empty_after=2)
    await house.follow()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(house.advance()) for _ in range(3)]

    # One may confirm what another credits; what is credited was moved there by one.
    moved = [d for task in tasks for d in task.result()[0]]
    credited = [d.id for d in moved if d.state is DepositState.CREDITED]
    assert len(credited) == len(set(credited)) == 12
    assert (await house.balances())["client:acme ETH"] == (12, 0)


async def test_a_worker_and_a_reorganisation_at_once_end_like_one_after_the_other(
    house: House,
) -> None:
    house.mine(*(house.pay(house.acme, 1) for _ in range(5)), empty_after=2)
    await house.follow()
    house.gateway.reorg(3, [[], [], [], []])

    async def advance() -> None:
        with contextlib.suppress(NotPossible):  # the tip is off the chain: asked too late
            await house.advance()

    async with asyncio.TaskGroup() as group:
        group.create_task(house.follow())
        group.create_task(advance())

    assert set(await house.states()) <= {"orphaned", "reversed"}
    assert await house.balances() == {}
    assert await house.differences() == {}


async def test_a_deposit_that_is_reorganised_away_leaves_nothing(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER))
    await house.catch_up()

    house.gateway.reorg(1, [[], []])
    await house.catch_up()

    assert await house.states() == ["orphaned"]
    assert await house.balances() == {}
    assert await house.open_holds() == []
    assert await house.differences() == {}


async def test_mined_again_at_another_place_it_is_the_same_deposit_and_credited_once(
    house: House,
) -> None:
    paid = house.pay_token((house.acme, 7), logs_before=2)
    house.mine(paid)
    await house.catch_up()
    (first,) = await house.deposits()

    other = house.pay_token((OTHER, 1), logs_before=1, sender=OTHER)
    house.gateway.reorg(1, [[], [other, paid], [], []])
    await house.catch_up()

    (again,) = await house.deposits()
    assert (again.id, again.epoch, again.height) == (first.id, 2, first.height + 1)
    assert again.state is DepositState.CREDITED
    assert await house.balances() == {
        "custody:client-pool USDT": (7, 0),
        "client:acme USDT": (7, 0),
    }
    seen = await house.do(lambda conn: verbs.list_inclusions(conn, first.id))
    assert [(o.epoch, o.height, o.block_hash) for o in seen] == [
        (1, first.height, first.block_hash),
        (2, again.height, again.block_hash),
    ]


async def test_an_amount_that_differs_on_the_other_branch_is_credited_as_it_is_there(
    house: House,
) -> None:
    """A contract may log another amount at the same place when it runs on another branch."""
    known = house.pay_token((house.acme, 700))
    changed = house.pay_token((house.birch, 650), tx_hash=known.hash)
    house.mine(known)
    await house.catch_up()

    house.gateway.reorg(1, [[changed], [], []])
    await house.catch_up()

    assert await house.balances() == {
        "custody:client-pool USDT": (650, 0),
        "client:birch USDT": (650, 0),
    }
    assert await house.differences() == {}


async def test_two_deposits_in_one_transaction_are_two(house: House) -> None:
    house.mine(
        house.pay_token((house.acme, 10), (OTHER, 99), (house.birch, 20), (house.acme, 10)),
        empty_after=2,
    )
    await house.catch_up()

    found = await house.deposits()
    assert sorted((d.position, d.party, d.amount) for d in found) == [
        ("log:0", "acme", 10),
        ("log:2", "birch", 20),
        ("log:3", "acme", 10),
    ]
    assert await house.balances() == {
        "custody:client-pool USDT": (40, 0),
        "client:acme USDT": (20, 0),
        "client:birch USDT": (20, 0),
    }


async def test_a_failed_transaction_credits_nobody(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER, succeeded=False), empty_after=3)
    house.mine(house.pay_token((house.acme, 5), succeeded=False), empty_after=3)
    await house.catch_up()

    assert await house.deposits() == []
    assert await house.balances() == {}


async def test_a_token_that_only_looks_like_ours_credits_nobody(house: House) -> None:
    house.mine(house.pay_token((house.acme, 10**9), contract=FAKE_TOKEN), empty_after=3)
    await house.catch_up()

    [seen] = await house.deposits()
    assert (seen.state, seen.asset, seen.credit) == (DepositState.QUARANTINED, "", "")
    assert seen.contract == FAKE_TOKEN
    assert await house.balances() == {}


async def test_below_the_minimum_it_is_dust(house: House) -> None:
    house.policy = ConfirmationPolicy(1, (Rule(Requirement(2)),), {"evm:USDT": 100})
    house.mine(house.pay_token((house.acme, 99)), house.pay_token((house.acme, 100)))
    house.mine()
    await house.catch_up()

    assert sorted(await house.states()) == ["credited", "dust"]
    assert await house.balances() == {
        "custody:client-pool USDT": (199, 0),
        "suspense:dust USDT": (99, 0),
        "client:acme USDT": (100, 0),
    }


async def test_policy_may_ask_for_the_chains_own_finality(house: House) -> None:
    house.policy = ConfirmationPolicy.uniform(1, finalized=True)
    house.mine(house.pay(house.acme, ETHER), empty_after=63)
    await house.catch_up()
    assert await house.states() == ["included"]

    house.mine()
    await house.catch_up()
    assert await house.states() == ["credited"]


async def test_a_laxer_policy_does_not_hurry_what_was_waiting(house: House) -> None:
    house.policy = ConfirmationPolicy.uniform(6)
    house.mine(house.pay(house.acme, ETHER), empty_after=1)
    await house.catch_up()

    house.policy = ConfirmationPolicy.uniform(2, version=2)
    await house.catch_up()
    assert await house.states() == ["included"]

    house.mine(empty_after=3)
    await house.catch_up()
    assert await house.states() == ["credited"]


async def test_a_stricter_policy_applies_to_what_is_waiting(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER))
    await house.catch_up()

    house.policy = ConfirmationPolicy.uniform(5, version=2)
    house.mine(empty_after=2)
    await house.catch_up()
    assert await house.states() == ["included"]


async def test_what_waits_long_does_not_keep_others_waiting(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PAGE_MAX", 2)
    slow = Rule(Requirement(50), asset="USDT")
    house.policy = ConfirmationPolicy(1, (slow, Rule(Requirement(2))))
    house.mine(*(house.pay_token((house.acme, 1)) for _ in range(3)), empty_after=1)
    house.mine(house.pay(house.acme, ETHER), empty_after=1)
    await house.follow()

    for _ in range(3):
        await house.advance()

    assert (await house.balances())["client:acme ETH"] == (ETHER, 0)
    assert (await house.balances())["client:acme USDT"] == (0, 3)


async def test_nothing_is_credited_on_a_chain_that_is_halted(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER), empty_after=3)
    await house.follow()
    await house.do(lambda conn: halt(conn, "evm", by="ada", reason="look", now=house.now))

    with pytest.raises(ChainHalted):
        await house.advance()
    assert await house.states() == ["included"]


async def test_people_credit_nothing_either_on_a_chain_that_is_halted(house: House) -> None:
    house.screening = AddressList.blocking(1, {STRANGER})
    house.mine(house.pay(house.acme, ETHER), house.pay(house.hot, ETHER), empty_after=2)
    await house.catch_up()
    held, nobodys = sorted(await house.deposits(), key=lambda item: item.state)
    await house.do(lambda conn: halt(conn, "evm", by="ada", reason="look", now=house.now))

    with pytest.raises(ChainHalted):
        await house.release(held.id)
    with pytest.raises(ChainHalted):
        await attribute(house, nobodys, "equity:capital")
    assert sorted(await house.states()) == ["held", "unattributed"]


async def test_a_tip_that_is_off_the_chain_confirms_nothing(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER), empty_after=3)
    await house.follow()
    old = await house.do(lambda conn: get_cursor(conn, "evm"))
    assert old is not None
    house.gateway.reorg(2, [[], [], []])
    await house.follow()

    with pytest.raises(NotPossible, match="not on evm any more"):
        await verbs.advance_deposits(
            house.engine,
            "evm",
            book=BOOK,
            tip=old,
            finalized=0,
            policy=house.policy,
            now=house.now,
        )


# Screening.


class Talkative(AddressList):
    """Screens with very many words."""

    def __init__(self) -> None:
        super().__init__(1)

    async def screen(self, questions: Sequence[Question]) -> Sequence[Answer]:
        return [
            Answer(Verdict.HIT, "!" * 900) if item.party == "acme" else Answer(Verdict.CLEAR)
            for item in questions
        ]


async def test_what_screening_finds_is_held_apart_and_released_by_two(house: House) -> None:
    house.screening = AddressList.blocking(4, {STRANGER.lower()}, "stolen")
    house.mine(house.pay(house.acme, ETHER), empty_after=2)
    await house.catch_up()

    (deposit,) = await house.deposits()
    assert deposit.state is DepositState.HELD
    assert deposit.reason == f"{STRANGER} is on list version 4: stolen"
    assert await house.balances() == {
        "custody:client-pool ETH": (ETHER, 0),
        "client:acme:held ETH": (ETHER, 0),
    }
    told = await house.do(lambda conn: verbs.explain(conn, deposit.id))
    assert (told[-1].name, told[-1].reason) == (
        "DepositHeld",
        f"{STRANGER} is on list version 4: stolen",
    )

    await house.release(deposit.id, reason="own exchange")
    assert await house.balances() == {
        "custody:client-pool ETH": (ETHER, 0),
        "client:acme ETH": (ETHER, 0),
    }


async def test_a_finding_of_many_words_keeps_nobody_waiting(house: House) -> None:
    house.screening = Talkative()
    house.mine(house.pay(house.acme, 1), house.pay(house.birch, 1), empty_after=2)
    await house.catch_up()

    assert sorted(await house.states()) == ["credited", "held"]


async def test_two_deciders_release_and_only_what_is_held(house: House) -> None:
    house.screening = AddressList.blocking(1, {STRANGER})
    house.mine(house.pay(house.acme, ETHER), house.pay(house.acme, 1, sender=OTHER), empty_after=2)
    await house.catch_up()
    by_state = {d.state: d.id for d in await house.deposits()}

    for deposit_id, by, reason, refusal in (
        (by_state[DepositState.HELD], ("ben",), "fine", NotAuthorised),
        (by_state[DepositState.HELD], ("ben", "dan"), "fine", NotAuthorised),
        (by_state[DepositState.HELD], ("ben", "cleo"), " ", BadInput),
        (by_state[DepositState.CREDITED], ("ben", "cleo"), "fine", NotPossible),
        (derive_id(house.now, "nothing"), ("ben", "cleo"), "fine", UnknownRow),
    ):
        with pytest.raises(refusal):
            await house.release(deposit_id, *by, reason=reason)


# Reversal.


async def test_a_credit_whose_block_vanishes_is_reversed(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER), empty_after=2)
    await house.catch_up()

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()

    assert await house.states() == ["reversed"]
    assert await house.balances() == {}
    assert await house.differences() == {}


async def test_what_was_spent_meanwhile_is_owed_and_paid_back_when_the_deposit_returns(
    house: House,
) -> None:
    paid = house.pay_token((house.acme, 100))
    house.mine(paid, empty_after=2)
    await house.catch_up()
    await spend(house, "client:acme", 70)

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()
    assert await house.balances() == {
        "receivable:acme:reorg USDT": (70, 0),
        "income:fee USDT": (70, 0),
    }

    house.mine(paid, empty_after=2)
    await house.catch_up()
    assert await house.states() == ["credited"]
    assert await house.balances() == {
        "custody:client-pool USDT": (100, 0),
        "client:acme USDT": (30, 0),
        "income:fee USDT": (70, 0),
    }


async def test_a_deposit_that_returns_smaller_pays_back_no_more_than_it_is(house: House) -> None:
    paid = house.pay_token((house.acme, 100))
    house.mine(paid, empty_after=2)
    await house.catch_up()
    await spend(house, "client:acme", 90)
    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()

    smaller = house.pay_token((house.acme, 40), tx_hash=paid.hash)
    house.mine(smaller, house.pay_token((house.birch, 5)), empty_after=2)
    await house.catch_up()

    assert await house.balances() == {
        "custody:client-pool USDT": (45, 0),
        "client:birch USDT": (5, 0),
        "receivable:acme:reorg USDT": (50, 0),
        "income:fee USDT": (90, 0),
    }


async def test_a_client_frozen_while_it_owes_keeps_nobody_waiting(house: House) -> None:
    paid = house.pay_token((house.acme, 100))
    house.mine(paid, empty_after=2)
    await house.catch_up()
    await spend(house, "client:acme", 70)
    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()

    house.mine(paid, house.pay_token((house.birch, 5)))
    await house.catch_up()
    await freeze(house, "client:acme", "USDT")
    house.mine(empty_after=1)
    await house.catch_up()

    assert await house.states() == ["credited", "credited"]
    balances = await house.balances()
    assert (balances["client:acme USDT"], balances["client:birch USDT"]) == ((30, 0), (5, 0))
    assert "receivable:acme:reorg USDT" not in balances
    with pytest.raises(PostingRefused, match="frozen"):
        await spend(house, "client:acme", 1)


async def test_every_payout_that_nobody_signed_is_cancelled_however_many(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("custody.payout_store.PAGE_MAX", 2)
    house.mine(house.pay_token((house.acme, 100)), empty_after=2)
    await house.catch_up()
    await house.assign("client-pool", AddressPurpose.HOT, None)
    for number in range(5):
        await ask_for_payout(house, f"usdt-{number}", "USDT", 20)

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()

    assert await house.balances() == {}
    assert await house.open_holds() == []


async def test_payouts_that_nobody_signed_are_cancelled_before_anything_is_owed(
    house: House,
) -> None:
    house.mine(house.pay_token((house.acme, 100)), house.pay(house.acme, ETHER), empty_after=2)
    await house.catch_up()
    await house.assign("client-pool", AddressPurpose.HOT, None)
    kept = await ask_for_payout(house, "eth", "ETH", 1)
    cancelled = await ask_for_payout(house, "usdt", "USDT", 60)
    await spend(house, "client:acme", 30)

    only_token = [t for t in await unmined(house) if not t.transfers]
    house.gateway.reorg(3, [only_token, [], [], []])
    await house.catch_up()

    states = {p.id: p.state for p in await house.do(list_payouts)}
    assert states[cancelled.id] is PayoutState.CANCELLED
    assert (await house.balances())["receivable:acme:reorg USDT"] == (30, 0)
    assert (await house.balances())["client:acme ETH"] == (ETHER, 0)
    # The ether came back in the same step, but when it vanished its payout was cancelled, too.
    assert states[kept.id] is PayoutState.CANCELLED
    assert await house.open_holds() == []


async def test_two_credits_of_one_client_reversed_together_name_one_shortfall(
    house: House,
) -> None:
    house.mine(house.pay_token((house.acme, 100)), house.pay_token((house.acme, 50)), empty_after=2)
    await house.catch_up()
    await spend(house, "client:acme", 120)

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()

    assert await house.states() == ["reversed", "reversed"]
    assert await house.balances() == {
        "receivable:acme:reorg USDT": (120, 0),
        "income:fee USDT": (120, 0),
    }
    assert sum(d.shortfall for d in await house.deposits()) == 120


async def test_a_held_deposit_that_was_released_is_reversed_through_both_steps(
    house: House,
) -> None:
    house.screening = AddressList.blocking(1, {STRANGER})
    house.mine(house.pay(house.acme, ETHER), empty_after=2)
    await house.catch_up()
    (deposit,) = await house.deposits()
    await house.release(deposit.id)

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()

    assert await house.balances() == {}
    assert await house.states() == ["reversed"]


async def test_dust_and_held_deposits_are_reversed_too(house: House) -> None:
    house.policy = ConfirmationPolicy(1, (Rule(Requirement(3)),), {"evm:ETH": 100})
    house.screening = AddressList.blocking(1, {STRANGER})
    house.mine(house.pay(house.acme, ETHER), house.pay(house.acme, 99), empty_after=2)
    await house.catch_up()
    assert sorted(await house.states()) == ["dust", "held"]

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()

    assert await house.balances() == {}


async def test_a_frozen_client_does_not_stop_a_fact(house: House) -> None:
    house.mine(house.pay(house.acme, ETHER), empty_after=2)
    await house.catch_up()
    await freeze(house, "client:acme", "ETH")

    house.mine(house.pay(house.acme, 5), empty_after=2)
    await house.catch_up()
    assert await house.balances() == {
        "custody:client-pool ETH": (ETHER + 5, 0),
        "client:acme ETH": (ETHER, 0),
        "suspense:unattributed:evm ETH": (5, 0),
    }

    house.gateway.reorg(6, [[], [], [], [], [], [], []])
    await house.catch_up()
    assert await house.balances() == {}
    with pytest.raises(PostingRefused, match="frozen"):
        await spend(house, "client:acme", 1, asset="ETH")


async def test_what_compliance_froze_does_not_stop_a_reversal(house: House) -> None:
    house.screening = AddressList.blocking(1, {STRANGER})
    house.mine(house.pay(house.acme, ETHER), empty_after=2)
    await house.catch_up()
    await freeze(house, "client:acme:held", "ETH")

    house.gateway.reorg(3, [[], [], [], []])
    await house.catch_up()

    assert await house.states() == ["reversed"]
    assert await house.balances() == {}


# Attribution.


async def attribute(
    house: House,
    deposit: Deposit,
    credit: str,
    *,
    first: str = "ada",
    second: str = "ben",
    signers: tuple[str, str] | None = None,
    reason: str = "opening coins",
    signed_credit: str | None = None,
) -> Deposit:
    payload = attribution_bytes(deposit, signed_credit or credit, reason)
    one, two = (operator_keypair(code).sign(payload) for code in signers or (first, second))
    return await house.do(
        lambda conn: attribute_verb(
            conn,
            deposit.id,
            credit=credit,
            reason=reason,
            first=first,
            first_signature=one,
            second=second,
            second_signature=two,
            book=BOOK,
            now=house.now,
        )
    )


async def unattributed(house: House, amount: int = ETHER) -> Deposit:
    house.mine(house.pay(house.hot, amount), empty_after=2)
    await house.catch_up()
    (deposit,) = await house.deposits()
    assert deposit.state is DepositState.UNATTRIBUTED
    return deposit


async def test_coins_from_a_stranger_to_a_hot_address_are_nobodys_until_two_people_say(
    house: House,
) -> None:
    deposit = await unattributed(house)
    assert await house.balances() == {
        "custody:house-hot ETH": (ETHER, 0),
        "suspense:unattributed:evm ETH": (ETHER, 0),
    }

    after = await attribute(house, deposit, "equity:capital")

    assert (after.state, after.credit) == (DepositState.ATTRIBUTED, "equity:capital")
    assert await house.balances() == {
        "custody:house-hot ETH": (ETHER, 0),
        "equity:capital ETH": (ETHER, 0),
    }
    (said,) = await house.do(lambda conn: verbs.list_attributions(conn, deposit.id))
    assert (said.first, said.second, said.credit) == ("ada", "ben", "equity:capital")


async def test_one_person_attributes_nothing(house: House) -> None:
    deposit = await unattributed(house)

    for wrong in (
        {"second": "ada"},
        {"signers": ("ada", "ada")},
        {"second": "dan"},
        {"signed_credit": "equity:opening"},
    ):
        with pytest.raises(NotAuthorised):
            await attribute(house, deposit, "equity:capital", **wrong)
    assert await house.states() == ["unattributed"]


async def test_a_deposit_is_attributed_once(house: House) -> None:
    deposit = await unattributed(house)
    await attribute(house, deposit, "equity:capital")

    with pytest.raises(NotPossible, match="attributed, not unattributed"):
        await attribute(house, deposit, "equity:capital")


@pytest.mark.parametrize("credit", ["client:acme:held", "income:fee", "client:", "custody:x"])
async def test_only_clients_and_capital_are_credited(house: House, credit: str) -> None:
    deposit = await unattributed(house)

    with pytest.raises(BadInput, match="cannot be credited"):
        await attribute(house, deposit, credit)


async def test_a_clients_money_must_lie_with_clients_coins(house: House) -> None:
    deposit = await unattributed(house)

    with pytest.raises(NotPossible, match="owned by house"):
        await attribute(house, deposit, "client:acme")


async def test_the_houses_money_must_not_lie_with_clients_coins(house: House) -> None:
    house.screening = AddressList.blocking(1, {STRANGER})
    pool = await house.assign("client-pool", AddressPurpose.HOT, None)
    house.mine(house.pay(pool, ETHER), empty_after=2)
    await house.catch_up()
    (deposit,) = await house.deposits()

    with pytest.raises(NotPossible, match="holds clients' money"):
        await attribute(house, deposit, "equity:capital")
    with pytest.raises(NotPossible, match="screening"):
        await attribute(house, deposit, "client:acme")
    await house.release(deposit.id)
    await attribute(house, deposit, "client:acme")
    assert (await house.balances())["client:acme ETH"] == (ETHER, 0)


async def test_coins_that_have_been_spent_meanwhile_are_not_owed_to_a_client(house: House) -> None:
    pool = await house.assign("client-pool", AddressPurpose.HOT, None)
    house.mine(house.pay(pool, ETHER), empty_after=2)
    await house.catch_up()
    (deposit,) = await house.deposits()
    places = "expense:loss", "custody:client-pool"
    loss = transfer(derive_id(house.now, "loss"), *places, 1, "ETH", code="test")

    async def lose(conn: AsyncConnection) -> None:
        await ensure_accounts(conn, BOOK, [("expense:loss", "ETH")], now=house.now)
        require_applied(await post(conn, BOOK, [loss], now=house.now))

    await house.do(lose)

    with pytest.raises(ClientsUncovered, match="owed 1 ETH"):
        await attribute(house, deposit, "client:acme")
    assert await house.states() == ["unattributed"]


async def test_an_attribution_is_reversed_with_its_block_and_has_to_be_made_again(
    house: House,
) -> None:
    paid = house.pay(house.hot, ETHER)
    house.mine(paid, empty_after=2)
    await house.catch_up()
    (deposit,) = await house.deposits()
    await attribute(house, deposit, "equity:capital")

    house.gateway.reorg(3, [[], [], [paid], [], []])
    await house.catch_up()

    (again,) = await house.deposits()
    assert (again.state, again.epoch) == (DepositState.UNATTRIBUTED, 2)
    with pytest.raises(NotAuthorised):
        await attribute(house, deposit, "equity:capital")
    await attribute(house, again, "equity:capital")
    assert await house.balances() == {
        "custody:house-hot ETH": (ETHER, 0),
        "equity:capital ETH": (ETHER, 0),
    }


# The database's half of the guards.


@pytest.mark.parametrize("machine", [DEPOSIT_STATES, RECEIPT_STATES])
async def test_the_trigger_has_the_edges_of_the_model(
    owner_engine: AsyncEngine, machine: StateTable
) -> None:
    function, _ = trigger_statements(machine)
    async with owner_engine.connect() as conn:
        source = await conn.scalar(
            text("SELECT prosrc FROM pg_proc WHERE proname = :name"),
            {"name": trigger_name(machine)},
        )
    assert source is not None
    assert source in function


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE custody.deposit SET state = 'held'", "deposit_state_edges"),
        ("UPDATE custody.deposit SET shortfall = -1", "ck_deposit_amounts"),
        ("UPDATE custody.deposit SET kind = 'quarantined'", "ck_deposit_credit"),
        ("UPDATE custody.deposit SET amount = amount + 1", "deposit_unlike_inclusion"),
        ("UPDATE custody.deposit SET credit = 'client:birch'", "deposit_unlike_inclusion"),
        ("UPDATE custody.deposit SET party = NULL", "deposit_unlike_inclusion"),
        ("UPDATE custody.deposit SET contract = '0x1'", "deposit_unlike_inclusion"),
        ("UPDATE custody.deposit SET epoch = epoch + 1", "deposit_unlike_epoch"),
        ("UPDATE custody.deposit SET epoch = 0", "deposit_unlike_epoch"),
        ("UPDATE custody.observation SET height = 0", "observation_kept"),
        ("DELETE FROM custody.observation", "observation_kept"),
    ],
)
async def test_the_database_refuses_what_the_code_would(
    house: House, owner_engine: AsyncEngine, statement: str, constraint: str
) -> None:
    house.mine(house.pay(house.acme, ETHER))
    await house.catch_up()
    async with owner_engine.connect() as conn:
        with pytest.raises(DBAPIError) as refused:
            await conn.execute(text(statement))
    assert constraint_name(refused.value) == constraint


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("state = 'included'", "deposit_unlike_inclusion"),
        ("state = 'included', epoch = epoch + 2", "deposit_unlike_epoch"),
        ("state = 'included', epoch = epoch + 1", None),
    ],
)
async def test_what_comes_back_comes_back_in_its_next_epoch(
    house: House, change: str, constraint: str | None
) -> None:
    """Otherwise its hold would have the name of the one that was voided."""
    house.mine(house.pay(house.acme, ETHER))
    await house.follow()
    house.gateway.reorg(1, [[], []])
    await house.follow()
    assert await house.states() == ["orphaned"]

    refused = None
    try:
        statement = text(f"UPDATE custody.deposit SET {change}")  # noqa: S608  of this file
        await house.do(lambda conn: conn.execute(statement))
    except DBAPIError as error:
        refused = constraint_name(error)
    assert refused == constraint


async def test_a_page_of_deposits_goes_on_after_the_last(house: House) -> None:
    house.mine(*(house.pay(house.acme, n) for n in range(1, 6)), empty_after=2)
    await house.catch_up()

    first = await house.do(lambda conn: verbs.list_deposits(conn, limit=3))
    rest = await house.do(lambda conn: verbs.list_deposits(conn, after=first[-1].id))
    named = await house.do(
        lambda conn: verbs.list_deposits(
            conn, chain="evm", state=DepositState.CREDITED, party="birch"
        )
    )

    assert sorted(d.amount for d in [*first, *rest]) == [1, 2, 3, 4, 5]
    assert named == []
    (one,) = [await house.do(lambda conn: verbs.get_deposit(conn, first[0].id))]
    assert one == first[0]


async def spend(house: House, path: str, amount: int, *, asset: str = "USDT") -> None:
    """Let a client pay a fee, so that it has less than was credited."""
    house.clock.advance(timedelta(seconds=1))

    async def work(conn: AsyncConnection) -> None:
        await ensure_accounts(conn, BOOK, [(path, asset), ("income:fee", asset)], now=house.now)
        move = transfer(
            derive_id(house.now, "spend"), path, "income:fee", amount, asset, code="test.fee"
        )
        require_applied(await post(conn, BOOK, [move], now=house.now))

    await house.do(work)


async def unmined(house: House) -> list[ScriptedTransaction]:
    """Take the newest blocks away and put their like there; return what was in them."""
    taken = house.gateway.rollback(3)
    house.mine(*taken, empty_after=2)
    return taken


async def ask_for_payout(house: House, ref: str, asset: str, amount: int) -> Payout:
    async def work(conn: AsyncConnection) -> Payout:
        if not await list_destinations(conn, party="acme"):
            await set_policy(conn, now=house.now)
            await allow(conn, "acme", OTHER, now=house.now)
        request = PayoutRequest(
            client_ref=ref,
            claim="client:acme",
            source_wallet="client-pool",
            asset=asset,
            amount=amount,
            destination=OTHER,
            requested_by="dan",
        )
        return await request_payout(conn, request, book=BOOK, now=house.now)

    asked = await house.do(work)
    assert asked.state is PayoutState.PENDING_APPROVAL, asked
    return asked


async def freeze(house: House, path: str, asset: str) -> None:
    await house.do(
        lambda conn: set_frozen(conn, BOOK, path, asset, frozen=True, reason="t", now=house.now)
    )
