"""Call frames of a transaction, as py-evm runs it again: what ``callTracer`` and ``trace_block`` show.

py-evm keeps the computations inside a computation, but not by which instruction each was begun, nor
calls that failed before they began (no funds, too deep), nor what a destruction paid out. So the
instructions that begin something are wrapped for the time of a trace.

Shapes: geth ``eth/tracers/native/call.go`` (nested) and OpenEthereum's trace module (flat).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eth._utils.address import force_bytes_to_address
from eth.exceptions import Halt, Revert, VMError
from eth.vm import opcode_values
from eth.vm.forks.prague.computation import PragueComputation
from eth.vm.forks.prague.state import PragueState

CALLS: Final = {
    opcode_values.CALL: "CALL",
    opcode_values.CALLCODE: "CALLCODE",
    opcode_values.DELEGATECALL: "DELEGATECALL",
    opcode_values.STATICCALL: "STATICCALL",
}
CREATIONS: Final = {opcode_values.CREATE: "CREATE", opcode_values.CREATE2: "CREATE2"}
#: Calls that name a value; the others pass on that of the frame around them, or none.
VALUED: Final = frozenset({"CALL", "CALLCODE"})
FOREIGN_CODE: Final = frozenset({"DELEGATECALL", "CALLCODE"})


@dataclass(frozen=True, slots=True)
class CallFrame:
    """One call, creation or destruction, with those inside it in their order.

    Attributes:
        kind: the instruction, for example ``DELEGATECALL``.
        to: empty for a creation that failed before it had an address.
        value: wei; of a DELEGATECALL that of the frame around it.
        error: in geth's words; None when it succeeded.
    """

    kind: str
    sender: bytes
    to: bytes
    value: int
    gas: int
    gas_used: int
    data: bytes
    output: bytes
    error: str | None
    calls: tuple[CallFrame, ...] = ()

    @property
    def is_creation(self) -> bool:
        """Return whether it makes a contract."""
        return self.kind in CREATIONS.values()


class TracedComputation(PragueComputation):
    """Prague's rules, which also note what each frame begins."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.begun: list[TracedComputation | CallFrame] = []
        self.begins = ""
        self.kind = "CREATE" if self.msg.is_create else "CALL"

    def add_child_computation(self, child_computation: Any) -> None:
        """Note the child, and by which instruction it was begun."""
        child_computation.kind = self.begins
        self.begun.append(child_computation)
        super().add_child_computation(child_computation)


class _Begin:
    """An instruction that begins a frame, noting one that fails before it has begun."""

    def __init__(self, kind: str, inner: Any) -> None:
        self._kind = kind
        self._inner = inner

    def __call__(self, computation: Any) -> None:
        before = len(computation.begun)
        computation.begins = self._kind
        attempt = _attempted(self._kind, computation)
        self._inner(computation=computation)
        if len(computation.begun) == before:
            computation.begun.append(attempt)


class _Destroy:
    """SELFDESTRUCT, noting whom it pays how much."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, computation: Any) -> None:
        heir = force_bytes_to_address(_word(computation, 0))
        address = computation.msg.storage_address
        balance = computation.state.get_balance(address)
        try:
            self._inner(computation=computation)
        except Halt:
            frame = CallFrame("SELFDESTRUCT", address, heir, balance, 0, 0, b"", b"", None)
            computation.begun.append(frame)
            raise


def _opcodes() -> dict[int, Any]:
    known: dict[int, Any] = dict(PragueComputation.opcodes)
    for value, kind in {**CALLS, **CREATIONS}.items():
        known[value] = _Begin(kind, known[value])
    known[opcode_values.SELFDESTRUCT] = _Destroy(known[opcode_values.SELFDESTRUCT])
    return known


TracedComputation.opcodes = _opcodes()


class TracedState(PragueState):
    """Prague's state, whose computations note what they begin."""

    computation_class = TracedComputation


def frame_of(computation: Any, *, gas: int, gas_used: int) -> CallFrame:
    """Return the frames of a transaction that has run, from its outermost computation.

    *gas* and *gas_used* are those of the transaction, which include what it costs to begin one.
    """
    return _frame(computation, gas=gas, gas_used=gas_used)


def nested_json(frame: CallFrame) -> dict[str, Any]:
    """Return a frame as ``callTracer`` shows it."""
    body: dict[str, Any] = {
        "type": frame.kind,
        "from": _hex(frame.sender),
        "gas": hex(frame.gas),
        "gasUsed": hex(frame.gas_used),
        "input": _hex(frame.data),
    }
    if frame.to:
        body["to"] = _hex(frame.to)
    if frame.output:
        body["output"] = _hex(frame.output)
    if frame.kind != "STATICCALL":
        body["value"] = hex(frame.value)
    if frame.error is not None:
        body["error"] = frame.error
    if frame.calls:
        body["calls"] = [nested_json(call) for call in frame.calls]
    return body


def flat_json(frame: CallFrame) -> Iterator[dict[str, Any]]:
    """Yield a frame and those inside it as ``trace_transaction`` shows them, depth first.

    Calls of precompiled contracts are among them, as anvil shows them.
    """
    yield from _flat(frame, ())


def _frame(computation: Any, *, gas: int | None = None, gas_used: int | None = None) -> CallFrame:
    message, error = computation.msg, computation.error if computation.is_error else None
    kind, creation = computation.kind, computation.msg.is_create
    sender, to = message.sender, message.storage_address if creation else message.to
    if kind in FOREIGN_CODE:
        sender, to = message.to, message.code_address
    return CallFrame(
        kind=kind,
        sender=bytes(sender),
        to=bytes(to),
        value=message.value,
        gas=message.gas if gas is None else gas,
        gas_used=computation.get_gas_used() if gas_used is None else gas_used,
        data=bytes(message.code if creation else message.data),
        output=bytes(computation.output) if error is None or isinstance(error, Revert) else b"",
        error=None if error is None else _words(error),
        calls=tuple(
            inner if isinstance(inner, CallFrame) else _frame(inner) for inner in computation.begun
        ),
    )


def _attempted(kind: str, computation: Any) -> CallFrame:
    """Return the frame that is about to be begun, for the case that it fails at once."""
    address = computation.msg.storage_address
    if kind in CREATIONS.values():
        value = int.from_bytes(_word(computation, 0), "big")
        return CallFrame(kind, address, b"", value, 0, 0, b"", b"", "insufficient balance")
    to = force_bytes_to_address(_word(computation, 1))
    value = int.from_bytes(_word(computation, 2), "big") if kind in VALUED else 0
    error = "insufficient balance for transfer" if value else "max call depth exceeded"
    return CallFrame(kind, address, to, value, 0, 0, b"", b"", error)


def _word(computation: Any, depth: int) -> bytes:
    """Return the word at *depth* below the top of the stack; zero when there is none."""
    # py-evm has no way to look at the stack without taking from it.
    values: Sequence[int | bytes] = computation._stack.values  # noqa: SLF001
    if depth >= len(values):
        return bytes(32)
    item = values[-1 - depth]
    return item.to_bytes(32, "big") if isinstance(item, int) else item.rjust(32, b"\0")


def _words(error: VMError) -> str:
    if isinstance(error, Revert):
        return "execution reverted"
    name = type(error).__name__
    return "out of gas" if name == "OutOfGas" else f"{name}: {error}"


def _flat(frame: CallFrame, path: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    yield {
        **_flat_action(frame),
        **({} if frame.error is None else {"error": _flat_error(frame.error)}),
        "subtraces": len(frame.calls),
        "traceAddress": list(path),
    }
    for place, call in enumerate(frame.calls):
        yield from _flat(call, (*path, place))


def _flat_action(frame: CallFrame) -> dict[str, Any]:
    if frame.kind == "SELFDESTRUCT":
        action = {
            "address": _hex(frame.sender),
            "balance": hex(frame.value),
            "refundAddress": _hex(frame.to),
        }
        return {"type": "suicide", "action": action, "result": None}
    action = {"from": _hex(frame.sender), "gas": hex(frame.gas), "value": hex(frame.value)}
    result = {"gasUsed": hex(frame.gas_used)}
    if frame.is_creation:
        action |= {"init": _hex(frame.data), "creationMethod": frame.kind.lower()}
        result |= {"address": _hex(frame.to), "code": _hex(frame.output)}
    else:
        action |= {"callType": frame.kind.lower(), "to": _hex(frame.to), "input": _hex(frame.data)}
        result |= {"output": _hex(frame.output)}
    return {
        "type": "create" if frame.is_creation else "call",
        "action": action,
        "result": result if frame.error is None else None,
    }


def _flat_error(error: str) -> str:
    return "Reverted" if error == "execution reverted" else error


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()
