"""Wallets of several keys: ``wsh(sortedmulti(m, …))``, watched from the cosigners' public keys alone.

Each cosigner gives the extended public key of an account, best with its origin
(``[d34db33f/48'/0'/0'/2']xpub…``), so that the device that has the private half finds it again.
Sources: BIP 67 (order of the keys), BIP 380 and 383 (descriptors, ``sortedmulti``), BIP 48 (paths).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from embit.base import EmbitError
from embit.descriptor import Descriptor
from embit.networks import NETWORKS as EMBIT_NETWORKS

from chain.bitcoin.addresses import address_of
from chain.bitcoin.derivation import descriptor_checksum
from chain.bitcoin.networks import MAIN, Network
from chain.bitcoin.scripts import (
    KEY_BYTES,
    MULTISIG_KEYS_MAX,
    OP_1,
    OP_CHECKMULTISIG,
    sorted_multisig_script,
    witness_script_hash_script,
)
from chain.errors import BadKey, BadTransaction, DerivationDisagrees
from chain.keys.account import BRANCHES, parse_path
from chain.keys.bip32 import HARDENED, ExtendedPublicKey

COSIGNERS_MIN: Final = 2

_ORIGIN: Final = re.compile(r"\[([0-9a-f]{8})((?:/(?:0|[1-9]\d{0,9})['h]?)*)\](.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where a key comes from: four bytes that name the master key, and the path from it."""

    fingerprint: bytes
    path: tuple[int, ...] = ()

    def child(self, *numbers: int) -> KeySource:
        """Return the source of a key below."""
        return KeySource(self.fingerprint, (*self.path, *numbers))

    def __str__(self) -> str:
        steps = [f"{step % HARDENED}{chr(39) if step >= HARDENED else ''}" for step in self.path]
        return "/".join([self.fingerprint.hex(), *steps])


@dataclass(frozen=True, slots=True)
class Cosigner:
    """One of the accounts that sign together.

    Attributes:
        source: its origin; where none was given, the key itself is the root, as nodes count it.
        with_origin: an origin was given.
    """

    key: ExtendedPublicKey
    source: KeySource
    with_origin: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``xpub…``, or the same behind its origin in brackets.

        Raises:
            BadKey: not a valid extended public key, or an origin that contradicts it.
        """
        match = _ORIGIN.fullmatch(text)
        if match is None:
            key = ExtendedPublicKey.parse(text)
            return cls(key, KeySource(key.fingerprint), with_origin=False)
        key = ExtendedPublicKey.parse(match[3])
        path = parse_path(f"m{match[2]}")
        if len(path) != key.depth or (path and path[-1] != key.child_number):
            raise BadKey(f"the key is not the one at m{match[2]}, which stands before it")
        return cls(key, KeySource(bytes.fromhex(match[1]), path), with_origin=True)

    def text(self, network: Network) -> str:
        """Return the key as a node of *network* reads it: ``tpub…`` on the test networks."""
        origin = f"[{self.source}]" if self.with_origin else ""
        return f"{origin}{self.key.serialize(test=network is not MAIN)}"


@dataclass(frozen=True, slots=True)
class MultisigAccount:
    """A wallet that *required* of its cosigners sign for together; derives scripts and addresses."""

    cosigners: tuple[Cosigner, ...]
    required: int
    network: Network
    _branches: dict[int, list[ExtendedPublicKey]] = field(default_factory=dict, compare=False)

    @classmethod
    def parse(cls, cosigners: Sequence[str], required: int, *, network: Network) -> Self:
        """Read the cosigners' keys.

        Raises:
            BadKey: one is not valid or stands twice, or an impossible number of them is asked for.
        """
        read = tuple(Cosigner.parse(text) for text in cosigners)
        if len({item.key.public_key for item in read}) != len(read):
            raise BadKey("one key stands for two of the signers")
        if not COSIGNERS_MIN <= len(read) <= MULTISIG_KEYS_MAX or not 0 < required <= len(read):
            raise BadKey(f"{required} of {len(read)} keys cannot be asked for")
        return cls(read, required, network)

    def sources(self, branch: int, index: int) -> dict[bytes, KeySource]:
        """Return the cosigners' compressed keys at ``branch/index``, and where each comes from."""
        if branch not in BRANCHES:
            raise BadKey(f"a wallet has branches 0 and 1, not {branch}")
        if branch not in self._branches:
            self._branches[branch] = [item.key.child(branch) for item in self.cosigners]
        return {
            key.child(index).public_key: item.source.child(branch, index)
            for key, item in zip(self._branches[branch], self.cosigners, strict=True)
        }

    def witness_script(self, branch: int, index: int) -> bytes:
        """Return the script whose hash the address at ``branch/index`` pays."""
        return sorted_multisig_script(self.required, list(self.sources(branch, index)))

    def script(self, branch: int, index: int) -> bytes:
        """Return the output script of ``branch/index``: what a watcher looks for."""
        return witness_script_hash_script(self.witness_script(branch, index))

    def address(self, branch: int, index: int) -> str:
        """Return the address at ``branch/index``; see `derive_multisig_checked`."""
        address = address_of(self.script(branch, index), self.network)
        assert address is not None  # a script hash always has one
        return address

    def descriptor(self, branch: int) -> str:
        """Return the output descriptor of a branch with its checksum."""
        keys = ",".join(f"{item.text(self.network)}/{branch}/*" for item in self.cosigners)
        text = f"wsh(sortedmulti({self.required},{keys}))"
        return f"{text}#{descriptor_checksum(text)}"


def derive_multisig_checked(
    cosigners: Sequence[str], required: int, branch: int, index: int, *, network: Network
) -> str:
    """Return the address at ``branch/index`` of the cosigners, as two libraries derive it.

    Raises:
        BadKey: a key is not valid, or the step is not possible.
        DerivationDisagrees: the second library derives another address, or refuses the descriptor.
    """
    account = MultisigAccount.parse(cosigners, required, network=network)
    address = account.address(branch, index)
    second = _second_opinion(account.descriptor(branch), index, network)
    if second != address:
        raise DerivationDisagrees(
            f"child {branch}/{index} is {address} by one library and {second} by another",
            remedy="Give out no address of these keys until it is understood why",
        )
    return address


def _second_opinion(descriptor: str, index: int, network: Network) -> str:
    try:
        derived = Descriptor.from_string(descriptor.partition("#")[0]).derive(index)
        return str(derived.address(EMBIT_NETWORKS[network.name]))
    except (EmbitError, ValueError) as error:
        return f"refused ({error})"


def parse_multisig(script: bytes) -> tuple[int, tuple[bytes, ...]]:
    """Return how many signatures a multisignature script asks for, and its keys in order.

    Raises:
        BadTransaction: the script is something else, or its keys are not compressed.
    """
    low, step = OP_1 - 1, KEY_BYTES + 1
    count = (len(script) - 3) // step
    keys = tuple(script[2 + step * n : 1 + step * (n + 1)] for n in range(count))
    required = script[0] - low if script else 0
    tail = bytes([low + count, OP_CHECKMULTISIG]) if 0 < count <= MULTISIG_KEYS_MAX else b""
    built = script[:1] + b"".join(bytes([KEY_BYTES]) + key for key in keys) + tail
    if not tail or built != script or not 0 < required <= count:
        raise BadTransaction("the witness script is not one of several compressed keys")
    return required, keys
