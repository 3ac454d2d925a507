"""A guard taken out: in a copy of the house, on a fork of its chain, a client is paid twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.demo.deposits import ACME
from app.demo.founding import (
    BLOCKED,
    CLIENT_POOL,
    CONFIRMATIONS,
    DEPTH,
    house_seed,
    signer_rules,
)
from app.demo.guided.chapter import Chapter
from app.demo.guided.copies import Copy, copied
from app.demo.guided.tour import Tour
from app.demo.stage import BOOK
from app.demo.world import SIGNER_COPY
from app.workers.watcher import Watcher
from chain.evm.gateway import EvmGateway
from custody.compliance.address_list import AddressList
from custody.payout_model import Payout, PayoutRequest, PayoutState
from custody.payouts import get_payout, request_payout
from custody.policy import ConfirmationPolicy
from custody.signer_sync import adopt_signer
from custody.testing import allow, approve
from kernel.db import transact
from kernel.errors import OutsideUnavailable
from registry.testing import EVM

DESTINATION: Final = 13
"""The outside wallet that is paid."""
AMOUNT: Final = "1 ETH"
GUARD: Final = "a party's reference is of one payout"
TAKE_OUT: Final = (
    "ALTER TABLE custody.payout DROP CONSTRAINT uq_payout_book_claim_client_ref",
    "DROP INDEX custody.uq_payout_party_ref",
)
"""Both halves of the guard: by claim and by party."""
WAITING: Final = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'"
)
POLL_S: Final = 0.02
POLLS_MAX: Final = 500
TURNS_MAX: Final = 20


async def a_guard_is_taken_out(tour: Tour) -> None:
    """Ask for one payout twice at once, with the guard and without, and look at the chain."""
    stage = tour.stage
    tour.say(
        "A client's program asks for 1 ETH, hears nothing, and asks again: two requests in the same",
        "moment, one reference. One unique index stands between that and two payments. Here it is taken",
        "out, in a copy of the database, with a signer of the copy's own, on a fork of the chain.",
    )
    async with forked(tour):
        signer = await stage.world.start_signer(
            signer_rules(stage.world.outsiders.chain_id, stage.world.outsiders.token),
            house_seed(stage.world.seed),
            name=SIGNER_COPY,
        )
        async with (
            copied(tour) as copy,
            tour.insider(copy.name) as connection,
            EvmGateway(
                stage.world.evm_url, chain=EVM, network_id=stage.world.outsiders.chain_id
            ) as gateway,
        ):
            now = stage.clock.now()
            key = (await signer.health()).verifier_key
            address = stage.world.outsiders.address(DESTINATION)
            await transact(copy.engine, partial(adopt_signer, verifier_key=key, now=now))
            await transact(copy.engine, partial(allow, party=ACME, address=address, now=now))
            watcher = Watcher(
                engine=copy.engine,
                gateway=gateway,
                signer=signer,
                clock=stage.clock,
                chain=EVM,
                book=BOOK,
                policy=ConfirmationPolicy.uniform(DEPTH),
                payout_requirement=CONFIRMATIONS,
                screening=AddressList.blocking(1, {BLOCKED}),
            )
            guarded = await _ask_twice(tour, copy, connection, "guarded")
            stage.note(f"with the guard both requests get the same payout: {len(guarded)}")
            for statement in TAKE_OUT:
                await connection.execute(statement)
            stage.note(f"taken out, in the copy: {GUARD}")
            unguarded = await _ask_twice(tour, copy, connection, "unguarded")
            stage.note(f"without it each request makes a payout of its own: {len(unguarded)}")
            before = await _held(tour)
            hashes = await _pay(tour, copy.engine, watcher, [*unguarded])
            gained = await _held(tour) - before
        stage.note(
            f"one request, paid {len(hashes)} times: {stage.money(gained, 'ETH')} are gone",
            " and ".join(hashes),
        )
    await stage.watcher.turn()
    held = await _held(tour)
    tour.prove(
        "with the guard, two requests at once make one payout",
        len(guarded) == 1,
        f"{len(guarded)} payout for 2 requests",
    )
    tour.prove(
        "without it the chain pays twice: the guard is what prevents it, and nothing else",
        len(unguarded) == len(hashes) == 2 and gained == 2 * stage.units(AMOUNT),
        f"2 transactions, {stage.money(gained, 'ETH')} instead of {AMOUNT}",
    )
    tour.prove(
        "the house itself was not touched",
        held == before,
        "copy dropped, fork forgotten",
    )
    await tour.prove_places()


@contextlib.asynccontextmanager
async def forked(tour: Tour) -> AsyncIterator[None]:
    """Let blocks be made that the chain forgets at the end."""
    out = tour.stage.world.outsiders
    mark = await out.call("evm_snapshot")
    try:
        yield
    finally:
        await out.call("evm_revert", mark)


async def _ask_twice(
    tour: Tour, copy: Copy, connection: asyncpg.Connection, reference: str
) -> dict[object, Payout]:
    """Ask twice for the same, the second time while the first is not committed; return payouts by id."""
    clock = tour.stage.clock
    request = PayoutRequest(
        client_ref=reference,
        claim=f"client:{ACME}",
        source_wallet=CLIENT_POOL,
        asset="ETH",
        amount=tour.stage.units(AMOUNT),
        destination=tour.stage.world.outsiders.address(DESTINATION),
        requested_by="dan",
        reason="asked for by acme",
    )
    second_waits = asyncio.Event()

    async def first(conn: AsyncConnection) -> Payout:
        made = await request_payout(conn, request, book=BOOK, now=clock.now())
        begun.set()
        await second_waits.wait()
        return made

    async def second(conn: AsyncConnection) -> Payout:
        return await request_payout(conn, request, book=BOOK, now=clock.now())

    begun = asyncio.Event()
    async with asyncio.TaskGroup() as both:
        one = both.create_task(transact(copy.engine, first))
        await begun.wait()
        other = both.create_task(transact(copy.engine, second))
        for _ in range(POLLS_MAX):
            if other.done() or await connection.fetchval(WAITING, copy.name):
                break
            await asyncio.sleep(POLL_S)
        second_waits.set()
    return {payout.id: payout for payout in (one.result(), other.result())}


async def _pay(
    tour: Tour, engine: AsyncEngine, watcher: Watcher, ids: Sequence[object]
) -> list[str]:
    """Approve the payouts under one signature and follow them to the chain; return their hashes."""

    async def read(conn: AsyncConnection) -> list[Payout]:
        return [await get_payout(conn, item) for item in ids]  # type: ignore[arg-type]

    payouts = await transact(engine, read)
    await transact(engine, partial(approve, payouts=payouts, now=tour.stage.clock.now()))
    for _ in range(TURNS_MAX):
        await watcher.turn()
        payouts = await transact(engine, read)
        if all(item.state is PayoutState.CONFIRMED for item in payouts):
            return [str(item.tx_hash) for item in payouts]
        await tour.stage.world.outsiders.mine()
    states = ", ".join(f"{item.state} {item.waiting_for}" for item in payouts)
    raise OutsideUnavailable(f"the payouts of the copy are {states}")


async def _held(tour: Tour) -> int:
    out = tour.stage.world.outsiders
    return int(await out.call("eth_getBalance", out.address(DESTINATION), "latest"), 16)


CHAPTER: Final = Chapter(
    "guard",
    "A guard is taken out",
    "Which line of all this keeps a client from being paid twice?",
    a_guard_is_taken_out,
)
