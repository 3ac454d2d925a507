"""What people tell the signer, under their own signatures. Pure; shared by whoever collects and checks.

The signer believes no database but its own. What it may do changes only by a *control message*: a
kind, a body of plain JSON values, and Ed25519 signatures of operators over
``registry.authority.signing_bytes(verb of the kind, body)``. The application collects the signatures
(two people propose and approve a destination, say) and hands the message over; it cannot make one.

A message is known by the hash of what is signed, so one that is handed over again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import msgspec

from kernel.errors import BadInput
from registry.authority import signing_bytes

SIGNATURES_MAX: Final = 8
BODY_ITEMS_MAX: Final = 256
"""Most operators, asset limits, wallets or policy rules in one message."""

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number that a column of the signer's store takes."""


class ControlKind(StrEnum):
    """What a message changes."""

    OPERATORS = "operators"
    """The pinned people, services and groups: the next version, whole."""
    LIMITS = "limits"
    """What may be signed of each asset, fees and windows: the next version, whole."""
    POLICY = "policy"
    """The application's approval policy: which version is in force."""
    WALLET = "wallet"
    """Which account of keys a wallet is."""
    DESTINATION_ALLOW = "destination.allow"
    DESTINATION_REVOKE = "destination.revoke"
    FREEZE = "freeze"
    THAW = "thaw"
    KEY_RETIRE = "key.retire"
    """Keys sign no more than moves to the keys that replace them, for ever."""
    PAYOUT_DEAD = "payout.dead"
    """The nonce of a signed payout was spent by another transaction: it may get a new one."""
    SPEND_DEAD = "spend.dead"
    """The anchor of a signed spend was spent by another transaction: its payouts may get new ones."""
    RESTORE_OPEN = "restore.open"
    """A restored database knows again what was signed: it is signed for again."""


VERBS: Final[Mapping[ControlKind, str]] = {
    ControlKind.OPERATORS: "signer.operators",
    ControlKind.LIMITS: "signer.limits",
    ControlKind.POLICY: "payout_policy.approve",
    ControlKind.WALLET: "signer.wallet",
    ControlKind.DESTINATION_ALLOW: "destination.allow",
    ControlKind.DESTINATION_REVOKE: "destination.revoke",
    ControlKind.FREEZE: "freeze.close",
    ControlKind.THAW: "freeze.open",
    ControlKind.KEY_RETIRE: "key.retire",
    ControlKind.PAYOUT_DEAD: "payout.dead",
    ControlKind.SPEND_DEAD: "spend.dead",
    ControlKind.RESTORE_OPEN: "restore.open",
}
"""What stands as the verb in the signed bytes of each kind."""

ONE_PERSON: Final = frozenset({ControlKind.FREEZE, ControlKind.DESTINATION_REVOKE})
"""What only makes things safer, so that one person may do it; everything else takes a quorum."""


class ScopeKind(StrEnum):
    """What a freeze switch closes."""

    GLOBAL = "global"
    CHAIN = "chain"
    ASSET = "asset"
    WALLET = "wallet"
    CLIENT = "client"


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a message says; its JSON values are what is signed."""

    def plain(self) -> dict[str, Any]:
        """Return the body as JSON values, as it is signed and sent."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built


class DestinationAllowed(Body, frozen=True, kw_only=True):
    """Coins of *party* may go to *address* once *cooling_off_s* seconds are over.

    Attributes:
        chain_id: network id of *chain* (EIP-155).
        kind: ``eoa`` or ``contract``.
        proposed_at: ISO 8601, UTC, milliseconds. The signer counts from its own clock when it first
            sees the message, or from this if it is later.
    """

    id: UUID
    party: str
    chain: str
    chain_id: int
    address: str
    kind: str
    cooling_off_s: int
    proposed_at: str


class DestinationRevoked(Body, frozen=True, kw_only=True):
    """Nothing goes to destination *id* any more, ever: the id does not come back."""

    id: UUID


class Frozen(Body, frozen=True, kw_only=True):
    """One switch is closed. *name* is empty for the global one; *id* names this closing."""

    id: UUID
    scope: ScopeKind
    name: str
    reason: str


class Thawed(Body, frozen=True, kw_only=True):
    """The closing *id* is over; the same scope may be closed by others still."""

    id: UUID
    reason: str


class PolicyInForce(Body, frozen=True, kw_only=True):
    """Approval policy *version* is in force in place of every earlier one.

    Versions only grow; those of proposals that were never approved are left out. *document* is as
    `custody.payout_policy.to_document` writes it; the signer keeps it and relies on its own limits.
    """

    version: int
    document: dict[str, Any]


class AssetRule(Body, frozen=True, kw_only=True):
    """What may be signed of one asset on one chain; amounts are decimal text in smallest units.

    Attributes:
        contract: token contract in EIP-55; None for the native coin.
        amount_max: largest single payment.
        approvals: distinct approvers needed, the initiator not counted.
        groups: how many of them each named group has to give.
        own_amount_max: largest move to an address of our own; None: as *amount_max*.
        window_s, window_max: most that leaves within that many seconds; None: no such limit.
        auto_max, auto_window_max: what a service may approve alone, each and within *window_s*;
            None: nothing.
    """

    chain_id: int
    asset: str
    contract: str | None
    amount_max: str
    approvals: int
    groups: dict[str, int] = {}
    own_amount_max: str | None = None
    window_s: int = 86_400
    window_max: str | None = None
    auto_max: str | None = None
    auto_window_max: str | None = None


class OperatorsInForce(Body, frozen=True, kw_only=True):
    """The people that the signer knows.

    Attributes:
        operators: Ed25519 public keys (64 hexadecimal digits) by operator code.
        services: codes among them whose keys programs hold: they never count as people.
        administrators: who may change operators, limits, policy, wallets; empty: everybody.
        groups: codes by group.
        quorum: people needed for a control message that one person may not give; 2 or more.
    """

    version: int
    operators: dict[str, str]
    services: list[str] = []
    administrators: list[str] = []
    groups: dict[str, list[str]] = {}
    quorum: int = 2


class LimitsInForce(Body, frozen=True, kw_only=True):
    """What may be signed.

    Attributes:
        chains: network id by chain code.
        fee_cap_max: largest fee of one transaction, decimal text in wei.
        fee_window_s, fee_window_max: most fees per chain within that many seconds; None: no limit
            but that of cancellations.
        cooling_off_s_min: seconds that every new destination cools off at least.
        policy_grace_s: how long a payout of a replaced approval policy may still be signed.
        fee_caps, fee_windows: the same as *fee_cap_max* and *fee_window_max* by chain code, for chains
            of Bitcoin, in satoshi.
    """

    version: int
    chains: dict[str, int]
    fee_cap_max: str
    assets: list[AssetRule]
    fee_window_s: int = 86_400
    fee_window_max: str | None = None
    cooling_off_s_min: int = 0
    policy_grace_s: int = 604_800
    fee_caps: dict[str, str] = {}
    fee_windows: dict[str, str] = {}


class WalletPinned(Body, frozen=True, kw_only=True):
    """Wallet *wallet* is the account of keys at *account_path*; an ended one signs no more."""

    version: int
    wallet: str
    chain: str
    account_path: str
    ended: bool = False


class KeyRetired(Body, frozen=True, kw_only=True):
    """The keys at and below *path* sign only moves to keys at and below *successor*, for ever.

    Attributes:
        path, successor: accounts (``m/44'/60'/0'``), or labels of a token's keys.
    """

    path: str
    successor: str
    reason: str


class PayoutDead(Body, frozen=True, kw_only=True):
    """Transaction *spent_by* is final and has spent the nonce at which the payout was signed."""

    payout_id: UUID
    chain_id: Natural
    sender: str
    nonce: Natural
    spent_by: str


class SpendDead(Body, frozen=True, kw_only=True):
    """Transaction *spent_by* is final and has spent *anchor*, with which the spend was signed.

    Attributes:
        chain_id: network id of the chain.
        anchor: ``tx_id:index``.
        spent_by: id of the transaction.
    """

    spend_id: UUID
    chain_id: Natural
    anchor: str
    spent_by: str


class RestoreOpened(Body, frozen=True, kw_only=True):
    """The database that was restored has taken in what was signed meanwhile, and goes on.

    Attributes:
        id: of the restore.
        mark, token: the newest mark that the restored database and the signer both know; 0 and an
            empty token where there is none.
        records: so many records of the signer's log were read; nothing was signed after them.
    """

    id: UUID
    mark: Natural
    token: str
    records: Natural
    reason: str


BODIES: Final[Mapping[ControlKind, type[Body]]] = {
    ControlKind.OPERATORS: OperatorsInForce,
    ControlKind.LIMITS: LimitsInForce,
    ControlKind.POLICY: PolicyInForce,
    ControlKind.WALLET: WalletPinned,
    ControlKind.DESTINATION_ALLOW: DestinationAllowed,
    ControlKind.DESTINATION_REVOKE: DestinationRevoked,
    ControlKind.FREEZE: Frozen,
    ControlKind.THAW: Thawed,
    ControlKind.KEY_RETIRE: KeyRetired,
    ControlKind.PAYOUT_DEAD: PayoutDead,
    ControlKind.SPEND_DEAD: SpendDead,
    ControlKind.RESTORE_OPEN: RestoreOpened,
}

BodyT = TypeVar("BodyT", bound=Body)


class OperatorSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operator's Ed25519 signature, 64 bytes (base64 in JSON)."""

    operator: str
    signature: bytes


class ControlMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change that people have signed; *body* holds JSON values only."""

    kind: ControlKind
    body: dict[str, Any]
    signatures: list[OperatorSignature]

    def signed_bytes(self) -> bytes:
        """Return what each of the signatures is over."""
        return control_bytes(self.kind, self.body)

    @property
    def digest(self) -> str:
        """Return what the message is known by: SHA-256 of the signed bytes, in hexadecimal."""
        return sha256(self.signed_bytes()).hexdigest()


def control_bytes(kind: ControlKind, body: Mapping[str, Any]) -> bytes:
    """Return what an operator signs to say *body*."""
    return signing_bytes(VERBS[kind], body)


def message_of(kind: ControlKind, body: Body, signatures: Mapping[str, bytes]) -> ControlMessage:
    """Return the message that *body* and the signatures by operator code make."""
    signed = [OperatorSignature(code, signature) for code, signature in sorted(signatures.items())]
    return ControlMessage(kind, body.plain(), signed)


def read_body(kind: ControlKind, body: Mapping[str, Any], shape: type[BodyT]) -> BodyT:
    """Return the body as a value.

    Raises:
        BadInput: it does not say what its kind says, or could be spelled in another way.
    """
    try:
        read = msgspec.convert(dict(body), type=shape)
    except msgspec.ValidationError as error:
        raise BadInput(f"not a {kind} message: {error}") from error
    if msgspec.to_builtins(read) != dict(body):
        raise BadInput(f"a {kind} message in another spelling than its own")
    return read
