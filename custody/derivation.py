"""The address of a wallet at a place below its account, by the kind of its chain. Pure.

Whatever the kind, two libraries derive it and must agree: `chain.keys.checked` for chains with
accounts, `chain.bitcoin.derivation` for Bitcoin.
"""

from __future__ import annotations

from chain.bitcoin.derivation import SegwitAccount
from chain.bitcoin.derivation import derive_checked as derive_bitcoin
from chain.bitcoin.multisig import MultisigAccount, derive_multisig_checked
from chain.bitcoin.networks import network_of
from chain.keys.checked import derive_checked as derive_evm
from chain.keys.single import address_of_key
from custody.errors import NotPossible
from kernel.errors import BadInput
from registry.model import BITCOIN, Chain, Wallet


def derive_address(chain: Chain, wallet: Wallet, branch: int, index: int) -> str:
    """Return the address at ``branch/index`` of a wallet's account, as its chain spells it.

    A wallet whose key is in a token has one address, which is that of each branch at index 0.

    Raises:
        NotPossible: another index of such a wallet.
        BadKey: the account key is not valid, not at its path, or of another kind of chain.
        BadInput: the chain's network id is the one of no network.
        DerivationDisagrees: two libraries derive different addresses.
    """
    if wallet.token_key:
        return _token_address(wallet, index)
    if chain.kind == BITCOIN and wallet.cosigners:
        return derive_multisig_checked(
            wallet.cosigners,
            wallet.required,
            branch,
            index,
            network=network_of(chain.network_id),
        )
    if chain.kind == BITCOIN:
        return derive_bitcoin(
            wallet.account_xpub,
            branch,
            index,
            network=network_of(chain.network_id),
            path=wallet.account_path,
        )
    return derive_evm(wallet.account_xpub, branch, index, path=wallet.account_path)


def descriptor_of(chain: Chain, wallet: Wallet, branch: int) -> str:
    """Return the output descriptor of a branch of a Bitcoin wallet, with its checksum (BIP 380).

    A node or a wallet that the operator runs derives the same addresses from it.

    Raises:
        BadInput: the chain is of another kind.
        BadKey: as `derive_address`.
    """
    if chain.kind != BITCOIN:
        raise BadInput(f"{chain.code} is a chain of accounts: its wallets have no descriptors")
    network = network_of(chain.network_id)
    if wallet.cosigners:
        account = MultisigAccount.parse(wallet.cosigners, wallet.required, network=network)
        return account.descriptor(branch)
    key, path = wallet.account_xpub, wallet.account_path
    return SegwitAccount.parse(key, network=network, path=path).descriptor(branch)


def _token_address(wallet: Wallet, index: int) -> str:
    if index:
        raise NotPossible(
            f"wallet {wallet.code} has one address: nothing is derived from the key of a token",
            remedy="Take a wallet with an account of keys",
        )
    return address_of_key(bytes.fromhex(wallet.token_public_key))
