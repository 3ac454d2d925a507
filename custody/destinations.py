"""What an allowed destination may be, and which other addresses it could be mistaken for. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from custody.errors import NotPossible
from kernel.errors import Refused

PRECOMPILES_MAX: Final = 0x3FF
"""Addresses up to this are the protocol's own, or kept for it: what is sent there is gone."""
DELEGATION_PREFIX: Final = bytes.fromhex("ef0100")
DELEGATION_LENGTH: Final = 23
"""An account with a key may point to code (EIP-7702); it stays an account with a key."""
SAME_FOR_ALL: Final = "^(0x|(bcrt|bc|tb)1.|[123mn])"
"""How every address of a kind begins, whoever has it: nobody compares that (the same in PostgreSQL)."""
LOOK: Final = 4
"""People compare the first and last few digits; poisoners grind addresses that agree in them."""


@dataclass(frozen=True, slots=True)
class Known:
    """An address that somebody here knows; *whose* says from where."""

    address: str
    whose: str


def look_of(address: str) -> str:
    """Return the first and last four digits or letters that tell addresses apart, in lower case.

    Of ``IBAN|BIC|name`` those of the IBAN: so an account that is known under another name is found.
    """
    digits = re.sub(SAME_FOR_ALL, "", address.partition("|")[0]).lower()
    return digits[:LOOK] + digits[-LOOK:]


def told_as(address: str) -> str:
    """Return how events name a destination: whose an account at a bank is, they do not say."""
    number, of_bank, _ = address.partition("|")
    return f"{number[:LOOK]}...{number[-LOOK:]}" if of_bank else address


def find_look_alikes(address: str, known: Iterable[Known]) -> tuple[Known, ...]:
    """Return the known addresses that only look like this one."""
    mine, look = address.lower(), look_of(address)
    return tuple(
        item for item in known if look_of(item.address) == look and item.address.lower() != mine
    )


def require_acknowledged(
    address: str, look_alikes: Iterable[Known], acknowledged: Collection[str]
) -> None:
    """Refuse an address that could be mistaken for another, unless its proposer names that one.

    Raises:
        Refused: names the first that is not acknowledged.
    """
    for item in look_alikes:
        if item.address not in acknowledged:
            raise Refused(
                f"{address} begins and ends like {item.address} of {item.whose}",
                remedy="Compare every digit; if it is right, propose it naming that address",
            )


def require_payable(address: str, *, ours: Collection[str], contracts: Collection[str]) -> None:
    """Refuse what coins must never be sent to.

    Raises:
        NotPossible: nobody's, our own, or a token's contract.
    """
    if address.startswith("0x") and int(address, 16) <= PRECOMPILES_MAX:
        raise NotPossible(f"{address} is nobody's address: what goes there is gone")
    if address in ours:
        raise NotPossible(f"{address} is our own address", remedy="Ask for an own transfer instead")
    if address in contracts:
        raise NotPossible(f"{address} is the contract of a token: what goes there is lost")


def is_contract(code: bytes) -> bool:
    """Tell whether *code* (eth_getCode) makes the address a contract rather than a key's account."""
    delegated = len(code) == DELEGATION_LENGTH and code.startswith(DELEGATION_PREFIX)
    return bool(code) and not delegated
