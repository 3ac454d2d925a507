"""People who sign by hand: their seeds, the wallets that they share, and their signatures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chain.bitcoin.digests import SIGHASH_ALL, signing_digests
from chain.bitcoin.multisig import MultisigAccount
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.psbt import Psbt, spent_outputs
from chain.bitcoin.psbt_finish import add_signatures
from chain.bitcoin.signing import encode_signature
from chain.keys.base58 import decode_base58check, encode_base58check
from chain.keys.hashes import hash160
from chain.simulators.bitcoind import Bitcoind
from custody.bitcoin.cold_keys import WalletKeys, keys_of
from custody.signer.hd_keys import PrivateNode
from registry.model import BITCOIN, Chain, Wallet, WalletPurpose

CHAIN = Chain("bitcoin", BITCOIN, REGTEST.network_id, "BTC")
SINGLE_PATH = "m/84'/1'/5'"
SHARED_PATH = "m/48'/1'/0'/2'"
TPRV = bytes.fromhex("04358394")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a seed on a device of their own."""

    root: PrivateNode

    @classmethod
    def named(cls, name: str) -> Person:
        return cls(PrivateNode.from_seed(name.encode().ljust(32, b".")))

    def cosigner(self) -> str:
        fingerprint = hash160(self.root.public_key)[:4].hex()
        return f"[{fingerprint}/{SHARED_PATH[2:]}]{self.root.derive(SHARED_PATH).xpub()}"

    def tprv(self, path: str) -> str:
        """The account's private key as a node on regtest reads it."""
        node = self.root.derive(path)
        public = decode_base58check(node.xpub())
        return encode_base58check(TPRV + public[4:45] + b"\0" + node.secret)

    def sign(self, psbt: Psbt, keys: WalletKeys, account: str) -> Psbt:
        """The file with this person's signatures, as a careful device makes it."""
        spent = spent_outputs(psbt)
        digests = signing_digests(psbt.transaction, spent)
        signatures = []
        for known, found, digest in zip(psbt.inputs, spent, digests, strict=True):
            place = keys.find_place(found.output.script, known)
            assert place is not None
            node = self.root.derive(f"{account}/{place[0]}/{place[1]}")
            made = node.sign(digest)
            assert encode_signature(made.r, made.s)[-1] == SIGHASH_ALL
            signatures.append({node.public_key: encode_signature(made.r, made.s)})
        return add_signatures(psbt, signatures)


ANN, BEN, CLEO = PEOPLE = tuple(Person.named(name) for name in ("ann", "ben", "cleo"))


def shared_wallet(code: str = "btc-vault", owner: str = "house", **changes: object) -> Wallet:
    """Two of three people sign for it."""
    return Wallet(
        code,
        CHAIN.code,
        owner,
        WalletPurpose.HOT,
        account_path="m/48'/1'/0'",
        cosigners=tuple(sorted(item.cosigner() for item in PEOPLE)),
        required=2,
    )


def single_wallet(code: str = "btc-cold") -> Wallet:
    return Wallet(
        code,
        CHAIN.code,
        "house",
        WalletPurpose.HOT,
        ANN.root.derive(SINGLE_PATH).xpub(),
        SINGLE_PATH,
    )


def keys(wallet: Wallet) -> WalletKeys:
    return keys_of(CHAIN, wallet)


def signed_by(psbt: Psbt, wallet: Wallet, people: Sequence[Person]) -> list[Psbt]:
    account = SHARED_PATH if wallet.cosigners else SINGLE_PATH
    return [person.sign(psbt, keys(wallet), account) for person in people]


# What a real node signs with.


def descriptors(wallet: Wallet, person: Person) -> list[str]:
    """The wallet's two branches as the node of one person knows them: with their private key."""
    if not wallet.cosigners:
        return [f"wpkh({person.tprv(SINGLE_PATH)}/{branch}/*)" for branch in (0, 1)]
    account = keys(wallet).account
    assert isinstance(account, MultisigAccount)
    mine = person.root.derive(SHARED_PATH).xpub()
    found = []
    for branch in (0, 1):
        text = account.descriptor(branch).partition("#")[0]
        for item in account.cosigners:
            if item.key.serialize() == mine:
                text = text.replace(item.key.serialize(test=True), person.tprv(SHARED_PATH))
        found.append(text)
    return found


async def load_wallet(node: Bitcoind, name: str, texts: list[str]) -> Callable[..., Any]:
    """Make a wallet of the node's own with these descriptors; return a door to its calls."""
    await node.call("createwallet", name, False, True)
    door = replace(node, url=f"{node.url}/wallet/{name}")
    wanted = []
    for branch, text in enumerate(texts):
        info = await node.call("getdescriptorinfo", text)
        # The checksum in the answer is that of the public form.
        wanted.append(
            {
                "desc": f"{text}#{info['checksum']}",
                "active": True,
                "internal": bool(branch),
                "range": [0, 20],
                "timestamp": 0,
            }
        )
    imported = await door.call("importdescriptors", wanted)
    assert all(item["success"] for item in imported), imported
    return door.call
