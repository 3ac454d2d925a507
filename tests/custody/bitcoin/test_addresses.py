"""Addresses of Bitcoin wallets: two libraries and a node agree, and what is mistyped changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.addressing import canonical_address
from chain.bitcoin.derivation import SegwitAccount
from chain.bitcoin.networks import MAIN, REGTEST
from chain.errors import BadAddress, BadKey, DerivationDisagrees
from chain.keys.base58 import decode_base58check, encode_base58check
from chain.simulators.bitcoind import Bitcoind
from custody.addresses import check_wallet_key, list_addresses, list_descriptors
from custody.bitcoin.testing import CHAIN, HOT, POOL, XPUBS, bitcoin_wallets
from custody.errors import NotPossible
from custody.model import AddressPurpose
from kernel.errors import BadInput
from registry.model import BITCOIN
from registry.testing import change
from tests.custody.bitcoin.coin_house import CoinHouse

XPUB = XPUBS[0]


@pytest.fixture
async def house(engine: AsyncEngine) -> CoinHouse:
    return await CoinHouse(engine).open()


async def test_addresses_follow_the_account_key_branch_by_branch(house: CoinHouse) -> None:
    pool = SegwitAccount.parse(XPUB, network=REGTEST, path="m/84'/1'/0'")
    change_address = await house.assign(POOL, AddressPurpose.CHANGE, None, "spend 1")
    hot = await house.assign(POOL, AddressPurpose.HOT, None)

    assert [house.acme, house.birch] == [pool.address(0, 0), pool.address(0, 1)]
    # Change and hot addresses share the branch for own use, one after the other.
    assert [change_address, hot] == [pool.address(1, 0), pool.address(1, 1)]
    assert await house.assign(POOL, AddressPurpose.CHANGE, None, "spend 1") == change_address
    assert await house.assign(POOL, AddressPurpose.CHANGE, None, "spend 2") == pool.address(1, 2)


async def test_a_chain_of_accounts_has_no_change(house: CoinHouse) -> None:
    with pytest.raises(NotPossible, match="no change"):
        await house.assign("house-hot", AddressPurpose.CHANGE, None)
    with pytest.raises(BadInput, match="nobody's"):
        await house.assign(HOT, AddressPurpose.CHANGE, "acme")


async def test_a_node_derives_the_same_addresses_from_the_descriptors_shown(
    house: CoinHouse, bitcoind: Bitcoind
) -> None:
    found = await house.do(lambda conn: list_descriptors(conn, CHAIN))

    assert [(d.wallet, d.branch, d.handed_out) for d in found if d.wallet == POOL] == [
        (POOL, 0, 2),
        (POOL, 1, 0),
    ]
    (text,) = [d.descriptor for d in found if (d.wallet, d.branch) == (POOL, 0)]
    said = await bitcoind.call("deriveaddresses", text, [0, 1])
    assert said == [house.acme, house.birch]


async def test_only_wallets_of_bitcoin_have_descriptors(house: CoinHouse) -> None:
    with pytest.raises(BadInput, match="no descriptors"):
        await house.do(lambda conn: list_descriptors(conn, "evm"))


# Bad input: a clear error, and nothing changed.


def wrong_letter(key: str) -> str:
    return key[:40] + ("A" if key[40] != "A" else "B") + key[41:]


def at_depth(key: str, depth: int) -> str:
    data = decode_base58check(key)
    return encode_base58check(data[:4] + bytes([depth]) + data[5:])


def of_version(key: str, version: str) -> str:
    return encode_base58check(bytes.fromhex(version) + decode_base58check(key)[4:])


@pytest.mark.parametrize(
    ("xpub", "path", "words"),
    [
        (wrong_letter(XPUB), "m/84'/1'/0'", "checksum"),
        (at_depth(XPUB, 2), "m/84'/1'/0'", "depth 2"),
        (at_depth(XPUB, 4), "m/84'/1'/0'", "depth 4"),
        (XPUB, "m/84'/1'/7'", "account 0, not at"),
        (XPUB, "m/84'/0'/0'", "not an account of BIP 84 on regtest"),
        (XPUB, "m/44'/60'/0'", "not an account of BIP 84 on regtest"),
        (of_version(XPUB, "04b24746"), "m/84'/1'/0'", "not the version of an xpub"),
        (of_version(XPUB, "0488ade4"), "m/84'/1'/0'", "private"),
    ],
)
async def test_a_wallet_with_a_wrong_key_hands_out_nothing(
    house: CoinHouse, xpub: str, path: str, words: str
) -> None:
    before = await house.do(lambda conn: list_addresses(conn, CHAIN))
    (known, *_) = bitcoin_wallets()
    wrong = replace(known, code="mistyped", account_xpub=xpub, account_path=path)
    if xpub == XPUB:
        # The same key cannot be registered twice: the door that looks at keys is asked directly.
        with pytest.raises(BadKey, match=words):
            await house.do(lambda conn: check_wallet_key(conn, wrong, now=house.now))
        return
    await house.do(lambda conn: change(conn, wrong, now=house.now))

    with pytest.raises(BadKey, match=words):
        await house.assign("mistyped", AddressPurpose.DEPOSIT, "acme")
    assert await house.do(lambda conn: list_addresses(conn, CHAIN)) == before


async def test_a_wallet_whose_key_was_swapped_hands_out_nothing(house: CoinHouse) -> None:
    (known, *_) = bitcoin_wallets()
    swapped = replace(known, account_xpub=XPUBS[1], account_path="m/84'/1'/1'")

    with pytest.raises(DerivationDisagrees, match="began with"):
        await house.do(lambda conn: check_wallet_key(conn, swapped, now=house.now))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu", "bc"),
        ("1LqBGSKuX5yYUonjxT5qGfpUsXKYYWeabA", "main, not of regtest"),
        ("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt08q", "checksum"),
        ("bcrt1Qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", "case"),
        ("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfm", "letter is wrong|checksum|not an address"),
        ("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "not an address"),
        ("", "not an address"),
    ],
)
def test_an_address_of_elsewhere_or_mistyped_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(BadAddress, match=words):
        canonical_address(text, kind=BITCOIN, network_id=REGTEST.network_id)


def test_an_address_has_one_spelling() -> None:
    text = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"

    spelled = canonical_address(text.upper(), kind=BITCOIN, network_id=REGTEST.network_id)

    assert spelled == text
    assert MAIN.network_id != REGTEST.network_id
