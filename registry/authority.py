"""Who may do what, and what exactly was signed. Pure: no operator is loaded here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kernel.clock import iso
from kernel.errors import BadInput
from registry.errors import NotAuthorised
from registry.model import SIGNATURE_BYTES, Operator, Role

SIGNING_DOMAIN: Final = "causeway/1"
"""Stands first in everything that is signed, so that no signature of another program fits."""


def signing_bytes(verb: str, fields: Mapping[str, Any]) -> bytes:
    """Return the bytes an operator signs to say *verb* about *fields*.

    One line of JSON (RFC 8259) in UTF-8: ``{"domain":…,"fields":{…},"verb":…}``, keys sorted by
    code point, no white space, only non-ASCII and control characters escaped. Ids and times are
    text, bytes are lower-case hexadecimal. The same values always give the same bytes, and other
    values never do, except that an id equals its own text.

    Raises:
        BadInput: a value that has no one spelling, such as a float.
    """
    document = {"domain": SIGNING_DOMAIN, "verb": verb, "fields": _plain(fields)}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def verify_signature(operator: Operator, payload: bytes, signature: bytes) -> None:
    """Refuse unless *signature* is the operator's Ed25519 signature (RFC 8032) of *payload*.

    Raises:
        NotAuthorised: it is not, or the operator is not active.
    """
    if not operator.active:
        raise NotAuthorised(
            f"operator {operator.code} is not active", remedy="Ask another operator"
        )
    if len(signature) != SIGNATURE_BYTES:
        raise NotAuthorised(
            f"the signature of {operator.code} has {len(signature)} bytes",
            remedy=f"An Ed25519 signature has {SIGNATURE_BYTES}",
        )
    try:
        Ed25519PublicKey.from_public_bytes(operator.public_key).verify(signature, payload)
    except (InvalidSignature, ValueError) as error:
        raise NotAuthorised(
            f"the signature is not {operator.code}'s, or not of this",
            remedy="Sign the bytes again as they stand now, with the enrolled key",
        ) from error


def signatures_document(signatures: Mapping[str, bytes]) -> dict[str, str]:
    """Return signatures as rows and events keep them: hexadecimal by operator, in order of the codes."""
    return {code: signature.hex() for code, signature in sorted(signatures.items())}


def require_role(operator: Operator, *roles: Role) -> None:
    """Refuse unless the operator is active and has at least one of *roles*.

    Raises:
        NotAuthorised: names the operator and the roles that would do.
    """
    if not operator.active:
        raise NotAuthorised(
            f"operator {operator.code} is not active", remedy="Ask another operator"
        )
    if operator.roles.isdisjoint(roles):
        wanted = " or ".join(str(role) for role in roles)
        raise NotAuthorised(
            f"operator {operator.code} is not {wanted}",
            remedy="Ask an operator with that role, or propose a change of roles",
        )


def _plain(value: object) -> object:
    match value:
        case None | bool() | int() | str():
            return value
        case UUID():
            return str(value)
        case datetime():
            return iso(value)
        case bytes():
            return value.hex()
        case Mapping():
            return {_key(key): _plain(item) for key, item in value.items()}
        case Sequence():
            return [_plain(item) for item in value]
        case _:
            raise BadInput(f"a {type(value).__name__} cannot be signed", remedy="Write it as text")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise BadInput(f"the name of a signed field is text, not {key!r}")
    return key
