"""The lives of deposits, receipts and payouts, for ``causeway custody explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from app.cli.common import Money
from app.cli.explain import Moment, Section, Story, events, postings
from kernel.clock import iso
from kernel.errors import Refused

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from custody.deposit_model import Arrival, Deposit, Receipt
    from custody.payout_explain import PayoutStory
    from custody.payout_model import Payout


async def explain_object(conn: AsyncConnection, object_id: UUID, *, book: int) -> Story:
    """Return the story of whatever in custody has this id.

    Raises:
        Refused: nothing has it.
    """
    from custody.deposits import get_deposit
    from custody.errors import UnknownRow
    from custody.payout_explain import explain
    from custody.pending import explain_pending
    from custody.receipts import get_receipt

    money = await Money.load(conn)
    try:
        return _payout(await explain(conn, object_id), money)
    except UnknownRow:
        pass
    try:
        return await _deposit(conn, await get_deposit(conn, object_id), money, book)
    except UnknownRow:
        pass
    try:
        return await _receipt(conn, await get_receipt(conn, object_id), money, book)
    except UnknownRow:
        pass
    seen = await explain_pending(conn, object_id)
    if not seen:
        raise Refused(
            f"custody has no deposit, receipt, payout or pending arrival {object_id}",
            remedy="Look at `causeway custody deposits`, `receipts`, `payouts` and `pending`",
        )
    facts = {"kind": "pending arrival", "id": str(object_id), "state": seen[-1].to_state or ""}
    told = {key: str(value) for key, value in seen[0].payload.items()}
    return Story(f"Pending arrival {object_id}", {**facts, **told}, events(seen))


def payout_facts(payout: Payout, money: Money) -> dict[str, str]:
    """Return a payout as names and values."""
    return {
        "id": str(payout.id),
        "state": str(payout.state),
        "reference": payout.client_ref,
        "claim": payout.claim,
        "amount": money.text(payout.amount, payout.asset),
        "destination": payout.destination,
        "source": payout.source_wallet,
        "requested_by": payout.requested_by,
        "approvals_required": str(payout.approvals_required),
        "transaction": payout.tx_hash or "",
        "fee": "" if payout.fee_paid is None else money.text(payout.fee_paid, payout.native_asset),
        "waiting_for": payout.waiting_for,
        "requested": iso(payout.created_at),
        "expires": "" if payout.expires_at is None else iso(payout.expires_at),
    }


def _payout(story: PayoutStory, money: Money) -> Story:
    payout = story.payout
    # Postings are told anew from the journal, so that their amounts are decimals.
    told = [
        Moment(item.at, item.kind, item.actor, item.what)
        for item in story.timeline
        if item.kind != "posting"
    ]
    return Story(
        f"Payout {payout.id}",
        {
            "kind": "payout",
            **payout_facts(payout, money),
            "sender": payout.sender,
            **_decision_facts(story),
        },
        [*told, *postings(story.postings, money)],
        {
            "approvals": Section(
                ("operator", "at", "signature"),
                [(item.operator, iso(item.at), item.signature.hex()) for item in story.approvals],
            ),
            "attempts": Section(
                ("number", "state", "nonce", "transaction", "broadcasts", "detail"),
                [
                    (
                        str(item.number),
                        str(item.state),
                        str(item.nonce),
                        item.tx_hash or "",
                        str(item.broadcasts),
                        item.detail,
                    )
                    for item in story.attempts
                ],
            ),
            "spends": _spends(story, money),
        },
    )


def _spends(story: PayoutStory, money: Money) -> Section:
    """Return the transactions of Bitcoin that carry the payout, with its part of each fee."""
    from custody.bitcoin.spend_model import share_fee

    coin, mine = story.payout.native_asset, story.payout.id
    return Section(
        (
            "spend",
            "state",
            "payouts",
            "attempt",
            "kind",
            "at",
            "transaction",
            "fee",
            "share",
            "said",
        ),
        [
            (
                str(item.spend.id),
                str(item.spend.state),
                str(len(item.payouts)),
                str(one.number),
                str(one.kind),
                str(one.state),
                one.tx_id,
                money.text(one.fee, coin),
                money.text(share_fee(one.fee, item.parts)[mine], coin),
                one.detail,
            )
            for item in story.spends
            for one in item.attempts
        ],
    )


def _decision_facts(story: PayoutStory) -> dict[str, str]:
    """Return which rule decided, what it asked for, and what stops the payout now."""
    frozen = "" if story.frozen is None else f"{story.frozen.scope}: {story.frozen.closed_reason}"
    if story.decision is None or story.worked_out is None:
        return {"decision": "", "missed": "", "frozen": frozen}
    past = story.decision
    asked = ", ".join(f"{item.approvals} of {item.group}" for item in past.required)
    misses = [f"rule {miss.rule}: {', '.join(miss.fields)}" for miss in story.worked_out.misses]
    return {
        "decision": f"rule {past.rule} of policy {past.policy_version}: {past.action} {asked}".strip(),
        "missed": "; ".join(misses),
        "frozen": frozen,
    }


async def _deposit(conn: AsyncConnection, deposit: Deposit, money: Money, book: int) -> Story:
    from custody.deposits import explain, list_attributions
    from ledger.queries import list_transfers

    asked = f"{deposit.depth_required} blocks" + (", final" * deposit.finality_required)
    facts = {
        "kind": "deposit",
        **_arrival_facts(deposit, money),
        "state": str(deposit.state),
        "asked_for": f"{asked} (policy {deposit.policy_version})" if deposit.depth_required else "",
        "reason": deposit.reason,
    }
    history = await explain(conn, deposit.id)
    transfers = await list_transfers(conn, book, correlation=deposit.id)
    statements = await list_attributions(conn, deposit.id)
    return Story(
        f"Deposit {deposit.id}",
        facts,
        [*events(history), *postings(transfers, money)],
        {
            "inclusions": await _inclusions(conn, deposit),
            "attributions": Section(
                ("at", "credit", "first", "second", "reason"),
                [
                    (iso(item.at), item.credit, item.first, item.second, item.reason)
                    for item in statements
                ],
            ),
        },
    )


async def _receipt(conn: AsyncConnection, receipt: Receipt, money: Money, book: int) -> Story:
    from custody.receipts import explain
    from ledger.queries import list_transfers

    facts = {
        "kind": "receipt",
        **_arrival_facts(receipt, money),
        "state": str(receipt.state),
        "reference": receipt.reference,
        "matched_to": receipt.matched_to,
    }
    history = await explain(conn, receipt.id)
    transfers = await list_transfers(conn, book, correlation=receipt.id)
    return Story(
        f"Receipt {receipt.id}",
        facts,
        [*events(history), *postings(transfers, money)],
        {"inclusions": await _inclusions(conn, receipt)},
    )


def _arrival_facts(item: Arrival, money: Money) -> dict[str, str]:
    return {
        "id": str(item.id),
        "party": item.party or "",
        "amount": money.text(item.amount, item.asset),
        "address": item.address,
        "wallet": item.wallet,
        "sender": item.sender,
        "transaction": f"{item.tx_hash} {item.position}",
        "block": f"{item.height} {item.block_hash}",
        "epoch": str(item.epoch),
        "credit": item.credit,
        "seen": iso(item.first_seen_at),
    }


async def _inclusions(conn: AsyncConnection, item: Arrival) -> Section:
    from custody.deposits import list_inclusions

    found = await list_inclusions(conn, item.id)
    return Section(
        ("epoch", "height", "block", "observed"),
        [(str(one.epoch), str(one.height), one.block_hash, iso(one.observed_at)) for one in found],
    )
