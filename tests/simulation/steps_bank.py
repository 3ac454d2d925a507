"""What may happen at the bank, and what people do about it: refused, brought back, late, twice, spoiled."""

from __future__ import annotations

import hashlib
from functools import partial
from random import Random
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from banks.submission import Outcome
from custody.banks import payment_store
from custody.banks.entry_model import BankFileState
from custody.banks.importing import dismiss_file
from custody.banks.payment_model import FileState, PaymentFile
from custody.banks.payment_release import (
    AGAIN_VERB,
    NEVER_VERB,
    decide_held,
    decision_bytes,
    hold_file,
)
from custody.banks.statements import list_bank_files
from custody.payout_model import PayoutRequest
from registry.model import BANK
from registry.testing import EUR, operator_keypair
from settlement.matching.by_hand import Share, match_by_hand, match_bytes
from settlement.matching.model import Incoming
from settlement.matching.posting import list_awaited, list_matchable
from settlement.model import Instruction, InstructionState, RunState
from settlement.queries import list_run_instructions, list_runs
from settlement.release import reschedule
from tests.settlement.desk import BOOK
from tests.simulation.stepping import DONE, Step, ask, judged
from tests.simulation.world import CEDAR_BANK, CLIENTS_EUR, OURS, Answer, World
from trading.terms.model import Rail

DOOR_ANSWERS: Final = (
    Answer(arrives=False, heard=Outcome.UNKNOWN),
    Answer(arrives=True, heard=Outcome.UNKNOWN),
    Answer(arrives=False, heard=Outcome.REFUSED),
)
STATEMENT_FAULTS: Final = ("gap", "duplicate_statement", "truncated_statement", "bad_xml")
PAYMENT_FAULTS: Final = ("refused", "returned")
CREDIT_FAULTS: Final = ("short", "late", "wrong_reference", "duplicate", "reversed_credit")
THE_BANK_SAYS_NO: Final = hashlib.sha256(b"a letter of the bank").hexdigest()


async def sign_files(world: World, random: Random) -> str:
    """Two people sign the payment files that wait."""
    del random
    return f"{await world.sign_files()} files"


async def end_bank_day(world: World, random: Random) -> str:
    """The bank ends its day where the calendar's has ended: payments leave, statements come."""
    del random
    if world.bank.today >= world.now.date():
        return "not yet"
    return f"{len(world.bank.execute({'verb': 'end-of-day'}))} statements"


async def trouble_bank(world: World, random: Random) -> str:
    """The bank does not answer, refuses, brings back, or spoils what it sends."""
    match random.choice(["door", "door", "statement", "payment", "payment", "credit"]):
        case "door":
            answer = random.choice(DOOR_ANSWERS)
            world.door.answers.append(answer)
            return f"{answer}"
        case "statement":
            kind = random.choice(STATEMENT_FAULTS)
        case "payment":
            kind = random.choice(PAYMENT_FAULTS)
        case _:
            kind = random.choice(CREDIT_FAULTS)
    world.bank.execute({"verb": "fault", "kind": kind})
    return kind


async def charge(world: World, random: Random) -> str:
    """The bank takes a charge, or pays interest."""
    verb, units = random.choice(["charge", "interest"]), random.randrange(1, 5_000)
    account = random.choice([OURS, CLIENTS_EUR]) if verb == "interest" else OURS
    world.bank.execute({"verb": verb, "account": account.iban, "amount": units})
    return f"{verb} {units} {account.code}"


async def deliver_late(world: World, random: Random) -> str:
    """What the bank kept back comes."""
    del random
    return f"{len(world.bank.execute({'verb': 'deliver'}))} files"


async def withdraw(world: World, random: Random) -> str:
    """A client wants euros out."""
    many = 10**9 if random.random() < 0.05 else 10**6
    request = PayoutRequest(
        client_ref=f"e-{world.number()}",
        claim="client:cedar",
        source_wallet=CLIENTS_EUR.code,
        asset=EUR.code,
        amount=random.randrange(1, many),
        destination=CEDAR_BANK,
        requested_by="dan",
        rail=BANK,
    )
    said = [await judged(ask(world, request)) for _ in range(1 + (random.random() < 0.2))]
    return f"{request.client_ref} {request.amount}: {' '.join(said)}"


async def stop_file(world: World, random: Random) -> str:
    """Somebody wants a payment file stopped that may be at the bank already."""
    states = {FileState.RELEASED, FileState.UNKNOWN, FileState.SUBMITTED}
    found = [file for file in await _files(world) if file.state in states]
    if not found:
        return "none is out"
    file, by = random.choice(found), world.desk.operators["dan"]
    held = partial(hold_file, file_id=file.id, by=by, reason="wrong payee?", now=world.now)
    return f"{file.message_id[:8]}: {await judged(lambda: world.do(held))}"


async def decide_files(world: World, random: Random | None = None) -> str:
    """Two people decide about files on hold: never only where the bank truly has none of it."""
    said = []
    for file in await _files(world):
        if file.state is FileState.HELD:
            has_it = file.message_id in world.bank.messages
            verb = AGAIN_VERB if has_it or random is None or random.random() < 0.5 else NEVER_VERB
            said.append(await judged(partial(_decide, world, file, verb)))
    return " ".join(said) or "none is on hold"


async def _decide(world: World, file: PaymentFile, verb: str) -> None:
    payload = decision_bytes(verb, file, THE_BANK_SAYS_NO, "they called")
    signatures = {code: operator_keypair(code).sign(payload) for code in ("ben", "cleo")}
    decided = partial(
        decide_held,
        file_id=file.id,
        verb=verb,
        signatures=signatures,
        evidence=THE_BANK_SAYS_NO,
        reason="they called",
        now=world.now,
    )
    await world.do(decided)


async def _files(world: World) -> list[PaymentFile]:
    return await world.do(lambda conn: payment_store.list_files(conn, book=BOOK))


async def pay_again(world: World, random: Random | None = None) -> str:
    """The treasurer begins the next attempt of payments that have failed."""
    del random

    async def read(conn: AsyncConnection) -> list[Instruction]:
        runs = await list_runs(conn, BOOK, {RunState.RELEASED})
        found = [await list_run_instructions(conn, run.id) for run in runs]
        return [i for items in found for i in items if i.state is InstructionState.FAILED]

    failed = await world.do(read)
    by, now = world.desk.operators["ada"], world.now
    for item in failed:
        again = partial(
            reschedule,
            run_id=item.run_id,
            instruction_id=item.id,
            by=by,
            reason="it came to nothing",
            now=now,
        )
        await judged(partial(world.do, again))
    return f"{len(failed)} have failed"


async def match_strays(world: World, random: Random | None = None) -> str:
    """Two people say what credits pay which name nothing that is awaited."""
    del random

    async def read(conn: AsyncConnection) -> tuple[list[Incoming], list[Instruction]]:
        return (
            await list_matchable(conn, BOOK, by_people=True),
            await list_awaited(conn, BOOK),
        )

    strays, awaited = await world.do(read)
    waiting = [item for item in awaited if item.rail is Rail.BANK]
    matched = 0
    for stray in [item for item in strays if item.rail is Rail.BANK]:
        if not waiting:
            break
        item = waiting.pop(0)
        share = Share(instruction_id=item.id, amount=min(stray.value, item.remaining))
        matched += await judged(partial(_match, world, stray, share)) == DONE
    return f"{matched} of {len(strays)}"


async def _match(world: World, stray: Incoming, share: Share) -> None:
    people, reason = world.desk.operators, "the party told us"
    signature = operator_keypair("cleo").sign(match_bytes(stray, [share], reason))
    given = partial(
        match_by_hand,
        receipt_id=stray.id,
        shares=[share],
        book=BOOK,
        by=people["ada"],
        second=people["cleo"],
        signature=signature,
        reason=reason,
        now=world.now,
    )
    await world.do(given)


async def dismiss_files(world: World, random: Random | None = None) -> str:
    """Somebody says that a file which nobody could read stays out: a good copy came, or will."""
    del random

    async def dismiss(conn: AsyncConnection) -> int:
        found = await list_bank_files(conn, state=BankFileState.QUARANTINED)
        for file in found:
            await dismiss_file(conn, file.id, by="dan", reason="a copy came", now=world.now)
        return len(found)

    return f"{await world.do(dismiss)} files"


async def look_after_bank(world: World) -> None:
    """Do whatever people owe the bank's part of the house."""
    for act in (decide_files, pay_again, match_strays, dismiss_files):
        await act(world)


STEPS: Final = (
    Step("sign files", 3, sign_files),
    Step("bank day", 4, end_bank_day),
    Step("bank trouble", 3, trouble_bank),
    Step("bank late", 1, deliver_late),
    Step("bank charge", 1, charge),
    Step("euros out", 2, withdraw),
    Step("stop file", 1, stop_file),
    Step("decide files", 1, decide_files),
    Step("pay again", 1, pay_again),
    Step("match strays", 1, match_strays),
    Step("dismiss files", 1, dismiss_files),
)
