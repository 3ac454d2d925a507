"""A journal as a beancount file (version 2 and 3).

A transfer that moves money is a transaction of two postings, debits positive. A hold, its voiding
and its expiry move nothing, so they are ``custom "hold"`` directives; a posted hold is the
transaction, whose metadata names the hold and what it had reserved. The closing balances of all
accounts are asserted, to the last unit, on the day after the last one.

beancount computes with 28 significant digits (Python's default context), and rounds silently
beyond. An asset of which more than that was ever moved is written in several commodities, each
counting its own power of ten of the smallest unit, so that every sum stays exact: `_Unit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

from kernel.money import Asset
from ledger.export.model import (
    Days,
    ExportAccount,
    ExportEvent,
    ExportTransfer,
    Frame,
    exact,
    stamp,
)
from ledger.export.names import beancount_account, beancount_commodities
from ledger.model import Kind

DIGITS_MAX: Final = 28
"""Significant digits of beancount's sums."""

_LIMB: Final = "'L"
_RESERVES: Final = frozenset({Kind.PENDING, Kind.VOID, Kind.EXPIRE})


@dataclass(frozen=True, slots=True)
class _Unit:
    """How an asset is counted.

    Attributes:
        asset: the asset.
        commodity: its name.
        digits: 0 for one commodity with decimal places; else the asset is written in limbs,
            commodity n counting ``10 ** (n * digits)`` smallest units.
    """

    asset: Asset
    commodity: str
    digits: int = 0

    def split(self, units: int) -> list[tuple[str, str]]:
        """Return the (number, commodity) pairs that make up *units*; at least one."""
        if not self.digits:
            return [(exact(units, self.asset.scale), self.commodity)]
        sign, rest = ("-" if units < 0 else ""), str(abs(units))
        limbs: list[tuple[str, str]] = []
        for place, end in enumerate(range(len(rest), 0, -self.digits)):
            limb = int(rest[max(0, end - self.digits) : end])
            if limb or not place:
                limbs.append((f"{sign}{limb}", f"{self.commodity}{_LIMB}{place}"))
        return limbs

    def limbs(self, units: int) -> list[str]:
        """Return the commodities that numbers up to *units* need."""
        if not self.digits:
            return [self.commodity]
        count = -(-len(str(units)) // self.digits)
        return [f"{self.commodity}{_LIMB}{place}" for place in range(count)]


def quoted(text: str) -> str:
    """Return *text* as a string of the language, on one line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


class BeancountRenderer:
    """The text of one export; see the module for its shape."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._days = Days(frame.by)
        # By account and commodity: a limb's sum is not a limb of the sum.
        self._limb_sums: dict[tuple[int, str], int] = {}
        self._names = {
            number: beancount_account(account.path, account.side)
            for number, account in frame.accounts.items()
        }
        commodities = beancount_commodities(frame.assets)
        self._turnover = {code: frame.turnover(code) for code in frame.assets}
        self._units = {
            code: _Unit(asset, commodities[code], self._limb_digits(code))
            for code, asset in frame.assets.items()
        }

    def _limb_digits(self, code: str) -> int:
        """Return 0 where sums fit, else limbs so short that as many as there are records do."""
        if len(str(self._turnover[code])) <= DIGITS_MAX:
            return 0
        return DIGITS_MAX - len(str(self._frame.sequence))

    def head(self) -> Iterator[str]:
        """Return the comments that say what this is, and the commodities."""
        frame = self._frame
        yield (
            f"; Journal of book {frame.book} ({frame.entity}) up to record {frame.sequence}, tree root"
            f" {frame.root.hex()}.\n; A transfer's day is the {frame.by} one.\n\n"
        )
        yield f'option "title" {quoted(f"{frame.entity}, book {frame.book}")}\n\n'
        for code in sorted(frame.assets):
            unit = self._units[code]
            for place, commodity in enumerate(unit.limbs(self._turnover[code])):
                yield f"{self._opened_first(code)} commodity {commodity}\n"
                yield f"  asset: {quoted(code)}\n  scale: {unit.asset.scale}\n"
                if unit.digits:
                    yield f'  unit: "1e{place * unit.digits - unit.asset.scale}"\n'
        yield "\n"

    def _opened_first(self, code: str) -> date:
        return min(a.opened_on for a in self._frame.accounts.values() if a.asset == code)

    def transfer(self, item: ExportTransfer) -> str:
        """Return a transaction, or the custom directive of what moves nothing."""
        day = self._days.note(item)
        metadata = [f"  {key}: {value}" for key, value in self._metadata(item)]
        if item.kind in _RESERVES:
            lines = [self._hold(day, item), f"  code: {quoted(item.code)}", *metadata]
        else:
            link = f" ^{item.correlation}" if item.correlation else ""
            lines = [f"{day} * {quoted(item.code)}{link}", *metadata, *self._postings(item)]
        return "\n".join(lines) + "\n\n"

    def _hold(self, day: date, item: ExportTransfer) -> str:
        debit, credit = self._names[item.debit.number], self._names[item.credit.number]
        unit = self._units[item.asset]
        amount = exact(abs(item.reserved), unit.asset.scale)
        kind = item.kind.name.lower()
        return f'{day} custom "hold" "{kind}" {debit} {credit} {amount} {unit.commodity}'

    def _postings(self, item: ExportTransfer) -> list[str]:
        unit = self._units[item.asset]
        lines: list[str] = []
        for account, units in ((item.debit, item.amount), (item.credit, -item.amount)):
            for text, commodity in unit.split(units):
                lines.append(f"  {self._names[account.number]}  {text} {commodity}")
                if unit.digits:
                    key = account.number, commodity
                    self._limb_sums[key] = self._limb_sums.get(key, 0) + int(text)
        return lines

    def _metadata(self, item: ExportTransfer) -> Iterator[tuple[str, str]]:
        yield "sequence", str(item.sequence)
        yield "id", f'"{item.id}"'
        yield "kind", f'"{item.kind.name.lower()}"'
        texts = (
            ("flags", item.flag_words),
            ("pending", str(item.pending_id or "")),
            ("held", self._held(item)),
            ("reverses", str(item.reverses or "")),
            ("purpose", item.purpose),
            ("reference", item.reference),
            ("correlation", str(item.correlation or "")),
            ("recorded", stamp(item.recorded_at)),
            ("effective", stamp(item.effective_at) if item.effective_at else ""),
            ("metadata", item.metadata),
        )
        for key, text in texts:
            if text:
                yield key, quoted(text)
        if item.timeout_us is not None:
            yield "timeout-us", str(item.timeout_us)

    def _held(self, item: ExportTransfer) -> str:
        return exact(item.held, self._units[item.asset].asset.scale) if item.pending_id else ""

    def event(self, item: ExportEvent) -> str:
        """Return a custom directive."""
        what = "account" if item.account else "period"
        name = f" {self._names[item.account.number]}" if item.account else ""
        values = " ".join(quoted(text) for text in (item.detail, item.reason) if text)
        text = f'{item.recorded_at.date()} custom "{what}" "{item.kind}"{name} {values}'.rstrip()
        return f"{text}\n  sequence: {item.sequence}\n\n"

    def tail(self) -> Iterator[str]:
        """Return the accounts, opened on the first day they are needed, and what they come to."""
        groups: dict[str, list[ExportAccount]] = {}
        for account in self._frame.accounts.values():
            groups.setdefault(self._names[account.number], []).append(account)
        for name in sorted(groups):
            yield from self._open(name, groups[name])
        yield "\n"
        if self._days.last is not None:
            after = self._days.after()
            for name, number, commodity in self._subtree_balances():
                yield f"{after} balance {name}  {number} ~ 0 {commodity}\n"

    def _open(self, name: str, accounts: list[ExportAccount]) -> Iterator[str]:
        yield f"{min(self._days.first(account) for account in accounts)} open {name}\n"
        yield f"  path: {quoted(accounts[0].path)}\n"
        for key, found in (
            ("owner", {account.owner for account in accounts}),
            ("purpose", {account.purpose for account in accounts} - {""}),
        ):
            if found:
                yield f"  {key}: {quoted(' '.join(sorted(found)))}\n"

    def _subtree_balances(self) -> list[tuple[str, str, str]]:
        """Return (account, number, commodity): what each comes to, those below it included.

        beancount asserts an account's balance with those of its sub-accounts.
        """
        sums: dict[tuple[str, str], int] = {}
        own = {(self._names[a.number], a.asset) for a in self._frame.accounts.values()}
        for number, account in self._frame.accounts.items():
            segments = self._names[number].split(":")
            for length in range(2, len(segments) + 1):
                name = ":".join(segments[:length])
                if (name, account.asset) in own:
                    for commodity, units in self._comes_to(number, account.asset):
                        sums[name, commodity] = sums.get((name, commodity), 0) + units
        scales = {u.commodity: u.asset.scale for u in self._units.values() if not u.digits}
        return [
            (name, exact(units, scales.get(commodity, 0)), commodity)
            for (name, commodity), units in sorted(sums.items())
        ]

    def _comes_to(self, number: int, code: str) -> list[tuple[str, int]]:
        unit = self._units[code]
        if not unit.digits:
            return [(unit.commodity, self._frame.totals[number].net)]
        return [
            (commodity, self._limb_sums.get((number, commodity), 0))
            for commodity in unit.limbs(self._turnover[code])
        ]
