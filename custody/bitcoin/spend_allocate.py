"""Allocate: coins, a transaction, and what is held for it, for many payouts of one wallet at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.bitcoin.transactions import Outpoint
from custody import payout_rows, payout_store
from custody.bitcoin import spend_store as store
from custody.bitcoin.consolidation import candidates, is_consolidation
from custody.bitcoin.spend_model import (
    PAYOUTS_MAX,
    Spend,
    SpendPayout,
    SpendState,
    SpentCoin,
    share_fee,
)
from custody.bitcoin.spend_moves import SPEND, begun
from custody.bitcoin.spend_plan import (
    Chosen,
    Market,
    Payee,
    WalletView,
    choose,
    draft,
    is_own,
    payee_of,
)
from custody.bitcoin.spend_steps import (
    SpendBench,
    assign_change,
    build_attempt,
    list_free_coins,
    lock_coins,
    script_of,
)
from custody.payout_allocate import require_covered
from custody.payout_coverage import count_spare, leaves_clients
from custody.payout_gates import find_stopped
from custody.payout_model import Payout, PayoutState
from custody.payout_moves import Move, move_payouts
from custody.payout_postings import allocated
from custody.payout_worker import RETRY_AFTER, TEXT_LENGTH_MAX
from custody.rebalance.store import find_active_rules
from kernel.db import transact
from kernel.errors import CausewayError
from kernel.events import record
from kernel.ids import derive_id
from ledger.posting import post, require_applied
from ledger.queries import get_balance
from registry.queries import get_wallet

DUE_MAX: Final = 4 * PAYOUTS_MAX
"""Approved payouts looked at in one call."""


@dataclass(slots=True)
class AllocationReport:
    """What one call allocated, and why other payouts wait."""

    spends: list[UUID] = field(default_factory=list)
    payouts: list[UUID] = field(default_factory=list)
    waiting: dict[UUID, str] = field(default_factory=dict)


async def allocate(
    bench: SpendBench, payouts: Sequence[Payout], market: Market
) -> AllocationReport:
    """Put payouts into transactions, many of one wallet into one; or say why they wait.

    One that shared a transaction which was not signed goes alone: whatever was wrong with it holds
    up no other.
    """
    report = AllocationReport()
    async with bench.engine.connect() as conn:
        before = await store.find_spends_of(conn, [item.id for item in payouts])
    for group in _group(payouts, {key for key, spends in before.items() if spends}):
        try:
            await _allocate_group(bench, group, market, report)
        except CausewayError as error:
            reasons = {item.id: error.render() for item in group}
            await _let_wait(bench, reasons)
            report.waiting |= reasons
    return report


def _group(payouts: Sequence[Payout], dropped: set[UUID]) -> list[list[Payout]]:
    together: dict[str, list[Payout]] = {}
    groups = []
    for item in payouts:
        if item.id in dropped or is_consolidation(item):
            groups.append([item])
        else:
            together.setdefault(item.source_wallet, []).append(item)
    return [*together.values(), *groups]


async def _allocate_group(
    bench: SpendBench, payouts: Sequence[Payout], market: Market, report: AllocationReport
) -> None:
    async def work(
        conn: AsyncConnection,
    ) -> tuple[Spend | None, list[Payout], dict[UUID, str]]:
        return await _allocate(bench, conn, payouts, market)

    made, taken, waiting = await transact(bench.engine, work)
    if made is not None:
        report.spends.append(made.id)
        report.payouts += [item.id for item in taken]
    report.waiting |= waiting


async def _let_wait(bench: SpendBench, reasons: Mapping[UUID, str]) -> None:
    async def work(conn: AsyncConnection) -> None:
        locked = await payout_rows.lock_many(conn, list(reasons))
        await _wait(conn, list(locked.values()), reasons, bench.clock.now())

    await transact(bench.engine, work)


async def _wait(
    conn: AsyncConnection, payouts: Sequence[Payout], reasons: Mapping[UUID, str], now: datetime
) -> None:
    for item in payouts:
        if item.state is PayoutState.APPROVED and item.id in reasons:
            reason = reasons[item.id][:TEXT_LENGTH_MAX]
            await payout_store.update_payout(
                conn, item.id, waiting_for=reason, run_after=now + RETRY_AFTER
            )


async def _allocate(
    bench: SpendBench, conn: AsyncConnection, payouts: Sequence[Payout], market: Market
) -> tuple[Spend | None, list[Payout], dict[UUID, str]]:
    now = bench.clock.now()
    locked = await payout_rows.lock_many(conn, [item.id for item in payouts])
    # Another worker may have taken some; what is over or stopped waits.
    due = [locked[p.id] for p in payouts if locked[p.id].state is PayoutState.APPROVED]
    waiting = await find_stopped(conn, due, now=now)
    waiting |= {p.id: "its time is over" for p in due if p.expires_at and p.expires_at <= now}
    going = [item for item in due if item.id not in waiting]
    if not going:
        await _wait(conn, due, waiting, now)
        return None, [], waiting
    view, frozen = await _view(conn, going, market)
    waiting |= {item.id: frozen for item in going if frozen}
    payees = [payee_of(item) for item in going if not frozen]
    # The signer keeps a coin that anchored signed payments for these for ever, also once they are
    # given up: it may be spent, but not anchor others.
    bound = await store.list_given_up(conn, going[0].chain, going[0].source_wallet)
    consolidates = is_consolidation(going[0])
    found, missing = choose(payees, view, market, bench.policy, consolidates=consolidates)
    if found is not None and all(coin.outpoint in bound for coin in found.coins):
        rest = tuple(coin for coin in view.coins if coin.outpoint not in bound)
        view = replace(view, coins=rest)
        found, missing = choose(payees, view, market, bench.policy, consolidates=consolidates)
    waiting |= missing
    await _wait(conn, due, waiting, now)
    if found is None:
        return None, [], waiting
    anchor = min(coin.outpoint for coin in found.coins if coin.outpoint not in bound)
    made = await _book(conn, found, anchor, view, now)
    return made, [item.payout for item in found.payees], waiting


async def _view(
    conn: AsyncConnection, payouts: Sequence[Payout], market: Market
) -> tuple[WalletView, str]:
    """Return what the books say of the wallet, whose sending addresses are locked from here on."""
    first = payouts[0]
    wallet = await get_wallet(conn, first.source_wallet)
    frozen = ""
    for sender in sorted({item.sender for item in payouts}):
        reason = await payout_store.lock_sender(conn, first.chain, sender, wallet.code)
        frozen = frozen or (f"{sender} is frozen: {reason}" if reason else "")
    balance = await get_balance(conn, first.book, f"custody:{wallet.code}", first.native_asset)
    spare = None
    if wallet.holds_client_money:
        found = await count_spare(conn, first.book, [first.native_asset])
        spare = found[first.native_asset]
    leaving = {
        item.id
        for item in payouts
        if is_own(item) and await leaves_clients(conn, wallet.code, item.parsed_claim.name)
    }
    free = await list_free_coins(conn, first.chain, wallet.code)
    if is_consolidation(first):
        free, refusal = await _small_coins(conn, first, free, market)
        frozen = frozen or refusal
    view = WalletView(
        coins=free,
        available=balance.available,
        spare=spare,
        leaving=frozenset(leaving),
    )
    return view, frozen


async def _small_coins(
    conn: AsyncConnection, payout: Payout, free: Sequence[SpentCoin], market: Market
) -> tuple[tuple[SpentCoin, ...], str]:
    """Return the coins that a consolidation may spend now by the rules in force, or why it waits."""
    rules = await find_active_rules(conn)
    found = None if rules is None else rules.find_consolidation(payout.source_wallet, payout.asset)
    if found is None:
        return (), f"no rule in force consolidates {payout.source_wallet}"
    if market.asked > found.rate_max:
        return (), f"blocks ask for {market.asked} sat/kvB, the rule waits for {found.rate_max}"
    limits = {"below": found.below, "inputs_max": found.inputs_max}
    return candidates(free, payout, rate=market.asked, **limits), ""


async def _book(
    conn: AsyncConnection, found: Chosen, anchor: Outpoint, view: WalletView, now: datetime
) -> Spend:
    first = found.payees[0].payout
    spend_id = derive_id(now, SPEND, first.chain, str(anchor), first.id)
    address, path = None, None
    if found.change:
        address, path = await assign_change(conn, first.source_wallet, spend_id, now)
    drafted = draft(found.payees, found.coins, found.change, script_of(address, first.chain_id))
    made = Spend(
        id=spend_id,
        book=first.book,
        chain=first.chain,
        chain_id=first.chain_id,
        wallet=first.source_wallet,
        state=SpendState.ALLOCATED,
        anchor=anchor,
        attempt=1,
        fee_cap=drafted.fee,
        change_address=address,
        change_path=path,
        created_at=now,
        run_after=now,
    )
    await store.insert_spend(conn, made)
    await store.insert_attempt(conn, build_attempt(made, 1, drafted, now))
    parts = _parts(made, found.payees, drafted.places)
    await store.insert_payouts(conn, parts)
    await lock_coins(conn, made, drafted.coins, now)
    shares = share_fee(drafted.fee, parts)
    payouts = [item.payout for item in found.payees]
    batch = [t for item in payouts for t in allocated(item, shares[item.id])]
    require_applied(await post(conn, made.book, batch, now=now))
    if view.spare is not None:
        leaving = sum(item.amount for item in payouts if item.id in view.leaving)
        await require_covered(conn, made.book, {first.native_asset: drafted.fee + leaving})
    _, events = await move_payouts(
        conn, [_move(item, made, shares[item.id]) for item in payouts], now=now
    )
    await record(conn, [begun(made, payouts, now=now, fee=drafted.fee), *events])
    return made


def _parts(made: Spend, payees: Sequence[Payee], places: Mapping[UUID, int]) -> list[SpendPayout]:
    return [
        SpendPayout(
            spend_id=made.id,
            payout_id=item.payout.id,
            weight=item.weight,
            output=places[item.payout.id],
        )
        for item in payees
    ]


def _move(payout: Payout, made: Spend, share: int) -> Move:
    return Move(
        payout=payout,
        to=PayoutState.ALLOCATED,
        payload={"spend_id": str(made.id), "fee_cap": str(share)},
        values={"attempt": 1, "fee_cap": share, "waiting_for": ""},
    )
