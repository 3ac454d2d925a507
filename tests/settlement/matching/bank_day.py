"""A desk with an account at a bank, a party that pays through it, and the verbs of matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from banks.simulator.bank import Bank
from custody.banks.entry_model import BankReceipt, BankReceiptKind
from custody.banks.importing import import_file
from custody.banks.receipts import list_bank_receipts
from kernel.ids import derive_id
from kernel.money import Asset
from ledger.accounts import ensure_accounts
from ledger.model import transfer
from ledger.posting import post, require_applied
from ledger.queries import trial_balance
from registry.model import BankAccount
from registry.testing import ENTITY, change, operator_keypair
from settlement.cycles import open_cycle
from settlement.import_model import ImportedObligation
from settlement.imports import import_obligations
from settlement.matching.by_hand import (
    Share,
    match_by_hand,
    match_bytes,
    unmatch,
    unmatch_bytes,
)
from settlement.matching.model import Incoming, Match
from settlement.matching.posting import list_matchable, match_receipts
from settlement.matching.references import reference_of
from settlement.matching.rules import get_rules, rules_bytes, set_rules
from settlement.matching.rules_document import rules_of
from settlement.matching.store import list_matches
from settlement.model import Direction, Instruction, Run
from settlement.store import list_cycle_runs
from tests.settlement.desk import BOOK, DAY, Desk

IBAN = "DE89370400440532013000"
PAYER = "DE75512108001245126199"
EUR = Asset("EUR", 2)


@dataclass
class BankDay:
    """The desk, and the bank next to it."""

    desk: Desk
    bank: Bank = field(default_factory=lambda: Bank(DAY))
    salt: int = 0

    async def open(self) -> BankDay:
        account = BankAccount("desk-eur", "Sim", IBAN, "SIMBDEFF", "EUR", "house", ENTITY.code)
        now = self.desk.now

        async def register(conn: AsyncConnection) -> None:
            for record in (EUR, account):
                await change(conn, record, now=now)

        await self.desk.do(register)
        self.bank.execute({"verb": "account", "iban": IBAN, "currency": "EUR"})
        return self

    async def owed(
        self, *amounts: int, party: str = "acme", direction: Direction = Direction.RECEIVE
    ) -> None:
        """Claims of so many cents each, due today."""
        self.salt += 1
        claim = "receivable" if direction is Direction.RECEIVE else "payable"
        path = f"{claim}:{party}:open"
        sides = (path, "equity:opening") if claim == "receivable" else ("equity:opening", path)
        opening = transfer(
            derive_id(self.desk.now, "opening", self.salt), *sides, sum(amounts), "EUR", code="test"
        )
        rows = [
            ImportedObligation(
                key=f"{self.salt}/{number}",
                party=party,
                direction=direction,
                asset="EUR",
                amount=amount,
                value_date=DAY,
            )
            for number, amount in enumerate(amounts)
        ]

        async def work(conn: AsyncConnection) -> None:
            keys = {(path, "EUR"), ("equity:opening", "EUR")}
            await ensure_accounts(conn, BOOK, keys, now=self.desk.now)
            require_applied(await post(conn, BOOK, [opening], now=self.desk.now))

        await self.desk.do(work)
        await self.desk.do(
            lambda conn: import_obligations(
                conn, rows, book=BOOK, by="ada", reason="test", now=self.desk.now
            )
        )

    async def awaiting(self, *amounts: int, party: str = "acme") -> tuple[Run, Instruction]:
        """A released run of what a party owes, and its instruction."""
        await self.desk.agree(party)
        await self.owed(*amounts, party=party)
        return await self.released(party)

    async def released(self, party: str = "acme", window: str = "noon") -> tuple[Run, Instruction]:
        """The one run of everything that is due, released."""
        now = self.desk.now
        cycle = await self.desk.do(
            lambda conn: open_cycle(
                conn, book=BOOK, business_date=now.date(), window=window, by="ada", now=now
            )
        )
        (run,) = await self.desk.do(lambda conn: list_cycle_runs(conn, cycle.id))
        await self.desk.affirm_all(run.id)
        await self.desk.seal(run.id)
        return await self.desk.release(run.id), (await self.desk.instructions(run.id))[
            f"{party} EUR"
        ]

    def credit(self, amount: int, text: str = "", **sent: Any) -> None:
        """Somebody pays to the desk's account."""
        values = {"account": IBAN, "amount": amount, "end_to_end": "", "iban": PAYER}
        self.bank.execute({"verb": "credit", **values, "name": "Acme", "remittance": text, **sent})

    def pays(self, item: Instruction, amount: int) -> None:
        """A party pays, and names the instruction."""
        self.credit(amount, reference_of(item.id))

    async def end_of_day(self) -> None:
        """The bank's statement comes in."""
        names: list[str] = self.bank.execute({"verb": "end-of-day", "days": 1})
        self.desk.clock.advance(timedelta(days=1))
        files = {name: self.bank.files[name] for name in names}

        async def take_in(conn: AsyncConnection) -> None:
            for name, raw in files.items():
                await import_file(conn, raw, name=name, now=self.desk.now)

        await self.desk.do(take_in)

    async def match(self) -> list[Match]:
        return await self.desk.do(lambda conn: match_receipts(conn, book=BOOK, now=self.desk.now))

    async def waiting(self) -> list[Incoming]:
        return await self.desk.do(lambda conn: list_matchable(conn, BOOK, by_people=True))

    async def receipts(self) -> list[BankReceipt]:
        kinds = tuple(BankReceiptKind)
        return await self.desk.do(lambda conn: list_bank_receipts(conn, BOOK, kinds=kinds))

    async def by_hand(
        self, receipt: Incoming, *shares: Share, by: str = "dan", second: str = "ada"
    ) -> list[Match]:
        payload = match_bytes(receipt, shares, "seen")
        return await self.desk.do(
            lambda conn: match_by_hand(
                conn,
                receipt.id,
                shares,
                book=BOOK,
                by=self.desk.operators[by],
                second=self.desk.operators[second],
                signature=operator_keypair(second).sign(payload),
                reason="seen",
                now=self.desk.now,
            )
        )

    async def unmatch(
        self, receipt_id: UUID, *, by: str = "dan", second: str = "ada"
    ) -> list[Instruction]:
        known = await self.desk.do(lambda conn: list_matches(conn, receipts={receipt_id}))
        payload = unmatch_bytes(receipt_id, [match.id for match in known], "wrong one")
        return await self.desk.do(
            lambda conn: unmatch(
                conn,
                receipt_id,
                book=BOOK,
                by=self.desk.operators[by],
                second=self.desk.operators[second],
                signature=operator_keypair(second).sign(payload),
                reason="wrong one",
                now=self.desk.now,
            )
        )

    async def rules(self, document: object, *, by: str = "ada", second: str = "cleo") -> int:
        async def work(conn: AsyncConnection) -> int:
            rules = rules_of(document, (await get_rules(conn)).version + 1)
            made = await set_rules(
                conn,
                rules,
                by=self.desk.operators[by],
                second=self.desk.operators[second],
                signature=operator_keypair(second).sign(rules_bytes(rules, "agreed")),
                reason="agreed",
                now=self.desk.now,
            )
            return made.version

        return await self.desk.do(work)

    async def cents(self, *prefixes: str) -> dict[str, int]:
        """What each account in euros stands at, those that are even left out."""
        rows = await self.desk.do(lambda conn: trial_balance(conn, BOOK))
        return {
            row.path: row.balance
            for row in rows
            if row.asset == "EUR" and row.balance and row.path.startswith(prefixes or ("",))
        }


def shares(*pairs: tuple[Instruction, int]) -> Sequence[Share]:
    """Shares of a receipt, in short."""
    return [Share(instruction_id=item.id, amount=amount) for item, amount in pairs]
