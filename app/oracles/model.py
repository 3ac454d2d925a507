"""Nouns of the oracles, frozen: promises, the questions behind them, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FINDINGS_MAX: Final = 200
"""Findings that one question reports; a house with more has another trouble than these."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One row that breaks a promise.

    Attributes:
        oracle: name of the promise.
        where: table and key, as ``custody.payout 0198…``.
        what: what is wrong with it, in words with its figures.
    """

    oracle: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.oracle}: {self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Check:
    """One question, in SQL without parameters.

    Attributes:
        counted: returns one number: how many rows are looked at.
        faults: returns ``(where, what)``, a row for each that breaks the promise.
        at_rest: True: it only holds once every worker has done what there was to do.
    """

    counted: str
    faults: str
    at_rest: bool = False


@dataclass(frozen=True, slots=True)
class Oracle:
    """A promise about the whole house.

    Attributes:
        name: lower case with dashes.
        promise: one sentence.
        checks: the questions; none where `app.oracles.run` asks by other means.
    """

    name: str
    promise: str
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Examined:
    """What became of one oracle.

    Attributes:
        examined: rows (or transactions, or balances) that were looked at.
        unknown: what could not be compared, because nobody outside answered for it.
    """

    oracle: Oracle
    examined: int
    findings: tuple[Finding, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Tell whether nothing was found."""
        return not self.findings


@dataclass(frozen=True, slots=True)
class Report:
    """Every oracle that was asked, in the order of the catalogue."""

    examined: tuple[Examined, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return everything found."""
        return tuple(item for one in self.examined for item in one.findings)

    @property
    def held(self) -> bool:
        """Tell whether every promise holds."""
        return not self.findings

    def require(self) -> None:
        """Raise what a test prints: every finding on a line of its own.

        Raises:
            AssertionError: a promise is broken.
        """
        assert self.held, "\n".join(["promises are broken:", *map(str, self.findings)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One asset at one place, as the books and the outside have it at the same moment.

    Amounts in smallest units.

    Attributes:
        place: path of the account in the ledger: ``custody:<wallet>``, ``venue:<venue>/<account>``.
        books: what the ledger says is there.
        outside: what is there; None: nobody said it.
    """

    place: str
    asset: str
    books: int
    outside: int | None

    @property
    def difference(self) -> int | None:
        """Return what the outside has more; None: it is not known."""
        return None if self.outside is None else self.outside - self.books


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """One asset over all places, in smallest units; one row of the table that the demo shows.

    ``ledger + difference = chain + venue + bank + transit + unknown``, a figure of None counting 0.

    Attributes:
        ledger: what the books say is in wallets, at venues, in banks and between them.
        chain, venue, bank: what is there by their own word, of the places that were asked; None: none
            of that kind was asked, or has answered.
        transit: on its way between two places: nobody but the books can say.
        unknown: what the books have at places whose outside was not asked, or has not answered.
        difference: what the outside has more than the books, at the places that have answered.
    """

    asset: str
    ledger: int
    chain: int | None
    venue: int | None
    bank: int | None
    transit: int
    unknown: int
    difference: int


def beginning_with(items: Sequence[Held], prefix: str) -> list[Held]:
    """Return the items at places whose path begins so."""
    return [item for item in items if item.place.startswith(prefix)]
