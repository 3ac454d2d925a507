"""Who of those that approved stands for which place of a rule. Pure; the signer counts by it, too.

A rule asks for so many people of each of some groups: each is a place. Nobody stands for two places,
whatever groups they are in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet


def find_empty(places: Sequence[str], people: Mapping[str, AbstractSet[str]]) -> list[str]:
    """Return the groups of the places that stay empty; of all ways to seat people, the fullest.

    People are given to places by augmenting paths, which finds a largest assignment (bipartite
    matching; Kuhn 1955).

    Args:
        places: the group of each place.
        people: the groups of each person.
    """
    held: dict[str, int] = {}

    def seat(place: int, tried: set[str]) -> bool:
        for code in sorted(people):
            if places[place] not in people[code] or code in tried:
                continue
            tried.add(code)
            if code not in held or seat(held[code], tried):
                held[code] = place
                return True
        return False

    return [group for place, group in enumerate(places) if not seat(place, set())]
