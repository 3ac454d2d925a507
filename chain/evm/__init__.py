"""Ethereum and chains like it: exact bytes, exact answers, one node over JSON-RPC.

- ``addresses``, ``rlp``, ``transactions``, ``erc20``: pure; what is signed and what it says;
- ``parse``: pure; a node's blocks and receipts as movements and outcomes;
- ``broadcasts``: pure; what a node's words about sent bytes prove;
- ``rpc``, ``gateway``: the door to a node.
"""
