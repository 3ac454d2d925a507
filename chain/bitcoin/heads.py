"""New blocks of a Bitcoin chain, announced by nodes that hold a question open until there is one.

What that is worth, `chain.heads` says. ``waitfornewblock`` needs no port and no library besides the
node's own; it takes the node one of its threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from chain.bitcoin.node import NodeRpc
from chain.errors import NodeTrouble
from chain.heads import HeadSignal

HOLD_S: Final = 30.0
"""How long one question is held open."""
ANSWER_S: Final = 10.0
"""How much longer its answer may take."""


@dataclass(slots=True)
class BlockFeed(HeadSignal):
    """Listens to the nodes of a chain.

    Run `run` in a task group of the caller's; it ends only when it is cancelled.
    """

    nodes: Sequence[NodeRpc]

    async def run(self) -> None:
        """Listen to every node, for ever."""
        async with asyncio.TaskGroup() as group:
            for node in self.nodes:
                group.create_task(self.listen_for_ever(partial(self._listen, node), (NodeTrouble,)))

    async def _listen(self, node: NodeRpc) -> None:
        """Announce every change of the node's newest block until there is trouble."""
        patient = node.patient(HOLD_S + ANSWER_S)
        try:
            before = await patient.ask("getbestblockhash")
            self.opened += 1
            while True:
                told = await patient.ask("waitfornewblock", round(HOLD_S * 1_000))
                now = told.get("hash") if isinstance(told, dict) else None
                if now != before:
                    self.announce()
                    before = now
        finally:
            await patient.close()
