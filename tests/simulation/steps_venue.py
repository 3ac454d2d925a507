"""What may happen at the venue: its orders go wrong, and coins go to it and come from it."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from random import Random
from typing import Final

from custody.venues import store
from custody.venues.decisions import decide_escalated, decision_bytes
from custody.venues.deposits import send_to_venue
from custody.venues.model import VenueWithdrawal, WithdrawalRequest, WithdrawalState
from custody.venues.withdrawals import (
    approval_bytes,
    approve_withdrawal,
    cancel_withdrawal,
    reject_withdrawal,
    request_withdrawal,
)
from registry.testing import ETH, operator_keypair
from tests.settlement.desk import BOOK
from tests.simulation.stepping import Step, judged
from tests.simulation.treasury import FEES, PLACE
from tests.simulation.world import World, calm
from venues.testing import AT_ONCE, Call, Conduct, Trouble
from venues.treasury_testing import Answer

PLACE_TROUBLES: Final = (
    *[Trouble.NONE] * 4,
    *[Trouble.LOST_ANSWER] * 3,
    *[Trouble.LOST_REQUEST] * 2,
    Trouble.LATE_REQUEST,
    Trouble.REFUSED,
    Trouble.BACK_OFF,
)
ASK_TROUBLES: Final = (*[Trouble.NONE] * 8, Trouble.LOST_ANSWER, Trouble.STALE)
SECOND: Final = timedelta(seconds=1)
CONDUCTS: Final = (
    Conduct(),
    Conduct(trades=((AT_ONCE, 40),), ends_after=SECOND / 1_000),
    Conduct(trades=(), ends_after=SECOND / 1_000),
    Conduct(trades=((AT_ONCE, 30), (2 * SECOND, 70))),
    Conduct(trades=((SECOND, 50),), ends_after=2 * SECOND),
)
WALLET: Final = "house-hot"


async def trouble_venue(world: World, random: Random) -> str:
    """The venue loses requests and answers for a while, or behaves."""
    if random.random() < 0.5:
        world.venue.trouble = lambda call: random.choice(
            PLACE_TROUBLES if call is Call.PLACE else ASK_TROUBLES
        )
        world.venue.conduct = lambda _: random.choice(CONDUCTS)
        return "faults"
    calm(world.venue)
    return "well"


async def trouble_vault(world: World, random: Random) -> str:
    """The venue's treasury goes away or comes back; its next answers may be lost."""
    vault = world.vault
    vault.down = random.random() < 0.3
    vault.answers.append(random.choice(list(Answer)))
    return f"{'down' if vault.down else 'up'}, then {vault.answers[-1].name}"


def an_amount(random: Random) -> tuple[str, int]:
    """Return an asset that the venue takes, and how much of it."""
    asset = random.choice(sorted(FEES))
    return asset, random.randrange(1, 10**5) * (10**14 if asset == ETH.code else 10**5)


async def bring(world: World, random: Random) -> str:
    """The treasury brings coins to the venue."""
    asset, amount = an_amount(random)
    reference = f"to-{world.number()}"

    async def send() -> None:
        await send_to_venue(
            *(world.engine, world.vault),
            client_ref=reference,
            source_wallet=WALLET,
            asset=asset,
            amount=amount,
            requested_by="dan",
            book=BOOK,
            clock=world.clock,
        )

    return f"{reference} {amount} {asset}: {await judged(send)}"


async def fetch(world: World, random: Random) -> str:
    """The treasury takes coins out of the venue; the same request may come twice."""
    asset, amount = an_amount(random)
    request = WithdrawalRequest(
        client_ref=f"from-{world.number()}",
        place=PLACE,
        wallet=WALLET,
        asset=asset,
        amount=amount + FEES[asset],
        requested_by="dan",
    )

    async def ask() -> None:
        (offered,) = await world.vault.networks(asset)
        given = {"request": request, "offered": offered, "book": BOOK, "now": world.now}
        await world.do(partial(request_withdrawal, **given))  # type: ignore[arg-type]

    said = [await judged(ask) for _ in range(1 + (random.random() < 0.2))]
    return f"{request.client_ref} {request.amount} {asset}: {' '.join(said)}"


async def withdrawals(world: World, *states: WithdrawalState) -> list[VenueWithdrawal]:
    """Return what is to come from the venue, in some states."""
    return await world.do(lambda conn: store.list_withdrawals(conn, book=BOOK, states=states))


async def say(world: World, random: Random) -> str:
    """An approver says yes or no to what is to come from the venue, or who asked takes it back."""
    waiting = await withdrawals(world, WithdrawalState.PENDING_APPROVAL, WithdrawalState.APPROVED)
    if not waiting:
        return "nothing waits"
    item = random.choice(waiting)
    if random.random() < 0.8:
        return f"{item.client_ref}: {await judged(partial(approve, world, item))}"
    by, verb = random.choice([("ben", reject_withdrawal), ("dan", cancel_withdrawal)])
    no = partial(verb, withdrawal_id=item.id, by=by, reason="not now", now=world.now)
    return f"{verb.__name__} {item.client_ref}: {await judged(lambda: world.do(no))}"


async def approve(world: World, item: VenueWithdrawal) -> None:
    """Let an approver sign for a withdrawal."""
    signature = operator_keypair("ben").sign(approval_bytes(item))
    given = {"withdrawal_id": item.id, "by": "ben", "signature": signature, "now": world.now}
    await world.do(partial(approve_withdrawal, **given))  # type: ignore[arg-type]


async def serve(world: World, random: Random) -> str:
    """The venue pays a withdrawal or gives it back, and credits what lies deep on the chain."""
    vault, done = world.vault, ""
    if vault.processing:
        chosen = random.choice(vault.processing)
        if random.random() < 0.2:
            vault.fail(chosen)
            done = f"gave {chosen} back, "
        else:
            done = f"paid {chosen} with {vault.send(world.desk.gateway, chosen)[:10]}, "
    return f"{done}credited {vault.credit(world.desk.gateway)}"


async def decide(world: World, random: Random | None = None) -> str:
    """Two people say what became of withdrawals that no evidence tells of: the venue told them."""
    del random
    found = await withdrawals(world, WithdrawalState.ESCALATED)
    said = [await judged(partial(_decide, world, item)) for item in found]
    return " ".join(said) or "nothing is escalated"


async def _decide(world: World, item: VenueWithdrawal) -> None:
    ref, reason = world.vault.ref_of(item.withdrawal_id), "the venue told us"
    payload = decision_bytes(item, ref, reason)
    first, second = ((code, operator_keypair(code).sign(payload)) for code in ("ada", "ben"))
    decided = partial(
        decide_escalated,
        withdrawal_id=item.id,
        venue_ref=ref,
        reason=reason,
        first=first,
        second=second,
        now=world.now,
    )
    await world.do(decided)


async def look_after_venue(world: World) -> None:
    """Do whatever people, and the venue's, owe transfers."""
    for item in await withdrawals(world, WithdrawalState.PENDING_APPROVAL):
        await judged(partial(approve, world, item))
    await decide(world)
    for ref in world.vault.processing:
        world.vault.send(world.desk.gateway, ref)
    world.vault.credit(world.desk.gateway)


STEPS: Final = (
    Step("venue trouble", 2, trouble_venue),
    Step("vault trouble", 2, trouble_vault),
    Step("to the venue", 2, bring),
    Step("from the venue", 3, fetch),
    Step("say to venue", 3, say),
    Step("venue serves", 4, serve),
    Step("decide", 1, decide),
)
