"""Keys inside a PKCS#11 token: a hardware module, or SoftHSM in tests. They never leave it.

One secp256k1 key for each sending address, found by its label; nothing is derived. A key that could
be taken out, or that came from outside, is refused when the token is opened.

Sources: PKCS #11 base specification 2.40 (attributes; table 15) and its current mechanisms (EC keys:
``CKA_EC_POINT`` is a DER octet string; ECDSA without hashing gives r || s); SEC 2, section 2.4.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar, cast

import pkcs11
from coincurve import PublicKey
from pkcs11 import (
    Attribute,
    KeyType,
    Mechanism,
    MechanismFlag,
    ObjectClass,
    PKCS11Error,
    Session,
    Token,
)
from pkcs11.exceptions import (
    NoSuchKey,
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
)

from custody.signer.backends.port import DIGEST_BYTES, Signature, low_s
from custody.signer.errors import SignerRefused
from kernel.errors import BadInput, OutsideUnavailable, Refused, SecretUnreadable
from kernel.private_files import read_private_file

SECP256K1_OID: Final = bytes.fromhex("06052b8104000a")
"""1.3.132.0.10 in DER: what ``CKA_EC_PARAMS`` of the keys must be."""
POINT_BYTES: Final = 65
DER_HEAD: Final = bytes([0x04, POINT_BYTES])
KEYS_MAX: Final = 1_000
LABEL_LENGTH_MAX: Final = 64
WRONG_PIN: Final = (PinIncorrect, PinInvalid, PinLenRange, PinLocked, PinExpired)

MUST_BE: Final = {
    Attribute.SENSITIVE: True,
    Attribute.ALWAYS_SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.NEVER_EXTRACTABLE: True,
    Attribute.LOCAL: True,
    Attribute.PRIVATE: True,
    Attribute.TOKEN: True,
    Attribute.SIGN: True,
}
"""A key that was made on the token, that no command reads, and that the PIN protects."""

Result = TypeVar("Result")


class Handle(Protocol):
    """What a token's private key can do; the library's own types leave it open."""

    label: str

    def __getitem__(self, key: Attribute) -> object:
        """Return an attribute of the key."""
        ...

    def sign(self, data: bytes, *, mechanism: Mechanism) -> bytes:
        """Return the token's signature."""
        ...


class Library(Protocol):
    """A loaded module."""

    def reinitialize(self) -> None:
        """Forget all sessions and start anew."""
        ...

    def get_token(self, *, token_label: str) -> Token:
        """Return the only token of that label."""
        ...


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key of the open session: the handle of its private half, and its public half."""

    handle: Handle
    public: bytes


@dataclass(slots=True, repr=False)
class TokenKeys:
    """A token's keys; implements `custody.signer.backends.port.KeyBackend`.

    One session at a time. When the token is lost (unplugged, restarted, a cut network), the session
    is opened again, once for each question; a wrong PIN is never tried twice, because tokens lock.
    """

    module: Path
    token: str
    pin: Path
    session: Session | None = field(default=None)
    keys: dict[str, TokenKey] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    pin_refused: bool = field(default=False)

    def __repr__(self) -> str:
        return f"TokenKeys({self.token!r}, …)"

    @classmethod
    @contextmanager
    def open(cls, module: Path, token: str, pin: Path) -> Iterator[TokenKeys]:
        """Open the token for as long as the context is.

        Args:
            module: the maker's PKCS#11 library.
            token: the token's label.
            pin: file of mode 0600 with the user's PIN.

        Raises:
            SecretUnreadable: the PIN is wrong, or a key on the token is not safe there.
            OutsideUnavailable: there is no such token.
        """
        opened = cls(module, token, pin)
        try:
            opened._open()
            yield opened
        finally:
            opened.close()

    @property
    def key_id(self) -> str:
        """The token's label."""
        return self.token

    def serves(self, path: str) -> bool:
        """Tell whether *path* can be the label of a key, not a path of derivation."""
        return not path.startswith("m/")

    def account_xpub(self, path: str) -> str:
        """Refuse: a token holds single keys."""
        raise SignerRefused(
            f"token {self.token} derives no keys, so it has no account {path}",
            remedy="Ask for the public key of a label",
        )

    def public_key(self, path: str) -> bytes:
        """Return the public key of the key labelled *path*, 65 bytes."""
        return self._with_key(path, lambda key: key.public)

    def sign_digest(self, path: str, digest: bytes) -> Signature:
        """Sign a 32-byte hash; the token draws its own randomness, so no two are the same."""
        if len(digest) != DIGEST_BYTES:
            raise BadInput(f"what is signed is a hash of {DIGEST_BYTES} bytes")
        return self._with_key(path, lambda key: _sign(key.handle, key.public, digest))

    def labels(self) -> list[str]:
        """Return the labels of the signing keys, sorted."""
        return self._again_if_lost(lambda session: sorted(_private_keys(session)))

    def make_key(self, label: str) -> bytes:
        """Make a key on the token and return its public key, 65 bytes."""
        if not 0 < len(label) <= LABEL_LENGTH_MAX or not label.isprintable():
            raise BadInput(f"a label has 1 to {LABEL_LENGTH_MAX} printable letters")
        if not self.serves(label):
            raise BadInput(f"{label} would be taken for a path of derivation")
        if label in self.labels():
            raise Refused(f"{label} is there already", where=f"token {self.token}")
        with (
            self._errors(),
            self._library().get_token(token_label=self.token).open(rw=True) as session,
        ):
            _generate(session, label)
        return self.public_key(label)

    def close(self) -> None:
        """Close the session, if the token still knows it."""
        session, self.session = self.session, None
        self.keys.clear()
        if session is not None:
            try:
                session.close()
            except PKCS11Error:
                return  # It was lost with the token.

    def _with_key(self, label: str, use: Callable[[TokenKey], Result]) -> Result:
        return self._again_if_lost(lambda session: use(self._key(session, label)))

    def _again_if_lost(self, use: Callable[[Session], Result]) -> Result:
        """Return what *use* gives, after one more try in a new session if the token was lost."""
        if self.session is not None:
            try:
                return use(self.session)
            except PKCS11Error:
                self.close()
        # A signature that was lost with the session was seen by nobody.
        session = self._open_again()
        with self._errors():
            return use(session)

    def _open_again(self) -> Session:
        try:
            return self._open()
        except SecretUnreadable as error:
            # The token's trouble, not the payment's: it can be asked for again later.
            raise OutsideUnavailable(error.what, where=error.where, remedy=error.remedy) from error

    def _open(self) -> Session:
        if self.pin_refused:
            raise SecretUnreadable(
                f"token {self.token} refused the PIN before",
                remedy=f"Correct {self.pin} and start the signer again",
            )
        self.close()
        pin = read_private_file(self.pin).decode().strip()
        with self._errors():
            library = self._library()
            # After a token was lost, some modules find it again only when they start anew.
            library.reinitialize()
            self.session = library.get_token(token_label=self.token).open(user_pin=pin)
            for label, key in _private_keys(self.session).items():
                require_safe(label, key)
                self.seen.add(label)
            return self.session

    def _key(self, session: Session, label: str) -> TokenKey:
        known = self.keys.get(label)
        if known is None:
            private = _private_keys(session, label).get(label)
            if private is None and label in self.seen:
                # Not "there is no such key", which would end a payment for good.
                raise NoSuchKey(label)
            if private is None:
                raise SignerRefused(f"token {self.token} has no key {label}")
            require_safe(label, private)
            known = TokenKey(private, _public_point(session, label))
            # Whoever knows the PIN can put another public key beside a private one: an address
            # given out for it would be somebody else's.
            _sign(known.handle, known.public, hashlib.sha256(label.encode()).digest())
            self.keys[label] = known
            self.seen.add(label)
        return known

    def _library(self) -> Library:
        return cast("Library", pkcs11.lib(str(self.module)))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except WRONG_PIN as error:
            self.pin_refused = True
            self.close()
            raise SecretUnreadable(
                f"token {self.token} refuses the PIN: {type(error).__name__}",
                where=str(self.pin),
                remedy="It is not tried again, because tokens lock after a few tries",
            ) from error
        except PKCS11Error as error:
            self.close()
            raise OutsideUnavailable(
                f"token {self.token} does not answer: {type(error).__name__}",
                where=str(self.module),
                remedy="Is it plugged in, and is its module configured?",
            ) from error
        except SecretUnreadable:
            self.close()
            raise


def require_safe(label: str, key: Handle) -> None:
    """Refuse a key that could be read, or that was ever outside.

    Raises:
        SecretUnreadable: names the attribute that is wrong.
    """
    if key[Attribute.EC_PARAMS] != SECP256K1_OID:
        raise SecretUnreadable(f"key {label} is on another curve than secp256k1")
    for attribute, must_be in MUST_BE.items():
        if key[attribute] is not must_be:
            raise SecretUnreadable(
                f"key {label} is not safe on its token: {attribute.name} is not {must_be}",
                remedy="Make a new key on the token, and move what this one holds to it",
            )


def unwrap_point(encoded: bytes) -> bytes:
    """Return ``04 || x || y`` of a DER octet string, proved to lie on the curve.

    Raises:
        SecretUnreadable: anything else.
    """
    if len(encoded) != len(DER_HEAD) + POINT_BYTES or not encoded.startswith(DER_HEAD):
        raise SecretUnreadable(f"a public key of {len(encoded)} bytes is no octet string of 65")
    try:
        return bytes(PublicKey(encoded[len(DER_HEAD) :]).format(compressed=False))
    except ValueError as error:
        raise SecretUnreadable("the token's public key is not a point on the curve") from error


def read_signature(raw: bytes, public: bytes, digest: bytes) -> Signature:
    """Return a token's ``r || s`` with s made low and the parity by which *public* is recovered.

    Tokens tell no parity: both are tried (SEC 1, section 4.1.6).

    Raises:
        OutsideUnavailable: it is not a signature of *digest* by that key.
    """
    if len(raw) == 2 * DIGEST_BYTES:
        r, s = int.from_bytes(raw[:DIGEST_BYTES], "big"), int.from_bytes(raw[DIGEST_BYTES:], "big")
        for parity in (0, 1):
            if _recover(raw, parity, digest) == public:
                return low_s(r, s, parity)
    raise OutsideUnavailable(
        "the token gave what is no signature by this key", remedy="Nothing it signs can be used"
    )


def _sign(handle: Handle, public: bytes, digest: bytes) -> Signature:
    return read_signature(handle.sign(digest, mechanism=Mechanism.ECDSA), public, digest)


def _recover(raw: bytes, parity: int, digest: bytes) -> bytes | None:
    try:
        key = PublicKey.from_signature_and_message(raw + bytes([parity]), digest, hasher=None)
    except ValueError:
        return None
    return bytes(key.format(compressed=False))


def _private_keys(session: Session, label: str | None = None) -> dict[str, Handle]:
    """Return the token's EC signing keys by label, at most `KEYS_MAX`."""
    wanted: dict[Attribute, object] = {
        Attribute.CLASS: ObjectClass.PRIVATE_KEY,
        Attribute.KEY_TYPE: KeyType.EC,
    }
    if label is not None:
        wanted[Attribute.LABEL] = label
    found: dict[str, Handle] = {}
    for item in session.get_objects(wanted):
        key = cast("Handle", item)
        if key.label in found:
            raise SecretUnreadable(f"two keys on the token are called {key.label}")
        if len(found) >= KEYS_MAX:
            raise SecretUnreadable(f"more than {KEYS_MAX} keys on the token")
        found[key.label] = key
    return found


def _public_point(session: Session, label: str) -> bytes:
    wanted = {
        Attribute.CLASS: ObjectClass.PUBLIC_KEY,
        Attribute.KEY_TYPE: KeyType.EC,
        Attribute.LABEL: label,
    }
    keys = list(session.get_objects(wanted))
    if len(keys) != 1:
        raise SecretUnreadable(f"{len(keys)} public keys on the token are called {label}")
    return unwrap_point(keys[0][Attribute.EC_POINT])


def _generate(session: Session, label: str) -> None:
    curve = session.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: SECP256K1_OID}, local=True
    )
    curve.generate_keypair(
        store=True,
        label=label,
        id=hashlib.sha256(label.encode()).digest()[:8],
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
        private_template={
            Attribute.EXTRACTABLE: False,
            Attribute.SENSITIVE: True,
            Attribute.PRIVATE: True,
            Attribute.MODIFIABLE: False,
        },
        public_template={Attribute.MODIFIABLE: False},
    )
