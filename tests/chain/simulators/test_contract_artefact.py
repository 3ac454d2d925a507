"""The committed artefact is what the committed source compiles to."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files

import pytest

from chain.contracts.artefact import load_artefact
from kernel.errors import BadInput


@pytest.mark.parametrize("name", ["TestDollar", "OddToken", "TestProxy", "TestSplitter"])
def test_the_artefact_was_built_from_the_source_beside_it(name: str) -> None:
    artefact = load_artefact(name)
    source = files("chain.contracts").joinpath(artefact.source).read_bytes()

    assert artefact.source_sha256 == hashlib.sha256(source).hexdigest()


def test_the_compiler_is_the_one_that_package_json_pins() -> None:
    package = json.loads(files("chain.contracts").joinpath("package.json").read_text())
    artefact = load_artefact("TestDollar")

    assert artefact.compiler.startswith(f"solc {package['devDependencies']['solc']}+commit.")
    assert artefact.evm_version == "cancun"


def test_the_artefact_has_the_interface_of_an_erc20_with_mint() -> None:
    artefact = load_artefact("TestDollar")
    names = {entry.get("name") for entry in artefact.abi}

    assert artefact.name == "TestDollar"
    assert {"Transfer", "Approval", "transfer", "transferFrom", "approve", "mint"} <= names
    assert {"name", "symbol", "decimals", "totalSupply", "balanceOf", "allowance"} <= names
    (constructor,) = [entry for entry in artefact.abi if entry["type"] == "constructor"]
    assert [one["type"] for one in constructor["inputs"]] == [
        "string",
        "string",
        "uint8",
        "uint256",
    ]
    assert len(artefact.bytecode) > len(artefact.deployed_bytecode) > 1000


@pytest.mark.parametrize("name", ["NoSuchToken", "../TestDollar", ""])
def test_an_unknown_contract_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        load_artefact(name)
