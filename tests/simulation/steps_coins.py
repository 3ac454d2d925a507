"""What may happen on the chain of coins: paid in, taken back by strangers, paid out for more or not at all."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Final

from chain.bitcoin.transactions import Transaction
from chain.errors import NodeUnavailable
from custody.bitcoin.spend_replace import (
    find_spend,
    prepare_spend_bump,
    prepare_spend_cancellation,
    spend_cancel_bytes,
)
from custody.bitcoin.testing import BTC, CHAIN, HOT, POOL
from custody.payout_model import PayoutRequest, PayoutState
from registry.testing import operator_keypair
from tests.simulation.coins import ELSEWHERE, PAYEES, move_fees
from tests.simulation.stepping import Step, ask, judged, payouts
from tests.simulation.world import CLIENTS, World

DEPTHS: Final = (1, 1, 1, 2, 2, 3, 6)
TAKEN_BACK_MAX: Final = 2
"""Blocks deep, a stranger may take back what it paid: less than what is credited against."""
UNIT: Final = 100_000
"""Satoshi: what is paid out is a multiple of it and a number that no other payout has."""


async def mine(world: World, random: Random) -> str:
    """Blocks are mined: with what waits, or without."""
    node, blocks, empty = world.coins.node, random.randrange(1, 4), random.random() < 0.15
    for _ in range(blocks):
        if empty:
            node.mine()
        else:
            node.mine_pool()
        world.clock.advance(timedelta(minutes=1))
    return f"{blocks} {'empty' if empty else 'full'}"


async def reorg(world: World, random: Random) -> str:
    """The newest blocks are replaced; a stranger may have spent its coin otherwise by then."""
    node = world.coins.node
    depth = random.choice(DEPTHS)
    if random.random() < 0.5:
        newest = node.transactions[-max(DEPTHS) :][::-1]
        depth = next((n for n, found in enumerate(newest, 1) if found), depth)
    depth = min(depth, len(node.blocks) - 1)
    gone = [item for block in node.transactions[-depth:] for item in block]
    paid = [item for item in gone if item.tx_id in world.coins.paid_in]
    others: list[Transaction] = []
    if paid and depth <= TAKEN_BACK_MAX and random.random() < 0.4:
        others = [_taken_back(world, random.choice(paid))]
    back = node.reorg(depth, [others, *[()] * (depth - 1)])
    for _ in range(1 + random.randrange(2)):
        if random.random() < 0.5:
            node.mine_pool()
        else:
            node.mine()
    return f"{depth} deep, {len(back)} back, {len(others)} spent otherwise"


def _taken_back(world: World, paid: Transaction) -> Transaction:
    """Return what spends a stranger's coin in place of a payment to us."""
    amount = sum(item.amount for item in paid.outputs)
    spent = [item.outpoint for item in paid.inputs]
    return world.coins.node.pay((ELSEWHERE, amount), spend=spent)


async def take_back(world: World, random: Random) -> str:
    """A stranger spends its coin otherwise before a block has its payment."""
    node = world.coins.node
    waiting = sorted(node.pool & world.coins.paid_in.keys())
    if not waiting:
        return "nothing waits"
    chosen = random.choice(waiting)
    node.submit(_taken_back(world, node.transaction(chosen)))
    return chosen[:8]


async def drop(world: World, random: Random) -> str:
    """A transaction of ours vanishes from the pool, and what spends it."""
    node = world.coins.node
    ours = sorted(node.pool - world.coins.paid_in.keys())
    if not ours:
        return "nothing waits"
    chosen = random.choice(ours)
    node.drop(chosen)
    return chosen[:8]


async def trouble_node(world: World, random: Random) -> str:
    """The node fails, lags, or loses what it is sent."""
    node, count = world.coins.node, random.randrange(1, 3)
    kind = random.choice(["faults", "lag", "lose", "refuse"])
    match kind:
        case "faults":
            node.faults.extend([NodeUnavailable("down")] * count)
        case "lag":
            node.lag = count
        case "lose":
            node.lose_broadcasts += count
        case _:
            node.refuse_broadcasts += count
    return f"{kind} {count}"


async def mend_node(world: World, random: Random) -> str:
    """The node is well again, and its price another one."""
    world.coins.mend()
    return move_fees(world.coins.node, random)


async def deposit(world: World, random: Random) -> str:
    """A client pays in."""
    party, amount = random.choice(CLIENTS), random.randrange(1, 500) * UNIT
    made = world.coins.deposit(party, amount)
    world.coins.node.submit(made)
    return f"{party} {amount} {made.tx_id[:8]}"


async def withdraw(world: World, random: Random) -> str:
    """A client wants coins out; the same request may come twice."""
    party = random.choice(CLIENTS)
    many = 10**6 if random.random() < 0.05 else 1_000
    number = world.number()
    request = PayoutRequest(
        client_ref=f"c-{number}",
        claim=f"client:{party}",
        source_wallet=POOL,
        asset=BTC.code,
        amount=random.randrange(1, many) * UNIT + number,
        destination=random.choice(PAYEES[party]),
        requested_by="dan",
    )
    said = [await judged(ask(world, request)) for _ in range(1 + (random.random() < 0.2))]
    return f"{request.client_ref} {party} {request.amount}: {' '.join(said)}"


async def move_own(world: World, random: Random) -> str:
    """The treasury moves the house's own coins out of the clients' wallet."""
    number = world.number()
    request = PayoutRequest(
        client_ref=f"oc-{number}",
        claim=f"own:{HOT}",
        source_wallet=POOL,
        asset=BTC.code,
        amount=random.randrange(1, 100) * UNIT + number,
        destination=world.coins.hot,
        requested_by="dan",
    )
    return f"{request.client_ref} {request.amount}: {await judged(ask(world, request))}"


async def hurry(world: World, random: Random) -> str:
    """An operator offers more for the transaction that carries a payout."""
    waiting = await payouts(world, PayoutState.SIGNED, PayoutState.CANCELLING, chain=CHAIN)
    if not waiting:
        return "nothing waits for a block"
    item = random.choice(waiting)

    async def bump() -> None:
        spend = await world.do(lambda conn: find_spend(conn, item.id))
        by = world.desk.operators["ada"]
        write = await prepare_spend_bump(
            *(world.engine, world.coins.node, spend.id), by=by, reason="late", clock=world.clock
        )
        await world.do(write)

    return f"{item.client_ref}: {await judged(bump)}"


async def stop(world: World, random: Random) -> str:
    """Two people want back all that a transaction carries: one that returns it competes with it."""
    waiting = await payouts(world, PayoutState.SIGNED, chain=CHAIN)
    if not waiting:
        return "nothing waits for a block"
    item, reason = random.choice(waiting), "changed their mind"

    async def cancel() -> None:
        spend = await world.do(lambda conn: find_spend(conn, item.id))
        signed = spend_cancel_bytes(spend.id, reason)
        signatures = {code: operator_keypair(code).sign(signed) for code in ("ben", "cleo")}
        write = await prepare_spend_cancellation(
            *(world.engine, world.coins.node, spend.id),
            signatures=signatures,
            reason=reason,
            clock=world.clock,
        )
        await world.do(write)

    return f"{item.client_ref}: {await judged(cancel)}"


STEPS: Final = (
    Step("mine coins", 7, mine),
    Step("reorg coins", 3, reorg),
    Step("coin taken back", 1, take_back),
    Step("drop coins", 1, drop),
    Step("coin node trouble", 2, trouble_node),
    Step("coin node mended", 2, mend_node),
    Step("coin deposit", 3, deposit),
    Step("coin withdrawal", 4, withdraw),
    Step("own coins", 1, move_own),
    Step("hurry coins", 1, hurry),
    Step("stop coins", 1, stop),
)
