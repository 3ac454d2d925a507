"""What a ledger does, said once more, slowly: dicts and ints, copy everything, keep or throw away.

Written from the vocabulary and its precedence alone. It imports nothing of the ledger, so that
where the two agree they agree about the rules and not about a mistake that they share.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tests.properties.ledger_words import (
    ALL,
    AMOUNT_MAX,
    DAY_US,
    EXPIRIES_MAX,
    INHERITS,
    MOVES,
    TIME_MAX_US,
    TRANSIENT,
    Account,
    Answer,
    Ask,
    Done,
    Hold,
    Key,
    Spec,
)


@dataclass(slots=True)
class Book:
    """A book, and what it would answer."""

    now: int
    length: int = 0
    accounts: dict[Key, Account] = field(default_factory=dict)
    done: dict[int, Done] = field(default_factory=dict)
    failed: dict[int, tuple[str, int]] = field(default_factory=dict)
    holds: dict[int, Hold] = field(default_factory=dict)
    undone: set[int] = field(default_factory=set)
    elsewhen: list[tuple[Key, int, int, int]] = field(default_factory=list)
    """Posted movements effective on another day: account, day, debits, credits."""
    closed_through: int | None = None
    imported_through: int | None = None
    importing: bool = False
    expired: int = 0

    def open(self, spec: Spec) -> str:
        """Open an account, or say how it differs from the one that is there."""
        key = (spec.path, spec.asset)
        there = self.accounts.get(key)
        if spec.guard == "both":
            return "flags_are_mutually_exclusive"
        if there is None:
            self.length += 1
            opened = self.now if spec.since is None else spec.since
            self.accounts[key] = Account(spec, self.length, opened)
            return "created"
        for word in ("side", "guard", "owner", "purpose", "metadata", "since"):
            if getattr(spec, word) != getattr(there.spec, word):
                name = {"guard": "flags", "since": "effective_time"}.get(word, word)
                return f"exists_with_different_{name}"
        return "exists"

    def freeze(self, key: Key, *, frozen: bool) -> None:
        """Freeze an account or end that."""
        if self.accounts[key].frozen != frozen:
            self.accounts[key].frozen = frozen
            self.length += 1

    def limit(self, key: Key, limit: int) -> bool:
        """Set a credit limit; False where more than that is in use."""
        account = self.accounts[key]
        if limit == account.limit:
            return True
        used = 0
        if account.spec.guard == "debits":
            used = account.dp + account.d - account.c
        if account.spec.guard == "credits":
            used = account.cp + account.c - account.d
        if used > limit:
            return False
        account.limit = limit
        self.length += 1
        return True

    def close_period(self, day: int) -> bool:
        """Close all days up to one that is over; False where that cannot be."""
        if day >= self.now // DAY_US:
            return False
        if self.closed_through is not None and day <= self.closed_through:
            return False
        self.closed_through = day
        self.length += 1
        return True

    def reopen_period(self, day: int) -> bool:
        """Open the days after *day* again; False where they are not closed."""
        if self.closed_through is None or day >= self.closed_through:
            return False
        self.closed_through = day
        self.length += 1
        return True

    def batch(self, asks: list[Ask]) -> list[Answer]:
        """Answer a batch, after releasing what is due."""
        due = [hold for hold in self.holds.values() if self.is_due(hold)]
        due.sort(key=lambda hold: (hold.until, hold.sequence))
        self.expired = 0
        for hold in due[:EXPIRIES_MAX]:
            self.length += 1
            self.expired += 1
            self.release(hold, "expired")
        self.importing = bool(asks) and "imported" in asks[0].flags
        said: list[Answer] = []
        start = 0
        while start < len(asks):
            end = start
            while end < len(asks) and asks[end].linked:
                end += 1
            is_open = end == len(asks)
            members = asks[start : end + 1]
            said += (
                self.chain(members, is_open=is_open) if end > start else [self.alone(members[0])]
            )
            start = end + 1
        return said

    def alone(self, ask: Ask) -> Answer:
        return self.told(ask, self.one(ask))

    def chain(self, members: list[Ask], *, is_open: bool) -> list[Answer]:
        """All or none; a chain that is recorded already is answered one by one."""
        if not is_open and all(ask.id in self.done for ask in members):
            return [self.alone(ask) for ask in members]
        before = self.copied()
        said: list[Answer] = []
        for place, ask in enumerate(members):
            if is_open and place == len(members) - 1:
                outcome = "linked_event_chain_open"
            else:
                outcome = self.one(ask)
            if outcome == "created":
                said.append(self.told(ask, outcome))
                continue
            self.become(before)
            if outcome == "exists" and ask.id not in self.done:
                outcome = "linked_event_failed"  # made by this very chain, and undone
            said = [Answer("linked_event_failed") for _ in members]
            said[place] = self.told(ask, outcome)
            if is_open:
                said[-1] = Answer("linked_event_chain_open")
            return said
        return said

    def copied(self) -> dict[str, Any]:
        """Everything that a chain may change."""
        return {
            "length": self.length,
            "accounts": {key: replace(account) for key, account in self.accounts.items()},
            "done": dict(self.done),
            "failed": dict(self.failed),
            "holds": dict(self.holds),
            "undone": set(self.undone),
            "elsewhen": list(self.elsewhen),
            "imported_through": self.imported_through,
        }

    def become(self, before: dict[str, Any]) -> None:
        for name, value in before.items():
            setattr(self, name, value)

    def told(self, ask: Ask, outcome: str) -> Answer:
        """Complete an answer, and spend the id where it is due."""
        if outcome == "created":
            return Answer(outcome, self.done[ask.id].sequence, self.done[ask.id].amount)
        if outcome == "exists":
            there = self.done[ask.id]
            return Answer(outcome, there.sequence, there.amount, replayed=True)
        if outcome == "id_already_failed":
            first, sequence = self.failed[ask.id]
            return Answer(outcome, sequence, first=first, replayed=True)
        if outcome in TRANSIENT:
            self.length += 1
            self.failed[ask.id] = (outcome, self.length)
            return Answer(outcome, self.length)
        return Answer(outcome)

    def one(self, ask: Ask) -> str:
        """Say what comes of one request, and do it if that is ``created``."""
        out_of_place = self.out_of_place(ask)
        if out_of_place:
            return out_of_place
        if ask.id in self.done:
            return self.same(ask, self.done[ask.id])
        if ask.id in self.failed:
            return "id_already_failed"
        wrong = self.form(ask)
        if wrong:
            return wrong
        if ask.kind in MOVES:
            return self.move(ask)
        return self.undo(ask) if ask.kind == "reversal" else self.resolve(ask)

    def out_of_place(self, ask: Ask) -> str:
        """Name what keeps a request from being looked up at all, or nothing."""
        imported, effective = "imported" in ask.flags, ask.effective
        faults = (
            (self.importing and not imported, "imported_event_expected"),
            (imported and not self.importing, "imported_event_not_expected"),
            (imported and effective is None, "imported_event_timestamp_out_of_range"),
            (
                imported and effective is not None and effective > self.now,
                "imported_event_timestamp_must_not_advance",
            ),
            (ask.kind == "expire", "reserved_flag"),
            (ask.id == 0, "id_must_not_be_zero"),
            (f"{ask.id:032x}"[12] == "f", "id_must_not_be_reserved"),
        )
        return next((name for found, name in faults if found), "")

    def same(self, ask: Ask, there: Done) -> str:
        """Name the first field in which a request differs from what is recorded."""
        was = there.ask

        def differs(word: str) -> bool:
            value = getattr(ask, word)
            if word in {"debit", "credit", "asset"} and value == "" and was.kind in INHERITS:
                return False
            if word in {"debit", "credit"}:
                return bool(value != getattr(there, word)[0])
            if word == "asset":
                return bool(value != there.debit[1])
            return bool(value != getattr(was, word))

        first: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("flags", ("kind", "flags")),
            ("pending_id", ("pending_id",)),
            ("reverses", ("reverses",)),
            ("timeout", ("timeout",)),
            ("debit_account_id", ("debit",)),
            ("credit_account_id", ("credit",)),
        )
        last: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("user_data", ("purpose", "effective", "reference", "correlation", "metadata")),
            ("ledger", ("asset",)),
            ("code", ("code",)),
        )
        for name, words in first:
            if any(differs(word) for word in words):
                return f"exists_with_different_{name}"
        if not self.same_amount(ask, there):
            return "exists_with_different_amount"
        for name, words in last:
            if any(differs(word) for word in words):
                return f"exists_with_different_{name}"
        return "exists"

    def same_amount(self, ask: Ask, there: Done) -> bool:
        if there.ask.kind == "post":
            if there.amount == there.held:
                return ask.amount == ALL or ask.amount >= there.amount
            return ask.amount == there.amount
        if there.ask.kind == "void":
            return ask.amount in {ALL, 0, there.amount}
        if there.ask.kind == "reversal":
            return ask.amount in {ALL, there.amount}
        if there.ask.flags & {"balancing_debit", "balancing_credit"}:
            return ask.amount == ALL or ask.amount >= there.amount
        return ask.amount == there.amount

    def form(self, ask: Ask) -> str:
        """Name what is wrong with a request whatever the book holds, or nothing."""
        balancing = ask.flags & {"balancing_debit", "balancing_credit"}
        closing = ask.flags & {"closing_debit", "closing_credit"}
        original = "at_original" in ask.flags
        resolves, reverses = ask.kind in {"post", "void"}, ask.kind == "reversal"
        explicit = ask.effective is not None or "imported" in ask.flags
        faults = (
            ((balancing or closing) and ask.kind not in MOVES, "flags_are_mutually_exclusive"),
            (original and (not reverses or explicit), "flags_are_mutually_exclusive"),
            (ask.kind in MOVES and not ask.debit, "debit_account_id_must_not_be_zero"),
            (ask.kind in MOVES and not ask.credit, "credit_account_id_must_not_be_zero"),
            (ask.debit and ask.debit == ask.credit, "accounts_must_be_different"),
            (not resolves and ask.pending_id is not None, "pending_id_must_be_zero"),
            (resolves and not ask.pending_id, "pending_id_must_not_be_zero"),
            (resolves and ask.pending_id == ask.id, "pending_id_must_be_different"),
            (not reverses and ask.reverses is not None, "reverses_must_be_zero"),
            (reverses and not ask.reverses, "reverses_must_not_be_zero"),
            (reverses and ask.reverses == ask.id, "reverses_must_be_different"),
            (
                ask.timeout is not None and ask.kind != "pending",
                "timeout_reserved_for_pending_transfer",
            ),
            (closing and ask.kind != "pending", "closing_transfer_must_be_pending"),
            (ask.kind in MOVES and not ask.asset, "ledger_must_not_be_zero"),
            (not ask.code, "code_must_not_be_zero"),
        )
        return next((name for found, name in faults if found), "")

    def move(self, ask: Ask) -> str:
        debit, credit = (ask.debit, ask.asset), (ask.credit, ask.asset)
        for side, key in (("debit", debit), ("credit", credit)):
            if key not in self.accounts:
                return f"{side}_account_not_found"
        d, c = self.accounts[debit], self.accounts[credit]
        amount = AMOUNT_MAX if ask.amount == ALL else ask.amount
        if "balancing_debit" in ask.flags:
            amount = max(0, min(amount, d.c - d.d - d.dp))
        if "balancing_credit" in ask.flags:
            amount = max(0, min(amount, c.d - c.c - c.cp))
        wrong = (
            self.mistimed(ask, ask.effective, debit, credit)
            or self.barred(debit, credit)
            or self.beyond(ask, amount, debit, credit)
        )
        if wrong:
            return wrong
        pending = amount if ask.kind == "pending" else 0
        self.record(ask, amount, debit, credit, pending, amount - pending, ask.effective)
        if ask.kind == "pending":
            until = None if ask.timeout is None else self.now + ask.timeout
            sequence = self.length
            self.holds[ask.id] = Hold(ask.id, amount, debit, credit, until, ask.flags, sequence)
            d.closed = d.closed or "closing_debit" in ask.flags
            c.closed = c.closed or "closing_credit" in ask.flags
        return "created"

    def mistimed(self, ask: Ask, effective: int | None, debit: Key, credit: Key) -> str:
        """What an effective time has against it."""
        if effective is None:
            return ""
        if "imported" in ask.flags:
            if self.imported_through is not None and effective < self.imported_through:
                return "imported_event_timestamp_must_not_regress"
            for side, key in (("debit", debit), ("credit", credit)):
                if effective < self.accounts[key].opened:
                    return f"imported_event_timestamp_must_postdate_{side}_account"
            if ask.timeout is not None:
                return "imported_event_timeout_must_be_zero"
        if self.closed_through is not None and effective // DAY_US <= self.closed_through:
            return "effective_period_closed"
        return ""

    def barred(self, debit: Key, credit: Key) -> str:
        """What keeps two accounts from taking anything new."""
        for state, word in (("closed", "already_closed"), ("frozen", "frozen")):
            for side, key in (("debit", debit), ("credit", credit)):
                if getattr(self.accounts[key], state):
                    return f"{side}_account_{word}"
        return ""

    def beyond(self, ask: Ask, amount: int, debit: Key, credit: Key) -> str:
        """What is too much for the columns, for the calendar, or for a guard."""
        d, c = self.accounts[debit], self.accounts[credit]
        pending, posted = (amount, 0) if ask.kind == "pending" else (0, amount)
        sums = (
            ("debits_pending", d.dp + pending),
            ("credits_pending", c.cp + pending),
            ("debits_posted", d.d + posted),
            ("credits_posted", c.c + posted),
            ("debits", d.dp + d.d + amount),
            ("credits", c.cp + c.c + amount),
        )
        for name, value in sums:
            if value > AMOUNT_MAX:
                return f"overflows_{name}"
        if ask.timeout is not None and self.now + ask.timeout > TIME_MAX_US:
            return "overflows_timeout"
        if d.spec.guard == "debits" and d.dp + d.d + amount > d.c + d.limit:
            return "exceeds_credits"
        if c.spec.guard == "credits" and c.cp + c.c + amount > c.d + c.limit:
            return "exceeds_debits"
        return ""

    def record(
        self,
        ask: Ask,
        amount: int,
        debit: Key,
        credit: Key,
        pending: int,
        posted: int,
        effective: int | None,
        held: int = 0,
    ) -> None:
        """Write a transfer and its two entries."""
        self.length += 1
        self.done[ask.id] = Done(ask, self.length, amount, debit, credit, self.now, effective, held)
        if "imported" in ask.flags:
            self.imported_through = ask.effective
        self.enter(debit, credit, pending, posted)
        if effective is not None and posted and effective // DAY_US != self.now // DAY_US:
            self.elsewhen.append((debit, effective // DAY_US, posted, 0))
            self.elsewhen.append((credit, effective // DAY_US, 0, posted))

    def enter(self, debit: Key, credit: Key, pending: int, posted: int) -> None:
        d, c = self.accounts[debit], self.accounts[credit]
        d.dp, d.d, d.entries = d.dp + pending, d.d + posted, d.entries + 1
        c.cp, c.c, c.entries = c.cp + pending, c.c + posted, c.entries + 1

    def is_due(self, hold: Hold) -> bool:
        return hold.state == "open" and hold.until is not None and hold.until <= self.now

    def resolve(self, ask: Ask) -> str:
        """Post or void a hold."""
        assert ask.pending_id is not None
        if ask.pending_id not in self.done:
            return "pending_transfer_not_found"
        if ask.pending_id not in self.holds:
            return "pending_transfer_not_pending"
        hold = self.holds[ask.pending_id]
        posts = ask.kind == "post"
        state = "expired" if self.is_due(hold) else hold.state
        faults = (
            (ask.debit not in {"", hold.debit[0]}, "has_different_debit_account_id"),
            (ask.credit not in {"", hold.credit[0]}, "has_different_credit_account_id"),
            (ask.asset not in {"", hold.debit[1]}, "has_different_ledger"),
            (posts and ask.amount > hold.amount, "exceeds"),
            (not posts and ask.amount not in {ALL, 0, hold.amount}, "has_different_amount"),
            (state == "posted", "already_posted"),
            (state == "voided", "already_voided"),
            (state == "expired", "expired"),
        )
        for found, name in faults:
            if found:
                exceeds = "exceeds_pending_transfer_amount"
                return exceeds if name == "exceeds" else f"pending_transfer_{name}"
        wrong = self.mistimed(ask, ask.effective, hold.debit, hold.credit)
        if wrong:
            return wrong
        for side, key in (("debit", hold.debit), ("credit", hold.credit)):
            if posts and self.accounts[key].closed:
                return f"{side}_account_already_closed"
        amount = ask.amount if posts and ask.amount != ALL else hold.amount
        posted = amount if posts else 0
        self.record(
            ask, amount, hold.debit, hold.credit, 0, posted, ask.effective, held=hold.amount
        )
        self.finish(hold, "posted" if posts else "voided")
        return "created"

    def release(self, hold: Hold, state: str) -> None:
        """Let a hold go whose time is over."""
        self.enter(hold.debit, hold.credit, 0, 0)
        self.finish(hold, state)

    def finish(self, hold: Hold, state: str) -> None:
        """Take a hold out of the pending columns; unless it was posted, accounts open again."""
        d, c = self.accounts[hold.debit], self.accounts[hold.credit]
        d.dp, c.cp = d.dp - hold.amount, c.cp - hold.amount
        self.holds[hold.id] = replace(hold, state=state)
        if state != "posted":
            d.closed = d.closed and "closing_debit" not in hold.flags
            c.closed = c.closed and "closing_credit" not in hold.flags

    def undo(self, ask: Ask) -> str:
        """Reverse a transfer: what was credited is debited."""
        assert ask.reverses is not None
        if ask.reverses not in self.done:
            return "reversed_transfer_not_found"
        there = self.done[ask.reverses]
        debit, credit = there.credit, there.debit
        faults = (
            (there.ask.kind not in {"single", "post"}, "not_reversible"),
            (ask.debit not in {"", debit[0]}, "has_different_debit_account_id"),
            (ask.credit not in {"", credit[0]}, "has_different_credit_account_id"),
            (ask.asset not in {"", debit[1]}, "has_different_ledger"),
            (ask.amount not in {ALL, there.amount}, "has_different_amount"),
            (ask.reverses in self.undone, "already_reversed"),
        )
        for found, name in faults:
            if found:
                return f"reversed_transfer_{name}"
        effective = ask.effective
        if "at_original" in ask.flags:
            effective = there.at if there.effective is None else there.effective
        wrong = (
            self.mistimed(ask, effective, debit, credit)
            or self.barred(debit, credit)
            or self.beyond(ask, there.amount, debit, credit)
        )
        if wrong:
            return wrong
        self.record(ask, there.amount, debit, credit, 0, there.amount, effective)
        self.undone.add(ask.reverses)
        return "created"
