"""What may be asked for on Bitcoin: each bad input a clear error, and nothing changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.bitcoin.bech32 import encode_program
from custody.allow_list import list_destinations
from custody.bitcoin.testing import CHAIN, POOL
from custody.payout_model import DestinationKind
from custody.payout_model import PayoutState as P
from custody.testing import allow, propose
from kernel.errors import BadInput, CausewayError, Refused
from tests.custody.bitcoin.spend_world import BTC, PAYEE, SpendWorld, make_spend_world


@pytest.fixture
async def world(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[SpendWorld]:
    async with make_spend_world(engine, tmp_path) as made:
        yield made


MAINNET = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
BAD = [
    ("of another network", {"destination": MAINNET}, "network|regtest|bcrt"),
    ("with a bad checksum", {"destination": PAYEE[:-1] + "q"}, "checksum"),
    ("in mixed case", {"destination": PAYEE[:-4] + PAYEE[-4:].upper()}, "case"),
    ("of another kind of chain", {"destination": "0x" + "11" * 20}, "address"),
    ("of dust", {"amount": 293}, "dust.*294"),
    ("by another rail", {"rail": "evm"}, "kind bitcoin"),
    ("from a named address", {"source_address": PAYEE}, "chosen wherever"),
    ("to a stranger that nobody allowed", {"destination": "tb1q"}, "."),
]


@pytest.mark.parametrize(("what", "changes", "error"), BAD, ids=[item[0] for item in BAD])
async def test_a_payout_is_refused(
    world: SpendWorld, what: str, changes: dict[str, Any], error: str
) -> None:
    before = await world.books()

    with pytest.raises(CausewayError, match=error):
        await world.request(**changes)

    assert await world.books() == before, what
    assert [item async for item in world._every()] == []


async def test_more_than_available_is_rejected_and_nothing_is_reserved(world: SpendWorld) -> None:
    before = await world.books()

    payout = await world.request(amount=100 * BTC)

    assert payout.state is P.REJECTED
    assert await world.books() == before


async def test_an_address_in_capitals_is_the_same_address(world: SpendWorld) -> None:
    payout = await world.request(destination=PAYEE.upper())

    assert payout.destination == PAYEE
    assert payout.rail == "bitcoin"
    again = await world.request(destination=PAYEE)
    assert again.id == payout.id
    assert (await world.request(destination=PAYEE.upper())).id == payout.id


async def test_every_future_witness_version_can_be_allowed_and_paid(world: SpendWorld) -> None:
    payouts = []
    for version in range(2, 17):
        address = encode_program("bcrt", version, bytes([version]) * (2 + version))
        await world.run(
            partial(allow, party="acme", address=address, now=world.clock.now(), chain=CHAIN)
        )
        payouts.append(
            await world.approved(client_ref=f"v{version}", destination=address, amount=20_000)
        )

    report = await world.advance()

    assert report.waiting == {}
    assert len(report.sent) == len(payouts)


@pytest.mark.parametrize(
    ("address", "error"),
    [(MAINNET, "network|regtest|bcrt"), (PAYEE[:-1] + "q", "checksum"), ("0x" + "11" * 20, ".")],
)
async def test_a_bad_address_is_not_put_on_the_allow_list(
    world: SpendWorld, address: str, error: str
) -> None:
    before = await world.run(list_destinations)

    with pytest.raises(BadInput, match=error):
        await world.run(
            lambda conn: propose(conn, "acme", address, now=world.clock.now(), chain=CHAIN)
        )

    assert await world.run(list_destinations) == before


async def test_an_address_that_only_looks_like_a_known_one_is_warned_of(world: SpendWorld) -> None:
    poisoned = look_alike(PAYEE)

    with pytest.raises(Refused, match="begins and ends like"):
        await world.run(
            lambda conn: propose(conn, "acme", poisoned, now=world.clock.now(), chain=CHAIN)
        )
    await world.run(
        lambda conn: propose(
            conn, "acme", poisoned, now=world.clock.now(), chain=CHAIN, acknowledged=[PAYEE]
        )
    )


async def test_our_own_address_is_nobodys_destination(world: SpendWorld) -> None:
    with pytest.raises(Refused, match="our own address"):
        await world.run(
            lambda conn: propose(conn, "birch", world.acme, now=world.clock.now(), chain=CHAIN)
        )


async def test_bitcoin_has_no_contracts(world: SpendWorld) -> None:
    with pytest.raises(BadInput, match="no contracts"):
        await world.run(
            lambda conn: propose(
                conn,
                "birch",
                PAYEE,
                now=world.clock.now(),
                chain=CHAIN,
                kind=DestinationKind.CONTRACT,
            )
        )


def look_alike(address: str) -> str:
    """Return another address that begins and ends with the same four letters: they are ground for."""
    charset = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    head, tail = address[: len("bcrt1q") + 4], address[-4:]
    data = [charset.index(letter) for letter in head[len("bcrt1q") :]]
    start = sum(value << (5 * (3 - n)) for n, value in enumerate(data)) << 140
    for number in range(1 << 22):
        made = encode_program("bcrt", 0, (start + number).to_bytes(20, "big"))
        if made.endswith(tail):
            assert made.startswith(head)
            return made
    raise AssertionError


async def test_wallet_is_the_pool(world: SpendWorld) -> None:
    assert (await world.request()).source_wallet == POOL
