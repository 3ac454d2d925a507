"""A bitcoind for development: Bitcoin Core's consensus code validates, this package is the node.

libbitcoinkernel brings validation of blocks and scripts and the choice of the best chain. Added here:
a mempool with relay rules and replacement, making of blocks, ``invalidateblock``, a table of coins,
and bitcoind's JSON-RPC with its error codes and its way of writing numbers.

It is not a client for a real network: no peers, no wallet, regtest only. A transaction that it takes
has valid scripts; what it refuses may differ from a given bitcoind in the rules of relay alone,
and the conformance cards say where.

Verbs: ``server.BitcoinSimulator`` (start, stop), ``server.serve`` (run until told to stop) and
``testing.start_bitcoin_simulator`` (for the length of a ``with`` block);
``python -m chain.simulators.bitcoin`` runs it as a process.

Rooms, from pure to outside: ``model`` (values), ``blocks`` (bytes of blocks), ``policy`` and
``replacement`` (what the pool takes), ``assembly`` (what a block takes), ``mempool``, ``wire`` and
``scripts_json`` (values as JSON), ``descriptors``, ``consensus`` (the only room that knows the
kernel's chain), ``chain`` (blocks, coins, reorganisations), ``journal`` (what survives a kill), ``faucet``
(coins for demonstrations), ``node``, ``methods_*`` and ``rpc`` (JSON-RPC), ``server``.
"""
