"""Every table of ``docs/accounts.md`` is played; after each, the book verifies and sums to zero."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.queries import list_transfers, trial_balance
from ledger.scenarios import play
from ledger.verification import verify

PAGE = Path(__file__).parents[2] / "docs" / "accounts.md"
BLOCK = re.compile(
    r"^### (?P<heading>[^\n]+)$|^```ledger\n(?P<story>.*?)^```$", re.MULTILINE | re.DOTALL
)


def stories() -> dict[str, str]:
    """The tables by heading; a second one under the same heading is numbered."""
    found: dict[str, str] = {}
    heading = ""
    for match in BLOCK.finditer(PAGE.read_text()):
        if match["heading"]:
            heading = match["heading"]
        else:
            told = sum(name.startswith(heading) for name in found)
            found[f"{heading} ({told + 1})" if told else heading] = match["story"]
    return found


STORIES = stories()


def test_every_heading_under_postings_has_a_story() -> None:
    headings = re.findall(r"^### (.+)$", PAGE.read_text(), re.MULTILINE)
    assert len(headings) >= 17
    assert [heading for heading in headings if heading not in STORIES] == []


@pytest.mark.parametrize("name", STORIES)
async def test_what_stands_in_the_book_is_what_happens(engine: AsyncEngine, name: str) -> None:
    assert await play(engine, STORIES[name]) == STORIES[name]

    assert await verify(engine, 1) == []
    async with engine.connect() as conn:
        sums: dict[str, int] = {}
        for row in await trial_balance(conn, 1):
            sums[row.asset] = sums.get(row.asset, 0) + row.debits - row.credits
        assert set(sums.values()) == {0}
        assert len(await list_transfers(conn, 1)) > 0
