"""A house on a real database, and every fault that an alert rule is there for.

Each fault is made as it happens where that is short: by the verbs and workers of the house. Where it would
take a bank or a venue to lie for hours, the rows are written that such a day leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.health import Endpoint
from app.metrics import Figures, QueueFigures
from app.service_levels import ServiceLevels
from app.vitals import Vitals, database_check, migration_check, signer_check
from app.workers.books_proof import BooksProof, proof_schedule
from app.workers.client_money import ClientMoneyWatch
from app.workers.jobs import JobWorker
from app.workers.loops import Loop, Pulse, run_loops
from app.workers.relay import RelayWorker
from app.workers.scheduler import sweep
from chain.halts import halt
from chain.testing import ScriptedTransaction
from custody.addresses import assign_address
from custody.compliance.address_list import NOBODY_LISTED
from custody.compliance.model import Answer, Question
from custody.freeze_model import Scope
from custody.freezes import close_automatically
from custody.model import AddressPurpose
from custody.signer.client import SignerClient
from custody.testing import allow
from kernel.clock import iso
from kernel.db import APP_ROLE, create_engine, transact
from kernel.errors import OutsideUnavailable
from kernel.ids import derive_id, stable_id
from kernel.jobs import JOB_ATTEMPTS_MAX, claim_due, enqueue, retry_later
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import lock_book, post, require_applied
from marketdata.events import Channel
from marketdata.model import StreamState, StreamStatus
from reporting.alerts.alerts import observe
from reporting.alerts.model import AlertKind, Finding
from risk.model import Outcome
from risk.venue_health import record_outcome
from tests.custody.payout_world import BOOK, ETH, STRANGER, World
from tests.custody.test_payout_adversity import RefusingSigner

Labels = tuple[tuple[str, str], ...]
Series = Mapping[tuple[str, Labels], float]
"""What a scrape gives: values by name and labels."""

JOB_NAME: Final = "causeway"
INSTANCE: Final = "house:9100"
SLOW_S: Final = 1.2
WRITTEN: Final = re.compile(r"(?:INSERT INTO|UPDATE) (\w+\.\w+)")


@dataclass(slots=True)
class HouseAtFault:
    """A house that is well to begin with.

    Attributes:
        owner: an engine that may write what no worker may.
        is_up: whether its endpoint answers at all.
    """

    world: World
    owner: AsyncEngine
    app_url: str
    folder: Path
    stack: contextlib.AsyncExitStack
    vitals: Vitals = field(default_factory=lambda: Vitals(stop=asyncio.Event(), is_started=True))
    is_up: bool = True
    levels: ServiceLevels = field(init=False)

    def __post_init__(self) -> None:
        """Let the endpoint look at the database."""
        engine = self.world.engine
        self.levels = ServiceLevels(engine=engine, clock=self.world.clock)
        self.vitals.checks["database"] = database_check(engine, self.world.clock)
        self.vitals.checks["schema"] = migration_check(engine)
        self.vitals.pulses["watcher"] = Pulse(turns=3)

    async def begin(self) -> None:
        """Do what a house that is well has done: the books are proven, all events handed on."""
        await self.world.tell_signer()
        await self.prove()
        await self.watch_money()
        await self.hand_on()
        # The blocks of a scripted chain are of another day than this house.
        await self.write("UPDATE chain.block SET time = :now")

    async def scrape(self) -> Series:
        """Return what Prometheus reads now, with the labels that it adds itself."""
        target: Labels = (("instance", INSTANCE), ("job", JOB_NAME))
        found: dict[tuple[str, Labels], float] = {("up", target): float(self.is_up)}
        if self.is_up:
            answers = Endpoint(self.vitals, self.world.clock)
            answers.levels = self.levels
            exposition = (await answers.exposition()).decode()
            for family in text_string_to_metric_families(exposition):
                for sample in family.samples:
                    labels = tuple(sorted({**sample.labels, **dict(target)}.items()))
                    found[sample.name, labels] = sample.value
        return found

    async def write(self, *statements: str, **values: Any) -> None:
        """Write rows past every guard: what the house itself would refuse to write."""
        now = {"now": self.world.clock.now(), **values}
        async with self.owner.begin() as conn:
            for statement in statements:
                for table in WRITTEN.findall(statement):
                    await conn.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
                used = {key: value for key, value in now.items() if f":{key}" in statement}
                await conn.execute(text(statement), used)

    def wait(self, **period: float) -> None:
        """Let time pass in which nobody does anything."""
        self.world.clock.advance(timedelta(**period))

    async def hand_on(self) -> None:
        await RelayWorker(
            engine=self.world.engine, clock=self.world.clock, write=lambda _: None
        ).turn()

    async def watch_money(self) -> None:
        await ClientMoneyWatch(engine=self.world.engine, clock=self.world.clock, book=BOOK).turn()

    async def prove(self) -> None:
        schedule = proof_schedule(BOOK, self.world.clock)
        await self.world.run(lambda conn: sweep(conn, schedule, now=self.world.clock.now()))
        proof = BooksProof(
            engine=self.world.engine, book=BOOK, folder=self.folder, stops=lambda: False
        )
        worker = JobWorker(
            engine=self.world.engine,
            clock=self.world.clock,
            handlers={schedule.name: proof.prove},
        )
        await worker.turn()

    async def book(
        self, *legs: tuple[str, str, int, str], engine: AsyncEngine | None = None
    ) -> None:
        """Post transfers (debit, credit, amount, asset)."""
        now = self.world.clock.now()

        async def work(conn: Any) -> None:
            keys = {(path, leg[3]) for leg in legs for path in leg[:2]}
            await ensure_accounts(conn, BOOK, keys, now=now)
            batch = [
                transfer(derive_id(now, "fault", *leg), *leg[:2], leg[2], leg[3], code="test.fault")
                for leg in legs
            ]
            require_applied(await post(conn, BOOK, batch, now=now))

        await transact(engine or self.world.engine, work)


@dataclass(frozen=True, slots=True)
class Fault:
    """What makes an alert fire."""

    alert: str
    happen: Callable[[HouseAtFault], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class NobodyAnswers:
    """A screening provider that is away."""

    name: str = "away"

    async def version(self) -> str:
        raise OutsideUnavailable("the provider does not answer")

    async def screen(self, questions: Sequence[Question]) -> Sequence[Answer]:
        raise OutsideUnavailable("the provider does not answer")


async def the_signer_is_away(house: HouseAtFault) -> None:
    house.vitals.checks["signer"] = signer_check(SignerClient(house.folder / "nobody.sock"))


async def turns_fail(house: HouseAtFault) -> None:
    stop, soon = asyncio.Event(), timedelta(milliseconds=1)

    async def turn() -> Mapping[str, object]:
        if house.vitals.pulses["reconcile"].failures == 5:
            stop.set()
        raise OutsideUnavailable("the node does not answer")

    loop = Loop(name="reconcile", turn=turn, pause=soon)
    await run_loops([loop], stop, house.vitals.pulses)


async def a_turn_hangs(house: HouseAtFault) -> None:
    long_ago_s = asyncio.get_running_loop().time() - 700
    house.vitals.pulses["settlement"] = Pulse(changed_s=long_ago_s, is_busy=True)


async def something_holds_the_process_up(house: HouseAtFault) -> None:
    async with asyncio.TaskGroup() as group:
        beating = group.create_task(house.vitals.beat())
        await asyncio.sleep(0)
        time.sleep(SLOW_S + 0.5)  # noqa: ASYNC251  the fault: nothing else of the process runs
        await asyncio.sleep(0.05)
        beating.cancel()


async def every_connection_is_held(house: HouseAtFault) -> None:
    engine = create_engine(house.app_url, role=APP_ROLE, pool_size=1)
    house.stack.push_async_callback(engine.dispose)
    house.vitals.engine = engine
    held = await house.stack.enter_async_context(engine.connect())
    assert not held.closed


async def somebody_sits_on_the_head(house: HouseAtFault) -> None:
    engine = create_engine(house.app_url, role=APP_ROLE, pool_size=1, injected_clock=True)
    house.stack.push_async_callback(engine.dispose)
    house.vitals.postings.watch(engine)
    leg = ("custody:house-hot", "equity:capital", 1, "ETH")

    async def sit(conn: Any) -> None:
        await lock_book(conn, BOOK)
        await asyncio.sleep(SLOW_S)

    async with asyncio.TaskGroup() as group:
        group.create_task(transact(house.world.engine, sit))
        await asyncio.sleep(0.2)
        group.create_task(house.book(leg, engine=engine))


async def clients_coins_are_lost(house: HouseAtFault) -> None:
    await house.book(("expense:loss", "custody:client-pool", 7 * ETH, "ETH"))
    await house.watch_money()


async def a_job_is_given_up(house: HouseAtFault) -> None:
    now = house.world.clock.now()
    await house.world.run(lambda conn: enqueue(conn, "reports.daily", now))
    lease_for = timedelta(minutes=1)
    for _ in range(JOB_ATTEMPTS_MAX):
        house.wait(minutes=10)
        at = house.world.clock.now()
        claim = partial(claim_due, names=["reports.daily"], holder="x", now=at, lease_for=lease_for)
        (job,) = await house.world.run(claim)
        fail = partial(retry_later, failed=job, now=at, error="no such folder")
        await house.world.run(fail)


async def a_cut_off_comes_near(house: HouseAtFault) -> None:
    kind = AlertKind.CUT_OFF_UNFUNDED
    finding = Finding(kind=kind, key="afternoon", text="1 ETH missing for afternoon")
    await house.world.run(
        lambda conn: observe(conn, BOOK, [finding], examined={kind}, now=house.world.clock.now())
    )


async def a_process_freezes_an_asset(house: HouseAtFault) -> None:
    await house.world.run(
        lambda conn: close_automatically(
            conn,
            Scope.parse("asset:USDT"),
            by="system:tokens",
            reason="its code has changed",
            now=house.world.clock.now(),
        )
    )


async def providers_disagree(house: HouseAtFault) -> None:
    await house.write(
        "INSERT INTO chain.agreement (chain, id, tip_height, disputed_since, alarmed, detail)"
        " VALUES ('evm', :id, 1, CAST(:now AS timestamptz) - INTERVAL '10 minutes', true, 'two of"
        " three') ON CONFLICT (chain) DO UPDATE SET disputed_since = excluded.disputed_since",
        id=stable_id("agreement", "fault"),
    )


async def a_venue_goes_silent(house: HouseAtFault) -> None:
    for _ in range(10):
        await house.world.run(
            lambda conn: record_outcome(
                conn, "binance", "desk", Outcome.UNKNOWN, 10_000, house.world.clock.now()
            )
        )


async def a_stream_is_down(house: HouseAtFault) -> None:
    now = house.world.clock.now()
    down = StreamStatus(
        venue="binance",
        symbol="ETHUSDT",
        channel=Channel.BOOK,
        state=StreamState.DOWN,
        since=now - timedelta(hours=1),
        last_event_at=now - timedelta(hours=1),
        sequence=1,
        gaps=1,
        reconnects=9,
        messages=10,
    )
    house.vitals.figures = Figures(streams=lambda: [down])


async def the_recorder_is_too_slow(house: HouseAtFault) -> None:
    full = {"binance": QueueFigures(depth=100, room=100, dropped=5)}
    house.vitals.figures = Figures(streams=house.vitals.figures.streams, queues=lambda: full)


HEDGE: Final = """
INSERT INTO trading.hedge (desk, asset, id, target, state, sequence, looked_at, look_verdict,
    look_detail, look_position, look_low, look_high, look_need, look_waiting, look_residual,
    created_at, updated_at)
VALUES ('otc', 'ETH', :id, 0, 'idle', 0, :now, 'no_funds', '', 5, 5, 5, -5, 0, -5, :now, :now)"""


async def a_line_has_no_funds(house: HouseAtFault) -> None:
    await house.write(HEDGE, id=stable_id("hedge", "fault"))
    await house.scrape()


async def a_need_stands_for_long(house: HouseAtFault) -> None:
    house.wait(minutes=6)


async def a_fill_is_not_posted(house: HouseAtFault) -> None:
    await house.write(
        "INSERT INTO venues.fill (venue, account, symbol, trade_id, id, venue_order_id, side, price,"
        " base, base_units, quote, quote_units, quote_dust, fee_asset, fee_units, fee_dust, is_maker,"
        " executed_at, source, recorded_at) VALUES ('binance', 'desk', 'ETHUSDT', '1', :id, '7',"
        " 'buy', '3000', 'ETH', 1, 'USDT', 3000, 0, 'USDT', 0, 0, false, :now, 'list',"
        " CAST(:now AS timestamptz) - INTERVAL '1 hour')",
        id=stable_id("fill", "fault"),
    )


async def a_desk_is_halted(house: HouseAtFault) -> None:
    await house.write(
        "INSERT INTO risk.desk_control (desk, state, reason, changed_by, since, version)"
        " VALUES ('otc', 'halted', 'loss', 'system:desk', :now, 1)"
    )


async def a_session_keeps_its_snapshot(house: HouseAtFault) -> None:
    reader = await house.stack.enter_async_context(house.owner.connect())
    await reader.execute(text("SET idle_in_transaction_session_timeout = 0"))
    await reader.commit()
    await reader.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    await reader.execute(text("SELECT pg_current_xact_id()"))
    await house.scrape()
    house.wait(minutes=11)
    async with house.owner.begin() as writer:
        await writer.execute(text("CREATE TEMP TABLE burnt (n integer)"))
        await writer.execute(
            text(
                "DO $$ BEGIN FOR n IN 1..10100 LOOP"
                " BEGIN INSERT INTO burnt VALUES (n); EXCEPTION WHEN unique_violation THEN NULL; END;"
                " END LOOP; END $$"
            )
        )


async def a_bank_has_less(house: HouseAtFault) -> None:
    await house.write(
        "INSERT INTO reporting.recon_run (id, book, at, sequence, result, lines, found, sha256, by)"
        " VALUES (:run, 1, :now, 1, 'different', '[]', '[]', '', 'system')",
        "INSERT INTO reporting.recon_break (id, book, key, kind, place_kind, place, asset, amount,"
        " text, state, opened_at, opened_run, seen_at) VALUES (:id, 1, 'bank/EUR', 'balance', 'bank',"
        " 'house-usdt', 'USDT', -2500000, 'less', 'open', :now, :run, :now)",
        run=stable_id("run", "fault"),
        id=stable_id("break", "fault"),
    )


async def nothing(_: HouseAtFault) -> None:
    """The fault before did it."""


async def an_address_has_less(house: HouseAtFault) -> None:
    await house.write(
        "INSERT INTO custody.difference (id, book, chain, wallet, asset, address, amount, state,"
        " opened_at, opened_height, first_height, first_block, last_height, last_block, seen_at, detail)"
        " VALUES (:id, 1, 'evm', 'client-pool', 'ETH', 'x', -1, 'open', :now, 1, 1, '', 1, '', :now, '')",
        id=stable_id("difference", "fault"),
    )


async def a_statement_does_not_add_up(house: HouseAtFault) -> None:
    await house.write(
        "INSERT INTO custody.bank_file (id, name, sha256, raw, format, state, reason, received_by,"
        " received_at, version) VALUES (:id, 'a.xml', encode(sha256('x'), 'hex'), 'x', 'camt.053',"
        " 'quarantined', 'the closing balance is another', 'system', :now, 1)",
        id=stable_id("file", "fault"),
    )


async def a_banks_door_is_shut(house: HouseAtFault) -> None:
    await house.write(
        "INSERT INTO custody.payment_file (id, book, account, asset, message_id, execution_date,"
        " content, sha256, line_count, total, state, drafted_by, drafted_at, submissions, waiting_for,"
        " bank_status, run_after, released_at) VALUES (:id, 1, 'house-eur', 'EUR', 'm-1', :day, 'x',"
        " encode(sha256('x'), 'hex'), 1, 1, 'held', 'dan', :now, 1, '', '', :now, :now)",
        id=stable_id("payment-file", "fault"),
        day=house.world.clock.now().date(),
    )


async def events_wait(house: HouseAtFault) -> None:
    await house.world.request(client_ref="outbox")
    house.wait(minutes=4)


async def the_chain_stands_still(house: HouseAtFault) -> None:
    house.wait(minutes=20)


async def nobody_works_at_jobs(house: HouseAtFault) -> None:
    now = house.world.clock.now()
    await house.world.run(lambda conn: enqueue(conn, "reports.hourly", now))
    house.wait(minutes=20)


async def the_signer_says_no(house: HouseAtFault) -> None:
    world = house.world
    signer, vault = world.signer, world.vault
    world.signer, world.vault = RefusingSigner(), None
    await world.approved(client_ref="refused")
    await world.advance()
    world.signer, world.vault = signer, vault


async def the_signer_is_not_told(house: HouseAtFault) -> None:
    now = house.world.clock.now()
    await house.world.run(lambda conn: allow(conn, "acme", STRANGER, now=now))
    house.wait(minutes=20)


async def nobody_sends(house: HouseAtFault) -> None:
    await house.world.approved(client_ref="unsent")
    house.wait(minutes=20)


async def it_is_sent_late(house: HouseAtFault) -> None:
    house.world.gateway.refuse_broadcasts = 0
    await house.world.advance()


async def a_broadcast_is_not_answered(house: HouseAtFault) -> None:
    await house.world.approved(client_ref="unanswered")
    house.world.gateway.refuse_broadcasts = 10**6
    await house.world.advance()
    house.wait(minutes=20)


async def a_nonce_is_given_back(house: HouseAtFault) -> None:
    await house.write(
        "UPDATE custody.payout_nonce SET state = 'released' WHERE (chain, sender, nonce) IN ("
        " SELECT chain, sender, min(nonce) FROM custody.payout_nonce WHERE state = 'live'"
        " GROUP BY chain, sender)"
    )


async def nothing_is_mined(house: HouseAtFault) -> None:
    house.wait(hours=7)


async def a_stranger_spends_our_nonce(house: HouseAtFault) -> None:
    await house.write(
        "UPDATE custody.payout SET state = 'security_hold' WHERE id = ("
        " SELECT id FROM custody.payout WHERE state = 'signed' LIMIT 1)"
    )


async def pay_in(house: HouseAtFault, *, to: str) -> None:
    world = house.world
    world.gateway.fund(STRANGER, 10 * ETH)
    sent = ScriptedTransaction(
        sender=STRANGER, recipient=to, value=ETH, salt=iso(world.clock.now())
    )
    world.gateway.mine(sent)
    for _ in range(5):
        world.gateway.mine()
    await world.follow()


async def nobody_screens(house: HouseAtFault) -> None:
    world = house.world
    given = await world.run(
        lambda conn: assign_address(
            conn,
            "client-pool",
            purpose=AddressPurpose.DEPOSIT,
            party="acme",
            now=world.clock.now(),
        )
    )
    await pay_in(house, to=given.address)
    with contextlib.suppress(OutsideUnavailable):
        await house.world.take_deposits(NobodyAnswers())
    house.wait(minutes=20)


async def it_is_screened_late(house: HouseAtFault) -> None:
    house.wait(hours=2)
    await house.world.take_deposits(NOBODY_LISTED)


async def a_stranger_pays_in(house: HouseAtFault) -> None:
    await pay_in(house, to=house.world.hot["client-pool"])
    await house.world.take_deposits(NOBODY_LISTED)
    house.wait(hours=5)


async def nobody_proves_the_books(house: HouseAtFault) -> None:
    house.wait(hours=4)


async def a_balance_is_changed(house: HouseAtFault) -> None:
    await house.write(
        "UPDATE ledger.balance SET credits_posted = credits_posted + 1 WHERE (book, account) IN ("
        " SELECT book, number FROM ledger.account WHERE path = 'client:acme' AND asset = 'ETH')"
    )
    for _ in range(2):
        await house.prove()
        house.wait(minutes=1)


async def the_chain_is_halted(house: HouseAtFault) -> None:
    now = house.world.clock.now()
    await house.world.run(
        lambda conn: halt(conn, "evm", by="system:watcher", reason="too deep", now=now)
    )


async def a_right_is_missing(house: HouseAtFault) -> None:
    await house.write("REVOKE SELECT ON risk.venue_health FROM causeway_app")


async def the_process_is_killed(house: HouseAtFault) -> None:
    house.is_up = False


FAULTS: Final = (
    Fault("DependencyDown", the_signer_is_away),
    Fault("LoopFails", turns_fail),
    Fault("LoopHangs", a_turn_hangs),
    Fault("EventLoopLate", something_holds_the_process_up),
    Fault("ConnectionsExhausted", every_connection_is_held),
    Fault("PostingSlow", somebody_sits_on_the_head),
    Fault("HouseAlert", a_cut_off_comes_near),
    Fault("Frozen", a_process_freezes_an_asset),
    Fault("ProvidersDisagree", providers_disagree),
    Fault("VenueOut", a_venue_goes_silent),
    Fault("MarketDataDown", a_stream_is_down),
    Fault("RecorderDrops", the_recorder_is_too_slow),
    Fault("HedgeBlocked", a_line_has_no_funds),
    Fault("FillNotPosted", a_fill_is_not_posted),
    Fault("DeskHalted", a_desk_is_halted),
    Fault("ReserveGap", a_bank_has_less),
    Fault("ChainDiffers", an_address_has_less),
    Fault("BankFileNotBelieved", a_statement_does_not_add_up),
    Fault("PaymentFileHeld", a_banks_door_is_shut),
    Fault("SignerRefuses", the_signer_says_no),
    # From here on time passes, and what waited for nobody before is late.
    Fault("OutboxLags", events_wait),
    Fault("HedgeLate", a_need_stands_for_long),
    Fault("ChainBehind", the_chain_stands_still),
    Fault("SnapshotHeld", a_session_keeps_its_snapshot),
    Fault("JobLate", nobody_works_at_jobs),
    Fault("SignerNotTold", the_signer_is_not_told),
    Fault("PayoutNotSent", nobody_sends),
    Fault("PayoutsSlow", it_is_sent_late),
    Fault("OutcomeUnknown", a_broadcast_is_not_answered),
    Fault("NonceGap", a_nonce_is_given_back),
    Fault("DepositsNotCredited", nobody_screens),
    Fault("BooksNotProven", nobody_proves_the_books),
    Fault("PayoutNotFinal", nothing_is_mined),
    Fault("DepositsSlow", it_is_screened_late),
    Fault("JobDead", a_job_is_given_up),
    Fault("DepositsWaitForPeople", a_stranger_pays_in),
    Fault("PayoutInSecurityHold", a_stranger_spends_our_nonce),
    Fault("ClientMoneyShort", clients_coins_are_lost),
    Fault("BooksProofFails", a_balance_is_changed),
    Fault("ChainHalted", the_chain_is_halted),
    Fault("LevelUnreadable", a_right_is_missing),
    Fault("CausewayDown", the_process_is_killed),
)
"""In this order in one house, so that each finds its alert still silent."""

SHARED: Final = {"CausewayNotReady": "DependencyDown", "BankBreak": "ReserveGap"}
"""Alerts that fire with the fault of another one."""


@contextlib.asynccontextmanager
async def at_fault(
    world: World, owner: AsyncEngine, app_url: str, folder: Path
) -> AsyncIterator[HouseAtFault]:
    """Give a house that is well."""
    async with contextlib.AsyncExitStack() as stack:
        house = HouseAtFault(world, owner, app_url, folder, stack)
        await house.begin()
        yield house
