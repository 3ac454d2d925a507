"""The life of a signing key: made before witnesses, backed up as shares, proved to come back.

A ceremony makes a seed, splits it into SLIP-39 shares and seals it into a keystore. Its transcript
says all that others have to know, and no secret: extended public keys, fingerprints, known-answer
addresses, who holds which share. A drill proves from shares and transcript alone that the backup
works, and keeps nothing.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
from coincurve import PublicKey
from embit.bip32 import HDKey

from chain.bitcoin.addresses import address_of
from chain.bitcoin.derivation import derive_checked as derive_bitcoin
from chain.bitcoin.networks import MAIN, TEST, Network
from chain.bitcoin.scripts import witness_key_hash_script
from chain.errors import DerivationDisagrees
from chain.evm.addresses import address_of_public_key
from chain.keys.account import AccountKey
from chain.keys.checked import derive_checked
from custody.signer.backends.local import LocalKeys
from custody.signer.backends.pkcs11 import TokenKeys
from custody.signer.backends.ring import open_seed
from custody.signer.entropy import make_seed
from custody.signer.hd_keys import PrivateNode
from custody.signer.keystore import Sealed, read_keystore, rotate_kek, seal, write_keystore
from custody.signer.slip39 import PersonalShare, Scheme, check_of, combine, parse_scheme, split
from kernel.clock import iso
from kernel.envelope import KEY_BYTES, kek_id_of, wipe
from kernel.errors import BadInput, Refused
from kernel.private_files import read_kek, write_new_file

KIND: Final = "causeway key ceremony"
FORMAT: Final = 1
ACCOUNTS_MAX: Final = 32
TRANSCRIPT_BYTES_MAX: Final = 65_536
KNOWN_ANSWERS: Final = ((0, 0), (1, 0), (1, 1))
"""Branch and index of the addresses that a transcript records."""
LIBRARIES: Final = ("coincurve", "cryptography", "embit", "shamir-mnemonic")

Random = Callable[[int], bytes]
"""Gives that many bytes nobody can guess."""


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What anybody may know of an account, by which a restored seed is compared.

    Attributes:
        fingerprint: eight hexadecimal digits by which people compare keys aloud.
        addresses: known answers, by their paths.
    """

    path: str
    xpub: str
    fingerprint: str
    addresses: dict[str, str]


class ShareNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who holds a share; *check* tells it from the others (`custody.signer.slip39.check_of`)."""

    holder: str
    group: str
    number: int
    check: str


class Transcript(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The record of a ceremony. It holds no secret: print it, sign it, keep copies."""

    kind: str
    format: int
    made_at: str
    key_id: str
    kek_id: str
    keystore_sha256: str
    scheme: str
    entropy: list[str]
    shares: list[ShareNote]
    accounts: list[Account]
    libraries: dict[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a ceremony is to make.

    Attributes:
        accounts: numbers of the BIP 44 accounts that the seed is for.
        holders: who gets the shares, in the order of the scheme's groups.
    """

    key_id: str
    accounts: tuple[int, ...]
    scheme: Scheme
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Made:
    """A ceremony's results, before anything is written."""

    sealed: Sealed
    shares: tuple[PersonalShare, ...]
    transcript: Transcript

    def __repr__(self) -> str:
        return f"Made({self.sealed.key_id!r}, …)"


@dataclass(frozen=True, slots=True)
class Drilled:
    """A backup that gave the same keys again.

    Attributes:
        holders: whose shares did it.
    """

    key_id: str
    holders: tuple[str, ...]
    xpubs: int
    addresses: int


def perform(
    plan: Plan, kek: Path, *, random: Random, now: datetime, brought: Sequence[str] = ()
) -> Made:
    """Make a seed and everything that comes of it; writes nothing.

    Args:
        kek: file of the key that seals the keystore.
        brought: rolls of dice or hexadecimal digits that people mix in.

    Raises:
        BadInput: the plan is impossible, or what was brought is not random.
        DerivationDisagrees: two libraries derive different keys from the seed.
    """
    check_plan(plan)
    key = read_kek(kek)
    seed = bytearray(make_seed(random, "".join(brought)))
    try:
        accounts = describe(seed, plan.accounts)
        shares = split(bytes(seed), plan.scheme, plan.holders)
        sealed = seal(seed, key, key_id=plan.key_id, random=random, accounts=plan.accounts)
    finally:
        wipe(seed)
    transcript = Transcript(
        kind=KIND,
        format=FORMAT,
        made_at=iso(now),
        key_id=plan.key_id,
        kek_id=sealed.kek_id,
        keystore_sha256=hashlib.sha256(msgspec.json.encode(sealed)).hexdigest(),
        scheme=str(plan.scheme),
        entropy=["operating system", *(["brought by people"] if brought else [])],
        shares=[ShareNote(item.holder, item.group, item.number, item.check) for item in shares],
        accounts=accounts,
        libraries={name: version(name) for name in LIBRARIES},
    )
    return Made(sealed, shares, transcript)


def check_plan(plan: Plan) -> None:
    """Refuse a plan without accounts, or with impossible ones."""
    numbers = plan.accounts
    if not 0 < len(numbers) <= ACCOUNTS_MAX or len(set(numbers)) != len(numbers):
        raise BadInput(f"a seed is for 1 to {ACCOUNTS_MAX} different accounts")
    if not plan.key_id or not plan.key_id.isprintable() or len(plan.key_id) > 64:
        raise BadInput("a key has a name of 1 to 64 printable letters")
    for holder in plan.holders:
        if not holder or not holder.isprintable() or "/" in holder:
            raise BadInput("a holder has a printable name")


def keep(made: Made, keystore: Path, transcript: Path) -> None:
    """Write the transcript, then the keystore; never over existing files.

    Called when every share is with its holder: a seed without its backup is not put to use.
    """
    require_new(keystore, transcript)
    write_new_file(transcript, encode_transcript(made.transcript))
    write_keystore(keystore, made.sealed)


def require_new(*paths: Path) -> None:
    """Refuse before anything is done what would fail when it is written."""
    for path in paths:
        if path.exists():
            raise Refused("a file is there already", where=str(path), remedy="Name another file")
        if not path.parent.is_dir():
            raise BadInput("there is no such folder", where=str(path.parent))


def drill(transcript: Transcript, words: Sequence[str], *, random: Random) -> Drilled:
    """Prove that these shares restore the keys of the ceremony, and keep nothing.

    The seed goes through a keystore of its own, in a folder that is gone when this returns: what is
    compared is what a signer would have after a restoration.

    Raises:
        BadInput: shares that are not of this ceremony, or not as many as are needed.
        Refused: the keys that come back are others.
    """
    with tempfile.TemporaryDirectory(prefix="causeway-drill-") as name:
        folder = Path(name)
        make_kek(folder / "kek", random=random)
        holders = restore(transcript, words, folder / "keystore", folder / "kek", random=random)
    accounts = transcript.accounts
    return Drilled(
        key_id=transcript.key_id,
        holders=holders,
        xpubs=len(accounts),
        addresses=sum(len(account.addresses) for account in accounts),
    )


def restore(
    transcript: Transcript, words: Sequence[str], keystore: Path, kek: Path, *, random: Random
) -> tuple[str, ...]:
    """Write a keystore from shares, if they give the keys of the transcript; return the holders.

    Raises:
        BadInput: shares that are not of this ceremony, or not as many as are needed.
        Refused: the keys that come back are others; nothing is written.
    """
    holders = holders_of(transcript, words)
    require_new(keystore)
    numbers = account_numbers(transcript)
    seed = combine(words)
    try:
        require_same(describe(seed, numbers), transcript.accounts)
        key = read_kek(kek)
        write_keystore(
            keystore, seal(seed, key, key_id=transcript.key_id, random=random, accounts=numbers)
        )
    finally:
        wipe(seed)
    restored = open_seed(keystore, kek)
    require_same(describe_accounts(restored, numbers), transcript.accounts)
    return holders


def holders_of(transcript: Transcript, words: Sequence[str]) -> tuple[str, ...]:
    """Return whose shares these are.

    Raises:
        BadInput: one is of another ceremony, or was given twice.
    """
    known = {note.check: note.holder for note in transcript.shares}
    holders = []
    for number, share in enumerate(words, start=1):
        holder = known.get(check_of(share))
        if holder is None:
            raise BadInput(
                f"share {number} is none of this ceremony's, or a word of it is wrong",
                remedy="Read it word by word from the paper",
            )
        holders.append(holder)
    if len(set(holders)) != len(holders):
        raise BadInput("a share was given twice")
    return tuple(holders)


def describe(seed: bytes | bytearray, accounts: Collection[int]) -> list[Account]:
    """Return what the seed's accounts are, derived by two libraries.

    Raises:
        DerivationDisagrees: they do not agree; the seed must not be used.
    """
    keys = LocalKeys("", PrivateNode.from_seed(seed))
    second = HDKey.from_seed(bytes(seed))
    described = []
    for account in describe_accounts(keys, tuple(accounts)):
        other = second.derive(account.path).to_public().to_base58()
        if other != account.xpub:
            raise DerivationDisagrees(
                f"{account.path} is {account.xpub} by one library and {other} by another",
                remedy="Use no key of this seed until it is understood why",
            )
        described.append(account)
    return described


def describe_accounts(keys: LocalKeys, numbers: Sequence[int]) -> list[Account]:
    """Return the accounts of these numbers: on EVM, then on Bitcoin and on its test networks.

    Raises:
        DerivationDisagrees: the two halves, or two libraries, give different addresses.
    """
    found = [describe_account(keys, number) for number in numbers]
    return found + [
        describe_bitcoin_account(keys, number, network)
        for network in (MAIN, TEST)
        for number in numbers
    ]


def describe_bitcoin_account(keys: LocalKeys, number: int, network: Network) -> Account:
    """Return a Bitcoin account's public description (BIP 84), as `describe_account`."""
    path = f"m/84'/{network.coin_type}'/{number}'"
    xpub = keys.account_xpub(path)
    addresses = {}
    for branch, index in KNOWN_ANSWERS:
        place = f"{path}/{branch}/{index}"
        whole = PublicKey(keys.public_key(place)).format(compressed=True)
        address = address_of(witness_key_hash_script(whole), network)
        if address != derive_bitcoin(xpub, branch, index, network=network, path=path):
            raise DerivationDisagrees(f"{place} is another address by its private key")
        addresses[place] = address
    return Account(path, xpub, AccountKey.parse(xpub, path=path).fingerprint, addresses)


def describe_account(keys: LocalKeys, number: int) -> Account:
    """Return an account's public description; each address from its private and its public half.

    Raises:
        DerivationDisagrees: the two halves, or two libraries, give different addresses.
    """
    path = account_path(number)
    xpub = keys.account_xpub(path)
    addresses = {}
    for branch, index in KNOWN_ANSWERS:
        place = f"{path}/{branch}/{index}"
        address = address_of_public_key(keys.public_key(place))
        if address != derive_checked(xpub, branch, index, path=path):
            raise DerivationDisagrees(f"{place} is another address by its private key")
        addresses[place] = address
    return Account(path, xpub, AccountKey.parse(xpub, path=path).fingerprint, addresses)


def require_same(found: list[Account], wanted: list[Account]) -> None:
    """Refuse keys that are not those of the transcript.

    Raises:
        Refused: names the first account that differs.
    """
    for one, other in zip(found, wanted, strict=True):
        if one != other:
            raise Refused(
                f"{other.path} has fingerprint {one.fingerprint}, in the transcript"
                f" {other.fingerprint}",
                remedy="These shares or this transcript are of another key",
            )


def account_path(number: int) -> str:
    """Return the path of an EVM account (BIP 44, coin type 60)."""
    return f"m/44'/60'/{number}'"


def account_numbers(transcript: Transcript) -> tuple[int, ...]:
    """Return the numbers of the transcript's accounts, each once."""
    numbers = (
        int(account.path.rpartition("/")[2].removesuffix("'")) for account in transcript.accounts
    )
    return tuple(dict.fromkeys(numbers))


def encode_transcript(transcript: Transcript) -> bytes:
    """Return the transcript as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(transcript), indent=2) + b"\n"


def read_transcript(path: Path) -> Transcript:
    """Read a transcript.

    Raises:
        BadInput: it is none, or of another format.
    """
    try:
        with path.open("rb") as file:
            read = msgspec.json.decode(file.read(TRANSCRIPT_BYTES_MAX), type=Transcript)
    except OSError as error:
        raise BadInput(f"cannot open it: {error.strerror}", where=str(path)) from error
    except msgspec.DecodeError as error:
        raise BadInput("this is not a transcript of a ceremony", where=str(path)) from error
    if (read.kind, read.format) != (KIND, FORMAT) or not read.accounts:
        raise BadInput("this is not a transcript of a ceremony", where=str(path))
    parse_scheme(read.scheme)
    return read


def make_kek(path: Path, *, random: Random) -> str:
    """Write a fresh key-encryption key with mode 0600; return by which name it is known."""
    kek = random(KEY_BYTES)
    write_new_file(path, kek.hex().encode() + b"\n")
    return kek_id_of(kek)


def change_kek(keystore: Path, old: Path, new: Path, *, random: Random) -> Sealed:
    """Wrap the keystore with the KEK in the file *new*; *old* opens it no more."""
    return rotate_kek(keystore, read_kek(old), read_kek(new), random=random)


def check_keystore(keystore: Path, kek: Path, transcript: Transcript | None = None) -> Sealed:
    """Open a keystore, compare its keys with a transcript, and return the file's public part."""
    sealed = read_keystore(keystore)
    keys = open_seed(keystore, kek)
    if transcript is not None:
        numbers = account_numbers(transcript)
        require_same(describe_accounts(keys, numbers), transcript.accounts)
    return sealed


def make_token_key(module: Path, token: str, pin: Path, label: str) -> str:
    """Make a key on a PKCS#11 token and return its address."""
    with TokenKeys.open(module, token, pin) as keys:
        return address_of_public_key(keys.make_key(label))


def list_token_keys(module: Path, token: str, pin: Path) -> dict[str, str]:
    """Return the addresses of a token's keys by label; each has signed once before."""
    with TokenKeys.open(module, token, pin) as keys:
        return {label: address_of_public_key(keys.public_key(label)) for label in keys.labels()}
