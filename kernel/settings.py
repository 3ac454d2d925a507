"""Settings: one typed object, read from the environment in one place, whose secrets never print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from kernel.errors import BadInput
from kernel.redaction import KNOWN

PREFIX: Final = "CAUSEWAY_"
PORT_MAX: Final = 65_535
_MAY_HOLD_KEYS: Final = frozenset({"evm_url", "evm_ws_url"})
"""Settings that are shown, but for what lets us in: with many services that is in the address."""


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """Text that is shown to nobody: neither printed, nor logged, nor put into an error."""

    value: str

    def __post_init__(self) -> None:
        KNOWN.remember(self.value)

    def reveal(self) -> str:
        """Return the text, for the one call that needs it."""
        return self.value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __str__(self) -> str:
        return "…"

    def __format__(self, spec: str) -> str:
        return "…"


def _setting(purpose: str, default: object = None) -> Any:
    return field(default=default, metadata={"purpose": purpose})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set from outside; each field is ``CAUSEWAY_<NAME>``."""

    database_url: Secret | None = _setting(
        "PostgreSQL as the owner role, which migrates; unset: an embedded server is started"
    )
    app_database_url: Secret | None = _setting(
        "PostgreSQL as the runtime role; unset: database_url with SET ROLE causeway_app"
    )
    state_dir: Path = _setting("where embedded components keep their data", Path(".causeway"))
    pg_bin: Path | None = _setting(
        "binaries of a system PostgreSQL to embed instead of the wheel's"
    )
    anvil: Path | None = _setting("an anvil binary to use as the local EVM chain")
    evm_url: str | None = _setting(
        "JSON-RPC endpoints of the EVM chain, separated by blanks; unset: the demo and a trial house"
        " start a local one"
    )
    evm_ws_url: str | None = _setting(
        "WebSocket endpoints that announce new heads, separated by blanks; unset: polling alone"
    )
    evm_quorum: int = _setting("how many of them must agree (0: more than half)", 0)
    bitcoin_url: Secret | None = _setting(
        "JSON-RPC endpoints of the Bitcoin chain, separated by blanks, each with"
        " http://user:password@… or #cookie=/path/to/.cookie; unset: a trial house starts"
        " a local one, another has no Bitcoin"
    )
    bitcoin_quorum: int = _setting("how many of them must agree (0: more than half)", 0)
    evm_port: int = _setting("port of the local EVM chain (0: any free one)", 0)
    venue_port: int = _setting("port of the local venue simulator (0: any free one)", 0)
    health_host: str = _setting(
        "address at which `causeway up` answers about its health", "127.0.0.1"
    )
    health_port: int | None = _setting(
        "port of /livez, /readyz, /startupz and /metrics of `causeway up` (0: any free one; unset: not"
        " served)"
    )
    log_level: str = _setting("debug, info, warning or error", "info")
    log_json: bool = _setting("log one JSON object a line", default=False)
    otlp_url: Secret | None = _setting(
        "collector of OpenTelemetry traces (OTLP over HTTP); unset: nothing is traced"
    )

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the environment.

        Raises:
            BadInput: names the variable, what it holds (unless secret) and what it should hold.
        """
        known = {variable_name(f.name): f for f in fields(cls)}
        values: dict[str, Any] = {}
        for variable, setting in known.items():
            text = env.get(variable, "").strip()
            if text:
                values[setting.name] = _parse(variable, str(setting.type), text)
                if setting.name in _MAY_HOLD_KEYS:
                    KNOWN.remember(text)
        return cls(**values)


def variable_name(field_name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + field_name.upper()


def describe() -> list[tuple[str, str, str]]:
    """Return (variable, default, purpose) of every setting, for the docs and for ``--help``."""
    return [
        (variable_name(f.name), "" if f.default is None else str(f.default), f.metadata["purpose"])
        for f in fields(Settings)
    ]


def _parse(variable: str, kind: str, text: str) -> object:
    if kind.startswith("Secret"):
        return Secret(text)
    if kind.startswith("Path"):
        return Path(text)
    if kind.startswith("int"):
        if not (text.isascii() and text.isdigit()) or int(text) > PORT_MAX:
            raise BadInput(f"{variable} is {text!r}", remedy=f"Set a port from 0 to {PORT_MAX}")
        return int(text)
    if kind == "bool":
        if text.lower() not in {"0", "1", "true", "false"}:
            raise BadInput(f"{variable} is {text!r}", remedy="Set 1 or 0")
        return text.lower() in {"1", "true"}
    return text
