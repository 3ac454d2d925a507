"""Netting with the money that is there: what is owed, what can be paid, and what no choice could better."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Final

from rich.table import Table

from app.demo.deposits import ACME, ACME_WALLET, BIRCH, BIRCH_WALLET
from app.demo.desk import deal_request, live_mid
from app.demo.founding import HOT, ISSUER, SETTLEMENT
from app.demo.guided.chapter import Chapter
from app.demo.guided.tour import Tour
from app.demo.stage import BOOK, Stage
from app.workers.cycle_release import CycleRelease, CycleReleased, InTransactions
from custody.model import AddressPurpose
from custody.payout_model import Payout, PayoutRequest
from custody.payouts import cancel_payout, get_payout
from registry.model import Party, PartyKind
from registry.testing import ENTITY, change
from settlement.liquidity_run import choose_release, gather, read_payable
from settlement.matching.posting import match_receipts
from settlement.model import Calculation, Direction, Instruction, Obligation, Run, RunState
from settlement.netting.model import Choice, Method
from settlement.queries import get_run, list_run_instructions
from settlement.release import record_finality, release_run
from settlement.release_model import PlanInputs
from settlement.runs import affirm, affirmation_bytes, open_run, pull_obligations, seal
from settlement.solvers.loading import load_solvers
from trading.deals import book_deal
from trading.model import DealSide
from trading.terms.model import Agreement
from trading.terms.testing import set_agreement, set_standing_instruction

WALLETS: Final[Mapping[str, int]] = {ACME: ACME_WALLET, BIRCH: BIRCH_WALLET, "cedar": 6, "dove": 7}
"""Who settles today, with the number of the outside wallet that each of them has."""
DEALS: Final = (
    (ACME, DealSide.DESK_SELLS, "7 ETH"),
    (ACME, DealSide.DESK_BUYS, "2 ETH"),
    (BIRCH, DealSide.DESK_SELLS, "9 ETH"),
    (BIRCH, DealSide.DESK_BUYS, "5 ETH"),
    ("cedar", DealSide.DESK_SELLS, "6 ETH"),
    ("cedar", DealSide.DESK_BUYS, "3 ETH"),
    ("dove", DealSide.DESK_SELLS, "2 ETH"),
)
WINDOW: Final = "guided"


@dataclass(frozen=True, slots=True)
class Short:
    """What could be chosen from, and how the two ways of choosing do.

    Attributes:
        best: the most that any set of payments is worth for which the money is there: every one tried.
    """

    inputs: PlanInputs
    funds: int
    fifo: Choice
    best: int


async def net_with_the_money_there_is(tour: Tour) -> None:
    """Net a day's deals, let everybody pay us, leave too little in the wallet, and choose."""
    stage = tour.stage
    tour.say(
        "A day's deals with four clients fall due. Netting first makes many payments into few. Then there",
        "is less money in the wallet than they add up to: who is paid? In the order of arrival one large",
        "payment may block the queue while smaller ones behind it would fit.",
    )
    for party in ("cedar", "dove"):
        record = Party(party, PartyKind.CLIENT, ENTITY.code)
        await stage.do(partial(change, record=record, now=stage.clock.now()))
    await _agree(tour)
    run, calculation, obligations = await _net(tour)
    tour.exhibit("owed, and what is left of it to move", _netted(tour, obligations, calculation))
    await _affirm_and_seal(stage, run, calculation)
    await _everybody_pays(stage, run)

    kept, short = await _leave_too_little(tour, run)
    tour.exhibit("who is paid with what there is", _choices(tour, short, await _items(tour, run)))
    release = CycleRelease(
        do=InTransactions(stage.world.engine),
        clock=stage.clock,
        book=BOOK,
        by=await stage.operator("ada"),
        method=Method.OPTIMAL,
        solvers=load_solvers,
    )
    done = await release.all([await stage.do(partial(get_run, run_id=run.id))])
    assert done.plan is not None, "there is something to choose"
    choice = done.plan.choice
    await _pay(stage, done)
    stage.note(
        f"the desk pays {len(done.payouts)} of {len(short.inputs.payments)}: "
        f"{stage.money(choice.value, 'ETH')}, found by {choice.method}"
    )

    await stage.do(
        partial(
            cancel_payout,
            payout_id=kept.id,
            by=await stage.operator("ada"),
            reason="the coins are needed for settlement",
            book=BOOK,
            now=stage.clock.now(),
        )
    )
    stage.note("treasury frees the rest; the run goes on from where it stood")
    rest = await release.all([await stage.do(partial(get_run, run_id=run.id))])
    await _pay(stage, rest)
    await _until_final(stage, run)
    moved = sum(item.amount for item in calculation.items if item.asset == "ETH")
    gross = sum(item.amount for item in obligations if item.asset == "ETH")
    tour.prove(
        "netting leaves less to move than is owed",
        0 < moved < gross,
        f"{stage.money(gross, 'ETH')} owed, {stage.money(moved, 'ETH')} moved",
    )
    tour.prove(
        "with the same money the choice pays more than the queue does",
        short.fifo.value < choice.value <= short.funds,
        f"{stage.money(short.fifo.value, 'ETH')} in order, {stage.money(choice.value, 'ETH')} chosen, "
        f"{stage.money(short.funds, 'ETH')} there",
    )
    tour.prove(
        "no set of payments could do better: every one was tried, and the bound says so too",
        choice.value == short.best <= choice.bound,
        f"best of {2 ** len(short.inputs.payments)} sets {stage.money(short.best, 'ETH')}, "
        f"bound {stage.money(choice.bound, 'ETH')}",
    )
    paid = {*done.payouts, *rest.payouts}
    tour.prove(
        "everybody is paid in the end, each once",
        len(paid) == len(done.payouts) + len(rest.payouts) == len(short.inputs.payments),
        f"{len(done.payouts)} now, {len(rest.payouts)} after, run {RunState.FINAL}",
    )
    await tour.prove_places()


async def _agree(tour: Tour) -> None:
    stage = tour.stage
    now = stage.clock.now()
    for party, wallet in WALLETS.items():
        address = stage.world.outsiders.address(wallet)
        agreement = Agreement(party=party, effective_from=now.date(), prefunded=False)
        await stage.do(partial(set_agreement, agreement=agreement, now=now))
        await tour.allow(party, address)
        await stage.do(
            partial(
                set_standing_instruction, party=party, asset="ETH", destination=address, now=now
            )
        )


async def _net(tour: Tour) -> tuple[Run, Calculation, Sequence[Obligation]]:
    stage = tour.stage
    mid = await live_mid(stage, tour.room)
    for number, (party, side, amount) in enumerate(DEALS):
        request = deal_request(stage, f"netting-{number}", party, side, amount, mid)
        await stage.do(partial(book_deal, request=request, book=BOOK, now=stage.clock.now()))
    stage.note(f"{len(DEALS)} deals with {len(WALLETS)} clients are booked")
    now = stage.clock.now()
    obligations = await stage.do(partial(pull_obligations, book=BOOK, now=now))
    run, calculation = await stage.do(
        partial(open_run, book=BOOK, value_date=now.date(), window=WINDOW, by="ada", now=now)
    )
    stage.note(
        f"{len(obligations)} obligations become {len(calculation.items)} payments",
        f"run {run.id}, inputs {calculation.input_hash[:16]}…",
    )
    return run, calculation, obligations


async def _affirm_and_seal(stage: Stage, run: Run, calculation: Calculation) -> None:
    ada, dan = await stage.operator("ada"), await stage.operator("dan")
    evidence = hashlib.sha256(b"the parties agree").hexdigest()
    for party in sorted({item.party for item in calculation.items}):
        await stage.do(
            partial(
                affirm,
                run_id=run.id,
                version=calculation.version,
                party=party,
                by=dan,
                witness=ada,
                signature=stage.sign("ada", affirmation_bytes(run, calculation, party, evidence)),
                evidence_hash=evidence,
                now=stage.clock.now(),
            )
        )
    await stage.do(partial(seal, run_id=run.id, by=ada, now=stage.clock.now()))
    await stage.do(partial(release_run, run_id=run.id, by=ada, now=stage.clock.now()))
    stage.note("all affirm; the run is sealed and released: what clients owe is awaited")


async def _everybody_pays(stage: Stage, run: Run) -> None:
    out = stage.world.outsiders
    items = await stage.do(partial(list_run_instructions, run_id=run.id))
    owing = [item for item in items if item.direction is Direction.RECEIVE]
    for item in owing:
        wallet = WALLETS[item.party]
        address = await stage.address(SETTLEMENT, AddressPurpose.SETTLEMENT, item.party)
        await out.send_token(ISSUER, out.address(wallet), item.amount)
        await out.mine()
        await out.send_token(wallet, address, item.amount)
    matched = 0

    async def all_matched() -> bool:
        nonlocal matched
        found = await stage.do(partial(match_receipts, book=BOOK, now=stage.clock.now()))
        matched += sum(match.completes for match in found)
        return matched == len(owing)

    await stage.until(all_matched, "the receipt of what clients owe")
    stage.note(f"{len(owing)} clients have paid what they owe; each receipt is final and matched")


async def _leave_too_little(tour: Tour, run: Run) -> tuple[Payout, Short]:
    """Promise so much of the wallet elsewhere that the queue blocks, and return the two choices."""
    stage = tour.stage
    inputs = await _inputs(stage, run)
    amounts = [
        p.value
        for p in sorted(inputs.payments, key=lambda p: (inputs.classes[p.id], p.order_key, p.id))
    ]
    there = inputs.funds[(HOT, "ETH")]
    wanted = blocking_funds(amounts)
    kept = await stage.request(
        PayoutRequest(
            client_ref="to-settlement-1",
            claim=f"own:{SETTLEMENT}",
            source_wallet=HOT,
            asset="ETH",
            amount=there - wanted,
            destination=await stage.address(SETTLEMENT, AddressPurpose.SETTLEMENT, ACME),
            requested_by="ada",
            reason="treasury wants the rest elsewhere",
        )
    )
    short = await _inputs(stage, run)
    funds = short.funds[(HOT, "ETH")]
    stage.note(
        f"treasury has promised the rest elsewhere: {stage.money(funds, 'ETH')} are free for "
        f"{stage.money(sum(amounts), 'ETH')} to be paid"
    )
    sums = [sum(part) for size in range(len(amounts) + 1) for part in combinations(amounts, size)]
    return kept, Short(
        inputs=short,
        funds=funds,
        fifo=choose_release(short, method=Method.FIFO),
        best=max(total for total in sums if total <= funds),
    )


def blocking_funds(amounts: Sequence[int]) -> int:
    """Return funds with which paying *amounts* in their order leaves the most money lying idle."""
    sums = {sum(part) for size in range(1, len(amounts)) for part in combinations(amounts, size)}

    def idle(funds: int) -> int:
        paid = 0
        for amount in amounts:
            if paid + amount > funds:
                break
            paid += amount
        return funds - paid

    return max(sorted(sums), key=idle)


async def _inputs(stage: Stage, run: Run) -> PlanInputs:
    found = await stage.do(partial(read_payable, book=BOOK, run_ids=[run.id]))
    return gather(found, BOOK, run.id, on=run.value_date)


async def _items(tour: Tour, run: Run) -> dict[str, Instruction]:
    items = await tour.stage.do(partial(list_run_instructions, run_id=run.id))
    return {str(item.id): item for item in items}


async def _pay(stage: Stage, done: CycleReleased) -> None:
    """Let a second person approve what the run wants to pay, and send it."""
    for payout_id in done.payouts.values():
        payout = await stage.do(partial(get_payout, payout_id=payout_id))
        await stage.approve(payout, "ben")
    await stage.watcher.turn()


async def _until_final(stage: Stage, run: Run) -> None:
    async def final() -> bool:
        close = partial(record_finality, run_ids=[run.id], now=stage.clock.now())
        (done,) = await stage.do(close)
        return done.state is RunState.FINAL

    await stage.until(final, "the finality of the run")
    stage.note("every payment is final on the chain; the obligations are discharged")


def _netted(tour: Tour, obligations: Sequence[Obligation], calculation: Calculation) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right", style="bold")
    table.add_row("", "owed", "to move", style="dim")
    for asset in sorted({item.asset for item in obligations}):
        gross = sum(item.amount for item in obligations if item.asset == asset)
        net = sum(item.amount for item in calculation.items if item.asset == asset)
        table.add_row(asset, tour.stage.money(gross, asset), tour.stage.money(net, asset))
    table.add_row("payments", str(len(obligations)), str(len(calculation.items)))
    return table


def _choices(tour: Tour, short: Short, items: Mapping[str, Instruction]) -> Table:
    optimal = choose_release(short.inputs, method=Method.OPTIMAL, solvers=load_solvers())
    table = Table.grid(padding=(0, 3))
    for justify in ("left", "right", "center", "center"):
        table.add_column(justify=justify)
    table.add_row("to", "amount", "in order", "chosen", style="dim")
    for payment in sorted(short.inputs.payments, key=lambda p: (p.order_key, p.id)):
        table.add_row(
            items[payment.id].party,
            tour.stage.money(payment.value, "ETH"),
            "●" if payment.id in short.fifo.chosen else "·",
            "[green]●[/]" if payment.id in optimal.chosen else "·",
        )
    table.add_row(
        "paid",
        tour.stage.money(short.funds, "ETH") + " there",
        tour.stage.money(short.fifo.value, "ETH"),
        tour.stage.money(optimal.value, "ETH"),
        style="bold",
    )
    table.add_row("bound", "", "", tour.stage.money(optimal.bound, "ETH"), style="dim")
    return table


CHAPTER: Final = Chapter(
    "netting",
    "Netting with the money there is",
    "If the money does not suffice for everybody, who says who is paid?",
    net_with_the_money_there_is,
)
