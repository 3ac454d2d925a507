"""What payouts ask of the outside: a signer. The chain's port is `chain.ports.ChainGateway`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from custody.signer.wire import Intent, SignedApproval


class PayoutSigner(Protocol):
    """Whoever holds the keys: `custody.signer.client.SignerClient`, or a fake in a test."""

    async def sign(
        self, intent: Intent, unsigned: bytes, approvals: Sequence[SignedApproval]
    ) -> bytes:
        """Return the signed bytes; the same request always gets the same bytes.

        Raises:
            SignerRefused: this transaction was not signed.
            OutsideUnavailable: no answer; ask the same again.
        """
        ...

    async def account_xpub(self, path: str) -> str:
        """Return the extended public key of the account at *path*."""
        ...
