"""All workers of one house in one process: what ``causeway up`` runs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.nodes import evm_providers, head_feed
from app.vitals import Vitals, signer_check
from app.workers.alert_loop import open_alerts
from app.workers.bank_loops import bank_loops
from app.workers.bitcoin_loops import bitcoin_loops, open_bitcoin
from app.workers.books_proof import proof_loop, proof_schedule
from app.workers.client_money import ClientMoneyWatch
from app.workers.desk import DeskWorker, desk_worker
from app.workers.house_file import HouseFile
from app.workers.house_parts import (
    REBALANCE_PAUSE,
    USUAL,
    House,
    Rules,
    holder,
    mark,
    nonzero,
    told,
)
from app.workers.loops import Loop, run_loops
from app.workers.market_data import MarketData, open_market_data
from app.workers.relay import relay_loop
from app.workers.restore_loop import restore_loop
from app.workers.scheduler import Ticker
from app.workers.service import ServiceWorker
from app.workers.settlement_loops import cycle_loop, job_loops, settlement_loop
from app.workers.stopping import give_back_leases
from app.workers.treasury import TreasuryWorker
from app.workers.venue_desk import VenueDesk, open_desk
from app.workers.watcher import Watcher
from chain.evm.heads import HeadFeed
from chain.evm.providers import ProviderSet
from chain.model import FollowPolicy
from chain.ports import ChainGateway
from custody.compliance.address_list import NOBODY_LISTED, AddressList
from custody.compliance.travel_rule import NO_TRAVEL_RULE, TravelRule
from custody.policy import ConfirmationPolicy, Requirement
from custody.ports import ControlledSigner
from custody.restore.signing import WitnessedSigner
from custody.signer.client import SignerClient
from kernel.db import transact
from kernel.errors import BadInput, OutsideUnavailable, Refused
from ledger.queries import head
from registry.model import Chain
from registry.queries import get_chain, list_assets, list_entities

VENUE_PAUSE_MIN: Final = timedelta(seconds=2)
"""Between two looks at an account: its stream is quicker, and venues count every question."""

DAY_PAUSE: Final = timedelta(minutes=1)
"""Between two looks whether a new day has begun."""

Turn = Callable[[], Awaitable[Mapping[str, object]]]

STOPS: Final = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger("house")


async def run_house(
    house: House, ready: Callable[[Mapping[str, Any]], None], stop: asyncio.Event
) -> None:
    """Run the workers until *stop* is set; what they leave undone, the next start goes on with.

    Raises:
        Refused: the registry is empty, or does not know the chain or the book.
        OutsideUnavailable: the node does not answer. (Later it may come and go.)
    """
    asyncio.get_running_loop().set_exception_handler(_log_unseen)
    chain, policy = await transact(house.engine, lambda conn: _configured(conn, house.file))
    screening = _screening(house.file)
    travel_rule = await transact(house.engine, lambda conn: _travel_rule(conn, house.file))
    client = SignerClient(house.file.signer_socket)
    signer = WitnessedSigner(house.engine, client, house.clock)
    await _greet(client)
    vitals = house.vitals or Vitals(stop=stop)
    vitals.checks["signer"] = signer_check(client)
    feed = head_feed(house.settings)
    rules = Rules(policy, screening, travel_rule)
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            evm_providers(house.settings, chain, house.evm_url)
        )
        bitcoin = await open_bitcoin(house, stack)
        watcher = _watcher(house, gateway, signer, rules)
        desks = [
            await stack.enter_async_context(
                open_desk(
                    house.engine,
                    section,
                    book=house.file.book,
                    clock=house.clock,
                    chance=house.chance,
                    holder=holder(house, "venues"),
                )
            )
            for section in house.file.venues
        ]
        market = await stack.enter_async_context(
            open_market_data(
                house.engine,
                house.file.market_data,
                house.file.feeds,
                house.file.indexes,
                clock=house.clock,
                chance=house.chance,
            )
        )
        desk = await _desk(house, desks, market)
        alerts = await stack.enter_async_context(
            open_alerts(
                house.engine,
                house.file.alerts,
                book=house.file.book,
                clock=house.clock,
                holder=holder(house, "alerts"),
            )
        )
        loops = [
            restore_loop(house, client, {chain.code: gateway, **bitcoin}, desks),
            *_loops(house, watcher, feed),
            *bitcoin_loops(house, bitcoin, signer, rules),
            *_treasury_loops(house, gateway, chain),
            *_service_loops(house),
            *_venue_loops(house, desks, stop),
            *job_loops(house, desks),
            cycle_loop(house),
            proof_loop(house, stop),
            *bank_loops(
                house.engine,
                house.file.banks,
                book=house.file.book,
                clock=house.clock,
                screening=screening,
                holder=holder(house, "bank"),
                pause=house.file.pause,
            ),
            *market.loops(stop, house.file.pause),
            *([] if desk is None else desk.loops()),
            alerts,
        ]
        ready(
            {
                "ready": True,
                "chain": chain.code,
                "chain_id": chain.network_id,
                "book": house.file.book,
                "loops": [loop.name for loop in loops],
                **({"metrics": market.metrics_url} if market.metrics_url else {}),
                **house.facts,
            }
        )
        # What start-up has loaded is never garbage: the collector need not walk through it for ever.
        gc.freeze()
        schedules = [
            *(window.schedule for window in house.file.windows),
            proof_schedule(house.file.book, house.clock),
        ]
        vitals.figures = market.figures()
        try:
            async with Ticker(house.engine, house.clock, schedules), asyncio.TaskGroup() as group:
                listening = group.create_task(feed.run())
                vitals.is_started = True
                await run_loops(loops, stop, vitals.pulses)
                listening.cancel()
        finally:
            # What a turn that was cut off has leased is free for the next house at once.
            freed = await give_back_leases(house.engine, house.clock, mark=mark(house))
            if freed:
                log.info("leases given back", **freed)
    log.info("stopped")


def stop_on_signals(stop: asyncio.Event, begin: Callable[[], object] | None = None) -> None:
    """Set *stop* at SIGTERM and SIGINT; *begin* is called first."""

    def asked() -> None:
        if begin is not None:
            begin()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in STOPS:
        loop.add_signal_handler(number, asked)


async def is_founded(conn: AsyncConnection) -> bool:
    """Tell whether the registry has records."""
    return bool(await list_entities(conn))


async def _configured(conn: AsyncConnection, file: HouseFile) -> tuple[Chain, ConfirmationPolicy]:
    if not await is_founded(conn):
        raise Refused(
            "the registry is empty",
            remedy="Name a founding file in the house file, or run `causeway registry found FILE`",
        )
    await head(conn, file.book)
    chain = await get_chain(conn, file.chain)
    assets = {asset.code: asset for asset in await list_assets(conn)}
    text = _read(file.confirmations, "confirmation policy")
    return chain, ConfirmationPolicy.parse(text, assets)


def _screening(file: HouseFile) -> AddressList:
    if file.address_list is None:
        log.warning("no address list is named: nothing is screened")
        return NOBODY_LISTED
    return AddressList.parse(_read(file.address_list, "address list"))


async def _travel_rule(conn: AsyncConnection, file: HouseFile) -> TravelRule:
    if file.travel_rule is None:
        return NO_TRAVEL_RULE
    assets = {asset.code: asset for asset in await list_assets(conn)}
    return TravelRule.parse(_read(file.travel_rule, "travel rule"), assets)


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise BadInput(f"the {what} cannot be read: {error.strerror}", where=str(path)) from error


async def _greet(signer: SignerClient) -> None:
    """Say whether the signer answers: without it deposits are credited and payouts wait."""
    try:
        health = await signer.health()
    except OutsideUnavailable as error:
        log.warning("the signer does not answer: payouts will wait", error=str(error))
    else:
        log.info("the signer answers", key_id=health.key_id, signed=health.signed)


def _watcher(
    house: House,
    gateway: ChainGateway,
    signer: ControlledSigner,
    rules: Rules,
) -> Watcher:
    file = house.file
    return Watcher(
        engine=house.engine,
        gateway=gateway,
        signer=signer,
        clock=house.clock,
        chain=file.chain,
        book=file.book,
        policy=rules.policy,
        payout_requirement=Requirement(file.payout_depth, file.payout_finalized),
        screening=rules.screening,
        travel_rule=rules.travel_rule,
        follow_policy=FollowPolicy(
            reorg_depth_max=file.reorg_depth_max, start_height=file.start_height
        ),
        holder=holder(house, "watcher"),
    )


def _loops(house: House, watcher: Watcher, feed: HeadFeed) -> list[Loop]:
    engine, clock, pause = house.engine, house.clock, house.file.pause
    money = ClientMoneyWatch(engine=engine, clock=clock, book=house.file.book)

    async def watch() -> Mapping[str, object]:
        return told(await watcher.turn())

    async def watch_money() -> Mapping[str, object]:
        return nonzero({"changes": len(await money.turn())})

    return [
        Loop(
            name="watcher",
            turn=watch,
            pause=pause,
            usual=USUAL,
            doze=feed.wait,
        ),
        settlement_loop(house),
        relay_loop(house),
        # Each change is a warning of its own.
        Loop(name="client-money", turn=watch_money, pause=pause, usual=frozenset({"changes"})),
    ]


def _treasury_loops(house: House, gateway: ProviderSet, chain: Chain) -> list[Loop]:
    worker = TreasuryWorker(
        engine=house.engine,
        gateway=gateway,
        clock=house.clock,
        chain=chain.code,
        book=house.file.book,
    )

    def loop(name: str, turn: Turn, pause: timedelta) -> Loop:
        async def take() -> Mapping[str, object]:
            return nonzero(await turn())

        return Loop(name=name, turn=take, pause=pause)

    return [
        loop("rebalance", worker.rebalance, REBALANCE_PAUSE),
        loop("reconcile", worker.reconcile, house.file.reconcile_every),
        loop("tokens", worker.read_tokens, house.file.reconcile_every),
    ]


def _service_loops(house: House) -> list[Loop]:
    """Return the loop that approves what a rule allows, where a service was given."""
    if house.service is None:
        return []
    worker = ServiceWorker(
        engine=house.engine, clock=house.clock, book=house.file.book, service=house.service
    )

    async def approve() -> Mapping[str, object]:
        return nonzero({"approved": len(await worker.turn())})

    return [Loop(name="service", turn=approve, pause=house.file.pause)]


async def _desk(
    house: House, accounts: Sequence[VenueDesk], market: MarketData
) -> DeskWorker | None:
    """Return the worker of the desk, on the feeds and accounts that run anyway; None: no desk."""
    if house.file.desk is None:
        return None
    worker = await desk_worker(
        house.engine,
        house.file.desk,
        house.file.hedges,
        book=house.file.book,
        accounts=accounts,
        markets=market.desks,
        clock=house.clock,
        holder=holder(house, "desk"),
    )
    market.counters_beside = worker.counters
    return worker


def _venue_loops(house: House, desks: Sequence[VenueDesk], stop: asyncio.Event) -> list[Loop]:
    """Return the loops of every account at a venue."""

    def loop(name: str, turn: Turn, pause: timedelta) -> Loop:
        async def take() -> Mapping[str, object]:
            return nonzero(await turn())

        return Loop(name=name, turn=take, pause=pause, usual=frozenset({"open"}))

    loops = []
    for desk in desks:
        name = desk.section.name
        loops += [
            loop(f"venue {name}", desk.turn, max(house.file.pause, VENUE_PAUSE_MIN)),
            loop(f"venue {name} stream", partial(desk.listen, stop), house.file.pause),
            loop(f"venue {name} day", desk.plan_the_day, DAY_PAUSE),
        ]
        if desk.treasury is not None:
            pause = max(house.file.pause, VENUE_PAUSE_MIN)
            loops.append(loop(f"venue {name} funds", desk.move_funds, pause))
        if desk.section.dead_man:
            loops.append(loop(f"venue {name} alive", desk.stay_alive, desk.section.dead_man / 3))
    return loops


def _log_unseen(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log in one line what asyncio has to say of errors that nobody waited for.

    A venue's client that loses its connection leaves some: whoever listens was told another way.
    """
    error = context.get("exception")
    log.warning(
        "an error that nobody waited for",
        what=context["message"],
        error="" if error is None else f"{type(error).__name__}: {error}",
    )
