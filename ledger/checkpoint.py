"""A checkpoint: what the whole journal is, in four lines that anybody can check.

The text is that of C2SP tlog-checkpoint (https://c2sp.org/tlog-checkpoint), signed as a C2SP
signed note (https://c2sp.org/signed-note) with Ed25519::

    example.org/ledger/1
    4711
    qINS1GRFhWHwdkUeqLEoP4yEMkTBBzxBkGwGQlVlVcs=

    — example.org/ledger BASE64(key id, 4 bytes || signature, 64 bytes)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kernel.errors import BadInput, Refused
from ledger.merkle import HASH_SIZE

_ED25519: Final = b"\x01"
_SIGNATURE_PREFIX: Final = "\N{EM DASH} "


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The size and root of a book's tree; *origin* says which book of whom."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def origin_of(entity: str, book: int) -> str:
    """Return what a checkpoint calls the journal of a book; it is also the name of the key."""
    return f"{quote(entity, safe='')}/book/{book}"


def verifier_key(name: str, key: Ed25519PublicKey) -> str:
    """Return a public key as one line of text, as C2SP signed-note writes it."""
    encoded = base64.b64encode(_ED25519 + key.public_bytes_raw()).decode()
    return f"{name}+{_key_id(name, key).hex()}+{encoded}"


def parse_verifier_key(text: str) -> tuple[str, Ed25519PublicKey]:
    """Read such a line: the key's name, and the key.

    Raises:
        BadInput: not a verifier key, or its hash is not that of its name and key.
    """
    fields = text.strip().split("+", 2)
    try:
        name, key_id, encoded = fields
        decoded = base64.b64decode(encoded, validate=True)
        key = Ed25519PublicKey.from_public_bytes(decoded[1:])
    except (ValueError, binascii.Error) as error:
        raise BadInput("a verifier key is NAME+HASH+KEY") from error
    if decoded[:1] != _ED25519 or _key_id(name, key).hex() != key_id:
        raise BadInput("the verifier key is not of Ed25519, or its hash is not its own")
    return name, key


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey, *, name: str) -> str:
    """Return the signed note; *name* says whose key it is (no spaces, no ``+``)."""
    if not name or " " in name or "+" in name or not name.isprintable():
        raise BadInput(f"{name!r} cannot name a key")
    text = checkpoint.text()
    signature = _key_id(name, key.public_key()) + key.sign(text.encode())
    return f"{text}\n{_SIGNATURE_PREFIX}{name} {base64.b64encode(signature).decode()}\n"


def verify(note: str, public_key: Ed25519PublicKey, *, name: str) -> Checkpoint:
    """Return the checkpoint of a note that *name* has signed.

    Raises:
        BadInput: not a checkpoint.
        Refused: no valid signature by that key.
    """
    text, separator, signatures = note.rpartition("\n\n")
    if not separator:
        raise BadInput("a checkpoint has a blank line before its signatures")
    text += "\n"
    checkpoint = _parse(text)
    wanted = _key_id(name, public_key)
    for line in signatures.splitlines():
        signature = _signature(line, name)
        if signature is None or not signature.startswith(wanted):
            continue
        try:
            public_key.verify(signature[len(wanted) :], text.encode())
        except InvalidSignature as error:
            raise Refused(f"the signature of {name} is not over this checkpoint") from error
        return checkpoint
    raise Refused(f"the checkpoint is not signed by {name}")


def read_unsigned(note: str) -> Checkpoint:
    """Return the checkpoint of a note without looking at its signatures.

    Raises:
        BadInput: not a checkpoint.
    """
    return _parse(note.partition("\n\n")[0] + "\n")


def _parse(text: str) -> Checkpoint:
    lines = text.splitlines()
    if len(lines) < 3 or not lines[0] or not lines[1].isdigit():
        raise BadInput("a checkpoint has an origin, a size and a root")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except binascii.Error as error:
        raise BadInput("the root of a checkpoint is base64") from error
    if len(root) != HASH_SIZE or str(int(lines[1])) != lines[1]:
        raise BadInput("a checkpoint has a decimal size and a root of 32 bytes")
    return Checkpoint(lines[0], int(lines[1]), root)


def _signature(line: str, name: str) -> bytes | None:
    prefix = f"{_SIGNATURE_PREFIX}{name} "
    if not line.startswith(prefix):
        return None
    try:
        return base64.b64decode(line.removeprefix(prefix), validate=True)
    except binascii.Error as error:
        raise BadInput("a signature is base64") from error


def _key_id(name: str, key: Ed25519PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + key.public_bytes_raw()).digest()[:4]
