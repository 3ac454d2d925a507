"""The pool: transactions that wait for a block, who spends what, and whose child is whose.

It keeps order and relations; whether a transaction may come in is decided elsewhere (``policy``,
``replacement``).
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from chain.bitcoin.transactions import Outpoint
from chain.simulators.bitcoin.model import Coin, Entry, Packed


class Mempool:
    """The entries by id, in the order in which they came.

    Attributes:
        sequence: counts what came in and what left otherwise than by a block.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.spenders: dict[Outpoint, str] = {}
        self.sequence = 1

    def __contains__(self, tx_id: str) -> bool:
        return tx_id in self.entries

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def total_size(self) -> int:
        """Return the virtual bytes of all entries."""
        return sum(entry.size for entry in self.entries.values())

    @property
    def total_fee(self) -> int:
        """Return the fees of all entries."""
        return sum(entry.fee for entry in self.entries.values())

    def coin(self, outpoint: Outpoint, height: int) -> Coin | None:
        """Return an output of an entry as a coin of the next block, spent or not."""
        entry = self.entries.get(outpoint.tx_id)
        if entry is None or outpoint.index >= len(entry.packed.body.outputs):
            return None
        return Coin(entry.packed.body.outputs[outpoint.index], height, is_coinbase=False)

    def conflicts(self, packed: Packed) -> list[str]:
        """Return the entries that spend an output which *packed* spends, in a fixed order."""
        found = {self.spenders[one] for one in packed.spends if one in self.spenders}
        return sorted(found)

    def parents(self, packed: Packed) -> set[str]:
        """Return the entries that a transaction spends from."""
        return {one.tx_id for one in packed.spends if one.tx_id in self.entries}

    def ancestors(self, tx_ids: Iterable[str]) -> set[str]:
        """Return these entries and all that they spend from, directly or not."""
        return self._closure(tx_ids, "parents")

    def descendants(self, tx_ids: Iterable[str]) -> set[str]:
        """Return these entries and all that spend from them, directly or not."""
        return self._closure(tx_ids, "children")

    def _closure(self, tx_ids: Iterable[str], side: str) -> set[str]:
        found: set[str] = set()
        waiting = list(tx_ids)
        while waiting:
            tx_id = waiting.pop()
            if tx_id not in found:
                found.add(tx_id)
                entry = self.entries[tx_id]
                waiting.extend(entry.parents if side == "parents" else entry.children)
        return found

    def add(self, entry: Entry) -> None:
        """Put an entry in; nothing may spend what it spends. Children may be there already."""
        tx_id = entry.packed.tx_id
        self.entries[tx_id] = entry
        self.sequence += 1
        for outpoint in entry.packed.spends:
            self.spenders[outpoint] = tx_id
        entry.parents = self.parents(entry.packed)
        entry.children = {
            self.spenders[entry.packed.outpoint(index)]
            for index in range(len(entry.packed.body.outputs))
            if entry.packed.outpoint(index) in self.spenders
        }
        for parent in entry.parents:
            self.entries[parent].children.add(tx_id)
        for child in entry.children:
            self.entries[child].parents.add(tx_id)

    def remove(self, tx_ids: Iterable[str], *, by_block: bool = False) -> list[Entry]:
        """Take entries out and return them; their relations to those that stay are cut."""
        removed = []
        for tx_id in tx_ids:
            entry = self.entries.pop(tx_id)
            removed.append(entry)
            self.sequence += 0 if by_block else 1
            for outpoint in entry.packed.spends:
                del self.spenders[outpoint]
            for parent in entry.parents & self.entries.keys():
                self.entries[parent].children.discard(tx_id)
            for child in entry.children & self.entries.keys():
                self.entries[child].parents.discard(tx_id)
        return removed

    def evict(self, tx_ids: Iterable[str]) -> list[Entry]:
        """Take entries out with everything that spends from them."""
        present = [tx_id for tx_id in tx_ids if tx_id in self.entries]
        return self.remove(sorted(self.descendants(present)))

    def by_ancestors(self) -> list[Entry]:
        """Return the entries so that none comes before what it spends from, else by arrival."""
        done: set[str] = set()
        ordered: list[Entry] = []
        for tx_id in self.entries:
            for one in self._line(tx_id, done):
                done.add(one)
                ordered.append(self.entries[one])
        return ordered

    def by_depth(self) -> list[Entry]:
        """Return the entries as bitcoind lists them: by their number of ancestors, then by fee rate."""
        ordered = sorted(
            self.entries.values(),
            key=lambda entry: bytes.fromhex(entry.packed.tx_id)[::-1],
            reverse=True,
        )
        return sorted(
            ordered,
            key=lambda entry: (
                len(self.ancestors([entry.packed.tx_id])),
                -Fraction(entry.fee, entry.size),
            ),
        )

    def _line(self, tx_id: str, done: set[str]) -> list[str]:
        missing = self.ancestors([tx_id]) - done
        return sorted(missing, key=lambda one: (len(self.ancestors([one])), one))
