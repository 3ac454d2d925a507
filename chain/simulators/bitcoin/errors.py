"""Errors of the simulator, with bitcoind's codes.

::

    CausewayError
    ├── RpcError                         answered to the caller as a JSON-RPC error object
    │   ├── ParseFailed           -32700 the body is not JSON
    │   ├── InvalidRequest        -32600 the JSON is not a request
    │   ├── MethodUnknown         -32601
    │   ├── MiscError             -1     wrong number of arguments, and what has no code of its own
    │   ├── WrongType             -3     an argument of another JSON type, an amount that cannot be
    │   ├── NotFound              -5     no such block, transaction or address
    │   ├── InvalidParameter      -8     an argument of the right type with an impossible value
    │   ├── Undecodable           -22    bytes that are no transaction or block
    │   ├── TransactionRefused    -25    inputs missing or spent, a fee above the caller's own limit
    │   ├── RuleRefused           -26    against the rules of consensus or relay
    │   ├── AlreadyInChain        -27
    │   └── WarmingUp             -28    the node still loads
    └── PortTaken                        the listening port belongs to somebody else

Source of the codes: Bitcoin Core ``src/rpc/protocol.h``.
"""

from __future__ import annotations

from typing import ClassVar

from kernel.errors import CausewayError, OutsideUnavailable


class RpcError(CausewayError):
    """The call failed in a way the caller is told about."""

    code: ClassVar[int] = -32603


class ParseFailed(RpcError):
    """The body is not JSON."""

    code = -32700


class InvalidRequest(RpcError):
    """The JSON is not a request."""

    code = -32600


class MethodUnknown(RpcError):
    """No such method."""

    code = -32601


class MiscError(RpcError):
    """What has no code of its own."""

    code = -1


class WrongType(RpcError):
    """An argument has another type than the method takes."""

    code = -3


class NotFound(RpcError):
    """No such block, transaction or address."""

    code = -5


class InvalidParameter(RpcError):
    """An argument has the right type and an impossible value."""

    code = -8


class Undecodable(RpcError):
    """Bytes that are no transaction or no block."""

    code = -22


class TransactionRefused(RpcError):
    """The transaction cannot be taken as things stand, or not by the caller's own limits."""

    code = -25


class RuleRefused(RpcError):
    """The transaction breaks a rule of consensus or relay.

    Attributes:
        reason: the short word for the rule, without what differs from case to case.
    """

    code = -26

    def __init__(self, reason: str, details: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason}, {details}" if details else reason)


class AlreadyInChain(RpcError):
    """The transaction's outputs are unspent in the chain."""

    code = -27


class WarmingUp(RpcError):
    """The node still loads its blocks."""

    code = -28


class PortTaken(OutsideUnavailable):
    """The listening port belongs to somebody else."""
