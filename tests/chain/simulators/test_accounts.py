"""The development accounts are the ones every development node has."""

from __future__ import annotations

import pytest
from eth_account.hdaccount import seed_from_mnemonic
from eth_account.hdaccount.deterministic import HDPath

from chain.simulators.evm.accounts import derive_accounts
from chain.simulators.evm.model import DEFAULT_MNEMONIC

ABANDON = "abandon " * 11 + "about"


def test_the_first_account_has_the_published_key_and_address() -> None:
    (account,) = derive_accounts(DEFAULT_MNEMONIC, 1)

    assert account.address.hex() == "f39fd6e51aad88f6f4ce6ab8827279cfffb92266"
    published = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
    assert account.key.to_bytes().hex() == published
    assert published not in repr(account)


@pytest.mark.parametrize("mnemonic", [DEFAULT_MNEMONIC, ABANDON])
def test_the_derivation_agrees_with_a_library(mnemonic: str) -> None:
    seed = seed_from_mnemonic(mnemonic, "")

    derived = [account.key.to_bytes() for account in derive_accounts(mnemonic, 10)]

    assert derived == [HDPath(f"m/44'/60'/0'/0/{index}").derive(seed) for index in range(10)]
