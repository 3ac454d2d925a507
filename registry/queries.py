"""Reading the registry. `get_` must exist and refuses by name; `list_` returns what there is."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.money import Asset
from registry import store
from registry.errors import UnknownRecord
from registry.model import (
    BankAccount,
    Chain,
    ChainAsset,
    LegalEntity,
    Operator,
    Party,
    PartyKind,
    Proposal,
    ProposalState,
    RecordKind,
    Revision,
    Wallet,
)


async def get_entity(conn: AsyncConnection, code: str) -> LegalEntity:
    """Return one of our legal entities."""
    record = await store.get_record(conn, RecordKind.ENTITY, code)
    assert isinstance(record, LegalEntity)
    return record


async def list_entities(conn: AsyncConnection) -> list[LegalEntity]:
    """Return our legal entities, by code."""
    found = await store.list_records(conn, RecordKind.ENTITY)
    return [v.record for v in found if isinstance(v.record, LegalEntity)]


async def get_asset(conn: AsyncConnection, code: str) -> Asset:
    """Return an asset."""
    record = await store.get_record(conn, RecordKind.ASSET, code)
    assert isinstance(record, Asset)
    return record


async def list_assets(conn: AsyncConnection) -> list[Asset]:
    """Return every asset, by code."""
    found = await store.list_records(conn, RecordKind.ASSET)
    return [v.record for v in found if isinstance(v.record, Asset)]


async def find_assets(conn: AsyncConnection, codes: Collection[str]) -> dict[str, Asset]:
    """Return those of *codes* that are registered as assets, by code, in one statement."""
    found = await store.find_records(conn, RecordKind.ASSET, codes)
    return {code: item for code, item in found.items() if isinstance(item, Asset)}


async def get_chain(conn: AsyncConnection, code: str) -> Chain:
    """Return a chain."""
    record = await store.get_record(conn, RecordKind.CHAIN, code)
    assert isinstance(record, Chain)
    return record


async def list_chains(conn: AsyncConnection) -> list[Chain]:
    """Return every chain, by code."""
    found = await store.list_records(conn, RecordKind.CHAIN)
    return [v.record for v in found if isinstance(v.record, Chain)]


async def get_chain_asset(conn: AsyncConnection, chain: str, asset: str) -> ChainAsset:
    """Return an asset as it exists on a chain."""
    record = await store.get_record(conn, RecordKind.CHAIN_ASSET, f"{chain}:{asset}")
    assert isinstance(record, ChainAsset)
    return record


async def find_chain_asset_by_contract(
    conn: AsyncConnection, chain: str, contract: str | None
) -> ChainAsset | None:
    """Return the asset that a contract (None: the chain's own coin) stands for, if registered."""
    for known in await list_chain_assets(conn, chain):
        if known.contract == contract:
            return known
    return None


async def list_chain_assets(conn: AsyncConnection, chain: str) -> list[ChainAsset]:
    """Return the assets of a chain, by code."""
    found = await store.list_records(conn, RecordKind.CHAIN_ASSET, equal={"chain": chain})
    return [v.record for v in found if isinstance(v.record, ChainAsset)]


async def get_party(conn: AsyncConnection, code: str) -> Party:
    """Return a party."""
    record = await store.get_record(conn, RecordKind.PARTY, code)
    assert isinstance(record, Party)
    return record


async def find_parties(conn: AsyncConnection, codes: Collection[str]) -> dict[str, Party]:
    """Return those of *codes* that are registered as parties, by code, in one statement."""
    found = await store.find_records(conn, RecordKind.PARTY, codes)
    return {code: item for code, item in found.items() if isinstance(item, Party)}


async def list_parties(conn: AsyncConnection, kind: PartyKind | None = None) -> list[Party]:
    """Return the parties of one kind, or all, by code."""
    equal = {} if kind is None else {"kind": str(kind)}
    found = await store.list_records(conn, RecordKind.PARTY, equal=equal)
    return [v.record for v in found if isinstance(v.record, Party)]


async def get_operator(conn: AsyncConnection, code: str) -> Operator:
    """Return an operator, active or not: see `registry.authority.require_role`."""
    record = await store.get_record(conn, RecordKind.OPERATOR, code)
    assert isinstance(record, Operator)
    return record


async def list_operators(conn: AsyncConnection) -> list[Operator]:
    """Return every operator, by code."""
    found = await store.list_records(conn, RecordKind.OPERATOR)
    return [v.record for v in found if isinstance(v.record, Operator)]


async def get_wallet(conn: AsyncConnection, code: str) -> Wallet:
    """Return a wallet."""
    record = await store.get_record(conn, RecordKind.WALLET, code)
    assert isinstance(record, Wallet)
    return record


async def list_wallets(conn: AsyncConnection, chain: str) -> list[Wallet]:
    """Return the wallets of a chain, by code."""
    found = await store.list_records(conn, RecordKind.WALLET, equal={"chain": chain})
    return [v.record for v in found if isinstance(v.record, Wallet)]


async def get_bank_account(conn: AsyncConnection, code: str) -> BankAccount:
    """Return an account of ours at a bank, active or not."""
    record = await store.get_record(conn, RecordKind.BANK_ACCOUNT, code)
    assert isinstance(record, BankAccount)
    return record


async def find_bank_account(conn: AsyncConnection, iban: str) -> BankAccount | None:
    """Return our account with that IBAN, if it is one of ours; of several, the first by code.

    A bank may keep several currencies under one IBAN: `list_bank_accounts` has them all.
    """
    found = await store.list_records(conn, RecordKind.BANK_ACCOUNT, equal={"iban": iban})
    return next((v.record for v in found if isinstance(v.record, BankAccount)), None)


async def list_bank_accounts(
    conn: AsyncConnection, *, entity: str | None = None
) -> list[BankAccount]:
    """Return our accounts at banks, of one legal entity or all, by code."""
    equal = {} if entity is None else {"entity": entity}
    found = await store.list_records(conn, RecordKind.BANK_ACCOUNT, equal=equal)
    return [v.record for v in found if isinstance(v.record, BankAccount)]


async def get_proposal(conn: AsyncConnection, proposal_id: UUID) -> Proposal:
    """Return a proposal."""
    return await store.get_proposal(conn, proposal_id)


async def list_proposals(
    conn: AsyncConnection, state: ProposalState | None = None
) -> list[Proposal]:
    """Return proposals of one state, or all, oldest first."""
    return await store.list_proposals(conn, state)


async def list_revisions(conn: AsyncConnection, kind: RecordKind, code: str) -> list[Revision]:
    """Return every version that a record had, the first one first.

    Raises:
        UnknownRecord: it never had one.
    """
    revisions = await store.list_revisions(conn, kind, code)
    if not revisions:
        raise UnknownRecord(f"there is no {kind} {code!r}", where="registry")
    return revisions
