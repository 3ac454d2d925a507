"""From rows to what will be posted, and everything that can be checked before it is. Pure.

The transfers are simulated in their order against the accounts as they stand: what the ledger would
refuse is told as a fault of its line, and nothing is posted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from kernel.ids import derive_id, stable_id
from kernel.money import AMOUNT_MAX
from ledger.chart import account_spec
from ledger.imports.model import (
    COUNTED,
    FAULTS_MAX,
    BalanceRow,
    Direction,
    Fault,
    FileKind,
    ImportFiles,
    Known,
    MovementRow,
    Plan,
    Planned,
    Standing,
)
from ledger.imports.reading import require_none
from ledger.model import BATCH_MAX, AccountSpec, Kind, Side, Transfer
from registry.authority import signing_bytes

APPROVE_IMPORT: Final = "ledger.import.approve"
OPENING: Final = "equity:opening"
CODE_OF_BALANCES: Final = "import.opening"

Key = tuple[str, str]


def import_bytes(book: int, name: str, digest: str, *, reason: str, imported_by: str) -> bytes:
    """Return what an approver signs about an import."""
    return signing_bytes(
        APPROVE_IMPORT,
        {
            "book": book,
            "name": name,
            "files": digest,
            "reason": reason,
            "imported_by": imported_by,
        },
    )


def make_plan(files: ImportFiles) -> Plan:
    """Return what an import will do; the same files always give the same plan."""
    correlation = stable_id("import", files.digest)
    transfers = sorted(
        [
            *(_opening(files, row) for row in files.balances),
            *(_movement(files, FileKind.TRANSFERS, row) for row in files.transfers),
            *(_movement(files, FileKind.HOLDS, row) for row in files.holds),
        ],
        key=_order,
    )
    return Plan(
        digest=files.digest,
        hashes=files.hashes,
        accounts=_accounts(files, transfers),
        transfers=tuple(
            Planned(replace(item.transfer, correlation=correlation), item.file, item.line)
            for item in transfers
        ),
        obligations=files.obligations,
        totals=_sums(
            (kind, row.asset, row.amount) for kind in COUNTED for row in getattr(files, kind)
        ),
        posted=_sums((t.file, t.transfer.asset, t.transfer.amount) for t in transfers),
    )


def batches(plan: Plan) -> Iterator[Sequence[Planned]]:
    """Yield the transfers in order, at most `BATCH_MAX` at once."""
    for start in range(0, len(plan.transfers), BATCH_MAX):
        yield plan.transfers[start : start + BATCH_MAX]


def check_plan(plan: Plan, files: ImportFiles, standing: Standing) -> None:
    """Refuse files whose import would not come out as they say.

    Raises:
        FilesNotValid: names every fault, up to `FAULTS_MAX` of them.
    """
    faults: list[Fault] = []
    checks = (
        _twice(files),
        _total_faults(files, plan),
        _account_faults(files, standing),
        _obligation_faults(files, standing),
        _time_faults(plan, standing),
        _simulated(plan, standing),
        _unsettled(plan),
        _foreign(plan, standing),
    )
    for found in checks:
        for fault in found:
            faults.append(fault)
            if len(faults) >= FAULTS_MAX:
                require_none(faults)
    require_none(faults)


def _order(item: Planned) -> tuple[Any, ...]:
    rank = (FileKind.BALANCES, FileKind.TRANSFERS, FileKind.HOLDS).index(item.file)
    return item.transfer.effective_at, rank, item.line


def _opening(files: ImportFiles, row: BalanceRow) -> Planned:
    sides = (row.path, OPENING)
    on_debit = account_spec(row.path, row.asset).side is Side.DEBIT
    debit, credit = sides if on_debit == (row.amount > 0) else sides[::-1]
    movement = MovementRow(
        line=row.line,
        effective_at=row.effective_at,
        debit=debit,
        credit=credit,
        asset=row.asset,
        amount=abs(row.amount),
        code=CODE_OF_BALANCES,
        purpose="",
        reference=row.reference,
    )
    return _movement(files, FileKind.BALANCES, movement)


def _movement(files: ImportFiles, kind: FileKind, row: MovementRow) -> Planned:
    item = Transfer(
        id=derive_id(row.effective_at, "import", files.hashes[kind], row.line),
        debit=row.debit,
        credit=row.credit,
        asset=row.asset,
        amount=row.amount,
        code=row.code,
        kind=Kind.PENDING if row.purpose else Kind.SINGLE,
        purpose=row.purpose,
        reference=row.reference,
        effective_at=row.effective_at,
        imported=True,
    )
    return Planned(item, kind, row.line)


def _accounts(files: ImportFiles, transfers: Sequence[Planned]) -> tuple[AccountSpec, ...]:
    """Return the accounts to open: those listed, and equity:opening in every asset that needs it.

    Whose beginning is not told exists since the first event of the import.
    """
    first = transfers[0].transfer.effective_at if transfers else None
    listed = {(row.spec.path, row.spec.asset): row.spec for row in files.accounts}
    for asset in sorted({row.asset for row in files.balances}):
        listed.setdefault((OPENING, asset), account_spec(OPENING, asset))
    return tuple(
        replace(spec, effective_at=spec.effective_at or first) for _, spec in sorted(listed.items())
    )


def _sums(rows: Iterable[tuple[FileKind, str, int]]) -> dict[tuple[FileKind, str], tuple[int, int]]:
    totals: dict[tuple[FileKind, str], tuple[int, int]] = {}
    for kind, asset, amount in rows:
        count, total = totals.get((kind, asset), (0, 0))
        totals[kind, asset] = count + 1, total + amount
    return totals


def _twice(files: ImportFiles) -> Iterable[Fault]:
    accounts = [(row.line, (row.spec.path, row.spec.asset)) for row in files.accounts]
    balances = [(row.line, (row.path, row.asset)) for row in files.balances]
    owed = [(row.line, (row.reference,)) for row in files.obligations]
    totals = [(row.line, (row.file, row.asset)) for row in files.totals]
    for kind, rows in (
        (FileKind.ACCOUNTS, accounts),
        (FileKind.BALANCES, balances),
        (FileKind.OBLIGATIONS, owed),
        (FileKind.TOTALS, totals),
    ):
        first: dict[tuple[str, ...], int] = {}
        for line, key in rows:
            if key in first:
                yield Fault(
                    f"{kind}.csv", line, "", f"{' '.join(key)} stands in line {first[key]} already"
                )
            first.setdefault(key, line)


def _total_faults(files: ImportFiles, plan: Plan) -> Iterable[Fault]:
    declared = {(row.file, row.asset): row for row in files.totals}
    for key, (rows, total) in sorted(plan.totals.items()):
        row = declared.get(key)
        if row is None:
            yield Fault(
                "totals.csv",
                1,
                "",
                f"{key[0]}.csv has {rows} rows of {key[1]} and no total is declared for them",
                f"Declare them: {rows} rows, {total} smallest units",
            )
        elif row.rows != rows:
            yield Fault("totals.csv", row.line, "rows", f"{key[0]}.csv has {rows} of {key[1]}")
        elif row.total != total:
            yield Fault(
                "totals.csv",
                row.line,
                "total",
                f"{key[0]}.csv comes to {total} smallest units of {key[1]}, not to {row.total}",
            )
    for key, row in declared.items():
        if key not in plan.totals and (row.rows or row.total):
            yield Fault("totals.csv", row.line, "", f"{key[0]}.csv has no row of {key[1]}")


def _account_faults(files: ImportFiles, standing: Standing) -> Iterable[Fault]:
    for row in files.accounts:
        known = standing.known.get((row.spec.path, row.spec.asset))
        if known is not None and known.spec.owner != row.spec.owner:
            yield Fault(
                "accounts.csv",
                row.line,
                "owner",
                f"{row.spec.path} is open and belongs to {known.spec.owner}",
                "An account never changes its owner",
            )
        if row.spec.effective_at is not None and row.spec.effective_at > standing.now:
            yield Fault("accounts.csv", row.line, "effective_at", "has not come yet")


def _obligation_faults(files: ImportFiles, standing: Standing) -> Iterable[Fault]:
    for row in files.obligations:
        if row.party not in standing.parties:
            yield Fault(
                "obligations.csv",
                row.line,
                "party",
                f"the party {row.party} is not registered",
                "Register it first",
            )


def _time_faults(plan: Plan, standing: Standing) -> Iterable[Fault]:
    through, closed = standing.imported_through, standing.closed_through
    for item in plan.transfers:
        at = item.transfer.effective_at
        assert at is not None
        if item.transfer.id in standing.done:
            continue
        where = (f"{item.file}.csv", item.line, "effective_at")
        if at > standing.now:
            yield Fault(*where, f"{at.isoformat()} has not come yet")
        elif closed is not None and at.date() <= closed:
            yield Fault(*where, f"the period up to {closed} is closed")
        elif through is not None and at < through:
            yield Fault(
                *where,
                f"the book has imported events up to {through.isoformat()}",
                "An import goes on where the last one ended",
            )


def _foreign(plan: Plan, standing: Standing) -> Iterable[Fault]:
    """Tell lines that the journal has from a file which was a part of another import too."""
    if standing.begun:
        return
    for item in plan.transfers:
        if item.transfer.id in standing.done:
            yield Fault(
                f"{item.file}.csv", item.line, "", "came with another import", "Leave the file out"
            )


@dataclass(slots=True)
class _Account:
    """An account in the simulation."""

    spec: AccountSpec
    opened_at: datetime | None
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0

    def takes_debit(self, amount: int) -> bool:
        debits = self.debits_pending + self.debits_posted + amount
        limit = self.credits_posted + self.spec.credit_limit
        return not self.spec.debits_must_not_exceed_credits or debits <= limit

    def takes_credit(self, amount: int) -> bool:
        credits_ = self.credits_pending + self.credits_posted + amount
        limit = self.debits_posted + self.spec.credit_limit
        return not self.spec.credits_must_not_exceed_debits or credits_ <= limit

    @property
    def has_room(self) -> bool:
        debits = self.debits_pending + self.debits_posted
        return max(debits, self.credits_pending + self.credits_posted) <= AMOUNT_MAX


def _simulated(plan: Plan, standing: Standing) -> Iterable[Fault]:
    accounts = {key: _known(known) for key, known in standing.known.items()}
    for spec in plan.accounts:
        accounts.setdefault((spec.path, spec.asset), _Account(spec, spec.effective_at))
    for item in plan.transfers:
        if item.transfer.id not in standing.done:
            yield from _simulate(accounts, item)


def _known(known: Known) -> _Account:
    return _Account(
        known.spec,
        known.opened_at,
        known.debits_pending,
        known.debits_posted,
        known.credits_pending,
        known.credits_posted,
    )


def _simulate(accounts: Mapping[Key, _Account], item: Planned) -> Iterable[Fault]:
    asked, file = item.transfer, f"{item.file}.csv"
    column = "path" if item.file is FileKind.BALANCES else ""
    sides = (("debit", asked.debit), ("credit", asked.credit))
    found = []
    for side, path in sides:
        account = accounts.get((path, asked.asset))
        if account is None:
            yield Fault(
                file,
                item.line,
                column or side,
                f"the account {path} {asked.asset} is neither open nor listed",
                "List it in accounts.csv",
            )
            continue
        found.append(account)
        assert asked.effective_at is not None
        if account.opened_at is not None and asked.effective_at < account.opened_at:
            yield Fault(
                file,
                item.line,
                "effective_at",
                f"{path} exists since {account.opened_at.isoformat()} only",
                "Give the account an earlier effective_at",
            )
    if len(found) == len(sides):
        debit, credit = found
        yield from _move(debit, credit, item, column)


def _move(debit: _Account, credit: _Account, item: Planned, column: str) -> Iterable[Fault]:
    amount, file = item.transfer.amount, f"{item.file}.csv"
    fits = debit.takes_debit(amount), credit.takes_credit(amount)
    for account, fit, side in ((debit, fits[0], "debit"), (credit, fits[1], "credit")):
        if not fit:
            yield Fault(
                file,
                item.line,
                column or side,
                f"{account.spec.path} would be overdrawn in {account.spec.asset} by it",
                "Correct the amounts, or the order of time",
            )
    if not all(fits):
        return
    if item.transfer.kind is Kind.PENDING:
        debit.debits_pending += amount
        credit.credits_pending += amount
    else:
        debit.debits_posted += amount
        credit.credits_posted += amount
    if not (debit.has_room and credit.has_room):
        yield Fault(file, item.line, "amount", "the account would hold more than can be stored")


_OPEN_CLAIMS: Final = {Direction.PAY: "payable:{}:open", Direction.RECEIVE: "receivable:{}:open"}


def _unsettled(plan: Plan) -> Iterable[Fault]:
    """Hold the obligations against what the files bring to the open claims: they are the same.

    What else stands on a claim belongs to deals, and may have been settled since.
    """
    owed: Counter[Key] = Counter()
    lines: dict[Key, int] = {}
    for row in plan.obligations:
        key = _OPEN_CLAIMS[row.direction].format(row.party), row.asset
        owed[key] += row.amount
        lines.setdefault(key, row.line)
    brought = _brought(plan)
    for key in sorted(owed.keys() | brought.keys()):
        if brought[key] != owed[key]:
            yield Fault(
                "obligations.csv",
                lines.get(key, 1),
                "amount",
                f"the files bring {brought[key]} smallest units of {key[1]} to {key[0]}, the "
                f"obligations come to {owed[key]}",
                "Every open claim is made of obligations",
            )


def _brought(plan: Plan) -> Counter[Key]:
    """Return what the balances and the history come to on each open claim, on its normal side."""
    brought: Counter[Key] = Counter()
    for asked in (item.transfer for item in plan.transfers if item.file is not FileKind.HOLDS):
        for path, side in ((asked.debit, Side.DEBIT), (asked.credit, Side.CREDIT)):
            if path.startswith(("payable:", "receivable:")) and path.endswith(":open"):
                is_normal = account_spec(path, asked.asset).side is side
                brought[path, asked.asset] += asked.amount if is_normal else -asked.amount
    return brought


def keys_of(plan: Plan) -> set[Key]:
    """Return the accounts that a plan opens or moves."""
    keys = {(spec.path, spec.asset) for spec in plan.accounts}
    for item in plan.transfers:
        keys.add((item.transfer.debit, item.transfer.asset))
        keys.add((item.transfer.credit, item.transfer.asset))
    return keys
