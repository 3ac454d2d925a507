"""Chapter 6: the books are proven against themselves, the chain and the venue."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import orjson

from app.demo.coins import compare
from app.demo.deposits import ACME, ACME_WALLET
from app.demo.desk import SYMBOL, Room
from app.demo.stage import BOOK, Stage
from app.demo.world import EVENTS_FILE
from custody.addresses import list_addresses
from custody.model import AddressPurpose
from kernel.errors import Refused
from kernel.events import Delivery, relay
from registry.testing import EVM
from reporting.gather import Examination, examine
from reporting.model import ExpectedHold
from settlement.holding import PURPOSE
from settlement.queries import list_held_instructions
from trading.venue_reconciliation import reconcile_account


async def leave_one_deposit_open(stage: Stage) -> None:
    """Let acme pay in once more, and stop before it is deep enough: a hold for the proofs."""
    ours = await stage.do(partial(list_addresses, chain=EVM))
    address = next(
        a.address for a in ours if a.party == ACME and a.purpose is AddressPurpose.DEPOSIT
    )
    sent = await stage.world.outsiders.send_ether(ACME_WALLET, address, stage.units("0.25 ETH"))
    await stage.mine_and_follow()
    stage.note("acme's next 0.25 ETH are included and wait for confirmations", sent.tx_hash)


async def prove(stage: Stage, room: Room) -> Examination:
    """Deliver every event, then compare the books with everything there is."""
    await drain_outbox(stage)
    stage.note("every event is delivered", str(stage.world.folder / EVENTS_FILE))
    examination = await look(stage, room)
    held = sum(proof.held for proof in examination.proofs)
    stage.note(f"{held} of {len(examination.proofs)} proofs hold")
    return examination


async def look(stage: Stage, room: Room) -> Examination:
    """Examine the books and the outside, changing nothing."""
    engine = stage.world.engine
    at_venue = await reconcile_account(engine, room.gateway, [SYMBOL], book=BOOK, clock=stage.clock)
    if not at_venue.balances:
        raise Refused("the venue account trades while it is compared")
    instructions = await stage.do(partial(list_held_instructions, book=BOOK))
    return await examine(
        engine,
        stage.gateway,
        EVM,
        book=BOOK,
        venues=at_venue.balances,
        other_wallets=await compare(stage),
        other_holds=[ExpectedHold(i.id, PURPOSE, i.asset, i.amount) for i in instructions],
    )


async def drain_outbox(stage: Stage) -> int:
    """Relay events to a file, one JSON object a line, until none is left; return how many."""
    path = stage.world.folder / EVENTS_FILE

    async def deliver(batch: Sequence[Delivery]) -> None:
        append_events(path, batch)

    total = 0
    while True:
        count = await relay(stage.world.engine, deliver, holder="demo", now=stage.clock.now())
        if count == 0:
            return total
        total += count


def append_events(path: Path, batch: Sequence[Delivery]) -> None:
    """Append *batch* and return once it is on the disk; a consumer drops duplicates by id."""
    with path.open("ab") as stream:
        for item in batch:
            line = {
                "id": str(item.id),
                "type": item.type,
                "aggregate": f"{item.aggregate_type}/{item.aggregate_id}",
                "payload": item.payload,
            }
            stream.write(orjson.dumps(line) + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
