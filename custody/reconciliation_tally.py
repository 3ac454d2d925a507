"""The sums of reconciliation, taken page by page. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chain.model import Unreadable
from custody.deposit_model import PLAUSIBLE_AMOUNT_MAX
from custody.reconciliation_items import Place
from kernel.money import Rounding, rescale

IMPLAUSIBLE: Final = "its contract claims more than there can be of any asset"


@dataclass(frozen=True, slots=True)
class Counted:
    """An asset of the chain: *decimals* is how the chain counts it, *scale* how the books do."""

    asset: str
    contract: str | None
    decimals: int
    scale: int

    def whole(self, on_chain: int) -> int:
        """Return the whole units of the asset in an amount of the chain."""
        return rescale(on_chain, self.decimals, self.scale, Rounding.DOWN)

    def pieces(self, on_chain: int) -> int:
        """Return what is less than one unit of the asset in an amount of the chain, as it counts."""
        return on_chain - self.on_chain(self.whole(on_chain)) if self.is_finer else 0

    def on_chain(self, whole: int) -> int:
        """Return units of the asset as the chain counts."""
        return rescale(whole, self.scale, self.decimals)

    @property
    def is_finer(self) -> bool:
        """Tell whether the chain counts finer than the books."""
        return self.decimals > self.scale


@dataclass(slots=True)
class Silence:
    """That a token does not tell what a wallet's addresses hold: why, of how many, and of which first."""

    why: str
    address: str
    count: int = 0


class Tally:
    """What is left to say of the addresses after all were asked about.

    Attributes:
        totals: by (wallet, asset): what the node says that its addresses hold, as the chain counts.
        alike: by (wallet, asset): units at addresses where rows and node say the same.
        places: the addresses where they do not.
        on_chain: by (address, asset): units at those, as the node says, rounded down.
        silences: by (wallet, asset): a token that did not tell.
        addresses: how many were asked about.
    """

    def __init__(self, assets: Sequence[Counted], rows: Mapping[tuple[str, str], int]) -> None:
        """Begin with nothing; *rows* is what custody's rows say, by (address, asset)."""
        self.totals: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.alike: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.places: list[Place] = []
        self.on_chain: dict[tuple[str, str], int] = {}
        self.silences: dict[tuple[str, str], Silence] = {}
        self.addresses = 0
        self._assets = assets
        self._rows = rows

    def count(
        self,
        places: Sequence[Place],
        found: Mapping[tuple[str, str | None], int | Unreadable],
    ) -> None:
        """Add a page of addresses; *found* is by (address, contract), as the chain counts."""
        self.addresses += len(places)
        for place in places:
            differs = False
            for item in self._assets:
                differs |= self._count(place, item, found[place.address, item.contract])
            if differs:
                self.places.append(place)

    def _count(self, place: Place, item: Counted, amount: int | Unreadable) -> bool:
        key = (place.wallet, item.asset)
        if isinstance(amount, int) and amount and item.whole(amount) > PLAUSIBLE_AMOUNT_MAX:
            amount = Unreadable(IMPLAUSIBLE)
        if isinstance(amount, Unreadable):
            known = self.silences.setdefault(key, Silence(amount.why, place.address))
            known.count += 1
            return False
        by_rows = self._rows.get((place.address, item.asset), 0)
        if not amount and not by_rows:
            return False
        self.totals[key] += amount
        whole = item.whole(amount)
        if whole == by_rows:
            self.alike[key] += whole
            return False
        self.on_chain[place.address, item.asset] = whole
        return True
