"""The nouns of the registry, and the machine of a change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypeAlias
from uuid import UUID

from kernel.errors import BadInput
from kernel.money import AMOUNT_MAX, SCALE_MAX, Asset
from kernel.states import StateTable

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
ADMINS_MIN: Final = 2
"""Four eyes need two people: no change may leave fewer active administrators."""

PROPOSAL_LIFETIME: Final = timedelta(days=7)
"""A proposal that nobody decided in this time is refused; it has to be made again."""

NAME_LENGTH_MAX: Final = 200
CLIENT: Final = "client"
HOUSE: Final = "house"
EVM: Final = "evm"
BITCOIN: Final = "bitcoin"
CHAIN_KINDS: Final = (EVM, BITCOIN)

_CODE = re.compile(r"[a-z0-9][a-z0-9\-]{0,62}")
_CONTRACT = re.compile(r"0x[0-9a-fA-F]{40}")
_ACCOUNT_PATH = re.compile(r"m(/\d{1,10}'?)*")
_XPUB = re.compile(r"[1-9A-HJ-NP-Za-km-z]{100,120}")


class Role(StrEnum):
    """What an operator may do."""

    ADMIN = "admin"
    TREASURER = "treasurer"
    DEALER = "dealer"
    APPROVER = "approver"
    FINANCE = "finance"
    OPERATIONS = "operations"


class PartyKind(StrEnum):
    """What somebody is to us."""

    CLIENT = "client"
    COUNTERPARTY = "counterparty"
    VENUE = "venue"


class WalletPurpose(StrEnum):
    """What a wallet is for."""

    DEPOSIT = "deposit"
    """Clients pay in."""
    SETTLEMENT = "settlement"
    """Counterparties pay what they owe."""
    HOT = "hot"
    """Payouts leave from here."""


class RecordKind(StrEnum):
    """The kinds of records, in an order in which each may refer to those before it."""

    ENTITY = "entity"
    ASSET = "asset"
    CHAIN = "chain"
    CHAIN_ASSET = "chain_asset"
    PARTY = "party"
    OPERATOR = "operator"
    WALLET = "wallet"


@dataclass(frozen=True, slots=True)
class LegalEntity:
    """One of our companies; *book* is the number of its journal, from 1."""

    code: str
    name: str
    book: int

    def __post_init__(self) -> None:
        _require_code("legal entity", self.code)
        if not 0 < len(self.name) <= NAME_LENGTH_MAX:
            raise BadInput(f"the name of {self.code} has 1 to {NAME_LENGTH_MAX} characters")
        if self.book < 1:
            raise BadInput(f"{self.code} has book {self.book}; books count from 1")


@dataclass(frozen=True, slots=True)
class Chain:
    """A block chain.

    Attributes:
        kind: one of `CHAIN_KINDS`.
        network_id: what tells it from its copies: the EIP-155 chain id; on Bitcoin the four bytes with
            which messages of the network begin, as a big-endian number.
        native_asset: asset code of the coin that pays for blocks.
    """

    code: str
    kind: str
    network_id: int
    native_asset: str

    def __post_init__(self) -> None:
        _require_code("chain", self.code)
        if self.kind not in CHAIN_KINDS:
            raise BadInput(
                f"{self.code} is of kind {self.kind!r}", remedy=f"Use {' or '.join(CHAIN_KINDS)}"
            )
        if self.network_id < 1:
            raise BadInput(f"{self.code} has network id {self.network_id}; it is 1 or more")


@dataclass(frozen=True, slots=True)
class ChainAsset:
    """An asset as it exists on one chain; known by its contract, never by its symbol.

    Attributes:
        code: ``evm:USDT``: the chain and the asset.
        contract: address of the token's contract, in EIP-55 spelling; None for the native coin.
        decimals: decimal places on the chain, which may differ from the asset's scale.
        supply_max: more smallest units of it on this chain cannot be: an arrival above it is not
            believed. None: unknown.
    """

    code: str
    chain: str
    contract: str | None
    decimals: int
    asset: str
    supply_max: int | None = None

    def __post_init__(self) -> None:
        if self.code != f"{self.chain}:{self.asset}":
            raise BadInput(
                f"{self.code!r} is not the code of {self.asset} on {self.chain}",
                remedy=f'Write "{self.chain}:{self.asset}"',
            )
        if self.contract is not None and not _CONTRACT.fullmatch(self.contract):
            raise BadInput(
                f"{self.code} has contract {self.contract!r}", remedy="Write 0x and 40 hex digits"
            )
        if not 0 <= self.decimals <= SCALE_MAX:
            raise BadInput(
                f"{self.code} has {self.decimals} decimals; 0 to {SCALE_MAX} are possible"
            )
        if self.supply_max is not None and not 0 < self.supply_max <= AMOUNT_MAX:
            raise BadInput(
                f"{self.code} has a supply bound of {self.supply_max}",
                remedy="Write it in smallest units, above 0, or leave it out",
            )


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody we deal with: an opaque code, no personal data; *entity* is ours that faces them."""

    code: str
    kind: PartyKind
    entity: str

    def __post_init__(self) -> None:
        _require_code("party", self.code)


@dataclass(frozen=True, slots=True)
class Operator:
    """A person who gives commands; *public_key* is Ed25519, 32 raw bytes (RFC 8032)."""

    code: str
    public_key: bytes
    roles: frozenset[Role]
    active: bool = True

    def __post_init__(self) -> None:
        _require_code("operator", self.code)
        if len(self.public_key) != PUBLIC_KEY_BYTES:
            raise BadInput(
                f"the public key of {self.code} has {len(self.public_key)} bytes",
                remedy=f"An Ed25519 key has {PUBLIC_KEY_BYTES}",
            )

    @property
    def may_decide(self) -> bool:
        """Tell whether this operator can decide changes of the registry."""
        return self.active and Role.ADMIN in self.roles


@dataclass(frozen=True, slots=True)
class Wallet:
    """An account of keys on one chain; its coins have one owner class for ever.

    Attributes:
        owner: ``client`` (omnibus), ``client:<party>`` (segregated) or ``house``.
        account_xpub: BIP-32 extended public key of the account, base58check.
        account_path: where the signer finds its private half: ``m/44'/60'/0'``.
    """

    code: str
    chain: str
    owner: str
    purpose: WalletPurpose
    account_xpub: str
    account_path: str

    def __post_init__(self) -> None:
        _require_code("wallet", self.code)
        if self.owner not in {CLIENT, HOUSE}:
            _require_code("owner of a wallet", self.owner.removeprefix(f"{CLIENT}:"))
            if not self.owner.startswith(f"{CLIENT}:"):
                raise BadInput(
                    f"wallet {self.code} is owned by {self.owner!r}",
                    remedy="Write client, client:<party> or house",
                )
        if self.purpose is WalletPurpose.DEPOSIT and not self.holds_client_money:
            raise BadInput(
                f"wallet {self.code} takes clients' deposits and is owned by the house",
                remedy="Clients' coins belong in a wallet of class client",
            )
        if self.purpose is WalletPurpose.SETTLEMENT and self.holds_client_money:
            raise BadInput(
                f"wallet {self.code} takes settlement payments and is owned by {self.owner}",
                remedy="What is paid to the desk belongs in a wallet of the house",
            )
        if not _XPUB.fullmatch(self.account_xpub):
            raise BadInput(f"wallet {self.code} has no extended public key in base58")
        if not _ACCOUNT_PATH.fullmatch(self.account_path):
            raise BadInput(f"wallet {self.code} has the path {self.account_path!r}")

    @property
    def holds_client_money(self) -> bool:
        """Tell whether the coins belong to clients."""
        return self.owner != HOUSE

    @property
    def owner_party(self) -> str | None:
        """Return the one client of a segregated wallet."""
        _, _, party = self.owner.partition(":")
        return party or None


Record: TypeAlias = LegalEntity | Asset | Chain | ChainAsset | Party | Operator | Wallet


@dataclass(frozen=True, slots=True)
class Versioned:
    """A record as it stands: its version counts from 1, *valid_from* is when it was approved."""

    record: Record
    version: int
    valid_from: datetime


@dataclass(frozen=True, slots=True)
class Revision:
    """One version of a record, kept for ever; the founding has no proposal."""

    kind: RecordKind
    code: str
    version: int
    content: Mapping[str, Any]
    proposal_id: UUID | None
    valid_from: datetime


class ProposalState(StrEnum):
    """Where a proposed change is."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"


PROPOSAL_STATES: Final = StateTable(
    schema="registry",
    table="proposal",
    initial=frozenset({ProposalState.PROPOSED}),
    edges=frozenset(
        {
            (ProposalState.PROPOSED, ProposalState.APPROVED),
            (ProposalState.PROPOSED, ProposalState.REJECTED),
        }
    ),
)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change somebody wants.

    Attributes:
        base_version: the version that the record had when the change was proposed; 0: it is new.
        content: the record as it shall be (`registry.records.to_content`).
    """

    id: UUID
    kind: RecordKind
    code: str
    base_version: int
    content: Mapping[str, Any]
    proposed_by: str
    reason: str
    proposed_at: datetime
    state: ProposalState


@dataclass(frozen=True, slots=True, kw_only=True)
class Founding:
    """The first records of a database: the only ones that no second operator approved."""

    entities: tuple[LegalEntity, ...]
    assets: tuple[Asset, ...] = ()
    chains: tuple[Chain, ...] = ()
    chain_assets: tuple[ChainAsset, ...] = ()
    parties: tuple[Party, ...] = ()
    operators: tuple[Operator, ...] = ()
    wallets: tuple[Wallet, ...] = ()

    @property
    def records(self) -> tuple[Record, ...]:
        """Return all of them, each after those it refers to."""
        return (
            *self.entities,
            *self.assets,
            *self.chains,
            *self.chain_assets,
            *self.parties,
            *self.operators,
            *self.wallets,
        )


def _require_code(what: str, code: str) -> None:
    if not _CODE.fullmatch(code):
        raise BadInput(
            f"{code!r} is not the code of a {what}",
            remedy="Use up to 63 small letters, digits and hyphens",
        )
