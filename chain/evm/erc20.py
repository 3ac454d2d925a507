"""The calls and events of ERC-20 that move or show money, encoded and decoded strictly.

Sources: EIP-20; the ABI specification of Solidity (selectors, 32-byte words).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chain.errors import BadTransaction
from chain.evm.addresses import ADDRESS_BYTES, address_bytes, bytes_to_ask, checksum_address
from kernel.money import AMOUNT_MAX

TRANSFER_SELECTOR: Final = bytes.fromhex("a9059cbb")
"""First four bytes of Keccak-256 of ``transfer(address,uint256)``."""
BALANCE_OF_SELECTOR: Final = bytes.fromhex("70a08231")
"""First four bytes of Keccak-256 of ``balanceOf(address)``."""
TRANSFER_TOPIC: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
"""Keccak-256 of ``Transfer(address,address,uint256)``; ERC-721 has the same."""

WORD_BYTES: Final = 32
TRANSFER_BYTES: Final = 4 + 2 * WORD_BYTES


@dataclass(frozen=True, slots=True)
class Erc20Transfer:
    """What ``transfer(address,uint256)`` is told to do."""

    recipient: str
    amount: int


def erc20_transfer_data(recipient: str, amount: int) -> bytes:
    """Return the call data that moves *amount* smallest units to *recipient* (EIP-55).

    The result is decoded again before it is returned: a short address would shift the amount.
    """
    if not 0 < amount <= AMOUNT_MAX:
        raise BadTransaction(f"a token transfer of {amount} is not possible")
    data = TRANSFER_SELECTOR + address_word(recipient) + amount.to_bytes(WORD_BYTES, "big")
    if decode_erc20_transfer(data) != Erc20Transfer(recipient, amount):
        raise BadTransaction("the call data does not say what was asked for")
    return data


def decode_erc20_transfer(data: bytes) -> Erc20Transfer:
    """Return what *data* does, if it is exactly one ERC-20 transfer.

    Raises:
        BadTransaction: another function, missing or extra bytes, or padding that is not zero.
    """
    if len(data) != TRANSFER_BYTES:
        raise BadTransaction(f"an ERC-20 transfer has {TRANSFER_BYTES} bytes, not {len(data)}")
    if data[:4] != TRANSFER_SELECTOR:
        raise BadTransaction(f"0x{data[:4].hex()} is not the selector of transfer")
    recipient = decode_address_word(data[4 : 4 + WORD_BYTES])
    amount = int.from_bytes(data[4 + WORD_BYTES :], "big")
    if amount == 0:
        raise BadTransaction("an ERC-20 transfer of zero moves nothing")
    return Erc20Transfer(recipient, amount)


def balance_of_data(holder: str) -> bytes:
    """Return the call data that asks what *holder* has."""
    return BALANCE_OF_SELECTOR + bytes_to_ask(holder).rjust(WORD_BYTES, b"\0")


def decode_address_word(word: bytes) -> str:
    """Return the address in a 32-byte word, refusing anything in its upper 12 bytes."""
    padding = WORD_BYTES - ADDRESS_BYTES
    if len(word) != WORD_BYTES or any(word[:padding]):
        raise BadTransaction(f"0x{word.hex()} is not an address in a 32-byte word")
    return checksum_address(word[padding:])


def address_word(address: str) -> bytes:
    """Return the address as a word of 32 bytes, as in call data and topics."""
    return address_bytes(address).rjust(WORD_BYTES, b"\0")
