"""The questions that the signer is asked and the answers it gives, as JSON values. Pure.

Byte strings are base64; amounts are decimal text, because they exceed 64 bits.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import msgspec

from custody.payout_approvals import ApprovalLine
from kernel.errors import BadInput

APPROVALS_MAX: Final = 16


class Intent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the transaction is meant to do, in words that the signer compares with its bytes.

    Attributes:
        key_path: the sending key, ``m/44'/60'/0'/1/0``; *sender* is its address.
        asset: code of what is paid; *contract* is its token contract, None for the native coin.
        amount, fee_cap: decimal text, smallest units (the fee cap in wei).
        initiator: operator who asked for the payout.
    """

    payout_id: UUID
    chain: str
    chain_id: int
    key_path: str
    sender: str
    nonce: int
    destination: str
    asset: str
    contract: str | None
    amount: str
    fee_cap: str
    initiator: str
    policy_version: int


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`custody.payout_approvals.ApprovalLine` on the wire."""

    payout_id: UUID
    chain: str
    destination: str
    asset: str
    amount: str
    initiator: str
    policy_version: int

    @classmethod
    def of(cls, line: ApprovalLine) -> Line:
        """Return the line as it travels."""
        return cls(
            payout_id=line.payout_id,
            chain=line.chain,
            destination=line.destination,
            asset=line.asset,
            amount=str(line.amount),
            initiator=line.initiator,
            policy_version=line.policy_version,
        )

    def read(self) -> ApprovalLine:
        """Return the line as a value."""
        return ApprovalLine(
            payout_id=self.payout_id,
            chain=self.chain,
            destination=self.destination,
            asset=self.asset,
            amount=read_amount(self.amount),
            initiator=self.initiator,
            policy_version=self.policy_version,
        )


class SignedApproval(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An operator's Ed25519 *signature* of `approval_bytes` of the *lines*."""

    operator: str
    signature: bytes
    lines: list[Line]


class AskHealth(msgspec.Struct, frozen=True, tag="health"):
    """Are you there, and with which key?"""


class AskXpub(msgspec.Struct, frozen=True, tag="account_xpub", forbid_unknown_fields=True):
    """The extended public key of an account: every step of *path* hardened."""

    path: str


class AskSign(msgspec.Struct, frozen=True, tag="sign", forbid_unknown_fields=True):
    """Sign the bytes of `chain.evm.transactions.encode_unsigned`."""

    intent: Intent
    unsigned: bytes
    approvals: list[SignedApproval]


class Health(msgspec.Struct, frozen=True, tag="healthy"):
    """The signer works; *signed* counts the transactions it remembers."""

    key_id: str
    signed: int


class Xpub(msgspec.Struct, frozen=True, tag="xpub"):
    """An extended public key in base58check."""

    xpub: str


class Signed(msgspec.Struct, frozen=True, tag="signed"):
    """The signed bytes: always the same for the same request."""

    raw: bytes


class No(msgspec.Struct, frozen=True, tag="refused"):
    """The signer will not; *signed_before*: another signature of the same payout exists."""

    what: str
    remedy: str = ""
    signed_before: bool = False


Question = AskHealth | AskXpub | AskSign
Answer = Health | Xpub | Signed | No


def read_amount(text: str) -> int:
    """Return a decimal integer in its one canonical spelling."""
    if not (text.isascii() and text.isdigit()) or (len(text) > 1 and text[0] == "0"):
        raise BadInput(f"{text!r} is not an amount in smallest units")
    return int(text)
