"""What waits in a node's pool for our addresses, looked at anew only where the pool has changed.

Shown, never believed: whoever spends one of the same outputs replaces it, and the pool forgets. So a
pending movement names all outpoints that it spends. Each transaction is fetched once; what concerns
nobody is remembered by its id alone. A large pool is caught up with over several calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chain.bitcoin.addresses import address_of
from chain.bitcoin.blocks import Needle, Watched
from chain.bitcoin.networks import Network
from chain.bitcoin.node import NOT_FOUND, NodeRpc
from chain.bitcoin.quantities import as_bytes, as_hash
from chain.bitcoin.raw import RawTransaction, read_transaction
from chain.bitcoin.transactions import Outpoint
from chain.errors import IncompleteAnswer
from chain.jsonrpc import RpcRefusal
from chain.model import NO_ADDRESS, PendingMovement, WatchList
from chain.shapes import as_list, as_object

FETCH_MAX: Final = 5_000
"""Transactions fetched in one call, at most; the next call goes on."""
POOL_MAX: Final = 500_000
"""Transactions of a pool that are remembered, at most: what comes after them is seen when mined."""
PENDING_MAX: Final = 1_000
"""Pending movements shown, at most."""


@dataclass(slots=True)
class Pool:
    """What is known of one node's pool."""

    rpc: NodeRpc
    network: Network
    _needle: Needle = field(init=False)
    _watched: Watched | None = None
    _strange: set[str] = field(default_factory=set)
    """Ids of transactions that concern nobody."""
    _fresh: set[str] = field(default_factory=set)
    """Those among them that the last call has looked at."""
    _ours: dict[str, tuple[PendingMovement, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._needle = Needle(self.network)

    async def pending(self, watch: WatchList) -> tuple[PendingMovement, ...]:
        """Return what waits for watched addresses now."""
        watched = self._needle.thread(watch)
        if watched is not self._watched:
            # An address may be paid before the list that has it is read: look at the newest again.
            self._strange -= self._fresh
            self._ours.clear()
            self._watched = watched
        there = [
            as_hash(item, "an id")
            for item in as_list(await self.rpc.ask("getrawmempool"), "the pool")
        ]
        now = set(there)
        self._strange &= now
        for gone in self._ours.keys() - now:
            del self._ours[gone]
        new = [item for item in there[:POOL_MAX] if not self._is_known(item)][:FETCH_MAX]
        self._fresh = set()
        await self._look_at(new, watched)
        found = [movement for one in self._ours.values() for movement in one]
        return tuple(found[:PENDING_MAX])

    def _is_known(self, tx_id: str) -> bool:
        return tx_id in self._strange or tx_id in self._ours

    async def _look_at(self, new: Sequence[str], watched: Watched) -> None:
        answers = await self.rpc.ask_many([("getrawtransaction", (tx_id,)) for tx_id in new])
        for tx_id, answer in zip(new, answers, strict=True):
            if isinstance(answer, RpcRefusal):
                if answer.code == NOT_FOUND:
                    continue  # it has left the pool meanwhile
                raise answer
            raw = read_transaction(as_bytes(answer, "a transaction"))
            if raw.tx_id != tx_id:
                raise IncompleteAnswer(f"asked for {tx_id}, the node gave {raw.tx_id}")
            if watched.scripts.keys().isdisjoint(raw.scripts):
                self._strange.add(tx_id)
                self._fresh.add(tx_id)
            else:
                self._ours[tx_id] = await self._movements(raw, watched)

    async def _movements(
        self, raw: RawTransaction, watched: Watched
    ) -> tuple[PendingMovement, ...]:
        inputs = raw.outpoints
        sender = await self._sender(inputs[0])
        spent = tuple((item.tx_id, item.index) for item in inputs)
        return tuple(
            PendingMovement(
                raw.tx_id, sender, 0, watched.scripts[output.script], None, output.amount, spent
            )
            for output in raw.outputs
            if output.script in watched.scripts and output.amount
        )

    async def _sender(self, outpoint: Outpoint) -> str:
        """Return the address that had the first input, where it is confirmed."""
        told: Any = await self.rpc.ask("gettxout", outpoint.tx_id, outpoint.index, False)
        if told is None:
            return NO_ADDRESS
        pays = as_object(as_object(told, "the output").get("scriptPubKey"), "the script")
        script = as_bytes(pays.get("hex"), "the script")
        return address_of(script, self.network) or NO_ADDRESS
