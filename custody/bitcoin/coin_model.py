"""The noun of Bitcoin custody, a coin: an output that pays an address of ours. Pure.

Two facts of the chain make its state: the block that holds the transaction which made it, and the
transaction that spends it. Either may come, vanish and come again, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from uuid import UUID

from chain.bitcoin.transactions import Outpoint
from chain.model import output_position
from custody.model import Address, AddressPurpose
from kernel.states import StateTable

SCHEMA: Final = "custody"
COINBASE_MATURITY: Final = 100
"""New coins may be spent in the block that many above their own (Bitcoin Core ``consensus.h``)."""

OUTPUT: Final = output_position(0).removesuffix("0")
"""How the positions begin that `chain.model.output_position` gives."""


class CoinState(StrEnum):
    """What the chain that we follow says of a coin."""

    UNSPENT = "unspent"
    SPENT = "spent"
    ORPHANED = "orphaned"
    """No block holds the transaction that made it; it may be mined again."""


COIN_STATES: Final = StateTable(
    schema=SCHEMA,
    table="coin",
    # A restored database knows one by the signature that spends it, before it reads the block.
    initial=frozenset({CoinState.UNSPENT, CoinState.SPENT, CoinState.ORPHANED}),
    edges=frozenset(
        {
            (CoinState.UNSPENT, CoinState.SPENT),
            (CoinState.UNSPENT, CoinState.ORPHANED),
            # The block that spent it is gone.
            (CoinState.SPENT, CoinState.UNSPENT),
            # The block that made it is gone as well: both happened in one block.
            (CoinState.SPENT, CoinState.ORPHANED),
            (CoinState.ORPHANED, CoinState.UNSPENT),
            # Made and spent in one block, once more.
            (CoinState.ORPHANED, CoinState.SPENT),
        }
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coin:
    """An output of ours. ``(chain, tx_id, index)`` is its identity, however often it is mined.

    Attributes:
        address, wallet, branch, address_index, purpose: whom it pays, as our table of addresses says.
        amount: satoshi.
        coinbase: new coins, which nobody can spend before they are mature.
        own: a transaction that spends coins of ours made it: change, or an own transfer.
        height, block_hash: of the block that made it; None while no block of the chain holds it, or
            none that we read did.
        spent_by, spent_height, spent_block: the transaction that spends it, in a block; None while
            none does.
    """

    chain: str
    tx_id: str
    index: int
    address: str
    wallet: str
    branch: int
    address_index: int
    purpose: AddressPurpose
    amount: int
    coinbase: bool
    own: bool
    height: int | None
    block_hash: str | None
    state: CoinState
    spent_by: str | None = None
    spent_height: int | None = None
    spent_block: str | None = None

    @property
    def outpoint(self) -> Outpoint:
        """Return what an input names to spend it."""
        return Outpoint(self.tx_id, self.index)

    @property
    def key_path(self) -> str:
        """Return where its key is, below the wallet's account."""
        return f"{self.branch}/{self.address_index}"

    def confirmations(self, tip: int) -> int:
        """Return how many blocks hold it, its own counted, when the newest is at *tip*."""
        return 0 if self.height is None else max(0, tip - self.height + 1)

    def is_mature(self, tip: int) -> bool:
        """Tell whether the block after *tip* may spend it."""
        return not self.coinbase or self.confirmations(tip) >= COINBASE_MATURITY


def new_coin(
    chain: str,
    outpoint: Outpoint,
    address: Address,
    amount: int,
    *,
    state: CoinState = CoinState.UNSPENT,
) -> Coin:
    """Return a coin of *amount* satoshi at an address of ours that is known of no block yet."""
    return Coin(
        chain=chain,
        tx_id=outpoint.tx_id,
        index=outpoint.index,
        address=address.address,
        wallet=address.wallet,
        branch=address.branch,
        address_index=address.index,
        purpose=address.purpose,
        amount=amount,
        coinbase=False,
        own=False,
        height=None,
        block_hash=None,
        state=state,
    )


@dataclass(frozen=True, slots=True)
class CoinLock:
    """A coin that a transaction of ours is going to spend, and no other may."""

    chain: str
    outpoint: Outpoint
    spend_id: UUID


def settled(coin: Coin) -> Coin:
    """Return the coin in the state that its two facts make."""
    if coin.spent_block is not None:
        state = CoinState.SPENT
    elif coin.block_hash is not None:
        state = CoinState.UNSPENT
    else:
        state = CoinState.ORPHANED
    COIN_STATES.require(coin.state, state)
    return replace(coin, state=state)
