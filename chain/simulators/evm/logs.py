"""Which logs a filter selects (``eth_getLogs`` and the ``logs`` subscription)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chain.simulators.evm.model import Block, LogEntry, Receipt


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Addresses (empty: any) and, per topic position, the accepted values (None: any).

    A log with fewer topics than the filter has positions does not match, whatever they say.
    """

    addresses: frozenset[bytes] = frozenset()
    topics: tuple[frozenset[bytes] | None, ...] = ()

    def matches(self, log: LogEntry) -> bool:
        """Return whether the log is selected."""
        if self.addresses and log.address not in self.addresses:
            return False
        if len(self.topics) > len(log.topics):
            return False
        return all(
            wanted is None or topic in wanted
            for wanted, topic in zip(self.topics, log.topics, strict=False)
        )


@dataclass(frozen=True, slots=True)
class PlacedLog:
    """A log with its place: the index within the block, as ``logIndex`` reports it."""

    log: LogEntry
    block: Block
    receipt: Receipt
    index: int


def logs_of(block: Block, wanted: LogFilter) -> Iterator[PlacedLog]:
    """Yield the block's logs that the filter selects, in order."""
    for receipt in block.receipts:
        for offset, log in enumerate(receipt.logs):
            if wanted.matches(log):
                yield PlacedLog(log, block, receipt, receipt.first_log_index + offset)
