"""A nursery of posters for tests that kill them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.crash.ledger.nursery import Nursery, opened_nursery


@pytest.fixture
async def nursery(tmp_path: Path) -> AsyncIterator[Nursery]:
    """Where this test's posters come from."""
    async with opened_nursery(tmp_path) as made:
        yield made
