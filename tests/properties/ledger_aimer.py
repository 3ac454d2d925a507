"""Makes requests of every kind for a book as the reference has it, good ones and bad ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Final

from tests.properties.ledger_reference import Book
from tests.properties.ledger_words import (
    ALL,
    AMOUNT_MAX,
    DAY_US,
    MOVES,
    Ask,
    Done,
    Hold,
    Spec,
)

START_US: Final = 20_458 * DAY_US + 9 * DAY_US // 24
"""2026-01-05, nine o'clock."""
OLD_US: Final = START_US - 40 * DAY_US
MID_US: Final = START_US - 20 * DAY_US

FREE: Final = ("custody:w", "suspense:x")
GUARDED: Final = ("client:a", "client:b")
CAPPED: Final = "bank:capped"
ORDINARY: Final = (*FREE, *GUARDED, CAPPED)
OLD: Final = ("custody:old", "suspense:old", "client:old")
MID: Final = ("custody:mid", "suspense:mid")
FULL: Final = ("custody:full", "suspense:full")
HELD: Final = ("custody:held", "suspense:held")
GHOST: Final = "client:ghost"

SPECS: Final = (
    *(Spec(path, side="debit") for path in ("custody:w", "custody:full", "custody:held")),
    *(Spec(path) for path in ("suspense:x", "suspense:full", "suspense:held")),
    *(Spec(path, guard="debits", owner=path) for path in GUARDED),
    Spec(CAPPED, side="debit", guard="credits", purpose="capped"),
    *(Spec(path, side="debit", since=OLD_US) for path in OLD[:1]),
    Spec("suspense:old", since=OLD_US),
    Spec("client:old", guard="debits", since=OLD_US),
    Spec("custody:mid", side="debit", since=MID_US),
    Spec("suspense:mid", since=MID_US),
    Spec("custody:w", "Y", side="debit"),
    Spec("client:a", "Y", guard="debits", owner="client:a", metadata=(("tier", 2),)),
)

FUNDING: Final = (
    *(Ask(10 + n, "single", "custody:w", path, "X", 40) for n, path in enumerate(GUARDED)),
    Ask(12, "single", CAPPED, "suspense:x", "X", 30),
    Ask(13, "single", "custody:w", "client:a", "Y", 20),
    Ask(14, "single", *FULL, "X", AMOUNT_MAX),
    Ask(15, "pending", *HELD, "X", AMOUNT_MAX),
)

UNITS: Final = (1, 1, 10**6, 10**18, 2**120)
"""Amounts come in bands: what fits a small integer, a bigint, and what does not."""


class Aimer:
    """Makes requests for one batch.

    Args:
        book: as it stands before the batch; what the batch itself does is not foreseen.
        chance: decides everything that an aim leaves open.
        first_id: ids from here on are free.
        importing: the batch is history.
    """

    def __init__(self, book: Book, chance: Random, first_id: int, *, importing: bool) -> None:
        self.book = book
        self.chance = chance
        self.next_id = first_id
        self.importing = importing

    def finished(self, asks: list[Ask]) -> list[Ask]:
        """Return requests as this batch can have them."""
        asks = [possible(ask) for ask in asks]
        return [self.as_history(ask) for ask in asks] if self.importing else asks

    def as_history(self, ask: Ask) -> Ask:
        """Let a request come from before the cut-over, unless it says itself when it was."""
        if "imported" in ask.flags or "wrong" in ask.flags:
            return replace(ask, flags=ask.flags - {"wrong"})
        return replace(ask, flags=ask.flags | {"imported"}, effective=self.then())

    def then(self) -> int:
        """A time that the next imported transfer may have."""
        through = self.book.imported_through or OLD_US
        if self.book.closed_through is not None:
            through = max(through, (self.book.closed_through + 1) * DAY_US)
        return min(self.book.now, through + self.chance.randint(0, DAY_US // 8))

    def fresh(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def path(self) -> str:
        if self.importing:
            return self.chance.choice([*OLD, *OLD, *MID])
        return self.chance.choice([*ORDINARY, *ORDINARY, *OLD])

    def two(self) -> tuple[str, str]:
        debit = self.path()
        credit = self.path()
        while credit == debit:
            credit = self.path()
        return debit, credit

    def usable(self, *paths: str) -> str:
        """The first of these accounts that takes something new; the first one where none does."""
        accounts = ((path, self.book.accounts[path, "X"]) for path in paths)
        return next((path for path, a in accounts if not a.closed and not a.frozen), paths[0])

    def source(self) -> str:
        return self.usable("custody:w", "custody:old", "custody:mid")

    def target(self) -> str:
        return self.usable("suspense:x", "suspense:old", "suspense:mid")

    def amount(self) -> int:
        return self.chance.choice([0, 1, 2, 3, 5, 8]) * self.chance.choice(UNITS)

    def move(self, kind: str = "single", **changes: Any) -> Ask:
        debit, credit = self.two()
        ask = Ask(self.fresh(), kind, debit, credit, "X", self.amount())
        if self.chance.random() < 0.3:
            ask = self.dressed(ask)
        if kind == "pending" and self.chance.random() < 0.3 and not self.importing:
            ask = replace(ask, timeout=self.chance.choice([0, 1_000_000, 3_000_000]))
        return replace(ask, **changes)

    def plain(self) -> Ask:
        """A transfer that says nothing beside, or one that was asked for lately."""
        kind = self.chance.choice(["single", "single", "pending"])
        lately = [done.ask for done in list(self.book.done.values())[-9:]]
        if lately and self.chance.random() < 0.1:
            return replace(self.chance.choice(lately), linked=False)
        debit, credit = self.two()
        return Ask(self.fresh(), kind, debit, credit, "X", self.chance.randint(0, 3))

    def dressed(self, ask: Ask) -> Ask:
        """Give a request everything that a caller may say beside."""
        effective = self.book.now - self.chance.randint(0, 3) * DAY_US
        return replace(
            ask,
            reference=f"r-{self.chance.randint(1, 3)}",
            correlation=self.chance.randint(1, 3),
            metadata=(("n", self.chance.randint(1, 3)),),
            purpose="payout" if ask.kind == "pending" else "",
            effective=self.chance.choice([None, effective]),
        )

    def some_hold(self, state: str = "open") -> Hold | None:
        found = [hold for hold in self.book.holds.values() if hold.state == state]
        ordinary = [hold for hold in found if hold.debit[0] not in HELD]
        return self.chance.choice(ordinary) if ordinary else None

    def resolving(self, kind: str, state: str = "open", **changes: Any) -> Ask:
        """Post or void a hold of that state; make one where there is none."""
        hold = self.some_hold(state)
        if hold is None:
            return self.move("pending")
        ask = Ask(self.fresh(), kind, pending_id=hold.id, amount=ALL)
        part = self.chance.choice([ALL, ALL, hold.amount, hold.amount // 2])
        return replace(ask, **{"amount": part if kind == "post" else ALL, **changes})

    def some_done(self, *kinds: str) -> Done | None:
        found = [
            done
            for done in self.book.done.values()
            if (done.ask.kind in kinds or not kinds)
            and done.debit[0] not in FULL
            and ("imported" in done.ask.flags) == self.importing
        ]
        return self.chance.choice(found) if found else None

    def resolved_already(self, how: str) -> list[Ask]:
        """Resolve a hold that has been posted, voided or expired; make it so where none has."""
        kind = self.chance.choice(["post", "void"])
        if self.some_hold(how) is not None:
            return [self.resolving(kind, how, amount=0)]
        hold = self.move("pending", timeout=0 if how == "expired" else None, amount=0)
        late = Ask(self.fresh(), kind, pending_id=hold.id, amount=0)
        if how == "expired":
            return [hold, late]
        first = Ask(self.fresh(), "post" if how == "posted" else "void", pending_id=hold.id)
        return [hold, first, late]

    def reversed_already(self) -> list[Ask]:
        """Reverse what has been reversed; make it so where nothing has."""
        if self.book.undone:
            return [self.reversing(undone=True)]
        move = self.move(amount=0)
        again = [Ask(self.fresh(), "reversal", reverses=move.id, amount=ALL) for _ in range(2)]
        return [move, *again]

    def reversing(self, *, undone: bool = False, **changes: Any) -> Ask:
        """Reverse what has not been reversed, or has been."""
        found = [
            done
            for done in self.book.done.values()
            if done.ask.kind in {"single", "post"} and (done.ask.id in self.book.undone) == undone
        ]
        ordinary = [done for done in found if done.debit[0] not in FULL]
        if not ordinary:
            return self.move()
        there = self.chance.choice(ordinary)
        ask = Ask(self.fresh(), "reversal", reverses=there.ask.id, amount=ALL)
        if self.chance.random() < 0.3 and not self.importing:
            ask = replace(ask, flags=frozenset({"at_original"}))
        return replace(ask, **changes)

    def again(self, *kinds: str, **changes: Any) -> Ask:
        """Ask once more for what is recorded, with some of it changed."""
        done = self.some_done(*kinds)
        if done is None:
            return self.move()
        ask = replace(done.ask, linked=False)
        if self.importing:
            changes["flags"] = changes.get("flags", ask.flags) | {"wrong"}
        return replace(ask, **changes)

    def again_differently(self, **changes: Callable[[Done], Any]) -> Ask:
        """The same with changes that depend on what is recorded."""
        done = self.some_done()
        if done is None:
            return self.move()
        ask = replace(done.ask, linked=False)
        made = {name: change(done) for name, change in changes.items()}
        flags = made.pop("flags", ask.flags) | ({"wrong"} if self.importing else set())
        return replace(ask, flags=frozenset(flags), **made)

    def overdraw(self) -> Ask:
        guarded = self.chance.sample(GUARDED, 2)
        debit = "client:old" if self.importing else self.usable(*guarded)
        account = self.book.accounts[debit, "X"]
        above = account.c + account.limit - account.d - account.dp + self.chance.randint(1, 2)
        credit = "suspense:old" if self.importing else self.target()
        return self.move(debit=debit, credit=credit, amount=max(1, above), effective=None)

    def overcredit(self) -> Ask:
        account = self.book.accounts[CAPPED, "X"]
        above = account.d + account.limit - account.c - account.cp + self.chance.randint(1, 2)
        return self.move(debit=self.target(), credit=CAPPED, amount=max(1, above), effective=None)

    def balancing(self) -> Ask:
        side = self.chance.choice(["balancing_debit", "balancing_credit"])
        both = frozenset({"balancing_debit", "balancing_credit"})
        flags = self.chance.choice([frozenset({side}), frozenset({side}), both])
        amount = self.chance.choice([ALL, self.amount()])
        return self.move(self.chance.choice(["single", "pending"]), flags=flags, amount=amount)

    def closing(self) -> Ask:
        side = self.chance.choice(["closing_debit", "closing_credit"])
        return self.move("pending", flags=frozenset({side}), amount=0)

    def any_good(self) -> Ask:
        makers: list[Callable[[], Ask]] = [
            self.move,
            lambda: self.move(debit="custody:w", credit=self.chance.choice(GUARDED)),
            lambda: self.move("pending"),
            lambda: self.move("pending"),
            lambda: self.resolving("post"),
            lambda: self.resolving("void"),
            self.reversing,
            self.balancing,
        ]
        return self.chance.choice(makers)()

    def barred(self, side: str, state: str) -> list[Ask]:
        """A transfer that touches an account that is frozen or closed; close one if none is."""
        found = [key[0] for key, acc in self.book.accounts.items() if getattr(acc, state)]
        other = "suspense:old" if self.importing else "suspense:x"
        if not found:
            return [self.closing(), self.move()]
        path = self.chance.choice(found)
        pair = (path, other) if side == "debit" else (other, path)
        if pair[0] == pair[1]:
            return [self.any_good()]
        return [self.move(debit=pair[0], credit=pair[1], amount=0, effective=None)]

    def full(self, kind: str, side: str, paths: tuple[str, str], **changes: Any) -> list[Ask]:
        """One unit more than the column of an account that is full can take."""
        debit = paths[0] if side == "debits" else self.source()
        credit = paths[1] if side == "credits" else self.target()
        return [Ask(self.fresh(), kind, debit, credit, "X", 1, **changes)]

    def history(self, **changes: Any) -> list[Ask]:
        """An imported transfer that says itself when it was."""
        debit, credit = self.chance.sample(OLD, 2)
        flags, then = frozenset({"imported"}), self.then()
        ask = self.move(flags=flags, effective=then, timeout=None, debit=debit, credit=credit)
        return [replace(ask, **changes)]

    def too_new(self, side: str) -> list[Ask]:
        """History of an account that did not exist yet."""
        new, old = "custody:w", "suspense:old"
        pair = (new, old) if side == "debit" else (old, new)
        return self.history(debit=pair[0], credit=pair[1])

    def in_closed_period(self) -> list[Ask]:
        through = self.book.closed_through
        day = START_US // DAY_US - 1 if through is None else through
        ask = self.move(effective=day * DAY_US + self.chance.randint(0, DAY_US - 1))
        return [self.chance.choice([ask, self.reversing(flags=frozenset({"at_original"}))])]

    def failing_chain(self) -> list[Ask]:
        """A chain of which one member cannot be."""
        members = [self.any_good() for _ in range(self.chance.randint(1, 3))]
        members.insert(self.chance.randint(0, len(members)), self.overdraw())
        return [replace(ask, linked=True) for ask in members[:-1]] + members[-1:]

    def spent(self) -> list[Ask]:
        """An id that a transient refusal has spent."""
        if not self.book.failed:
            return [self.overdraw()]
        return [self.move(id=self.chance.choice(sorted(self.book.failed)))]


def possible(ask: Ask) -> Ask:
    """Ask for a number where "all of it" is no request that a book could understand."""
    balancing = ask.flags & {"balancing_debit", "balancing_credit"}
    if ask.amount == ALL and ask.kind in MOVES and not balancing:
        return replace(ask, amount=1)
    return ask
