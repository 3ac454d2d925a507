"""What a restore asks of the signer: who it is, which marks it has, what its log says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from custody.ports import ControlledSigner
from custody.restore_marks import Shown
from custody.signer.wire import Intent, No, Signed, SignedApproval, SignRequest, SpendIntent


class MarkedSigner(ControlledSigner, Protocol):
    """The signer that is shown marks: `custody.signer.client.SignerClient`."""

    async def sign(
        self,
        intent: Intent,
        unsigned: bytes,
        approvals: Sequence[SignedApproval],
        *,
        shown: Shown | None = None,
    ) -> bytes:
        """Return the signed bytes, for a database that shows itself."""
        ...

    async def sign_many(
        self,
        requests: Sequence[SignRequest],
        approvals: Sequence[SignedApproval],
        *,
        shown: Shown | None = None,
    ) -> list[Signed | No]:
        """Return one answer for each request, for a database that shows itself."""
        ...

    async def sign_spend(
        self,
        intent: SpendIntent,
        psbt: bytes,
        approvals: Sequence[SignedApproval],
        *,
        shown: Shown | None = None,
    ) -> bytes:
        """Return the signed Bitcoin transaction, for a database that shows itself."""
        ...

    async def mark(self, number: int) -> str | None:
        """Return the token of a mark; None: the signer does not have it."""
        ...

    async def witness(self, shown: Shown) -> int:
        """Have the signer keep marks that no question of a signature has brought."""
        ...
