"""The books as many payouts see them one after the other: each is promised what is left. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from custody.payout_allocation import Allocation, BooksView
from custody.payout_model import ClaimKind, NonceState, Payout


@dataclass(slots=True)
class RunningBooks:
    """What is free for the next payout of a batch; `take` makes it less.

    Attributes:
        frozen: why sending addresses are frozen, by address; None where they are not.
        nonces: by sending address, see `custody.nonces.choose_nonce`: the first that may be free,
            and the rows.
        promised: what live payments will take, by sending address and contract.
        promised_gas: the same in wei, fee caps and native payments.
        available: what a wallet has and nobody is promised, by wallet and asset.
        spare: by how much clients' holdings exceed what they are owed, by asset.
        for_clients: wallets that hold clients' money.
        leaving: (from, to) wallets between which coins leave clients' holdings.
    """

    frozen: dict[str, str | None] = field(default_factory=dict)
    nonces: dict[str, tuple[int, dict[int, NonceState]]] = field(default_factory=dict)
    promised: dict[tuple[str, str | None], int] = field(default_factory=dict)
    promised_gas: dict[str, int] = field(default_factory=dict)
    available: dict[tuple[str, str], int] = field(default_factory=dict)
    spare: dict[str, int] = field(default_factory=dict)
    for_clients: set[str] = field(default_factory=set)
    leaving: set[tuple[str, str]] = field(default_factory=set)

    def view(self, payout: Payout) -> BooksView:
        """Return what the books say to *payout* now."""
        first, rows = self.nonces[payout.sender]
        assets = {payout.asset, payout.native_asset}
        wallet = payout.source_wallet
        spare = {asset: self.spare[asset] for asset in assets} if self._cares(payout) else {}
        return BooksView(
            first_nonce=first,
            nonces=rows,
            promised_coins=self.promised[payout.sender, payout.contract],
            promised_gas=self.promised_gas[payout.sender],
            available={asset: self.available[wallet, asset] for asset in assets},
            spare=spare,
            leaves_clients=self._leaves(payout),
            frozen=self.frozen[payout.sender],
        )

    def take(self, payout: Payout, planned: Allocation) -> Mapping[str, int]:
        """Promise *payout* what it needs; return what it takes of clients' cover, by asset."""
        fee, native = planned.fee_cap, payout.contract is None
        wallet = payout.source_wallet
        # All below the one that was chosen are kept: the next is looked for behind it.
        _, nonces = self.nonces[payout.sender]
        nonces[planned.nonce] = NonceState.LIVE
        self.nonces[payout.sender] = planned.nonce + 1, nonces
        self.promised[payout.sender, payout.contract] += payout.chain_amount
        self.promised_gas[payout.sender] += fee + (payout.chain_amount if native else 0)
        self.available[wallet, payout.native_asset] -= fee
        if payout.parsed_claim.kind is not ClaimKind.OWN:
            # The coins of an own transfer are held since it was requested.
            self.available[wallet, payout.asset] -= payout.amount
        if not self._cares(payout):
            return {}
        cover = {payout.native_asset: fee}
        if self._leaves(payout):
            cover[payout.asset] = cover.get(payout.asset, 0) + payout.amount
        for asset, amount in cover.items():
            self.spare[asset] -= amount
        return cover

    def _cares(self, payout: Payout) -> bool:
        return payout.source_wallet in self.for_clients

    def _leaves(self, payout: Payout) -> bool:
        claim = payout.parsed_claim
        return claim.kind is ClaimKind.OWN and (payout.source_wallet, claim.name) in self.leaving
