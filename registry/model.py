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
from registry.bank_details import canonical_bic, canonical_iban

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
ADMINS_MIN: Final = 2
"""Four eyes need two people: no change may leave fewer active administrators."""

PROPOSAL_LIFETIME: Final = timedelta(days=7)
"""A proposal that nobody decided in this time is refused; it has to be made again."""

NAME_LENGTH_MAX: Final = 200
CLIENT: Final = "client"
HOUSE: Final = "house"
COSIGNERS_MAX: Final = 15
"""Most keys of one multisig wallet: what hardware and other wallets still read."""
EVM: Final = "evm"
BITCOIN: Final = "bitcoin"
CHAIN_KINDS: Final = (EVM, BITCOIN)
BANK: Final = "bank"
"""Where money in banks is, as chains say where coins are: no chain may have this code."""

_CODE = re.compile(r"[a-z0-9][a-z0-9\-]{0,62}")
_CONTRACT = re.compile(r"0x[0-9a-fA-F]{40}")
_ACCOUNT_PATH = re.compile(r"m(/\d{1,10}'?)*")
_XPUB = re.compile(r"[1-9A-HJ-NP-Za-km-z]{100,120}")
_ORIGIN = re.compile(r"^\[[0-9a-f]{8}(/\d{1,10}['h]?)*\]")
_TOKEN_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_COMPRESSED_KEY = re.compile(r"0[23][0-9a-f]{64}")


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


class KeySource(StrEnum):
    """Where the keys of a wallet come from."""

    ACCOUNT = "account"
    """Derived below one account of a seed."""
    TOKEN = "token"  # noqa: S105  a word, not a password
    """One key in a token: it is never outside, and nothing is derived from it."""
    COSIGNERS = "cosigners"
    """Derived below one account of each of several signers, of whom so many sign together."""


class RecordKind(StrEnum):
    """The kinds of records, in an order in which each may refer to those before it."""

    ENTITY = "entity"
    ASSET = "asset"
    CHAIN = "chain"
    CHAIN_ASSET = "chain_asset"
    PARTY = "party"
    OPERATOR = "operator"
    WALLET = "wallet"
    BANK_ACCOUNT = "bank_account"


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
        if self.code == BANK:
            raise BadInput(f"{BANK!r} says that money is in banks, and is the code of no chain")
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
    """Keys on one chain; their coins have one owner class for ever.

    Exactly one of *account_xpub*, *token_key* and *cosigners* says where the keys are.

    Attributes:
        owner: ``client`` (omnibus), ``client:<party>`` (segregated) or ``house``.
        account_xpub: BIP-32 extended public key of the account, base58check.
        account_path: where the signer finds its private half: ``m/44'/60'/0'``; of *cosigners*, the
            path of the account that each of them gave; "" of a token's key.
        token_key: label of a key in a PKCS#11 token: the wallet has one address, that of the key.
        token_public_key: what the signer says its public half is: 33 bytes (SEC 1, compressed) in
            hexadecimal. Whoever approves the wallet approves it.
        cosigners: account keys like *account_xpub*, in alphabetical order, each of another person
            or device, and with its origin where it is known (``[d34db33f/48'/0'/0'/2']xpub…``, BIP
            380): multisig (Bitcoin, BIP-67 order).
        required: how many of the cosigners sign together.
    """

    code: str
    chain: str
    owner: str
    purpose: WalletPurpose
    account_xpub: str = ""
    account_path: str = ""
    token_key: str = ""
    token_public_key: str = ""
    cosigners: tuple[str, ...] = ()
    required: int = 0

    def __post_init__(self) -> None:
        _require_code("wallet", self.code)
        _require_owner("wallet", self.code, self.owner)
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
        self._require_keys()

    @property
    def key_source(self) -> KeySource:
        """Tell where the keys come from."""
        if self.token_key:
            return KeySource.TOKEN
        return KeySource.COSIGNERS if self.cosigners else KeySource.ACCOUNT

    @property
    def key_root(self) -> str:
        """Return the name under which the signer has the keys: account path or token's label."""
        return self.token_key or self.account_path

    @property
    def key_text(self) -> str:
        """Return the public halves as one text: what never changes for the wallet's addresses."""
        match self.key_source:
            case KeySource.ACCOUNT:
                return self.account_xpub
            case KeySource.TOKEN:
                return self.token_public_key
            case KeySource.COSIGNERS:
                return ",".join((str(self.required), *self.cosigners))

    def key_path(self, branch: int, index: int) -> str:
        """Return the name of one key for the signer; a token has only the one."""
        return self.token_key or f"{self.account_path}/{branch}/{index}"

    @property
    def holds_client_money(self) -> bool:
        """Tell whether the coins belong to clients."""
        return self.owner != HOUSE

    @property
    def owner_party(self) -> str | None:
        """Return the one client of a segregated wallet."""
        _, _, party = self.owner.partition(":")
        return party or None

    def _require_keys(self) -> None:
        named = [bool(self.account_xpub), bool(self.token_key), bool(self.cosigners)]
        if sum(named) > 1:
            raise BadInput(
                f"wallet {self.code} names keys in {sum(named)} places",
                remedy="Give one of account_xpub, token_key and cosigners",
            )
        match self.key_source:
            case KeySource.ACCOUNT:
                _require_xpub(self.code, self.account_xpub)
            case KeySource.TOKEN:
                self._require_token_key()
            case KeySource.COSIGNERS:
                self._require_cosigners()
        if bool(self.token_public_key) is not bool(self.token_key):
            raise BadInput(
                f"wallet {self.code} has one of a token's key and its public half, not both",
                remedy="Ask the signer for it: causeway custody keys token-wallet",
            )
        if self.required and not self.cosigners:
            raise BadInput(f"wallet {self.code} requires {self.required} of no cosigners")
        if not self.token_key and not _ACCOUNT_PATH.fullmatch(self.account_path):
            raise BadInput(f"wallet {self.code} has the path {self.account_path!r}")

    def _require_token_key(self) -> None:
        if not _TOKEN_KEY.fullmatch(self.token_key):
            raise BadInput(
                f"{self.token_key!r} is not the label of a token's key",
                where=f"wallet {self.code}",
                remedy="Use up to 64 letters, digits, dots, hyphens and underscores",
            )
        if not _COMPRESSED_KEY.fullmatch(self.token_public_key):
            raise BadInput(
                f"wallet {self.code} has no public key of {self.token_key}",
                remedy="Write the 66 hex digits that `causeway custody keys token-wallet` asks for",
            )
        if self.account_path:
            raise BadInput(f"wallet {self.code} has a token's key, which has no account path")
        if self.purpose is WalletPurpose.DEPOSIT:
            raise BadInput(
                f"wallet {self.code} takes clients' deposits and has a single key",
                remedy="Deposit addresses are derived: name an account's extended public key",
            )

    def _require_cosigners(self) -> None:
        count = len(self.cosigners)
        keys = {_ORIGIN.sub("", text) for text in self.cosigners}
        for xpub in keys:
            _require_xpub(self.code, xpub)
        if not 1 < count <= COSIGNERS_MAX or len(keys) != count:
            raise BadInput(
                f"wallet {self.code} has 2 to {COSIGNERS_MAX} cosigners, each with another key"
            )
        if list(self.cosigners) != sorted(self.cosigners):
            raise BadInput(
                f"the cosigners of wallet {self.code} are not in alphabetical order",
                remedy="Sort them: the same people in another order are the same wallet",
            )
        if not 0 < self.required <= count:
            raise BadInput(
                f"wallet {self.code} requires {self.required} of {count} cosigners",
                remedy=f"Require 1 to {count}",
            )


@dataclass(frozen=True, slots=True)
class BankAccount:
    """An account of ours at a bank, in one currency; its money has one owner class for ever.

    What is in it is on the ledger under ``bank:<code>``. Its code names it wherever a wallet's would
    (payouts, policies, freezes), so no wallet has the same.

    Attributes:
        bank: what people call the bank.
        iban: ISO 13616, without spaces.
        bic: of the branch that keeps it: ISO 9362, 8 or 11 letters and digits.
        asset: the currency, by its ISO 4217 code.
        owner: ``client`` (omnibus), ``client:<party>`` (segregated) or ``house``.
        entity: the legal entity of ours that holds it.
        active: nothing is paid from an account that is not; what arrives there is booked still.
    """

    code: str
    bank: str
    iban: str
    bic: str
    asset: str
    owner: str
    entity: str
    active: bool = True

    def __post_init__(self) -> None:
        _require_code("bank account", self.code)
        if not 0 < len(self.bank) <= NAME_LENGTH_MAX:
            raise BadInput(f"the bank of {self.code} has 1 to {NAME_LENGTH_MAX} characters")
        if canonical_iban(self.iban) != self.iban or canonical_bic(self.bic) != self.bic:
            raise BadInput(
                f"bank account {self.code} has IBAN {self.iban!r} and BIC {self.bic!r}",
                remedy="Write both in capital letters, without spaces",
            )
        if not _CURRENCY.fullmatch(self.asset):
            raise BadInput(
                f"bank account {self.code} is in {self.asset!r}",
                remedy="Name the asset by the three capital letters of its currency",
            )
        _require_owner("bank account", self.code, self.owner)

    @property
    def holds_client_money(self) -> bool:
        """Tell whether the money belongs to clients."""
        return self.owner != HOUSE

    @property
    def owner_party(self) -> str | None:
        """Return the one client of a segregated account."""
        _, _, party = self.owner.partition(":")
        return party or None


Record: TypeAlias = (
    LegalEntity | Asset | Chain | ChainAsset | Party | Operator | Wallet | BankAccount
)


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
    bank_accounts: tuple[BankAccount, ...] = ()

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
            *self.bank_accounts,
        )


def _require_owner(what: str, code: str, owner: str) -> None:
    if owner in {CLIENT, HOUSE}:
        return
    _require_code(f"owner of a {what}", owner.removeprefix(f"{CLIENT}:"))
    if not owner.startswith(f"{CLIENT}:"):
        raise BadInput(
            f"{what} {code} is owned by {owner!r}",
            remedy="Write client, client:<party> or house",
        )


def _require_xpub(wallet: str, xpub: str) -> None:
    if not _XPUB.fullmatch(xpub):
        raise BadInput(f"wallet {wallet} has no extended public key in base58")


def _require_code(what: str, code: str) -> None:
    if not _CODE.fullmatch(code):
        raise BadInput(
            f"{code!r} is not the code of a {what}",
            remedy="Use up to 63 small letters, digits and hyphens",
        )
