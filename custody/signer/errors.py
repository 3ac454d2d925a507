"""Why the signer says no.

::

    Refused
    ├── SignerRefused       this transaction was not signed
    └── StoreUnusable       the store is lost, newer, behind its checkpoint, forked or held
    OutsideUnavailable
    └── SignerPostponed     not now; the same request may be signed later
"""

from __future__ import annotations

from kernel.errors import OutsideUnavailable, Refused


class SignerRefused(Refused):
    """The signer read the request and will not sign it; no signature of it exists.

    Attributes:
        signed_before: the signer has signed the same payout in another transaction, whose bytes
            may be out, so nothing may be concluded about the payout.
    """

    def __init__(
        self, what: str, *, where: str = "", remedy: str = "", signed_before: bool = False
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.signed_before = signed_before


class StoreUnusable(Refused):
    """The signer's store cannot be relied on; nothing is signed until people have looked."""


class SignerPostponed(OutsideUnavailable):
    """The signer will not sign this now and may later: ask the same again.

    It is frozen, the destination cools off, a window is full, or a control message is not there yet.
    """
