"""What compliance may find and decide: addresses that turn out bad, holds, releases, what is given back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Final

from custody.bitcoin.testing import CHAIN as COIN_CHAIN
from custody.bitcoin.testing import POOL
from custody.compliance import people
from custody.compliance.decisions import (
    hold,
    lift_legal_hold,
    place_legal_hold,
    refund,
    release,
)
from custody.compliance.model import Case, CaseState, LegalHold, LegalHoldState, Subject
from custody.compliance.store import list_cases, list_legal_holds
from registry.testing import operator_keypair
from tests.settlement.desk import BOOK
from tests.simulation.coins import PAYEES
from tests.simulation.stepping import Step, judged
from tests.simulation.world import CLIENTS, WALLETS, World

REASON: Final = "we have looked"
TWO: Final = ("ada", "cleo")
"""Not ben: whoever gives back asks for a payout, and cannot approve it."""


def signed(payload: bytes, codes: Sequence[str]) -> dict[str, bytes]:
    """Return the signatures of some people."""
    return {code: operator_keypair(code).sign(payload) for code in codes}


async def cases(world: World, *states: CaseState) -> list[Case]:
    """Return the cases in some states, the oldest first."""
    return await world.do(lambda conn: list_cases(conn, states=states))


async def screener(world: World, random: Random) -> str:
    """Whoever screens goes away, or comes back."""
    world.screener.is_away = random.random() < 0.3
    return "away" if world.screener.is_away else "there"


async def learn(world: World, random: Random) -> str:
    """A sender, now and then a payee, turns out bad, or nobody can say yet; some turn out well again."""
    known, listed, silent = world.screener, set(world.screener.listed), set(world.screener.silent)
    gateway = world.desk.gateway
    senders = sorted(
        item.sender
        for block in gateway.transactions[-8:]
        for item in block
        if item.hash in world.deposits
    )
    if listed and random.random() < 0.4:
        listed = set(random.sample(sorted(listed), len(listed) // 2))
    elif senders and random.random() < 0.8:
        (listed if random.random() < 0.7 else silent).add(random.choice(senders))
    else:
        listed.add(random.choice([WALLETS[random.choice(CLIENTS)], *PAYEES["acme"]]))
    if random.random() < 0.5:
        silent = set()
    known.learn(listed, silent)
    return f"version {known.number}: {len(listed)} listed, {len(silent)} unknown"


async def hold_back(world: World, random: Random) -> str:
    """One person holds something back."""
    found = await cases(world, CaseState.OPEN, CaseState.CLEARED, CaseState.RELEASED)
    if not found:
        return "no cases"
    case = random.choice(found[-8:])
    signatures = signed(people.case_bytes(people.HOLD_VERB, case, REASON), ["dan"])
    given = partial(hold, subject_id=case.id, signatures=signatures, reason=REASON, now=world.now)
    return f"{case.subject} {case.party}: {await judged(lambda: world.do(given))}"


async def let_go(world: World, random: Random) -> str:
    """Two people let go what is held, or give a deposit back."""
    found = await cases(world, CaseState.HELD)
    if not found:
        return "nothing is held"
    case = random.choice(found)
    if case.subject is Subject.DEPOSIT and case.party in CLIENTS and random.random() < 0.4:
        return f"refund to {case.party}: {await judged(partial(_refund, world, case))}"
    return f"release {case.subject} {case.party}: {await judged(partial(_release, world, case))}"


async def _release(world: World, case: Case) -> None:
    signatures = signed(people.case_bytes(people.RELEASE_VERB, case, REASON), TWO)
    given = partial(
        release,
        subject_id=case.id,
        signatures=signatures,
        reason=REASON,
        book=BOOK,
        now=world.now,
    )
    await world.do(given)


async def _refund(world: World, case: Case) -> None:
    party = str(case.party)
    if case.chain == COIN_CHAIN:
        destination, wallet = PAYEES[party][0], POOL
    else:
        destination, wallet = WALLETS[party], "client-pool"
    payload = people.refund_bytes(case, REASON, destination=destination, wallet=wallet)
    given = partial(
        refund,
        subject_id=case.id,
        destination=destination,
        source_wallet=wallet,
        signatures=signed(payload, TWO),
        reason=REASON,
        book=BOOK,
        now=world.now,
    )
    await world.do(given)


async def stop_client(world: World, random: Random) -> str:
    """An authority stops a client."""
    party, order = random.choice(CLIENTS), f"order-{world.number()}"
    payload = people.legal_hold_bytes(people.LEGAL_HOLD_VERB, party, order, REASON)
    given = partial(
        place_legal_hold,
        party=party,
        order=order,
        signatures=signed(payload, ["dan"]),
        reason=REASON,
        now=world.now,
    )
    return f"{party} {order}: {await judged(lambda: world.do(given))}"


async def lift(world: World, random: Random | None = None) -> str:
    """Two people lift what authorities have ordered."""
    del random
    found = await world.do(lambda conn: list_legal_holds(conn, state=LegalHoldState.PLACED))
    for one in found:
        await judged(partial(_lift, world, one))
    return f"{len(found)} lifted"


async def _lift(world: World, one: LegalHold) -> None:
    signatures = signed(people.lift_bytes(one, REASON), TWO)
    given = partial(
        lift_legal_hold, hold_id=one.id, signatures=signatures, reason=REASON, now=world.now
    )
    await world.do(given)


async def look_after_cases(world: World) -> None:
    """Lift every order, and let go everything that is held."""
    await lift(world)
    for case in await cases(world, CaseState.HELD):
        await judged(partial(_release, world, case))


STEPS: Final = (
    Step("screener", 1, screener),
    Step("learn", 2, learn),
    Step("hold back", 2, hold_back),
    Step("let go", 4, let_go),
    Step("stop client", 1, stop_client),
    Step("lift", 2, lift),
)
