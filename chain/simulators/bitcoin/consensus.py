"""The kernel's chain: it validates blocks and chooses the best chain. Its databases are in memory.

The library keeps block files in a folder of its own, which ends with it. It has no way to call a
block invalid; whoever wants that builds a new chain without it (``chain``).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from chain.bitcoin.kernel import load_kernel


class Consensus:
    """One chain of the kernel on regtest."""

    def __init__(self) -> None:
        self._pbk = load_kernel()
        self._folder = Path(tempfile.mkdtemp(prefix="causeway-bitcoin-"))
        self._manager: Any = self._open()

    def _open(self) -> Any:
        pbk = self._pbk
        options = pbk.ContextOptions()
        options.set_chainparams(pbk.ChainParameters(pbk.ChainType.REGTEST))
        chain = pbk.ChainstateManagerOptions(
            pbk.Context(options), str(self._folder), str(self._folder / "blocks")
        )
        chain.update_block_tree_db_in_memory(True)
        chain.update_chainstate_db_in_memory(True)
        chain.set_worker_threads_num(1)
        manager = pbk.ChainstateManager(chain)
        # Once, with nothing to import: it makes the genesis block the tip.
        manager.import_blocks([])
        return manager

    def submit(self, raw: bytes) -> bool:
        """Give a block to the kernel; False if it is not even a block with work done on it."""
        try:
            block = self._pbk.Block(raw)
        except RuntimeError:
            return False
        try:
            self._manager.process_block(block)
        except self._pbk.ProcessBlockException:
            return False
        return True

    def split(self, raw: bytes) -> list[bytes]:
        """Return the transactions of a block as bytes.

        Raises:
            RuntimeError: the bytes are no block.
        """
        return [bytes(one) for one in self._pbk.Block(raw).transactions]

    @property
    def tip(self) -> str:
        """Return the hash of the best block."""
        chain = self._manager.get_active_chain()
        return str(chain.block_tree_entries[chain.height].block_hash)

    def genesis(self) -> bytes:
        """Return the first block."""
        first = self._manager.get_active_chain().block_tree_entries[0]
        return bytes(self._manager.blocks[first])

    def close(self) -> None:
        """Let go of the library's chain and of its folder."""
        self._manager = None
        shutil.rmtree(self._folder, ignore_errors=True)
