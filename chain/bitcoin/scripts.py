"""Output scripts of the standard kinds: built, and recognised.

Sources: BIP 13 and 16 (P2SH), BIP 141 (witness programs), BIP 67 (order of keys in a multisignature
script), Bitcoin Core ``src/script/solver.cpp`` (what counts as standard).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from chain.errors import BadKey
from chain.keys.hashes import hash160

OP_0: Final = 0x00
OP_1: Final = 0x51
OP_16: Final = 0x60
OP_RETURN: Final = 0x6A
OP_DUP: Final = 0x76
OP_EQUAL: Final = 0x87
OP_EQUALVERIFY: Final = 0x88
OP_HASH160: Final = 0xA9
OP_CHECKSIG: Final = 0xAC
OP_CHECKMULTISIG: Final = 0xAE

HASH_BYTES: Final = 20
KEY_BYTES: Final = 33
MULTISIG_KEYS_MAX: Final = 16
"""Small numbers are one opcode each; more keys than that are not standard in a witness script."""


class ScriptKind(StrEnum):
    """What an output script demands of who spends it."""

    KEY_HASH = "pubkeyhash"
    SCRIPT_HASH = "scripthash"
    WITNESS_KEY_HASH = "witness_v0_keyhash"
    WITNESS_SCRIPT_HASH = "witness_v0_scripthash"
    TAPROOT = "witness_v1_taproot"
    WITNESS_UNKNOWN = "witness_unknown"
    """A version that no rule is known for yet: it can be paid, and anyone could spend it today."""
    DATA = "nulldata"
    OTHER = "nonstandard"


@dataclass(frozen=True, slots=True)
class Recognised:
    """An output script that was understood.

    Attributes:
        payload: hash of the key or script, or the witness program; empty for data and others.
        version: of a witness program; None for other kinds.
    """

    kind: ScriptKind
    payload: bytes = b""
    version: int | None = None


def key_hash_script(payload: bytes) -> bytes:
    """Return the script that pays to the hash of a key (P2PKH)."""
    head = bytes([OP_DUP, OP_HASH160, HASH_BYTES])
    return head + payload + bytes([OP_EQUALVERIFY, OP_CHECKSIG])


def script_hash_script(payload: bytes) -> bytes:
    """Return the script that pays to the hash of a script (P2SH)."""
    return bytes([OP_HASH160, HASH_BYTES]) + payload + bytes([OP_EQUAL])


def witness_script(version: int, program: bytes) -> bytes:
    """Return the script that pays to a witness program: its version as one opcode, then it."""
    return bytes([OP_0 if version == 0 else OP_1 - 1 + version, len(program)]) + program


def witness_key_hash_script(public_key: bytes) -> bytes:
    """Return the script that pays to a compressed key (P2WPKH).

    Raises:
        BadKey: not a compressed key; coins sent to the hash of another form are lost.
    """
    require_compressed(public_key)
    return witness_script(0, hash160(public_key))


def witness_script_hash_script(script: bytes) -> bytes:
    """Return the script that pays to a witness script (P2WSH)."""
    return witness_script(0, hashlib.sha256(script).digest())


def sorted_multisig_script(required: int, public_keys: Sequence[bytes]) -> bytes:
    """Return the witness script that *required* of the keys can spend; their order does not matter.

    Raises:
        BadKey: keys that are not compressed or not different, or an impossible number of them.
    """
    for key in public_keys:
        require_compressed(key)
    if len(set(public_keys)) != len(public_keys):
        raise BadKey("one key stands for two of the signers")
    if not 0 < required <= len(public_keys) <= MULTISIG_KEYS_MAX:
        raise BadKey(f"{required} of {len(public_keys)} keys cannot be asked for")
    pushed = b"".join(bytes([KEY_BYTES]) + key for key in sorted(public_keys))
    low = OP_1 - 1
    return bytes([low + required]) + pushed + bytes([low + len(public_keys), OP_CHECKMULTISIG])


def require_compressed(public_key: bytes) -> None:
    """Refuse a key in another form than the compressed one, which witness programs demand."""
    if len(public_key) != KEY_BYTES or public_key[0] not in {2, 3}:
        raise BadKey(f"a witness program takes a compressed key of {KEY_BYTES} bytes")


def recognise(script: bytes) -> Recognised:
    """Return what kind of output script this is."""
    if len(script) == 25 and script == key_hash_script(script[3:23]):
        return Recognised(ScriptKind.KEY_HASH, script[3:23])
    if len(script) == 23 and script == script_hash_script(script[2:22]):
        return Recognised(ScriptKind.SCRIPT_HASH, script[2:22])
    version = witness_version(script)
    if version is not None:
        return _recognise_witness(version, script[2:])
    if script[:1] == bytes([OP_RETURN]):
        return Recognised(ScriptKind.DATA)
    return Recognised(ScriptKind.OTHER)


def witness_version(script: bytes) -> int | None:
    """Return the witness version of a script; None if it is no witness program (BIP 141)."""
    if not 4 <= len(script) <= 42 or script[1] != len(script) - 2:
        return None
    if script[0] == OP_0:
        return 0
    return script[0] - OP_1 + 1 if OP_1 <= script[0] <= OP_16 else None


def _recognise_witness(version: int, program: bytes) -> Recognised:
    kind = {
        (0, 20): ScriptKind.WITNESS_KEY_HASH,
        (0, 32): ScriptKind.WITNESS_SCRIPT_HASH,
        (1, 32): ScriptKind.TAPROOT,
    }.get((version, len(program)))
    if kind is None:
        # Version 0 of another length can never be spent (BIP 141).
        kind = ScriptKind.OTHER if version == 0 else ScriptKind.WITNESS_UNKNOWN
    return Recognised(kind, program, version)
