"""Builders for tests and demonstrations: a founded registry, operators with keys, approved changes.

The keys are derived from short texts: never use them where money is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.money import Asset
from registry.changes import approve, propose
from registry.decisions import APPROVE, approval_bytes
from registry.model import (
    BankAccount,
    Chain,
    ChainAsset,
    Founding,
    LegalEntity,
    Operator,
    Party,
    PartyKind,
    Proposal,
    Record,
    Role,
    Versioned,
    Wallet,
    WalletPurpose,
)

EVM: Final = "evm"
ENTITY: Final = LegalEntity("causeway-desk", "Causeway Desk Ltd", 1)
ETH: Final = Asset("ETH", 18)
USDT: Final = Asset("USDT", 6)
EUR: Final = Asset("EUR", 2)
TOKEN: Final = "0x5FbDB2315678afecb367f032d93F642f64180aa3"  # noqa: S105  an address, EIP-55
LOCAL_NETWORK_ID: Final = 31_337

# Account keys m/44'/60'/0' to m/44'/60'/2' of the BIP-39 phrase "abandon … about" (`custody.signer.testing` signs for it), public halves.
# Not those of anvil's phrase: its funded accounts play the strangers.
XPUBS: Final = (
    "xpub6DCoCpSuQZB2jawqnGMEPS63ePKWkwWPH4TU45Q7LPXWuNd8TMtVxRrgjtEshuqpK3mdhaWHPFsBngh5GFZaM6si3yZdUsT8ddYM3PwnATt",
    "xpub6DCoCpSuQZB2k9PnGSMK9tinTK8kx3hcv7F4BWwhs5N2wnwGiLg17r9J7j2JcYP9gkip3sC87J1F99YxeBHGuFMg6ejA8qQEKSuzzaKvqBR",
    "xpub6DCoCpSuQZB2ot5sZMhVj1zbCa9smR2h7YGPfJjzjauzsnCqqp8GHwUQTDMrFK2gExmmpCjspBVanYdRaTg3H1eyxyG1ddXfZyNT2JRAYWk",
)


@dataclass(frozen=True, slots=True)
class Keypair:
    """An operator's key in a test."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """Return the 32 raw bytes that are enrolled."""
        return self.private.public_key().public_bytes_raw()

    def sign(self, payload: bytes) -> bytes:
        """Return the Ed25519 signature, 64 bytes."""
        return self.private.sign(payload)


def operator_keypair(seed: str) -> Keypair:
    """Return the key that *seed* (an operator's code, say) always gives."""
    digest = hashlib.sha256(f"causeway test operator {seed}".encode()).digest()
    return Keypair(Ed25519PrivateKey.from_private_bytes(digest))


def operator(code: str, *roles: Role, active: bool = True) -> Operator:
    """Return an operator whose key is `operator_keypair` of the code."""
    return Operator(code, operator_keypair(code).public, frozenset(roles), active)


DEMO_OPERATORS: Final = (
    operator("ada", Role.ADMIN, Role.TREASURER),
    operator("ben", Role.ADMIN, Role.APPROVER),
    operator("cleo", Role.APPROVER, Role.FINANCE),
    operator("dan", Role.DEALER, Role.OPERATIONS),
)


def wallets(xpubs: Sequence[str] = XPUBS, *, chain: str = EVM) -> tuple[Wallet, ...]:
    """Return three wallets: clients' deposits, settlement receipts, and the house's hot wallet."""
    plan = (
        ("client-pool", "client", WalletPurpose.DEPOSIT),
        ("house-settlement", "house", WalletPurpose.SETTLEMENT),
        ("house-hot", "house", WalletPurpose.HOT),
    )
    return tuple(
        Wallet(code, chain, owner, purpose, xpub, f"m/44'/60'/{index}'")
        for index, ((code, owner, purpose), xpub) in enumerate(zip(plan, xpubs, strict=True))
    )


BANK_ACCOUNTS: Final = (
    BankAccount(
        *("client-eur", "Example Bank", "FR1420041010050500013M02606", "COBADEFFXXX"),
        *("EUR", "client", ENTITY.code),
    ),
    BankAccount(
        *("house-eur", "Example Bank", "DE89370400440532013000", "COBADEFFXXX"),
        *("EUR", "house", ENTITY.code),
    ),
)


def with_banks(founding: Founding) -> Founding:
    """Return a founding with euros and accounts at a bank: clients' money and the house's."""
    return replace(
        founding,
        assets=(*founding.assets, EUR),
        bank_accounts=(*founding.bank_accounts, *BANK_ACCOUNTS),
    )


def demo_founding(
    *,
    token: str = TOKEN,
    network_id: int = LOCAL_NETWORK_ID,
    xpubs: Sequence[str] = XPUBS,
    operators: Sequence[Operator] = DEMO_OPERATORS,
) -> Founding:
    """Return a small house: one entity, ETH and USDT on one chain, two clients, four operators."""
    return Founding(
        entities=(ENTITY,),
        assets=(ETH, USDT),
        chains=(Chain(EVM, "evm", network_id, ETH.code),),
        chain_assets=(
            ChainAsset("evm:ETH", EVM, None, 18, ETH.code),
            ChainAsset("evm:USDT", EVM, token, 6, USDT.code),
        ),
        parties=(
            Party("acme", PartyKind.CLIENT, ENTITY.code),
            Party("birch", PartyKind.CLIENT, ENTITY.code),
            Party("simvenue", PartyKind.VENUE, ENTITY.code),
        ),
        operators=tuple(operators),
        wallets=wallets(xpubs),
    )


def sign_decision(proposal: Proposal, by: str, verb: str = APPROVE) -> bytes:
    """Return the signature of a test operator over a proposal."""
    return operator_keypair(by).sign(approval_bytes(proposal, verb))


async def change(
    conn: AsyncConnection, record: Record, *, now: datetime, by: str = "ada", second: str = "ben"
) -> Versioned:
    """Propose and approve a change by two test operators."""
    proposal = await propose(conn, record, by=by, reason="test", now=now)
    signature = sign_decision(proposal, second)
    return await approve(conn, proposal.id, by=second, signature=signature, now=now)
