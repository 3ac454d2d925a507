"""A journal as an hledger journal file.

Each transfer is one transaction with its sequence number as the code in parentheses. What it moves
are real postings, debits positive. What it reserves or releases are balanced virtual postings (in
brackets) on accounts below ``hold:debits`` and ``hold:credits``: posted balances stay as they are,
``--real`` leaves the holds away, and all four columns of an account can be asked for. A pending
transfer has the status ``!``. The closing balances are asserted on the day after the last one.

hledger's numbers have as many digits as they need.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ledger.export.model import (
    Days,
    ExportAccount,
    ExportEvent,
    ExportTransfer,
    Frame,
    exact,
    stamp,
)
from ledger.export.names import beancount_account, percent
from ledger.model import Kind

HOLD_DEBITS: Final = "hold:debits:"
HOLD_CREDITS: Final = "hold:credits:"

_TYPES: Final = {"Assets": "A", "Liabilities": "L", "Equity": "E", "Income": "R", "Expenses": "X"}
# In a tag's value a comma ends it, a bracket may begin a date, a semicolon another comment.
_VALUE_SAFE: Final = ":/#+ {}\"'()=@!?*&$"


class HledgerRenderer:
    """The text of one export; see the module for its shape."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._days = Days(frame.by)
        self._names = {n: percent(account.path) for n, account in frame.accounts.items()}
        self._held_accounts: set[tuple[str, int]] = set()

    def head(self) -> Iterator[str]:
        """Return the comments that say what this is, the commodities and the accounts."""
        frame = self._frame
        yield (
            f"; Journal of book {frame.book} ({percent(frame.entity)}) up to record {frame.sequence},"
            f" tree root {frame.root.hex()}.\n; A transfer's day is the {frame.by} one.\n\n"
            "decimal-mark .\n"
        )
        for code in sorted(frame.assets):
            places = "0" * frame.assets[code].scale
            yield f'commodity 1.{places} "{code}"\n'
        yield "\n"
        declared: dict[str, ExportAccount] = {}
        for number, account in frame.accounts.items():
            declared.setdefault(self._names[number], account)
        for name, account in sorted(declared.items()):
            root = beancount_account(account.path, account.side).partition(":")[0]
            yield f"account {name}  ; type:{_TYPES[root]}\n"
        for root in (HOLD_DEBITS, HOLD_CREDITS):
            yield from (f"account {root}{name}\n" for name in sorted(declared))
        yield "\n"

    def transfer(self, item: ExportTransfer) -> str:
        """Return a transaction."""
        day = self._days.note(item)
        status = "!" if item.kind is Kind.PENDING else "*"
        tags = ", ".join(f"{name}:{value}" for name, value in _tags(item))
        lines = [f"{day} {status} ({item.sequence}) {percent(item.code)}", f"    ; {tags}"]
        if item.kind not in {Kind.PENDING, Kind.VOID, Kind.EXPIRE}:
            lines.append(self._posting(item.debit, "", item.amount))
            lines.append(self._posting(item.credit, "", -item.amount))
        if item.pending_id is not None or item.kind is Kind.PENDING:
            lines.append(self._posting(item.debit, HOLD_DEBITS, item.reserved))
            lines.append(self._posting(item.credit, HOLD_CREDITS, -item.reserved))
        return "\n".join(lines) + "\n\n"

    def _posting(self, account: ExportAccount, hold: str, units: int) -> str:
        name = self._names[account.number]
        if hold:
            self._held_accounts.add((hold, account.number))
            name = f"[{hold}{name}]"
        return f"    {name}  {self._amount(account, units)}"

    def _amount(self, account: ExportAccount, units: int) -> str:
        return f'{exact(units, self._frame.assets[account.asset].scale)} "{account.asset}"'

    def event(self, item: ExportEvent) -> str:
        """Return a comment: hledger has nothing that an account or a period could undergo."""
        subject = f"{item.account.path} {item.account.asset} " if item.account else "period "
        words = percent(f"{subject}{item.kind} {item.detail}".strip(), _VALUE_SAFE)
        reason = percent(item.reason, _VALUE_SAFE)
        return f"; {item.recorded_at.date()} ({item.sequence}) {words}: {reason}\n\n"

    def tail(self) -> Iterator[str]:
        """Return what the accounts, and the holds on them, come to."""
        if self._days.last is None:
            return
        yield f"{self._days.after()} * closing balances\n"
        for number, account in sorted(self._frame.accounts.items(), key=self._order):
            totals = self._frame.totals[number]
            yield self._assertion(account, self._names[number], totals.net)
            for hold, units in (
                (HOLD_DEBITS, totals.debits_pending),
                (HOLD_CREDITS, -totals.credits_pending),
            ):
                if (hold, number) in self._held_accounts:
                    yield self._assertion(account, f"[{hold}{self._names[number]}]", units)

    def _order(self, item: tuple[int, ExportAccount]) -> tuple[str, str]:
        return item[1].path, item[1].asset

    def _assertion(self, account: ExportAccount, name: str, units: int) -> str:
        return f"    {name}  {self._amount(account, 0)} = {self._amount(account, units)}\n"


def _tags(item: ExportTransfer) -> Iterator[tuple[str, str]]:
    texts = (
        ("id", str(item.id)),
        ("kind", item.kind.name.lower()),
        ("flags", item.flag_words),
        ("pending", str(item.pending_id or "")),
        ("reverses", str(item.reverses or "")),
        ("purpose", item.purpose),
        ("timeout-us", "" if item.timeout_us is None else str(item.timeout_us)),
        ("reference", item.reference),
        ("correlation", str(item.correlation or "")),
        ("recorded", stamp(item.recorded_at)),
        ("effective", stamp(item.effective_at) if item.effective_at else ""),
        ("metadata", item.metadata),
    )
    for name, text in texts:
        if text:
            yield name, _value(text)


def _value(text: str) -> str:
    """Return *text* as the value of a tag; hledger drops blanks around one."""
    encoded = percent(text, _VALUE_SAFE)
    inner = encoded.strip(" ")
    before = len(encoded) - len(encoded.lstrip(" "))
    after = len(encoded) - before - len(inner)
    return "%20" * before + inner + "%20" * after
