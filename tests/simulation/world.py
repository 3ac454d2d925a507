"""A small house and everything outside of it, one call at a time: what the days of a simulation are made of.

Three clients: acme settles on the chain, birch through the bank, cedar has its funds here. One chain, one
bank, one venue, a signer; none of them has a socket. The verbs and the workers are those of production.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.workers.bank_payments import BankPayer
from app.workers.bitcoin_watcher import BitcoinWatcher
from app.workers.client_money import ClientMoneyWatch
from app.workers.cycle_release import InTransactions
from app.workers.cycles import CycleWorker
from app.workers.relay import RelayWorker
from app.workers.settlement import SettlementWorker
from app.workers.watcher import Watcher
from banks.simulator.bank import Bank
from banks.submission import Outcome, Submission
from chain.testing import ScriptedTransaction, ScriptedTransfer
from custody.addresses import assign_address
from custody.banks import payment_store
from custody.banks.importing import import_file
from custody.banks.payment_files import approval_bytes, approve_file
from custody.banks.payment_model import FileState
from custody.banks.payments import BankPayments
from custody.bitcoin.testing import CHAIN as COIN_CHAIN
from custody.bitcoin.testing import with_bitcoin
from custody.control_messages import ControlMessage
from custody.model import AddressPurpose, bank_account_path
from custody.payout_worker import WorkReport, advance_payouts
from custody.policy import ConfirmationPolicy, Requirement
from custody.ports import ControlledSigner
from custody.signer.wire import (
    Accepted,
    Audited,
    Checkpointed,
    Health,
    Intent,
    No,
    Signed,
    SignedApproval,
    SignRequest,
    SpendIntent,
)
from custody.testing import allow
from custody.venues.worker import advance_venue_transfers
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.errors import OutsideUnavailable
from kernel.ids import derive_id
from kernel.money import Asset
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from marketdata.consolidated import VenueBook
from marketdata.fees import VenueFee
from marketdata.model import BookView, Instrument
from marketdata.testing import StillFeed, book_view
from matching.model import Side
from registry.calendars import Calendar
from registry.model import BANK, Party, PartyKind
from registry.testing import (
    BANK_ACCOUNTS,
    ENTITY,
    ETH,
    TOKEN,
    change,
    demo_founding,
    operator_keypair,
    with_banks,
)
from settlement.model import ReleaseMethod, Window
from settlement.netting.exact import BUILT_IN
from settlement.windows import set_window, window_bytes
from tests.settlement.desk import ACME_WALLET, ASSETS, BOOK, CONFIRMATIONS, DAY, Desk, open_desk
from tests.simulation.coins import Coins, open_coins
from tests.simulation.fates import Life
from tests.simulation.screening import Screener
from tests.simulation.stalling import Stall
from tests.simulation.treasury import PLACE, Vault, open_vault
from trading.hedges.hedger import Hedger, hedge_once
from trading.hedges.lines import open_line
from trading.hedges.model import HedgeLine, HedgePlace, HedgePolicy
from trading.quotes.maker import serve_quotes
from trading.quotes.model import QuotePolicy
from trading.terms.model import LastLook, Rail
from trading.terms.testing import give_terms, set_standing_instruction
from venues.lifecycle import ResolvePolicy
from venues.model import Placement, VenueBalance, VenueFill, VenueOrder
from venues.testing import GRID, Conduct, Placed, ScriptedVenue, Trouble

T = TypeVar("T")

CLIENTS_EUR, OURS = BANK_ACCOUNTS
BIRCH_IBAN: Final = "NL91ABNA0417164300"
BIRCH: Final = f"{BIRCH_IBAN}|ABNANL2A|Birch Trading BV"
CEDAR_BANK: Final = "GB82WEST12345698765432|WESTGB22|Cedar Ltd"
CEDAR_WALLET: Final = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
BIRCH_WALLET: Final = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"
HOUSE_EUR: Final = 10**10
CEDAR_EUR: Final = 10**8
CLIENTS: Final = ("acme", "cedar")
WALLETS: Final = {"acme": ACME_WALLET, "birch": BIRCH_WALLET, "cedar": CEDAR_WALLET}
CUT_OFFS: Final = {"morning": time(10), "noon": time(13), "late": time(16)}
AT_THE_VENUE: Final = {"ETH": "5000", "USDT": "15000000"}
CAPITAL: Final = (
    *(
        ("venue:north/main", "equity:capital", units, asset)
        for asset, units in AT_THE_VENUE.items()
    ),
    ("custody:house-hot", "equity:capital", "10000", "ETH"),
    ("custody:house-hot", "equity:capital", "30000000", "USDT"),
    ("custody:client-pool", "equity:capital", "1000", "ETH"),
    ("custody:client-pool", "equity:capital", "3000000", "USDT"),
    ("custody:client-pool", "client:acme", "100", "ETH"),
    ("custody:client-pool", "client:acme", "300000", "USDT"),
    ("custody:client-pool", "client:cedar", "1000", "ETH"),
    ("custody:client-pool", "client:cedar", "3000000", "USDT"),
)
MONEY: Final = (
    (OURS, "equity:capital", HOUSE_EUR),
    (CLIENTS_EUR, "client:cedar", CEDAR_EUR),
)
"""What is at the bank in the morning, and whose it is."""
LINE: Final = ("otc", "ETH")
HEDGING: Final = HedgePolicy(
    order_units_max=4 * 10**18,
    resolve=ResolvePolicy(
        margin=timedelta(seconds=1),
        not_founds=2,
        pause=timedelta(0),
        looks_max=60,
        patience=timedelta(seconds=12),
        escalate_after=timedelta(minutes=5),
    ),
)


@dataclass(slots=True)
class Purse(ScriptedVenue):
    """A scripted venue with money, which takes every other fee in kind."""

    stalls: Callable[[], Stall] = Stall
    moved: Callable[[], Mapping[str, int]] = dict
    """What was brought to the account, less what was taken out, by asset."""

    async def place(
        self, order: VenueOrder, *, after: Awaitable[object] | None = None
    ) -> Placement:
        """Take an order; the answer may be long on its way."""
        placed = await ScriptedVenue.place(self, order, after=after)
        await self.stalls().after()
        return placed

    async def balances(self) -> list[VenueBalance]:
        """Return what was brought there and what the trades have made of it."""
        held = {asset: ASSETS[asset].parse(amount) for asset, amount in AT_THE_VENUE.items()}
        for asset, moved in self.moved().items():
            held[asset] += moved
        for item in self.trades:
            sign = 1 if item.side is Side.BUY else -1
            held[item.base] += sign * item.base_units
            held[item.quote] -= sign * item.quote_units
            held[item.fee_asset] -= item.fee_units
        return [
            VenueBalance(asset=code, free=units, locked=0, dust=0) for code, units in held.items()
        ]

    def trade(self, placed: Placed, units: int, *, fee_asset: str = "") -> VenueFill:
        """Let a part of an order trade."""
        kind = fee_asset or ("ETH" if len(self.trades) % 2 else "USDT")
        # Without arguments `super` does not know a class whose slots were made anew.
        return ScriptedVenue.trade(self, placed, units, fee_asset=kind)


@dataclass(slots=True)
class WorldClock(ManualClock):
    """The one time there is: what the venue does by itself happens while it passes."""

    venue: Purse = field(default_factory=Purse)

    def now(self) -> datetime:
        """Return the venue's time where its calls have taken some."""
        return max(self.at, self.venue.now())

    def advance(self, by: timedelta) -> datetime:
        """Let time pass for everybody."""
        self.at = self.now() + by
        self.venue.pass_time(self.at - self.venue.now())
        return self.at


class YoungFeed(StillFeed):
    """A market that stands still, told a moment ago."""

    def __init__(self, clock: WorldClock) -> None:
        super().__init__()
        self._clock = clock

    def book(self, symbol: str) -> BookView | None:
        """Return a book as young as it can be."""
        del symbol
        sides = [("2999.00", "50")], [("3001.00", "50")]
        return book_view(*sides, at=self._clock.now(), instrument=grid(self._clock.venue))


@dataclass
class Shown:
    """The books that the maker of prices looks at: one venue's, young, around where the market is."""

    world: World

    def books(self, base: Asset, quote: Asset) -> list[VenueBook]:
        """See `trading.ports.BookSource`."""
        world, shown = self.world, grid(self.world.venue)
        if (shown.base, shown.quote) != (base, quote):
            return []
        sides = [(f"{world.mid - 1}.00", "50")], [(f"{world.mid + 1}.00", "50")]
        view = book_view(*sides, at=world.now, instrument=shown)
        return [VenueBook(shown, view, VenueFee(1_000))]


def grid(venue: Purse) -> Instrument:
    """Return the one market of the venue."""
    return replace(GRID, venue=venue.venue)


@dataclass
class FickleSigner:
    """The signer behind a line that may be down."""

    signer: ControlledSigner
    stalls: Callable[[], Stall] = Stall
    down: bool = False

    def _up(self) -> ControlledSigner:
        if self.down:
            raise OutsideUnavailable("the signer does not answer")
        return self.signer

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        """See `custody.ports.PayoutSigner`."""
        return await self._up().sign(intent, unsigned, approvals)

    async def sign_many(
        self, requests: Sequence[SignRequest], approvals: Sequence[SignedApproval]
    ) -> list[Signed | No]:
        """See `custody.ports.PayoutSigner`."""
        answers = await self._up().sign_many(requests, approvals)
        await self.stalls().after()
        return answers

    async def sign_spend(
        self, intent: SpendIntent, psbt: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        """See `custody.ports.PayoutSigner`."""
        signed = await self._up().sign_spend(intent, psbt, approvals)
        await self.stalls().after()
        return signed

    async def account_xpub(self, path: str) -> str:
        """See `custody.ports.PayoutSigner`."""
        return await self._up().account_xpub(path)

    async def health(self) -> Health:
        """See `custody.ports.ControlledSigner`."""
        return await self._up().health()

    async def control(self, message: ControlMessage) -> Accepted | No:
        """See `custody.ports.ControlledSigner`."""
        return await self._up().control(message)

    async def checkpoint(self, *, since: int = 0) -> Checkpointed:
        """See `custody.ports.ControlledSigner`."""
        return await self._up().checkpoint(since=since)

    async def audit(self, index: int, *, size: int) -> Audited:
        """See `custody.ports.ControlledSigner`."""
        return await self._up().audit(index, size=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Whether a file arrives at the bank, and what is heard of that."""

    arrives: bool = True
    heard: Outcome = Outcome.TAKEN

    def __str__(self) -> str:
        """Return it in words, for the trace."""
        return f"{'taken' if self.arrives else 'lost'}, said to be {self.heard}"


@dataclass
class Door:
    """The bank's door: the next answers, then it takes what comes.

    Attributes:
        copies: every copy that arrived, as (name, bytes).
    """

    bank: Bank
    stalls: Callable[[], Stall] = Stall
    answers: list[Answer] = field(default_factory=list)
    copies: list[tuple[str, bytes]] = field(default_factory=list)

    async def submit(self, name: str, content: bytes) -> Submission:
        """See `banks.submission.BankGateway`."""
        answer = self.answers.pop(0) if self.answers else Answer()
        if answer.arrives:
            self.copies.append((name, content))
            self.bank.execute({"verb": "order", "content": content.hex()})
        await self.stalls().after()
        return Submission(answer.heard)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneByOneWatcher(Watcher):
    """A watcher that takes one claim after the other: two at once would race."""

    async def _send(self) -> WorkReport:
        return await advance_payouts(
            self.engine,
            self.gateway,
            self.signer,
            chain=self.chain,
            book=self.book,
            holder=self.holder,
            clock=self.clock,
            bump=self.bump,
            rail=self.rail,
            screening=self.screening,
            travel_rule=self.travel_rule,
        )


@dataclass
class Workers:
    """The workers of one process of the house: everything they remember ends with it."""

    world: World
    life: Life
    told: Callable[[str], None]

    def __post_init__(self) -> None:
        desk, engine, name = self.world.desk, self.life.engine, self.life.name
        self.watcher = OneByOneWatcher(
            engine=engine,
            gateway=desk.gateway,
            signer=self.world.signer,
            clock=desk.clock,
            chain="evm",
            book=BOOK,
            policy=ConfirmationPolicy.uniform(CONFIRMATIONS),
            payout_requirement=Requirement(CONFIRMATIONS),
            screening=self.world.screener,
            holder=name,
        )
        self.coins = BitcoinWatcher(
            engine=engine,
            node=self.world.coins.node,
            signer=self.world.signer,
            clock=desk.clock,
            chain=COIN_CHAIN,
            book=BOOK,
            policy=ConfirmationPolicy.uniform(CONFIRMATIONS),
            payout_requirement=Requirement(CONFIRMATIONS),
            screening=self.world.screener,
            holder=name,
        )
        self.cycles = CycleWorker(
            do=InTransactions(engine),
            clock=desk.clock,
            book=BOOK,
            holder=name,
            solvers=lambda: BUILT_IN,
        )
        self.settlement = SettlementWorker(engine=engine, clock=desk.clock, book=BOOK)
        self.payer = BankPayer(
            engine=engine,
            clock=desk.clock,
            book=BOOK,
            holder=name,
            screening=self.world.screener,
            gateways={account.code: self.world.door for account in BANK_ACCOUNTS},
        )
        self.relay = RelayWorker(engine=engine, clock=desk.clock, write=self.told, holder=name)
        self.money = ClientMoneyWatch(engine=engine, clock=desk.clock, book=BOOK)
        venue = self.world.venue
        self.hedger = Hedger(
            engine=engine,
            gateways={(venue.venue, venue.account): venue},
            feeds={venue.venue: YoungFeed(self.world.clock)},
            clock=desk.clock,
            policy=HEDGING,
            book=BOOK,
            holder=name,
        )

    async def quotes(self) -> object:
        """Price what is asked, look at what is taken, end the rest."""
        clock = self.world.clock
        return await serve_quotes(self.life.engine, Shown(self.world), clock, QuotePolicy(), BOOK)

    async def transfers(self) -> object:
        """Take transfers to and from the venue as far as they go."""
        return await advance_venue_transfers(
            self.life.engine,
            self.world.vault,
            book=BOOK,
            holder=self.life.name,
            clock=self.world.clock,
        )

    async def hedge(self) -> object:
        """Take one pass over the hedge line."""
        return await hedge_once(self.hedger, *LINE)

    async def statements(self) -> object:
        """Take in what the bank has sent and nobody has taken in, each file in its transaction."""
        for name, raw in sorted(self.world.bank.files.items()):
            if name in self.world.taken_in:
                continue
            if name.startswith("pain002"):
                await self.payer.read_report(name, raw)
            else:
                await transact(self.life.engine, partial(self._import, name, raw))
            self.world.taken_in.add(name)
        return None

    async def _import(self, name: str, raw: bytes, conn: AsyncConnection) -> None:
        now = self.world.now
        await import_file(conn, raw, name=name, payments=BankPayments(), now=now)


@dataclass
class World:
    """The house, its people and its outside.

    Attributes:
        deposits: (party, asset, amount) of every payment to a deposit address, by its hash.
        paid: what a party has paid for an instruction, all in all.
        taken_in: files of the bank that a process has taken in.
        disputed: (run, obligation) of what somebody disputes.
        sent: hashes of what strangers and parties have sent.
        dealt: deals that parties were told of when they took a price.
        mid: where the market is.
        short: what was left of each instruction when people last looked.
    """

    desk: Desk
    clock: WorldClock
    venue: Purse
    bank: Bank
    door: Door
    signer: FickleSigner
    coins: Coins = field(default_factory=Coins)
    vault: Vault = field(init=False)
    screener: Screener = field(default_factory=Screener)
    stall: Stall = field(default_factory=Stall)
    addresses: dict[str, str] = field(default_factory=dict)
    deposits: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    paid: dict[UUID, int] = field(default_factory=dict)
    taken_in: set[str] = field(default_factory=set)
    disputed: list[tuple[UUID, UUID]] = field(default_factory=list)
    short: dict[UUID, int] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    dealt: set[UUID] = field(default_factory=set)
    mid: int = 3_000
    numbers: int = 0

    def __post_init__(self) -> None:
        for place in (self.venue, self.door, self.signer):
            place.stalls = lambda: self.stall

    @property
    def now(self) -> datetime:
        """Return the time."""
        return self.clock.now()

    @property
    def engine(self) -> AsyncEngine:
        """Return the engine of the people, who are not killed."""
        return self.desk.engine

    async def do(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run one transaction of the people."""
        return await transact(self.engine, work)

    def number(self) -> int:
        """Return a number that was never returned before."""
        self.numbers += 1
        return self.numbers

    def business_day(self) -> date:
        """Return the day on which what is agreed now settles: today before the last cut-off."""
        day = self.now.date()
        if self.now.time() >= CUT_OFFS["late"]:
            day += timedelta(days=1)
        while day.weekday() >= SATURDAY:
            day += timedelta(days=1)
        return day

    def send(self, to: str, amount: int, asset: str) -> ScriptedTransaction:
        """Let a stranger, who sends once in its life, put a payment into the pool."""
        number = self.number()
        sender = f"0x{number:040d}"
        contract = None if asset == ETH.code else TOKEN
        gateway = self.desk.gateway
        gateway.fund(sender, amount + 10**18 if contract is None else 10**18)
        made = ScriptedTransaction(
            sender=sender,
            recipient=contract or to,
            value=0 if contract else amount,
            transfers=(ScriptedTransfer(contract, sender, to, amount),) if contract else (),
            salt=str(number),
        )
        if contract is not None:
            gateway.fund(sender, amount, contract)
        gateway.announce(made)
        self.sent.add(made.hash)
        return made

    async def sign_files(self) -> int:
        """Two people sign every payment file that waits for them."""
        signed = 0
        for file in await self.do(lambda conn: payment_store.list_files(conn, book=BOOK)):
            if file.state is FileState.DRAFTED:
                for code in ("ben", "cleo"):
                    signature = operator_keypair(code).sign(approval_bytes(file))
                    given = partial(
                        approve_file,
                        file_id=file.id,
                        by=self.desk.operators[code],
                        signature=signature,
                        now=self.now,
                    )
                    await self.do(given)
                signed += 1
        return signed


SATURDAY: Final = 5


@asynccontextmanager
async def open_world(engine: AsyncEngine, folder: Path, random: Random) -> AsyncIterator[World]:
    """Found the house; whatever is drawn, is drawn from *random*."""
    async with open_desk(engine, folder, with_banks(with_bitcoin(demo_founding()))) as desk:
        venue = Purse(
            venue=PLACE.venue,
            account=PLACE.account,
            late_by=timedelta(seconds=random.choice([1, 2.9, 3.5, 20])),
            settling=timedelta(milliseconds=random.choice([0, 300, 900])),
        )
        clock = WorldClock(at=desk.clock.at, venue=venue)
        desk.clock = clock
        bank = Bank(DAY)
        for account, _, units in MONEY:
            opened = {"iban": account.iban, "currency": account.asset, "balance": units}
            bank.execute({"verb": "account", **opened})
        signer = FickleSigner(desk.signer)
        world = World(desk, clock, venue, bank, Door(bank), signer)
        await furnish(world)
        yield world


async def furnish(world: World) -> None:
    """Set everybody's terms, and pay the capital in."""
    desk = world.desk
    await world.do(partial(_registry, world))
    world.coins = await open_coins(desk)
    world.vault = await open_vault(desk, lambda: world.stall)
    world.venue.moved = lambda: world.vault.balances
    for party in ("acme", "birch"):
        await desk.agree(party)
    await desk.agree("cedar", prefunded=True)
    for party in ("acme", "birch"):
        for asset in ("ETH", "USDT"):
            await desk.instruct(party, asset, WALLETS[party])
    await desk.capital(*CAPITAL)
    look = LastLook(window_ms=5_000, tolerance_ppm=1_000)
    await world.do(
        partial(give_terms, party="acme", quote_seconds=300, last_look=look, now=world.now)
    )
    await world.do(
        partial(give_terms, party="cedar", quote_seconds=60, tenor_days=1, now=world.now)
    )
    place = HedgePlace(world.venue.venue, world.venue.account, "ETHUSDT")
    line = HedgeLine(desk=LINE[0], asset=LINE[1], places=(place,))
    await world.do(lambda conn: open_line(conn, line, by="dan", reason="", now=world.now))


async def _registry(world: World, conn: AsyncConnection) -> None:
    desk, now = world.desk, world.now
    await change(conn, Party("cedar", PartyKind.CLIENT, ENTITY.code), now=now)
    await allow(conn, "cedar", CEDAR_BANK, now=now, chain=BANK)
    await allow(conn, "birch", BIRCH, now=now, chain=BANK)
    await allow(conn, "birch", BIRCH_WALLET, now=now)
    await allow(conn, "cedar", CEDAR_WALLET, now=now)
    await set_standing_instruction(conn, "birch", "EUR", BIRCH, now=now, rail=Rail.BANK)
    for name in CUT_OFFS:
        made = window_of(name)
        signature = operator_keypair("ben").sign(window_bytes(made))
        people = desk.operators
        await set_window(
            conn, made, by=people["ada"], approver=people["ben"], signature=signature, now=now
        )
    for party in CLIENTS:
        given = await assign_address(
            conn, "client-pool", purpose=AddressPurpose.DEPOSIT, party=party, now=now
        )
        world.addresses[party] = given.address
    paths = {account: bank_account_path(account.code) for account, _, _ in MONEY}
    keys = {(path, "EUR") for account, whose, _ in MONEY for path in (paths[account], whose)}
    owners = {path: account.owner for account, path in paths.items()}
    await ensure_accounts(conn, BOOK, keys, owners=owners, now=now)
    lines = [
        transfer(
            *(derive_id(now, "simulation", account.code), paths[account], whose, units, "EUR"),
            code="test.opening",
        )
        for account, whose, units in MONEY
    ]
    require_applied(await post(conn, BOOK, lines, now=now))


def window_of(name: str) -> Window:
    """Return the policy of a window: everything after the affirmation goes by the clock."""
    return Window(
        book=BOOK,
        name=name,
        version=1,
        effective_from=DAY,
        cut_off=CUT_OFFS[name],
        timezone="Europe/London",
        calendars=(Calendar.WEEKDAYS,),
        affirm_minutes=120,
        top_up_minutes=3,
        release_minutes=3,
        reaffirm_minutes=20,
        seals_by_clock=True,
        releases_by_clock=True,
        method=ReleaseMethod.FIFO,
    )


def calm(venue: Purse) -> None:
    """Let the venue behave."""
    venue.trouble, venue.conduct = lambda _: Trouble.NONE, lambda _: Conduct()
