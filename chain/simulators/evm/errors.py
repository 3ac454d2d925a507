"""Errors of the simulator.

::

    CausewayError
    ├── RpcError                    answered to the caller as a JSON-RPC error object
    │   ├── ParseFailed      -32700 the body is not JSON
    │   ├── InvalidRequest   -32600 the JSON is not a JSON-RPC 2.0 request
    │   ├── MethodUnknown    -32601
    │   ├── InvalidParams    -32602
    │   ├── ServerRefusal    -32000 understood, cannot be answered (unknown block, bad range)
    │   ├── TransactionRefused -32003 the pool does not take the transaction
    │   └── ExecutionReverted     3 a call or an estimate reverted; carries the revert data
    └── PortTaken                   the listening port belongs to somebody else

Codes: https://www.jsonrpc.org/specification#error_object and EIP-1474; code 3 with ``data`` is
what geth and anvil answer to a reverted ``eth_call``.
"""

from __future__ import annotations

from typing import ClassVar

from kernel.errors import CausewayError, OutsideUnavailable


class RpcError(CausewayError):
    """The call failed in a way the caller is told about."""

    code: ClassVar[int] = -32603

    @property
    def data(self) -> str | None:
        """Return further data for the ``data`` member of the error object, if any."""
        return None


class ParseFailed(RpcError):
    """The body is not JSON."""

    code = -32700


class InvalidRequest(RpcError):
    """The JSON is not a JSON-RPC 2.0 request."""

    code = -32600


class MethodUnknown(RpcError):
    """No such method."""

    code = -32601


class InvalidParams(RpcError):
    """The parameters do not fit the method."""

    code = -32602


class ServerRefusal(RpcError):
    """The request is understood and cannot be answered."""

    code = -32000


class TransactionRefused(RpcError):
    """The pool does not take the transaction."""

    code = -32003


class ExecutionReverted(RpcError):
    """A call or a gas estimate reverted."""

    code = 3

    def __init__(self, what: str, revert_data: bytes) -> None:
        self.revert_data = revert_data
        super().__init__(what)

    @property
    def data(self) -> str | None:
        """Return the revert data in hex."""
        return "0x" + self.revert_data.hex()


class PortTaken(OutsideUnavailable):
    """The listening port belongs to somebody else."""
