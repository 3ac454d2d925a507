"""Spends of cold wallets: given out to be signed by people, taken back, and sent like any other.

No process has the keys of a cold wallet: the worker allocates its spends and waits. `export_spend`
gives the transaction out as a PSBT, from when on a signature may exist; `import_spend` takes the
signed files back, checks them against the spend and stores the bytes, which the worker then sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from chain.bitcoin.psbt import Psbt
from chain.bitcoin.psbt import spent_outputs as outputs_of
from chain.bitcoin.signing import SignedTransaction
from chain.bitcoin.signing import read_signed as read_bytes
from chain.bitcoin.transactions import decode
from custody.bitcoin import spend_store as store
from custody.bitcoin.cold_keys import WalletKeys, keys_of
from custody.bitcoin.cold_psbt import ColdStory, Place, build, finish, tell
from custody.bitcoin.cold_wallets import is_cold
from custody.bitcoin.spend_model import WORKED_ON, Spend, SpentCoin
from custody.bitcoin.spend_moves import Carried, given_out, load_carried
from custody.bitcoin.spend_sign import read_signed, store_signed
from custody.bitcoin.spend_steps import script_of
from custody.errors import NotPossible
from custody.payout_gates import find_stopped
from custody.payout_model import AttemptKind, AttemptState
from kernel.events import record
from registry.authority import require_role
from registry.model import Operator, Role
from registry.queries import get_chain, get_operator, get_wallet

COURIERS: Final = (Role.OPERATIONS, Role.TREASURER)
"""Who may take a transaction to its signers and back; what it pays is approved already."""


@dataclass(frozen=True, slots=True)
class GivenOut:
    """A spend as people get it to sign."""

    spend_id: UUID
    attempt: int
    wallet: str
    psbt: Psbt
    story: ColdStory
    descriptors: tuple[str, str]


async def list_waiting(conn: AsyncConnection, chain: str) -> list[Spend]:
    """Return the spends of cold wallets whose current transaction is not signed yet, oldest first.

    Raises:
        UnknownRecord: there is no such chain.
    """
    await get_chain(conn, chain)
    waiting = []
    for item in await store.list_spends(conn, chain, states=WORKED_ON):
        if await is_cold(conn, await get_wallet(conn, item.wallet)):
            attempts = await store.list_attempts(conn, item.id)
            current = next(one for one in attempts if one.number == item.attempt)
            waiting += [item] if current.state is AttemptState.BUILT else []
    return waiting


async def export_spend(
    conn: AsyncConnection, spend_id: UUID, *, by: Operator, now: datetime
) -> GivenOut:
    """Return the current transaction of a spend, to be signed; it counts as asked for from now on.

    Raises:
        NotAuthorised: without a role that sees to payments.
        NotPossible: there is nothing to sign, the wallet is not cold, or a payout is stopped.
    """
    require_role(await get_operator(conn, by.code), *COURIERS)
    seen = await load_carried(conn, spend_id, lock=True)
    keys = await _keys(conn, seen)
    attempt = seen.current
    if attempt.state is not AttemptState.BUILT or seen.spend.state not in WORKED_ON:
        raise NotPossible(
            f"spend {spend_id} is {seen.spend.state}, and its transaction {attempt.state}:"
            " there is nothing to sign"
        )
    if attempt.kind is not AttemptKind.CANCEL:
        stopped = await find_stopped(conn, seen.payouts, now=now)
        if stopped:
            raise NotPossible(f"a payout of it is stopped: {next(iter(stopped.values()))}")
    if attempt.asked_at is None:
        await store.update_attempt(conn, attempt.id, asked_at=now)
        await record(conn, [await given_out(conn, attempt, by=by.code, now=now)])
    psbt = make_cold(seen, keys)
    descriptors = (keys.account.descriptor(0), keys.account.descriptor(1))
    return GivenOut(
        spend_id, attempt.number, seen.spend.wallet, psbt, tell(psbt, keys), descriptors
    )


async def inspect_part(conn: AsyncConnection, wallet: str, psbt: Psbt) -> ColdStory:
    """Return what a file does with the coins of a wallet, whoever made it."""
    holder = await get_wallet(conn, wallet)
    return tell(psbt, keys_of(await get_chain(conn, holder.chain), holder))


async def import_spend(
    conn: AsyncConnection, spend_id: UUID, parts: Sequence[Psbt], *, by: Operator, now: datetime
) -> SignedTransaction:
    """Take the signed files of a spend back; the worker sends the transaction. Again changes nothing.

    Raises:
        NotAuthorised: without a role that sees to payments.
        NotPossible: a file says something else than the spend, or signatures are missing.
        BadTransaction: a signature is false.
    """
    require_role(await get_operator(conn, by.code), *COURIERS)
    seen = await load_carried(conn, spend_id, lock=True)
    keys = await _keys(conn, seen)
    attempt = seen.current
    meant = make_cold(seen, keys)
    signed = finish(meant, parts, keys)
    if attempt.raw is not None:
        # The same transaction, signed by others of them perhaps: the first bytes stay.
        return read_bytes(attempt.raw, meant.transaction, outputs_of(meant))
    if attempt.state is not AttemptState.BUILT:
        raise NotPossible(f"the transaction that was given out is {attempt.state} by now")
    if attempt.asked_at is None:
        raise NotPossible(f"spend {spend_id} was never given out", remedy="Export it first")
    read_signed(attempt, signed.raw, seen.spend.chain_id)
    await store_signed(
        conn, spend_id, attempt.number, signed.raw, fence=None, now=now, actor=by.code
    )
    await store.update_spend(conn, spend_id, fence=None, run_after=now)
    return signed


def make_cold(seen: Carried, keys: WalletKeys) -> Psbt:
    """Return the current transaction of a spend as its people get it."""
    spend, attempt = seen.spend, seen.current
    change = None
    if attempt.change and spend.change_path is not None:
        script = script_of(spend.change_address, spend.chain_id)
        assert script is not None  # change goes somewhere
        change = (script, _place(spend.change_path))
    coins = [(coin.amount, _place_of(coin, keys)) for coin in attempt.coins]
    return build(decode(attempt.unsigned), coins, keys, change)


def _place_of(coin: SpentCoin, keys: WalletKeys) -> Place:
    place = _place(coin.path)
    # What the table says of a coin is not believed: its address follows from the wallet's keys.
    if keys.account.address(*place) != coin.address:
        raise NotPossible(f"coin {coin.outpoint} is not of {coin.path} of {keys.wallet.code}")
    return place


def _place(path: str) -> Place:
    branch, index = path.split("/")[-2:]
    return int(branch), int(index)


async def _keys(conn: AsyncConnection, seen: Carried) -> WalletKeys:
    wallet = await get_wallet(conn, seen.spend.wallet)
    if not await is_cold(conn, wallet):
        raise NotPossible(f"wallet {wallet.code} is not cold: the signer signs for it")
    return keys_of(await get_chain(conn, seen.spend.chain), wallet)
