"""Marks: how the signer knows the database that asks again, and knows one that was set back. Pure.

Before the house asks for signatures it commits a mark: the next number, what it is about to have
signed, and the token of the mark before. The signer keeps every mark that it was shown, in its own
store. A database that was restored to an earlier moment makes its next mark under a number that the
signer has, with another token: so it is known for what it is, whatever it says of itself.

A token is a hash over the mark and the token before it, so two lines of marks that part never meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Final
from uuid import UUID

import msgspec

from kernel.errors import BadInput

FIRST_TOKEN: Final = ""
"""What stands as the token before mark 1."""
MARKS_MAX: Final = 200
"""Most marks in one question."""
ABOUT_MAX: Final = 600
"""Most payouts that a mark is about."""

Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What only the database knows of a payout that is to be signed: enough to write it anew.

    Attributes:
        claim, client_ref: the account that it discharges and the party's own reference; with them and
            its time a payout's id can be derived again.
        amount: smallest units of *asset*, decimal text.
    """

    payout_id: UUID
    book: int
    claim: str
    client_ref: str
    rail: str
    asset: str
    amount: str
    native_asset: str
    reason: str


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One mark.

    Attributes:
        number: from 1 on, without gaps.
        previous: token of the mark before; `FIRST_TOKEN` for mark 1.
        at: when it was made, in milliseconds since 1970.
        about: the payouts that the house was about to have signed.
    """

    number: Number
    previous: str
    at: Number
    about: list[About] = []

    @property
    def token(self) -> str:
        """Return what the mark is known by: SHA-256 over all of it, in hexadecimal."""
        return sha256(msgspec.json.encode(self)).hexdigest()


class Shown(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the house shows of its database with a question.

    Attributes:
        marks: those that the signer has not seen, oldest first, each following on the one before.
        seen: the highest number that the signer has told this database it has.
    """

    marks: list[Mark]
    seen: Number = 0


def require_line(marks: Sequence[Mark]) -> None:
    """Refuse marks of which one does not follow on the one before it.

    Raises:
        BadInput: says which.
    """
    if len(marks) > MARKS_MAX:
        raise BadInput(f"more than {MARKS_MAX} marks in one question")
    for item in marks:
        if len(item.about) > ABOUT_MAX:
            raise BadInput(f"mark {item.number} is about more than {ABOUT_MAX} payouts")
    for before, after in pairwise(marks):
        if (after.number, after.previous) != (before.number + 1, before.token):
            raise BadInput(f"mark {after.number} does not follow on mark {before.number}")
