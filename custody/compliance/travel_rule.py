"""Who sends and who receives, above a threshold: what a record has to say, shaped as IVMS101. Pure.

Decided: names of people are personal data. They are stored sealed (AES-256-GCM, a key that the database
never sees) in a table of their own, under an opaque reference; journal, history and outbox see only
that reference, a keyed hash, and which fields are missing. A record is never changed: a correction is
the next number. A deposit or payout at or above the threshold of its asset is not cleared before a
complete record of it exists.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from kernel.errors import BadInput
from kernel.money import Asset

RECORD_BYTES_MAX: Final = 65_536
SIDES: Final = ("originator", "beneficiary")
_SECTIONS: Final = frozenset({*SIDES, "originatingVASP", "beneficiaryVASP", "selfHosted"})


@dataclass(frozen=True, slots=True)
class TravelRule:
    """From which amount on a record is needed, by asset.

    Attributes:
        thresholds: smallest units by asset code; an asset that is not named needs none.
    """

    version: int
    thresholds: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, assets: Mapping[str, Asset]) -> Self:
        """Read ``{"version": 1, "thresholds": {"USDT": "1000"}}``; amounts are decimals.

        Raises:
            BadInput: names what cannot be read.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise BadInput(f"the travel rule is not JSON: {error}") from error
        if not isinstance(document, dict) or set(document) != {"version", "thresholds"}:
            raise BadInput("the travel rule has other fields than version and thresholds")
        thresholds = document["thresholds"]
        if not isinstance(thresholds, dict) or not isinstance(document["version"], int):
            raise BadInput("the travel rule has a version, and thresholds by asset")
        unknown = sorted(set(thresholds) - set(assets))
        if unknown:
            raise BadInput(f"the travel rule names {unknown[0]!r}, which is not registered")
        return cls(
            document["version"],
            {code: assets[code].parse(str(amount)) for code, amount in thresholds.items()},
        )

    def applies(self, asset: str, amount: int) -> bool:
        """Tell whether so many units need a record."""
        threshold = self.thresholds.get(asset)
        return threshold is not None and amount >= threshold


NO_TRAVEL_RULE: Final = TravelRule(1)


def find_missing(document: Mapping[str, Any]) -> list[str]:
    """Return what an IVMS101-shaped record lacks, as paths; empty: it is complete.

    Needed are the name of a person (natural or legal) and the account number on both sides, where the
    sender lives or is registered, and the other institution, unless the address is self-hosted.
    Source: interVASP messaging standard IVMS101, sections 5 and 6.

    Raises:
        BadInput: it has sections that IVMS101 does not have.
    """
    unknown = sorted(set(document) - _SECTIONS)
    if unknown:
        raise BadInput(
            f"the record has the section {unknown[0]!r}",
            remedy=f"Known are {', '.join(sorted(_SECTIONS))}",
        )
    return list(_missing(document))


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return the bytes that are sealed and hashed."""
    found = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    if len(found) > RECORD_BYTES_MAX:
        raise BadInput(f"a record has at most {RECORD_BYTES_MAX} bytes, not {len(found)}")
    return found


def _missing(document: Mapping[str, Any]) -> Iterator[str]:
    for side in SIDES:
        section = document.get(side)
        section = section if isinstance(section, Mapping) else {}
        persons = section.get(f"{side}Persons")
        if not isinstance(persons, list) or not any(_is_named(person) for person in persons):
            yield f"{side}.{side}Persons[].name"
        numbers = section.get("accountNumber")
        if not isinstance(numbers, list) or not any(isinstance(n, str) and n for n in numbers):
            yield f"{side}.accountNumber"
        if side == "originator" and not any(_is_placed(p) for p in persons or ()):
            yield "originator.originatorPersons[].geographicAddress"
    if document.get("selfHosted") is True:
        return
    for vasp in ("originatingVASP", "beneficiaryVASP"):
        if not isinstance(document.get(vasp), Mapping) or not document[vasp]:
            yield vasp


def _is_named(person: Any) -> bool:
    for kind, key in (("naturalPerson", "primaryIdentifier"), ("legalPerson", "legalPersonName")):
        found = person.get(kind) if isinstance(person, Mapping) else None
        name = found.get("name") if isinstance(found, Mapping) else None
        names = name.get("nameIdentifier") if isinstance(name, Mapping) else None
        if isinstance(names, list) and any(isinstance(n, Mapping) and n.get(key) for n in names):
            return True
    return False


def _is_placed(person: Any) -> bool:
    keys = ("geographicAddress", "nationalIdentification", "customerIdentification")
    return isinstance(person, Mapping) and any(
        isinstance(found, Mapping) and any(found.get(key) for key in keys)
        for found in (person.get("naturalPerson"), person.get("legalPerson"))
    )
