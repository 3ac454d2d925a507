"""On which kinds of chains an asset exists: what decides how it can be moved at all."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from registry import store
from registry.model import Chain, ChainAsset, RecordKind


async def list_chains_of(conn: AsyncConnection, asset: str) -> list[Chain]:
    """Return the chains that an asset is on, by code."""
    found = await store.list_records(conn, RecordKind.CHAIN_ASSET, equal={"asset": asset})
    on = {item.record.chain for item in found if isinstance(item.record, ChainAsset)}
    chains = [item.record for item in await store.list_records(conn, RecordKind.CHAIN)]
    return [chain for chain in chains if isinstance(chain, Chain) and chain.code in on]


async def list_chain_kinds(conn: AsyncConnection) -> dict[str, frozenset[str]]:
    """Return the kinds of the chains of every asset that is on one, by asset code."""
    kinds = {
        found.record.code: found.record.kind
        for found in await store.list_records(conn, RecordKind.CHAIN)
        if isinstance(found.record, Chain)
    }
    known: dict[str, set[str]] = {}
    for found in await store.list_records(conn, RecordKind.CHAIN_ASSET):
        if isinstance(found.record, ChainAsset):
            known.setdefault(found.record.asset, set()).add(kinds[found.record.chain])
    return {asset: frozenset(on) for asset, on in known.items()}
