"""A book of random transfers of every kind, in assets of every scale from 0 to 18."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from kernel.db import transact
from kernel.ids import derive_id
from kernel.money import AMOUNT_MAX, Asset
from ledger.accounts import open_accounts, set_credit_limit, set_frozen
from ledger.chart import account_spec
from ledger.model import ALL, Kind, Transfer, chain
from ledger.periods import close_period
from ledger.posting import open_book, post
from ledger.trial import page_trial_balance

BOOK = 1
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
TRANSFERS_MIN = 10_000
BATCH = 500

# Codes that the programs' own syntax has no room for are among them.
CODES = {0: "X", 1: "TRUE", 2: "USD", 3: "STAKED-WRAPPED-LIQUID-POINTS-26", 4: "ABC.", 5: "A-1"}
ASSETS = {
    code: Asset(code, scale) for scale, code in ((n, CODES.get(n, f"T{n}.E")) for n in range(19))
}
WIDE = Asset("SHIB", 18)
WIDEST = Asset("MAX", 18)
DRAWN = (*ASSETS.values(), WIDE)
ASSETS |= {asset.code: asset for asset in (WIDE, WIDEST)}

PATHS = (
    "custody:hot",
    "custody:Cold.1:spare_x",
    "venue:binance/main",
    "bank:CH-main",
    "client:acme",
    "client:acme:held",
    "client:x-ray",
    "client:Zed",
    "payable:acme:netted",
    "in-flight:evm",
    "suspense:dust",
    "conversion:desk",
    "income:fee",
    "expense:network-fee",
    "house:rounding",
    "equity:opening",
    "collateral:taken:acme",
    "collateral:given:acme",
)


@dataclass
class RandomBook:
    """Draws transfers, and remembers which holds and transfers there are to act upon."""

    random: random.Random
    now: datetime = START
    drawn: int = 0

    def __post_init__(self) -> None:
        self.holds: list[Transfer] = []
        self.posted: list[Transfer] = []

    def draw(self) -> Transfer:
        kinds = [Kind.SINGLE, Kind.PENDING, Kind.POST, Kind.VOID, Kind.REVERSAL]
        kind = self.random.choices(kinds, [55, 25, 12, 5, 3])[0]
        if kind in {Kind.POST, Kind.VOID} and self.holds:
            return self._resolve(kind)
        if kind is Kind.REVERSAL and self.posted:
            original = self.posted.pop(self.random.randrange(len(self.posted)))
            return self._made(
                kind=kind,
                reverses=original.id,
                amount=ALL,
                at_original=self.random.random() < 0.5,
            )
        return self._move(Kind.PENDING if kind is Kind.PENDING else Kind.SINGLE)

    def _resolve(self, kind: Kind) -> Transfer:
        hold = self.holds.pop(self.random.randrange(len(self.holds)))
        amount = ALL
        if kind is Kind.POST and self.random.random() < 0.5:
            amount = self.random.choice((0, hold.amount // 2, hold.amount))
        return self._made(kind=kind, pending_id=hold.id, amount=amount)

    def _move(self, kind: Kind) -> Transfer:
        asset = self.random.choice(DRAWN)
        debit, credit = self.random.sample(PATHS, 2)
        if self.random.random() < 0.4:
            debit, credit = "custody:hot", self.random.choice(("client:acme", "client:x-ray"))
        made = self._made(
            kind=kind, debit=debit, credit=credit, asset=asset.code, amount=self._amount(asset)
        )
        if kind is Kind.PENDING:
            made = replace(
                made,
                purpose="payout",
                timeout=timedelta(hours=6) if self.random.random() < 0.3 else None,
                closing_debit=self.random.random() < 0.01 and not debit.startswith("c"),
            )
        if self.random.random() < 0.06:
            made = replace(made, balancing_debit=True, amount=ALL)
        return made

    def _amount(self, asset: Asset) -> int:
        if asset is WIDE and self.random.random() < 0.3:
            return self.random.randrange(AMOUNT_MAX >> 16)
        return self.random.choice((0, 1, 7, 10**asset.scale, self.random.randrange(10**20)))

    def _made(self, **fields: object) -> Transfer:
        self.drawn += 1
        made = Transfer(
            id=derive_id(self.now, "random", self.drawn),
            code=self.random.choice(("deposit.credited", "payout#1", "a/b:c+d-e_f", "--", "+1")),
            reference=self.random.choice(("", "r-1", "https://x/y:z", "#x", "-1+2", "R" * 200)),
        )
        if self.random.random() < 0.5:
            made = replace(made, correlation=derive_id(START, "row", self.random.randrange(99)))
        if self.random.random() < 0.3:
            made = replace(made, metadata={"n": self.drawn, "a": [None, True, {"k:1": "v"}]})
        if self.random.random() < 0.3 and not fields.get("at_original"):
            days = self.random.randrange(-40, 20)
            made = replace(made, effective_at=self.now + timedelta(days=days))
        return replace(made, **fields)  # type: ignore[arg-type]  # fields of a transfer

    def note(self, made: Transfer) -> None:
        if made.kind is Kind.PENDING:
            self.holds.append(made)
        elif made.kind in {Kind.SINGLE, Kind.POST} and made.asset != WIDEST.code:
            self.posted.append(made)


async def fill(engine: AsyncEngine, seed: int, transfers: int) -> Counter[str]:
    """Fill the book with at least so many transfers; return how many of each outcome."""
    rng = random.Random(seed)
    book = RandomBook(rng)
    await transact(engine, lambda conn: open_book(conn, BOOK, entity="causeway-ch", now=START))
    specs = [account_spec(path, code) for path in PATHS for code in ASSETS]
    specs = [replace(spec, effective_at=START - timedelta(days=90)) for spec in specs]
    opened = await transact(engine, lambda conn: open_accounts(conn, BOOK, specs, now=START))
    assert all(result.outcome == "created" for result in opened)
    outcomes: Counter[str] = Counter()

    async def send(batch: tuple[Transfer, ...]) -> None:
        now = book.now
        results = await transact(engine, lambda conn: post(conn, BOOK, batch, now=now))
        for made, result in zip(batch, results, strict=True):
            outcomes[f"{made.kind.name} {result.outcome}"] += 1
            if result.outcome == "created":
                assert result.amount is not None
                book.note(replace(made, amount=result.amount))

    await send(_imports(book))
    while _created(outcomes) < transfers:
        book.now += timedelta(hours=rng.randrange(1, 40))
        plain = [book.draw() for _ in range(BATCH)]
        linked = chain(*(book.draw() for _ in range(3)))
        await send((*plain, *linked))
        if rng.random() < 0.2:
            await _events(engine, book)
    return outcomes


def _imports(book: RandomBook) -> tuple[Transfer, ...]:
    since = START - timedelta(days=80)
    return tuple(
        book._made(
            debit="custody:hot",
            credit="equity:opening",
            asset=code,
            amount=AMOUNT_MAX if code == WIDEST.code else 10**20 + at,
            imported=True,
            effective_at=since + timedelta(hours=at),
        )
        for at, code in enumerate(ASSETS)
    )


async def _events(engine: AsyncEngine, book: RandomBook) -> None:
    now, asset = book.now, book.random.choice(DRAWN).code
    for frozen in (True, False):
        await transact(
            engine,
            lambda conn, frozen=frozen: set_frozen(  # type: ignore[misc]  # bound in the loop
                conn, BOOK, "client:acme", asset, frozen=frozen, reason='says "no"', now=now
            ),
        )
    await transact(
        engine,
        lambda conn: set_credit_limit(
            conn, BOOK, "client:acme", asset, 10**30, reason="limit;,[2026-01-01]", now=now
        ),
    )


def _created(outcomes: Counter[str]) -> int:
    return sum(count for outcome, count in outcomes.items() if outcome.endswith(" created"))


@pytest.fixture
async def book(engine: AsyncEngine) -> AsyncEngine:
    """An engine whose book 1 holds 10,000 random transfers, and some more."""
    await fill(engine, seed=20260105, transfers=TRANSFERS_MIN)
    return engine


@pytest.fixture
async def small_book(engine: AsyncEngine) -> AsyncEngine:
    """An engine whose book 1 holds a thousand random transfers; January 2026 is closed."""
    await fill(engine, seed=7, transfers=1_000)
    await transact(
        engine,
        lambda conn: close_period(
            conn,
            BOOK,
            date(2025, 12, 31),
            reason="the year is over",
            proposed_by="ada",
            approved_by="ben",
            now=START + timedelta(days=60),
        ),
    )
    return engine


Columns = tuple[int, int, int, int]


async def balances(engine: AsyncEngine) -> dict[tuple[str, str], Columns]:
    """The trial balance: (path, asset) to debits and credits pending and posted."""
    async with engine.connect() as conn:
        found: dict[tuple[str, str], Columns] = {}
        after: tuple[str, str] | None = None
        while True:
            page = await page_trial_balance(conn, BOOK, after=after)
            for row in page.items:
                found[row.path, row.asset] = (
                    row.debits_pending,
                    row.debits,
                    row.credits_pending,
                    row.credits,
                )
            after = page.after
            if after is None:
                return found


def names_in(folder: Path) -> list[str]:
    """The files of a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())
