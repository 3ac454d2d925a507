"""Wallets whose one key is in a token: the signer says what its public half is, people approve it.

Nothing is derived from such a key, so the wallet has one address, and payouts and sweeps leave from
it or go to it; nobody is given it to pay in. Whoever proposes the wallet asks the signer for the public
key, whoever approves it can ask again (`require_token_key`), and from the approval on it never changes.
"""

from __future__ import annotations

from typing import Protocol

from chain.errors import DerivationDisagrees
from chain.keys.single import address_of_key, compress
from custody.errors import NotPossible
from registry.model import Wallet, WalletPurpose


class PublicKeys(Protocol):
    """Whoever knows the public halves: `custody.signer.client.SignerClient`."""

    async def public_key(self, path: str) -> bytes:
        """Return the public key at *path*, 65 bytes.

        Raises:
            SignerRefused: there is no such key.
            OutsideUnavailable: no answer.
        """
        ...


async def ask_token_wallet(
    signer: PublicKeys, code: str, *, chain: str, owner: str, purpose: WalletPurpose, label: str
) -> Wallet:
    """Return the wallet of the key that the signer's token has under *label*, to be proposed.

    Raises:
        SignerRefused: the token has no such key.
        OutsideUnavailable: signer or token do not answer.
        BadKey: what the signer gives is no point on the curve.
    """
    public = compress(await signer.public_key(label))
    return Wallet(code, chain, owner, purpose, token_key=label, token_public_key=public.hex())


async def require_token_key(signer: PublicKeys, wallet: Wallet) -> str:
    """Hold the wallet's public key to what the signer says now; return its address.

    Raises:
        NotPossible: the wallet has no token's key.
        SignerRefused: the token has no such key.
        OutsideUnavailable: signer or token do not answer.
        DerivationDisagrees: the signer's key of that label is another one.
    """
    if not wallet.token_key:
        raise NotPossible(f"the keys of wallet {wallet.code} are in no token")
    public = compress(await signer.public_key(wallet.token_key)).hex()
    if public != wallet.token_public_key:
        raise DerivationDisagrees(
            f"key {wallet.token_key} of the signer is {public}, and wallet {wallet.code} has"
            f" {wallet.token_public_key}",
            remedy="Approve nothing of this wallet until it is understood why",
        )
    return address_of_key(bytes.fromhex(public))
