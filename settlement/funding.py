"""What a settlement needs, place by place, before anything moves.

`funding_need` answers for net items of a preview and for instructions of a run alike. Nothing is
reserved by asking; `settlement.liquidity_run` chooses what is paid, `settlement.release` holds it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from custody.banks.payment_postings import IN_FLIGHT
from custody.model import bank_account_path, client_account, custody_account
from custody.payout_allocation import FEE_PER_GAS_MAX, GAS_TRANSFER
from custody.payout_coverage import count_spare
from custody.payout_postings import transit_account
from custody.promises import sum_promises
from ledger.model import Balance
from ledger.queries import get_balances
from registry.model import BITCOIN, HOUSE, Chain, ChainAsset, WalletPurpose
from registry.queries import (
    list_assets,
    list_bank_accounts,
    list_chain_assets,
    list_chains,
    list_wallets,
)
from settlement.places import (
    CLIENT_PREFIX,
    COVER,
    Asked,
    Movement,
    Need,
    Place,
    asked_of,
    promise,
    sum_needs,
)
from trading.terms.model import Rail

EVM_RESERVE: Final = FEE_PER_GAS_MAX * GAS_TRANSFER
"""Wei that stay in a wallet for fees: the most that the payout machine bids for one payment. At usual
prices it is the fees of dozens."""

BITCOIN_RESERVE: Final = 200_000
"""Satoshi that stay in a wallet for fees: a spend of twenty inputs at a hundred satoshi a byte or less."""


@dataclass(frozen=True, slots=True)
class _Account:
    """An account in the ledger, and how much of it is never promised, in its asset's unit."""

    rail: Rail
    location: str
    path: str
    asset: str
    way: str = ""
    reserve: int = 0


async def funding_need(conn: AsyncConnection, book: int, items: Iterable[Movement]) -> list[Need]:
    """Return what each place has to have for *items*, in the order in which they are given.

    Each payment is counted at the fullest place that still has enough, so that the figures are those
    of what can be paid, not of a sum over wallets none of which suffices.
    """
    asked = [found for item in items if (found := asked_of(item)) is not None]
    return sum_needs(asked, await list_places(conn, book, asked))


async def list_places(conn: AsyncConnection, book: int, asked: Sequence[Asked]) -> list[Place]:
    """Return every place that something *asked* could come from, with what it has to promise.

    A wallet promises no coins of its chain's own that it needs for the fees of what it pays.
    """
    assets = {item.asset for item in asked if item.rail is not Rail.BOOK}
    accounts = [account for account in await _list_accounts(conn) if account.asset in assets]
    accounts += [
        _Account(item.rail, item.location, client_account(party), item.asset)
        for item in asked
        if (party := item.location.removeprefix(CLIENT_PREFIX)) != item.location
    ]
    unique = sorted(set(accounts), key=lambda a: (a.rail, a.asset, a.location))
    balances = await get_balances(conn, book, {(a.path, a.asset) for a in unique})
    places = [
        Place(
            rail=a.rail,
            location=a.location,
            path=a.path,
            asset=a.asset,
            way=a.way,
            available=_free(balances.get((a.path, a.asset)), a.reserve),
        )
        for a in unique
    ]
    return promise(places, await sum_promises(conn, book)) + await _cover(conn, book, asked)


async def _cover(conn: AsyncConnection, book: int, asked: Collection[Asked]) -> list[Place]:
    """Return what may be credited to clients, by asset."""
    assets = {item.asset for item in asked if item.location == COVER}
    if not assets:
        return []
    return [
        Place(rail=Rail.BOOK, location=COVER, path="", asset=asset, available=spare)
        for asset, spare in sorted((await count_spare(conn, book, assets)).items())
    ]


def _free(balance: Balance | None, reserve: int) -> int:
    return (0 if balance is None else balance.available) - reserve


async def _list_accounts(conn: AsyncConnection) -> list[_Account]:
    """Return the ledger accounts of the house's wallets and bank accounts that pay."""
    found = [
        _Account(Rail.BANK, account.code, bank_account_path(account.code), account.asset, IN_FLIGHT)
        for account in await list_bank_accounts(conn)
        if account.owner == HOUSE and account.active
    ]
    scales = {asset.code: asset.scale for asset in await list_assets(conn)}
    for chain in await list_chains(conn):
        rail = Rail.BITCOIN if chain.kind == BITCOIN else Rail.EVM
        reserves = {
            item.asset: _reserve(chain, item, scales[item.asset])
            for item in await list_chain_assets(conn, chain.code)
        }
        found += [
            _Account(
                rail,
                wallet.code,
                custody_account(wallet.code),
                asset,
                transit_account(chain.code),
                reserve,
            )
            for wallet in await list_wallets(conn, chain.code)
            if wallet.owner == HOUSE and wallet.purpose is WalletPurpose.HOT
            for asset, reserve in sorted(reserves.items())
        ]
    return found


def _reserve(chain: Chain, item: ChainAsset, scale: int) -> int:
    """Return what a wallet keeps of an asset for fees, in the asset's unit, rounded up."""
    if item.asset != chain.native_asset:
        return 0
    units = BITCOIN_RESERVE if chain.kind == BITCOIN else EVM_RESERVE
    kept: int = -(-units * 10**scale // 10**item.decimals)
    return kept
