"""An EVM development node: py-evm executes, this package adds what a node adds to an EVM.

py-evm brings the state transition (Prague rules) and nothing of a node. Added here: JSON-RPC over
HTTP and WebSocket, a mempool with nonce gaps and geth's replacement rule, block production
(automine, interval, on demand), reorgs that return orphaned transactions to the pool, and
``safe``/``finalized`` tags that lag behind the head.

It is not a client for a real network: no peers, no consensus, no blob transactions, state in
memory only.

Verbs: ``server.EvmSimulator`` (start, stop) and ``server.serve`` (run until told to stop);
``python -m chain.simulators.evm`` runs it as a process.

Rooms, from pure to outside: ``model`` and ``wire`` (values and their JSON), ``mempool``,
``admission``, ``fees`` and ``logs`` (decisions), ``execution`` and ``tracing`` (the only rooms that
know py-evm's virtual machine), ``transactions`` and ``accounts`` (decoding, signing with development keys),
``node`` (chain + pool), ``methods_eth``, ``methods_dev``, ``methods_debug`` and ``rpc`` (JSON-RPC), ``server``.
"""
