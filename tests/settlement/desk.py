"""A small desk with two clients on a scripted chain, for the stories of a settlement run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.cycle_release import CycleRelease, CycleReleased, InTransactions
from chain.follow import follow, get_cursor
from chain.model import FollowPolicy
from chain.testing import FINALITY_LAG, ScriptedGateway, ScriptedTransaction, ScriptedTransfer
from custody.addresses import assign_address, watch_list
from custody.inclusion import apply_step
from custody.model import AddressPurpose
from custody.payout_finality import confirm_payouts
from custody.payout_model import Payout
from custody.payout_worker import advance_payouts
from custody.payouts import get_payout, reject_payout
from custody.policy import ConfirmationPolicy, Requirement
from custody.ports import ControlledSigner
from custody.receipts import advance_receipts, list_receipts
from custody.signer.testing import local_signer, rules_for
from custody.signer_sync import push_control
from custody.testing import allow, approve, set_policy
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.errors import BadInput, Refused
from kernel.ids import derive_id
from kernel.money import Price
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import open_book, post, require_applied
from ledger.queries import trial_balance
from registry.changes import found
from registry.model import Founding, Operator
from registry.queries import get_operator
from registry.testing import (
    DEMO_OPERATORS,
    ENTITY,
    ETH,
    TOKEN,
    USDT,
    demo_founding,
    operator_keypair,
)
from settlement.matching.model import Match
from settlement.matching.posting import match_receipts
from settlement.model import Calculation, Instruction, Run
from settlement.netting.exact import BUILT_IN
from settlement.netting.model import Method
from settlement.queries import get_calculation, get_run, list_run_instructions
from settlement.release import record_finality, release_payment, release_run
from settlement.runs import affirm, affirmation_bytes, open_run, pull_obligations, seal
from settlement.testing import EVIDENCE, affirm_all
from trading.deals import book_deal
from trading.model import Deal, DealRequest, DealSide
from trading.terms.model import Agreement
from trading.terms.standing_rules import COOLING_OFF_DAYS
from trading.terms.testing import call_back, set_agreement, set_standing_instruction

T = TypeVar("T")

BOOK = ENTITY.book
DAY = date(2026, 1, 5)
START = datetime(2026, 1, 5, 9, tzinfo=UTC)
ACME_WALLET = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
ELSEWHERE = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
CONFIRMATIONS = 3
FINAL = FINALITY_LAG + CONFIRMATIONS
"""Blocks after which even a failure is final."""
ASSETS = {"ETH": ETH, "USDT": USDT}


@dataclass(slots=True)
class Desk:
    """The house, its outside, and the verbs of settlement as short calls."""

    engine: AsyncEngine
    gateway: ScriptedGateway
    signer: ControlledSigner
    clock: ManualClock
    operators: dict[str, Operator] = field(default_factory=dict)
    hot: dict[str, str] = field(default_factory=dict)
    settlement: dict[str, str] = field(default_factory=dict)
    salt: int = 0
    reorg_depth_max: int = 64

    @property
    def now(self) -> datetime:
        return self.clock.now()

    async def do(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await transact(self.engine, work)

    # The rules.

    async def agree(self, party: str, *, prefunded: bool = False, since: date = DAY) -> int:
        agreement = Agreement(party=party, effective_from=since, prefunded=prefunded)
        return await self.do(lambda conn: set_agreement(conn, agreement, now=self.now))

    async def instruct(self, party: str, asset: str, destination: str, *, version: int = 1) -> int:
        return await self.do(
            lambda conn: set_standing_instruction(
                conn, party, asset, destination, version=version, now=self.now
            )
        )

    async def redirect(self, party: str, asset: str, destination: str) -> None:
        """A second version, called back and cooled off."""
        await self.instruct(party, asset, destination, version=2)
        await self.do(lambda conn: call_back(conn, party, asset, 2, now=self.now))
        self.clock.advance(timedelta(days=COOLING_OFF_DAYS))

    # The desk's day.

    async def deal(self, client_ref: str, **changes: Any) -> Deal:
        """The desk sells 10 ETH to acme at 3,000 with a fee of 300, unless changed."""
        price = changes.pop("price", "3000")
        values: dict[str, Any] = {
            "desk": "otc",
            "party": "acme",
            "side": DealSide.DESK_SELLS,
            "base": ETH,
            "quote": USDT,
            "base_units": ETH.parse(changes.pop("amount", "10")),
            "price": Price.parse(price, ETH, USDT),
            "fee_units": USDT.parse(changes.pop("fee", "300")),
            "value_date": DAY,
            "booked_by": "dan",
        }
        request = DealRequest(client_ref=client_ref, **{**values, **changes})
        return await self.do(lambda conn: book_deal(conn, request, book=BOOK, now=self.now))

    async def buys(self, client_ref: str, **changes: Any) -> Deal:
        return await self.deal(client_ref, side=DealSide.DESK_BUYS, **{"fee": "0", **changes})

    # The cycle.

    async def calculate(self, window: str = "noon") -> tuple[Run, Calculation]:
        await self.do(lambda conn: pull_obligations(conn, book=BOOK, now=self.now))
        return await self.open(window)

    async def open(self, window: str = "noon") -> tuple[Run, Calculation]:
        return await self.do(
            lambda conn: open_run(
                conn, book=BOOK, value_date=DAY, window=window, by="ada", now=self.now
            )
        )

    async def affirm(self, run_id: UUID, party: str, **changes: Any) -> Run:
        run = await self.do(lambda conn: get_run(conn, run_id))
        version = changes.pop("version", run.version)
        result = await self.do(lambda conn: get_calculation(conn, run_id, version))
        values: dict[str, Any] = {
            "by": self.operators["dan"],
            "witness": self.operators["ada"],
            "evidence_hash": EVIDENCE,
            "now": self.now,
            **changes,
        }
        payload = affirmation_bytes(run, result, party, values["evidence_hash"])
        values.setdefault("signature", operator_keypair(values["witness"].code).sign(payload))
        return await self.do(
            lambda conn: affirm(conn, run_id, version=version, party=party, **values)
        )

    async def affirm_all(self, run_id: UUID) -> Run:
        return await self.do(lambda conn: affirm_all(conn, run_id, now=self.now))

    async def seal(self, run_id: UUID, by: str = "ada") -> Run:
        return await self.do(lambda conn: seal(conn, run_id, by=self.operators[by], now=self.now))

    async def release(self, run_id: UUID) -> Run:
        return await self.do(
            lambda conn: release_run(conn, run_id, by=self.operators["ada"], now=self.now)
        )

    async def released(self, window: str = "noon") -> Run:
        """A run of everything that is owed, taken to its release."""
        run, _ = await self.calculate(window)
        await self.affirm_all(run.id)
        await self.seal(run.id)
        return await self.release(run.id)

    async def pay(self, item: Instruction, *, wallet: str = "house-hot") -> UUID:
        return await self.do(
            lambda conn: release_payment(
                conn,
                item.run_id,
                item.id,
                source_wallet=wallet,
                by=self.operators["ada"],
                now=self.now,
            )
        )

    async def finality(self, run_id: UUID) -> Run:
        (run,) = await self.do(lambda conn: record_finality(conn, [run_id], now=self.now))
        return run

    async def match(self) -> Match | None:
        """The next match; one a transaction, unlike in the worker."""
        found = await self.do(lambda conn: match_receipts(conn, book=BOOK, now=self.now, limit=1))
        return found[0] if found else None

    async def instructions(self, run_id: UUID) -> dict[str, Instruction]:
        """The instructions of a run, as ``party asset``."""
        items = await self.do(lambda conn: list_run_instructions(conn, run_id))
        return {f"{item.party} {item.asset}": item for item in items}

    async def states(self, run_id: UUID) -> dict[str, str]:
        return {key: str(i.state) for key, i in (await self.instructions(run_id)).items()}

    # The outside.

    def transaction(self, to: str, amount: int, asset: str = "USDT") -> ScriptedTransaction:
        self.salt += 1
        if asset == "ETH":
            return ScriptedTransaction(
                sender=ELSEWHERE, recipient=to, value=amount, salt=str(self.salt)
            )
        return ScriptedTransaction(
            sender=ELSEWHERE,
            recipient=TOKEN,
            transfers=(ScriptedTransfer(TOKEN, ELSEWHERE, to, amount),),
            salt=str(self.salt),
        )

    async def receive(
        self, amount: int, *, party: str = "acme", asset: str = "USDT"
    ) -> ScriptedTransaction:
        """A party pays to its settlement address, and the receipt becomes final."""
        paid = self.transaction(self.settlement[party], amount, asset)
        self.gateway.mine(paid)
        await self.mine(CONFIRMATIONS - 1)
        return paid

    async def mine(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self.gateway.mine_pool()
        await self.follow()

    async def follow(self) -> None:
        self.clock.advance(timedelta(seconds=2))
        await follow(
            self.engine,
            self.gateway,
            "evm",
            watch=lambda conn: watch_list(conn, "evm"),
            apply=lambda conn, step: apply_step(conn, step, book=BOOK, now=self.now),
            now=self.now,
            policy=FollowPolicy(reorg_depth_max=self.reorg_depth_max),
        )
        finalized = await self.gateway.finalized_height()

        async def advance(conn: AsyncConnection) -> None:
            tip = await get_cursor(conn, "evm")
            assert tip is not None
            await advance_receipts(
                conn,
                "evm",
                book=BOOK,
                tip=tip,
                finalized=finalized,
                policy=ConfirmationPolicy.uniform(CONFIRMATIONS),
                now=self.now,
            )

        async def confirm(conn: AsyncConnection) -> None:
            tip = await get_cursor(conn, "evm")
            assert tip is not None
            await confirm_payouts(
                conn,
                "evm",
                book=BOOK,
                tip=tip,
                finalized=finalized,
                requirement=Requirement(CONFIRMATIONS),
                now=self.now,
            )

        await self.do(advance)
        await self.do(confirm)

    async def send(self, payout_id: UUID, by: str = "ben") -> None:
        """Approve a payout, sign it and broadcast it."""
        payout = await self.payout(payout_id)
        await self.do(lambda conn: approve(conn, [payout], now=self.now, by=by))
        self.clock.advance(timedelta(seconds=2))
        await push_control(self.engine, self.signer, now=self.now)
        await advance_payouts(
            self.engine,
            self.gateway,
            self.signer,
            chain="evm",
            book=BOOK,
            holder="worker-1",
            clock=self.clock,
        )

    async def reject(self, payout_id: UUID) -> Payout:
        return await self.do(
            lambda conn: reject_payout(
                conn,
                payout_id,
                by=self.operators["ben"],
                reason="not now",
                book=BOOK,
                now=self.now,
            )
        )

    async def payout(self, payout_id: UUID) -> Payout:
        return await self.do(lambda conn: get_payout(conn, payout_id))

    async def receipt_states(self) -> list[str]:
        return [str(r.state) for r in await self.do(list_receipts)]

    # The books.

    async def capital(self, *lines: tuple[str, str, str, str]) -> None:
        """Post opening balances; coins of hot wallets are there on the chain, too."""
        keys = {(path, asset) for debit, credit, _, asset in lines for path in (debit, credit)}
        self.salt += 1
        batch = [
            transfer(
                derive_id(self.now, "opening", self.salt, number),
                debit,
                credit,
                ASSETS[asset].parse(amount),
                asset,
                code="test.opening",
            )
            for number, (debit, credit, amount, asset) in enumerate(lines)
        ]

        async def work(conn: AsyncConnection) -> None:
            owners = {"custody:client-pool": "client"}
            await ensure_accounts(conn, BOOK, keys, owners=owners, now=self.now)
            require_applied(await post(conn, BOOK, batch, now=self.now))

        await self.do(work)
        for debit, _, amount, asset in lines:
            wallet = debit.removeprefix("custody:")
            if wallet in self.hot:
                contract = None if asset == "ETH" else TOKEN
                self.gateway.fund(self.hot[wallet], ASSETS[asset].parse(amount), contract)

    async def books(self, *prefixes: str) -> dict[str, str]:
        """The posted balance of every account that is not zero, as people read it."""
        rows = await self.do(lambda conn: trial_balance(conn, BOOK))
        return {
            f"{row.path} {row.asset}": ASSETS[row.asset].format(row.balance, code=False)
            for row in rows
            if row.balance and row.path.startswith(prefixes or ("",))
        }

    async def holds(self) -> dict[str, str]:
        """What is reserved to leave each account."""
        rows = await self.do(lambda conn: trial_balance(conn, BOOK))
        return {
            f"{row.path} {row.asset}": ASSETS[row.asset].format(row.debits_pending, code=False)
            for row in rows
            if row.debits_pending
        }


@asynccontextmanager
async def open_desk(
    engine: AsyncEngine, folder: Path, founding: Founding | None = None
) -> AsyncIterator[Desk]:
    founding = founding or demo_founding()
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    clock = ManualClock(START)
    with local_signer(folder, rules, clock=clock) as signer:
        desk = Desk(engine, ScriptedGateway(tokens={TOKEN}), signer, clock)
        await desk.do(lambda conn: _found(conn, desk, founding))
        desk.gateway.fund(ELSEWHERE, 10**24)
        desk.gateway.fund(ELSEWHERE, 10**18, TOKEN)
        await desk.follow()
        yield desk


async def _found(conn: AsyncConnection, desk: Desk, founding: Founding) -> None:
    now = desk.now
    await found(conn, founding, now=now)
    await open_book(conn, BOOK, entity=ENTITY.code, now=now)
    for wallet in ("client-pool", "house-hot"):
        given = await assign_address(conn, wallet, purpose=AddressPurpose.HOT, now=now)
        desk.hot[wallet] = given.address
    for party in ("acme", "birch"):
        given = await assign_address(
            conn, "house-settlement", purpose=AddressPurpose.SETTLEMENT, party=party, now=now
        )
        desk.settlement[party] = given.address
    await set_policy(conn, now=now)
    await allow(conn, "acme", ACME_WALLET, now=now)
    for code in ("ada", "ben", "cleo", "dan"):
        desk.operators[code] = await get_operator(conn, code)


def as_lines(transfers: Sequence[Any]) -> list[str]:
    """Postings as people read them: ``debit | credit | amount``."""
    return [f"{t.debit} | {t.credit} | {t.amount} {t.asset}" for t in transfers]


async def release_all(
    desk: Desk, run: Run, *, by: str = "ada", method: Method = Method.FIFO
) -> CycleReleased:
    """One call of ``settle release``."""
    job = CycleRelease(
        do=InTransactions(desk.engine),
        clock=desk.clock,
        book=BOOK,
        by=desk.operators[by],
        method=method,
        solvers=lambda: BUILT_IN,
    )
    return await job.all([await desk.do(lambda conn: get_run(conn, run.id))])


async def refusal(act: Awaitable[object]) -> str:
    """Return what an act is refused with; it must be refused."""
    try:
        await act
    except (Refused, BadInput) as error:
        return str(error)
    raise AssertionError("it was not refused")
