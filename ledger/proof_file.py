r"""Proofs as files that anybody can check without a database: JSON with the hashes in base64.

::

    {"type": "causeway-inclusion-proof", "version": 1, "origin": "…/book/1",
     "index": 17, "size": 4711, "record": "transfer\t1\t18\t…", "root": "…", "path": ["…", …]}
    {"type": "causeway-consistency-proof", "version": 1, "origin": "…/book/1",
     "first": 4711, "second": 9000, "first_root": "…", "second_root": "…", "path": ["…", …]}

The paths are those of RFC 6962, sections 2.1.1 and 2.1.2. A proof alone says nothing: its roots are
to be those of signed checkpoints (`ledger.checkpoint`).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kernel.errors import BadInput, Refused
from ledger.checkpoint import Checkpoint
from ledger.proofs import ConsistencyProof, InclusionProof

INCLUSION: Final = "causeway-inclusion-proof"
CONSISTENCY: Final = "causeway-consistency-proof"
VERSION: Final = 1
PATH_MAX: Final = 128


def document(proof: InclusionProof | ConsistencyProof, origin: str) -> dict[str, Any]:
    """Return a proof as it is written."""
    if isinstance(proof, InclusionProof):
        return {
            "type": INCLUSION,
            "version": VERSION,
            "origin": origin,
            "index": proof.index,
            "size": proof.size,
            "record": proof.record.decode(),
            "root": _text(proof.root),
            "path": [_text(item) for item in proof.path],
        }
    return {
        "type": CONSISTENCY,
        "version": VERSION,
        "origin": origin,
        "first": proof.first,
        "second": proof.second,
        "first_root": _text(proof.first_root),
        "second_root": _text(proof.second_root),
        "path": [_text(item) for item in proof.path],
    }


def parse(text: str) -> tuple[InclusionProof | ConsistencyProof, str]:
    """Read a proof, and the origin that it names.

    Raises:
        BadInput: not a proof of a known version.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadInput("the proof is not JSON") from error
    try:
        return _proof(found), str(found["origin"])
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise BadInput(f"the proof is not of a known form: {error}") from error


def check(
    proof: InclusionProof | ConsistencyProof, origin: str, checkpoints: Sequence[Checkpoint]
) -> None:
    """Refuse a proof that does not hold between *checkpoints*: one, or the two of a consistency.

    Raises:
        BadInput: another number of checkpoints is needed.
        Refused: says what does not fit.
    """
    if isinstance(proof, InclusionProof):
        claims = [(proof.size, proof.root)]
    else:
        claims = [(proof.first, proof.first_root), (proof.second, proof.second_root)]
    if len(checkpoints) != len(claims):
        raise BadInput(f"such a proof is checked with {len(claims)} checkpoints")
    ordered = sorted(checkpoints, key=lambda found: found.size)
    for (size, root), found in zip(claims, ordered, strict=True):
        if found.origin != origin:
            raise Refused(f"the proof is of {origin}, the checkpoint of {found.origin}")
        if found.size != size:
            raise Refused(f"the proof is of {size} records, the checkpoint of {found.size}")
        if found.root != root:
            raise Refused(f"the proof's root of {size} records is not the checkpoint's")
    if not proof.holds():
        raise Refused("the hashes of the proof do not come to its root")


def _proof(found: Mapping[str, Any]) -> InclusionProof | ConsistencyProof:
    if found["version"] != VERSION or len(found["path"]) > PATH_MAX:
        raise ValueError(f"version {found['version']}")
    path = tuple(_hash(item) for item in found["path"])
    if found["type"] == INCLUSION:
        return InclusionProof(
            record=found["record"].encode(),
            index=_count(found["index"]),
            size=_count(found["size"]),
            root=_hash(found["root"]),
            path=path,
        )
    if found["type"] == CONSISTENCY:
        return ConsistencyProof(
            first=_count(found["first"]),
            second=_count(found["second"]),
            first_root=_hash(found["first_root"]),
            second_root=_hash(found["second_root"]),
            path=path,
        )
    raise ValueError(f"type {found['type']}")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _hash(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if len(data) != 32:
        raise ValueError("a hash has 32 bytes")
    return data


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
