"""Nouns of releases: what could be paid, what was chosen, and what is set aside for it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from settlement.netting.model import Account, Choice, Payment
from settlement.value_against_value import Cover


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs:
    """What a release is chosen from: the same inputs, in any order, have the same hash.

    Attributes:
        scope: the cycle, or the run that has none.
        payments: what could settle; the id is that of an instruction, or of all sides of a book
            settlement (``<run>/<party>``).
        sources: the place that each payment would come from, by payment id.
        classes: of priority, by payment id: what could leave at once (0) comes before what waits for
            its counter-value (1).
        funds: what each (location, asset) has to promise.
    """

    book: int
    scope: UUID
    payments: tuple[Payment, ...]
    sources: Mapping[str, str]
    classes: Mapping[str, int]
    funds: Mapping[Account, int]

    def to_json(self) -> dict[str, Any]:
        """Return the inputs as they are kept: amounts as text."""
        return {
            "payments": [
                {
                    "id": p.id,
                    "movements": [[m.payer, m.payee, m.asset, str(m.amount)] for m in p.movements],
                    "value": str(p.value),
                    "order": [p.order_key[0].isoformat(), p.order_key[1]],
                    "source": self.sources.get(p.id, ""),
                    "class": self.classes.get(p.id, 0),
                }
                for p in sorted(self.payments, key=lambda p: p.id)
            ],
            "funds": [[place, asset, str(n)] for (place, asset), n in sorted(self.funds.items())],
        }

    @property
    def hash(self) -> str:
        """Return the SHA-256 of the canonical JSON of the inputs."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePlan:
    """One choice, kept for ever: a replay reads it, and never solves again.

    Attributes:
        number: counts from 1 within its scope.
        inputs: as `PlanInputs.to_json` wrote them.
    """

    id: UUID
    book: int
    scope: UUID
    number: int
    choice: Choice
    input_hash: str
    inputs: Mapping[str, Any]
    by: str
    at: datetime

    def sources(self) -> dict[str, str]:
        """Return the place that each payment comes from, as it was planned, by payment id."""
        return {item["id"]: item["source"] for item in self.inputs["payments"]}


@dataclass(frozen=True, slots=True, order=True)
class BookSettlement:
    """All that the desk and a prefunded party owe each other in a run: it settles together, or not at all."""

    run_id: UUID
    party: str

    @property
    def key(self) -> str:
        """Return its id among payments that could be made."""
        return f"{self.run_id}/{self.party}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Earmark:
    """What is set aside for one attempt of a payment, and on what ground it left.

    Attributes:
        plan_id: None: a person chose the place.
        hold_id: of the hold on the place's coins; None where they were released at once.
        cover: set when it was released; None with *ended_at* set: it was let go.
    """

    instruction_id: UUID
    attempt: int
    book: int
    plan_id: UUID | None
    location: str
    asset: str
    amount: int
    hold_id: UUID | None
    held_at: datetime
    cover: Cover | None = None
    cover_detail: str = ""
    ended_by: str | None = None
    ended_at: datetime | None = None
