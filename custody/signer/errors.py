"""Why the signer says no.

::

    Refused
    └── SignerRefused       this transaction was not signed
    BadInput
    └── KeystoreUnreadable  wrong key-encryption key, damaged file, or unsafe file mode
"""

from __future__ import annotations

from kernel.errors import BadInput, Refused


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


class KeystoreUnreadable(BadInput):
    """The keystore cannot be opened: its file, its key or its mode is wrong."""
