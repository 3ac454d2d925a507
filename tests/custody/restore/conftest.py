"""Houses whose databases are set back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.local.databases import Database, Server
from tests.custody.bitcoin.coin_house import CoinHouse
from tests.custody.house import House
from tests.custody.restore.address_world import SetBack, set_back_house


@pytest.fixture
async def lost(
    database_server: Server, database: Database, tmp_path: Path
) -> AsyncIterator[SetBack[House]]:
    async with set_back_house(database_server, database, tmp_path, House) as made:
        yield made


@pytest.fixture
async def lost_coins(
    database_server: Server, database: Database, tmp_path: Path
) -> AsyncIterator[SetBack[CoinHouse]]:
    async with set_back_house(database_server, database, tmp_path, CoinHouse) as made:
        yield made
