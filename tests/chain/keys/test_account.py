from __future__ import annotations

import pytest
from embit import bip39
from embit.bip32 import HDKey

import chain.keys.checked
from chain.errors import BadKey, DerivationDisagrees
from chain.keys.account import AccountKey, parse_path
from chain.keys.bip32 import HARDENED
from chain.keys.checked import derive_checked

MNEMONIC = "test test test test test test test test test test test junk"
# m/44'/60'/0' of the mnemonic above.
XPUB = (
    "xpub6Ce9NcJvTk36xtLSrJLZqE7wtgA5deCeYs7rSQtreh4cj6ByPtrg9sD7V2FNFLPnf8heNP3FGkeV9"
    "qwfzvZNSd54JoNXVsXFYSYwHsnJxqP"
)
ADDRESSES = [
    "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
    "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
    "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
    "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
    "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
    "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
    "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
]


def at(path: str) -> str:
    seed = bip39.mnemonic_to_seed(MNEMONIC)
    return str(HDKey.from_seed(seed).derive(path).to_public().to_string())


def test_the_account_key_is_the_one_of_the_development_mnemonic() -> None:
    assert at("m/44h/60h/0h") == XPUB


def test_the_addresses_of_the_development_mnemonic_follow_from_its_account_key() -> None:
    account = AccountKey.parse(XPUB, path="m/44'/60'/0'")

    assert [account.address(0, index) for index in range(10)] == ADDRESSES
    assert [derive_checked(XPUB, 0, index) for index in range(10)] == ADDRESSES


def test_both_branches_and_large_indexes_are_derived_by_both_libraries() -> None:
    found = {derive_checked(XPUB, b, i) for b in (0, 1) for i in (0, 1, 2**20, HARDENED - 1)}

    assert len(found) == 8


@pytest.mark.parametrize("path", ["m", "m/44h/60h", "m/44h/60h/0h/0", "m/44h/60h/0"])
def test_a_key_that_is_no_account_key_is_refused(path: str) -> None:
    with pytest.raises(BadKey, match="not a hardened account key"):
        AccountKey.parse(at(path))


@pytest.mark.parametrize("path", ["m/44'/60'/1'", "m/44'/60'", "m/44'/60'/0'/0"])
def test_a_key_that_is_not_where_the_wallet_says_is_refused(path: str) -> None:
    with pytest.raises(BadKey, match="not at"):
        AccountKey.parse(XPUB, path=path)


@pytest.mark.parametrize(("branch", "index"), [(2, 0), (-1, 0), (0, -1), (0, HARDENED)])
def test_steps_that_a_wallet_does_not_have_are_refused(branch: int, index: int) -> None:
    with pytest.raises(BadKey):
        derive_checked(XPUB, branch, index)


def test_an_address_on_which_two_libraries_disagree_is_not_given_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Defective(HDKey):  # type: ignore[misc]  # embit has no types
        """A library that skips a step."""

        def derive(self, path: list[int]) -> HDKey:
            return super().derive(path[:-1])

    monkeypatch.setattr(chain.keys.checked, "HDKey", Defective)

    with pytest.raises(DerivationDisagrees, match=ADDRESSES[0]):
        derive_checked(XPUB, 0, 0)


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("m", ()),
        ("m/44'/60'/0'", (HARDENED + 44, HARDENED + 60, HARDENED)),
        ("m/44h/60H/0'", (HARDENED + 44, HARDENED + 60, HARDENED)),
        ("m/0/7", (0, 7)),
    ],
)
def test_paths_are_read(path: str, steps: tuple[int, ...]) -> None:
    assert parse_path(path) == steps


@pytest.mark.parametrize("path", ["", "44'", "m/", "m/x", "m/-1", "m/01", "m/2147483648", "m/0''"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(BadKey):
        parse_path(path)


def test_people_compare_keys_by_fingerprint() -> None:
    assert AccountKey.parse(XPUB).fingerprint == HDKey.from_string(XPUB).my_fingerprint.hex()
