"""``causeway custody keys token-wallet, token-check``: a token's key becomes a wallet of the house."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pkcs11
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.local.processes import Processes, python_module
from chain.evm.addresses import address_of_public_key
from custody.signer.backends.pkcs11 import TokenKeys
from custody.signer.testing import SEED, rules_for, write_signer_files
from kernel.clock import SystemClock
from kernel.db import transact
from registry.changes import propose
from registry.model import Wallet
from registry.queries import get_wallet, list_proposals
from registry.testing import DEMO_OPERATORS, demo_founding
from tests.app.cli.conftest import Cli
from tests.custody.signer.softhsm import CONFIGURATION, LABEL, make_token

As = Callable[[str], tuple[str, ...]]
OTHER = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"


@pytest.fixture
def made(
    causeway_processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str]]:
    """A signer with a token, and the address of the token's key."""
    token = make_token(tmp_path)
    monkeypatch.setenv(CONFIGURATION, str(token.configuration))
    token.start_anew()
    with TokenKeys.open(token.module, LABEL, token.pin) as keys:
        address = address_of_public_key(keys.make_key("hot"))
    pkcs11.lib(str(token.module)).finalize()
    founding = demo_founding()
    rules = rules_for(founding.chains, founding.chain_assets, DEMO_OPERATORS)
    files = write_signer_files(tmp_path, rules, seed=SEED, random=secrets.token_bytes)
    socket = str(tmp_path / "s")
    named = ["--pkcs11-module", str(token.module), "--pkcs11-token", LABEL]
    named += ["--pkcs11-pin", str(token.pin), "--socket", socket]
    child = causeway_processes.start(
        python_module("signer", "custody.signer", *named, *files.options)
    )
    yield socket, address
    causeway_processes.stop(child)


async def test_a_token_s_key_becomes_a_wallet_when_two_people_have_asked_the_signer(
    house: AsyncEngine, cli: Cli, as_: As, made: tuple[str, str]
) -> None:
    signer, address = made
    words = ("custody", "keys", "token-wallet", "vault", "--label", "hot", "--chain", "evm")
    asked = cli(*words, "--signer", signer, "--reason", "new module", *as_("ada"), "--json")
    assert asked.code == 0, asked.err
    assert asked.json["address"] == address

    checked = cli("custody", "keys", "token-check", "vault", "--signer", signer, "--json")
    assert (checked.code, checked.json["address"]) == (0, address)
    approved = cli("registry", "approve", asked.json["proposal"], *as_("ben"))
    assert approved.code == 0, approved.err

    wallet = await transact(house, lambda conn: get_wallet(conn, "vault"))
    assert (wallet.token_key, wallet.token_public_key) == ("hot", asked.json["public_key"])
    shown = json.loads(cli("registry", "list", "wallet", "--json").out)
    assert asked.json["public_key"] in {item["token_public_key"] for item in shown}
    unknown = cli(
        *("custody", "keys", "token-wallet", "other", "--label", "cold", "--chain", "evm"),
        *("--signer", signer, "--reason", "x", *as_("ada")),
    )
    assert (unknown.code, "no key cold" in unknown.err) == (1, True)


async def test_whoever_approves_finds_out_that_the_proposed_key_is_another(
    house: AsyncEngine, cli: Cli, as_: As, made: tuple[str, str]
) -> None:
    signer, _ = made
    words = ("custody", "keys", "token-wallet", "vault", "--label", "hot", "--chain", "evm")
    cli(*words, "--signer", signer, "--reason", "new module", *as_("ada"))
    [honest] = await transact(house, list_proposals)
    false = replace(Wallet(**{**honest.content, "cosigners": ()}), token_public_key=OTHER)
    now = SystemClock().now()
    await transact(house, lambda c: propose(c, false, by="ada", reason="swapped", now=now))

    checked = cli("custody", "keys", "token-check", "vault", "--signer", signer)

    assert checked.code == 1
    assert "Approve nothing of this wallet" in checked.err
    client = cli("custody", "keys", "token-check", "client-pool", "--signer", signer)
    assert (client.code, "in no token" in client.err) == (1, True)
