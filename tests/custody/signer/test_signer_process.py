"""The signer as a process: its command line, its socket, its end."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chain.evm.addresses import address_of_public_key
from chain.evm.transactions import UnsignedTransaction, decode_signed, encode_unsigned
from custody.payout_approvals import ApprovalLine, approval_bytes
from custody.signer.client import SignerClient
from custody.signer.errors import SignerRefused
from custody.signer.hd_keys import PrivateNode
from custody.signer.rules import AssetRule, Rules
from custody.signer.wire import Intent, Line, SignedApproval
from kernel.errors import OutsideUnavailable

SEED = bytes(range(32))
ROOT = PrivateNode.from_seed(SEED)
PATH = "m/44'/60'/0'/1/0"
SENDER = address_of_public_key(ROOT.derive(PATH).uncompressed_key)
PAYEE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
ANN = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Files:
    folder: Path

    @property
    def socket(self) -> Path:
        return self.folder / "s"

    def options(self) -> list[str]:
        return ["--keystore", str(self.folder / "keystore"), "--kek", str(self.folder / "kek")]


def private(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


@pytest.fixture
def files() -> Iterator[Files]:
    # A socket's path is at most 107 bytes long: pytest's own folders may be longer.
    with tempfile.TemporaryDirectory(prefix="cw") as folder:
        made = Files(Path(folder))
        private(made.folder / "kek", bytes(range(32)).hex().encode())
        rules = Rules(
            version=1,
            chains={"evm": 31337},
            operators={"ann": ANN.public_key().public_bytes_raw().hex()},
            fee_cap_max=str(10**16),
            assets=[
                AssetRule(
                    chain_id=31337, asset="ETH", contract=None, amount_max=str(10**18), approvals=1
                )
            ],
        )
        private(made.folder / "rules", msgspec.json.encode(rules))
        yield made


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "custody.signer", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
        timeout=60,
    )


async def start(files: Files) -> asyncio.subprocess.Process:
    rules = ["--rules", str(files.folder / "rules"), "--socket", str(files.socket)]
    child = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "custody.signer", *files.options(), *rules, "--parent-pipe"],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert child.stdout is not None
    ready = json.loads(await child.stdout.readline())
    assert ready == {"ready": True, "socket": str(files.socket), "key_id": "hot", "pid": child.pid}
    return child


async def test_the_process_signs_refuses_and_ends_with_its_parent(files: Files) -> None:
    made = run("init", *files.options(), stdin=SEED.hex())
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    child = await start(files)
    client = SignerClient(files.socket)
    tx = UnsignedTransaction(
        chain_id=31337,
        nonce=0,
        max_priority_fee_per_gas=10**9,
        max_fee_per_gas=2 * 10**9,
        gas_limit=21_000,
        recipient=PAYEE,
        value=5,
    )
    line = ApprovalLine(
        payout_id=UUID(int=1),
        chain="evm",
        chain_id=31337,
        destination=PAYEE,
        asset="ETH",
        amount=5,
        initiator="zoe",
        policy_version=1,
        rule=1,
    )
    intent = Intent(
        payout_id=line.payout_id,
        kind="pay",
        wallet="client-pool",
        client="acme",
        destination_path=None,
        chain="evm",
        chain_id=31337,
        key_path=PATH,
        sender=SENDER,
        nonce=0,
        destination=PAYEE,
        asset="ETH",
        contract=None,
        amount="5",
        fee_cap=str(tx.fee_max),
        initiator="zoe",
        policy_version=1,
        rule=1,
    )
    approval = SignedApproval(
        operator="ann", signature=ANN.sign(approval_bytes([line])), lines=[Line.of(line)]
    )

    assert stat.S_IMODE(files.socket.stat().st_mode) == 0o600
    assert await client.account_xpub("m/44'/60'/0'") == ROOT.derive("m/44'/60'/0'").xpub()
    with pytest.raises(SignerRefused, match="0 of 1 approvals"):
        await client.sign(intent, encode_unsigned(tx), [])
    raw = await client.sign(intent, encode_unsigned(tx), [approval])
    assert decode_signed(raw, chain_id=31337).sender == SENDER
    assert (await client.health()).signed == 1

    assert child.stdin is not None
    child.stdin.close()
    assert await asyncio.wait_for(child.wait(), 20) == 0
    assert child.stderr is not None
    logged = (await child.stderr.read()).decode()
    assert "signer_answered" in logged
    for secret in (SEED.hex(), bytes(range(32)).hex(), ROOT.secret.hex(), raw.hex()):
        assert secret not in logged
    assert not files.socket.exists()

    again = await start(files)
    assert await client.sign(intent, encode_unsigned(tx), [approval]) == raw
    again.kill()
    await again.wait()
    with pytest.raises(OutsideUnavailable, match="does not answer"):
        await client.health()


async def test_nonsense_on_the_socket_harms_nobody_else(files: Files) -> None:
    assert run("init", *files.options(), stdin=SEED.hex()).returncode == 0
    child = await start(files)
    for nonsense in (b"\xff\xff\xff\xff", b"\0\0\0\2{}", b"\0\0\0\1x", b"GET / HTTP/1.1\r\n\r\n"):
        reader, writer = await asyncio.open_unix_connection(str(files.socket))
        writer.write(nonsense)
        assert await reader.read() == b""
        writer.close()

    assert (await SignerClient(files.socket).health()).key_id == "hot"
    child.terminate()
    assert await asyncio.wait_for(child.wait(), 20) == 0


@pytest.mark.parametrize(
    ("seed", "says"), [("zz", "not hexadecimal"), ("00" * 15, "16 to 64 bytes"), ("", "16 to 64")]
)
def test_a_bad_seed_makes_no_keystore(files: Files, seed: str, says: str) -> None:
    made = run("init", *files.options(), stdin=seed)

    assert made.returncode == 2
    assert says in made.stderr
    assert "Traceback" not in made.stderr
    assert not (files.folder / "keystore").exists()


def test_rules_that_ask_for_no_approval_are_refused(files: Files) -> None:
    assert run("init", *files.options(), stdin=SEED.hex()).returncode == 0
    rules = files.folder / "rules"
    rules.write_text(rules.read_text().replace('"approvals":1', '"approvals":0'))

    made = run(
        *files.options(), "--rules", str(rules), "--socket", str(files.socket), "--parent-pipe"
    )

    assert made.returncode == 2
    assert "nobody has to approve" in made.stderr


def test_the_client_loads_no_key_code() -> None:
    code = (
        "import sys, custody.signer.client\n"
        "print(sorted(m for m in sys.modules if m.endswith(('hd_keys', 'keystore', 'service'))))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )

    assert made.stdout.strip() == "[]"
