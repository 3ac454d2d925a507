"""What another implementation says: bitcoinlib where it is installed, embit where it is not.

bitcoinlib (extra ``bitcoin``; AGPL) has lost coins in silence: it takes mistyped extended keys, gives
wrong taproot addresses and encodes witness versions above 1 wrongly. So it is only ever asked about
what it gets right: the key below a key that was validated here before, and a signed transaction of our
own whose inputs are P2WPKH. It is given no private key, no other script, no wallet and no network.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import os
import tempfile
from functools import cache
from typing import Any, Final

from embit.base import EmbitError
from embit.bip32 import HDKey
from embit.transaction import Transaction as EmbitTransaction

from chain.bitcoin.scripts import ScriptKind, recognise
from chain.bitcoin.transactions import decode
from chain.errors import BadTransaction, DerivationDisagrees
from chain.keys.account import BRANCHES
from chain.keys.bip32 import HARDENED, ExtendedPublicKey

BITCOINLIB: Final = "bitcoinlib"
EMBIT: Final = "embit"
DATA_VARIABLE: Final = "BCL_DATA_DIR"
"""Where bitcoinlib writes its files when it is imported; its default is the home folder."""
KEY_HASH_WITNESS: Final = 2
ENCODED_RIGHT: Final = frozenset(
    {
        ScriptKind.KEY_HASH,
        ScriptKind.SCRIPT_HASH,
        ScriptKind.WITNESS_KEY_HASH,
        ScriptKind.WITNESS_SCRIPT_HASH,
        ScriptKind.TAPROOT,
    }
)
"""Output scripts that bitcoinlib reads; of others embit is asked."""


def library() -> str:
    """Return who is asked, with the version: ``bitcoinlib 0.7.10``."""
    name = BITCOINLIB if importlib.util.find_spec(BITCOINLIB) is not None else EMBIT
    return f"{name} {importlib.metadata.version(name)}"


def confirm_key(xpub: str, branch: int, index: int, public_key: bytes) -> str:
    """Return which library derives the same key at ``branch/index`` of an account key.

    Raises:
        BadKey: *xpub* is not a valid extended public key, whatever the library thinks of it.
        DerivationDisagrees: it derives another key, or refuses.
    """
    ExtendedPublicKey.parse(xpub)
    # A hardened step of a public key: bitcoinlib would give another child instead of refusing.
    assert branch in BRANCHES
    assert 0 <= index < HARDENED
    asked = library()
    second = _derive(asked, xpub, branch, index)
    if second != public_key.hex():
        raise DerivationDisagrees(
            f"child {branch}/{index} has the key {public_key.hex()}, and by {asked} {second}",
            remedy="Give out no address of this key until it is understood why",
        )
    return asked


def confirm_transaction(raw: bytes) -> str:
    """Return which library reads the same inputs, outputs and id from signed bytes of our own.

    Raises:
        BadTransaction: no transaction, or the library reads something else.
    """
    ours = decode(raw)
    simple = all(len(item.witness) == KEY_HASH_WITNESS for item in ours.inputs) and all(
        recognise(item.script).kind in ENCODED_RIGHT for item in ours.outputs
    )
    asked = library() if simple else f"{EMBIT} {importlib.metadata.version(EMBIT)}"
    told = _read(asked, raw)
    mine = (
        ours.tx_id,
        [(str(item.outpoint), item.sequence) for item in ours.inputs],
        [(item.amount, item.script.hex()) for item in ours.outputs],
    )
    if told != mine:
        raise BadTransaction(f"{asked} reads transaction {ours.tx_id} as {told[0]}, or otherwise")
    return asked


def _derive(asked: str, xpub: str, branch: int, index: int) -> str:
    if asked.startswith(BITCOINLIB):
        try:
            keys = _load("bitcoinlib.keys")
            key = keys.HDKey(xpub, network="bitcoin", witness_type="segwit")
            child = key.child_public(branch).child_public(index)
            return str(child.public_byte.hex())
        except (ValueError, ArithmeticError, _error("bitcoinlib.keys", "BKeyError")) as error:
            return f"none ({error})"
    try:
        return bytes(HDKey.from_string(xpub).derive([branch, index]).key.sec()).hex()
    except (EmbitError, ValueError) as error:
        return f"none ({error})"


Read = tuple[str, list[tuple[str, int]], list[tuple[int, str]]]


def _read(asked: str, raw: bytes) -> Read:
    if asked.startswith(BITCOINLIB):
        try:
            found = _load("bitcoinlib.transactions").Transaction.parse_hex(
                raw.hex(), strict=True, network="bitcoin"
            )
        except (ValueError, _error("bitcoinlib.transactions", "TransactionError")) as error:
            return f"none ({error})", [], []
        return (
            str(found.txid),
            [
                (f"{item.prev_txid.hex()}:{item.output_n_int}", item.sequence)
                for item in found.inputs
            ],
            [(item.value, item.lock_script.hex()) for item in found.outputs],
        )
    try:
        parsed = EmbitTransaction.parse(raw)
    except (EmbitError, ValueError) as error:
        return f"none ({error})", [], []
    return (
        parsed.txid().hex(),
        [(f"{item.txid.hex()}:{item.vout}", item.sequence) for item in parsed.vin],
        [(item.value, item.script_pubkey.data.hex()) for item in parsed.vout],
    )


@cache
def _load(name: str) -> Any:
    # Importing it writes files and prints; neither belongs into a home folder or a command's output.
    os.environ.setdefault(DATA_VARIABLE, tempfile.mkdtemp(prefix="causeway-bitcoinlib-"))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return importlib.import_module(name)


def _error(module: str, name: str) -> type[Exception]:
    found: type[Exception] = getattr(_load(module), name)
    return found
