"""Which transactions of a block are our spends, and which took our coins without us. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from chain.bitcoin.transactions import Outpoint
from chain.model import BlockContents, Movement, TransactionOutcome
from chain.model import Spend as SpentOutput
from custody.bitcoin.spend_model import PAYABLE_IN, SpendAttempt
from custody.bitcoin.spend_moves import Carried
from custody.model import unattributed_account
from custody.payout_model import ForeignLeg, Source
from custody.payout_postings import NETWORK_FEE


@dataclass(frozen=True, slots=True)
class Taking:
    """A transaction of the block that spends coins of ours.

    Attributes:
        spent: its inputs that do, in their order.
        outputs: all that it pays.
    """

    tx_id: str
    spent: tuple[SpentOutput, ...]
    outputs: tuple[Movement, ...]
    outcome: TransactionOutcome

    @property
    def outpoints(self) -> tuple[Outpoint, ...]:
        """Return the coins of ours that are gone."""
        return tuple(Outpoint(item.spent_tx, item.spent_index) for item in self.spent)

    @property
    def is_all_ours(self) -> bool:
        """Tell whether nobody else's coins are among its inputs."""
        paid = sum(item.amount for item in self.outputs) + self.outcome.fee
        return sum(item.amount for item in self.spent) == paid


def list_takings(contents: BlockContents) -> list[Taking]:
    """Return the transactions that spend coins of ours, in block order."""
    spent: dict[str, list[SpentOutput]] = {}
    for item in contents.spends:
        spent.setdefault(item.tx_hash, []).append(item)
    outputs: dict[str, list[Movement]] = {key: [] for key in spent}
    for movement in contents.movements:
        if movement.tx_hash in outputs:
            outputs[movement.tx_hash].append(movement)
    outcomes = {item.tx_hash: item for item in contents.outcomes}
    return [
        Taking(key, tuple(items), tuple(outputs[key]), outcomes[key])
        for key, items in spent.items()
    ]


def find_own(
    taking: Taking,
    attempts: Mapping[str, SpendAttempt],
    takers: Mapping[Outpoint, Carried],
    spends: Mapping[UUID, Carried],
    ours: Mapping[str, Source],
) -> tuple[Carried, SpendAttempt | None] | None:
    """Return the spend that the transaction is, with its attempt if we know these very bytes.

    Ids prove nothing by themselves: a transaction that spends only coins which one spend has locked,
    pays exactly its payees and returns the rest to its wallet is that spend, whatever its id.

    Args:
        attempts: ours by transaction id.
        takers: which spend has locked each coin.
        spends: by id.
        ours: our addresses among those that are paid.
    """
    attempt = attempts.get(taking.tx_id)
    if attempt is not None and attempt.raw is not None:
        known = spends[attempt.spend_id]
        return (known, attempt) if is_payable(known) else None
    owners = {takers[key].spend.id if key in takers else None for key in taking.outpoints}
    if len(owners) != 1 or None in owners:
        return None
    carried = takers[taking.outpoints[0]]
    if is_payable(carried) and pays_exactly(taking, carried, ours):
        return carried, None
    return None


def is_payable(carried: Carried) -> bool:
    """Tell whether a block may have the spend."""
    return carried.spend.state in PAYABLE_IN and not carried.spend.claims_returned


def pays_exactly(taking: Taking, carried: Carried, ours: Mapping[str, Source]) -> bool:
    """Tell whether each payee gets its amount, once, and the rest comes back to the wallet."""
    if not taking.is_all_ours:
        return False
    wanted = Counter((item.destination, item.chain_amount) for item in carried.payouts)
    for item in taking.outputs:
        key = item.recipient, item.amount
        if wanted[key]:
            wanted[key] -= 1
            continue
        back = ours.get(item.recipient)
        if back is None or back.wallet != carried.spend.wallet:
            return False
    return not +wanted


def foreign_legs(
    chain: str, asset: str, taking: Taking, sources: Mapping[str, Source]
) -> tuple[ForeignLeg, ...]:
    """Return what a stranger's transaction took from each of our wallets, fee included.

    Args:
        chain: the chain's code.
        asset: its coin's code.
        taking: the transaction.
        sources: our addresses among those that paid and are paid.
    """
    net: dict[str, int] = {}
    for spent in taking.spent:
        wallet = sources[spent.address].wallet
        net[wallet] = net.get(wallet, 0) + spent.amount
    for output in taking.outputs:
        target = sources.get(output.recipient)
        if target is not None:
            net[target.wallet] = net.get(target.wallet, 0) - output.amount
    fee = taking.outcome.fee if taking.is_all_ours else 0
    legs: list[ForeignLeg] = []
    for wallet, amount in sorted(net.items()):
        part = min(fee, max(amount, 0))
        fee -= part
        legs.append(ForeignLeg(wallet, NETWORK_FEE, asset, part))
        legs.append(ForeignLeg(wallet, unattributed_account(chain), asset, amount - part))
    return tuple(leg for leg in legs if leg.amount)
