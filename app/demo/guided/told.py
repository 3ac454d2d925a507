"""The nouns of a guided tour: chapters, what they claim, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.demo.stage import Happening
from kernel.money import Asset


@dataclass(frozen=True, slots=True)
class Proof:
    """An assertion of a chapter.

    Attributes:
        claim: what is said, in words of the trade.
        held: whether it is so.
        detail: the figures that say so.
    """

    claim: str
    held: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Return the proof as data."""
        return {"claim": self.claim, "held": self.held, "detail": self.detail}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an asset is, in its smallest units.

    Attributes:
        ledger: what the books say the house has at chains, venues and banks together.
        chain, venue, bank: what each of them says itself.
        under_way: what is between two of them: only the books can say.
        difference: what they have more (or, negative, less) than the books.
    """

    asset: Asset
    ledger: int
    chain: int
    venue: int
    bank: int
    under_way: int
    difference: int

    def to_json(self) -> dict[str, str]:
        """Return the figures as data, amounts as decimal text of smallest units."""
        figures = {
            "ledger": self.ledger,
            "chain": self.chain,
            "venue": self.venue,
            "bank": self.bank,
            "under_way": self.under_way,
            "difference": self.difference,
        }
        return {"asset": self.asset.code} | {name: str(value) for name, value in figures.items()}


@dataclass(slots=True)
class Told:
    """What one chapter came to.

    Attributes:
        name: of the chapter, as the command line knows it.
        words: what was said to the viewer.
        places: the last look at where the money is.
    """

    name: str
    title: str
    words: list[str] = field(default_factory=list)
    timeline: list[Happening] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    places: Sequence[Place] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Tell whether the chapter proved something, and all of it held."""
        return bool(self.proofs) and all(proof.held for proof in self.proofs)

    def to_json(self) -> dict[str, Any]:
        """Return the chapter as data."""
        return {
            "name": self.name,
            "title": self.title,
            "held": self.held,
            "seconds": round(self.seconds, 1),
            "words": self.words,
            "proofs": [proof.to_json() for proof in self.proofs],
            "timeline": [line.to_json() for line in self.timeline],
            "places": [place.to_json() for place in self.places],
            "facts": self.facts,
        }
