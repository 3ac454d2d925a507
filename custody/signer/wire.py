"""The questions that the signer is asked and the answers it gives, as JSON values. Pure.

Byte strings are base64; amounts are decimal text, because they exceed 64 bits.
"""

from __future__ import annotations

from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from custody.control_messages import ControlMessage, Natural
from custody.payout_approvals import ApprovalLine
from custody.restore_marks import Number, Shown
from kernel.errors import BadInput

APPROVALS_MAX: Final = 16
"""Most approvals of one payout."""
REQUESTS_MAX: Final = 100
"""Most transactions in one question."""
APPROVALS_MANY_MAX: Final = 400
"""Most approvals in one question: each is verified once, whatever number of requests it covers."""
AMOUNT_DIGITS_MAX: Final = 78
"""Decimal digits of 2**256 - 1."""
SPEND_LINES_MAX: Final = 500
"""Most payouts of one Bitcoin transaction."""
SPEND_INPUTS_MAX: Final = 500
"""Most coins that one Bitcoin transaction spends."""


class Intent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the transaction is meant to do, in words that the signer compares with its bytes.

    Attributes:
        kind: ``pay`` to somebody's allowed address, ``own`` to an address that the signer derives
            itself, ``cancel`` by sending nothing from the sender to the sender.
        key_path: the sending key, ``m/44'/60'/0'/1/0``; *sender* is its address.
        wallet: code of the wallet that *key_path* belongs to.
        client: whose allow-list has the destination; None for ``own`` and ``cancel``.
        destination_path: the receiving key of an ``own`` transfer; None otherwise.
        asset: code of what is paid; *contract* is its token contract, None for the native coin.
        amount, fee_cap: decimal text, smallest units (the fee cap in wei).
        initiator: operator who asked for the payout.
        rule: number of the rule of approval policy *policy_version* that decided.
    """

    payout_id: UUID
    kind: Literal["pay", "own", "cancel"]
    wallet: str
    client: str | None
    destination_path: str | None
    chain: str
    chain_id: Natural
    key_path: str
    sender: str
    nonce: Natural
    destination: str
    asset: str
    contract: str | None
    amount: str
    fee_cap: str
    initiator: str
    policy_version: int
    rule: int


class SpendLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One payout of a Bitcoin transaction: an output of *amount* satoshi to *destination*.

    Attributes:
        kind: ``pay`` to somebody's allowed address, ``own`` to an address that the signer derives
            itself, or to a vault that two people allowed for the party ``own``.
        client: whose allow-list has the destination; None for ``own``.
        destination: an address in its one spelling.
        destination_path: the receiving key of an ``own`` line; None otherwise.
        initiator: operator who asked for the payout.
        rule: number of the rule of approval policy *policy_version* that decided.
    """

    payout_id: UUID
    kind: Literal["pay", "own"]
    client: str | None
    destination: str
    destination_path: str | None
    asset: str
    amount: Natural
    initiator: str
    policy_version: int
    rule: int


class SpendInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A coin that is spent: output *index* of *tx_id*, *amount* satoshi for the key at *key_path*."""

    tx_id: str
    index: Natural
    amount: Natural
    key_path: str


class SpendChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What comes back: *amount* satoshi to the signer's own key at *key_path*, on branch 1."""

    amount: Natural
    key_path: str


class SpendIntent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a Bitcoin transaction is meant to do; the signer builds its outputs from this again.

    Attributes:
        spend_id: the spend that this transaction, and every one that replaces it, belongs to.
        chain_id: network id of *chain* (`chain.bitcoin.networks`).
        wallet: code of the wallet that every input and the change belong to.
        kind: ``pay`` the *lines*; ``cancel``: no lines, everything goes to the change.
        lines: one output for each, in any order.
        inputs: every coin that is spent, in the order of the transaction.
        change: None: nothing comes back.
        fee: satoshi; inputs less outputs, exactly. *fee_cap*: the most that the spend may cost.
        anchor: ``tx_id:index`` of the input that every transaction of the spend spends.
    """

    spend_id: UUID
    chain: str
    chain_id: Natural
    wallet: str
    kind: Literal["pay", "cancel"]
    lines: list[SpendLine]
    inputs: list[SpendInput]
    change: SpendChange | None
    fee: Natural
    fee_cap: Natural
    anchor: str


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`custody.payout_approvals.ApprovalLine` on the wire."""

    payout_id: UUID
    chain: str
    chain_id: int
    wallet: str
    client: str | None
    destination: str
    asset: str
    amount: str
    initiator: str
    policy_version: int
    rule: int
    expires_at: Natural

    @classmethod
    def of(cls, line: ApprovalLine) -> Line:
        """Return the line as it travels."""
        return cls(
            payout_id=line.payout_id,
            chain=line.chain,
            chain_id=line.chain_id,
            wallet=line.wallet,
            client=line.client,
            destination=line.destination,
            asset=line.asset,
            amount=str(line.amount),
            initiator=line.initiator,
            policy_version=line.policy_version,
            rule=line.rule,
            expires_at=line.expires_at,
        )

    def read(self) -> ApprovalLine:
        """Return the line as a value."""
        return ApprovalLine(
            payout_id=self.payout_id,
            chain=self.chain,
            chain_id=self.chain_id,
            wallet=self.wallet,
            client=self.client,
            destination=self.destination,
            asset=self.asset,
            amount=read_amount(self.amount),
            initiator=self.initiator,
            policy_version=self.policy_version,
            rule=self.rule,
            expires_at=self.expires_at,
        )


class SignedApproval(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An operator's Ed25519 *signature* of `approval_bytes` of the *lines*."""

    operator: str
    signature: bytes
    lines: list[Line]


class SignRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One transaction to be signed: *unsigned* is `chain.evm.transactions.encode_unsigned` of it."""

    intent: Intent
    unsigned: bytes


class AskHealth(msgspec.Struct, frozen=True, tag="health"):
    """Are you there, and with which key?"""


class AskXpub(msgspec.Struct, frozen=True, tag="account_xpub", forbid_unknown_fields=True):
    """The extended public key of an account: every step of *path* hardened."""

    path: str


class AskPublicKey(msgspec.Struct, frozen=True, tag="public_key", forbid_unknown_fields=True):
    """The public key of the address at *path*: a token derives nothing and has no xpub."""

    path: str


class AskSign(msgspec.Struct, frozen=True, tag="sign", forbid_unknown_fields=True):
    """Sign one transaction; all the approvals are meant for it."""

    intent: Intent
    unsigned: bytes
    approvals: list[SignedApproval]
    shown: Shown | None = None


class AskSignMany(msgspec.Struct, frozen=True, tag="sign_many", forbid_unknown_fields=True):
    """Sign up to `REQUESTS_MAX` transactions; each finds its own line in the approvals."""

    requests: list[SignRequest]
    approvals: list[SignedApproval]
    shown: Shown | None = None


class AskSignSpend(msgspec.Struct, frozen=True, tag="sign_spend", forbid_unknown_fields=True):
    """Sign every input of a Bitcoin transaction; *psbt* (BIP 174) holds it unsigned."""

    intent: SpendIntent
    psbt: bytes
    approvals: list[SignedApproval]
    shown: Shown | None = None


class AskControl(msgspec.Struct, frozen=True, tag="control", forbid_unknown_fields=True):
    """Take this message into force."""

    message: ControlMessage


class AskState(msgspec.Struct, frozen=True, tag="state"):
    """What is in force: versions, limits, people, frozen switches."""


class AskCheckpoint(msgspec.Struct, frozen=True, tag="checkpoint", forbid_unknown_fields=True):
    """Your signed checkpoint, and the proof that it goes on from one of *since* records."""

    since: Natural = 0


class AskAudit(msgspec.Struct, frozen=True, tag="audit", forbid_unknown_fields=True):
    """The record at *index* of your log, and the proof that it is in a tree of *size* records."""

    index: Natural
    size: Natural


class AskMark(msgspec.Struct, frozen=True, tag="mark", forbid_unknown_fields=True):
    """The token of the mark *number*, as you were shown it."""

    number: Number


class AskWitness(msgspec.Struct, frozen=True, tag="witness", forbid_unknown_fields=True):
    """Keep these marks: those that no question of a signature has brought."""

    shown: Shown


class Health(msgspec.Struct, frozen=True, tag="healthy"):
    """The signer works.

    Attributes:
        signed: transactions it remembers.
        records: size of its log.
        verifier_key: public half of the key that signs its checkpoints (C2SP signed-note); it is
            made with the store, so it tells one store from another.
        mark, mark_token: the newest mark that it was shown; 0 and "" before the first.
    """

    key_id: str
    signed: int
    records: int = 0
    verifier_key: str = ""
    frozen: bool = False
    mark: int = 0
    mark_token: str = ""


class Xpub(msgspec.Struct, frozen=True, tag="xpub"):
    """An extended public key in base58check."""

    xpub: str


class PublicKeyIs(msgspec.Struct, frozen=True, tag="public_key_is"):
    """A public key as ``04 || x || y``, 65 bytes."""

    public_key: bytes


class Signed(msgspec.Struct, frozen=True, tag="signed"):
    """The signed bytes: always the same for the same request."""

    raw: bytes


class No(msgspec.Struct, frozen=True, tag="refused"):
    """The signer will not.

    Attributes:
        signed_before: another signature of the same payout exists.
        later: the same request may be signed later: frozen, cooling off, a window that is full, a
            message that was not handed over yet. Without it the answer stays no.
    """

    what: str
    remedy: str = ""
    signed_before: bool = False
    later: bool = False


class SignedMany(msgspec.Struct, frozen=True, tag="signed_many"):
    """One answer for each request, in their order."""

    answers: list[Signed | No]


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """The message is in force, as record *index* of the log; *again*: it was in force before."""

    index: int
    again: bool = False


class State(msgspec.Struct, frozen=True, tag="in_force"):
    """What is in force, as JSON values."""

    document: dict[str, Any]


class Checkpointed(msgspec.Struct, frozen=True, tag="checkpointed"):
    """A signed note (C2SP tlog-checkpoint) and a consistency proof (RFC 6962) from *since*."""

    note: str
    proof: list[bytes]


class Audited(msgspec.Struct, frozen=True, tag="audited"):
    """The bytes of a record of the log, and its inclusion proof (RFC 6962)."""

    record: bytes
    proof: list[bytes]


class MarkIs(msgspec.Struct, frozen=True, tag="mark_is"):
    """The token of a mark; None: it was never shown, or is void since."""

    token: str | None


class Witnessed(msgspec.Struct, frozen=True, tag="witnessed"):
    """The marks are kept; *number* is the newest."""

    number: int


Question = (
    AskHealth
    | AskXpub
    | AskPublicKey
    | AskSign
    | AskSignMany
    | AskSignSpend
    | AskControl
    | AskState
    | AskCheckpoint
    | AskAudit
    | AskMark
    | AskWitness
)
Answer = (
    Health
    | Xpub
    | PublicKeyIs
    | Signed
    | No
    | SignedMany
    | Accepted
    | State
    | Checkpointed
    | Audited
    | MarkIs
    | Witnessed
)


def read_amount(text: str) -> int:
    """Return a decimal integer in its one canonical spelling."""
    # int() fails in an error of another kind above 4,300 digits.
    is_number = text.isascii() and text.isdigit() and len(text) <= AMOUNT_DIGITS_MAX
    if not is_number or (len(text) > 1 and text[0] == "0"):
        raise BadInput(f"{text[: AMOUNT_DIGITS_MAX + 1]!r} is not an amount in smallest units")
    return int(text)
