"""Nouns of matching: what arrived, what is awaited, by which rules, and what follows. Frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum, unique
from typing import Final
from uuid import UUID

from settlement.model import Instruction
from trading.terms.model import Rail

SUBSET_MAX: Final = 12
"""Items among which a sum is searched; 2**12 sums are looked at, and never more."""
SUGGESTIONS_MAX: Final = 5


@unique
class Rule(StrEnum):
    """Why something was matched; in the order in which the rules are tried."""

    REFERENCE = "reference"
    """It names the instruction."""
    EXACT = "exact"
    """One receipt and one instruction of the party have this amount, and no others."""
    TOLERANCE = "tolerance"
    """As exact, short by no more than what banks on the way may keep."""
    SPLIT = "split"
    """One receipt is the sum of several instructions, in one way only."""
    COMBINED = "combined"
    """Several receipts are the sum of one instruction, in one way only."""
    SOLE = "sole"
    """The party owes only this in the asset: a part of it, or more than it."""
    BY_HAND = "by_hand"
    """Two people said so."""


@unique
class Charges(StrEnum):
    """Who bears what banks on the way keep (ISO 20022 ``ChargeBearerType1Code``)."""

    SHARED = "shar"
    """The house takes up to the rail's tolerance upon itself."""
    DEBTOR = "debt"
    """The party pays them: what is short stays open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """Value that arrived and waits to be matched.

    Attributes:
        id: of the receipt.
        epoch: a receipt that vanished and came again is in its next one.
        party: whose it is for certain (the address was the party's own); None where nobody said so.
        value: smallest units, > 0.
        reference: free text that came with it: what the payer wrote, or what the address was for.
        end_to_end: the payer's own reference of the payment, as the bank passed it on.
        name, iban: of the payer, as the bank says; they prove nothing.
        suspense: the account in which it lies.
        owner: owner class of the place that holds it; an excess is owed accordingly.
        round: how often it was matched in this epoch; each time it waits, people sign other bytes.
    """

    id: UUID
    epoch: int
    rail: Rail
    party: str | None
    asset: str
    value: int
    reference: str
    end_to_end: str
    name: str
    iban: str
    value_date: date
    first_seen_at: datetime
    suspense: str = ""
    owner: str = "house"
    round: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """An instruction that awaits a receipt.

    Attributes:
        id: of the instruction.
        remaining: smallest units, > 0.
        references: texts that name it; letters and digits count, case and the rest do not.
    """

    id: UUID
    party: str
    asset: str
    remaining: int
    value_date: date
    rail: Rail
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RailRules:
    """What holds on one rail.

    Attributes:
        unique_amount: whether an amount that fits once may match by itself, where no reference says
            so. On a chain the address names the party; at a bank a name proves nothing, and a person
            looks.
        tolerance: by asset, how many of its smallest units banks on the way may keep.
    """

    unique_amount: bool
    tolerance: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules in force; *version* 0 are those that the house begins with.

    Attributes:
        charges: who bears the charges, by party; SHARED where nothing is said.
    """

    version: int = 0
    rails: Mapping[Rail, RailRules] = field(default_factory=dict)
    charges: Mapping[str, Charges] = field(default_factory=dict)

    def of(self, rail: Rail) -> RailRules:
        """Return what holds on *rail*; where nothing is said, nothing matches by its amount."""
        return self.rails.get(rail, NOTHING)

    def tolerance(self, rail: Rail, asset: str, party: str) -> int:
        """Return what may be missing of a payment of *party*, in smallest units."""
        if self.charges.get(party, Charges.SHARED) is Charges.DEBTOR:
            return 0
        return self.of(rail).tolerance.get(asset, 0)


NOTHING: Final = RailRules(unique_amount=False)
FIRST_RULES: Final = Rules(
    rails={
        Rail.EVM: RailRules(unique_amount=True),
        Rail.BITCOIN: RailRules(unique_amount=True),
        Rail.BANK: RailRules(unique_amount=False),
    }
)
"""Chains match by amount, because an address has one party; banks by reference; nothing is forgiven."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one receipt pays of one instruction.

    Attributes:
        applied: what of the receipt goes to it, > 0.
        charge: what the house takes upon itself, so that the instruction is paid.
        excess: what is left of the receipt once everything is paid; on its last part only.
    """

    incoming: UUID
    expected: UUID
    applied: int
    charge: int = 0
    excess: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What a person may look at: these instructions, and why. The best comes first."""

    expected: tuple[UUID, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided about one receipt, or several that pay one instruction.

    Attributes:
        rule: None: nothing matches, and the suggestions are for a person.
        parts: what is paid, by receipt and instruction; empty without a rule.
    """

    incoming: tuple[UUID, ...]
    rule: Rule | None = None
    parts: tuple[Part, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptMatch:
    """What a receipt paid of one instruction, and why; it stands until it is undone.

    ``(receipt_id, epoch, round, instruction_id)`` is its identity: what vanished and was mined again is
    matched again, and so is what two people took apart.

    Attributes:
        round: counts the matches of a receipt in its epoch from 1; 0 are those of before rounds.
        applied, charge, excess: see `Part`.
        first_seen_at: of the receipt: the ids of the postings follow from it.
        by, second: who said so; *second* where people did.
    """

    id: UUID
    receipt_id: UUID
    epoch: int
    round: int
    instruction_id: UUID
    rail: Rail
    applied: int
    charge: int
    excess: int
    rule: Rule
    by: str
    second: str | None
    reason: str
    rules_version: int
    first_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Match:
    """A match that was carried out, and the instruction as it was before."""

    row: ReceiptMatch
    instruction: Instruction

    @property
    def receipt_id(self) -> UUID:
        """Return which receipt it is."""
        return self.row.receipt_id

    @property
    def applied(self) -> int:
        """Return what of the receipt went to the instruction."""
        return self.row.applied

    @property
    def excess(self) -> int:
        """Return what was left of the receipt."""
        return self.row.excess

    @property
    def completes(self) -> bool:
        """Tell whether nothing of the instruction is left."""
        return self.row.applied + self.row.charge == self.instruction.remaining
