"""A small desk for the tests of payouts: a founded house, funded wallets, a scripted chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.follow import follow, get_cursor
from chain.model import FollowPolicy
from chain.simulators.testing import JsonRpc
from chain.testing import ScriptedGateway
from custody.addresses import assign_address, watch_list
from custody.compliance.ports import Screening
from custody.deposits import advance_deposits
from custody.inclusion import apply_step
from custody.model import AddressPurpose
from custody.payout_finality import confirm_payouts
from custody.payout_model import ON_ITS_WAY, Payout, PayoutRequest, PayoutState
from custody.payout_postings import way_account
from custody.payout_worker import WorkReport, advance_payouts
from custody.payouts import every_payout, get_payout, has_signed_bytes, request_payout
from custody.policy import ConfirmationPolicy, Requirement
from custody.ports import ControlledSigner, PayoutSigner
from custody.signer.errors import SignerRefused
from custody.signer.testing import local_signer, rules_for
from custody.signer.wire import Intent, No, Signed, SignedApproval, SignRequest, SpendIntent
from custody.signer_sync import adopt_signer, push_control
from custody.testing import allow, approve, set_policy
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import OpenHold, transfer
from ledger.posting import open_book, post, require_applied
from ledger.queries import list_open_holds, trial_balance
from ledger.testing import enforce_lock_order
from registry.changes import found
from registry.testing import DEMO_OPERATORS, TOKEN, XPUBS, demo_founding

T = TypeVar("T")

BOOK = 1
PAYEE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
STRANGER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
ETH = 10**18
USDT = 10**6
START = datetime.fromisoformat("2026-01-05T09:00:00+00:00")
CONFIRMATIONS = Requirement(3)
OPENING = (
    ("custody:client-pool", "client:acme", 10 * ETH, "ETH"),
    ("custody:client-pool", "client:acme", 5_000 * USDT, "USDT"),
    ("custody:client-pool", "equity:capital", ETH, "ETH"),
    ("custody:house-hot", "equity:capital", 20 * ETH, "ETH"),
    ("custody:house-hot", "payable:birch:netted", 900 * USDT, "USDT"),
)


class OneByOne:
    """A signer that is asked for many and thinks of each alone: what the fakes of tests build on."""

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        raise NotImplementedError

    async def sign_many(
        self, requests: Sequence[SignRequest], approvals: Sequence[SignedApproval]
    ) -> list[Signed | No]:
        answers: list[Signed | No] = []
        for item in requests:
            own = [
                approval
                for approval in approvals
                if item.intent.payout_id in {line.payout_id for line in approval.lines}
            ]
            try:
                answers.append(Signed(await self.sign(item.intent, item.unsigned, own)))
            except SignerRefused as error:
                answers.append(No(error.what, error.remedy, error.signed_before))
        return answers

    async def sign_spend(
        self, intent: SpendIntent, psbt: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        raise NotImplementedError


@dataclass(slots=True)
class World:
    engine: AsyncEngine
    gateway: Any
    signer: PayoutSigner
    clock: ManualClock
    hot: dict[str, str] = field(default_factory=dict)
    worker: str = "worker-1"
    token: str = TOKEN
    xpubs: tuple[str, ...] = XPUBS
    start_height: int = 0
    vault: ControlledSigner | None = None
    """The signer that is told what people allow, whoever is asked to sign."""

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await transact(self.engine, work)

    async def request(self, **changes: Any) -> Payout:
        values: dict[str, Any] = {
            "client_ref": "w-1",
            "claim": "client:acme",
            "source_wallet": "client-pool",
            "asset": "ETH",
            "amount": 2 * ETH,
            "destination": PAYEE,
            "requested_by": "dan",
        }
        request = PayoutRequest(**{**values, **changes})
        return await self.run(
            lambda conn: request_payout(conn, request, book=BOOK, now=self.clock.now())
        )

    async def approve(self, *payouts: Payout, by: str = "ben") -> list[Payout]:
        return await self.run(lambda c: approve(c, payouts, now=self.clock.now(), by=by))

    async def approved(self, **changes: Any) -> Payout:
        (payout,) = await self.approve(await self.request(**changes))
        return payout

    async def advance(self) -> WorkReport:
        self.clock.advance(timedelta(seconds=2))
        await self.tell_signer()
        return await advance_payouts(
            self.engine,
            self.gateway,
            self.signer,
            chain="evm",
            book=BOOK,
            holder=self.worker,
            clock=self.clock,
        )

    async def tell_signer(self) -> None:
        """Hand over what two people have signed for the signer."""
        if self.vault is not None:
            await push_control(self.engine, self.vault, now=self.clock.now())

    async def use(self, signer: ControlledSigner) -> None:
        """Go on with another signer, which knows nothing yet."""
        self.signer = self.vault = signer
        key = (await signer.health()).verifier_key
        await self.run(lambda conn: adopt_signer(conn, key, now=self.clock.now()))

    async def follow(self, *, reorg_depth_max: int = 64) -> None:
        await follow(
            self.engine,
            self.gateway,
            "evm",
            watch=lambda conn: watch_list(conn, "evm"),
            apply=lambda conn, step: apply_step(conn, step, book=BOOK, now=self.clock.now()),
            now=self.clock.now(),
            policy=FollowPolicy(start_height=self.start_height, reorg_depth_max=reorg_depth_max),
        )

    async def confirm(self) -> list[Payout]:
        finalized = await self.gateway.finalized_height()

        async def work(conn: AsyncConnection) -> list[Payout]:
            tip = await get_cursor(conn, "evm")
            assert tip is not None
            return await confirm_payouts(
                conn,
                "evm",
                book=BOOK,
                tip=tip,
                finalized=finalized,
                requirement=CONFIRMATIONS,
                now=self.clock.now(),
            )

        return await self.run(work)

    async def take_deposits(self, screening: Screening) -> None:
        """Take deposits as far as they go."""
        tip = await self.run(lambda conn: get_cursor(conn, "evm"))
        assert tip is not None
        await advance_deposits(
            self.engine,
            "evm",
            book=BOOK,
            tip=tip,
            finalized=await self.gateway.finalized_height(),
            policy=ConfirmationPolicy.uniform(3),
            now=self.clock.now(),
            screening=screening,
        )

    async def mine(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self.gateway.mine_pool()
        await self.follow()

    async def get(self, payout: Payout) -> Payout:
        return await self.run(lambda conn: get_payout(conn, payout.id))

    async def books(self) -> dict[tuple[str, str], tuple[int, int, int]]:
        """(balance, debits pending, credits pending) by (path, asset), where not all zero."""
        rows = await self.run(lambda conn: trial_balance(conn, BOOK))
        found = {
            (row.path, row.asset): (row.balance, row.debits_pending, row.credits_pending)
            for row in rows
        }
        return {key: value for key, value in found.items() if any(value)}

    async def assert_rule_two(self) -> None:
        """Debits, posted and pending, less credits posted is what the node says, per wallet."""
        rows = await self.run(lambda conn: trial_balance(conn, BOOK))
        head = await self.gateway.head()
        for row in rows:
            if row.path.startswith("custody:"):
                contract = None if row.asset == "ETH" else self.token
                address = self.hot[row.path.removeprefix("custody:")]
                held = await self.gateway.balance(address, contract, at=head)
                assert row.debits + row.debits_pending - row.credits == held, row.path
        await self.assert_live_rows()

    async def assert_live_rows(self) -> None:
        """Open holds are those of the live payouts, and what is in flight is signed and not final."""

        async def read(conn: AsyncConnection) -> tuple[list[Payout], set[UUID], list[OpenHold]]:
            found = [item async for item in every_payout(conn, book=BOOK, states={*PayoutState})]
            signed = {item.id for item in found if await has_signed_bytes(conn, item.id)}
            return found, signed, await list_open_holds(conn, BOOK)

        payouts, signed, holds = await self.run(read)
        expected = {
            (item.id, *held)
            for item in payouts
            for held in holds_of(item, signed=item.id in signed)
        }
        assert {
            (item.correlation, item.debit, item.asset, item.amount) for item in holds
        } == expected
        assert len(holds) == len(expected)
        flying: dict[str, int] = {}
        for item in payouts:
            if item.id in signed and is_flying(item):
                flying[item.asset] = flying.get(item.asset, 0) + item.amount
        books = await self.books()
        assert {
            asset: balance
            for (path, asset), (balance, _, _) in books.items()
            if path == "in-flight:evm" and balance
        } == flying


def holds_of(payout: Payout, *, signed: bool) -> list[tuple[str, str, int]]:
    """Return what a payout in this state has on hold: debited account, asset, amount."""
    claim = payout.parsed_claim.account
    coins = (way_account(payout), payout.asset, payout.amount)
    fee = ("expense:network-fee", payout.native_asset, payout.fee_cap)
    match payout.state:
        case PayoutState.RESERVED | PayoutState.PENDING_APPROVAL | PayoutState.APPROVED:
            held = [coins if claim is None else (claim, payout.asset, payout.amount)]
        case _ if payout.state in ON_ITS_WAY and not payout.claim_returned:
            held = [coins, fee]
            if claim is not None and not signed:
                held.append((claim, payout.asset, payout.amount))
        case PayoutState.MINED if not payout.succeeded:
            held = [coins]
        case _:
            held = []
    return [item for item in held if item[2]]


def is_flying(payout: Payout) -> bool:
    """Tell whether a signed payout is not final, and to others."""
    live = payout.state in {*ON_ITS_WAY, PayoutState.MINED} and not payout.claim_returned
    return live and payout.parsed_claim.account is not None


@dataclass(slots=True)
class RealWorld(World):
    """The same desk before a real node: blocks are asked for, and nobody scripts them."""

    rpc: JsonRpc | None = None

    async def mine(self, blocks: int = 1) -> None:
        assert self.rpc is not None
        for _ in range(blocks):
            await self.rpc.call("evm_mine")
        await self.follow()


@asynccontextmanager
async def make_world(engine: AsyncEngine, folder: Path) -> AsyncIterator[World]:
    gateway = ScriptedGateway(tokens={TOKEN}, begins=START)
    clock = ManualClock(START)
    founding = demo_founding()
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    with local_signer(folder, rules, clock=clock) as signer, enforce_lock_order(engine):
        world = World(engine, gateway, signer, clock, vault=signer)
        await world.run(lambda conn: found_house(conn, world))
        for debit, _, amount, asset in OPENING:
            contract = None if asset == "ETH" else TOKEN
            gateway.fund(world.hot[debit.removeprefix("custody:")], amount, contract)
        await world.follow()
        yield world


async def found_house(conn: AsyncConnection, world: World) -> None:
    now = world.clock.now()
    await found(conn, demo_founding(token=world.token, xpubs=world.xpubs), now=now)
    await open_book(conn, BOOK, entity="causeway-desk", now=now)
    for wallet in ("client-pool", "house-hot", "house-settlement"):
        given = await assign_address(conn, wallet, purpose=AddressPurpose.HOT, now=now)
        world.hot[wallet] = given.address
    await set_policy(conn, now=now)
    await allow(conn, "acme", PAYEE, now=now)
    await allow(conn, "birch", PAYEE, now=now)
    owners = {"custody:client-pool": "client"}
    keys = {(path, asset) for debit, credit, _, asset in OPENING for path in (debit, credit)}
    await ensure_accounts(conn, BOOK, keys, owners=owners, now=now)
    batch = [
        transfer(
            derive_id(now, "opening", number), debit, credit, amount, asset, code="test.opening"
        )
        for number, (debit, credit, amount, asset) in enumerate(OPENING)
    ]
    require_applied(await post(conn, BOOK, batch, now=now))
