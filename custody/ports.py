"""What payouts ask of the outside: a signer. The chain's port is `chain.ports.ChainGateway`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from custody.control_messages import ControlMessage
from custody.signer.wire import (
    Accepted,
    Audited,
    Checkpointed,
    Health,
    Intent,
    No,
    Signed,
    SignedApproval,
    SignRequest,
    SpendIntent,
)


class PayoutSigner(Protocol):
    """Whoever holds the keys: `custody.signer.client.SignerClient`, or a fake in a test."""

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        """Return the signed bytes; the same request always gets the same bytes.

        Raises:
            SignerRefused: this transaction was not signed.
            SignerPostponed: it was not signed now; ask the same again later.
            OutsideUnavailable: no answer; ask the same again.
        """
        ...

    async def sign_many(
        self, requests: Sequence[SignRequest], approvals: Sequence[SignedApproval]
    ) -> list[Signed | No]:
        """Return one answer for each of up to 100 requests, in their order.

        Each request finds its own line among *approvals*. What one is refused does not touch the
        others.

        Raises:
            OutsideUnavailable: no answer; some may have been signed, ask the same again.
        """
        ...

    async def sign_spend(
        self, intent: SpendIntent, psbt: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        """Return the signed Bitcoin transaction; the same request always gets the same bytes.

        Args:
            intent: what the transaction is meant to do, line by line.
            psbt: the same transaction, unsigned (BIP 174).
            approvals: of all the lines; each line finds its own.

        Raises:
            SignerRefused: this transaction was not signed.
            SignerPostponed: it was not signed now; ask the same again later.
            OutsideUnavailable: no answer; ask the same again.
        """
        ...

    async def account_xpub(self, path: str) -> str:
        """Return the extended public key of the account at *path*."""
        ...


class ControlledSigner(PayoutSigner, Protocol):
    """The signer as `custody.signer_sync` asks it: it takes control messages, too."""

    async def health(self) -> Health:
        """Return which keys and which store answer."""
        ...

    async def control(self, message: ControlMessage) -> Accepted | No:
        """Hand a control message over.

        Raises:
            OutsideUnavailable: no answer; hand the same over again.
        """
        ...

    async def checkpoint(self, *, since: int = 0) -> Checkpointed:
        """Return the signed checkpoint of the signer's log, proved to go on from *since* records."""
        ...

    async def audit(self, index: int, *, size: int) -> Audited:
        """Return a record of the signer's log with its inclusion proof in a tree of *size*."""
        ...
