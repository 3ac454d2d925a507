"""Local chains for development, demonstrations and tests: real consensus code, no network.

What is here:

- ``evm``: a JSON-RPC node over py-evm that speaks anvil's methods and keeps a mempool of its own;
- ``bitcoin``: a JSON-RPC node over Bitcoin Core's consensus code that speaks bitcoind's methods;
- ``faults``: a proxy before any node that fails in the ways in which providers fail;
- ``anvil``: finds and starts a real anvil, so that one conformance suite judges both;
- ``geth``: finds and starts a real geth, the word on what a real node does;
- ``bitcoind``: finds and starts a real bitcoind on regtest.

What is not here: nothing in this package is used against a real network, and its keys are the
published development keys, worth nothing anywhere else.
"""
