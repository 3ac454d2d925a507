"""All workers of one house in one process: what ``causeway up`` runs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.nodes import BITCOIN_VARIABLE, bitcoin_nodes, evm_providers, head_feed
from app.workers.bitcoin_watcher import BitcoinWatcher
from app.workers.book_mover import BookMover
from app.workers.calculator import Calculator
from app.workers.client_money import ClientMoneyWatch
from app.workers.house_file import BitcoinSection, HouseFile
from app.workers.jobs import Handler, JobWorker
from app.workers.loops import Loop, run_loops
from app.workers.relay import RelayWorker
from app.workers.scheduler import Ticker
from app.workers.service import Service, ServiceWorker
from app.workers.settlement import SettlementWorker
from app.workers.treasury import CoinTreasury, TreasuryWorker
from app.workers.watcher import Watcher
from app.workers.watching import Turn as WatcherTurn
from chain.bitcoin.ports import BitcoinReader
from chain.evm.heads import HeadFeed
from chain.evm.providers import ProviderSet
from chain.model import FollowPolicy
from chain.ports import ChainGateway
from custody.compliance.address_list import NOBODY_LISTED, AddressList
from custody.compliance.travel_rule import NO_TRAVEL_RULE, TravelRule
from custody.policy import ConfirmationPolicy, Requirement
from custody.signer.client import SignerClient
from kernel.clock import Clock
from kernel.db import transact
from kernel.errors import BadInput, OutsideUnavailable, Refused
from kernel.settings import Settings
from ledger.interbook.model import JOB as MOVE_BETWEEN_BOOKS
from ledger.queries import head
from registry.model import Chain
from registry.queries import get_chain, list_assets, list_entities

REBALANCE_PAUSE: Final = timedelta(minutes=1)
"""Between two looks whether a new window has begun: the rules say how long one is."""

USUAL: Final = frozenset({"included", "alarms"})
"""Figures of a watcher that are no news: each alarm is a warning of its own, once."""

Turn = Callable[[], Awaitable[Mapping[str, object]]]

STOPS: Final = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger("house")


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What the workers run on.

    Attributes:
        service: None: what a rule allows waits for a person.
        write: takes one line of standard output: the ready line, then domain events.
        facts: what else the ready line says.
    """

    engine: AsyncEngine
    settings: Settings
    evm_url: str
    file: HouseFile
    clock: Clock
    write: Callable[[str], None]
    facts: Mapping[str, Any]
    service: Service | None = None


async def run_house(
    house: House, ready: Callable[[Mapping[str, Any]], None], stop: asyncio.Event
) -> None:
    """Run the workers until *stop* is set; what they leave undone, the next start goes on with.

    Raises:
        Refused: the registry is empty, or does not know the chain or the book.
        OutsideUnavailable: the node does not answer. (Later it may come and go.)
    """
    chain, policy = await transact(house.engine, lambda conn: _configured(conn, house.file))
    screening = _screening(house.file)
    travel_rule = await transact(house.engine, lambda conn: _travel_rule(conn, house.file))
    signer = SignerClient(house.file.signer_socket)
    await _greet(signer)
    feed = head_feed(house.settings)
    rules = _Rules(policy, screening, travel_rule)
    async with contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(
            evm_providers(house.settings, chain, house.evm_url)
        )
        watcher = _watcher(house, gateway, signer, rules)
        loops = [
            *_loops(house, watcher, feed),
            *await _bitcoin_loops(house, signer, rules, stack),
            *_treasury_loops(house, gateway, chain),
            *_service_loops(house),
            *_job_loops(house),
        ]
        ready(
            {
                "ready": True,
                "chain": chain.code,
                "chain_id": chain.network_id,
                "book": house.file.book,
                "loops": [loop.name for loop in loops],
                **house.facts,
            }
        )
        # What start-up has loaded is never garbage: the collector need not walk through it for ever.
        gc.freeze()
        schedules = [window.schedule for window in house.file.windows]
        async with Ticker(house.engine, house.clock, schedules), asyncio.TaskGroup() as group:
            listening = group.create_task(feed.run())
            await run_loops(loops, stop)
            listening.cancel()
    log.info("stopped")


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set *stop* at SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in STOPS:
        loop.add_signal_handler(number, stop.set)


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


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the files say about arrivals and payments, the same on every chain."""

    policy: ConfirmationPolicy
    screening: AddressList
    travel_rule: TravelRule


async def _bitcoin_loops(
    house: House, signer: SignerClient, rules: _Rules, stack: contextlib.AsyncExitStack
) -> list[Loop]:
    """Return the loops of the chain of Bitcoin, its nodes opened; none where the file names none.

    Raises:
        OutsideUnavailable: no node is named, or it does not answer.
    """
    section = house.file.bitcoin
    if section is None:
        return []
    if house.settings.bitcoin_url is None:
        raise OutsideUnavailable(
            f"the house file has [bitcoin], and no node of {section.chain} is named",
            where=BITCOIN_VARIABLE,
            remedy="Set it, or take the section out",
        )
    chain = await transact(house.engine, lambda conn: get_chain(conn, section.chain))
    url = house.settings.bitcoin_url.reveal()
    node = await stack.enter_async_context(bitcoin_nodes(house.settings, chain, url))
    watcher = _bitcoin_watcher(house, node, signer, rules, section)
    treasury = CoinTreasury(
        engine=house.engine,
        node=node,
        clock=house.clock,
        chain=section.chain,
        book=house.file.book,
    )

    async def watch() -> Mapping[str, object]:
        return _told(await watcher.turn())

    async def reconcile() -> Mapping[str, object]:
        return _nonzero(await watcher.reconcile())

    async def rebalance() -> Mapping[str, object]:
        return _nonzero(await treasury.rebalance())

    return [
        Loop(name="bitcoin-watcher", turn=watch, pause=house.file.pause, usual=USUAL),
        Loop(name="bitcoin-rebalance", turn=rebalance, pause=REBALANCE_PAUSE),
        Loop(name="bitcoin-reconcile", turn=reconcile, pause=section.reconcile_every),
    ]


def _bitcoin_watcher(
    house: House,
    node: BitcoinReader,
    signer: SignerClient,
    rules: _Rules,
    section: BitcoinSection,
) -> BitcoinWatcher:
    return BitcoinWatcher(
        engine=house.engine,
        node=node,
        signer=signer,
        clock=house.clock,
        chain=section.chain,
        book=house.file.book,
        policy=rules.policy,
        payout_requirement=Requirement(section.payout_depth, section.payout_finalized),
        screening=rules.screening,
        travel_rule=rules.travel_rule,
        follow_policy=FollowPolicy(
            reorg_depth_max=section.reorg_depth_max, start_height=section.start_height
        ),
    )


def _watcher(
    house: House,
    gateway: ChainGateway,
    signer: SignerClient,
    rules: _Rules,
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
    )


def _loops(house: House, watcher: Watcher, feed: HeadFeed) -> list[Loop]:
    engine, clock, pause = house.engine, house.clock, house.file.pause
    settlement = SettlementWorker(engine=engine, clock=clock, book=house.file.book)
    relay = RelayWorker(engine=engine, clock=clock, write=house.write)
    money = ClientMoneyWatch(engine=engine, clock=clock, book=house.file.book)

    async def watch() -> Mapping[str, object]:
        return _told(await watcher.turn())

    async def settle() -> Mapping[str, object]:
        turn = await settlement.turn()
        return _nonzero(
            {
                "matched": len(turn.matched),
                "final": len(turn.final),
                "expired": len(turn.expired),
            }
        )

    async def hand_on() -> Mapping[str, object]:
        return _nonzero({"events": await relay.turn()})

    async def watch_money() -> Mapping[str, object]:
        return _nonzero({"changes": len(await money.turn())})

    return [
        Loop(
            name="watcher",
            turn=watch,
            pause=pause,
            usual=USUAL,
            doze=feed.wait,
        ),
        Loop(name="settlement", turn=settle, pause=pause),
        Loop(name="relay", turn=hand_on, pause=pause, usual=frozenset({"events"})),
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
            return _nonzero(await turn())

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
        return _nonzero({"approved": len(await worker.turn())})

    return [Loop(name="service", turn=approve, pause=house.file.pause)]


def _job_loops(house: House) -> list[Loop]:
    """Return the loop of jobs: settlement windows, and what moves from one book to another."""
    calculator = Calculator(engine=house.engine, clock=house.clock, book=house.file.book)
    mover = BookMover(house.engine, house.clock)
    windows: dict[str, Handler] = {
        window.schedule.name: partial(calculator.calculate, window) for window in house.file.windows
    }
    worker = JobWorker(
        engine=house.engine,
        clock=house.clock,
        handlers={**windows, MOVE_BETWEEN_BOOKS: mover.move},
    )

    async def work() -> Mapping[str, object]:
        turn = await worker.turn()
        return _nonzero(
            {"done": len(turn.done), "failed": dict(turn.failed), "dead": len(turn.dead)}
        )

    return [Loop(name="jobs", turn=work, pause=house.file.pause)]


def _told(turn: WatcherTurn) -> dict[str, object]:
    """Return the figures of a watcher's turn."""
    done: dict[str, object] = {
        "included": turn.followed.included,
        "orphaned": turn.followed.orphaned,
        "deposits": len(turn.deposits),
        "receipts": len(turn.receipts),
        "payouts": len(turn.payouts),
        "signed": len(turn.work.signed),
        "sent": len(turn.work.sent),
        "bumped": len(turn.work.bumped),
        "filled": len(turn.work.filled),
        "alarms": len(turn.work.alarms),
    }
    if turn.followed.reason:
        done["halted"] = turn.followed.reason
    if turn.tip is None and turn.followed.cursor is not None:
        done["unconfirmed"] = "the providers do not agree on a block"
    return _nonzero(done)


def _nonzero(figures: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in figures.items() if value}
