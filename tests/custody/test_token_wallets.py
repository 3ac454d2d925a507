"""A wallet of one key that nothing is derived from: what it may be asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from coincurve import PrivateKey
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.errors import BadKey, DerivationDisagrees
from chain.evm.addresses import address_of_public_key
from chain.keys.single import address_of_key, compress
from custody.addresses import assign_address, check_wallet_key, list_addresses, watch_list
from custody.derivation import derive_address
from custody.errors import NotPossible
from custody.model import Address, AddressPurpose
from custody.token_wallets import ask_token_wallet, require_token_key
from kernel.db import transact
from registry.changes import found
from registry.model import Chain, Wallet, WalletPurpose
from registry.testing import EVM, change, demo_founding

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
KEY = PrivateKey(b"\x01" * 32).public_key
OTHER = PrivateKey(b"\x02" * 32).public_key
ADDRESS = address_of_public_key(KEY.format(compressed=False))
VAULT = Wallet(
    *("vault", EVM, "house", WalletPurpose.HOT),
    token_key="hot",
    token_public_key=KEY.format().hex(),
)
CHAIN = Chain(EVM, "evm", 31_337, "ETH")


@dataclass(frozen=True)
class Token:
    key: bytes = KEY.format(compressed=False)

    async def public_key(self, path: str) -> bytes:
        assert path == "hot"
        return self.key


@pytest.fixture
async def house(engine: AsyncEngine) -> AsyncEngine:
    await transact(engine, lambda conn: found(conn, demo_founding(), now=NOW))
    await transact(engine, lambda conn: change(conn, VAULT, now=NOW))
    return engine


async def assign(
    engine: AsyncEngine,
    purpose: AddressPurpose = AddressPurpose.HOT,
    party: str | None = None,
    reference: str = "",
) -> Address:
    return await transact(
        engine,
        lambda conn: assign_address(
            conn, "vault", purpose=purpose, party=party, reference=reference, now=NOW
        ),
    )


async def test_the_wallet_that_is_proposed_has_the_key_that_the_signer_says() -> None:
    made = await ask_token_wallet(
        Token(), "vault", chain=EVM, owner="house", purpose=WalletPurpose.HOT, label="hot"
    )

    assert made == VAULT
    assert await require_token_key(Token(), made) == ADDRESS


async def test_another_key_under_the_label_is_found_out() -> None:
    with pytest.raises(DerivationDisagrees, match="key hot of the signer is"):
        await require_token_key(Token(OTHER.format(compressed=False)), VAULT)
    with pytest.raises(NotPossible, match="in no token"):
        await require_token_key(Token(), demo_founding().wallets[0])


def test_two_libraries_compute_the_address_and_refuse_what_is_no_point() -> None:
    assert address_of_key(compress(KEY.format(compressed=False))) == ADDRESS
    for bad in (b"\x02" + b"\xff" * 32, KEY.format(compressed=False), b""):
        with pytest.raises(BadKey):
            address_of_key(bad)


def test_the_one_address_is_that_of_every_branch() -> None:
    assert {derive_address(CHAIN, VAULT, branch, 0) for branch in (0, 1)} == {ADDRESS}
    with pytest.raises(NotPossible, match="one address"):
        derive_address(CHAIN, VAULT, 1, 1)


async def test_it_has_one_address_whatever_it_is_asked_for(house: AsyncEngine) -> None:
    given = await assign(house)

    assert (given.address, given.branch, given.index) == (ADDRESS, 1, 0)
    assert await assign(house) == given
    assert await assign(house, reference="second payout desk") == given
    async with house.connect() as conn:
        assert await list_addresses(conn, EVM, wallet="vault") == [given]
        assert (await watch_list(conn, EVM)).addresses == {ADDRESS}


@pytest.mark.parametrize(
    ("purpose", "party"),
    [
        (AddressPurpose.DEPOSIT, "acme"),
        (AddressPurpose.SETTLEMENT, "simvenue"),
        (AddressPurpose.CHANGE, None),
    ],
)
async def test_nobody_is_given_it_to_pay_in(
    house: AsyncEngine, purpose: AddressPurpose, party: str | None
) -> None:
    with pytest.raises(NotPossible, match=f"nobody is given it as a {purpose} address"):
        await assign(house, purpose, party)


async def test_its_key_is_kept_as_the_known_answer(
    house: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    first = await transact(house, lambda conn: check_wallet_key(conn, VAULT, now=NOW))
    swapped = replace(VAULT, token_public_key=OTHER.format().hex())

    assert first == ADDRESS
    with pytest.raises(DerivationDisagrees, match=f"began with {ADDRESS}"):
        await transact(house, lambda conn: check_wallet_key(conn, swapped, now=NOW))
    # Not even who can write to the registry's table gets another address out of it.
    async with owner_engine.begin() as conn:
        await conn.execute(text("ALTER TABLE registry.wallet DISABLE TRIGGER USER"))
        await conn.execute(
            text("UPDATE registry.wallet SET token_public_key = :key WHERE code = 'vault'"),
            {"key": swapped.token_public_key},
        )
    with pytest.raises(DerivationDisagrees, match="began with"):
        await assign(house)
