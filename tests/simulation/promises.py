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
from app.oracles.outside import BankView, BitcoinView, EvmView, Outside, VenueView
from app.oracles.run import examine
from chain.bitcoin.blocks import payee_of
from chain.bitcoin.networks import REGTEST
from custody.addresses import list_addresses
from custody.banks.payment_views import list_returned
from custody.bitcoin.testing import CHAIN as COIN_CHAIN
from custody.compliance.model import CaseState
from custody.compliance.store import list_cases
from custody.deposit_model import Deposit, DepositState
from custody.deposits import list_deposits
from custody.payout_model import Payout, PayoutState
from custody.payouts import every_payout
from custody.venues.model import OPEN_WITHDRAWALS, VenueDepositState
from custody.venues.store import list_deposits as list_deposits_to_venue
from custody.venues.store import list_withdrawals
from ledger.model import TrialBalanceRow
from ledger.queries import list_open_holds, trial_balance
from matching.model import Side
from registry.testing import ETH, TOKEN
from settlement.model import Direction, Instruction, InstructionState, ObligationState, RunState
from settlement.queries import every_obligation, list_run_instructions, list_runs
from tests.settlement.desk import ASSETS, BOOK
from tests.simulation.world import CAPITAL, CLIENTS, LINE, MONEY, World
from trading.deals import list_deals
from trading.model import DealOrigin, DealSide, DealState
from trading.position import position
from trading.quotes.model import OPEN_STATES, QuoteState
from trading.quotes.queries import list_quotes
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
NEVER_PAID: Final = OVER - {PayoutState.CONFIRMED}
OWING: Final = frozenset(
    {*ObligationState} - {ObligationState.DISCHARGED, ObligationState.WITHDRAWN}
)
DEALT_WITH: Final = frozenset({DepositState.CREDITED, DepositState.REFUNDED})
RUNS_OVER: Final = frozenset({RunState.FINAL, RunState.EMPTY, RunState.LAPSED})
OWED: Final = ("receivable:", "payable:")
ZERO_AT_REST: Final = ("in-flight:", "transit:", "clearing:")
QUICK: Final = tuple(oracle for oracle in ORACLES if oracle is not JOURNAL)
"""What is asked in the middle of a day: the journal is replayed once, at its end."""
LATEST: Final = 1_000
"""Rows that are read of each kind: a day has far fewer."""


async def any_time(world: World, checker: AsyncEngine, told: list[str]) -> list[str]:
    """Return what is broken of what must hold at every moment."""
    report = await examine(checker, oracles=QUICK)
    return [*map(str, report.findings), *await twice_faults(world, checker, told)]


async def twice_faults(world: World, checker: AsyncEngine, told: list[str]) -> list[str]:
    """Return what the outside has seen more than once, or in another order."""
    async with checker.connect() as conn:
        faults = await paid_twice(world, conn)
    return [*faults, *order_faults(world), *ticket_faults(world), *relay_faults(told)]


async def at_rest(world: World, checker: AsyncEngine, told: list[str]) -> list[str]:
    """Return what is broken when nothing is under way any more."""
    faults = await twice_faults(world, checker, told)
    report = await examine(checker, outside=outside_of(world), at_rest=True)
    faults += [*map(str, report.findings)]
    faults += [f"{one.oracle.name}: {why}" for one in report.examined for why in one.unknown]
    async with checker.connect() as conn:
        books = {(row.path, row.asset): row for row in await trial_balance(conn, BOOK)}
        faults += await unfinished(world, conn)
        faults += await deposit_faults(world, conn)
        faults += coins_unpaid(world, await all_payouts(conn))
        faults += await client_faults(world, conn, books)
        faults += await desk_faults(world, conn)
        faults += await quote_faults(world, conn)
        faults += [f"open hold: {hold}" for hold in await list_open_holds(conn, BOOK)]
        faults += await coin_faults(world, conn, books)
        faults += await undelivered(conn, told)
    faults += [
        f"{path} {asset} is {row.balance}, not zero"
        for (path, asset), row in sorted(books.items())
        if row.balance and path.startswith(ZERO_AT_REST)
    ]
    return [
        *faults,
        *owed_faults(books),
        *wallet_faults(world, books),
        *bank_faults(world, books),
    ]


# At any moment.


async def paid_twice(world: World, conn: AsyncConnection) -> list[str]:
    """Each payout is on the chain at most once, nothing of ours is there without one, and so at the bank."""
    rows = await conn.execute(text("SELECT tx_hash, payout_id FROM custody.payout_attempt"))
    owners = {tx: str(payout_id) for tx, payout_id in rows if tx is not None}
    sent = Counter(owners.get(tx, f"nobody's ({tx})") for tx in ours_on_chain(world))
    faults = [
        f"payout {key} is on the chain {count} times" for key, count in sent.items() if count > 1
    ]
    faults += [f"{key} is on the chain" for key in sent if key.startswith("nobody")]
    faults += coins_paid_twice(world, await all_payouts(conn))
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


def coins_paid_twice(world: World, payouts: list[Payout]) -> list[str]:
    """No payee has the coins of a payout twice, or those of one that came to nothing; each amount is one's own."""
    there = Counter(
        (payee_of(output.script, REGTEST), output.amount)
        for item in world.coins.mined
        for output in item.outputs
    )
    faults = []
    for item in payouts:
        if item.chain == COIN_CHAIN:
            count = there[(item.destination, item.amount)]
            if count > 1 or (count and item.state in NEVER_PAID):
                faults.append(f"payout {item.id}, {item.state}, is on the chain {count} times")
    return faults


def coins_unpaid(world: World, payouts: list[Payout]) -> list[str]:
    """Whoever was paid coins has them."""
    there = {
        (payee_of(output.script, REGTEST), output.amount)
        for item in world.coins.mined
        for output in item.outputs
    }
    return [
        f"payout {item.id} is confirmed and not on the chain"
        for item in payouts
        if item.chain == COIN_CHAIN
        and item.state is PayoutState.CONFIRMED
        and (item.destination, item.amount) not in there
    ]


def order_faults(world: World) -> list[str]:
    """No client order id is at the venue twice."""
    there = Counter(placed.order.client_order_id for placed in world.venue.orders)
    return [f"order {key} was placed {count} times" for key, count in there.items() if count > 1]


def ticket_faults(world: World) -> list[str]:
    """No withdrawal is asked for twice at the venue."""
    there = Counter(ticket.withdrawal_id for ticket in world.vault.requests)
    return [
        f"withdrawal {key} was asked for {count} times" for key, count in there.items() if count > 1
    ]


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
    """Return what is still open: payouts, runs, deals, what is owed."""
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
    faults += [
        f"price {item.request.client_ref} is {item.state}"
        for item in await list_quotes(conn, BOOK, states=OPEN_STATES)
    ]
    faults += [
        f"case of {item.subject} {item.subject_id} is {item.state}"
        for item in await list_cases(conn, states={CaseState.OPEN, CaseState.HELD})
    ]
    faults += [
        f"transfer {item.id} to the venue ({item.amount} {item.asset}) is open"
        for item in await list_deposits_to_venue(conn, book=BOOK, states={VenueDepositState.OPEN})
    ]
    faults += [
        f"withdrawal {item.client_ref} from the venue is {item.state}"
        for item in await list_withdrawals(conn, book=BOOK, states=OPEN_WITHDRAWALS)
    ]
    faults += [
        f"{item.party} and {item.amount} {item.asset} of {item.value_date}: {item.state}"
        async for item in every_obligation(conn, BOOK, OWING)
    ]
    return faults + [
        f"deal {deal.request.client_ref} with {deal.request.party} is {deal.state}"
        for deal in await list_deals(conn, BOOK, states=(DealState.BOOKED, DealState.SETTLING))
    ]


def owed_faults(books: Balances) -> list[str]:
    """Nobody owes anything: what was dealt, and what came back since, is settled."""
    return [
        f"{path} {asset} is {row.balance}, and nothing is open"
        for (path, asset), row in sorted(books.items())
        if row.balance and path.startswith(OWED) and path.endswith((":open", ":netted"))
    ]


async def deposit_faults(world: World, conn: AsyncConnection) -> list[str]:
    """Each payment to a client's address is credited, or given back, once if it is there, and else not."""
    credited = Counter(
        item.tx_hash for item in await all_deposits(conn) if item.state in DEALT_WITH
    )
    paid_in = paid_in_to(world)
    there = {tx for tx in mined(world) if tx in paid_in}
    faults = [
        f"deposit {tx} ({paid_in[tx]}) is on the chain and credited {credited[tx]} times"
        for tx in sorted(there)
        if credited[tx] != 1
    ]
    return faults + [
        f"deposit {tx} is credited and not there" for tx in sorted(set(credited) - there)
    ]


async def client_faults(world: World, conn: AsyncConnection, books: Balances) -> list[str]:
    """A client has what it began with, what came in, less what went out, and its settled deals."""
    due = paid_in_by_clients(world)
    payouts = {item.id: item for item in await all_payouts(conn)}
    for item in payouts.values():
        if item.state is PayoutState.CONFIRMED and item.claim.startswith("client:"):
            due[item.claim.removesuffix(":held"), item.asset] -= item.amount
    for line in await list_returned(conn, BOOK):
        back = payouts[line.payout_id]
        due[back.claim, back.asset] += line.amount
    for settled in await all_instructions(conn):
        if settled.rail is Rail.BOOK and settled.state is InstructionState.FINAL:
            sign = 1 if settled.direction is Direction.PAY else -1
            due[f"client:{settled.party}", settled.asset] += sign * settled.amount
    return [
        f"client:{party} has {held} {asset}, not {due[f'client:{party}', asset]}"
        for party in CLIENTS
        for asset in ("ETH", "USDT", "BTC", "EUR")
        if (held := standing(books, party, asset)) != due[f"client:{party}", asset]
    ]


def standing(books: Balances, party: str, asset: str) -> int:
    """Return what the house owes a client, less what it lost to a reorganisation and owes us since."""
    ours = balance(books, f"receivable:{party}:reorg", asset)
    held = balance(books, f"client:{party}:held", asset)
    return balance(books, f"client:{party}", asset) + held - ours


def paid_in_by_clients(world: World) -> Counter[tuple[str, str]]:
    """Return what clients began with and what is on the chains for them, by account and asset."""
    due: Counter[tuple[str, str]] = Counter()
    for _, credit, amount, asset in CAPITAL:
        due[credit, asset] += ASSETS[asset].parse(amount)
    for account, credit, units in MONEY:
        due[credit, account.asset] += units
    paid_in = paid_in_to(world)
    for tx in mined(world):
        if tx in paid_in:
            party, asset, units = paid_in[tx]
            due[f"client:{party}", asset] += units
    return due


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


async def quote_faults(world: World, conn: AsyncConnection) -> list[str]:
    """Each price that was taken for good is one deal, and whoever was told of a deal has it."""
    booked = Counter(
        item.deal_id for item in await list_quotes(conn, BOOK, states=[QuoteState.BOOKED])
    )
    deals = Counter(
        deal.id
        for deal in await list_deals(conn, BOOK, states=[*DealState])
        if deal.request.origin is DealOrigin.QUOTE
    )
    faults = [f"deal {key} is of {count} prices" for key, count in booked.items() if count > 1]
    faults += [
        f"deal {key} was told of and is not there" for key in sorted(world.dealt - set(deals))
    ]
    if set(booked) - set(deals):
        faults.append(f"prices are taken without a deal: {set(booked) - set(deals)}")
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


async def coin_faults(world: World, conn: AsyncConnection, books: Balances) -> list[str]:
    """The coins of every wallet are what its account says."""
    owners = {item.address: item.wallet for item in await list_addresses(conn, COIN_CHAIN)}
    held: Counter[str] = Counter()
    for coin in (await world.coins.node.scan(sorted(owners))).coins:
        held[owners[coin.address]] += coin.amount
    return [
        f"custody:{wallet} is {said} BTC, its coins come to {held[wallet]}"
        for wallet in sorted({*owners.values()})
        if (said := balance(books, f"custody:{wallet}", "BTC")) != held[wallet]
    ]


def bank_faults(world: World, books: Balances) -> list[str]:
    """The accounts at the bank hold what the books say."""
    return [
        f"bank:{account.code} is {said}, at the bank {held}"
        for account, _, _ in MONEY
        if (said := balance(books, f"bank:{account.code}", account.asset))
        != (held := world.bank.accounts[account.iban].balance)
    ]


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
        chains=[
            EvmView("evm", world.desk.gateway),
            BitcoinView(COIN_CHAIN, world.coins.node),
        ],
        venues=[VenueView(world.venue, world.clock)],
        banks=[BankView(balances)],
    )


def balance(books: Balances, path: str, asset: str) -> int:
    """Return the posted balance of an account; of one that is not there, zero."""
    row = books.get((path, asset))
    return row.balance if row else 0


def paid_in_to(world: World) -> dict[str, tuple[str, str, int]]:
    """Return (party, asset, amount) of every payment to an address of a party's."""
    return {**world.deposits, **world.coins.paid_in}


def mined(world: World) -> list[str]:
    """Return the hashes of what is on the chains now."""
    accounts = [tx.hash for block in world.desk.gateway.transactions for tx in block]
    return accounts + [item.tx_id for item in world.coins.mined]


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
