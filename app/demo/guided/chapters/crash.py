"""A crash where the viewer wants it: worker and PostgreSQL are killed there, and everything is paid once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from app.demo.deposits import ACME
from app.demo.founding import CLIENT_POOL
from app.demo.guided.chapter import Chapter
from app.demo.guided.places import outside_of
from app.demo.guided.tour import Tour
from app.demo.guided.worker import Order
from app.demo.proving import drain_outbox
from app.demo.stage import BOOK
from app.faults.edges import ACTS, Kind, Moment, Point, points_of
from app.faults.killing import Doom
from app.faults.marks import mark_edges
from app.faults.postgres_wire import Wire, wired
from app.local.processes import Child, python_module
from app.oracles.run import examine
from custody.banks.payment_files import approval_bytes, approve_file
from custody.banks.payment_model import FileState
from custody.banks.payment_views import list_files
from custody.payout_model import Payout, PayoutRequest, PayoutState
from custody.testing import allow
from kernel.clock import iso
from kernel.errors import OutsideUnavailable
from registry.model import BANK
from registry.queries import get_operator
from registry.testing import BANK_ACCOUNTS, EVM

DESTINATION: Final = 14
"""The outside wallet that is paid."""
PAYEE: Final = "GB82WEST12345698765432|WESTGB22|Acme GmbH"
ETHER, EUROS = "0.5 ETH", "1000 EUR"
MOMENTS: Final = {
    Moment.BEFORE_COMMIT: "just before the commit that says so",
    Moment.AFTER_ACT: "the act is done, its record is not",
    Moment.AFTER_COMMIT: "committed, and nobody has heard of it",
}
ROUNDS_MAX: Final = 5
"""How often two payouts are made, at most, until one takes the step that was picked."""
LOOKS_MAX: Final = 600
PAUSE_S: Final = 0.1
READY_S_MAX: Final = 120.0
"""A worker imports much before it works."""
AWAITING: Final = frozenset({PayoutState.SIGNED, PayoutState.MINED})
"""States of a payout that a block takes further."""
SIGNERS: Final = ("ben", "cleo")
"""Who releases a payment file."""


@dataclass(frozen=True, slots=True)
class Paid:
    """What the outside world has seen.

    Attributes:
        transactions: hashes of the transactions on the chain that pay the destination.
        files: payment files at the bank; *payments*: how often it paid each of their lines.
    """

    transactions: tuple[str, ...]
    files: int
    payments: int


async def a_crash_of_your_choice(tour: Tour) -> None:
    """Pay by chain and bank once unharmed, let the viewer pick a step of it, and crash the next one there."""
    stage = tour.stage
    tour.say(
        "A payout by chain and one by bank pass through many small steps, each a commit. The crash points",
        "are not a list that somebody wrote: they are derived from the state tables. First one payout of",
        "each kind goes through unharmed, and a wire between worker and database notes which steps it takes.",
    )
    await _allow(tour)
    async with _marked(tour), wired(stage.world.owner_url) as wire:
        began = iso(stage.clock.now())
        first = await _start(tour, "worker-1", wire.url, began)
        await _until_paid(tour, await _request(tour, "rehearsal"))
        point = await _pick(tour, wire)
        tour.told.facts["point"] = str(point)
        stage.note(f"the crash point is {point.edge}, {MOMENTS[point.moment]}")
        doom = Doom(point, wire)
        wire.watch = doom.watch
        payouts, before, killed = await _crash_there(tour, doom, first)
        second = await _start(tour, "worker-2", stage.world.owner_url, began)
        stage.note("a new worker starts; starting and recovering are the same code")
        await _until_paid(tour, payouts)
        await asyncio.to_thread(stage.world.processes.stop, second)
    await stage.watcher.turn()
    after = await _paid(tour)
    await drain_outbox(stage)
    report = await examine(stage.world.engine, outside=outside_of(tour))
    tour.exhibit("after the crash", _table(tour, payouts, before, after))
    tour.prove(
        "worker and database died where the viewer wanted it",
        killed,
        f"{point.edge}, {point.moment}",
    )
    tour.prove(
        "one transaction is on the chain",
        len(after.transactions) - len(before.transactions) == 1,
        after.transactions[-1],
    )
    tour.prove(
        "one file is at the bank, and it paid once",
        (after.files - before.files, after.payments - before.payments) == (1, 1),
        f"{EUROS} to {PAYEE.split('|')[2]}",
    )
    tour.prove(
        "every oracle is content",
        report.held,
        f"{len(report.examined)} promises, {sum(one.examined for one in report.examined)} rows looked at"
        if report.held
        else str(report.findings[0]),
    )
    await tour.prove_places()


async def _allow(tour: Tour) -> None:
    await tour.allow(ACME, tour.stage.world.outsiders.address(DESTINATION))
    now = tour.stage.clock.now()
    await tour.stage.do(partial(allow, party=ACME, address=PAYEE, now=now, chain=BANK))


@contextlib.asynccontextmanager
async def _marked(tour: Tour) -> AsyncIterator[None]:
    """Have the database say which edges a transaction takes, for as long as the chapter plays."""
    await mark_edges(tour.stage.world.owner_url)
    try:
        yield
    finally:
        async with tour.insider() as connection:
            for function in ("causeway_mark", "causeway_mark_step"):
                await connection.execute(f"DROP FUNCTION kernel.{function} CASCADE")


async def _start(tour: Tour, name: str, url: str, began: str) -> Child:
    world = tour.stage.world
    assert world.bank is not None, "a guided world has a bank"
    order = Order(
        url=url,
        evm_url=world.evm_url,
        network_id=world.outsiders.chain_id,
        socket=str(tour.signer.socket),
        bank_url=str(world.bank["url"]),
        inbox=str(world.folder / "bank" / "out"),
        began=began,
        holder=name,
    )
    path = world.folder / f"{name}.json"
    path.write_text(order.to_json())
    spec = python_module(
        name, "app.demo.guided.worker", str(path), ready_timeout_seconds=READY_S_MAX
    )
    return await asyncio.to_thread(world.processes.start, spec)


async def _request(tour: Tour, reference: str) -> list[Payout]:
    """Ask for a payout by chain and one by bank, and approve both."""
    stage = tour.stage
    by_chain = PayoutRequest(
        client_ref=f"{reference}-chain",
        claim=f"client:{ACME}",
        source_wallet=CLIENT_POOL,
        asset="ETH",
        amount=stage.units(ETHER),
        destination=stage.world.outsiders.address(DESTINATION),
        requested_by="dan",
        reason="asked for by acme",
    )
    by_bank = PayoutRequest(
        client_ref=f"{reference}-bank",
        claim=f"client:{ACME}",
        source_wallet=BANK_ACCOUNTS[0].code,
        asset="EUR",
        amount=stage.units(EUROS),
        destination=PAYEE,
        requested_by="dan",
        reason="asked for by acme",
        rail=BANK,
    )
    made = [await stage.approve(await stage.request(item), "ben") for item in (by_chain, by_bank)]
    stage.note(f"{ETHER} by chain and {EUROS} by bank are requested and approved ({reference})")
    return made


async def _pick(tour: Tour, wire: Wire) -> Point:
    """Let the viewer choose among the steps that the rehearsal took, then the moment."""
    edges = sorted(wire.taken)
    texts = [f"{edge}{'  ← ' + ACTS[edge] if edge in ACTS else ''}" for edge in edges]
    tour.say(f"It took {len(edges)} kinds of steps. Kill worker and PostgreSQL at which of them?")
    chosen = edges[await tour.teller.choose("the step", texts, tour.chance.randrange(len(edges)))]
    offered = [point for point in points_of(chosen) if point.kind is Kind.WORKER_KILLED]
    moments = [MOMENTS[point.moment] for point in offered]
    return offered[
        await tour.teller.choose("the moment", moments, tour.chance.randrange(len(offered)))
    ]


async def _crash_there(tour: Tour, doom: Doom, worker: Child) -> tuple[list[Payout], Paid, bool]:
    """Pay until the step that was picked is taken.

    Returns:
        The payouts that took it, what the outside had seen before, and whether worker and PostgreSQL died.
    """
    number = 1
    while True:
        before = await _paid(tour)
        payouts = await _request(tour, f"crash-{number}")
        killed = await _crash(tour, payouts, doom, worker)
        if killed or doom.struck.is_set() or number == ROUNDS_MAX:
            return payouts, before, killed
        # For one, a bank's statement that comes before its acceptance leaves that step out.
        tour.stage.note("both were paid, and took another way this time: once more")
        number += 1


async def _crash(tour: Tour, payouts: Sequence[Payout], doom: Doom, worker: Child) -> bool:
    """Wait for the strike, kill PostgreSQL as well, and start it again; tell whether both died."""
    stage = tour.stage
    for _ in range(LOOKS_MAX):
        if doom.struck.is_set():
            break
        await _outside_goes_on(tour, payouts)
        if await _are_paid(tour, payouts):
            return False
        await asyncio.sleep(PAUSE_S)
    code = await asyncio.to_thread(worker.process.wait)
    stage.note(f"kill -9 of the worker: exit {code}", f"process {worker.pid}")
    server = stage.world.server
    await stage.world.engine.dispose()
    if server is None:
        async with tour.insider() as connection:
            ended = await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        stage.note(f"the database is not ours to kill: its {ended} sessions are ended")
        return code == -signal.SIGKILL
    dead = server.pid
    os.kill(dead, signal.SIGKILL)
    await asyncio.to_thread(server.restart_if_dead)
    stage.note("kill -9 of PostgreSQL; it starts again and recovers", f"{dead} → {server.pid}")
    return code == -signal.SIGKILL and server.pid != dead


async def _until_paid(tour: Tour, payouts: Sequence[Payout]) -> None:
    """Let people, miners and the bank do their part until every payout is confirmed.

    Raises:
        OutsideUnavailable: it takes too long.
    """
    for _ in range(LOOKS_MAX):
        if await _are_paid(tour, payouts):
            return
        await _outside_goes_on(tour, payouts)
        await asyncio.sleep(PAUSE_S)
    found = [await tour.stage.find(item) for item in payouts]
    raise OutsideUnavailable(
        "the payouts are not confirmed: "
        + ", ".join(f"{item.client_ref} is {item.state} {item.waiting_for}" for item in found)
    )


async def _are_paid(tour: Tour, payouts: Sequence[Payout]) -> bool:
    states = {(await tour.stage.find(item)).state for item in payouts}
    return states == {PayoutState.CONFIRMED}


async def _outside_goes_on(tour: Tour, payouts: Sequence[Payout]) -> None:
    """Make a block where one is awaited, release drafted files, and end the bank's day if it has work."""
    stage = tour.stage
    states = [(await stage.find(item)).state for item in payouts if item.chain == EVM]
    if any(state in AWAITING for state in states):
        await stage.world.outsiders.mine()
    await stage.do(partial(_release_files, tour))
    if (await asyncio.to_thread(tour.bank.state))["waiting"]:
        await tour.at_bank("end-of-day", days=1)


async def _release_files(tour: Tour, conn: AsyncConnection) -> None:
    for file in await list_files(conn, book=BOOK):
        if file.state is FileState.DRAFTED:
            for code in SIGNERS:
                await approve_file(
                    conn,
                    file.id,
                    by=await get_operator(conn, code),
                    signature=tour.stage.sign(code, approval_bytes(file)),
                    now=tour.stage.clock.now(),
                )


async def _paid(tour: Tour) -> Paid:
    """Ask chain and bank themselves."""
    out = tour.stage.world.outsiders
    to = out.address(DESTINATION)
    hashes = []
    for height in range(await out.height() + 1):
        block = await out.call("eth_getBlockByNumber", hex(height), True)
        hashes += [
            str(tx["hash"])
            for tx in block["transactions"]
            if (tx["to"] or "").lower() == to.lower()
        ]
    state = await asyncio.to_thread(tour.bank.state)
    return Paid(tuple(hashes), len(state["messages"]), sum(state["paid"].values()))


def _table(tour: Tour, payouts: Sequence[Payout], before: Paid, after: Paid) -> Table:
    del tour
    table = Table.grid(padding=(0, 3))
    table.add_row("", "asked for", "at the outside", style="dim")
    for payout in payouts:
        by_bank = payout.rail == BANK
        count = (
            after.files - before.files
            if by_bank
            else len(after.transactions) - len(before.transactions)
        )
        what = "file at the bank" if by_bank else "transaction on the chain"
        table.add_row(payout.client_ref, "1 payout", f"[bold]{count}[/] {what}")
    return table


CHAPTER: Final = Chapter(
    "crash",
    "A crash of your choice",
    "What if it dies exactly there?",
    a_crash_of_your_choice,
)
