"""How many watch-only addresses a second follow from an account key, beside bitcoinlib?

Each is derived below the same account (BIP 84): a child key, its hash, and the address in bech32. Ours
keeps the branch's key and checks that the account key is valid once; bitcoinlib is given the branch's
key ready-made, too. bitcoinlib is an extra of its own (AGPL): where it is not installed, there is
nothing to hold ours against, and the ratio's goal counts as missed. embit stands beside both.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import tempfile
from collections.abc import Callable
from typing import Any, Final

from embit.bip32 import HDKey
from embit.networks import NETWORKS
from embit.script import p2wpkh

from bench.measure import Measured, Result, Shared, Turn, alternate, versions
from chain.bitcoin.derivation import SegwitAccount
from chain.bitcoin.networks import MAIN
from custody.signer.hd_keys import PrivateNode

ADDRESSES: Final = 2_000
ADDRESSES_PEER: Final = 100
"""What slower contestants derive in one turn."""
AT_LEAST: Final = 4_000
AT_LEAST_RATIO: Final = 10
PATH: Final = "m/84'/0'/0'"
SEED: Final = bytes(range(32))
BITCOINLIB: Final = "bitcoinlib"


def measure(shared: Shared) -> Measured:
    """Let three libraries derive in turn."""
    del shared
    xpub = PrivateNode.from_seed(SEED).derive(PATH).xpub()
    contestants: dict[str, Callable[[], Turn]] = {
        "ours": lambda: _ours(xpub),
        "embit": lambda: _embit(xpub),
    }
    has_peer = importlib.util.find_spec(BITCOINLIB) is not None
    if has_peer:
        branch = _load("bitcoinlib.keys").HDKey(xpub, witness_type="segwit").child_public(0)
        contestants["bitcoinlib"] = lambda: _bitcoinlib(branch)
    rates = alternate(contestants)
    own = rates["ours"]
    results = [
        Result(name="bitcoin_derivation", value=own, unit="addresses/s", at_least=AT_LEAST),
        Result(
            name="bitcoin_derivation.bitcoinlib",
            value=own,
            unit="addresses/s",
            baseline="bitcoinlib (peer)" if has_peer else "bitcoinlib (peer), not installed",
            baseline_value=rates.get("bitcoinlib"),
            at_least=AT_LEAST_RATIO,
        ),
        Result(
            name="bitcoin_derivation.embit",
            value=own,
            unit="addresses/s",
            baseline="embit (peer)",
            baseline_value=rates["embit"],
        ),
    ]
    facts = {"input": f"{ADDRESSES:,} addresses of one branch, {ADDRESSES_PEER} for the peers"}
    return Measured(results, facts, versions("coincurve", "embit", *[BITCOINLIB] * has_peer))


def _ours(xpub: str) -> Turn:
    account = SegwitAccount.parse(xpub, network=MAIN, path=PATH)

    def turn() -> int:
        return len({account.address(0, index) for index in range(ADDRESSES)})

    return turn


def _embit(xpub: str) -> Turn:
    branch = HDKey.from_string(xpub).derive([0])

    def turn() -> int:
        network = NETWORKS["main"]
        found = {
            p2wpkh(branch.child(index).key).address(network) for index in range(ADDRESSES_PEER)
        }
        return len(found)

    return turn


def _bitcoinlib(branch: Any) -> Turn:
    def turn() -> int:
        found = {
            branch.child_public(index).address(encoding="bech32", script_type="p2wpkh")
            for index in range(ADDRESSES_PEER)
        }
        return len(found)

    return turn


def _load(name: str) -> Any:
    # It writes files and prints when it is imported.
    os.environ.setdefault("BCL_DATA_DIR", tempfile.mkdtemp(prefix="causeway-bitcoinlib-"))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return importlib.import_module(name)
