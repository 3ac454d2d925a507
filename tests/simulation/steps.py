"""What may happen in a day, one thing at a time: each step draws from the day's seed and says what it did."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from random import Random
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.errors import NodeUnavailable
from custody.payout_model import Payout, PayoutRequest, PayoutState
from custody.payout_replace import cancel_by_conflict, cancel_bytes, prepare_bump
from custody.payouts import cancel_payout, reject_payout
from custody.testing import approve
from kernel.money import Price
from registry.testing import ETH, EUR, USDT, operator_keypair
from settlement.disputes import dispute, resolve_dispute
from settlement.matching.references import reference_of
from settlement.model import Direction, Instruction, InstructionState, RunState
from settlement.queries import get_calculation, list_run_instructions, list_runs
from tests.settlement.desk import BOOK
from tests.simulation.stepping import DONE, Step, ask, judged, payouts, runs_of
from tests.simulation.world import BIRCH_IBAN, CLIENTS, OURS, WALLETS, World
from trading.deals import amend_deal, book_deal, cancel_deal, list_deals
from trading.model import DealRequest, DealSide, DealState
from trading.terms.model import Rail

CHAIN: Final = "evm"
DEPTHS: Final = (1, 1, 1, 2, 2, 3, 6)
"""Of reorganisations; what is so deep was credited and paid out against."""
WAITS: Final = (5, 60, 300, 900, 1_800, 3_600, 7_200)
"""Seconds that pass at once."""


# Time and the chain.


async def wait(world: World, random: Random) -> str:
    """Time passes, mostly little."""
    seconds = random.choice(WAITS)
    world.clock.advance(timedelta(seconds=seconds))
    return f"{seconds} s"


async def mine(world: World, random: Random) -> str:
    """Blocks are mined: with what waits, or without."""
    blocks, empty = random.randrange(1, 4), random.random() < 0.15
    for _ in range(blocks):
        if empty:
            world.desk.gateway.mine()
        else:
            world.desk.gateway.mine_pool()
        world.clock.advance(timedelta(seconds=12))
    return f"{blocks} {'empty' if empty else 'full'}"


async def reorg(world: World, random: Random) -> str:
    """The newest blocks are replaced; what was in them waits again, or is mined at once."""
    gateway = world.desk.gateway
    depth = random.choice(DEPTHS)
    if random.random() < 0.5:
        # Just so deep that something vanishes, where a block of the newest has anything.
        newest = gateway.transactions[-max(DEPTHS) :][::-1]
        depth = next((n for n, found in enumerate(newest, 1) if found), depth)
    depth = min(depth, len(gateway.blocks) - 1)
    if not depth:
        return "nothing is mined"
    back = gateway.reorg(depth, [()] * (depth - 1))
    for _ in range(1 + random.randrange(2)):
        if random.random() < 0.5:
            gateway.mine_pool()
        else:
            gateway.mine()
    return f"{depth} deep, {len(back)} back"


async def drop(world: World, random: Random) -> str:
    """A transaction of ours vanishes from the pool; it may be sent again."""
    gateway, others = world.desk.gateway, world.sent | world.vault.paid
    ours = sorted(gateway.pool - others)
    if not ours:
        return "nothing waits"
    chosen = random.choice(ours)
    gateway.drop(chosen)
    return chosen[:10]


async def trouble_node(world: World, random: Random) -> str:
    """The node fails, lags, or loses what it is sent."""
    gateway, count = world.desk.gateway, random.randrange(1, 3)
    kind = random.choice(["faults", "lag", "lose", "refuse"])
    match kind:
        case "faults":
            gateway.faults.extend([NodeUnavailable("down")] * count)
        case "lag":
            gateway.lag = count
        case "lose":
            gateway.lose_broadcasts += count
        case _:
            gateway.refuse_broadcasts += count
    return f"{kind} {count}"


async def mend_node(world: World, random: Random) -> str:
    """The node is well again."""
    del random
    gateway = world.desk.gateway
    gateway.faults.clear()
    gateway.lag = gateway.lose_broadcasts = gateway.refuse_broadcasts = 0
    return "well"


async def trouble_signer(world: World, random: Random) -> str:
    """The signer goes away, or comes back."""
    world.signer.down = random.random() < 0.4
    return "down" if world.signer.down else "up"


# Clients.


async def deposit(world: World, random: Random) -> str:
    """A client pays in."""
    party = random.choice(CLIENTS)
    asset = random.choice(["ETH", "USDT"])
    amount = random.randrange(1, 10**6) * (10**12 if asset == "ETH" else 10**3)
    made = world.send(world.addresses[party], amount, asset)
    world.deposits[made.hash] = (party, asset, amount)
    return f"{party} {amount} {asset}"


async def withdraw(world: World, random: Random) -> str:
    """A client wants something out; the same request may come twice."""
    party = random.choice(CLIENTS)
    asset = random.choice(["ETH", "USDT"])
    unit = 10**12 if asset == "ETH" else 10**3
    many = 10**9 if random.random() < 0.05 else 10**6
    request = PayoutRequest(
        client_ref=f"w-{world.number()}",
        claim=f"client:{party}",
        source_wallet="client-pool",
        asset=asset,
        amount=random.randrange(1, many) * unit,
        destination=WALLETS[party],
        requested_by="dan",
    )
    said = [await judged(ask(world, request)) for _ in range(1 + (random.random() < 0.2))]
    return f"{request.client_ref} {party} {request.amount} {asset}: {' '.join(said)}"


async def approve_some(world: World, random: Random) -> str:
    """An approver signs for what waits; now and then says no, or who asked takes it back."""
    waiting = await payouts(world, PayoutState.PENDING_APPROVAL)
    if not waiting:
        return "nothing waits"
    chosen = random.sample(waiting, random.randrange(1, len(waiting) + 1))
    clients = [item for item in chosen if item.claim.startswith("client:")]
    if clients and random.random() < 0.25:
        return await _say_no(world, random, clients[0])
    await world.do(lambda conn: approve(conn, chosen, now=world.now, by="ben"))
    return f"{len(chosen)} of {len(waiting)}"


async def _say_no(world: World, random: Random, item: Payout) -> str:
    if random.random() < 0.5:
        by, verb = world.desk.operators["ben"], reject_payout
    else:
        by, verb = world.desk.operators["dan"], cancel_payout
    given = partial(verb, payout_id=item.id, by=by, reason="not now", book=BOOK, now=world.now)
    return f"{verb.__name__} {item.client_ref}: {await judged(lambda: world.do(given))}"


async def cancel_late(world: World, random: Random) -> str:
    """Who asked for a payout wants it back, though it may be on its way."""
    live = await payouts(world, PayoutState.APPROVED, PayoutState.PENDING_APPROVAL)
    mine = [item for item in live if item.claim.startswith("client:")]
    if not mine:
        return "nothing to take back"
    return await _say_no(world, random, random.choice(mine))


async def hurry(world: World, random: Random) -> str:
    """An operator offers more for a payout that waits for a block."""
    waiting = await payouts(world, PayoutState.SIGNED, PayoutState.CANCELLING, chain=CHAIN)
    if not waiting:
        return "nothing waits for a block"
    item = random.choice(waiting)
    by = world.desk.operators["ada"]

    async def bump() -> None:
        write = await prepare_bump(
            *(world.engine, world.desk.gateway, item.id), by=by, reason="late", clock=world.clock
        )
        await world.do(write)

    return f"{item.client_ref}: {await judged(bump)}"


async def stop_on_chain(world: World, random: Random) -> str:
    """Two people want a payout back that was sent: a spend of its nonce competes with it."""
    waiting = await payouts(world, PayoutState.SIGNED, chain=CHAIN)
    chosen = [item for item in waiting if item.claim.startswith("client:")]
    if not chosen:
        return "nothing waits for a block"
    item, reason = random.choice(chosen), "changed their mind"
    signed = cancel_bytes(item.id, reason)
    signatures = {code: operator_keypair(code).sign(signed) for code in ("ben", "cleo")}

    async def cancel() -> None:
        await cancel_by_conflict(
            *(world.engine, world.desk.gateway, item.id),
            signatures=signatures,
            reason=reason,
            clock=world.clock,
        )

    return f"{item.client_ref}: {await judged(cancel)}"


async def move_own(world: World, random: Random) -> str:
    """The treasury moves coins of the house's into the clients' wallet."""
    asset = random.choice(["ETH", "USDT"])
    request = PayoutRequest(
        client_ref=f"o-{world.number()}",
        claim="own:client-pool",
        source_wallet="house-hot",
        asset=asset,
        amount=random.randrange(1, 10**6) * (10**12 if asset == "ETH" else 10**3),
        destination=world.desk.hot["client-pool"],
        requested_by="dan",
    )
    return f"{request.client_ref} {request.amount} {asset}: {await judged(ask(world, request))}"


# The desk and its counterparties.


def a_deal(world: World, random: Random) -> DealRequest:
    """Return a deal with one of the parties."""
    party = random.choice(["acme", "acme", "birch", "cedar"])
    quote = EUR if party == "birch" else USDT
    return DealRequest(
        client_ref=f"d-{world.number()}",
        desk="otc",
        party=party,
        side=random.choice(list(DealSide)),
        base=ETH,
        quote=quote,
        base_units=random.randrange(1, 5 * 10**4) * 10**14,
        price=Price.parse("3000", ETH, quote),
        value_date=world.business_day(),
        booked_by="dan",
        reason="simulation",
    )


async def deal(world: World, random: Random) -> str:
    """A deal is agreed."""
    asked = a_deal(world, random)
    said = await judged(
        lambda: world.do(partial(book_deal, request=asked, book=BOOK, now=world.now))
    )
    return f"{asked.client_ref} {asked.party} {asked.side} {asked.base_units}: {said}"


async def change_deal(world: World, random: Random) -> str:
    """A deal is amended or cancelled: possible only before it settles."""
    found = await world.do(partial(list_deals, book=BOOK, states=(DealState.BOOKED,)))
    if not found:
        return "no deals"
    chosen = random.choice(found)
    if random.random() < 0.5:
        taken = partial(cancel_deal, deal_id=chosen.id, by="dan", reason="", now=world.now)
        return f"cancel {chosen.request.client_ref}: {await judged(lambda: world.do(taken))}"
    other = a_deal(world, random)
    changed = partial(amend_deal, deal_id=chosen.id, replacement=other, now=world.now)
    return f"amend {chosen.request.client_ref}: {await judged(lambda: world.do(changed))}"


async def affirm(world: World, random: Random) -> str:
    """The parties of a run agree to it."""
    runs = await world.do(partial(list_runs, book=BOOK, states={RunState.CALCULATED}))
    if not runs:
        return "nothing calculated"
    chosen = random.choice(runs)
    return await judged(lambda: world.desk.affirm_all(chosen.id))


async def dispute_one(world: World, random: Random) -> str:
    """One obligation of a run is disputed; the rest is calculated anew."""
    runs = await runs_of(world, RunState.CALCULATED)
    if not runs:
        return "nothing calculated"
    run = random.choice(runs)
    found = await world.do(lambda conn: get_calculation(conn, run.id, run.version))
    chosen = random.choice(sorted(key for item in found.items for key in item.obligations))
    by = world.desk.operators["dan"]
    said = partial(
        dispute, run_id=run.id, obligation_ids=[chosen], by=by, reason="wrong", now=world.now
    )
    word = await judged(lambda: world.do(said))
    if word == DONE:
        world.disputed.append((run.id, chosen))
    return word


async def settle_dispute(world: World, random: Random) -> str:
    """A dispute ends, and what was disputed is owed again."""
    del random
    if not world.disputed:
        return "no dispute"
    run_id, obligation_id = world.disputed.pop(0)
    await world.do(
        partial(
            resolve_dispute,
            run_id=run_id,
            obligation_id=obligation_id,
            by=world.desk.operators["ada"],
            reason="it was right",
            now=world.now,
        )
    )
    return DONE


async def party_pays(world: World, random: Random) -> str:
    """A party pays what it owes: all of it, too little, or twice."""
    owing = await receivables(world)
    if not owing:
        return "nobody owes"
    item = random.choice(owing)
    left = item.amount - world.paid.get(item.id, 0)
    kind = random.choice(["all", "all", "all", "short", "twice"])
    amount = max(1, left // 2) if kind == "short" else left
    for _ in range(2 if kind == "twice" else 1):
        pay(world, item, amount)
    return f"{item.party} {kind} {amount} {item.asset}"


def pay(world: World, item: Instruction, amount: int) -> None:
    """Let the party of an instruction pay by the instruction's rail."""
    world.paid[item.id] = world.paid.get(item.id, 0) + amount
    if item.rail is Rail.BANK:
        world.bank.execute(
            {
                "verb": "credit",
                "account": OURS.iban,
                "amount": amount,
                "end_to_end": reference_of(item.id),
                "name": "Birch Trading BV",
                "iban": BIRCH_IBAN,
            }
        )
    else:
        world.send(world.desk.settlement[item.party], amount, item.asset)


STEPS: Final = (
    Step("wait", 10, wait),
    Step("mine", 14, mine),
    Step("reorg", 5, reorg),
    Step("drop", 2, drop),
    Step("node trouble", 3, trouble_node),
    Step("node mended", 3, mend_node),
    Step("signer", 2, trouble_signer),
    Step("deposit", 6, deposit),
    Step("withdraw", 5, withdraw),
    Step("approve", 6, approve_some),
    Step("cancel", 1, cancel_late),
    Step("hurry", 2, hurry),
    Step("stop on chain", 1, stop_on_chain),
    Step("own transfer", 1, move_own),
    Step("deal", 6, deal),
    Step("change deal", 2, change_deal),
    Step("affirm", 5, affirm),
    Step("dispute", 1, dispute_one),
    Step("dispute over", 1, settle_dispute),
    Step("party pays", 5, party_pays),
)


# What steps look at.


async def receivables(world: World) -> list[Instruction]:
    """Return what parties are to pay from outside and have not paid in full."""
    return [
        item
        for item in await _awaited(world)
        if item.rail is not Rail.BOOK and world.paid.get(item.id, 0) < item.amount
    ]


async def chase(world: World) -> None:
    """Let parties pay again through the bank what they have paid and never arrived.

    That is so where nothing moves between two looks, and the bank has nothing more to tell.
    """
    left = {item.id: item.remaining for item in await _awaited(world) if item.rail is Rail.BANK}
    is_told = world.taken_in >= world.bank.files.keys() and not any(
        account.later for account in world.bank.accounts.values()
    )
    if is_told:
        for item in await _awaited(world):
            if item.rail is Rail.BANK and world.short.get(item.id) == item.remaining:
                pay(world, item, item.remaining)
    world.short = left if is_told else {}


async def _awaited(world: World) -> list[Instruction]:
    """Return what parties are to pay now."""

    async def read(conn: AsyncConnection) -> list[Instruction]:
        found: list[Instruction] = []
        for run in await list_runs(conn, BOOK, {RunState.RELEASED}):
            found += await list_run_instructions(conn, run.id)
        return found

    return [
        item
        for item in await world.do(read)
        if item.direction is Direction.RECEIVE and item.state is InstructionState.RELEASED
    ]
