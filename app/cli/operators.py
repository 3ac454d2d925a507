"""Who gives a command: a named operator, shown by the private half of an enrolled Ed25519 key.

The key file holds 32 bytes as 64 hexadecimal digits and is readable by its owner alone. It is the
key of a person, never one of a chain.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kernel.errors import BadInput, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from sqlalchemy.ext.asyncio import AsyncConnection

    from registry.model import Operator, Role

As = Annotated[
    str, typer.Option("--as", metavar="CODE", help="The operator who gives the command.")
]
Key = Annotated[
    Path, typer.Option("--key", metavar="FILE", help="That operator's Ed25519 private key.")
]
Approver = Annotated[
    str, typer.Option("--approver", metavar="CODE", help="A second operator, who signs it.")
]
ApproverKey = Annotated[
    Path, typer.Option("--approver-key", metavar="FILE", help="The second operator's key.")
]

KEY_BYTES: Final = 32
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Person:
    """An operator as registered, with the key that signs for them."""

    operator: Operator
    key: Ed25519PrivateKey

    @property
    def code(self) -> str:
        """Return the operator's code."""
        return self.operator.code

    def sign(self, payload: bytes) -> bytes:
        """Return the Ed25519 signature of *payload*."""
        return self.key.sign(payload)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who somebody says they are, and the key that shows it."""

    code: str
    key: Ed25519PrivateKey

    async def person(self, conn: AsyncConnection, *roles: Role) -> Person:
        """Return the operator, if the key is theirs and they have one of *roles* (none: any).

        Raises:
            Refused: unknown, inactive, another key, or without the role.
        """
        from registry.authority import require_role
        from registry.queries import get_operator

        operator = await get_operator(conn, self.code)
        if self.key.public_key().public_bytes_raw() != operator.public_key:
            raise Refused(
                f"the key is not the one that is enrolled for {self.code}",
                remedy="Give that operator's own key with --key, or enrol the new one",
            )
        if not operator.active:
            raise Refused(f"{self.code} is not active")
        if roles:
            require_role(operator, *roles)
        return Person(operator, self.key)


async def people_of(conn: AsyncConnection, both: Sequence[Credentials]) -> list[Person]:
    """Return the operators behind credentials.

    Raises:
        Refused: one is unknown, inactive, or has another key.
    """
    return [await item.person(conn) for item in both]


def signatures_of(people: Sequence[Person], payload: bytes) -> dict[str, bytes]:
    """Return what each of these people signs of one payload, by operator code."""
    return {person.code: person.sign(payload) for person in people}


def credentials(code: str, key: Path) -> Credentials:
    """Read a key file, before anything else is done."""
    return Credentials(code, read_key(key))


def read_key(path: Path) -> Ed25519PrivateKey:
    """Read an operator's private key.

    Raises:
        BadInput: no such file, others may read it, or it does not hold 64 hexadecimal digits.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        mode = path.stat().st_mode
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            "the operator's key cannot be read", where=str(path), remedy="Name its file with --key"
        ) from error
    if mode & OTHERS:
        raise BadInput(
            "others may read the operator's key", where=str(path), remedy=f"chmod 600 {path}"
        )
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise BadInput(
            "the file does not hold an Ed25519 private key",
            where=str(path),
            remedy=f"It holds {KEY_BYTES} bytes as {2 * KEY_BYTES} hexadecimal digits",
        )
    return Ed25519PrivateKey.from_private_bytes(secret)


def make_key(path: Path) -> bytes:
    """Write a fresh private key that only its owner can read; return the public half, 32 bytes.

    Raises:
        BadInput: the file exists (a key is never overwritten) or cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    write_private(path, key.private_bytes_raw().hex() + "\n")
    return key.public_key().public_bytes_raw()


def write_private(path: Path, text: str) -> None:
    """Write a file with mode 0600, never over an existing one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise BadInput(
            f"the file cannot be written: {error.strerror}",
            where=str(path),
            remedy="Name a file that does not exist yet",
        ) from error
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
