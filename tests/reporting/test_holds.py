"""Which holds a live row keeps open: compared, step by step, with what the ledger really holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import get_cursor
from chain.testing import FINALITY_LAG, ScriptedTransaction
from custody.addresses import assign_address
from custody.model import AddressPurpose
from custody.payout_finality import confirm_payouts
from custody.payout_model import Payout, PayoutState
from custody.payout_replace import cancel_by_conflict, cancel_bytes, prepare_bump
from custody.payout_rescue import abandon_bytes, abandon_payout
from custody.payouts import cancel_payout, expire_payouts, get_payout, has_signed_bytes
from custody.signer.errors import SignerRefused
from custody.signer.wire import Intent, SignedApproval
from kernel.errors import CausewayError, OutsideUnavailable
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from ledger.queries import list_open_holds
from registry.queries import get_operator
from registry.testing import operator_keypair
from reporting.holds import payout_holds
from reporting.model import ExpectedHold
from tests.custody.banks import pay_world
from tests.custody.payout_world import (
    BOOK,
    CONFIRMATIONS,
    ETH,
    STRANGER,
    USDT,
    OneByOne,
    World,
    make_world,
)

T = TypeVar("T")
S = PayoutState
FEE = 21_000 * 10**9


@dataclass(frozen=True, slots=True)
class FailingSigner(OneByOne):
    """Does not answer, or says no."""

    error: CausewayError

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        raise self.error

    async def account_xpub(self, path: str) -> str:
        raise self.error


SILENT = FailingSigner(OutsideUnavailable("the signer does not answer"))
REFUSING = FailingSigner(SignerRefused("no"))


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(engine, tmp_path) as made:
        yield made


class House(Protocol):
    """Something that works on a database."""

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T: ...


async def compared(world: House, payout: Payout, state: PayoutState) -> Payout:
    """Find the payout in *state*, and in the ledger the holds that it is expected to keep."""

    async def work(conn: AsyncConnection) -> tuple[Payout, list[ExpectedHold], list[ExpectedHold]]:
        now = await get_payout(conn, payout.id)
        expected = payout_holds(now, is_signed=await has_signed_bytes(conn, payout.id))
        held = [
            ExpectedHold(payout.id, hold.purpose, hold.asset, hold.amount)
            for hold in await list_open_holds(conn, BOOK)
            if hold.correlation == payout.id
        ]
        return now, expected, held

    found, expected, held = await world.run(work)
    assert found.state is state
    assert sorted(expected) == sorted(held), state
    return found


async def deposit_address(world: World) -> str:
    """An address of the pool that holds three coins of a client."""
    now = world.clock.now()
    given = await world.run(
        lambda conn: assign_address(
            conn, "client-pool", purpose=AddressPurpose.DEPOSIT, party="birch", now=now
        )
    )
    world.gateway.fund(given.address, 3 * ETH)
    arrived = transfer(
        derive_id(now, "arrived"), "custody:client-pool", "client:birch", 3 * ETH, "ETH", code="t"
    )

    async def book(conn: AsyncConnection) -> None:
        await ensure_accounts(conn, BOOK, [("client:birch", "ETH")], now=now)
        require_applied(await post(conn, BOOK, [arrived], now=now))

    await world.run(book)
    return given.address


async def client(_: World) -> dict[str, Any]:
    return {"amount": 2 * ETH}


async def client_token(_: World) -> dict[str, Any]:
    return {"asset": "USDT", "amount": 100 * USDT}


async def payable(_: World) -> dict[str, Any]:
    claim = {"claim": "payable:birch:netted", "source_wallet": "house-hot"}
    return {**claim, "asset": "USDT", "amount": 900 * USDT}


async def own(world: World) -> dict[str, Any]:
    claim = {"claim": "own:house-settlement", "source_wallet": "house-hot"}
    return {**claim, "amount": ETH, "destination": world.hot["house-settlement"]}


async def sweep(world: World) -> dict[str, Any]:
    claim = {"claim": "own:client-pool", "source_address": await deposit_address(world)}
    return {**claim, "amount": 2 * ETH, "destination": world.hot["client-pool"]}


Claim = Callable[[World], Awaitable[dict[str, Any]]]
CLAIMS = pytest.mark.parametrize(
    "claim",
    [client, client_token, payable, own, sweep],
    ids=["client", "token", "payable", "own", "sweep"],
)
KINDS = pytest.mark.parametrize("claim", [client_token, own], ids=["token", "own"])
"""Where it only matters whether the coins go to others or stay in the house."""


async def start(world: World, claim: Claim, ref: str = "w-1") -> Payout:
    changes = await claim(world)
    payout = await world.request(
        **changes, client_ref=ref, expires_at=world.clock.now() + timedelta(days=1)
    )
    return await compared(world, payout, S.PENDING_APPROVAL)


async def allocate(world: World, payout: Payout) -> Payout:
    signer, world.signer = world.signer, SILENT
    await world.approve(payout)
    await compared(world, payout, S.APPROVED)
    await world.advance()
    world.signer = signer
    return await compared(world, payout, S.ALLOCATED)


async def sign(world: World, payout: Payout) -> Payout:
    await allocate(world, payout)
    await world.advance()
    return await compared(world, payout, S.SIGNED)


async def fail(world: World, payout: Payout) -> None:
    """Mine its transaction as one that failed."""
    (tx_hash,) = world.gateway.pool
    world.gateway.mine(
        ScriptedTransaction(
            sender=payout.sender, recipient=STRANGER, succeeded=False, fee=FEE, tx_hash=tx_hash
        )
    )
    await world.follow()
    await compared(world, payout, S.MINED)


async def steal(world: World, payout: Payout) -> None:
    world.gateway.mine(
        ScriptedTransaction(sender=payout.sender, recipient=STRANGER, nonce=0, value=10**15)
    )
    await world.follow()
    await compared(world, payout, S.SECURITY_HOLD)


async def give_up(world: World, payout: Payout) -> None:
    reason = "the nonce is gone"
    signatures = {
        code: operator_keypair(code).sign(abandon_bytes(payout.id, reason))
        for code in ("ada", "ben")
    }
    finalized, now = (await world.gateway.head()).height, world.clock.now()
    await world.run(
        lambda conn: abandon_payout(
            conn, payout.id, signatures=signatures, reason=reason, finalized=finalized, now=now
        )
    )
    await compared(world, payout, S.FAILED_ON_CHAIN)


async def end(world: World) -> None:
    """Confirm or fail what is mined, as if the chain called its head final."""

    async def work(conn: AsyncConnection) -> None:
        tip = await get_cursor(conn, "evm")
        assert tip is not None
        await confirm_payouts(
            conn,
            "evm",
            book=BOOK,
            tip=tip,
            finalized=tip.height,
            requirement=CONFIRMATIONS,
            now=world.clock.now(),
        )

    await world.mine(3)
    await world.run(work)


async def reorganise(world: World) -> None:
    world.gateway.rollback(4)
    for _ in range(5):
        world.gateway.mine()
    await world.follow()


@CLAIMS
async def test_a_payout_that_is_paid(world: World, claim: Claim) -> None:
    payout = await start(world, claim)
    await sign(world, payout)
    await world.mine()
    await compared(world, payout, S.MINED)
    await end(world)
    await compared(world, payout, S.CONFIRMED)
    await reorganise(world)
    await compared(world, payout, S.SIGNED)


@CLAIMS
async def test_a_payout_that_fails(world: World, claim: Claim) -> None:
    payout = await start(world, claim)
    await fail(world, await sign(world, payout))
    await end(world)
    await compared(world, payout, S.FAILED_ON_CHAIN)
    await reorganise(world)
    assert (await compared(world, payout, S.SECURITY_HOLD)).claim_returned


@KINDS
async def test_a_payout_whose_nonce_is_stolen_once_it_is_signed(world: World, claim: Claim) -> None:
    payout = await start(world, claim)
    world.gateway.refuse_broadcasts = 1
    await steal(world, await sign(world, payout))
    await give_up(world, payout)


@KINDS
async def test_a_payout_whose_nonce_is_stolen_before_it_is_signed(
    world: World, claim: Claim
) -> None:
    payout = await start(world, claim)
    await steal(world, await allocate(world, payout))
    await give_up(world, payout)


async def test_payouts_that_the_signer_refuses(world: World) -> None:
    for claim in (client_token, own):
        payout = await start(world, claim, claim.__name__)
        await allocate(world, payout)
        signer, world.signer = world.signer, REFUSING
        await world.advance()
        world.signer = signer
        await compared(world, payout, S.REJECTED)


async def test_payouts_that_are_taken_back(world: World) -> None:
    async def work(conn: AsyncConnection) -> None:
        ben, now = await get_operator(conn, "ben"), world.clock.now()
        await cancel_payout(conn, payout.id, by=ben, reason="no", book=BOOK, now=now)

    for claim in (client_token, own):
        payout = await start(world, claim, claim.__name__)
        await world.run(work)
        await compared(world, payout, S.CANCELLED)


async def test_payouts_that_nobody_signs_in_time(world: World) -> None:
    late = [await start(world, claim, claim.__name__) for claim in (client_token, own)]
    later = world.clock.now() + timedelta(days=2)
    await world.run(lambda conn: expire_payouts(conn, book=BOOK, now=later))
    for payout in late:
        await compared(world, payout, S.EXPIRED)


async def test_a_payout_with_a_higher_fee(world: World) -> None:
    payout = await start(world, client)
    before = await sign(world, payout)
    dan = await world.run(lambda conn: get_operator(conn, "dan"))
    write = await prepare_bump(
        world.engine, world.gateway, payout.id, by=dan, reason="slow", clock=world.clock
    )
    await world.run(write)
    assert (await compared(world, payout, S.SIGNED)).fee_cap > before.fee_cap


async def test_a_payout_that_is_cancelled_by_a_conflict(world: World) -> None:
    payout = await start(world, client)
    await sign(world, payout)
    reason = "sent to the wrong person"
    signatures = {
        code: operator_keypair(code).sign(cancel_bytes(payout.id, reason))
        for code in ("ada", "ben")
    }

    await cancel_by_conflict(
        world.engine,
        world.gateway,
        payout.id,
        signatures=signatures,
        reason=reason,
        clock=world.clock,
    )
    await compared(world, payout, S.CANCELLING)
    await world.advance()
    await compared(world, payout, S.CANCELLING)
    await world.mine()
    await compared(world, payout, S.MINED)
    await world.mine(FINALITY_LAG)
    await world.confirm()
    await compared(world, payout, S.CANCELLED)


async def test_a_payout_through_a_bank_holds_its_claim_until_its_file_leaves(
    engine: AsyncEngine,
) -> None:
    world = await pay_world.make_world(engine)
    payout = await world.approved()
    await compared(world, payout, S.APPROVED)
    file = await world.signed_file()
    await compared(world, payout, (await world.get(payout)).state)
    await world.advance()
    await compared(world, payout, S.SIGNED)
    await world.report(pay_world.status_report(file, "RJCT"))
    await compared(world, payout, S.REFUSED)


async def test_states_that_are_never_seen_between_two_transactions(world: World) -> None:
    payout = await start(world, client)

    assert payout_holds(replace(payout, state=S.REQUESTED)) == []
    assert payout_holds(replace(payout, state=S.RESERVED)) == payout_holds(payout) != []


def test_every_state_is_met_by_a_story() -> None:
    source = Path(__file__).read_text()

    assert [state.name for state in S if f"S.{state.name}" not in source] == []
