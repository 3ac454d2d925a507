"""A desk on a database of its own, with the lock order watched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.testing import enforce_lock_order
from tests.settlement.desk import Desk, open_desk


@pytest.fixture
async def desk(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(engine, tmp_path) as made:
        with enforce_lock_order(engine):
            yield made
