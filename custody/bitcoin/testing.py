"""Builders for tests and demonstrations: a house that has Bitcoin as well.

The keys are those of a phrase that everybody knows: never use them where money is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from chain.bitcoin.networks import REGTEST
from kernel.money import Asset
from registry.model import BITCOIN, Chain, ChainAsset, Founding, Wallet, WalletPurpose

CHAIN: Final = "bitcoin"
BTC: Final = Asset("BTC", 8)
POOL: Final = "btc-pool"
SETTLEMENT: Final = "btc-settlement"
HOT: Final = "btc-hot"

# Account keys m/84'/1'/0' to m/84'/1'/2' of the BIP 39 phrase "abandon … about", public halves.
XPUBS: Final = (
    "xpub6Bm9M1SxZdzL3TxdNV8897FgtTLBgehR1wVNnMyJ5VLRK5n3tFqXxrCVnVQj4zooN4eFSkf6Sma84reWc5ZCXMxPbLXQs3BcaBdTd4YQa3B",
    "xpub6Bm9M1SxZdzL7En61NC6MXPGg4F2RnFFA4QWtzQVUMvfdi2CTBrH53qysjDokoXVcWPaRCTTw3oiFucxidKEuZ5purNVFAdVXJ62JpitXgS",
    "xpub6Bm9M1SxZdzL8LJiEdgyQSM5hsuovuVFucFXL3PUDmdbknLbiETfxBieFS23Zpkwate52JNFvvRHckYnseggzo1teeAgUqFf7YXUVDLAimS",
)


def bitcoin_wallets(xpubs: Sequence[str] = XPUBS, *, chain: str = CHAIN) -> tuple[Wallet, ...]:
    """Return three wallets: clients' deposits, settlement receipts, and the house's hot wallet."""
    plan = (
        (POOL, "client", WalletPurpose.DEPOSIT),
        (SETTLEMENT, "house", WalletPurpose.SETTLEMENT),
        (HOT, "house", WalletPurpose.HOT),
    )
    return tuple(
        Wallet(code, chain, owner, purpose, xpub, f"m/84'/1'/{index}'")
        for index, ((code, owner, purpose), xpub) in enumerate(zip(plan, xpubs, strict=True))
    )


def with_bitcoin(founding: Founding, *, xpubs: Sequence[str] = XPUBS) -> Founding:
    """Return a founding with BTC, a chain of Bitcoin on regtest, and wallets there."""
    return replace(
        founding,
        assets=(*founding.assets, BTC),
        chains=(*founding.chains, Chain(CHAIN, BITCOIN, REGTEST.network_id, BTC.code)),
        chain_assets=(
            *founding.chain_assets,
            ChainAsset(f"{CHAIN}:{BTC.code}", CHAIN, None, 8, BTC.code),
        ),
        wallets=(*founding.wallets, *bitcoin_wallets(xpubs)),
    )
