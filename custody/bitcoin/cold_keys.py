"""The keys of a Bitcoin wallet as its signers are shown them: scripts, origins, weights. Pure.

Public halves only. A wallet of one key signs with that of its account, a wallet of cosigners with so
many of theirs. Where an origin is not known, the account key itself is the root, as nodes count it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chain.bitcoin.derivation import SegwitAccount
from chain.bitcoin.digests import SIGHASH_ALL
from chain.bitcoin.fees import KEY_HASH_INPUT_WEIGHT
from chain.bitcoin.multisig import KeySource, MultisigAccount
from chain.bitcoin.networks import Network, network_of
from chain.bitcoin.psbt import PsbtInput, PsbtOutput
from chain.bitcoin.reading import encode_size
from chain.bitcoin.transactions import Output
from kernel.errors import BadInput
from registry.model import BITCOIN, Chain, Wallet

INPUT_WEIGHT: Final = 4 * (32 + 4 + 1 + 4)
SIGNATURE_WEIGHT: Final = 1 + 72
"""A signature with low s and its type, behind its length."""


@dataclass(frozen=True, slots=True)
class WalletKeys:
    """The public keys of one wallet on its network; *account* derives them."""

    wallet: Wallet
    network: Network
    account: SegwitAccount | MultisigAccount

    @property
    def required(self) -> int:
        """Return how many signatures an input takes."""
        return self.wallet.required or 1

    @property
    def input_weight(self) -> int:
        """Return what an input that spends a coin of the wallet weighs at most."""
        return input_weight(self.wallet)

    def script(self, branch: int, index: int) -> bytes:
        """Return the output script of ``branch/index``."""
        return self.account.script(branch, index)

    def sources(self, branch: int, index: int) -> dict[bytes, KeySource]:
        """Return the keys of ``branch/index``, and where each comes from."""
        if isinstance(self.account, MultisigAccount):
            return self.account.sources(branch, index)
        root = self.account.account.key.fingerprint
        return {self.account.public_key(branch, index): KeySource(root, (branch, index))}

    def witness_script(self, branch: int, index: int) -> bytes | None:
        """Return the script behind the address at ``branch/index``; None: a key's hash has none."""
        if isinstance(self.account, MultisigAccount):
            return self.account.witness_script(branch, index)
        return None

    def known_input(self, amount: int, branch: int, index: int) -> PsbtInput:
        """Return what signers have to know of a coin of *amount* satoshi at ``branch/index``."""
        return PsbtInput(
            witness_utxo=Output(amount, self.script(branch, index)),
            sighash=SIGHASH_ALL,
            witness_script=self.witness_script(branch, index),
            derivations=self.sources(branch, index),
        )

    def known_output(self, branch: int, index: int) -> PsbtOutput:
        """Return what lets a signer see that an output comes back to the wallet."""
        return PsbtOutput(
            witness_script=self.witness_script(branch, index),
            derivations=self.sources(branch, index),
        )

    def find_place(self, script: bytes, known: PsbtOutput | PsbtInput) -> tuple[int, int] | None:
        """Return where an output of the wallet's own is; None: it is not proved to be its own.

        The path that the PSBT tells is only a hint: the script is derived from the wallet's keys.
        """
        for source in known.derivations.values():
            if len(source.path) < 2:
                continue
            branch, index = source.path[-2:]
            if branch in {0, 1} and index < 2**31 and self.script(branch, index) == script:
                return branch, index
        return None


def keys_of(chain: Chain, wallet: Wallet) -> WalletKeys:
    """Return the keys of a wallet on a chain of Bitcoin.

    Raises:
        BadInput: another kind of chain, or the wallet's key is in a token.
        BadKey: a key is not valid.
    """
    if chain.kind != BITCOIN:
        raise BadInput(f"{chain.code} is no chain of Bitcoin")
    network = network_of(chain.network_id)
    if wallet.cosigners:
        shared = MultisigAccount.parse(wallet.cosigners, wallet.required, network=network)
        return WalletKeys(wallet, network, shared)
    if not wallet.account_xpub:
        raise BadInput(f"the key of wallet {wallet.code} is in a token: nobody signs by hand")
    account = SegwitAccount.parse(wallet.account_xpub, network=network, path=wallet.account_path)
    return WalletKeys(wallet, network, account)


def input_weight(wallet: Wallet) -> int:
    """Return what an input that spends a coin of *wallet* weighs at most."""
    if not wallet.cosigners:
        return KEY_HASH_INPUT_WEIGHT
    script = 3 + 34 * len(wallet.cosigners)
    witness = 2 + wallet.required * SIGNATURE_WEIGHT + len(encode_size(script)) + script
    return INPUT_WEIGHT + witness
