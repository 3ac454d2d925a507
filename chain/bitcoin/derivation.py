"""Addresses of a wallet from its account key, derived twice, by two implementations.

``m / 84' / coin' / account'`` is the account; its addresses are ``account / branch / index`` and pay
to the hash of one key. Sources: BIP 84; SLIP-44 (coin types); BIP 380 and 382 (descriptors).

What is shown to anybody comes from `derive_checked`: ours derives over coincurve, embit brings its
own base58, its own BIP 32, its own binding of the curve and its own bech32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

from embit.base import EmbitError
from embit.bip32 import HDKey
from embit.networks import NETWORKS as EMBIT_NETWORKS
from embit.script import p2wpkh

from chain.bitcoin.addresses import address_of
from chain.bitcoin.bech32 import LETTERS
from chain.bitcoin.networks import MAIN, Network
from chain.bitcoin.scripts import witness_key_hash_script
from chain.errors import BadKey, DerivationDisagrees
from chain.keys.account import BRANCHES, AccountKey, parse_path
from chain.keys.bip32 import HARDENED, ExtendedPublicKey

PURPOSE: Final = 84
GIVEN_OUT: Final = 0
CHANGE: Final = 1

DESCRIPTOR_LETTERS: Final = (
    "0123456789()[],'/*abcdefgh@:$%{}"
    "IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~"
    'ijklmnopqrstuvwxyzABCDEFGH`#"\\ '
)
"""BIP 380, "Character Set"."""
_GENERATOR: Final = (0xF5DEE51989, 0xA9FDCA3312, 0x1BAB10E32D, 0x3706B1677A, 0x644D626FFD)


@dataclass(frozen=True, slots=True)
class SegwitAccount:
    """The account key of one wallet on one network; derives its scripts and addresses."""

    account: AccountKey
    network: Network
    path: str
    _branches: dict[int, ExtendedPublicKey] = field(default_factory=dict, compare=False)

    @classmethod
    def parse(cls, xpub: str, *, network: Network, path: str) -> Self:
        """Read the account's ``xpub…``.

        Raises:
            BadKey: not a valid account key, not the one at *path*, or *path* is not of BIP 84 and
                this network.
        """
        wanted = (PURPOSE + HARDENED, network.coin_type + HARDENED)
        if parse_path(path)[:2] != wanted:
            raise BadKey(
                f"{path} is not an account of BIP 84 on {network.name}",
                remedy=f"Export m/{PURPOSE}'/{network.coin_type}'/0'",
            )
        return cls(AccountKey.parse(xpub, path=path), network, path)

    def public_key(self, branch: int, index: int) -> bytes:
        """Return the compressed key at ``branch/index``."""
        if branch not in BRANCHES:
            raise BadKey(f"a wallet has branches 0 and 1, not {branch}")
        if branch not in self._branches:
            self._branches[branch] = self.account.key.child(branch)
        return self._branches[branch].child(index).public_key

    def script(self, branch: int, index: int) -> bytes:
        """Return the output script of ``branch/index``: what a watcher looks for."""
        return witness_key_hash_script(self.public_key(branch, index))

    def address(self, branch: int, index: int) -> str:
        """Return the address at ``branch/index``; see `derive_checked`."""
        address = address_of(self.script(branch, index), self.network)
        assert address is not None  # a key hash always has one
        return address

    def descriptor(self, branch: int) -> str:
        """Return the output descriptor of a branch, for the operator's own node or wallet.

        With the fingerprint of the account's parent unknown, the key has no origin. On a test network it
        is written as such nodes want it: ``tpub…``.
        """
        key = self.account.key.serialize(test=self.network is not MAIN)
        text = f"wpkh({key}/{branch}/*)"
        return f"{text}#{descriptor_checksum(text)}"


def derive_checked(xpub: str, branch: int, index: int, *, network: Network, path: str) -> str:
    """Return the address at ``branch/index`` of an account key, as two libraries derive it.

    Raises:
        BadKey: *xpub* is not a valid account key of *path*, or the step is not possible.
        DerivationDisagrees: the second library derives another address, or refuses the key.
    """
    address = SegwitAccount.parse(xpub, network=network, path=path).address(branch, index)
    second = _second_opinion(xpub, branch, index, network)
    if second != address:
        raise DerivationDisagrees(
            f"child {branch}/{index} is {address} by one library and {second} by another",
            remedy="Give out no address of this key until it is understood why",
        )
    return address


def _second_opinion(xpub: str, branch: int, index: int, network: Network) -> str:
    try:
        key = HDKey.from_string(xpub).derive([branch, index]).key
        return str(p2wpkh(key).address(EMBIT_NETWORKS[network.name]))
    except (EmbitError, ValueError) as error:
        return f"refused ({error})"


def descriptor_checksum(text: str) -> str:
    """Return the eight letters that follow a descriptor's ``#`` (BIP 380, "Checksum").

    Raises:
        BadKey: a letter that no descriptor has.
    """
    symbols: list[int] = []
    groups: list[int] = []
    for letter in text:
        place = DESCRIPTOR_LETTERS.find(letter)
        if place < 0:
            raise BadKey(f"{letter!r} does not occur in a descriptor")
        symbols.append(place & 31)
        groups.append(place >> 5)
        if len(groups) == 3:
            symbols.append(groups[0] * 9 + groups[1] * 3 + groups[2])
            groups.clear()
    if groups:
        symbols.append(groups[0] if len(groups) == 1 else groups[0] * 3 + groups[1])
    remainder = 1
    for symbol in (*symbols, *[0] * 8):
        top = remainder >> 35
        remainder = (remainder & 0x7FFFFFFFF) << 5 ^ symbol
        for place, part in enumerate(_GENERATOR):
            remainder ^= part if top >> place & 1 else 0
    remainder ^= 1
    return "".join(LETTERS[remainder >> 5 * (7 - place) & 31] for place in range(8))
