"""The service approves under the key that is enrolled for it, and under no other."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.workers.house_file import parse_house
from app.workers.service import Service, ServiceWorker
from kernel.clock import ManualClock
from kernel.db import transact
from kernel.errors import BadInput, Refused
from registry.changes import found
from registry.testing import demo_founding, operator_keypair

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
HOUSE = {
    "chain": "evm",
    "book": 1,
    "signer_socket": "s",
    "confirmations": "c.json",
    "payout_depth": 3,
    "start_height": 0,
}


def worker(engine: AsyncEngine, *, code: str, key_of: str) -> ServiceWorker:
    pair = operator_keypair(key_of)
    service = Service(code, pair.public, pair.sign)
    return ServiceWorker(engine=engine, clock=ManualClock(MONDAY), book=1, service=service)


async def test_with_another_key_nothing_is_approved(engine: AsyncEngine) -> None:
    await transact(engine, lambda conn: found(conn, demo_founding(), now=MONDAY))

    assert await worker(engine, code="cleo", key_of="cleo").turn() == []
    with pytest.raises(Refused, match="the key of service cleo is not the one"):
        await worker(engine, code="cleo", key_of="dan").turn()


@pytest.mark.parametrize("key", ["service", "service_key"])
def test_a_service_without_a_key_and_a_key_without_a_service_are_refused(key: str) -> None:
    with pytest.raises(BadInput, match="a service needs a code and a key"):
        parse_house({**HOUSE, key: "auto"}, Path("house.toml"))


def test_a_house_without_a_service_leaves_what_a_rule_allows_to_people() -> None:
    house = parse_house(HOUSE, Path("house.toml"))
    assert (house.service, house.service_key) == (None, None)
