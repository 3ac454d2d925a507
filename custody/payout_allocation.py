"""May a payout be sent now, and as which transaction? Pure: what is seen, in; a plan, out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from chain.evm.transactions import UnsignedTransaction, erc20_transfer_data
from chain.model import CallResult, FeeQuote
from custody.nonces import choose_nonce
from custody.payout_model import AttemptKind, ClaimKind, NonceState, Payout

GAS_TRANSFER: Final = 21_000
GAS_MARGIN_PERCENT: Final = 20
"""Added to an estimate that is not the bare cost of a transfer: storage may differ at inclusion."""
BUMP_NUMERATOR: Final = 9
BUMP_DENOMINATOR: Final = 8
"""A replacement pays an eighth more (nodes ask for 10 %), in both fee fields."""
FEE_PER_GAS_MAX: Final = 2_000 * 10**9
"""Above 2,000 gwei a person decides."""


@dataclass(frozen=True, slots=True)
class ChainView:
    """What the node says about the sending address, at its head.

    Attributes:
        gas: what the payment would use; 0 when the call would fail, with *revert* saying why.
        native, coins: what the address has, in wei and in the token's units (the same if native).
    """

    next_nonce: int
    fees: FeeQuote
    gas: int
    native: int
    coins: int
    revert: str = ""


@dataclass(frozen=True, slots=True)
class BooksView:
    """What the books say, under the locks.

    Attributes:
        first_nonce, nonces: see `custody.nonces.choose_nonce`.
        promised_coins, promised_gas: what live payments of the address will still take.
        available: what the wallet has and nobody is promised, by asset.
        spare: by how much clients' holdings exceed what they are owed, by asset; empty when the
            wallet is the house's.
        leaves_clients: the coins themselves go from clients' holdings to the house.
    """

    first_nonce: int
    nonces: Mapping[int, NonceState]
    promised_coins: int
    promised_gas: int
    available: Mapping[str, int]
    spare: Mapping[str, int] = field(default_factory=dict)
    leaves_clients: bool = False
    frozen: str | None = None


@dataclass(frozen=True, slots=True)
class Allocation:
    """The transaction to be signed."""

    nonce: int
    unsigned: UnsignedTransaction
    kind: AttemptKind = AttemptKind.PAY

    @property
    def fee_cap(self) -> int:
        """Return the most that the network may take for it, in wei."""
        return self.unsigned.fee_max


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why the payout cannot be sent now; *look_again*: when it is tried again, None: soon."""

    reason: str
    look_again: timedelta | None = None


def plan_allocation(payout: Payout, seen: ChainView, books: BooksView) -> Allocation | Waiting:
    """Return the payment's transaction, or why it has to wait."""
    if books.frozen is not None:
        return Waiting(f"{payout.sender} is frozen: {books.frozen}")
    if seen.revert:
        return Waiting(f"the call would fail: {seen.revert}")
    if seen.fees.max_fee_per_gas > FEE_PER_GAS_MAX:
        return Waiting(f"{seen.fees.max_fee_per_gas} wei per gas is more than {FEE_PER_GAS_MAX}")
    nonce = choose_nonce(seen.next_nonce, books.first_nonce, books.nonces)
    unsigned = build_transaction(payout, nonce, seen.fees, gas_limit(seen.gas))
    missing = find_missing(payout, seen, books, unsigned.fee_max)
    return Waiting(missing) if missing else Allocation(nonce, unsigned)


def build_transaction(payout: Payout, nonce: int, fees: FeeQuote, gas: int) -> UnsignedTransaction:
    """Return the plain payment: a native send, or one ERC-20 transfer."""
    native = payout.contract is None
    return UnsignedTransaction(
        chain_id=payout.chain_id,
        nonce=nonce,
        max_priority_fee_per_gas=fees.max_priority_fee_per_gas,
        max_fee_per_gas=fees.max_fee_per_gas,
        gas_limit=gas,
        recipient=payout.contract or payout.destination,
        value=payout.chain_amount if native else 0,
        data=b"" if native else erc20_transfer_data(payout.destination, payout.chain_amount),
    )


def self_spend(payout: Payout, nonce: int, fees: FeeQuote) -> UnsignedTransaction:
    """Return the transaction that only uses the nonce up: nothing, from the sender to itself."""
    return UnsignedTransaction(
        chain_id=payout.chain_id,
        nonce=nonce,
        max_priority_fee_per_gas=fees.max_priority_fee_per_gas,
        max_fee_per_gas=fees.max_fee_per_gas,
        gas_limit=GAS_TRANSFER,
        recipient=payout.sender,
        value=0,
        data=b"",
    )


def find_token_refusal(result: CallResult, *, has_code: bool) -> str:
    """Return why a token's ``transfer`` would move nothing, in words; "" when it would.

    Old tokens return nothing when they succeed; that is believed only of an address with code,
    because a call of an address without any succeeds too. Some return false and do not revert.
    """
    if not result.succeeded:
        return result.revert or "the call reverts"
    if not result.returned:
        return "" if has_code else "there is no contract"
    return "" if int.from_bytes(result.returned, "big") == 1 else "the token returns false"


def gas_limit(estimate: int) -> int:
    """Return the limit for an estimate; a bare transfer costs exactly what it costs."""
    if estimate <= GAS_TRANSFER:
        return GAS_TRANSFER
    return estimate * (100 + GAS_MARGIN_PERCENT) // 100


def find_missing(payout: Payout, seen: ChainView, books: BooksView, fee_cap: int) -> str:
    """Return what is not there to pay with, in words; "" when all is there."""
    native = payout.contract is None
    gas_needed = fee_cap + (payout.chain_amount if native else 0)
    if not native and seen.coins - books.promised_coins < payout.chain_amount:
        return f"{payout.sender} lacks {payout.asset} on the chain"
    if seen.native - books.promised_gas < gas_needed:
        return f"{payout.sender} lacks {payout.native_asset} on the chain for amount and fee"
    # The coins of an own transfer are held since it was requested.
    needed = {} if payout.parsed_claim.kind is ClaimKind.OWN else {payout.asset: payout.amount}
    needed[payout.native_asset] = needed.get(payout.native_asset, 0) + fee_cap
    for asset, amount in needed.items():
        if books.available.get(asset, 0) < amount:
            return f"custody:{payout.source_wallet} has not {amount} of {asset} available"
    return find_uncovered(payout, books, fee_cap)


def find_uncovered(payout: Payout, books: BooksView, fee_cap: int) -> str:
    """Return which clients' money would no longer be covered; "" when all is.

    The network's fee, and coins that move to the house, lower what is held for clients without
    lowering what they are owed.
    """
    leaving = {payout.native_asset: fee_cap}
    if books.leaves_clients:
        leaving[payout.asset] = leaving.get(payout.asset, 0) + payout.amount
    for asset, spare in books.spare.items():
        if spare < leaving.get(asset, 0):
            return f"clients' {asset} would not be covered: {spare} to spare"
    return ""


def bumped(old: UnsignedTransaction, quote: FeeQuote) -> FeeQuote:
    """Return the fees of a replacement: an eighth above the old ones, or what the network asks."""
    return FeeQuote(
        max_fee_per_gas=max(_eighth_more(old.max_fee_per_gas), quote.max_fee_per_gas),
        max_priority_fee_per_gas=max(
            _eighth_more(old.max_priority_fee_per_gas), quote.max_priority_fee_per_gas
        ),
    )


def _eighth_more(fee: int) -> int:
    return max(fee + 1, -(-fee * BUMP_NUMERATOR // BUMP_DENOMINATOR))
