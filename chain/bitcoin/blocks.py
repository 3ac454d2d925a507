"""What a block of Bitcoin holds for a watch list. Pure.

Movements are every output that pays a watched address, and every output of a transaction that
spends an output of one, so that payees and change of what we sent are seen as well. What an input
spends is shown by the output that it spends; a node tells it, or a chain in memory knows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from chain.bitcoin.addresses import address_of, parse_address
from chain.bitcoin.networks import Network
from chain.bitcoin.transactions import Outpoint, Output
from chain.errors import BadAddress
from chain.model import (
    COINBASE,
    NO_ADDRESS,
    Block,
    BlockContents,
    Movement,
    Spend,
    TransactionOutcome,
    WatchList,
    output_position,
)

FINAL_DEPTH: Final = 100
"""Blocks below the head that count as final: the chain itself lets new coins be spent no sooner."""
SCRIPT: Final = "script:"


@dataclass(frozen=True, slots=True)
class Spending:
    """One input: the outpoint, and the output that stood there; *output* is None if not known."""

    outpoint: Outpoint
    output: Output | None


@dataclass(frozen=True, slots=True)
class BlockTransaction:
    """A transaction with what its inputs spend; *inputs* are empty where it makes new coins."""

    tx_id: str
    inputs: tuple[Spending, ...]
    outputs: tuple[Output, ...]

    @property
    def fee(self) -> int:
        """Return what it leaves to the miner, in satoshi; every input's output must be known."""
        spent = sum(item.output.amount for item in self.inputs if item.output is not None)
        return spent - sum(item.amount for item in self.outputs)


@dataclass(frozen=True, slots=True)
class Watched:
    """The scripts of watched addresses: what outputs are compared with.

    Attributes:
        scripts: the address of each.
        spelled: the same scripts in hexadecimal digits, as nodes write them.
    """

    scripts: Mapping[bytes, str] = field(default_factory=dict)
    spelled: AbstractSet[str] = frozenset()


@dataclass(slots=True)
class Needle:
    """Turns watch lists into scripts, and only what is new in a list that has grown."""

    network: Network
    _addresses: frozenset[str] = frozenset()
    _watched: Watched = field(default_factory=Watched)

    def thread(self, watch: WatchList) -> Watched:
        """Return the scripts of a list. Addresses of other kinds of chain have none."""
        if watch.addresses is self._addresses or watch.addresses == self._addresses:
            return self._watched
        grown = self._addresses <= watch.addresses
        added = watch.addresses - self._addresses if grown else watch.addresses
        scripts = dict(self._watched.scripts) if grown else {}
        for address in added:
            try:
                scripts[parse_address(address, self.network)] = address
            except BadAddress:
                continue
        self._addresses = watch.addresses
        self._watched = Watched(scripts, {script.hex() for script in scripts})
        return self._watched


def payee_of(script: bytes, network: Network) -> str:
    """Return the address of a script, or the script itself where it has none."""
    return address_of(script, network) or SCRIPT + script.hex()


def contents_of(
    block: Block,
    transactions: Sequence[BlockTransaction],
    scripts: Mapping[bytes, str],
    network: Network,
) -> BlockContents:
    """Return what the block's *transactions* mean to whoever watches *scripts*."""
    movements: list[Movement] = []
    outcomes: list[TransactionOutcome] = []
    spends: list[Spend] = []
    for item in transactions:
        ours = spends_of(item, scripts)
        if not ours and not any(output.script in scripts for output in item.outputs):
            continue
        spends += ours
        sender = ours[0].address if ours else _stranger(item, network)
        movements += _movements(item, sender, scripts, network, everything=bool(ours))
        if ours:
            outcomes.append(
                TransactionOutcome(
                    item.tx_id, sender, 0, succeeded=True, fee=item.fee, recipient=None
                )
            )
    return BlockContents(
        block, tuple(movements), tuple(outcomes), traced=True, spends=tuple(spends)
    )


def spends_of(item: BlockTransaction, scripts: Mapping[bytes, str]) -> list[Spend]:
    """Return which inputs spend an output that had paid a watched script."""
    return [
        Spend(
            item.tx_id,
            place,
            spending.outpoint.tx_id,
            spending.outpoint.index,
            scripts[spending.output.script],
            spending.output.amount,
        )
        for place, spending in enumerate(item.inputs)
        if spending.output is not None and spending.output.script in scripts
    ]


def outcome_of(item: BlockTransaction, network: Network) -> TransactionOutcome:
    """Return the outcome of a mined transaction of anybody's."""
    sender = _stranger(item, network)
    return TransactionOutcome(
        item.tx_id, sender, 0, succeeded=True, fee=max(0, item.fee), recipient=None
    )


def _movements(
    item: BlockTransaction,
    sender: str,
    scripts: Mapping[bytes, str],
    network: Network,
    *,
    everything: bool,
) -> list[Movement]:
    return [
        Movement(
            item.tx_id,
            output_position(place),
            sender,
            scripts.get(output.script) or payee_of(output.script, network),
            None,
            output.amount,
        )
        for place, output in enumerate(item.outputs)
        if output.amount and (everything or output.script in scripts)
    ]


def _stranger(item: BlockTransaction, network: Network) -> str:
    if not item.inputs:
        return COINBASE
    first = item.inputs[0].output
    return NO_ADDRESS if first is None else address_of(first.script, network) or NO_ADDRESS
