"""Payouts through a bank: files written, signed, handed over, answered, booked and returned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks.payment_files import discard_file
from custody.banks.payment_model import FileState, PaymentFile
from custody.banks.payment_release import AGAIN_VERB, NEVER_VERB, hold_file
from custody.banks.payment_views import list_files
from custody.banks.payment_worker import LEASE
from custody.payout_model import Payout, PayoutState
from custody.payouts import expire_payouts
from ledger.verification import verify
from registry.queries import get_operator
from tests.crash.matrix.stage import Journey, Stage
from tests.custody.banks.pay_world import BOOK, World, entry, make_world, status_report
from tests.custody.banks.test_pay_outcomes import REFUSED, UNKNOWN, _decide

Play = Callable[[World], Awaitable[None]]

AMOUNT: Final = 10_050


async def drafted(world: World) -> PaymentFile:
    """The newest file, written by the worker if there is none that waits."""
    await world.advance()
    return (await newest(world))[-1]


async def newest(world: World) -> list[PaymentFile]:
    found = await world.run(lambda conn: list_files(conn, book=BOOK))
    return sorted(found, key=lambda file: file.id)


async def signed(world: World) -> PaymentFile:
    file = await drafted(world)
    await world.sign_file(file.id, "ben")
    return await world.sign_file(file.id, "cleo")


async def handed_over(world: World) -> tuple[Payout, PaymentFile]:
    payout = await world.approved()
    file = await signed(world)
    await world.advance()
    return await world.get(payout), await world.file(file.id)


async def booked(world: World) -> None:
    payout, _ = await handed_over(world)
    await world.book(entry(payout, -AMOUNT))
    assert (await world.get(payout)).state is PayoutState.CONFIRMED


async def accepted_and_booked(world: World) -> None:
    payout, file = await handed_over(world)
    await world.report(status_report(file, "", (payout.id.hex, "ACSP", "G000")))
    await world.book(entry(payout, -AMOUNT))


async def accepted_and_refused(world: World) -> None:
    payout, file = await handed_over(world)
    await world.report(status_report(file, "", (payout.id.hex, "ACSP", "G000")))
    await world.report(status_report(file, "PART", (payout.id.hex, "RJCT", "AM04")))


async def returned(world: World) -> None:
    payout, _ = await handed_over(world)
    await world.book(entry(payout, -AMOUNT))
    await world.book(entry(payout, AMOUNT, number=2, return_reason="AC04"))


async def unknown_then_taken(world: World) -> None:
    world.door.answers = [UNKNOWN, UNKNOWN]
    payout, _ = await handed_over(world)
    for _ in range(3):
        await world.advance()
    await world.book(entry(payout, -AMOUNT))
    assert len(set(world.door.copies)) == 1


async def rejected(world: World) -> None:
    payout, file = await handed_over(world)
    await world.report(status_report(file, "RJCT"))
    # Of a file that went out more than once a rejection may be of one copy only: people look.
    copies = (await world.file(file.id)).submissions
    state = (await world.get(payout)).state
    assert state is (PayoutState.REFUSED if copies == 1 else PayoutState.SIGNED)


async def refused_and_said_again(world: World) -> None:
    world.door.answers = [REFUSED]
    payout, file = await handed_over(world)
    if (await world.file(file.id)).state is FileState.HELD:
        await _decide(world, file, AGAIN_VERB, "ben", "cleo")
    await world.advance()
    await world.book(entry(payout, -AMOUNT))


async def refused_and_never_paid(world: World) -> None:
    world.door.answers = [REFUSED]
    payout, file = await handed_over(world)
    if (await world.file(file.id)).state is FileState.HELD:
        await _decide(world, file, NEVER_VERB, "ben", "cleo")
        assert (await world.get(payout)).state is PayoutState.REFUSED


async def held_by_a_person(world: World) -> None:
    world.door.answers = [UNKNOWN]
    _, file = await handed_over(world)

    async def hold(conn: AsyncConnection) -> PaymentFile:
        dan = await get_operator(conn, "dan")
        return await hold_file(conn, file.id, by=dan, reason="wrong payee?", now=world.now)

    if (await world.file(file.id)).state is FileState.UNKNOWN:
        await world.run(hold)


async def refused_in_one_copy_only(world: World) -> None:
    """The bank accepts one copy and refuses another: people look, and then it is booked after all."""
    world.door.answers = [UNKNOWN]
    payout, file = await handed_over(world)
    await world.advance()
    await world.report(status_report(file, "", (payout.id.hex, "ACSP", "G000")))
    await world.report(status_report(file, "PART", (payout.id.hex, "RJCT", "AM04")))
    assert (await world.file(file.id)).state is FileState.HELD
    await booked_after_all(world, payout, file)


async def refused_at_the_door_and_accepted(world: World) -> None:
    """The door did not take it, and the bank speaks of it all the same: it has it."""
    world.door.answers = [REFUSED]
    payout, file = await handed_over(world)
    await world.report(status_report(file, "", (payout.id.hex, "ACSP", "G000")))
    assert (await world.file(file.id)).state is FileState.SUBMITTED
    await booked_after_all(world, payout, file)


async def booked_without_an_answer(world: World) -> None:
    world.door.answers = [UNKNOWN]
    payout, file = await handed_over(world)
    await booked_after_all(world, payout, file)


async def booked_before_it_is_said_again(world: World) -> None:
    """Two people say it again; before the worker does, the first copy is booked."""
    world.door.answers = [REFUSED]
    payout, file = await handed_over(world)
    if (await world.file(file.id)).state is FileState.HELD:
        await _decide(world, file, AGAIN_VERB, "ben", "cleo")
    await booked_after_all(world, payout, file)


async def booked_after_all(world: World, payout: Payout, file: PaymentFile) -> None:
    before = len(world.door.copies)
    await world.book(entry(payout, -AMOUNT))
    assert (await world.get(payout)).state is PayoutState.CONFIRMED
    assert (await world.file(file.id)).state is FileState.CLOSED
    await world.advance()
    assert len(world.door.copies) == before


async def discarded(world: World, *, approved: bool) -> None:
    payout = await world.approved()
    file = await (signed(world) if approved else drafted(world))

    async def end(conn: AsyncConnection) -> PaymentFile:
        dan = await get_operator(conn, "dan")
        return await discard_file(conn, file.id, by=dan, reason="wrong day", now=world.now)

    await world.run(end)
    again = await signed(world)
    assert again.id != file.id
    await world.advance()
    await world.book(entry(await world.get(payout), -AMOUNT))


async def lapsed(world: World, *, approved: bool) -> None:
    payout = await world.approved(expires_at=world.now + timedelta(hours=1))
    await (signed(world) if approved else drafted(world))
    world.clock.advance(timedelta(hours=2))
    await world.advance()
    await world.run(lambda conn: expire_payouts(conn, book=BOOK, now=world.now))
    assert (await world.get(payout)).state is PayoutState.EXPIRED
    assert world.door.copies == []


async def play(story: Play, stage: Stage) -> Any:
    mortal = stage.mortal
    world = await make_world(mortal.engine)
    mortal.make_mortal(stage.patch, World, "advance")
    mortal.make_asking_mortal(stage.patch, World, "run")
    mortal.pass_lease = partial(world.clock.advance, LEASE + timedelta(seconds=1))
    mortal.rename = partial(setattr, world, "worker")
    await story(world)
    # However often a file was handed over, it was the same bytes under the same name.
    names = [name for name, _ in world.door.copies]
    assert len(set(world.door.copies)) == len(set(names))
    assert not await verify(mortal.direct, BOOK)
    return None


STORIES: Final[dict[str, Play]] = {
    "booked": booked,
    "accepted and booked": accepted_and_booked,
    "accepted and refused": accepted_and_refused,
    "returned": returned,
    "unknown, then taken": unknown_then_taken,
    "rejected": rejected,
    "refused and said again": refused_and_said_again,
    "refused and never paid": refused_and_never_paid,
    "refused in one copy only": refused_in_one_copy_only,
    "refused at the door, accepted by the bank": refused_at_the_door_and_accepted,
    "booked without an answer": booked_without_an_answer,
    "booked before it is said again": booked_before_it_is_said_again,
    "held by a person": held_by_a_person,
    "discarded as a draft": partial(discarded, approved=False),
    "discarded with its approvals": partial(discarded, approved=True),
    "lapsed as a draft": partial(lapsed, approved=False),
    "lapsed with its approvals": partial(lapsed, approved=True),
}
JOURNEYS: Final = tuple(
    Journey("payout-bank", name, partial(play, story)) for name, story in STORIES.items()
)
