"""Accounting stories as text, played against a real book: for tests and for ``docs/accounts.md``.

`play` returns the text with what really happened filled in, so a test asserts that a story played
is the story written. One line is one transfer, the outcome last; lines without a blank line between
them are one batch; ``+`` links a transfer to the next one::

    + a  hold     client:acme   in-flight:evm  5 ETH  purpose=payout  -> created
      b  move     client:acme   income:fee     1 ETH                  -> created

      c  post     a                                                   -> created
      d  post     a  3                                                -> pending_transfer_already_posted
    = client:acme  7 ETH  available 2  incoming 1

Verbs: ``move DEBIT CREDIT AMOUNT ASSET``, ``hold DEBIT CREDIT AMOUNT ASSET``, ``post HOLD [AMOUNT]``,
``void HOLD [AMOUNT]``, ``reverse TRANSFER``, ``expire HOLD`` (which the ledger keeps for itself).
Options: ``purpose= code= reference= timeout= pending= reverses= debit= credit= asset= id=`` (an id is
a name, ``0``, or ``reserved`` as the ledger's own are),
``effective=2026-01-03`` (a day, or a time of ISO 8601), and the flags ``balancing_debit`` and so on,
``imported``, ``at_original``. ``@ +5s`` moves the clock; ``freeze PATH ASSET`` and ``unfreeze PATH
ASSET``; ``limit PATH ASSET AMOUNT`` sets a credit limit; ``close-period DAY`` and ``reopen-period
DAY``; ``own PATH OWNER`` says whose a holding is before it is opened, ``cap PATH ASSET`` opens an account
whose credits must not exceed its debits, ``since PATH ASSET DAY`` one that is older than the book;
``= PATH AMOUNT ASSET`` shows a balance. Accounts are opened when first named, unless written ``?PATH``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.db import transact
from kernel.errors import BadInput
from kernel.ids import derive_id
from kernel.money import Asset
from ledger.accounts import ensure_accounts, open_accounts, set_credit_limit, set_frozen
from ledger.chart import account_spec
from ledger.form import RESERVED_VERSION
from ledger.model import ALL, Kind, PostResult, Transfer
from ledger.periods import close_period, reopen_period
from ledger.posting import open_book, post
from ledger.queries import get_balance

START: Final = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SCALES: Final = {"USD": 2, "EUR": 2, "BTC": 8, "ETH": 18, "USDT": 6}
"""Decimal places of the assets in stories; any other asset is counted in whole units."""

_ARROW: Final = re.compile(r"\s*->.*$")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_FLAGS: Final = frozenset(
    {
        "balancing_debit",
        "balancing_credit",
        "closing_debit",
        "closing_credit",
        "imported",
        "at_original",
    }
)
_REASON: Final = "story"
_KINDS: Final = {
    "move": Kind.SINGLE,
    "hold": Kind.PENDING,
    "post": Kind.POST,
    "void": Kind.VOID,
    "reverse": Kind.REVERSAL,
    "expire": Kind.EXPIRE,
}


@dataclass(slots=True)
class Story:
    """Where a story stands: its book, its clock, whose holdings are whose."""

    book: int
    at: datetime = START
    owners: dict[str, str] = field(default_factory=dict)
    unopened: set[str] = field(default_factory=set)


async def play(engine: AsyncEngine, text: str, *, book: int = 1, story: Story | None = None) -> str:
    """Play a story and return it as it really went.

    Args:
        engine: of a migrated database.
        text: the story, see the module's docstring.
        book: opened if it is not.
        story: to go on with an earlier one, its clock and owners.
    """
    story = story or Story(book)
    entity = f"entity-{story.book}"
    await transact(engine, lambda conn: open_book(conn, story.book, entity=entity, now=story.at))
    played: list[str] = []
    batch: list[str] = []
    for line in [*text.splitlines(), ""]:
        if _is_transfer(line):
            batch.append(line)
            continue
        if batch:
            played += await _post(engine, story, batch)
            batch = []
        played.append(await _step(engine, story, line))
    return "\n".join(played[:-1]) + ("\n" if text.endswith("\n") else "")


def name_id(name: str) -> UUID:
    """Return the id of the transfer that a story calls *name*."""
    return derive_id(START, "story", name)


def parse_transfer(line: str, unopened: set[str]) -> Transfer:
    """Read one line; accounts written ``?PATH`` are added to *unopened*."""
    words = _ARROW.sub("", line).split()
    linked = words[0] == "+"
    name, verb, *rest = words[1:] if linked else words
    options = [word for word in rest if "=" in word or word in _FLAGS]
    places = [word for word in rest if word not in options]
    request = Transfer(id=name_id(name), kind=_KINDS[verb], code=f"story.{verb}", linked=linked)
    for word in places[:2] if verb in {"move", "hold"} else []:
        if word.startswith("?"):
            unopened.add(word[1:])
    match verb, places:
        case "move" | "hold", [debit, credit, amount, asset]:
            request = replace(
                request,
                debit=_path(debit),
                credit=_path(credit),
                amount=_amount(amount, asset),
                asset=asset,
            )
        case "post" | "void" | "expire", [hold, *amount]:
            request = replace(request, pending_id=name_id(hold), amount=_optional(amount))
        case "reverse", [original, *amount]:
            request = replace(request, reverses=name_id(original), amount=_optional(amount))
        case _:
            raise BadInput(f"not a line of a story: {line!r}")
    return replace(request, **dict(_option(word) for word in options))


def _is_transfer(line: str) -> bool:
    words = line.split()
    if words and words[0] == "+":
        words = words[1:]
    return len(words) > 1 and words[1] in _KINDS


def _path(text: str) -> str:
    return "" if text == "-" else text.removeprefix("?")


def _asset(code: str) -> Asset:
    return Asset(code, SCALES.get(code, 0))


def _amount(text: str, asset: str) -> int:
    if text == "all":
        return ALL
    if asset == "-":
        return int(text)
    return 2**256 - 1 if text == "max" else _asset(asset).parse(text)


def _optional(words: list[str]) -> int:
    match words:
        case []:
            return ALL
        case [amount]:
            return _amount(amount, "-")
        case [amount, asset]:
            return _amount(amount, asset)
        case _:
            raise BadInput(f"not an amount: {words}")


def _interval(text: str) -> timedelta:
    return timedelta(**{_UNITS[text[-1]]: float(text[:-1])})


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _id(name: str) -> UUID:
    match name:
        case "0":
            return UUID(int=0)
        case "reserved":
            return UUID(int=name_id(name).int | RESERVED_VERSION << 76)
        case _:
            return name_id(name)


def _option(word: str) -> tuple[str, Any]:
    if word in _FLAGS:
        return word, True
    key, _, value = word.partition("=")
    match key:
        case "pending":
            return "pending_id", _id(value)
        case "reverses":
            return "reverses", _id(value)
        case "id":
            return "id", _id(value)
        case "timeout":
            return "timeout", timedelta.max if value == "max" else _interval(value)
        case "debit" | "credit":
            return key, _path(value)
        case "effective":
            return "effective_at", _time(value)
        case "asset":
            return key, "" if value == "-" else value
        case "code":
            return key, "" if value == "-" else value
        case _:
            return key, value


async def _post(engine: AsyncEngine, story: Story, lines: list[str]) -> list[str]:
    batch = [parse_transfer(line, story.unopened) for line in lines]
    keys = {
        (path, item.asset)
        for item in batch
        for path in (item.debit, item.credit)
        if path and item.asset and path not in story.unopened
        if item.kind in {Kind.SINGLE, Kind.PENDING}
    }
    if keys:
        await transact(
            engine,
            lambda conn: ensure_accounts(
                conn, story.book, keys, owners=_relevant(story, keys), now=story.at
            ),
        )
    results = await transact(engine, lambda conn: post(conn, story.book, batch, now=story.at))
    return [
        _rendered(line, item, result)
        for line, item, result in zip(lines, batch, results, strict=True)
    ]


def _relevant(story: Story, keys: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {path: story.owners[path] for path, _ in keys if path in story.owners}


def _rendered(line: str, item: Transfer, result: PostResult) -> str:
    said = str(result.outcome)
    if result.amount is not None and item.kind in {Kind.SINGLE, Kind.PENDING}:
        said += (
            f" {_asset(item.asset).format(result.amount)}" if result.amount != item.amount else ""
        )
    if result.first is not None:
        said += f" {result.first}"
    place = line.find("->")
    asked = line[:place] if place >= 0 else line.rstrip() + "  "
    return f"{asked}-> {said}"


async def _step(engine: AsyncEngine, story: Story, line: str) -> str:
    match line.split():
        case ["@", interval]:
            story.at += _interval(interval.removeprefix("+"))
            await transact(engine, lambda conn: post(conn, story.book, [], now=story.at))
        case ["own", path, owner]:
            story.owners[path] = owner
        case ["=", path, _, asset, *_]:
            return await _balance(engine, story, line, path, asset)
        case []:
            pass
        case [first, *_] if first.startswith("#"):
            pass
        case words:
            await transact(engine, lambda conn: _change(conn, story, words))
    return line


async def _change(conn: AsyncConnection, story: Story, words: list[str]) -> None:
    """Run a line that changes an account or a period."""
    book, now = story.book, story.at
    match words:
        case ["cap", path, asset]:
            spec = replace(account_spec(path, asset), credits_must_not_exceed_debits=True)
            await open_accounts(conn, book, [spec], now=now)
        case ["since", path, asset, day]:
            spec = replace(account_spec(path, asset), effective_at=_time(day))
            await open_accounts(conn, book, [spec], now=now)
        case [("freeze" | "unfreeze") as verb, path, asset]:
            frozen = verb == "freeze"
            await set_frozen(conn, book, path, asset, frozen=frozen, reason=_REASON, now=now)
        case ["limit", path, asset, amount]:
            limit = _amount(amount, asset)
            await set_credit_limit(conn, book, path, asset, limit, reason=_REASON, now=now)
        case [("close-period" | "reopen-period") as verb, day]:
            record = close_period if verb == "close-period" else reopen_period
            await record(
                conn,
                book,
                date.fromisoformat(day),
                reason=_REASON,
                proposed_by="ann",
                approved_by="bob",
                now=now,
            )
        case _:
            raise BadInput(f"not a line of a story: {' '.join(words)!r}")


async def _balance(engine: AsyncEngine, story: Story, line: str, path: str, asset: str) -> str:
    balance = await transact(engine, lambda conn: get_balance(conn, story.book, path, asset))
    unit = _asset(asset)
    text = unit.format(balance.posted)
    if balance.available != balance.posted:
        text += f"  available {unit.format(balance.available, code=False)}"
    if balance.incoming:
        text += f"  incoming {unit.format(balance.incoming, code=False)}"
    start = line.index(path) + len(path)
    gap = line[start : start + len(line[start:]) - len(line[start:].lstrip())]
    return f"{line[:start]}{gap}{text}"
