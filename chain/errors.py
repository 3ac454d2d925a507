"""What can go wrong with a chain, a node or a key.

::

    CausewayError (kernel)
    ├── OutsideUnavailable
    │   └── NodeTrouble                 the node cannot be relied on at this moment: ask again
    │       ├── NodeUnavailable         no answer, or a refusal to serve
    │       ├── UnreadableAnswer        an answer that breaks the protocol
    │       │   └── TokenUnreadable     the token's contract does not tell a balance; the node is well
    │       ├── IncompleteAnswer        an answer that contradicts the block it belongs to
    │       ├── BlockGone               the block asked for is not on the node's chain (any more)
    │       └── RangeTooLarge           the node will not answer for so many blocks at once
    ├── Refused
    │   ├── WrongChain                  the node serves another chain than the one configured
    │   ├── ChainHalted                 a reorganisation deeper than policy; people must look
    │   ├── CursorMoved                 another follower has taken this chain over
    │   ├── CallReverted                the contract refuses the call that was to be sent
    │   └── DerivationDisagrees         two libraries derive different addresses
    └── BadInput
        ├── BadAddress                  not an address of this chain, or a mistyped one
        ├── BadKey                      not a valid extended public key
        └── BadTransaction              bytes that are not exactly one transaction we may send
"""

from __future__ import annotations

from kernel.errors import BadInput, OutsideUnavailable, Refused


class NodeTrouble(OutsideUnavailable):
    """The node cannot be relied on at this moment; nothing was concluded from it."""


class NodeUnavailable(NodeTrouble):
    """The node does not answer, or refuses to serve."""


class UnreadableAnswer(NodeTrouble):
    """The node's answer breaks the protocol."""


class TokenUnreadable(UnreadableAnswer):
    """A token's contract does not tell a balance: it refuses, is gone, or answers nonsense.

    It is the contract's doing, and every honest node says the same.
    """


class IncompleteAnswer(NodeTrouble):
    """The node's answer contradicts the block that it belongs to."""


class BlockGone(NodeTrouble):
    """The block that was asked for is not on the node's chain (any more)."""


class RangeTooLarge(NodeTrouble):
    """The node will not answer for so many blocks at once."""


class WrongChain(Refused):
    """The node serves another chain than the one that is configured."""


class ChainHalted(Refused):
    """A reorganisation went deeper than policy allows; two people must look and resume."""


class CursorMoved(Refused):
    """Another follower has moved this chain's cursor."""


class CallReverted(Refused):
    """The contract refuses the call that was to be sent."""


class DerivationDisagrees(Refused):
    """Two independent libraries derive different addresses from the same key."""


class BadAddress(BadInput):
    """Not an address of this chain, or a mistyped one."""


class BadKey(BadInput):
    """Not a valid extended public key."""


class BadTransaction(BadInput):
    """Bytes that are not exactly one transaction that we may send."""
