"""Which coins should move between addresses of ours? Pure: rules and what is seen, in; a plan, out.

Five kinds, in the order in which a window that has not room for all proposes them:

- *fill*: a wallet below its band gets what it lacks up to its target, from a warm wallet first, then
  from a cold one (by hand).
- *drain*: a wallet above its band gives what it has above its target, to a warm wallet first, then
  to a cold one.
- *top-up*: an address with tokens worth sweeping and too little of the native coin gets what the
  sweep may cost, from the hot address of its wallet.
- *sweep*: an address that can pay for it is emptied into the hot address of its wallet.
- *consolidate*: where coins are what a chain has, many small ones of a wallet become one while blocks
  are cheap, one transaction after the other.

Coins stay with their owner class: clients' coins never go to the house's wallets, nor the reverse.
What is under way counts as if it had arrived, so the same is not proposed twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from custody.bitcoin.consolidation import plan_amount
from custody.rebalance.model import (
    Alarm,
    Band,
    OwnTransfer,
    RebalanceRules,
    SweepRule,
    Tier,
    TransferKind,
    TreasuryPlan,
    TreasuryView,
)

ABOVE_CAP: Final = "HotFloatAboveCap"
BELOW_MINIMUM: Final = "WalletBelowMinimum"
NO_HOT_ADDRESS: Final = "WalletWithoutHotAddress"
NOWHERE_TO_DRAIN: Final = "NowhereToDrain"

_ORDER: Final = (
    TransferKind.FILL,
    TransferKind.DRAIN,
    TransferKind.TOP_UP,
    TransferKind.SWEEP,
    TransferKind.CONSOLIDATE,
)


def plan(rules: RebalanceRules, view: TreasuryView) -> TreasuryPlan:
    """Return what should move now, at most `RebalanceRules.transfers_max` transfers."""
    making = _Making(rules, view)
    for band in sorted(rules.bands, key=lambda b: (b.asset, b.wallet)):
        if band.wallet in view.wallets:
            making.watch_cap(band)
            making.fill(band)
            making.drain(band)
    making.sweep_all()
    making.consolidate_all()
    found = sorted(
        making.transfers,
        key=lambda t: (_ORDER.index(t.kind), -t.amount, t.address, t.asset, t.to_address),
    )
    kept = found[: rules.transfers_max]
    return TreasuryPlan(tuple(kept), tuple(making.alarms), len(found) - len(kept))


class _Making:
    """A plan while it is made: levels and hot balances go down and up with each transfer."""

    def __init__(self, rules: RebalanceRules, view: TreasuryView) -> None:
        self.rules = rules
        self.view = view
        self.transfers: list[OwnTransfer] = []
        self.alarms: list[Alarm] = []
        self._hot = defaultdict(int, view.hot)
        self._level: dict[tuple[str, str], int] = defaultdict(int, view.available)
        self._leaving: set[tuple[str, str]] = set()
        self._topped: set[str] = set()
        for item in view.open_transfers:
            self._leaving.add((item.address, item.asset))
            self._topped.add(item.to_address)
            if item.to_wallet == item.wallet and not item.reserved:
                continue
            self._level[item.to_wallet, item.asset] += item.amount
            if not item.reserved:
                self._level[item.wallet, item.asset] -= item.amount
            elif item.address == self._hot_address(item.wallet) and not item.taken:
                self._hot[item.wallet, item.asset] -= item.amount

    # Bands.

    def watch_cap(self, band: Band) -> None:
        held = self.view.held.get((band.wallet, band.asset), 0)
        if band.cap is not None and held > band.cap:
            self._alarm(ABOVE_CAP, band.wallet, band.asset, f"holds {held}, its cap is {band.cap}")

    def fill(self, band: Band) -> None:
        level = self._level[band.wallet, band.asset]
        if level >= band.minimum or band.tier is Tier.COLD:
            return
        missing = band.target - level
        for source in self._others(band, Tier.WARM, Tier.COLD):
            if source.tier is band.tier or missing <= 0:
                continue
            give = min(missing, self._level[source.wallet, source.asset] - source.minimum)
            if source.tier is not Tier.COLD or self.view.of_coins:
                give = min(give, self._movable(source.wallet, source.asset))
            reason = f"{level} is below the minimum of {band.minimum}"
            missing -= self._move(TransferKind.FILL, source, band, give, reason)
        if missing > band.target - band.minimum:
            reason = f"{missing} of the target of {band.target} are nowhere to be had"
            self._alarm(BELOW_MINIMUM, band.wallet, band.asset, reason)

    def drain(self, band: Band) -> None:
        level = self._level[band.wallet, band.asset]
        if level <= band.maximum or band.tier is Tier.COLD:
            return
        above = min(level - band.target, self._movable(band.wallet, band.asset))
        if above <= 0:
            return  # the coins are not at the hot address yet: sweeps bring them there
        reason = f"{level} is above the maximum of {band.maximum}"
        for target in self._others(band, Tier.WARM, Tier.COLD):
            if target.tier is band.tier:
                continue
            room = target.maximum - self._level[target.wallet, target.asset]
            above -= self._move(TransferKind.DRAIN, band, target, min(above, room), reason)
        if above > 0:
            reason = f"{above} above the target of {band.target} have no wallet with room for them"
            self._alarm(NOWHERE_TO_DRAIN, band.wallet, band.asset, reason)

    def _others(self, band: Band, *tiers: Tier) -> Iterable[Band]:
        """Return bands of other wallets of the same owner and chain, nearest tier first."""
        mine = self.view.wallets[band.wallet]
        for tier in tiers:
            for other in self.rules.bands:
                wallet = self.view.wallets.get(other.wallet)
                if (
                    other.tier is tier
                    and other.asset == band.asset
                    and other.wallet != band.wallet
                    and wallet is not None
                    and (wallet.owner, wallet.chain) == (mine.owner, mine.chain)
                ):
                    yield other

    def _movable(self, wallet: str, asset: str) -> int:
        """Return what the hot address can send: of the native coin, the fee stays behind."""
        kept = self.view.fees.native if asset == self.view.native_asset else 0
        return min(self._hot[wallet, asset] - kept, self._level[wallet, asset])

    def _move(self, kind: TransferKind, source: Band, to: Band, amount: int, reason: str) -> int:
        """Propose a transfer between wallets; return how much it moves."""
        asset = source.asset
        address, target = self._hot_address(source.wallet), self._hot_address(to.wallet)
        if amount < self.view.smallest:
            return 0
        for wallet, found in ((source.wallet, address), (to.wallet, target)):
            if found is None:
                self._alarm(NO_HOT_ADDRESS, wallet, asset, "nothing can leave it or come to it")
                return 0
        assert address is not None and target is not None  # noqa: PT018  looked at just now
        self._level[source.wallet, asset] -= amount
        self._level[to.wallet, asset] += amount
        self._hot[source.wallet, asset] -= amount
        by_hand = source.tier is Tier.COLD and not self.view.of_coins
        self._propose(
            kind, source.wallet, address, to.wallet, target, asset, amount, reason, by_hand=by_hand
        )
        return amount

    # Sweeps.

    def sweep_all(self) -> None:
        rules = {(rule.wallet, rule.asset): rule for rule in self.rules.sweeps}
        found = sorted(self.view.sweepable, key=lambda a: (a.asset, -a.amount, a.address))
        busy: set[str] = set()
        # Tokens first: the native coin that pays for their sweep must not be swept away before.
        for native in (False, True):
            for item in found:
                rule = rules.get((item.wallet, item.asset))
                if rule is None or (item.asset == self.view.native_asset) is not native:
                    continue
                hot = self._hot_address(item.wallet)
                if hot is None or item.address == hot or item.address in busy:
                    continue
                if (item.address, item.asset) in self._leaving or item.address in self._topped:
                    continue
                if native:
                    self._sweep_native(rule, item.address, min(item.amount, item.native), hot)
                elif self._sweep_token(rule, item.address, item.amount, item.native, hot):
                    busy.add(item.address)

    def _sweep_native(self, rule: SweepRule, address: str, amount: int, hot: str) -> None:
        amount -= rule.fee_max
        cheap = self.view.fees.native <= rule.fee_max < amount
        if cheap and amount >= rule.minimum:
            reason = f"{amount} may be swept from {rule.minimum} on"
            self._sweep(rule, address, amount, hot, reason)

    def _sweep_token(
        self, rule: SweepRule, address: str, amount: int, native: int, hot: str
    ) -> bool:
        """Propose the sweep, or the top-up that it needs first; tell whether it is worth one."""
        fee = self.view.fees.token
        if amount < rule.minimum or fee > rule.fee_max:
            return False
        if native >= fee:
            reason = f"{amount} may be swept from {rule.minimum} on"
            self._sweep(rule, address, amount, hot, reason)
            return True
        coin, missing = self.view.native_asset, rule.fee_max - native
        if (address, coin) in self._leaving:
            return True  # its native coins are leaving: wait until they have
        if self._movable(rule.wallet, coin) >= missing:
            self._hot[rule.wallet, coin] -= missing + self.view.fees.native
            reason = f"to sweep {amount} {rule.asset}, which may cost {rule.fee_max}"
            self._propose(
                TransferKind.TOP_UP, rule.wallet, hot, rule.wallet, address, coin, missing, reason
            )
        return True

    def _sweep(self, rule: SweepRule, address: str, amount: int, hot: str, reason: str) -> None:
        wallet = rule.wallet
        self._propose(TransferKind.SWEEP, wallet, address, wallet, hot, rule.asset, amount, reason)

    # Coins.

    def consolidate_all(self) -> None:
        """Propose one consolidation for each rule whose wallet has none under way."""
        rate = self.view.rate
        busy = {item.wallet for item in self.view.open_transfers if item.wallet == item.to_wallet}
        # What bands move may need the same coins: it goes first, and the next window looks again.
        busy |= {item.wallet for item in self.transfers}
        for rule in sorted(self.rules.consolidations, key=lambda r: (r.asset, r.wallet)):
            stock = self.view.coins.get(rule.wallet)
            if rate is None or rate > rule.rate_max or stock is None or rule.wallet in busy:
                continue
            amount = plan_amount(
                stock.amounts,
                weight=stock.weight,
                rate=rate,
                below=rule.below,
                coins_min=rule.coins_min,
                inputs_max=rule.inputs_max,
            )
            if min(amount, self._level[rule.wallet, rule.asset]) < max(amount, self.view.smallest):
                continue
            address = self._hot_address(rule.wallet)
            if address is None:
                self._alarm(NO_HOT_ADDRESS, rule.wallet, rule.asset, "nothing can leave it")
                continue
            reason = f"one coin in place of many small ones, at {rate} sat/kvB"
            self._propose(
                *(TransferKind.CONSOLIDATE, rule.wallet, address, rule.wallet, ""),
                *(rule.asset, amount, reason),
            )

    def _propose(
        self,
        kind: TransferKind,
        wallet: str,
        address: str,
        to_wallet: str,
        to_address: str,
        asset: str,
        amount: int,
        reason: str,
        *,
        by_hand: bool = False,
    ) -> None:
        self.transfers.append(
            OwnTransfer(
                kind=kind,
                wallet=wallet,
                address=address,
                to_wallet=to_wallet,
                to_address=to_address,
                asset=asset,
                amount=amount,
                reason=reason,
                by_hand=by_hand,
            )
        )

    def _hot_address(self, wallet: str) -> str | None:
        found = self.view.wallets.get(wallet)
        return None if found is None else found.hot_address

    def _alarm(self, name: str, wallet: str, asset: str, reason: str) -> None:
        alarm = Alarm(name=name, wallet=wallet, asset=asset, reason=reason)
        if alarm not in self.alarms:
            self.alarms.append(alarm)
