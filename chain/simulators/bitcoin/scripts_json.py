"""Scripts as bitcoind shows them: disassembled, as a descriptor, with address and kind.

Source: Bitcoin Core ``src/core_write.cpp`` (``ScriptToAsmStr``, ``ScriptToUniv``).
"""

from __future__ import annotations

from typing import Any, Final

from chain.bitcoin.addresses import address_of
from chain.bitcoin.derivation import descriptor_checksum
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.scripts import ScriptKind, recognise
from chain.simulators.bitcoin.policy import ANCHOR_SCRIPT, is_key_script

Json = Any

NAMES: Final = {
    0x4F: "-1",
    **{0x50 + number: str(number) for number in range(1, 17)},
    0x00: "0",
    0x61: "OP_NOP",
    0x63: "OP_IF",
    0x64: "OP_NOTIF",
    0x67: "OP_ELSE",
    0x68: "OP_ENDIF",
    0x69: "OP_VERIFY",
    0x6A: "OP_RETURN",
    0x75: "OP_DROP",
    0x76: "OP_DUP",
    0x7C: "OP_SWAP",
    0x82: "OP_SIZE",
    0x87: "OP_EQUAL",
    0x88: "OP_EQUALVERIFY",
    0xA8: "OP_SHA256",
    0xA9: "OP_HASH160",
    0xAA: "OP_HASH256",
    0xAC: "OP_CHECKSIG",
    0xAD: "OP_CHECKSIGVERIFY",
    0xAE: "OP_CHECKMULTISIG",
    0xAF: "OP_CHECKMULTISIGVERIFY",
    0xB1: "OP_CHECKLOCKTIMEVERIFY",
    0xB2: "OP_CHECKSEQUENCEVERIFY",
    0xBA: "OP_CHECKSIGADD",
}
LAST_PUSH: Final = 0x4E
NUMBER_BYTES_MAX: Final = 4
"""Pushes of up to so many bytes are shown as numbers."""


def disassemble(script: bytes) -> str:
    """Return the operations of a script as words."""
    words = []
    at = 0
    while at < len(script):
        opcode = script[at]
        at += 1
        if opcode == 0 or opcode > LAST_PUSH:
            words.append(NAMES.get(opcode, "OP_UNKNOWN"))
            continue
        size = opcode
        if opcode >= 0x4C:
            width = 1 << (opcode - 0x4C)
            size = int.from_bytes(script[at : at + width], "little")
            at += width
        data = script[at : at + size]
        if len(data) < size:
            return " ".join([*words, "[error]"])
        at += size
        words.append(_number(data) if size <= NUMBER_BYTES_MAX else data.hex())
    return " ".join(words)


def _number(data: bytes) -> str:
    """Return a push as the number that scripts take it for: little-endian, sign in the top bit."""
    value = int.from_bytes(data, "little")
    sign = 1 << (8 * len(data) - 1) if data else 0
    return str(-(value & ~sign) if value & sign else value)


def describe(script: bytes) -> str:
    """Return the descriptor that bitcoind infers, with its checksum."""
    found = recognise(script)
    address = address_of(script, REGTEST)
    if found.kind is ScriptKind.TAPROOT:
        text = f"rawtr({found.payload.hex()})"
    elif is_key_script(script):
        text = f"pk({script[1:-1].hex()})"
    elif address is not None:
        text = f"addr({address})"
    else:
        text = f"raw({script.hex()})"
    return f"{text}#{descriptor_checksum(text)}"


def kind_of(script: bytes) -> str:
    """Return bitcoind's word for the kind of a script."""
    if script == ANCHOR_SCRIPT:
        return "anchor"
    if is_key_script(script):
        return "pubkey"
    return str(recognise(script).kind)


def script_json(script: bytes) -> dict[str, Json]:
    """Return the ``scriptPubKey`` of an output."""
    shown = {"asm": disassemble(script), "desc": describe(script), "hex": script.hex()}
    address = address_of(script, REGTEST)
    if address is not None:
        shown["address"] = address
    return {**shown, "type": kind_of(script)}
