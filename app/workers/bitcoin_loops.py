"""The loops of a house on the chain of Bitcoin: it is watched, balanced and reconciled."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from app.nodes import BITCOIN_VARIABLE, bitcoin_nodes
from app.workers.bitcoin_watcher import BitcoinWatcher
from app.workers.house_file import BitcoinSection
from app.workers.house_parts import REBALANCE_PAUSE, USUAL, House, Rules, holder, nonzero, told
from app.workers.loops import Loop
from app.workers.treasury import CoinTreasury
from chain.bitcoin.ports import BitcoinReader
from chain.model import FollowPolicy
from custody.policy import Requirement
from custody.ports import ControlledSigner
from kernel.db import transact
from kernel.errors import OutsideUnavailable
from registry.queries import get_chain


async def open_bitcoin(house: House, stack: contextlib.AsyncExitStack) -> dict[str, BitcoinReader]:
    """Return the opened nodes of the chain of Bitcoin by its code; none where the file names none.

    Raises:
        OutsideUnavailable: no node is named, or it does not answer.
    """
    section = house.file.bitcoin
    if section is None:
        return {}
    if house.settings.bitcoin_url is None:
        raise OutsideUnavailable(
            f"the house file has [bitcoin], and no node of {section.chain} is named",
            where=BITCOIN_VARIABLE,
            remedy="Set it, or take the section out",
        )
    chain = await transact(house.engine, lambda conn: get_chain(conn, section.chain))
    url = house.settings.bitcoin_url.reveal()
    return {chain.code: await stack.enter_async_context(bitcoin_nodes(house.settings, chain, url))}


def bitcoin_loops(
    house: House, nodes: Mapping[str, BitcoinReader], signer: ControlledSigner, rules: Rules
) -> list[Loop]:
    """Return the loops of the chain of Bitcoin on the nodes of `open_bitcoin`; none without any."""
    section = house.file.bitcoin
    if section is None:
        return []
    node = nodes[section.chain]
    watcher = _bitcoin_watcher(house, node, signer, rules, section)
    treasury = CoinTreasury(
        engine=house.engine,
        node=node,
        clock=house.clock,
        chain=section.chain,
        book=house.file.book,
    )

    async def watch() -> Mapping[str, object]:
        return told(await watcher.turn())

    async def reconcile() -> Mapping[str, object]:
        return nonzero(await watcher.reconcile())

    async def rebalance() -> Mapping[str, object]:
        return nonzero(await treasury.rebalance())

    return [
        Loop(name="bitcoin-watcher", turn=watch, pause=house.file.pause, usual=USUAL),
        Loop(name="bitcoin-rebalance", turn=rebalance, pause=REBALANCE_PAUSE),
        Loop(name="bitcoin-reconcile", turn=reconcile, pause=section.reconcile_every),
    ]


def _bitcoin_watcher(
    house: House,
    node: BitcoinReader,
    signer: ControlledSigner,
    rules: Rules,
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
        holder=holder(house, "bitcoin-watcher"),
    )
