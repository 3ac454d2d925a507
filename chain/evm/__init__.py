"""Ethereum and chains like it: exact bytes, exact answers, one node over JSON-RPC.

- ``addresses``, ``rlp``, ``transactions``, ``erc20``: pure; what is signed and what it says;
- ``quantities``, ``bloom``, ``parse``: pure; a node's blocks and receipts as movements and outcomes;
- ``refusals``: pure; what a node's error messages prove;
- ``gateway``, ``providers``: the door to a node, or to several.
"""
