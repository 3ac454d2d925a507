"""What a token says about itself, read tolerantly; what is pinned in the registry rules.

Decimals that change, or code behind a proxy that changes, make it another token: whoever compares
must stop taking it in and paying it out until people have looked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from eth_utils.crypto import keccak

from chain.errors import UnreadableAnswer
from chain.evm.addresses import checksum_address
from chain.evm.erc20 import WORD_BYTES
from chain.model import CallResult

DECIMALS_MAX: Final = 255
TEXT_LENGTH_MAX: Final = 64
NOBODY: Final = "0x0000000000000000000000000000000000000000"
IMPLEMENTATION_SLOT: Final = int.from_bytes(keccak(b"eip1967.proxy.implementation"), "big") - 1
"""Where a proxy keeps the address of its code. Source: EIP-1967."""
BEACON_SLOT: Final = int.from_bytes(keccak(b"eip1967.proxy.beacon"), "big") - 1
TAIL_ZEROS: Final = "\0 "


class TokenGateway(Protocol):
    """The part of a gateway that is asked about a token."""

    async def simulate(
        self, *, sender: str, recipient: str, value: int = 0, data: bytes = b""
    ) -> CallResult:
        """Return what a call would do at the head."""
        ...

    async def code_at(self, address: str) -> bytes:
        """Return the code at an address at the head."""
        ...

    async def storage_at(self, address: str, slot: int) -> bytes:
        """Return the 32 bytes of a storage slot at the head."""
        ...


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What is read of a token now.

    Attributes:
        decimals: None where it does not say.
        name, symbol: empty where it does not say; never used to recognise a token.
        code: Keccak-256 of the code at the address, hexadecimal.
        implementation: Keccak-256 of the code that the proxy runs; empty when it is no proxy.
    """

    decimals: int | None
    name: str
    symbol: str
    code: str
    implementation: str


async def read_token(gateway: TokenGateway, contract: str) -> TokenFacts:
    """Return what *contract* says about itself at the head.

    Raises:
        UnreadableAnswer: there is no code at the address.
    """
    code = await gateway.code_at(contract)
    if not code:
        raise UnreadableAnswer(f"there is no contract at {contract}")
    return TokenFacts(
        decimals=_decimals(await _ask(gateway, contract, "decimals()")),
        name=_text(await _ask(gateway, contract, "name()")),
        symbol=_text(await _ask(gateway, contract, "symbol()")),
        code=keccak(code).hex(),
        implementation=await _implementation(gateway, contract),
    )


def differences(pinned: TokenFacts, found: TokenFacts) -> list[str]:
    """Return in words what is not any more as it was when the token was registered.

    Names and symbols are for people and may change; nothing depends on them.
    """
    changed = []
    if pinned.decimals != found.decimals:
        changed.append(f"its decimals were {pinned.decimals} and are {found.decimals}")
    if pinned.code != found.code:
        changed.append("its code is another one")
    if pinned.implementation != found.implementation:
        changed.append("its proxy runs other code")
    return changed


async def _ask(gateway: TokenGateway, contract: str, signature: str) -> bytes:
    result = await gateway.simulate(
        sender=NOBODY, recipient=contract, data=keccak(signature.encode())[:4]
    )
    return result.returned if result.succeeded else b""


async def _implementation(gateway: TokenGateway, contract: str) -> str:
    for slot in (IMPLEMENTATION_SLOT, BEACON_SLOT):
        word = await gateway.storage_at(contract, slot)
        if any(word):
            code = await gateway.code_at(checksum_address(word[-20:]))
            return keccak(word + code).hex()
    return ""


def _decimals(answer: bytes) -> int | None:
    if len(answer) != WORD_BYTES:
        return None
    number = int.from_bytes(answer, "big")
    return number if number <= DECIMALS_MAX else None


def _text(answer: bytes) -> str:
    """Read an ABI string, or 32 bytes of text as early tokens answer (MKR, SAI)."""
    if len(answer) == WORD_BYTES:
        raw = answer
    elif len(answer) >= 2 * WORD_BYTES and int.from_bytes(answer[:WORD_BYTES], "big") == WORD_BYTES:
        length = int.from_bytes(answer[WORD_BYTES : 2 * WORD_BYTES], "big")
        raw = answer[2 * WORD_BYTES : 2 * WORD_BYTES + min(length, len(answer))]
    else:
        return ""
    text = raw.decode(errors="replace").strip(TAIL_ZEROS)[:TEXT_LENGTH_MAX]
    return text if text.isprintable() else ""
