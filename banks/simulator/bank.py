"""The bank's core: accounts, orders, days. Pure: commands in, files out, the same every time.

Every command is a mapping of plain JSON values and is done by `Bank.execute`; the server keeps them in a
journal and does them again after a crash. What the bank sends is in `Bank.files`, by name.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Final

from banks.errors import FileUnreadable
from banks.simulator.model import (
    Account,
    DayEnd,
    Fault,
    FaultKind,
    Movement,
    Payment,
    SimulatorError,
)
from banks.simulator.orders import read_orders
from banks.simulator.writing import camt_054, pain_002, statement_bytes
from banks.statement_model import FileFormat

SATURDAY: Final = 5
DAYS_MAX: Final = 366
EXTENSIONS: Final = {FileFormat.MT940: "sta"}
Command = Mapping[str, Any]


class Bank:
    """A bank with accounts; see the module."""

    def __init__(self, today: date) -> None:
        self.today = today
        self.accounts: dict[str, Account] = {}
        self.faults: list[Fault] = []
        self.files: dict[str, bytes] = {}
        self.kept_back: dict[str, bytes] = {}
        self.messages: dict[str, str] = {}
        self._answers: dict[str, str] = {}
        self.paid: Counter[str] = Counter()
        self._waiting: list[Payment] = []
        self._references = 0
        self._verbs: dict[str, Callable[[Command], Any]] = {
            "account": self._open,
            "credit": self._credit,
            "charge": lambda sent: self._other(sent, -1, "CHRG"),
            "interest": lambda sent: self._other(sent, 1, "INTR"),
            "order": self._order,
            "end-of-day": self._end_of_day,
            "fault": self._fault,
            "spend": self._spend,
            "clear-faults": lambda _: self.faults.clear(),
            "deliver": lambda _: self._deliver(),
        }

    def execute(self, command: Command) -> Any:
        """Do a command; return what it answers, in plain values.

        Raises:
            SimulatorError: the command cannot be understood.
        """
        verb = self._verbs.get(str(command.get("verb")))
        if verb is None:
            raise SimulatorError(f"{command.get('verb')!r} is no command of the bank")
        try:
            return verb(command)
        except (KeyError, ValueError, TypeError) as error:
            raise SimulatorError(f"{command.get('verb')}: {error!r}") from error

    def state(self) -> dict[str, Any]:
        """Return the true state: balances, what was paid how often, what waits."""
        return {
            "today": self.today.isoformat(),
            "accounts": [
                {
                    "iban": item.iban,
                    "currency": item.currency,
                    "balance": item.balance,
                    "sequence": item.sequence,
                    "format": item.format,
                }
                for item in self.accounts.values()
            ],
            "paid": dict(self.paid),
            "waiting": [item.end_to_end for item in self._waiting],
            "messages": sorted(self.messages),
            "faults": [{"kind": str(f.kind), "count": f.count} for f in self.faults],
        }

    # Money.

    def _open(self, sent: Command) -> str:
        iban, form = str(sent["iban"]), FileFormat(sent.get("format", FileFormat.CAMT_053_08))
        if iban in self.accounts or form is FileFormat.CAMT_054_08:
            raise SimulatorError(f"{iban} exists, or {form} is no format of statements")
        units = int(sent.get("balance", 0))
        self.accounts[iban] = Account(
            iban, str(sent["currency"]), str(sent.get("owner", "")), str(form), units, units
        )
        return iban

    def _credit(self, sent: Command) -> list[str]:
        account = self.accounts[str(sent["account"])]
        movement = self._movement(
            int(sent["amount"]),
            end_to_end=str(sent.get("end_to_end", "")),
            name=str(sent.get("name", "")),
            iban=str(sent.get("iban", "")),
            remittance=str(sent.get("remittance", "")),
        )
        if movement.amount <= 0:
            raise ValueError("a credit is above zero")
        fault = self._take(lambda kind: kind.is_for_credits)
        return [self._arrive(account, item, fault) for item in self._spoiled(movement, fault)]

    def _spoiled(self, movement: Movement, fault: Fault | None) -> list[Movement]:
        match None if fault is None else fault.kind:
            case FaultKind.SHORT:
                assert fault is not None
                return [replace(movement, amount=max(1, movement.amount - fault.units))]
            case FaultKind.WRONG_REFERENCE:
                return [replace(movement, end_to_end="XX-UNKNOWN", remittance="thank you")]
            case FaultKind.DUPLICATE:
                return [movement, replace(movement, bank_ref=self._reference())]
            case _:
                return [movement]

    def _arrive(self, account: Account, movement: Movement, fault: Fault | None) -> str:
        if fault is not None and fault.kind is FaultKind.LATE:
            account.later.append((self._business_day(fault.days), movement))
            return movement.bank_ref
        self._book(account, movement)
        if fault is not None and fault.kind is FaultKind.REVERSED_CREDIT:
            reversal = replace(
                movement, bank_ref=self._reference(), amount=-movement.amount, reversal=True
            )
            account.later.append((self._business_day(1), reversal))
        return movement.bank_ref

    def _other(self, sent: Command, sign: int, sub_family: str) -> str:
        account = self.accounts[str(sent["account"])]
        movement = self._movement(
            sign * int(sent["amount"]), remittance=str(sent.get("remittance", sub_family))
        )
        self._book(account, replace(movement, domain=("ACMT", "MCOP", sub_family)))
        return movement.bank_ref

    def _book(self, account: Account, movement: Movement) -> None:
        """Book it today, and tell it at once."""
        booked = replace(movement, booking_date=self.today, value_date=self.today)
        account.balance += booked.amount
        account.today.append(booked)
        notice = camt_054(account.iban, account.currency, booked)
        self.files[f"camt054-{booked.bank_ref}.xml"] = notice

    # Orders.

    def _order(self, sent: Command) -> dict[str, str]:
        """Take a payment file; the same one again changes nothing, whatever it is called."""
        raw = bytes.fromhex(str(sent["content"]))
        digest = hashlib.sha256(raw).hexdigest()
        try:
            message, payments = read_orders(raw)
        except FileUnreadable as error:
            return {"status": "unreadable", "why": error.what}
        if message in self.messages:
            same = self.messages[message] == digest
            return {
                "status": "known" if same else "conflict",
                "message": message,
                "report": self._answers[message],
            }
        checked = []
        for item in payments:
            checked.append(self._checked(item))
            # What is promised to one line is not there for the next.
            self._waiting += [found for found in checked[-1:] if not found.reason]
        bad = [item for item in checked if item.reason]
        group = "ACTC" if not bad else ("RJCT" if len(bad) == len(checked) else "PART")
        report = pain_002(message, self.today, group=group, reason="", lines=checked)
        name = f"pain002-{message}.xml"
        self.messages[message], self._answers[message] = digest, name
        self.files[name] = report
        return {"status": "taken", "message": message, "report": name}

    def _checked(self, item: Payment) -> Payment:
        account = self.accounts.get(item.account)
        promised = sum(p.amount for p in self._waiting if p.account == item.account)
        if account is None:
            return replace(item, reason="AC01")
        if account.currency != item.currency:
            return replace(item, reason="AM03")
        if self._take(lambda kind: kind is FaultKind.REFUSED) is not None:
            return replace(item, reason="AC04")
        if account.balance - promised < item.amount:
            return replace(item, reason="AM04")
        return item

    def _pay(self, item: Payment) -> None:
        account = self.accounts[item.account]
        movement = self._movement(
            -item.amount,
            end_to_end=item.end_to_end,
            name=item.name,
            iban=item.iban,
            remittance=item.remittance,
        )
        self._book(account, replace(movement, domain=("PMNT", "ICDT", "ESCT")))
        self.paid[item.end_to_end] += 1
        if self._take(lambda kind: kind is FaultKind.RETURNED) is not None:
            back = replace(
                movement, bank_ref=self._reference(), amount=item.amount, return_reason="AC04"
            )
            account.later.append((self._business_day(1), back))
        other = self.accounts.get(item.iban)
        if other is not None and other.currency == item.currency:
            credit = replace(movement, bank_ref=self._reference(), amount=item.amount)
            self._book(other, replace(credit, name=account.owner, iban=account.iban))

    # Days.

    def _end_of_day(self, sent: Command) -> list[str]:
        """End days: pay what is due, book what was late, send statements; return their names."""
        days = int(sent.get("days", 1))
        if not 0 < days <= DAYS_MAX:
            raise ValueError(f"a bank ends 1 to {DAYS_MAX} days at once")
        sent_files: list[str] = []
        for _ in range(days):
            due = [item for item in self._waiting if item.day <= self.today]
            self._waiting = [item for item in self._waiting if item.day > self.today]
            for item in due:
                self._pay(item)
            for account in self.accounts.values():
                self._book_late(account)
                sent_files += self._state(account)
            self.today = self._business_day(1)
        return sent_files

    def _book_late(self, account: Account) -> None:
        due = [movement for day, movement in account.later if day <= self.today]
        account.later = [item for item in account.later if item[0] > self.today]
        for movement in due:
            self._book(account, movement)

    def _state(self, account: Account) -> list[str]:
        account.sequence += 1
        end = DayEnd(
            iban=account.iban,
            currency=account.currency,
            owner=account.owner,
            sequence=account.sequence,
            day=self.today,
            opening=account.opening,
            closing=account.balance,
            movements=tuple(account.today),
        )
        account.opening, account.today = account.balance, []
        stem = f"statement-{account.iban}-{self.today:%Y%m%d}"
        ending = EXTENSIONS.get(FileFormat(account.format), "xml")
        raw = statement_bytes(end, account.format)
        return self._send(stem, ending, raw)

    def _send(self, stem: str, ending: str, raw: bytes) -> list[str]:
        fault = self._take(lambda kind: kind.is_for_statements)
        name = f"{stem}.{ending}"
        match None if fault is None else fault.kind:
            case FaultKind.GAP:
                self.kept_back[name] = raw
                return []
            case FaultKind.DUPLICATE_STATEMENT:
                self.files[f"{stem}-copy.{ending}"] = raw
            case FaultKind.TRUNCATED_STATEMENT:
                self.kept_back[f"{stem}-again.{ending}"] = raw
                raw = raw[: len(raw) // 2]
            case FaultKind.BAD_XML:
                self.kept_back[f"{stem}-again.{ending}"] = raw
                raw = _with_entity(raw)
            case _:
                pass
        self.files[name] = raw
        return [name]

    def _deliver(self) -> list[str]:
        """Send what was kept back."""
        names = sorted(self.kept_back)
        self.files |= self.kept_back
        self.kept_back = {}
        return names

    # Faults.

    def _fault(self, sent: Command) -> None:
        values = {
            name: sent[name]
            for name in ("count", "skip", "units", "days", "seconds")
            if name in sent
        }
        self.faults.append(Fault(FaultKind(sent["kind"]), **values))

    def _spend(self, _: Command) -> tuple[str, int] | None:
        """Spend a fault on a request: its kind, and how many milliseconds it lasts."""
        fault = self._take(lambda kind: kind.is_for_requests)
        return None if fault is None else (str(fault.kind), int(fault.seconds * 1_000))

    def _take(self, fits: Callable[[FaultKind], bool]) -> Fault | None:
        for fault in self.faults:
            if not fits(fault.kind):
                continue
            if fault.skip:
                fault.skip -= 1
                return None
            fault.count -= 1
            if fault.count <= 0:
                self.faults.remove(fault)
            return fault
        return None

    def _movement(
        self,
        amount: int,
        *,
        end_to_end: str = "",
        name: str = "",
        iban: str = "",
        remittance: str = "",
    ) -> Movement:
        return Movement(
            bank_ref=self._reference(),
            amount=amount,
            booking_date=self.today,
            value_date=self.today,
            end_to_end=end_to_end,
            name=name,
            iban=iban,
            remittance=remittance,
        )

    def _reference(self) -> str:
        self._references += 1
        return f"BK{self._references:010}"

    def _business_day(self, days: int) -> date:
        """Return the day that is so many working days on; Saturdays and Sundays are none."""
        day = self.today
        while days:
            day += timedelta(days=1)
            days -= day.weekday() < SATURDAY
        return day


def _with_entity(raw: bytes) -> bytes:
    """Return a statement that asks its reader for a file (XML external entity)."""
    head, _, body = raw.partition(b"?>\n")
    entity = b'<!DOCTYPE Document [<!ENTITY x SYSTEM "file:///etc/hostname">]>\n'
    return head + b"?>\n" + entity + body.replace(b"<MsgId>", b"<MsgId>&x;", 1)
