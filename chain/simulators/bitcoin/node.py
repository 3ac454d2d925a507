"""The node: a chain, a pool, the time, and what moves between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chain.bitcoin.kernel import refused_input
from chain.bitcoin.transactions import Outpoint
from chain.errors import BadTransaction
from chain.simulators.bitcoin import assembly, policy, replacement
from chain.simulators.bitcoin.blocks import assemble, coinbase, push_number, tag
from chain.simulators.bitcoin.chain import BlockRefused, Chain
from chain.simulators.bitcoin.errors import (
    InvalidParameter,
    MiscError,
    RuleRefused,
    TransactionRefused,
)
from chain.simulators.bitcoin.journal import Journal, Kind, Record
from chain.simulators.bitcoin.mempool import Mempool
from chain.simulators.bitcoin.model import (
    BitcoinSimulatorSettings,
    Block,
    Change,
    Coin,
    Entry,
    Packed,
)

MAX_BLOCKS_PER_CALL: Final = 20_000
EXTRA_TRIES: Final = 1_000
IS_RECENT_S: Final = 24 * 60 * 60
"""A node whose tip is older takes itself to be catching up."""


class MissingInputs(TransactionRefused):
    """Something that the transaction spends is not there."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transaction that may come into the pool.

    Attributes:
        leaving: the entries that it replaces.
    """

    packed: Packed
    fee: int
    spent: tuple[Coin, ...]
    leaving: tuple[str, ...]


class Node:
    """One node on regtest; used by one thread at a time."""

    def __init__(self, settings: BitcoinSimulatorSettings) -> None:
        self.settings = settings
        self.chain = Chain()
        self.pool = Mempool()
        self.fee_rate = settings.fee_rate
        self.pool_rate = 0
        self.mock_time: int | None = None
        self._caught_up = False
        folder = None if settings.data_dir is None else settings.data_dir / "regtest"
        self._journal = Journal(folder, flush_blocks=settings.flush_blocks)
        self._restore()
        self.started_at = self.now()

    def close(self) -> None:
        """Write what is kept and let go of the kernel."""
        self._journal.close([entry.packed.raw.hex() for entry in self.pool.by_ancestors()])
        self.chain.close()

    def _restore(self) -> None:
        for record in self._journal.open():
            match record.kind:
                case Kind.BLOCK:
                    self.chain.submit(record.data)
                case Kind.INVALID:
                    list(self.chain.invalidate(record.data.hex()))
                case Kind.RECONSIDERED:
                    self.chain.reconsider(record.data.hex())
        for raw in self._journal.take_pool():
            self._return(Packed.read(bytes.fromhex(raw)), is_new=True)

    # ------------------------------------------------------------------ time

    def now(self) -> int:
        """Return Unix time: set by a call, counted by blocks, or of the clock."""
        if self.mock_time is not None:
            return self.mock_time
        if self.settings.timestamp is not None:
            return self.chain.tip.header.time if self.chain.height else self.settings.timestamp
        return int(self.settings.clock.now().timestamp())

    def next_time(self) -> int:
        """Return the time of the next block: after the median of the last eleven."""
        now = self.now()
        if self.mock_time is None and self.settings.timestamp is not None and self.chain.height:
            now += 1
        return max(now, self.chain.tip.median_time + 1)

    @property
    def is_catching_up(self) -> bool:
        """Tell whether the node takes its tip for an old one; once it does not, it stays so."""
        is_recent = self.now() - self.chain.tip.header.time < IS_RECENT_S
        self._caught_up = self._caught_up or (is_recent and self.chain.height > 0)
        return not self._caught_up

    # ------------------------------------------------------------------ coins

    def coin(self, outpoint: Outpoint) -> Coin | None:
        """Return an output of the chain or of the pool, spent by the pool or not."""
        found = self.chain.coins.get(outpoint)
        return found or self.pool.coin(outpoint, self.chain.height + 1)

    # ------------------------------------------------------------------ the pool

    def examine(self, packed: Packed, *, from_block: bool = False) -> Candidate:
        """Return what the pool would do with a transaction; nothing is changed.

        Args:
            from_block: it comes back from a block: neither its fee nor its line is looked at.

        Raises:
            RuleRefused: it breaks a rule.
            MissingInputs: what it spends is not there.
        """
        policy.check_standard(packed)
        height, tip = self.chain.height + 1, self.chain.tip
        policy.check_final(packed.body, height, tip.median_time)
        self._check_new(packed)
        spent = self._spent_by(packed)
        policy.check_relative_locks(packed.body, spent, tip, self._median_time_at)
        fee = policy.check_amounts(packed.body, spent, height)
        policy.check_spent_kinds(packed.body, spent)
        if not from_block:
            policy.check_fee(
                fee,
                packed.virtual_size,
                relay_rate=self.settings.relay_rate,
                pool_rate=self.pool_rate,
            )
            replacement.check_line(self.pool, packed)
        replacement.check_disjoint(self.pool, packed)
        step = self.settings.incremental_rate
        leaving = replacement.check_replacement(self.pool, packed, fee, step)
        check_scripts(packed, spent)
        return Candidate(packed, fee, spent, tuple(leaving))

    def take(self, candidate: Candidate, *, is_new: bool = True) -> Entry:
        """Put an examined transaction into the pool in the place of those that it replaces."""
        self.pool.remove(candidate.leaving)
        entry = Entry(
            candidate.packed,
            candidate.fee,
            candidate.spent,
            time=self.now(),
            height=self.chain.height,
            is_new=is_new,
        )
        self.pool.add(entry)
        return entry

    def _check_new(self, packed: Packed) -> None:
        known = self.pool.entries.get(packed.tx_id)
        if known is not None:
            same = known.packed.witness_id == packed.witness_id
            raise RuleRefused(
                "txn-already-in-mempool" if same else "txn-same-nonwitness-data-in-mempool"
            )

    def _spent_by(self, packed: Packed) -> tuple[Coin, ...]:
        found = [self.coin(outpoint) for outpoint in packed.spends]
        if None in found:
            if self.is_unspent_in_chain(packed):
                raise RuleRefused("txn-already-known")
            raise MissingInputs("bad-txns-inputs-missingorspent")
        return tuple(coin for coin in found if coin is not None)

    def is_unspent_in_chain(self, packed: Packed) -> bool:
        """Tell whether the chain has an unspent output of a transaction."""
        outpoints = (packed.outpoint(index) for index in range(len(packed.body.outputs)))
        return any(outpoint in self.chain.coins for outpoint in outpoints)

    def _median_time_at(self, height: int) -> int:
        return self.chain.at(height).median_time

    # ------------------------------------------------------------------ blocks

    def generate(self, count: int, script: bytes) -> list[str]:
        """Make blocks of what the pool holds, paid to *script*; return their hashes."""
        if not 0 <= count <= MAX_BLOCKS_PER_CALL:
            raise InvalidParameter(
                f"{count} blocks in one call; 0 to {MAX_BLOCKS_PER_CALL} are made"
            )
        made = []
        for _ in range(count):
            chosen = assembly.choose(self.pool, least_rate=min(1_000, self.settings.relay_rate))
            packed = [entry.packed for entry in chosen]
            made.append(self._extend(script, packed, sum(entry.fee for entry in chosen)).hash)
        return made

    def generate_block(self, script: bytes, transactions: Sequence[Packed]) -> Block:
        """Make one block of exactly these transactions, in this order.

        Their fees are lost, as those of bitcoind's ``generateblock`` are.

        Raises:
            TransactionRefused: the block would be invalid.
        """
        self._check(transactions)
        return self._extend(script, transactions, 0)

    def build_block(self, script: bytes, transactions: Sequence[Packed]) -> bytes:
        """Return the bytes of such a block without taking it."""
        self._check(transactions)
        return self._build(script, transactions, 0, 0)

    def _check(self, transactions: Sequence[Packed]) -> None:
        height, made = self.chain.height + 1, dict[Outpoint, Coin]()
        gone: set[Outpoint] = set()
        if any(self.is_unspent_in_chain(packed) for packed in transactions):
            raise TransactionRefused(
                "TestBlockValidity failed: bad-txns-BIP30, tried to overwrite transaction"
            )
        for packed in transactions:
            found = [
                None if one in gone else made.get(one) or self.chain.coins.get(one)
                for one in packed.spends
            ]
            if None in found:
                raise TransactionRefused(
                    "TestBlockValidity failed: bad-txns-inputs-missingorspent, CheckTxInputs: "
                    f"inputs missing/spent in transaction {packed.tx_id}"
                )
            spent = tuple(coin for coin in found if coin is not None)
            try:
                policy.check_amounts(packed.body, spent, height)
                policy.check_final(packed.body, height, self.chain.tip.median_time)
            except RuleRefused as exc:
                raise TransactionRefused(f"TestBlockValidity failed: {exc.what}") from exc
            gone.update(packed.spends)
            for index, output in enumerate(packed.body.outputs):
                made[packed.outpoint(index)] = Coin(output, height, is_coinbase=False)

    def _extend(self, script: bytes, transactions: Sequence[Packed], fees: int) -> Block:
        for number in range(EXTRA_TRIES):
            raw = self._build(script, transactions, fees, number)
            try:
                return self.submit(raw)
            except BlockRefused as exc:
                # At one second and with one payee, this may be a block that was called invalid.
                if not exc.reason.startswith("duplicate"):
                    raise TransactionRefused(f"TestBlockValidity failed: {exc.reason}") from exc
        raise MiscError("ProcessNewBlock, block not accepted")

    def _build(
        self, script: bytes, transactions: Sequence[Packed], fees: int, number: int
    ) -> bytes:
        extra = push_number(number) + tag(self.settings.seed)
        first = coinbase(self.chain.height + 1, script, fees, transactions, extra=extra)
        return assemble(self.chain.tip.hash, self.next_time(), [first, *transactions])

    def submit(self, raw: bytes) -> Block:
        """Take a block; coins and pool follow.

        Raises:
            Undecodable: the bytes are no block.
            BlockRefused: it is not taken.
        """
        block, change = self.chain.submit(raw)
        self._journal.write(Record(Kind.BLOCK, raw))
        self._settle(change)
        return block

    def invalidate(self, hash_: str) -> None:
        """Call a block invalid; its transactions come back to the pool."""
        for change in self.chain.invalidate(hash_):
            self._settle(change)
        self._journal.write(Record(Kind.INVALID, bytes.fromhex(hash_)))

    def reconsider(self, hash_: str) -> None:
        """Take back what was said of a block."""
        change = self.chain.reconsider(hash_)
        self._journal.write(Record(Kind.RECONSIDERED, bytes.fromhex(hash_)))
        self._settle(change)

    # ------------------------------------------------------------------ after a change of the chain

    def _settle(self, change: Change) -> None:
        for block in change.connected:
            for packed in block.transactions[1:]:
                if packed.tx_id in self.pool:
                    self.pool.remove([packed.tx_id], by_block=True)
                self.pool.evict(self.pool.conflicts(packed))
        for block in reversed(change.disconnected):
            self.pool.evict(self._children(block.coinbase))
            for packed in block.transactions[1:]:
                if packed.tx_id not in self.chain.mined:
                    self._return(packed)
        if change.disconnected:
            self._drop_impossible()

    def _return(self, packed: Packed, *, is_new: bool = False) -> None:
        try:
            candidate = self.examine(packed, from_block=True)
        except (RuleRefused, MissingInputs):
            self.pool.evict(self._children(packed))
        else:
            self.take(candidate, is_new=is_new)

    def _children(self, packed: Packed) -> list[str]:
        outpoints = (packed.outpoint(index) for index in range(len(packed.body.outputs)))
        return [self.pool.spenders[one] for one in outpoints if one in self.pool.spenders]

    def _drop_impossible(self) -> None:
        """Take out what can no longer be in the next block after a reorganisation."""
        height, tip = self.chain.height + 1, self.chain.tip
        for entry in self.pool.by_ancestors():
            if entry.packed.tx_id not in self.pool:
                continue
            try:
                entry.spent = self._spent_by(entry.packed)
                policy.check_final(entry.packed.body, height, tip.median_time)
                policy.check_amounts(entry.packed.body, entry.spent, height)
                policy.check_relative_locks(
                    entry.packed.body, entry.spent, tip, self._median_time_at
                )
            except (RuleRefused, MissingInputs):
                self.pool.evict([entry.packed.tx_id])


def check_scripts(packed: Packed, spent: Sequence[Coin]) -> None:
    """Refuse a transaction with an input whose proof the kernel or the relay rules do not take.

    Raises:
        RuleRefused: ``mempool-script-verify-flag-failed``; the kernel gives no reason.
    """
    try:
        index = refused_input(packed.raw, [coin.output for coin in spent])
    except BadTransaction as exc:
        raise RuleRefused("bad-txns", exc.what) from exc
    why = "the consensus library gives no reason"
    if index is None:
        malleable = policy.malleable_input(packed.body, spent)
        if malleable is None:
            return
        index, why = malleable
    outpoint = packed.spends[index]
    raise RuleRefused(
        f"mempool-script-verify-flag-failed ({why})",
        f"input {index} of {packed.tx_id} (wtxid {packed.witness_id}), "
        f"spending {outpoint.tx_id}:{outpoint.index}",
    )
