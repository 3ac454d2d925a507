"""A key in a token, all the way: a signer process behind mutual TLS, and a chain that takes it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import aiohttp
import msgspec
import pkcs11
import pytest

from chain.evm.addresses import address_of_public_key
from chain.evm.transactions import decode_signed, encode_unsigned
from chain.simulators.anvil import find_anvil, start_anvil
from chain.simulators.testing import JsonRpc, dev_account, sign_transaction, start_evm_process
from custody.control_messages import ControlKind, KeyRetired, WalletPinned
from custody.signer.backends.pkcs11 import TokenKeys
from custody.signer.certificates import write_house
from custody.signer.client import SignerClient
from custody.signer.errors import SignerPostponed, SignerRefused
from custody.signer.keystore import seal, write_keystore
from custody.signer.transport import TlsFiles, parse_endpoint
from custody.signer.wire import Accepted
from kernel.clock import SystemClock
from tests.custody.signer.softhsm import CONFIGURATION, LABEL, PIN, SoftToken, make_token
from tests.custody.signer.vault import (
    CHAIN_ID,
    ETH,
    OTHER_PATH,
    OWN,
    PAYEE,
    RULES,
    SEED,
    allowed,
    approval_now,
    control,
    intent,
    native,
)

REPOSITORY = Path(__file__).parents[3]
REQUIRE_ANVIL = os.environ.get("CAUSEWAY_REQUIRE_ANVIL") == "1"
NEW = "m/44'/60'/1'"


@dataclass
class House:
    """What the signer is started with, and the key on its token."""

    folder: Path
    token: SoftToken
    tls: dict[str, TlsFiles]
    sender: str
    kek: bytes

    def options(self) -> list[str]:
        ours = self.tls["signer"]
        named = {
            "--pkcs11-module": self.token.module,
            "--pkcs11-token": LABEL,
            "--pkcs11-pin": self.token.pin,
            "--keystore": self.folder / "keystore",
            "--kek": self.folder / "kek",
            "--store": self.folder / "store",
            "--rules": self.folder / "rules",
            "--socket": "tls://127.0.0.1:0",
            "--tls-authority": ours.authority,
            "--tls-certificate": ours.certificate,
            "--tls-key": ours.key,
        }
        return [text for name, value in named.items() for text in (name, str(value))]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    token = make_token(tmp_path)
    monkeypatch.setenv(CONFIGURATION, str(token.configuration))
    token.start_anew()
    with TokenKeys.open(token.module, LABEL, token.pin) as keys:
        sender = address_of_public_key(keys.make_key("hot"))
    pkcs11.lib(str(token.module)).finalize()
    kek = secrets.token_bytes(32)
    wallets = [
        WalletPinned(version=1, wallet="client-pool", chain="evm", account_path="hot"),
        WalletPinned(version=1, wallet="client-pool-2", chain="evm", account_path=NEW),
    ]
    rules = msgspec.structs.replace(RULES, wallets=wallets)
    for name, content in (("kek", kek.hex().encode()), ("rules", msgspec.json.encode(rules))):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(content)
    sealed = seal(SEED, kek, key_id="next", random=secrets.token_bytes, accounts=[1])
    write_keystore(tmp_path / "keystore", sealed)
    tls = write_house(tmp_path, "127.0.0.1", SystemClock().now())
    return House(tmp_path, token, tls, sender, kek)


@asynccontextmanager
async def running(house: House, log: list[str], *more: str) -> AsyncIterator[SignerClient]:
    child = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "custody.signer", *house.options(), *more, "--parent-pipe"],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    first = await child.stdout.readline()
    try:
        assert first, (await child.stderr.read()).decode()
        ready = json.loads(first)
        assert ready["key_id"] == f"next+{LABEL}"
        yield SignerClient(parse_endpoint(ready["socket"], house.tls["client"]))
    finally:
        child.stdin.close()
        log.append((first + await child.stdout.read() + await child.stderr.read()).decode())
        assert await asyncio.wait_for(child.wait(), 20) == 0


@asynccontextmanager
async def node(kind: str) -> AsyncIterator[JsonRpc]:
    async with aiohttp.ClientSession() as session:
        if kind == "simulator":
            with start_evm_process() as process:
                yield JsonRpc(process.url, session)
            return
        binary = find_anvil(os.environ, [REPOSITORY / ".cache" / "npm", REPOSITORY])
        if binary is None:
            assert not REQUIRE_ANVIL
            pytest.skip("no anvil: npm i --prefix .cache/npm @foundry-rs/anvil@1.7.1, or set ANVIL")
        async with start_anvil(binary) as anvil:
            yield JsonRpc(anvil.url, session)


@pytest.mark.parametrize("kind", ["simulator", "anvil"])
async def test_a_payout_signed_in_a_token_is_mined_and_its_key_then_rotated(
    kind: str, house: House
) -> None:
    log: list[str] = []
    async with node(kind) as rpc:
        gift = sign_transaction(dev_account(0), 0, to=house.sender, value=5 * ETH)
        await rpc.wait_receipt(await rpc.call("eth_sendRawTransaction", gift))
        raw = await pay_and_ask_again(house, log, rpc)
        await rotate(house, log, rpc)

        assert await rpc.number("eth_getTransactionCount", house.sender, "latest") == 2
        assert await rpc.number("eth_getBalance", OWN, "latest") == 3 * ETH
    text = "".join(log)
    assert '"peer": "causeway"' in text
    secret = [PIN, SEED.hex(), house.kek.hex(), raw.hex(), house.tls["signer"].key.read_text()]
    assert [one for one in secret if one in text] == []


async def pay_and_ask_again(house: House, log: list[str], rpc: JsonRpc) -> bytes:
    tx = native(nonce=0)
    meant = intent(tx, key_path="hot", sender=house.sender)
    approved = approval_now(meant, "ann")
    async with running(house, log, "--init") as signer:
        assert isinstance(await signer.control(allowed("acme", 1)), Accepted)
        with pytest.raises(SignerRefused, match="no key of this signer"):
            await signer.account_xpub("m/44'/60'/0'")
        with pytest.raises(SignerRefused, match="0 of 1"):
            await signer.sign(meant, encode_unsigned(tx), [])
        raw = await signer.sign(meant, encode_unsigned(tx), [approved])
        # The token's signatures are random: only what was written first keeps the promise.
        assert await signer.sign(meant, encode_unsigned(tx), [approved]) == raw
    async with running(house, log) as signer:
        assert await signer.sign(meant, encode_unsigned(tx), [approved]) == raw

    assert decode_signed(raw, chain_id=CHAIN_ID).sender == house.sender
    before = await rpc.number("eth_getBalance", PAYEE, "latest")
    sent = await rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
    assert int((await rpc.wait_receipt(sent))["status"], 16) == 1
    assert await rpc.number("eth_getBalance", PAYEE, "latest") - before == ETH
    return raw


async def rotate(house: House, log: list[str], rpc: JsonRpc) -> None:
    """Retire the token's key, and move what it holds to the key that replaces it."""
    body = KeyRetired(path="hot", successor=NEW, reason="to another key")
    async with running(house, log) as signer:
        answer = await signer.control(control(ControlKind.KEY_RETIRE, body, "ann", "bob"))
        assert isinstance(answer, Accepted)
        tx = native(nonce=1)
        meant = intent(tx, payout_id=UUID(int=8), key_path="hot", sender=house.sender)
        with pytest.raises(SignerRefused, match="is retired"):
            await signer.sign(meant, encode_unsigned(tx), [approval_now(meant, "ann")])
        tx = replace(tx, recipient=OWN, value=3 * ETH)
        move = intent(tx, payout_id=UUID(int=9), key_path="hot", sender=house.sender)
        assert (move.kind, move.destination_path) == ("own", OTHER_PATH)
        raw = await signer.sign(move, encode_unsigned(tx), [approval_now(move, "ann")])
    sent = await rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
    assert int((await rpc.wait_receipt(sent))["status"], 16) == 1


async def test_a_signer_whose_token_is_gone_says_later_and_signs_when_it_is_back(
    house: House,
) -> None:
    log: list[str] = []
    tx = native(nonce=0)
    meant = intent(tx, key_path="hot", sender=house.sender)
    async with running(house, log, "--init") as signer:
        assert isinstance(await signer.control(allowed("acme", 1)), Accepted)
        house.token.hide()
        with pytest.raises(SignerPostponed, match=f"token {LABEL} does not answer"):
            await signer.sign(meant, encode_unsigned(tx), [approval_now(meant, "ann")])
        house.token.plug_in()
        raw = await signer.sign(meant, encode_unsigned(tx), [approval_now(meant, "ann")])

    assert decode_signed(raw, chain_id=CHAIN_ID).sender == house.sender
