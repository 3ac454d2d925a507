"""The statements of payments out: rows in, frozen values back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Row,
    Table,
    Text,
    Uuid,
    any_,
    column,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from custody import control_store
from custody.errors import UnknownRow
from custody.model import AddressPurpose
from custody.payout_model import (
    ON_ITS_WAY,
    Approval,
    Attempt,
    AttemptKind,
    AttemptState,
    Claim,
    ClaimKind,
    ForeignLeg,
    ForeignSpend,
    ForeignState,
    Nonce,
    NonceState,
    Payout,
    PayoutState,
    Quorum,
    Source,
)
from custody.payout_tables import (
    foreign_spend,
    payout,
    payout_attempt,
    payout_nonce,
    payout_sender,
)
from custody.tables import address
from kernel.errors import Refused
from kernel.leases import require_one
from kernel.rows import insert_new_rows

PAGE_MAX: Final = 500
NONCES_MAX: Final = 10_000

# A row has a method called index, so the column needs another name.
_SOURCES: Final = select(
    address.c.address, address.c.wallet, address.c.branch, address.c.index.label("number")
)


def _places(table: Table, names: Sequence[str]) -> Any:
    """Return what takes the columns *names* out of a row of the whole table, by their place."""
    columns = table.c.keys()
    return itemgetter(*(columns.index(name) for name in names))


_PAYOUT_NAMES: Final = tuple(Payout.__dataclass_fields__)
_PAYOUT_FIELDS: Final = _places(payout, _PAYOUT_NAMES)
_STATE: Final = _PAYOUT_NAMES.index("state")
_REQUIRED: Final = _PAYOUT_NAMES.index("required")
_ATTEMPT_NAMES: Final = tuple(Attempt.__dataclass_fields__)
_ATTEMPT_FIELDS: Final = _places(payout_attempt, _ATTEMPT_NAMES)
_ATTEMPT_STATE: Final = _ATTEMPT_NAMES.index("state")
_KIND: Final = _ATTEMPT_NAMES.index("kind")
_ON_ITS_WAY: Final = payout.c.state.in_(sorted(ON_ITS_WAY))


def to_payout(row: Row[Any]) -> Payout:
    """Return the payout in *row*, which has the columns of the table in their order."""
    values = list(_PAYOUT_FIELDS(row))
    values[_STATE] = PayoutState(values[_STATE])
    values[_REQUIRED] = tuple(
        Quorum(item["group"], item["approvals"]) for item in values[_REQUIRED]
    )
    return Payout(**dict(zip(_PAYOUT_NAMES, values, strict=True)))


def to_attempt(row: Row[Any]) -> Attempt:
    """Return the attempt in *row*, which has the columns of the table in their order."""
    values = list(_ATTEMPT_FIELDS(row))
    values[_ATTEMPT_STATE] = AttemptState(values[_ATTEMPT_STATE])
    values[_KIND] = AttemptKind(values[_KIND])
    return Attempt(**dict(zip(_ATTEMPT_NAMES, values, strict=True)))


async def insert_payouts(conn: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> set[UUID]:
    """Insert payouts unless their references exist; return the ids of those that this call did."""
    return await insert_new_rows(conn, payout, rows)


async def insert_payout(conn: AsyncConnection, values: Mapping[str, Any]) -> bool:
    """Insert the payout unless its reference exists; tell whether this call did."""
    return bool(await insert_payouts(conn, [values]))


async def find_payouts_by_reference(
    conn: AsyncConnection, book: int, keys: Collection[tuple[str, str]]
) -> list[Payout]:
    """Return the payouts among (claim or party, reference): a party has each reference once."""
    wanted = sorted(set(keys))
    owners = literal([owner for owner, _ in wanted], ARRAY(Text))
    references = literal([reference for _, reference in wanted], ARRAY(Text))
    asked = (
        func.unnest(owners, references)
        .table_valued(column("owner", Text), column("reference", Text), name="asked")
        .render_derived()
    )
    same = (payout.c.book == book) & (payout.c.client_ref == asked.c.reference)
    by_claim = select(payout).join(asked, same & (payout.c.claim == asked.c.owner))
    by_party = select(payout).join(asked, same & (payout.c.party == asked.c.owner))
    return [to_payout(row) for part in (by_claim, by_party) for row in await conn.execute(part)]


async def get_payout(conn: AsyncConnection, payout_id: UUID, *, lock: bool = False) -> Payout:
    """Return a payout, its row locked if asked for.

    Raises:
        UnknownRow: there is none with that id.
    """
    statement = select(payout).where(payout.c.id == payout_id)
    if lock:
        statement = statement.with_for_update()
    row = (await conn.execute(statement)).one_or_none()
    if row is None:
        raise UnknownRow(f"there is no payout {payout_id}")
    return to_payout(row)


async def list_payouts(
    conn: AsyncConnection,
    *,
    book: int | None = None,
    chain: str | None = None,
    states: Collection[PayoutState] | None = None,
    claim: str | None = None,
    expired_at: datetime | None = None,
    after: Payout | None = None,
    limit: int = PAGE_MAX,
) -> list[Payout]:
    """Return a page of payouts, oldest first; *after* is the last one of the page before."""
    statement = select(payout).order_by(payout.c.created_at, payout.c.id)
    if book is not None:
        statement = statement.where(payout.c.book == book)
    if chain is not None:
        statement = statement.where(payout.c.chain == chain)
    if states is not None:
        statement = statement.where(payout.c.state.in_([str(s) for s in states]))
    if claim is not None:
        statement = statement.where(payout.c.claim == claim)
    if expired_at is not None:
        statement = statement.where(payout.c.expires_at <= expired_at)
    if after is not None:
        position = tuple_(payout.c.created_at, payout.c.id)
        statement = statement.where(position > tuple_(after.created_at, after.id))
    return [to_payout(row) for row in await conn.execute(statement.limit(min(limit, PAGE_MAX)))]


async def list_held(conn: AsyncConnection, chain: str, sender: str) -> set[UUID]:
    """Return every payout on SECURITY_HOLD of a sending address, however many there are."""
    rows = await conn.execute(
        select(payout.c.id).where(
            payout.c.chain == chain,
            payout.c.sender == sender,
            payout.c.state == PayoutState.SECURITY_HOLD,
        )
    )
    return set(rows.scalars())


async def count_ended(conn: AsyncConnection, chain: str, sender: str, prefix: str) -> int:
    """Return how many payouts of an address whose reference begins like this ended unsigned."""
    count = await conn.scalar(
        select(func.count())
        .select_from(payout)
        .where(
            payout.c.chain == chain,
            payout.c.sender == sender,
            payout.c.state.in_([PayoutState.REJECTED, PayoutState.EXPIRED]),
            payout.c.client_ref.startswith(prefix, autoescape=True),
        )
    )
    return int(count or 0)


async def every_payout(
    conn: AsyncConnection,
    *,
    book: int,
    states: Collection[PayoutState],
    chain: str | None = None,
) -> AsyncIterator[Payout]:
    """Give every payout of a book in the given states, oldest first, a page at a time."""
    page = await list_payouts(conn, book=book, chain=chain, states=states)
    while page:
        for item in page:
            yield item
        page = await list_payouts(conn, book=book, chain=chain, states=states, after=page[-1])


async def lock_payouts(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Payout]:
    """Return the payouts by id, their rows locked in the order of their ids."""
    if not ids:
        return {}
    wanted = literal(list(ids), ARRAY(Uuid))
    statement = (
        select(payout).where(payout.c.id == any_(wanted)).order_by(payout.c.id).with_for_update()
    )
    return {row.id: to_payout(row) for row in await conn.execute(statement)}


async def update_payout(
    conn: AsyncConnection, payout_id: UUID, *, fence: int | None = None, **values: object
) -> None:
    """Write a payout; with *fence*, only while no other worker has claimed it.

    Raises:
        StaleFence: it was claimed since, or does not exist.
    """
    statement = update(payout).where(payout.c.id == payout_id)
    if fence is not None:
        statement = statement.where(payout.c.fence == fence)
    require_one(await conn.execute(statement.values(**values)), f"payout {payout_id}")


async def insert_attempt(conn: AsyncConnection, attempt: Attempt) -> None:
    """Insert an attempt."""
    values = {name: getattr(attempt, name) for name in Attempt.__dataclass_fields__}
    await conn.execute(insert(payout_attempt).values(**values))


async def get_attempt(conn: AsyncConnection, payout_id: UUID, number: int) -> Attempt:
    """Return one attempt of a payout."""
    row = (
        await conn.execute(
            select(payout_attempt).where(
                payout_attempt.c.payout_id == payout_id, payout_attempt.c.number == number
            )
        )
    ).one_or_none()
    if row is None:
        raise UnknownRow(f"payout {payout_id} has no attempt {number}")
    return to_attempt(row)


async def list_attempts(conn: AsyncConnection, payout_id: UUID) -> list[Attempt]:
    """Return the attempts of a payout, the first one first."""
    rows = await conn.execute(
        select(payout_attempt)
        .where(payout_attempt.c.payout_id == payout_id)
        .order_by(payout_attempt.c.number)
    )
    return [to_attempt(row) for row in rows]


async def find_attempts_by_hash(
    conn: AsyncConnection, chain: str, hashes: Collection[str]
) -> dict[str, Attempt]:
    """Return our attempts among transaction hashes."""
    if not hashes:
        return {}
    rows = await conn.execute(
        select(payout_attempt).where(
            payout_attempt.c.chain == chain, payout_attempt.c.tx_hash.in_(hashes)
        )
    )
    return {row.tx_hash: to_attempt(row) for row in rows}


async def update_attempt(conn: AsyncConnection, attempt_id: UUID, **values: object) -> None:
    """Write an attempt, whose payout's row is locked."""
    statement = update(payout_attempt).where(payout_attempt.c.id == attempt_id).values(**values)
    require_one(await conn.execute(statement), f"attempt {attempt_id}")


async def find_sources(
    conn: AsyncConnection, chain: str, texts: Collection[str]
) -> dict[str, Source]:
    """Return our addresses among *texts*."""
    if not texts:
        return {}
    rows = await conn.execute(
        _SOURCES.where(address.c.chain == chain, address.c.address.in_(texts))
    )
    return {row.address: Source(row.address, row.wallet, row.branch, row.number) for row in rows}


async def find_hot_source(conn: AsyncConnection, wallet: str) -> Source | None:
    """Return the first hot address of a wallet, from which its payouts leave."""
    rows = await conn.execute(
        _SOURCES.where(address.c.wallet == wallet, address.c.purpose == AddressPurpose.HOT)
        .order_by(address.c.index)
        .limit(1)
    )
    row = rows.one_or_none()
    return None if row is None else Source(row.address, row.wallet, row.branch, row.number)


async def lock_sender(conn: AsyncConnection, chain: str, address: str, wallet: str) -> str | None:
    """Lock a sending address with all others of its wallet; return why it is frozen, if it is.

    Whoever promises a wallet's coins or takes a nonce holds these locks: the coins are counted for
    the wallet as a whole. So the wallet has a row too: two addresses that never paid before, whose
    own rows neither transaction can see yet, meet there.
    """
    for name in (f"wallet:{wallet}", address):
        await conn.execute(
            pg_insert(payout_sender)
            .values(chain=chain, address=name, wallet=wallet)
            .on_conflict_do_nothing()
        )
    rows = await conn.execute(
        select(payout_sender.c.address, payout_sender.c.frozen_reason)
        .where(payout_sender.c.chain == chain, payout_sender.c.wallet == wallet)
        .order_by(payout_sender.c.address)
        .with_for_update()
    )
    reasons: dict[str, str | None] = {row.address: row.frozen_reason for row in rows}
    return reasons[address]


async def freeze_sender(
    conn: AsyncConnection, chain: str, address: str, wallet: str, reason: str | None
) -> None:
    """Freeze a sending address (or, with None, thaw it)."""
    await conn.execute(
        pg_insert(payout_sender)
        .values(chain=chain, address=address, wallet=wallet, frozen_reason=reason)
        .on_conflict_do_update(index_elements=["chain", "address"], set_={"frozen_reason": reason})
    )


async def load_nonces(
    conn: AsyncConnection, chain: str, sender: str, since: int
) -> tuple[int, dict[int, NonceState]]:
    """Return the lowest nonce that was ever taken (0: none), and the states from *since* on.

    Raises:
        Refused: more are open than may ever be.
    """
    mine = (payout_nonce.c.chain == chain) & (payout_nonce.c.sender == sender)
    first = await conn.scalar(select(func.min(payout_nonce.c.nonce)).where(mine))
    found = await conn.execute(
        select(payout_nonce.c.nonce, payout_nonce.c.state)
        .where(mine, payout_nonce.c.nonce >= since)
        .limit(NONCES_MAX)
    )
    rows = {row.nonce: NonceState(row.state) for row in found}
    if len(rows) == NONCES_MAX:
        raise Refused(f"{NONCES_MAX} nonces of {sender} are ahead of the node", where=chain)
    return int(first or 0), rows


async def take_nonce(
    conn: AsyncConnection, chain: str, sender: str, nonce: int, payout_id: UUID, now: datetime
) -> None:
    """Take a nonce for a payout; the sending address is locked.

    Raises:
        StaleFence: it is not free.
    """
    taken = {"payout_id": payout_id, "state": NonceState.LIVE, "since": now}
    statement = (
        pg_insert(payout_nonce)
        .values(chain=chain, sender=sender, nonce=nonce, **taken)
        .on_conflict_do_update(
            index_elements=["chain", "sender", "nonce"],
            set_=taken,
            where=payout_nonce.c.state == NonceState.RELEASED,
        )
    )
    require_one(await conn.execute(statement), f"nonce {nonce} of {sender}")


async def end_nonce(
    conn: AsyncConnection, chain: str, sender: str, nonce: int, state: NonceState, now: datetime
) -> None:
    """Write what became of a nonce."""
    await conn.execute(
        update(payout_nonce)
        .where(
            payout_nonce.c.chain == chain,
            payout_nonce.c.sender == sender,
            payout_nonce.c.nonce == nonce,
        )
        .values(state=state, since=now)
    )


async def find_nonce_state(
    conn: AsyncConnection, chain: str, sender: str, nonce: int
) -> NonceState | None:
    """Return what became of a nonce; None when it was never taken."""
    state = await conn.scalar(
        select(payout_nonce.c.state).where(
            payout_nonce.c.chain == chain,
            payout_nonce.c.sender == sender,
            payout_nonce.c.nonce == nonce,
        )
    )
    return None if state is None else NonceState(state)


async def list_open_nonces(conn: AsyncConnection, chain: str, book: int) -> list[Nonce]:
    """Return the nonces of a book's payouts that no block has, by address and nonce.

    One whose payout is mined waits for nobody but depth.
    """
    rows = await conn.execute(
        select(payout_nonce)
        .join(payout, payout.c.id == payout_nonce.c.payout_id)
        .where(
            payout_nonce.c.chain == chain,
            # In so many words: a plan for any state does not see that the index has these alone.
            payout_nonce.c.state != literal(NonceState.SPENT, literal_execute=True),
            payout.c.state != PayoutState.MINED,
            payout.c.book == book,
        )
        .order_by(payout_nonce.c.sender, payout_nonce.c.nonce)
        .limit(NONCES_MAX)
    )
    return [Nonce(**{**row._mapping, "state": NonceState(row.state)}) for row in rows]  # noqa: SLF001  the public name of a row's mapping


async def find_nonce_owners(
    conn: AsyncConnection, chain: str, keys: Collection[tuple[str, int]]
) -> dict[tuple[str, int], UUID]:
    """Return which payout keeps each (sender, nonce)."""
    if not keys:
        return {}
    rows = await conn.execute(
        select(payout_nonce.c.sender, payout_nonce.c.nonce, payout_nonce.c.payout_id).where(
            payout_nonce.c.chain == chain,
            payout_nonce.c.state != NonceState.RELEASED,
            or_(
                *(
                    (payout_nonce.c.sender == sender) & (payout_nonce.c.nonce == nonce)
                    for sender, nonce in keys
                )
            ),
        )
    )
    return {(row.sender, row.nonce): row.payout_id for row in rows}


async def list_approvals(conn: AsyncConnection, payout_id: UUID) -> list[Approval]:
    """Return the approvals of a payout, oldest first."""
    return (await control_store.list_approvals(conn, [payout_id]))[payout_id]


async def list_approvals_of(conn: AsyncConnection, payout_ids: Collection[UUID]) -> list[Approval]:
    """Return the approvals of many payouts, those of each oldest first."""
    found = await control_store.list_approvals(conn, payout_ids)
    return [item for payout_id in payout_ids for item in found[payout_id]]


async def sum_promised(
    conn: AsyncConnection, chain: str, sender: str, contract: str | None
) -> tuple[int, int]:
    """Return what live payments from an address will still take: of *contract*, and of gas money.

    The second figure is in wei and holds fee caps and native payments.
    """
    live = (payout.c.attempt > 0) & _ON_ITS_WAY
    rows = await conn.execute(
        select(
            payout.c.contract,
            func.sum(payout.c.chain_amount).label("amount"),
            func.sum(payout.c.fee_cap).label("fees"),
        )
        .where(payout.c.chain == chain, payout.c.sender == sender, live)
        .group_by(payout.c.contract)
    )
    coins = gas = 0
    for row in rows:
        coins += int(row.amount) if row.contract == contract else 0
        gas += int(row.fees) + (int(row.amount) if row.contract is None else 0)
    return coins, gas


async def sum_fee_caps(conn: AsyncConnection, book: int) -> dict[str, int]:
    """Return what live payouts of a book may still cost in fees, by native asset."""
    rows = await conn.execute(
        select(payout.c.native_asset, func.sum(payout.c.fee_cap).label("fees"))
        .where(payout.c.book == book, _ON_ITS_WAY)
        .group_by(payout.c.native_asset)
    )
    return {row.native_asset: int(row.fees) for row in rows}


async def list_own_transfers(conn: AsyncConnection, book: int) -> list[tuple[str, str, str, int]]:
    """Return what own transfers of a book will still move: from and to wallet, asset, amount."""
    rows = await conn.execute(
        select(
            payout.c.source_wallet,
            payout.c.claim,
            payout.c.asset,
            func.sum(payout.c.amount).label("amount"),
        )
        .where(payout.c.book == book, _ON_ITS_WAY, payout.c.claim.startswith(f"{ClaimKind.OWN}:"))
        .group_by(payout.c.source_wallet, payout.c.claim, payout.c.asset)
    )
    return [
        (row.source_wallet, Claim.parse(row.claim).name, row.asset, int(row.amount)) for row in rows
    ]


async def lock_foreign(
    conn: AsyncConnection, chain: str, hashes: Sequence[str]
) -> dict[str, ForeignSpend]:
    """Return the known foreign spends among transaction hashes, locked."""
    if not hashes:
        return {}
    rows = await conn.execute(
        select(foreign_spend)
        .where(foreign_spend.c.chain == chain, foreign_spend.c.tx_hash.in_(hashes))
        .order_by(foreign_spend.c.id)
        .with_for_update()
    )
    return {row.tx_hash: _to_foreign(row) for row in rows}


async def find_nonce_spend(
    conn: AsyncConnection, chain: str, sender: str, nonce: int
) -> ForeignSpend | None:
    """Return the transaction in a block that spent our nonce and was not what it was made for."""
    rows = await conn.execute(
        select(foreign_spend).where(
            foreign_spend.c.chain == chain,
            foreign_spend.c.sender == sender,
            foreign_spend.c.nonce == nonce,
            foreign_spend.c.state == ForeignState.INCLUDED,
        )
    )
    row = rows.one_or_none()
    return None if row is None else _to_foreign(row)


def _to_foreign(row: Row[Any]) -> ForeignSpend:
    legs = tuple(
        ForeignLeg(leg["wallet"], leg["account"], leg["asset"], int(leg["amount"]))
        for leg in row.legs
    )
    values = {**row._mapping, "state": ForeignState(row.state), "legs": legs}  # noqa: SLF001  the public name of a row's mapping
    return ForeignSpend(**values)


async def save_foreign(conn: AsyncConnection, spend: ForeignSpend, *, known: bool) -> None:
    """Insert a foreign spend, or write the one that is *known* and locked."""
    values = {
        name: getattr(spend, name) for name in ForeignSpend.__dataclass_fields__ if name != "legs"
    }
    values["legs"] = [
        {"wallet": x.wallet, "account": x.account, "asset": x.asset, "amount": str(x.amount)}
        for x in spend.legs
    ]
    if not known:
        await conn.execute(insert(foreign_spend).values(**values))
        return
    changed = {name: values[name] for name in ("state", "epoch", "block_hash", "height", "legs")}
    await conn.execute(
        update(foreign_spend).where(foreign_spend.c.id == spend.id).values(**changed)
    )
