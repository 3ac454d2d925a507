"""Read a compiled contract that is shipped with this package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from kernel.errors import BadInput


@dataclass(frozen=True, slots=True)
class Artefact:
    """A compiled contract.

    ``bytecode`` is the creation code, to which encoded constructor arguments are appended;
    ``deployed_bytecode`` is what the chain then holds, immutables left zero.
    """

    name: str
    abi: tuple[Mapping[str, Any], ...] = field(repr=False)
    bytecode: bytes = field(repr=False)
    deployed_bytecode: bytes = field(repr=False)
    compiler: str
    evm_version: str
    source: str
    source_sha256: str


def load_artefact(name: str) -> Artefact:
    """Return the artefact of a contract, for example ``TestDollar``.

    Raises:
        BadInput: no contract of that name is shipped.
    """
    if not name.isidentifier():
        raise BadInput(f"{name!r} is not the name of a contract")
    path = files(__package__).joinpath(f"{name}.json")
    if not path.is_file():
        raise BadInput(f"no compiled contract {name!r} is shipped", where=str(path))
    body = json.loads(path.read_text(encoding="utf-8"))
    return Artefact(
        name=body["name"],
        abi=tuple(body["abi"]),
        bytecode=bytes.fromhex(body["bytecode"].removeprefix("0x")),
        deployed_bytecode=bytes.fromhex(body["deployedBytecode"].removeprefix("0x")),
        compiler=body["compiler"],
        evm_version=body["evmVersion"],
        source=body["source"],
        source_sha256=body["sourceSha256"],
    )
