"""Which entries differ from those that the transfers make, and how the replay goes on from there.

Only taken when the two texts of a chunk are not the same. What differs is named once: the replay then
goes on from what is stored, so that one changed entry is not reported with every one behind it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ledger.audit import Faults, Replay

Columns = tuple[int, ...]
"""version, debits pending, debits posted, credits pending, credits posted"""

NOTHING: Final[Columns] = (0, 0, 0, 0, 0)


def explain(
    replay: Replay, expected: Sequence[str], stored: bytes, key: Callable[[int], str]
) -> None:
    """Report the entries of a chunk that differ, and let *replay* go on from the stored ones.

    Args:
        replay: at the chunk's end.
        expected: the entries that the chunk's transfers make, in order.
        stored: the entries of the same sequence numbers, as COPY prints them.
        key: says which transfer a sequence number is.
    """
    found: dict[tuple[int, int], list[Columns]] = defaultdict(list)
    for line in stored.decode().splitlines():
        _, account, sequence, *columns = map(int, line.split("\t"))
        found[account, sequence].append(tuple(columns))
    offsets: dict[int, Columns] = {}
    for line in expected:
        _, account, sequence, *columns = map(int, line.split("\t"))
        offset = offsets.get(account, NOTHING)
        derived = tuple(map(sum, zip(columns, offset, strict=True)))
        rows = found.pop((account, sequence), [])
        name = f"{replay.name(str(account).encode())}, transfer {key(sequence)}"
        _compare(replay.faults, name, derived, rows)
        _check_standing(replay, account, name, rows[0] if rows else derived)
        if rows and rows[0] != derived:
            offsets[account] = tuple(
                have - made for have, made in zip(rows[0], columns, strict=True)
            )
    for account, sequence in found:
        name = f"{replay.name(str(account).encode())}, sequence {sequence}"
        replay.report("entry", name, "belongs to no transfer")
    for account, offset in offsets.items():
        _shift(replay, account, offset)
    replay.overdrawn = []


def _compare(faults: Faults, name: str, derived: Columns, rows: Sequence[Columns]) -> None:
    if not rows:
        faults.report("entry", name, "is missing")
        return
    if len(rows) > 1:
        faults.report("entry", name, "is there twice")
    if rows[0] != derived:
        what = f"says {show(rows[0])}, the transfer makes it {show(derived)}"
        faults.report("entry", name, what)
    if min(rows[0]) < 0:
        faults.report("entry", name, "has a negative column")


def _check_standing(replay: Replay, number: int, name: str, columns: Columns) -> None:
    account = replay.accounts.get(str(number).encode())
    if account is None:
        return
    _, dp, d, cp, c = columns
    limit = account.credit_limit
    if (account.debits_capped and dp + d > c + limit) or (
        account.credits_capped and cp + c > d + limit
    ):
        replay.report("entry", name, "is overdrawn")


def _shift(replay: Replay, number: int, offset: Columns) -> None:
    account = replay.accounts.get(str(number).encode())
    if account is not None:
        account.version += offset[0]
        account.debits_pending += offset[1]
        account.debits_posted += offset[2]
        account.credits_pending += offset[3]
        account.credits_posted += offset[4]


def explain_effective(
    replay: Replay, expected: Iterable[str], stored: bytes, key: Callable[[int], str]
) -> None:
    """Report the effective entries of a chunk that differ."""
    made, kept = Counter(expected), Counter(stored.decode().splitlines(keepends=True))
    for lines, what in (
        (made - kept, "is missing"),
        (kept - made, "is not what the transfer says"),
    ):
        for line in lines:
            account, day, sequence, *_ = line.split("\t")
            name = f"{replay.name(account.encode())}, transfer {key(int(sequence))}, {day}"
            replay.report("effective_entry", name, what)


def show(columns: Columns) -> str:
    """Return columns in words."""
    version, dp, d, cp, c = columns
    return f"debits {d} (+{dp} pending), credits {c} (+{cp} pending), version {version}"
