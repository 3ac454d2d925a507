"""Records as content: plain JSON values for revisions, proposals and signatures, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from kernel.ids import derive_id
from kernel.money import Asset
from registry.model import (
    BankAccount,
    Chain,
    ChainAsset,
    LegalEntity,
    Operator,
    Party,
    PartyKind,
    Record,
    RecordKind,
    Role,
    Wallet,
    WalletPurpose,
)

_EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)
_KINDS: Final[Mapping[type, RecordKind]] = {
    LegalEntity: RecordKind.ENTITY,
    Asset: RecordKind.ASSET,
    Chain: RecordKind.CHAIN,
    ChainAsset: RecordKind.CHAIN_ASSET,
    Party: RecordKind.PARTY,
    Operator: RecordKind.OPERATOR,
    Wallet: RecordKind.WALLET,
    BankAccount: RecordKind.BANK_ACCOUNT,
}


def kind_of(record: Record) -> RecordKind:
    """Return the kind of a record."""
    return _KINDS[type(record)]


def record_id(kind: RecordKind, code: str) -> UUID:
    """Return the id under which a record's events are kept: a fixed function of kind and code."""
    return derive_id(_EPOCH, "registry", str(kind), code)


def to_content(record: Record) -> dict[str, Any]:
    """Return the record as JSON values: keys and roles sorted, bytes in hexadecimal."""
    match record:
        case LegalEntity(code, name, book):
            return {"code": code, "name": name, "book": book}
        case Asset(code, scale):
            return {"code": code, "scale": scale}
        case Chain(code, kind, network_id, native_asset):
            return {
                "code": code,
                "kind": kind,
                "network_id": network_id,
                "native_asset": native_asset,
            }
        case ChainAsset(code, chain, contract, decimals, asset, supply_max):
            return {
                "code": code,
                "chain": chain,
                "contract": contract,
                "decimals": decimals,
                "asset": asset,
                "supply_max": supply_max,
            }
        case Party(code, party_kind, entity):
            return {"code": code, "kind": str(party_kind), "entity": entity}
        case Operator(code, public_key, roles, active):
            return {
                "code": code,
                "public_key": public_key.hex(),
                "roles": sorted(str(role) for role in roles),
                "active": active,
            }
        case BankAccount():
            return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        case Wallet():
            return {
                **{field.name: getattr(record, field.name) for field in dataclasses.fields(record)},
                "purpose": str(record.purpose),
                "cosigners": list(record.cosigners),
            }


def from_content(kind: RecordKind, content: Mapping[str, Any]) -> Record:
    """Return the record that `to_content` made *content* of."""
    fields = dict(content)
    match kind:
        case RecordKind.ENTITY:
            return LegalEntity(**fields)
        case RecordKind.ASSET:
            return Asset(**fields)
        case RecordKind.CHAIN:
            return Chain(**fields)
        case RecordKind.CHAIN_ASSET:
            return ChainAsset(**fields)
        case RecordKind.PARTY:
            return Party(**{**fields, "kind": PartyKind(fields["kind"])})
        case RecordKind.OPERATOR:
            return Operator(
                code=fields["code"],
                public_key=bytes.fromhex(fields["public_key"]),
                roles=frozenset(Role(role) for role in fields["roles"]),
                active=fields["active"],
            )
        case RecordKind.BANK_ACCOUNT:
            return BankAccount(**fields)
        case RecordKind.WALLET:
            fields["purpose"] = WalletPurpose(fields["purpose"])
            return Wallet(**{**fields, "cosigners": tuple(fields.get("cosigners", ()))})
