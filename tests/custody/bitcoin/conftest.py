"""A real bitcoind on regtest, as the tests of the chain have it."""

from __future__ import annotations

from tests.chain.bitcoin.conftest import bitcoind, bitcoind_binary

__all__ = ["bitcoind", "bitcoind_binary"]
