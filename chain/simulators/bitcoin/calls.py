"""The arguments of a call: by position or by name, of the right JSON types, or bitcoind's refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from chain.bitcoin.addresses import parse_address
from chain.bitcoin.networks import REGTEST
from chain.bitcoin.transactions import MONEY_MAX
from chain.errors import BadAddress
from chain.simulators.bitcoin.errors import InvalidParameter, MiscError, NotFound, WrongType
from chain.simulators.bitcoin.faucet import Faucet
from chain.simulators.bitcoin.node import Node

Json = Any

REQUIRED: Final = object()
HASH_LETTERS: Final = 64


@dataclass(frozen=True, slots=True)
class Context:
    """What a method works on."""

    node: Node
    faucet: Faucet


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a method.

    Attributes:
        kinds: JSON types that it may have, separated by ``|``.
        default: for a missing or null one; `REQUIRED` if there is none.
    """

    name: str
    kinds: str
    default: Any = REQUIRED


@dataclass(frozen=True, slots=True)
class Method:
    """A method: what runs it, and what it is called with."""

    run: Callable[..., Json]
    arguments: tuple[Argument, ...] = ()

    def read(self, name: str, params: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
        """Return one value for each argument.

        Raises:
            MiscError: too many or too few.
            WrongType: one of another JSON type.
            InvalidParameter: a name that the method does not know.
        """
        given = self._by_name(params) if isinstance(params, Mapping) else list(params)
        required = sum(argument.default is REQUIRED for argument in self.arguments)
        if not required <= len(given) <= len(self.arguments):
            raise MiscError(self._usage(name))
        values, wrong = [], []
        for number, argument in enumerate(self.arguments):
            value = given[number] if number < len(given) else None
            if value is None and argument.default is not REQUIRED:
                values.append(argument.default)
                continue
            kind = kind_of(value)
            if kind not in argument.kinds.split("|"):
                expected = argument.kinds.replace("|", " or ")
                wrong.append(
                    f'    "Position {number + 1} ({argument.name})": '
                    f'"JSON value of type {kind} is not of expected type {expected}"'
                )
            values.append(value)
        if wrong:
            raise WrongType("Wrong type passed:\n{\n" + ",\n".join(wrong) + "\n}")
        return values

    def _by_name(self, params: Mapping[str, Any]) -> list[Any]:
        known = [argument.name for argument in self.arguments]
        for name in params:
            if name not in known:
                raise InvalidParameter(f"Unknown named parameter {name}")
        values = [params.get(name) for name in known]
        while values and values[-1] is None:
            values.pop()
        return values

    def _usage(self, name: str) -> str:
        words = [
            argument.name if argument.default is REQUIRED else f"( {argument.name} )"
            for argument in self.arguments
        ]
        return " ".join([name, *words]) + "\n"


def kind_of(value: Any) -> str:
    """Return bitcoind's word for the type of a JSON value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def read_hash(value: str, name: str) -> str:
    """Return a hash of 64 hexadecimal digits in lower case."""
    if len(value) != HASH_LETTERS:
        raise InvalidParameter(
            f"{name} must be of length {HASH_LETTERS} (not {len(value)}, for '{value}')"
        )
    if not set(value.lower()) <= set("0123456789abcdef"):
        raise InvalidParameter(f"{name} must be hexadecimal string (not '{value}')")
    return value.lower()


def read_integer(value: Any) -> int:
    """Return a JSON number that has to be whole."""
    if isinstance(value, float):
        raise MiscError("JSON integer out of range")
    return int(value)


def read_amount(value: Any) -> int:
    """Return satoshi of an amount in bitcoins, given as a number or as text."""
    try:
        satoshi = Decimal(repr(value) if isinstance(value, float) else value) * 100_000_000
    except InvalidOperation as exc:
        raise WrongType("Invalid amount") from exc
    if not satoshi.is_finite() or satoshi != int(satoshi):
        raise WrongType("Invalid amount")
    if not 0 <= satoshi <= MONEY_MAX:
        raise WrongType("Amount out of range")
    return int(satoshi)


def read_rate(value: Any) -> int:
    """Return satoshi for 1,000 virtual bytes of a fee rate in BTC/kvB."""
    rate = read_amount(value)
    if rate >= 100_000_000:
        raise InvalidParameter("Fee rates larger than or equal to 1BTC/kvB are not accepted")
    return rate


def read_script(address: str) -> bytes:
    """Return the script that an address of regtest pays."""
    try:
        return parse_address(address, REGTEST)
    except BadAddress as exc:
        raise NotFound("Error: Invalid address") from exc
