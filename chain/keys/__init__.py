"""Public halves of keys: extended public keys (BIP32) and the addresses that follow from them.

Private keys never come here. An address that is shown to anybody comes from `checked.derive_checked`,
which asks two independent libraries and refuses when they disagree.
"""
