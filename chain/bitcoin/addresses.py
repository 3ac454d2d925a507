"""Addresses of one network: the script that an address pays, and the address of a script.

Every valid kind can be paid: hash of a key, hash of a script, and every witness version from 0 to
16. An address of another network, a mistyped one, and one that would pay a script that nobody can
spend are refused, each with its own words. Sources: the Bitcoin wiki's "Base58Check encoding",
BIP 13, BIP 173, BIP 350.
"""

from __future__ import annotations

from typing import Final

from chain.bitcoin.bech32 import decode_program, encode_program
from chain.bitcoin.networks import NETWORKS, Network
from chain.bitcoin.scripts import (
    HASH_BYTES,
    Recognised,
    ScriptKind,
    key_hash_script,
    recognise,
    script_hash_script,
    witness_script,
)
from chain.errors import BadAddress, BadKey
from chain.keys.base58 import decode_base58check, encode_base58check

BASE58_LENGTH_MAX: Final = 35
"""25 bytes never take more letters; a longer text is something else."""

_PREFIXES: Final = tuple(f"{network.hrp}1" for network in NETWORKS.values())


def parse_address(text: str, network: Network) -> bytes:
    """Return the output script that *text* pays on *network*.

    Raises:
        BadAddress: mistyped, of another network, or of no known kind.
    """
    if text.lower().startswith(_PREFIXES):
        version, program = decode_program(network.hrp, text)
        return witness_script(version, program)
    return _parse_base58(text, network)


def address_of(script: bytes, network: Network) -> str | None:
    """Return the address whose payment makes *script*; None if it has none."""
    found = recognise(script)
    if found.kind is ScriptKind.KEY_HASH:
        return encode_base58check(bytes([network.key_hash]) + found.payload)
    if found.kind is ScriptKind.SCRIPT_HASH:
        return encode_base58check(bytes([network.script_hash]) + found.payload)
    if found.version is not None and found.kind is not ScriptKind.OTHER:
        return encode_program(network.hrp, found.version, found.payload)
    return None


def canonical_address(text: str, network: Network) -> str:
    """Return an address in the one spelling that is stored: segwit in lower case.

    Raises:
        BadAddress: see `parse_address`.
    """
    address = address_of(parse_address(text, network), network)
    assert address is not None  # what was parsed has an address
    return address


def recognise_address(text: str, network: Network) -> Recognised:
    """Return what kind of script an address pays.

    Raises:
        BadAddress: see `parse_address`.
    """
    return recognise(parse_address(text, network))


def _parse_base58(text: str, network: Network) -> bytes:
    if not 0 < len(text) <= BASE58_LENGTH_MAX:
        raise BadAddress(f"{text[:100]!r} is not an address")
    try:
        data = decode_base58check(text)
    except BadKey as error:
        raise BadAddress(
            f"{text!r} is not an address: {error.what}",
            remedy="A letter is wrong: copy it again from where it came",
        ) from error
    if len(data) != 1 + HASH_BYTES:
        raise BadAddress(f"{text} holds {len(data)} bytes, an address holds {1 + HASH_BYTES}")
    if data[0] == network.key_hash:
        return key_hash_script(data[1:])
    if data[0] == network.script_hash:
        return script_hash_script(data[1:])
    others = [
        item.name for item in NETWORKS.values() if data[0] in {item.key_hash, item.script_hash}
    ]
    if others:
        raise BadAddress(
            f"{text} is an address of {' or '.join(others)}, not of {network.name}",
            remedy="Ask for an address of this network",
        )
    raise BadAddress(f"{text} has the prefix {data[0]:#04x}, which is not Bitcoin's")
