"""Payouts as the books would have them, had they not been lost: the same rows, postings and ids.

What was signed, or given to a bank, is a fact: it is written and posted whatever a rule of today says of
it. What the claim lacks for it, because what came in meanwhile is not here again yet, its party owes:
Dr ``receivable:<party>:reorg`` / Cr the claim, as after a reorganisation, and the same way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, TypedDict, Unpack
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from custody import payout_store as store
from custody.errors import NotPossible
from custody.model import bank_account_path, custody_account, reorg_account
from custody.payout_events import PAYOUT, event_name
from custody.payout_model import ClaimKind, Payout, PayoutState
from custody.payout_moves import Move, move_payouts
from custody.payout_postings import SHORTFALL, accounts, reserved
from custody.restore.store import moment
from custody.restore_gate import BY
from custody.restore_marks import About
from kernel.errors import Refused
from kernel.events import DomainEvent, record
from kernel.ids import derive_id
from ledger.accounts import ensure_accounts
from ledger.model import Transfer, transfer
from ledger.posting import post
from ledger.queries import get_balances
from registry.model import BANK
from registry.queries import list_bank_accounts, list_wallets

WHY: Final = "it was sent, and the database was restored to an earlier moment"
WALK: Final = (PayoutState.RESERVED, PayoutState.PENDING_APPROVAL, PayoutState.APPROVED)


class Facts(TypedDict):
    """What a signature, or a payment file, says of a payout."""

    chain: str
    chain_id: int
    source_wallet: str
    sender: str
    sender_path: str
    contract: str | None
    chain_amount: int
    destination: str
    requested_by: str
    policy_version: int
    rule: int


_INSERTED: Final = tuple(
    name
    for name in Payout.__dataclass_fields__
    if name
    not in {
        *("nonce", "fee_paid", "succeeded", "tx_hash", "mined_height", "mined_block"),
        *("fence", "claim_returned", "released_at"),
    }
)


def born_at(payout_id: UUID) -> datetime:
    """Return when a payout was requested: its id says so, to the millisecond."""
    return moment(payout_id.int >> 80)


def is_id_of(payout_id: UUID, *, book: int, claim: str, client_ref: str) -> bool:
    """Tell whether a payout's id follows from these: nobody could name others for it."""
    return derive_id(born_at(payout_id), PAYOUT, book, claim, client_ref) == payout_id


def lost_payout(payout_id: UUID, about: About, **facts: Unpack[Facts]) -> Payout:
    """Return a payout as it was when it was requested: by what the house has said of it, and *facts*.

    Raises:
        Refused: its id is not that of its claim and reference.
    """
    if not is_id_of(payout_id, book=about.book, claim=about.claim, client_ref=about.client_ref):
        raise Refused(f"payout {payout_id} has not the id that its claim and reference give")
    return made_payout(payout_id, about, **facts)


def made_payout(payout_id: UUID, about: About, **facts: Unpack[Facts]) -> Payout:
    """Return the same of one whose id proves nothing, as that of one which only fills a gap."""
    born = born_at(payout_id)
    own = about.claim.startswith(f"{ClaimKind.OWN}:")
    return Payout(
        id=payout_id,
        book=about.book,
        client_ref=about.client_ref,
        claim=about.claim,
        rail=about.rail,
        asset=about.asset,
        amount=int(about.amount),
        native_asset=about.native_asset,
        reason=about.reason,
        party=None if own else about.claim.split(":")[1],
        run_after=born,
        created_at=born,
        **facts,
    )


async def insert_lost(conn: AsyncConnection, payout: Payout) -> Payout:
    """Write the row of a payout that the database has lost, and what opening it told.

    Raises:
        NotPossible: the party's reference was given to another payout meanwhile.
    """
    values: dict[str, Any] = {name: getattr(payout, name) for name in _INSERTED}
    values |= {"required": [], "state": PayoutState.REQUESTED}
    if not await store.insert_payout(conn, values):
        raise NotPossible(
            f"reference {payout.client_ref} of {payout.party or payout.claim} is of another payout"
            " by now",
            remedy="Two people settle it by hand: causeway restore settle",
        )
    event = DomainEvent(
        entity_type=PAYOUT,
        entity_id=payout.id,
        version=1,
        name=event_name("Payout", PayoutState.REQUESTED),
        at=payout.created_at,
        actor=payout.requested_by,
        reason=payout.reason,
        to_state=PayoutState.REQUESTED,
        payload={
            "claim": payout.claim,
            "asset": payout.asset,
            "amount": str(payout.amount),
            "restored": True,
        },
    )
    await record(conn, [event])
    return replace(payout, state=PayoutState.REQUESTED)


async def open_accounts(conn: AsyncConnection, payouts: Sequence[Payout], now: datetime) -> None:
    """Open every account that these payouts of one book can touch, and those of what they may lack."""
    owners = {
        custody_account(item.code): item.owner
        for chain in sorted({item.chain for item in payouts} - {BANK})
        for item in await list_wallets(conn, chain)
    }
    owners |= {bank_account_path(item.code): item.owner for item in await list_bank_accounts(conn)}
    keys = {key for item in payouts for key in accounts(item)}
    keys |= {(reorg_account(debtor(item)), item.asset) for item in payouts if debtor(item)}
    await ensure_accounts(conn, payouts[0].book, sorted(keys), owners=owners, now=now)


def debtor(payout: Payout) -> str:
    """Return who owes what a payout was more than its claim; "": our own coins, nobody does."""
    claim = payout.parsed_claim
    return "" if claim.kind is ClaimKind.OWN else claim.name


async def reserve_lost(
    conn: AsyncConnection, payouts: Sequence[Payout], now: datetime
) -> list[Transfer]:
    """Return what reserves payouts that are not reserved: first what their claims lack.

    The ledger's head is locked by this, so nothing of the balances can change any more.
    """
    await post(conn, payouts[0].book, [], now=now)
    claims = {(item.parsed_claim.account, item.asset) for item in payouts}
    keys = {(path, asset) for path, asset in claims if path is not None}
    balances = await get_balances(conn, payouts[0].book, keys)
    free = {key: found.available for key, found in balances.items()}
    batch: list[Transfer] = []
    for item in payouts:
        path = item.parsed_claim.account
        if path is not None:
            key = path, item.asset
            missing = max(0, item.amount - max(0, free.get(key, 0)))
            if missing:
                batch.append(_owed(item, path, missing))
            free[key] = max(0, free.get(key, 0) + missing - item.amount)
        if not item.fills_gap:
            batch += reserved(item)
    return batch


async def walk(
    conn: AsyncConnection, payout: Payout, to: PayoutState, *, now: datetime, **values: Any
) -> Payout:
    """Move a locked payout along its edges to *to*, telling each; *values* come with the last."""
    if payout.fills_gap or to is not PayoutState.ALLOCATED:
        return await _step(conn, payout, to, now, values)
    ahead = WALK[WALK.index(payout.state) + 1 :] if payout.state in WALK else WALK
    for state in ahead:
        payout = await _step(conn, payout, state, now, {})
    return await _step(conn, payout, to, now, values)


async def _step(
    conn: AsyncConnection, payout: Payout, to: PayoutState, now: datetime, values: dict[str, Any]
) -> Payout:
    move = Move(payout=payout, to=to, reason=WHY, actor=BY, values={"waiting_for": "", **values})
    moved, events = await move_payouts(conn, [move], now=now)
    await record(conn, events)
    return moved[payout.id]


def _owed(payout: Payout, path: str, amount: int) -> Transfer:
    return transfer(
        derive_id(payout.created_at, "payout.restored-shortfall", payout.id),
        reorg_account(debtor(payout)),
        path,
        amount,
        payout.asset,
        code=SHORTFALL,
        correlation=payout.id,
    )
