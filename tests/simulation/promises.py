"""What must hold: at any moment of a day, and when everything has come to rest.

What is compared here is the books with the outside's own truth, which only a simulation knows. Each
check returns what is wrong, in words; nothing is right.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.oracles.catalogue import JOURNAL, ORACLES
from app.oracles.outside import BankView, EvmView, Outside, VenueView
from app.oracles.run import examine
from custody.deposit_model import Deposit, DepositState
from custody.deposits import list_deposits
from custody.payout_model import Payout, PayoutState
from custody.payout_store import list_attempts
from custody.payouts import every_payout
from ledger.model import TrialBalanceRow
from ledger.queries import list_open_holds, trial_balance
from matching.model import Side
from registry.testing import ETH, TOKEN
from settlement.model import Direction, Instruction, InstructionState, RunState
from settlement.queries import list_run_instructions, list_runs
from tests.settlement.desk import ASSETS, BOOK
from tests.simulation.world import CAPITAL, CLIENTS, LINE, OURS, World
from trading.deals import list_deals
from trading.model import DealSide, DealState
from trading.position import position
from trading.terms.model import Rail
from venues.fills import list_fills
from venues.testing import GRID

Balances = dict[tuple[str, str], TrialBalanceRow]

OVER: Final = frozenset(
    {
        PayoutState.CONFIRMED,
        PayoutState.REJECTED,
        PayoutState.CANCELLED,
        PayoutState.EXPIRED,
        PayoutState.FAILED_ON_CHAIN,
        PayoutState.REFUSED,
    }
)
RUNS_OVER: Final = frozenset({RunState.FINAL, RunState.EMPTY, RunState.LAPSED})
ZERO_AT_REST: Final = ("in-flight:", "transit:", "clearing:")
QUICK: Final = tuple(oracle for oracle in ORACLES if oracle is not JOURNAL)
"""What is asked in the middle of a day: the journal is replayed once, at its end."""
LATEST: Final = 1_000
"""Rows that are read of each kind: a day has far fewer."""


async def any_time(world: World, checker: AsyncEngine, told: list[str]) -> list[str]:
    """Return what is broken of what must hold at every moment."""
    report = await examine(checker, oracles=QUICK)
    faults = [*map(str, report.findings)]
    async with checker.connect() as conn:
        faults += await paid_twice(world, conn)
    return [*faults, *order_faults(world), *relay_faults(told)]


async def at_rest(world: World, checker: AsyncEngine, told: list[str]) -> list[str]:
    """Return what is broken when nothing is under way any more."""
    faults = await any_time(world, checker, told)
    report = await examine(checker, outside=outside_of(world), at_rest=True)
    faults += [*map(str, report.findings)]
    faults += [f"{one.oracle.name}: {why}" for one in report.examined for why in one.unknown]
    async with checker.connect() as conn:
        books = {(row.path, row.asset): row for row in await trial_balance(conn, BOOK)}
        faults += await unfinished(world, conn)
        faults += await deposit_faults(world, conn)
        faults += await client_faults(world, conn, books)
        faults += await desk_faults(world, conn)
        faults += [f"open hold: {hold}" for hold in await list_open_holds(conn, BOOK)]
        faults += await undelivered(conn, told)
    faults += [
        f"{path} {asset} is {row.balance}, not zero"
        for (path, asset), row in sorted(books.items())
        if row.balance and path.startswith(ZERO_AT_REST)
    ]
    return [*faults, *wallet_faults(world, books), *bank_faults(world, books)]


# At any moment.


async def paid_twice(world: World, conn: AsyncConnection) -> list[str]:
    """Each payout is on the chain at most once, nothing of ours is there without one, and so at the bank."""
    owners: dict[str, str] = {}
    payouts = await all_payouts(conn)
    for item in payouts:
        for attempt in await list_attempts(conn, item.id):
            if attempt.tx_hash is not None:
                owners[attempt.tx_hash] = str(item.id)
    sent = Counter(owners.get(tx, f"nobody's ({tx})") for tx in ours_on_chain(world))
    faults = [
        f"payout {key} is on the chain {count} times" for key, count in sent.items() if count > 1
    ]
    faults += [f"{key} is on the chain" for key in sent if key.startswith("nobody")]
    faults += [
        f"the bank has paid {key} {count} times"
        for key, count in sorted(world.bank.paid.items())
        if count > 1
    ]
    copies = Counter(name for name, _ in set(world.door.copies))
    return faults + [
        f"payment file {name} has gone out in {count} versions"
        for name, count in copies.items()
        if count > 1
    ]


def order_faults(world: World) -> list[str]:
    """No client order id is at the venue twice."""
    there = Counter(placed.order.client_order_id for placed in world.venue.orders)
    return [f"order {key} was placed {count} times" for key, count in there.items() if count > 1]


def relay_faults(told: list[str]) -> list[str]:
    """Who drops duplicates hears of each entity in order."""
    seen: set[str] = set()
    last: dict[tuple[str, str], int] = {}
    faults = []
    for line in told:
        event = orjson.loads(line)
        if event["id"] in seen:
            continue
        seen.add(event["id"])
        key = (event["entity"], event["entity_id"])
        if event["position"] < last.get(key, 0):
            faults.append(f"event {event['id']} of {key} was told after a later one")
        last[key] = event["position"]
    return faults


# At rest.


async def unfinished(world: World, conn: AsyncConnection) -> list[str]:
    """Return what is still open: payouts, runs, orders of the venue."""
    faults = [
        f"payout {item.client_ref} ({item.claim}, {item.amount} {item.asset}) is {item.state}"
        for item in await all_payouts(conn)
        if item.state not in OVER
    ]
    faults += [
        f"run {run.window} of {run.value_date} is {run.state}"
        for run in await list_runs(conn, BOOK, limit=LATEST)
        if run.state not in RUNS_OVER
    ]
    return faults + [
        f"deal {deal.request.client_ref} with {deal.request.party} is {deal.state}"
        for deal in await list_deals(conn, BOOK, states=(DealState.BOOKED, DealState.SETTLING))
    ]


async def deposit_faults(world: World, conn: AsyncConnection) -> list[str]:
    """Each payment to a client's address is credited once if it is on the chain, and else not at all."""
    credited = Counter(
        item.tx_hash for item in await all_deposits(conn) if item.state is DepositState.CREDITED
    )
    there = {tx for tx in mined(world) if tx in world.deposits}
    faults = [
        f"deposit {tx} ({world.deposits[tx]}) is on the chain and credited {credited[tx]} times"
        for tx in sorted(there)
        if credited[tx] != 1
    ]
    return faults + [
        f"deposit {tx} is credited and not there" for tx in sorted(set(credited) - there)
    ]


async def client_faults(world: World, conn: AsyncConnection, books: Balances) -> list[str]:
    """A client has what it began with, what came in, less what went out, and its settled deals."""
    due: Counter[tuple[str, str]] = Counter()
    for _, credit, units, asset in CAPITAL:
        if credit.startswith("client:"):
            due[credit, asset] += ASSETS[asset].parse(units)
    for tx in mined(world):
        if tx in world.deposits:
            party, asset, amount = world.deposits[tx]
            due[f"client:{party}", asset] += amount
    for item in await all_payouts(conn):
        if item.state is PayoutState.CONFIRMED and item.claim.startswith("client:"):
            due[item.claim, item.asset] -= item.amount
    for settled in await all_instructions(conn):
        if settled.rail is Rail.BOOK and settled.state is InstructionState.FINAL:
            sign = 1 if settled.direction is Direction.PAY else -1
            due[f"client:{settled.party}", settled.asset] += sign * settled.amount
    return [
        f"client:{party} has {held} {asset}, not {due[f'client:{party}', asset]}"
        for party in CLIENTS
        for asset in ("ETH", "USDT")
        if (held := balance(books, f"client:{party}", asset)) != due[f"client:{party}", asset]
    ]


async def desk_faults(world: World, conn: AsyncConnection) -> list[str]:
    """The position is what deals, trades and fees in kind come to, hedged to less than a lot."""
    venue = world.venue
    known = await list_fills(conn, venue.venue, venue.account, "ETHUSDT")
    faults = []
    if sorted(known, key=lambda fill: int(fill.trade_id)) != venue.trades:
        faults.append(f"{len(known)} trades are known, the venue has {len(venue.trades)}")
    traded = sum(
        trade.base_units if trade.side is Side.BUY else -trade.base_units for trade in venue.trades
    )
    fees = sum(trade.fee_units for trade in venue.trades if trade.fee_asset == ETH.code)
    standing = (DealState.BOOKED, DealState.SETTLING, DealState.SETTLED)
    dealt = sum(
        deal.request.base_units * (1 if deal.request.side is DealSide.DESK_BUYS else -1)
        for deal in await list_deals(conn, BOOK, states=standing)
    )
    held = (await position(conn, BOOK, LINE[0])).get(ETH.code, 0)
    if held != dealt + traded - fees:
        faults.append(f"the desk's position is {held}, not {dealt} + {traded} - {fees}")
    if abs(held) >= GRID.lot:
        faults.append(f"the desk is {held} from hedged")
    return faults


def wallet_faults(world: World, books: Balances) -> list[str]:
    """Every wallet holds on the chain what its account says."""
    addresses = {
        "client-pool": [world.desk.hot["client-pool"], *world.addresses.values()],
        "house-hot": [world.desk.hot["house-hot"]],
        "house-settlement": [*world.desk.settlement.values()],
    }
    return [
        f"custody:{wallet} is {said} {asset}, on the chain {held}"
        for wallet, there in addresses.items()
        for asset, contract in (("ETH", None), ("USDT", TOKEN))
        if (said := balance(books, f"custody:{wallet}", asset))
        != (held := sum(world.desk.gateway._balance(one, contract) for one in there))
    ]


def bank_faults(world: World, books: Balances) -> list[str]:
    """The account at the bank holds what the books say."""
    said, held = balance(books, f"bank:{OURS.code}", "EUR"), world.bank.accounts[OURS.iban].balance
    return [] if said == held else [f"bank:{OURS.code} is {said}, at the bank {held}"]


async def undelivered(conn: AsyncConnection, told: list[str]) -> list[str]:
    """Every event that was committed has been told."""
    ids = {orjson.loads(line)["id"] for line in told}
    committed = await conn.scalars(text("SELECT id FROM kernel.outbox"))
    return [f"event {key} was never told" for key in committed if str(key) not in ids]


# What checks look at.


def outside_of(world: World) -> Outside:
    """Return who is asked what is really there."""

    async def balances() -> dict[str, int]:
        return {iban: account.balance for iban, account in world.bank.accounts.items()}

    return Outside(
        chains=[EvmView("evm", world.desk.gateway)],
        venues=[VenueView(world.venue, world.clock)],
        banks=[BankView(balances)],
    )


def balance(books: Balances, path: str, asset: str) -> int:
    """Return the posted balance of an account; of one that is not there, zero."""
    row = books.get((path, asset))
    return row.balance if row else 0


def mined(world: World) -> list[str]:
    """Return the hashes of what is on the chain now."""
    return [tx.hash for block in world.desk.gateway.transactions for tx in block]


def ours_on_chain(world: World) -> list[str]:
    """Return the hashes of what was sent from addresses of ours and is on the chain now."""
    ours = {*world.desk.hot.values(), *world.addresses.values(), *world.desk.settlement.values()}
    return [
        tx.hash for block in world.desk.gateway.transactions for tx in block if tx.sender in ours
    ]


async def all_payouts(conn: AsyncConnection) -> list[Payout]:
    """Return every payout there is."""
    return [item async for item in every_payout(conn, book=BOOK, states={*PayoutState})]


async def all_deposits(conn: AsyncConnection) -> list[Deposit]:
    """Return every deposit there is."""
    found: list[Deposit] = []
    while page := await list_deposits(conn, after=found[-1].id if found else None):
        found += page
    return found


async def all_instructions(conn: AsyncConnection) -> list[Instruction]:
    """Return the instructions of every run."""
    runs = await list_runs(conn, BOOK, limit=LATEST)
    return [item for run in runs for item in await list_run_instructions(conn, run.id)]
