"""Where exactly do books and chain differ, and what does the code know about it? Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from chain.model import Block
from custody.reconciliation_model import (
    NO_ADDRESS,
    Difference,
    DifferenceState,
    Explanation,
    Item,
    Reason,
    Reconciled,
    Run,
)
from kernel.ids import derive_id

ITEMS_MAX: Final = 10_000
"""Items of one run that are kept; a run with more has another trouble than these."""
EXPLAINED_MAX: Final = 100
"""Arrivals named in one item, at most."""


@dataclass(frozen=True, slots=True)
class Place:
    """One of our addresses: its wallet, and whether payouts leave from it."""

    address: str
    wallet: str
    is_hot: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """An arrival that the ledger does not count now: quarantined, or orphaned with its block.

    Attributes:
        asset: "" for a token that is not registered.
    """

    wallet: str
    address: str
    asset: str
    contract: str | None
    amount: int
    tx_hash: str
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the code knows that may explain a difference.

    Attributes:
        traces: the node shows internal transfers.
        contracts: of each asset on this chain; None is the native coin.
        dust: the smallest amount worth anything, by asset.
        spends: what strangers' transactions took, by wallet and asset.
        holds: by wallet and asset: (reserved to arrive, reserved to leave).
        booked: surpluses that were booked, by address and asset.
        unproven: by address and asset: how much less than what a token logged may have arrived.
    """

    traces: bool
    contracts: Mapping[str, str | None]
    dust: Mapping[str, int]
    arrived: Sequence[Arrived]
    spends: Mapping[tuple[str, str], int]
    holds: Mapping[tuple[str, str], tuple[int, int]]
    booked: Mapping[tuple[str, str], int]
    unproven: Mapping[tuple[str, str], int] = field(default_factory=dict)


def itemise(
    figures: Sequence[Reconciled],
    places: Sequence[Place],
    rows: Mapping[tuple[str, str], int],
    on_chain: Mapping[tuple[str, str], int],
    known: Known,
    alike: Mapping[tuple[str, str], int] | None = None,
) -> list[Item]:
    """Return every address and asset where books and chain differ, and tokens in quarantine.

    The differences of the items of a wallet and asset add up to the wallet's difference. What the
    ledger has and no row brought to an address (opening balances, journals) is taken to lie where
    coins are that no row explains, at hot addresses first.

    Args:
        figures: of every wallet and asset.
        places: every address of ours, but those where rows and node say the same.
        rows: what rows of custody say that an address holds, by (address, asset).
        on_chain: what the node says, by (address, asset); what is not in it is alike.
        known: what may explain it.
        alike: by (wallet, asset): what lies at addresses where both say the same.
    """
    by_wallet: dict[str, list[Place]] = defaultdict(list)
    for place in sorted(places, key=lambda p: (not p.is_hot, p.address)):
        by_wallet[place.wallet].append(place)
    items: list[Item] = []
    seen = _by_place(known.arrived)
    for figure in figures:
        if figure.chain is None:
            continue
        here = [p for p in by_wallet[figure.wallet] if (p.address, figure.asset) in on_chain]
        elsewhere = 0 if alike is None else alike.get((figure.wallet, figure.asset), 0)
        found = _of_wallet(figure, figure.chain - elsewhere, here, rows, on_chain, known)
        for item in found:
            awaiting, rest = split_unproven(item, known.unproven)
            items += [] if awaiting is None else [awaiting]
            if rest.difference:
                items.append(replace(rest, explanations=tuple(_explain(rest, known, seen))))
    differing = items[:ITEMS_MAX]
    informing = [_quarantined(a) for a in known.arrived if a.reason is Reason.UNREGISTERED_TOKEN]
    return differing + informing[: ITEMS_MAX - len(differing)]


def split_unproven(item: Item, unproven: Mapping[tuple[str, str], int]) -> tuple[Item | None, Item]:
    """Return of what is missing the part that may never have arrived, and the rest.

    A token that takes a fee logs more than it moves. The ledger holds what was logged until the balances
    are asked how much came; that much can be missing, and not a unit more.
    """
    part = min(-item.difference, unproven.get((item.address, item.asset), 0))
    if part <= 0:
        return None, item
    words = "logged by a token, and not proven by the balances yet"
    awaiting = replace(
        item, books=part, chain=0, explanations=(Explanation(Reason.UNPROVEN, -part, words),)
    )
    return awaiting, replace(item, books=item.books - part)


def _by_place(arrived: Sequence[Arrived]) -> dict[tuple[str, str], list[Arrived]]:
    found: dict[tuple[str, str], list[Arrived]] = defaultdict(list)
    for item in arrived:
        found[item.address, item.asset].append(item)
    return found


def _of_wallet(
    figure: Reconciled,
    chain: int,
    places: Sequence[Place],
    rows: Mapping[tuple[str, str], int],
    on_chain: Mapping[tuple[str, str], int],
    known: Known,
) -> list[Item]:
    """Return where a wallet differs; *chain* is what it has at these places and in pieces."""
    asset, figured = figure.asset, figure.chain or 0
    books = {p.address: rows.get((p.address, asset), 0) for p in places}
    holds = {p.address: on_chain[p.address, asset] for p in places}
    rest = figure.ledger - (figured - chain) - sum(books.values())
    for place in places:
        unexplained = holds[place.address] - books[place.address]
        if rest * unexplained > 0:
            here = min(abs(rest), abs(unexplained)) * (1 if rest > 0 else -1)
            books[place.address] += here
            rest -= here
    found = [
        Item(
            wallet=figure.wallet,
            asset=asset,
            contract=known.contracts.get(asset),
            address=p.address,
            books=books[p.address],
            chain=holds[p.address],
        )
        for p in places
        if holds[p.address] != books[p.address]
    ]
    # Pieces smaller than a unit at several addresses may make whole units of the wallet.
    pieces = chain - sum(holds.values())
    if rest != pieces:
        nowhere = Item(
            wallet=figure.wallet,
            asset=asset,
            contract=known.contracts.get(asset),
            address=NO_ADDRESS,
            books=rest,
            chain=pieces,
        )
        found.append(nowhere)
    return found


def _explain(
    item: Item, known: Known, seen: Mapping[tuple[str, str], Sequence[Arrived]]
) -> list[Explanation]:
    found = [
        Explanation(a.reason, a.amount, f"transaction {a.tx_hash}")
        for a in seen.get((item.address, item.asset), ())[:EXPLAINED_MAX]
    ]
    gap, key = item.difference, (item.wallet, item.asset)
    if gap > 0:
        found += _explain_surplus(item, known, explained=sum(e.amount for e in found))
    elif item.address == NO_ADDRESS:
        words = "posted to the wallet, and at no address of it"
        found.append(Explanation(Reason.POSTED_WITHOUT_COINS, gap, words))
    elif known.booked.get((item.address, item.asset)) == -gap:
        words = "a surplus was booked here, and what it was has been seen since"
        found.append(Explanation(Reason.BOOKED_TWICE, gap, words))
    elif item.contract is not None:
        words = "the token's balance fell without an event: a rebase, a fee, a seizure"
        found.append(Explanation(Reason.SILENT_TOKEN, gap, words))
    if known.spends.get(key):
        words = "transactions that we did not make spent from this wallet"
        found.append(Explanation(Reason.FOREIGN_SPEND, known.spends[key], words))
    arriving, leaving = known.holds.get(key, (0, 0))
    if arriving or leaving:
        words = f"{arriving} reserved to arrive, {leaving} to leave"
        found.append(Explanation(Reason.OPEN_HOLD, arriving - leaving, words))
    if abs(gap) < known.dust.get(item.asset, 0):
        found.append(Explanation(Reason.DUST, gap, "less than the smallest deposit"))
    return found


def _explain_surplus(item: Item, known: Known, *, explained: int) -> list[Explanation]:
    gap = item.difference - explained
    if gap <= 0:
        return []
    if item.contract is not None:
        words = "the token's balance rose without an event: a rebase or a mint"
        return [Explanation(Reason.SILENT_TOKEN, gap, words)]
    words = (
        "native coins that no transfer brought: a reward, or a contract that was destroyed"
        if known.traces
        else "an internal transfer, which this node does not show"
    )
    return [Explanation(Reason.INTERNAL_TRANSFER, gap, words)]


def _quarantined(item: Arrived) -> Item:
    """Return the line of a token that is not registered: both sides say the same, its own units."""
    return Item(
        wallet=item.wallet,
        asset=item.asset,
        contract=item.contract,
        address=item.address,
        books=item.amount,
        chain=item.amount,
        explanations=(Explanation(item.reason, item.amount, f"transaction {item.tx_hash}"),),
    )


def item_remainder(
    wallet: str, contract: str | None, *, asset: str, books: int, chain: int
) -> Item | None:
    """Return the line of what is less than one unit of an asset; None where there is nothing.

    Args:
        wallet: whose it is.
        contract: of the token, which counts *books* and *chain*.
        asset: what the token is in the books.
        books: what the rows of arrivals left over.
        chain: what the node says beyond whole units.
    """
    if not books and not chain:
        return None
    words = f"less than one unit of {asset}, as the chain counts"
    return Item(
        wallet=wallet,
        asset="",
        contract=contract,
        address=NO_ADDRESS,
        books=books,
        chain=chain,
        explanations=(Explanation(Reason.REMAINDER, chain, words),),
    )


def item_silence(figure: Reconciled, contract: str | None, words: str) -> Item:
    """Return the line of what a token does not tell."""
    return Item(
        wallet=figure.wallet,
        asset=figure.asset,
        contract=contract,
        address=NO_ADDRESS,
        books=figure.ledger,
        chain=None,
        explanations=(Explanation(Reason.UNREADABLE_TOKEN, 0, words),),
    )


@dataclass(frozen=True, slots=True)
class Aged:
    """How the open differences stand after a run."""

    new: tuple[Difference, ...]
    seen_again: tuple[Difference, ...]
    closed: tuple[Difference, ...]


def age(standing: Sequence[Difference], run: Run) -> Aged:
    """Return which differences are new, which stand on, and which a run no longer shows.

    A difference whose amount changed begins to be counted anew, and keeps its age. What the run could
    not compare stands as it stood.
    """
    before = {(d.wallet, d.asset, d.address): d for d in standing}
    new, again = [], []
    for item in run.differences:
        known = before.pop((item.wallet, item.asset, item.address), None)
        if known is None:
            new.append(_open(item, run))
        elif run.block.height >= known.last_height:
            again.append(_seen(known, item, run.block, run.at))
    closed = tuple(
        replace(
            d,
            state=DifferenceState.CLOSED,
            seen_at=run.at,
            detail=f"block {run.block.height} does not show it",
        )
        for d in before.values()
        if run.block.height >= d.last_height and (d.wallet, d.asset) not in run.unknown
    )
    return Aged(tuple(new), tuple(again), closed)


def _open(item: Item, run: Run) -> Difference:
    block, place = run.block, (item.wallet, item.asset, item.address)
    return Difference(
        id=derive_id(run.at, "difference", run.book, run.chain, *place, block.hash),
        book=run.book,
        chain=run.chain,
        wallet=item.wallet,
        asset=item.asset,
        address=item.address,
        amount=item.difference,
        state=DifferenceState.OPEN,
        opened_at=run.at,
        opened_height=block.height,
        first_height=block.height,
        first_block=block.hash,
        last_height=block.height,
        last_block=block.hash,
        seen_at=run.at,
        detail=words_of(item),
    )


def _seen(known: Difference, item: Item, block: Block, at: datetime) -> Difference:
    again = replace(
        known, last_height=block.height, last_block=block.hash, seen_at=at, detail=words_of(item)
    )
    if known.amount == item.difference:
        return again
    return replace(again, amount=item.difference, first_height=block.height, first_block=block.hash)


def words_of(item: Item) -> str:
    """Return the explanations of an item in one line."""
    return "; ".join(f"{e.reason}: {e.detail}" for e in item.explanations)[:500]
