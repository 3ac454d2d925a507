"""A desk that pays out on Bitcoin: clients' coins, a signer, a chain in memory or a real node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.bitcoin.testing import ScriptedBitcoin
from chain.follow import follow, get_cursor
from chain.model import FollowPolicy
from custody.addresses import assign_address, watch_list
from custody.bitcoin import coin_store, spend_store
from custody.bitcoin.coins import list_locks
from custody.bitcoin.spend_finality import confirm_spends
from custody.bitcoin.spend_model import SENT, Spend, SpendState, share_fee
from custody.bitcoin.spend_moves import Carried, load_carried
from custody.bitcoin.spend_plan import SpendPolicy
from custody.bitcoin.spend_replace import prepare_spend_cancellation, spend_cancel_bytes
from custody.bitcoin.spend_worker import advance_spends
from custody.bitcoin.testing import CHAIN, HOT, POOL, with_bitcoin
from custody.deposits import advance_deposits
from custody.inclusion import apply_step
from custody.model import AddressPurpose
from custody.payout_model import Payout, PayoutRequest, PayoutState
from custody.payout_worker import WorkReport
from custody.payouts import every_payout, get_payout, request_payout
from custody.policy import ConfirmationPolicy, Requirement
from custody.ports import ControlledSigner, PayoutSigner
from custody.signer.testing import local_signer, rules_for
from custody.signer_sync import push_control
from custody.testing import allow, approve, set_policy
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import open_book, post, require_applied
from ledger.queries import list_open_holds, trial_balance
from ledger.testing import enforce_lock_order
from registry.changes import found
from registry.model import Founding
from registry.testing import DEMO_OPERATORS, demo_founding, operator_keypair

T = TypeVar("T")

BOOK = 1
BTC = 10**8
START = datetime.fromisoformat("2026-01-05T09:00:00+00:00")
CONFIRMATIONS = Requirement(3)
DEPOSITS = (3 * BTC, 2 * BTC, BTC, BTC // 2, BTC // 5)
"""What acme pays in, a coin each; birch pays in one more, which the desk owns since."""
CAPITAL = BTC
PAYEES = (
    "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
    "bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6",
    "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn",
    "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc",
)
PAYEE = PAYEES[0]


@dataclass(slots=True)
class SpendWorld:
    engine: AsyncEngine
    node: Any
    signer: PayoutSigner
    clock: ManualClock
    vault: ControlledSigner
    worker: str = "worker-1"
    policy: SpendPolicy = field(default_factory=SpendPolicy)
    start_height: int = 0
    acme: str = ""

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await transact(self.engine, work)

    # What people do.

    async def request(self, **changes: Any) -> Payout:
        values: dict[str, Any] = {
            "client_ref": "w-1",
            "claim": "client:acme",
            "source_wallet": POOL,
            "asset": "BTC",
            "amount": BTC // 10,
            "destination": PAYEE,
            "requested_by": "dan",
        }
        request = PayoutRequest(**{**values, **changes})
        return await self.run(
            lambda conn: request_payout(conn, request, book=BOOK, now=self.clock.now())
        )

    async def approve(self, *payouts: Payout) -> list[Payout]:
        return await self.run(lambda c: approve(c, payouts, now=self.clock.now()))

    async def approved(self, **changes: Any) -> Payout:
        (payout,) = await self.approve(await self.request(**changes))
        return payout

    async def several(self, *amounts: int, reference: str = "w") -> list[Payout]:
        """Return approved payouts to addresses of every kind."""
        return [
            await self.approved(
                client_ref=f"{reference}-{n}", amount=amount, destination=PAYEES[n % len(PAYEES)]
            )
            for n, amount in enumerate(amounts)
        ]

    async def cancel(self, spend: Spend, reason: str = "a mistake") -> Spend:
        payload = spend_cancel_bytes(spend.id, reason)
        signatures = {code: operator_keypair(code).sign(payload) for code in ("ben", "cleo")}
        write = await prepare_spend_cancellation(
            self.engine,
            self.node,
            spend.id,
            signatures=signatures,
            reason=reason,
            clock=self.clock,
            policy=self.policy,
        )
        return await self.run(write)

    # What the house does.

    async def advance(self, *, after: timedelta = timedelta(seconds=2)) -> WorkReport:
        self.clock.advance(after)
        await push_control(self.engine, self.vault, now=self.clock.now())
        return await advance_spends(
            self.engine,
            self.node,
            self.signer,
            chain=CHAIN,
            book=BOOK,
            holder=self.worker,
            clock=self.clock,
            policy=self.policy,
        )

    async def follow(self, *, reorg_depth_max: int = 64) -> None:
        await follow(
            self.engine,
            self.node,
            CHAIN,
            watch=lambda conn: watch_list(conn, CHAIN),
            apply=lambda conn, step: apply_step(conn, step, book=BOOK, now=self.clock.now()),
            now=self.clock.now(),
            policy=FollowPolicy(start_height=self.start_height, reorg_depth_max=reorg_depth_max),
        )

    async def mine(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self.node.mine_pool()
        await self.follow()

    async def credit(self) -> None:
        tip = await self.run(lambda conn: get_cursor(conn, CHAIN))
        assert tip is not None
        await advance_deposits(
            self.engine,
            CHAIN,
            book=BOOK,
            tip=tip,
            finalized=await self.node.finalized_height(),
            policy=ConfirmationPolicy.uniform(3),
            now=self.clock.now(),
        )

    async def confirm(self) -> list[Payout]:
        finalized = await self.node.finalized_height()

        async def work(conn: AsyncConnection) -> list[Payout]:
            tip = await get_cursor(conn, CHAIN)
            assert tip is not None
            return await confirm_spends(
                conn,
                CHAIN,
                book=BOOK,
                tip=tip,
                finalized=finalized,
                requirement=CONFIRMATIONS,
                now=self.clock.now(),
            )

        return await self.run(work)

    # What the books say.

    async def get(self, payout: Payout) -> Payout:
        return await self.run(lambda conn: get_payout(conn, payout.id))

    async def states(self, payouts: Sequence[Payout]) -> set[str]:
        return {str((await self.get(item)).state) for item in payouts}

    async def spends(self) -> list[Carried]:
        async def read(conn: AsyncConnection) -> list[Carried]:
            found = await spend_store.list_spends(conn, CHAIN)
            return [await load_carried(conn, item.id) for item in found]

        return await self.run(read)

    async def only(self) -> Carried:
        (one,) = await self.spends()
        return one

    async def books(self) -> dict[str, tuple[int, int, int]]:
        """(balance, debits pending, credits pending) by path, where not all zero."""
        rows = await self.run(lambda conn: trial_balance(conn, BOOK))
        found = {row.path: (row.balance, row.debits_pending, row.credits_pending) for row in rows}
        return {key: value for key, value in found.items() if any(value)}

    async def assert_exact(self) -> None:
        """Rule 2: custody is what the coins are; holds and locks are those of the live rows."""
        rows = await self.run(lambda conn: trial_balance(conn, BOOK))
        held: dict[str, int] = {}
        coins = await self.run(lambda conn: coin_store.sum_unspent(conn, CHAIN))
        for (wallet, _), amount in coins.items():
            held[wallet] = held.get(wallet, 0) + amount
        for row in rows:
            if row.path.startswith("custody:") and row.asset == "BTC":
                there = held.get(row.path.removeprefix("custody:"), 0)
                assert row.debits + row.debits_pending - row.credits == there, row.path
        found = [item async for item in self._every()]
        holds = await self.run(lambda conn: list_open_holds(conn, BOOK))
        spends = await self.spends()
        signed = {p.id for one in spends if one.signed for p in one.payouts if _is_in(one, p)}
        expected = sorted(
            (item.id, *held) for item in found for held in _holds(item, signed=item.id in signed)
        )
        assert sorted((h.correlation, h.debit, h.amount) for h in holds) == expected
        locks = await self.run(lambda conn: list_locks(conn, CHAIN))
        live = {s.spend.id for s in spends if s.spend.state not in _ENDED}
        assert {item.spend_id for item in locks} == live
        for one in spends:
            if one.spend.state not in _ENDED:
                shares = share_fee(one.spend.fee_cap, one.parts)
                assert {p.id: p.fee_cap for p in one.payouts} == shares
                assert sum(shares.values()) == one.spend.fee_cap

    async def _every(self) -> AsyncIterator[Payout]:
        async with self.engine.connect() as conn:
            async for item in every_payout(conn, book=BOOK, states={*PayoutState}):
                yield item


_ENDED = {SpendState.FINAL, SpendState.DROPPED}


def _is_in(one: Carried, payout: Payout) -> bool:
    return any(part.payout_id == payout.id and part.live for part in one.parts)


def _holds(payout: Payout, *, signed: bool) -> list[tuple[str, int]]:
    """Return what a payout in this state has on hold: debited account, amount."""
    claim = payout.parsed_claim.account
    coins = (f"transit:out:{CHAIN}", payout.amount)
    fee = ("expense:network-fee", payout.fee_cap)
    on_its_way = {
        PayoutState.ALLOCATED,
        PayoutState.SIGNED,
        PayoutState.CANCELLING,
        PayoutState.SECURITY_HOLD,
    }
    match payout.state:
        case PayoutState.RESERVED | PayoutState.PENDING_APPROVAL | PayoutState.APPROVED:
            return [coins if claim is None else (claim, payout.amount)]
        case _ if payout.state in on_its_way and not payout.claim_returned:
            held = [coins, fee]
            if claim is not None and not signed:
                held.append((claim, payout.amount))
            return held
        case PayoutState.MINED if not payout.succeeded:
            return [coins]
        case _:
            return []


@asynccontextmanager
async def make_spend_world(engine: AsyncEngine, folder: Path) -> AsyncIterator[SpendWorld]:
    """Found the desk on a chain in memory, with coins."""
    node, clock = ScriptedBitcoin(begins=START), ManualClock(START)
    founding = with_bitcoin(demo_founding())
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    with local_signer(folder, rules, clock=clock) as signer, enforce_lock_order(engine):
        world = SpendWorld(engine, node, signer, clock, vault=signer)
        birch = await world.run(lambda conn: found_desk(conn, world))
        await world.follow()
        world.node.mine(
            *(node.pay((world.acme, amount)) for amount in DEPOSITS), node.pay((birch, CAPITAL))
        )
        await world.mine(3)
        await world.credit()
        await world.run(lambda conn: give_capital(conn, world))
        yield world


async def found_desk(
    conn: AsyncConnection, world: SpendWorld, founding: Founding | None = None
) -> str:
    """Found the house; return birch's deposit address."""
    now = world.clock.now()
    await found(conn, founding or with_bitcoin(demo_founding()), now=now)
    await open_book(conn, BOOK, entity="causeway-desk", now=now)
    for wallet in (POOL, HOT):
        await assign_address(conn, wallet, purpose=AddressPurpose.HOT, now=now)
    deposit = AddressPurpose.DEPOSIT
    acme = await assign_address(conn, POOL, purpose=deposit, party="acme", now=now)
    birch = await assign_address(conn, POOL, purpose=deposit, party="birch", now=now)
    world.acme = acme.address
    await set_policy(conn, now=now)
    for payee in PAYEES:
        await allow(conn, "acme", payee, now=now, chain=CHAIN)
    return birch.address


async def give_capital(conn: AsyncConnection, world: SpendWorld) -> None:
    """Let what birch paid in be the desk's: it covers fees, which clients' money must not pay."""
    now = world.clock.now()
    given = transfer(
        derive_id(now, "capital"),
        "client:birch",
        "equity:capital",
        CAPITAL,
        "BTC",
        code="test.capital",
    )
    await open_capital(conn, now)
    require_applied(await post(conn, BOOK, [given], now=now))


async def open_capital(conn: AsyncConnection, now: datetime) -> None:
    """Open the account of the desk's own money."""
    await ensure_accounts(conn, BOOK, {("equity:capital", "BTC")}, owners={}, now=now)


def waits(carried: Carried) -> bool:
    """Tell whether signed bytes of it wait for a block."""
    return carried.spend.state in SENT


def ids(payouts: Sequence[Payout]) -> list[UUID]:
    """Return the ids."""
    return [item.id for item in payouts]
