"""Bitcoin as exact bytes: addresses, scripts, transactions, what is signed, which coins are spent.

- ``networks``: what tells one network's addresses from another's;
- ``bech32``, ``scripts``, ``addresses``: an address becomes the script that it pays, and back;
- ``derivation``: addresses and descriptors of an account key, as two libraries derive them;
- ``transactions``: read strictly, written again byte for byte; ids and sizes come from the bytes;
- ``digests``: what a signature of a version 0 witness program signs;
- ``multisig``, ``signing``: scripts of several keys; signatures put in their place and verified;
- ``psbt``: partially signed transactions, which cold wallets and the signer are given;
- ``fees``, ``selection``: what weight costs, what is too small to be worth it, which coins pay;
- ``kernel``: Bitcoin's own consensus code checks what we signed, where it is installed.
- ``raw``, ``quantities``, ``parse``, ``blocks``: a node's blocks, held against their hashes, and what
  they hold for a watch list;
- ``ports``, ``model``: what a node is asked beyond what every chain answers;
- ``node``, ``mempool``, ``heads``, ``gateway``, ``node_set``: the door to one bitcoind, or several;
- ``testing``: a chain in memory behind the same door.

All of it is pure but for the door. It holds no private key.
"""
