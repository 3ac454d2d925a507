"""Statements of runs as parties get them, and the answers that come back signed. Pure.

A statement is JSON (RFC 8259) in UTF-8: keys sorted, two spaces of indentation, a line feed at the
end. Amounts are integers of the smallest unit as text, with the number of decimal places beside
them. The same version of a run has the same bytes for ever, and their SHA-256 is what is signed.

An answer is JSON of one object: ``statement_sha256``, ``party``, ``verdict`` (``affirmed`` or
``disputed``), ``obligations`` (ids, of a dispute), ``reason``, ``signature`` (Ed25519 over
`answer_bytes`, 64 bytes in hexadecimal).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import orjson

from kernel.clock import iso
from kernel.errors import BadInput
from kernel.money import Asset
from registry.authority import signing_bytes
from registry.model import SIGNATURE_BYTES
from settlement.model import Calculation, NetItem, Obligation, Run

FORM: Final = "causeway.settlement-statement/1"
ANSWER_BYTES_MAX: Final = 1_000_000
REASON_MAX: Final = 300
OBLIGATIONS_MAX: Final = 10_000


class Verdict(StrEnum):
    """What a party says to a statement."""

    AFFIRMED = "affirmed"
    DISPUTED = "disputed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a party says to the statement with this hash, and its signature."""

    statement_sha256: str
    party: str
    verdict: Verdict
    obligations: tuple[UUID, ...] = ()
    reason: str = ""
    signature: bytes = b""


def statement_of(
    run: Run,
    result: Calculation,
    obligations: Sequence[Obligation],
    assets: Mapping[str, Asset],
    *,
    party: str,
) -> str:
    """Return the statement of a version for *party*; the desk is the other side of each line.

    Args:
        run: whose version it is.
        result: the version.
        obligations: what it was calculated from.
        assets: by code, all that occur.
        party: who gets it; what others owe is left out.
    """
    theirs = [o for o in obligations if o.party == party]
    content = {
        "form": FORM,
        "party": party,
        "run": str(run.id),
        "version": result.version,
        "window": run.window,
        "value_date": run.value_date.isoformat(),
        "netting_set": run.netting_set,
        "affirm_until": None if run.affirm_until is None else iso(run.affirm_until),
        "method": result.method,
        "inputs_sha256": result.input_hash,
        "decimals": {code: assets[code].scale for code in {o.asset for o in theirs}},
        "net": [_item(item) for item in result.items if item.party == party],
        "carried": [_item(item) for item in result.carried if item.party == party],
        "obligations": [_obligation(o) for o in theirs],
    }
    return json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def party_of(content: bytes) -> str:
    """Return to whom a statement is, as its file says.

    Raises:
        BadInput: it is no statement of this form.
    """
    try:
        data = orjson.loads(content)
    except ValueError as error:
        raise BadInput("the file is no statement: it is not JSON") from error
    if not isinstance(data, dict) or data.get("form") != FORM:
        raise BadInput(f"the file is no statement of the form {FORM}")
    return str(data.get("party", ""))


def hash_of(content: str) -> str:
    """Return the SHA-256 of a statement, in lower-case hexadecimal."""
    return hashlib.sha256(content.encode()).hexdigest()


def answer_bytes(answer: Answer) -> bytes:
    """Return what the party signs: its verdict on the statement, and what it disputes."""
    return signing_bytes(
        "settlement.answer",
        {
            "statement_sha256": answer.statement_sha256,
            "party": answer.party,
            "verdict": str(answer.verdict),
            "obligations": sorted(str(item) for item in answer.obligations),
            "reason": answer.reason,
        },
    )


def write_answer(answer: Answer) -> bytes:
    """Return an answer as a file."""
    content = {
        "statement_sha256": answer.statement_sha256,
        "party": answer.party,
        "verdict": str(answer.verdict),
        "obligations": sorted(str(item) for item in answer.obligations),
        "reason": answer.reason,
        "signature": answer.signature.hex(),
    }
    return (json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def read_answer(content: bytes) -> Answer:
    """Return the answer that a file holds.

    Raises:
        BadInput: it is not of that form; nothing is guessed.
    """
    if len(content) > ANSWER_BYTES_MAX:
        raise BadInput(f"an answer has at most {ANSWER_BYTES_MAX} bytes, not {len(content)}")
    try:
        # It bounds the depth by itself, whatever limit somebody has set for this process.
        data = orjson.loads(content)
        answer = _answer(data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(
            f"the answer cannot be read: {error}", remedy="Write it as `docs/settlement.md` says"
        ) from error
    _require_whole(answer)
    return answer


def _answer(data: dict[str, Any]) -> Answer:
    known = {"statement_sha256", "party", "verdict", "obligations", "reason", "signature"}
    if data.keys() - known:
        raise ValueError(f"it has other fields than {', '.join(sorted(known))}")
    texts = [data["statement_sha256"], data["party"], data.get("reason", "")]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("its fields are texts")
    if not all(text.isprintable() for text in texts):
        raise ValueError("its texts have characters that cannot be shown")
    return Answer(
        statement_sha256=data["statement_sha256"],
        party=data["party"],
        verdict=Verdict(data["verdict"]),
        obligations=tuple(UUID(item) for item in data.get("obligations", ())),
        reason=data.get("reason", ""),
        signature=bytes.fromhex(data["signature"]),
    )


def _require_whole(answer: Answer) -> None:
    disputes = answer.verdict is Verdict.DISPUTED
    if disputes is not bool(answer.obligations) or len(answer.obligations) > OBLIGATIONS_MAX:
        raise BadInput("a dispute names the obligations, an affirmation names none")
    if disputes is not bool(answer.reason.strip()) or len(answer.reason) > REASON_MAX:
        raise BadInput(f"a dispute gives a reason of at most {REASON_MAX} characters")
    if len(answer.signature) != SIGNATURE_BYTES:
        raise BadInput(
            f"the signature has {len(answer.signature)} bytes",
            remedy=f"An Ed25519 signature has {SIGNATURE_BYTES}",
        )


def _item(item: NetItem) -> dict[str, Any]:
    return {
        "asset": item.asset,
        "direction": _says(item.direction),
        "amount": str(item.amount),
        "gross_to_you": str(item.gross_pay),
        "gross_from_you": str(item.gross_receive),
        "rail": str(item.rail),
        "obligations": [str(i) for i in item.obligations],
    }


def _obligation(o: Obligation) -> dict[str, Any]:
    return {
        "id": str(o.id),
        "deal": str(o.deal_id),
        "leg": o.leg,
        "asset": o.asset,
        "amount": str(o.amount),
        "direction": _says(o.direction),
        "value_date": o.value_date.isoformat(),
    }


def _says(direction: str) -> str:
    """Return a direction as the party sees it: what the desk is to pay, the party gets."""
    return "to_you" if direction == "pay" else "from_you"
