"""A period of a book as one balanced batch for a general ledger: pure decisions.

A map says which account of the general ledger each account of ours belongs to; its rules are tried
from the top, the first that fits counts. The batch has one line per general-ledger account and
asset with the period's debits and credits, and an id that is the same whenever the same book, period,
map and journal are exported again, so that the general ledger can refuse the second one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any, Final, NamedTuple

from kernel.errors import BadInput
from ledger.export.columns import csv_line
from ledger.export.model import ExportAccount, ExportRefused, Frame, exact

MAP_COLUMNS: Final = ("pattern", "asset", "account")
BATCH_COLUMNS: Final = (
    "batch",
    "status",
    "book",
    "entity",
    "from",
    "to",
    "account",
    "currency",
    "debits",
    "credits",
)
RULES_MAX: Final = 10_000
BATCH_ID_DIGITS: Final = 32
UNTIED_NAMED_MAX: Final = 20

_WILD: Final = re.compile(r"\*\*|\*")
_PATTERN: Final = re.compile(r"[A-Za-z0-9._/:*-]{1,300}")


@dataclass(frozen=True)
class Rule:
    """One line of the map.

    Attributes:
        pattern: a path; ``*`` stands for any text within a segment, ``**`` for any text.
        asset: an asset's code, or ``*`` for every one.
        account: of the general ledger.
    """

    pattern: str
    asset: str
    account: str

    def __post_init__(self) -> None:
        """Refuse what could never fit, or could not be written."""
        if not _PATTERN.fullmatch(self.pattern):
            raise BadInput(f"{self.pattern!r} is not a pattern of paths", remedy="Write client:**")
        if not self.asset or not self.account:
            raise BadInput(f"the rule of {self.pattern} lacks an asset or an account")
        if not self.account.isprintable() or self.account != self.account.strip():
            raise BadInput(f"{self.account!r} is not an account of a general ledger")

    @cached_property
    def _path(self) -> re.Pattern[str]:
        ends = [0, *(match.end() for match in _WILD.finditer(self.pattern))]
        begins = [*(match.start() for match in _WILD.finditer(self.pattern)), len(self.pattern)]
        parts = [re.escape(self.pattern[e:b]) for e, b in zip(ends, begins, strict=True)]
        wild = [".*" if m[0] == "**" else "[^:]*" for m in _WILD.finditer(self.pattern)]
        return re.compile("".join(a + b for a, b in zip(parts, [*wild, ""], strict=True)))

    def fits(self, path: str, asset: str) -> bool:
        """Tell whether an account of ours falls under this rule."""
        return self.asset in {"*", asset} and self._path.fullmatch(path) is not None


def read_map(text: str, *, toml: bool) -> tuple[Rule, ...]:
    """Read a map: CSV with the columns of `MAP_COLUMNS`, or TOML with ``[[rule]]`` tables of them.

    Raises:
        BadInput: says which line or table is not a rule.
    """
    rows = _toml_rows(text) if toml else _csv_rows(text)
    rules: list[Rule] = []
    for where, row in rows:
        if set(row) != set(MAP_COLUMNS) or not all(isinstance(cell, str) for cell in row.values()):
            raise BadInput(
                f"{where} of the map is not a rule", remedy=f"Give {', '.join(MAP_COLUMNS)} as text"
            )
        try:
            rules.append(Rule(**row))
        except BadInput as error:
            raise BadInput(error.what, where=f"{where} of the map", remedy=error.remedy) from error
    if not 0 < len(rules) <= RULES_MAX:
        raise BadInput(f"a map has 1 to {RULES_MAX} rules, not {len(rules)}")
    return tuple(rules)


def _csv_rows(text: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    try:
        for at, row in enumerate(csv.DictReader(io.StringIO(text), strict=True), start=2):
            yield f"line {at}", row
    except csv.Error as error:
        raise BadInput(f"the map is not CSV: {error}") from error


def _toml_rows(text: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"the map is not TOML: {error}") from error
    rules = found.get("rule", [])
    if set(found) - {"rule"} or not isinstance(rules, list):
        raise BadInput("the map has more than [[rule]] tables")
    for at, row in enumerate(rules, start=1):
        yield f"rule {at}", row if isinstance(row, dict) else {}


def map_hash(rules: Sequence[Rule]) -> str:
    """Return the SHA-256, in hex, of what a map says, however its file is laid out."""
    text = "".join(f"{rule.pattern}\t{rule.asset}\t{rule.account}\n" for rule in rules)
    return hashlib.sha256(text.encode()).hexdigest()


class Moved(NamedTuple):
    """What was posted to an account in a period, in smallest units."""

    debits: int = 0
    credits: int = 0


@dataclass(frozen=True, slots=True)
class Period:
    """Effective days, both ends included."""

    first: date
    last: date

    def __post_init__(self) -> None:
        """Refuse a period that ends before it begins, and one that nothing can lie before."""
        if self.first == date.min:
            raise BadInput(f"a period cannot begin on {self.first}")
        if self.last < self.first:
            raise BadInput(f"the period ends on {self.last}, before it begins on {self.first}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """What one account of the general ledger is debited and credited, in smallest units."""

    account: str
    asset: str
    debits: int
    credits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A balanced batch.

    Attributes:
        id: the first 128 bits of a SHA-256, in hex: see `batch_id`.
        is_final: the period is closed as of the watermark, so nothing can be added to it.
        lines: by account and asset.
    """

    id: str
    is_final: bool
    frame: Frame
    period: Period
    map_hash: str
    lines: tuple[BatchLine, ...] = field(default=())


def batch_id(frame: Frame, period: Period, rules_hash: str) -> str:
    """Return the id of a batch: of its book, period, map, and the journal's root at the watermark."""
    facts = (
        "causeway.gl.v1",
        str(frame.book),
        frame.entity,
        str(period.first),
        str(period.last),
        rules_hash,
        str(frame.sequence),
        frame.root.hex(),
    )
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:BATCH_ID_DIGITS]


def require_tied(
    frame: Frame, transfers: Mapping[int, Moved], trial_balance: Mapping[int, Moved]
) -> None:
    """Refuse a period whose transfers do not come to the change of the trial balance.

    Args:
        frame: the book.
        transfers: the sums of the period's transfers, by account number.
        trial_balance: totals at the end of the period less those before it.

    Raises:
        ExportRefused: names accounts, or an asset that does not balance, with the figures.
    """
    wrong = [
        f"{account.path} {account.asset}: transfers {_figures(frame, account, found)},"
        f" trial balance {_figures(frame, account, expected)}"
        for number, account in sorted(frame.accounts.items())
        if (found := transfers.get(number, Moved()))
        != (expected := trial_balance.get(number, Moved()))
    ]
    if wrong:
        raise ExportRefused(
            f"{len(wrong)} accounts are not tied to the trial balance: "
            + "; ".join(wrong[:UNTIED_NAMED_MAX]),
            remedy="Run `causeway verify`; nothing was written",
        )


def _figures(frame: Frame, account: ExportAccount, moved: Moved) -> str:
    scale = frame.assets[account.asset].scale
    return f"debits {exact(moved.debits, scale)} credits {exact(moved.credits, scale)}"


def make_batch(
    frame: Frame,
    period: Period,
    rules: Sequence[Rule],
    moved: Mapping[int, Moved],
    *,
    is_final: bool,
) -> Batch:
    """Map what was moved in a period.

    Raises:
        ExportRefused: lists every account that was moved and fits no rule; or an asset does not
            balance.
    """
    sums: dict[tuple[str, str], Moved] = {}
    unmapped: list[str] = []
    for number, account in sorted(frame.accounts.items()):
        debits, credits_ = moved.get(number, Moved())
        if not debits and not credits_:
            continue
        rule = next((rule for rule in rules if rule.fits(account.path, account.asset)), None)
        if rule is None:
            unmapped.append(f"{account.path} {account.asset}")
            continue
        before = sums.get((rule.account, account.asset), Moved())
        sums[rule.account, account.asset] = Moved(before.debits + debits, before.credits + credits_)
    if unmapped:
        raise ExportRefused(
            f"{len(unmapped)} accounts fit no rule of the map: {', '.join(sorted(unmapped))}",
            remedy="Add rules for them; nothing was written",
        )
    lines = tuple(
        BatchLine(account=account, asset=asset, debits=found.debits, credits=found.credits)
        for (account, asset), found in sorted(sums.items())
    )
    _require_balanced(frame, lines)
    rules_hash = map_hash(rules)
    return Batch(
        id=batch_id(frame, period, rules_hash),
        is_final=is_final,
        frame=frame,
        period=period,
        map_hash=rules_hash,
        lines=lines,
    )


def _require_balanced(frame: Frame, lines: Iterable[BatchLine]) -> None:
    for asset, (debits, credits_) in totals_of(lines).items():
        if debits != credits_:
            scale = frame.assets[asset].scale
            raise ExportRefused(
                f"{asset} does not balance: debits {exact(debits, scale)},"
                f" credits {exact(credits_, scale)}",
                remedy="Run `causeway verify`; nothing was written",
            )


def totals_of(lines: Iterable[BatchLine]) -> dict[str, Moved]:
    """Return debits and credits by asset."""
    totals: dict[str, Moved] = {}
    for line in lines:
        debits, credits_ = totals.get(line.asset, Moved())
        totals[line.asset] = Moved(debits + line.debits, credits_ + line.credits)
    return totals


def batch_csv(batch: Batch) -> Iterator[str]:
    """Return the batch as lines of CSV, each of which says which batch it belongs to."""
    yield csv_line(BATCH_COLUMNS)
    for line in batch.lines:
        scale = batch.frame.assets[line.asset].scale
        yield csv_line(
            (
                batch.id,
                "final" if batch.is_final else "preliminary",
                batch.frame.book,
                batch.frame.entity,
                batch.period.first,
                batch.period.last,
                line.account,
                line.asset,
                exact(line.debits, scale),
                exact(line.credits, scale),
            )
        )
