"""What an error means for the order: by tables, because the classes of ccxt do not say.

ccxt raises `NetworkError` for requests that were surely refused (wrong timestamp, too many
requests) and other classes for requests that may have been accepted (-1006, 503). So the venue's
own code decides, read from the body of the answer as it came: ccxt drops it now and then. What is in
no table of the venue's record proves nothing, and the outcome is *unknown*.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from venues.capabilities import ErrorTable, Proof
from venues.model import PlacementRefused, PlacementUnknown, RefusalKind
from venues.nesting import require_shallow

REASON_LENGTH_MAX: Final = 300

_SIGNATURE: Final = re.compile(r"signature=[0-9A-Za-z%+/=]+")
_PARTS_MIN: Final = 2
_REFUSED_FROM: Final = 400
_REFUSED_TO: Final = 500

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Failure:
    """How a request failed, as a value.

    Attributes:
        kinds: names of the exception's classes, most special first.
        text: the exception's own text.
        signed: whether a request was made at all; what was never signed was never sent.
        status, body: the venue's answer, if one came.
    """

    kinds: tuple[str, ...]
    text: str
    signed: bool = True
    status: int | None = None
    body: str = ""

    @property
    def reason(self) -> str:
        """Return what may be stored and shown: short, on one line, without the signature."""
        text = _SIGNATURE.sub("signature=…", " ".join(self.text.split()))
        return f"{self.kinds[0]}: {text}"[:REASON_LENGTH_MAX]

    def codes(self, table: ErrorTable) -> tuple[str, ...]:
        """Return the venue's codes in the answer; without an answer, in the exception's text.

        An answer that breaks off has none: what it did not get to say may be what matters.
        """
        if not table.code or (self.body and not _is_whole(self.body)):
            return ()
        return tuple(re.findall(table.code, self.body or self.text))


def _is_whole(body: str) -> bool:
    try:
        require_shallow(body)
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def failure_of(
    error: BaseException, *, signed: bool = True, status: int | None = None, body: str = ""
) -> Failure:
    """Return *error* as a value."""
    kinds = tuple(kind.__name__ for kind in type(error).__mro__)
    return Failure(kinds, str(error), signed, status, body)


def classify_placement(failure: Failure, table: ErrorTable) -> PlacementRefused | PlacementUnknown:
    """Return what a failed POST of an order proves, if anything."""
    if not failure.signed:
        return PlacementRefused(f"not sent: {failure.reason}"[:REASON_LENGTH_MAX])
    if any(words in (failure.body or failure.text) for words in table.duplicates):
        return PlacementUnknown(f"the venue has an order of this id: {failure.reason}")
    kind = refusal_kind(failure, table)
    return (
        PlacementUnknown(failure.reason) if kind is None else PlacementRefused(failure.reason, kind)
    )


def refusal_kind(failure: Failure, table: ErrorTable) -> RefusalKind | None:
    """Return what kind of refusal a failure is; None: it does not prove one."""
    if failure.status is not None and failure.status >= _REFUSED_TO:
        return None  # the venue itself is in trouble: its words about the order are not proof
    codes = failure.codes(table)
    if codes:
        kinds = [None if c in table.unknown else _find(c, table.refusals) for c in codes]
        proven = [kind for kind in kinds if kind is not None]
        return _gravest(proven) if len(proven) == len(codes) else None
    if failure.status is None:
        return None
    if failure.status in table.statuses:
        return table.statuses[failure.status]
    if _REFUSED_FROM <= failure.status < _REFUSED_TO:
        return next((table.hints[name] for name in failure.kinds if name in table.hints), None)
    return None


def wants_fewer_orders(failure: Failure, table: ErrorTable) -> bool:
    """Tell whether the venue objects to the number of orders only, not of requests."""
    codes = failure.codes(table)
    return bool(codes) and set(codes) <= table.only_orders


def proves(failure: Failure, table: ErrorTable, proof: Proof) -> bool:
    """Tell whether a failed query or cancel is the venue's positive answer of this kind."""
    codes = failure.codes(table)
    return bool(codes) and all(proof in (_find(code, table.missing) or ()) for code in codes)


def _gravest(kinds: list[RefusalKind]) -> RefusalKind:
    """Of several reasons, the one that no repetition cures."""
    order = (RefusalKind.FINAL, RefusalKind.BACK_OFF, RefusalKind.CLOCK)
    return min(kinds, key=order.index)


def _find(code: str, table: Mapping[str, V]) -> V | None:
    return next((table[form] for form in _forms(code) if form in table), None)


def _forms(code: str) -> Iterator[str]:
    """Yield the code and what is left of it without its details."""
    parts = code.split(":")
    for length in range(len(parts), 0, -1):
        if length >= min(_PARTS_MIN, len(parts)):
            yield ":".join(parts[:length])
