"""Why the signer says no.

::

    Refused
    └── SignerRefused       positive evidence that nothing was signed for this request
    BadInput
    └── KeystoreUnreadable  wrong key-encryption key, damaged file, or unsafe file mode
"""

from __future__ import annotations

from kernel.errors import BadInput, Refused


class SignerRefused(Refused):
    """The signer read the request and will not sign it; no signature of it exists."""


class KeystoreUnreadable(BadInput):
    """The keystore cannot be opened: its file, its key or its mode is wrong."""
