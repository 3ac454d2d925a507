"""The signer as a process: its command line, its socket, its end."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from chain.evm.transactions import decode_signed, encode_unsigned
from custody.signer.client import SignerClient
from custody.signer.errors import SignerPostponed, SignerRefused
from custody.signer.wire import Accepted
from kernel.errors import OutsideUnavailable
from tests.custody.signer.vault import (
    PATH,
    ROOT,
    RULES,
    SEED,
    SENDER,
    allowed,
    approval_now,
    intent,
    native,
)

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
        private(made.folder / "rules", msgspec.json.encode(RULES))
        yield made


def make(files: Files) -> None:
    """Keystore, store and the store's first checkpoint."""
    made = run("init", *files.options(), "--rules", str(files.folder / "rules"), stdin=SEED.hex())
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")


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


async def start(files: Files, *more: str) -> asyncio.subprocess.Process:
    rules = ["--socket", str(files.socket), *more]
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


def spellings(secret: bytes) -> tuple[str, ...]:
    """How a secret could turn up in text."""
    return secret.hex(), base64.b64encode(secret).decode(), repr(secret), str(list(secret))


async def test_the_process_signs_refuses_and_ends_with_its_parent(files: Files) -> None:
    make(files)
    child = await start(files)
    client = SignerClient(files.socket)
    tx = native()
    meant = intent(tx)
    approved = approval_now(meant, "ann")

    assert stat.S_IMODE(files.socket.stat().st_mode) == 0o600
    assert await client.account_xpub("m/44'/60'/0'") == ROOT.derive("m/44'/60'/0'").xpub()
    assert await client.public_key(PATH) == ROOT.derive(PATH).uncompressed_key
    with pytest.raises(SignerRefused, match="no key of this signer"):
        await client.public_key("m/44'/60'")
    with pytest.raises(SignerPostponed, match="not an allowed destination"):
        await client.sign(meant, encode_unsigned(tx), [approved])
    assert isinstance(await client.control(allowed("acme", 1)), Accepted)
    with pytest.raises(SignerRefused, match="0 of 1 approvals"):
        await client.sign(meant, encode_unsigned(tx), [])
    raw = await client.sign(meant, encode_unsigned(tx), [approved])
    assert decode_signed(raw, chain_id=31337).sender == SENDER
    assert (await client.health()).signed == 1

    assert child.stdin is not None
    child.stdin.close()
    assert await asyncio.wait_for(child.wait(), 20) == 0
    assert child.stderr is not None
    logged = (await child.stderr.read()).decode()
    assert "signer_answered" in logged
    stored = (files.folder / "keystore.signed").read_bytes()
    for secret in (SEED, ROOT.secret, ROOT.derive(PATH).secret, ROOT.chain_code):
        for spelled in spellings(secret):
            assert spelled not in logged
            assert spelled.encode() not in stored
        assert secret not in stored
    assert raw.hex() not in logged
    assert not files.socket.exists()

    again = await start(files)
    assert await client.sign(meant, encode_unsigned(tx), [approved]) == raw
    again.kill()
    await again.wait()
    with pytest.raises(OutsideUnavailable, match="does not answer"):
        await client.health()


async def test_nonsense_on_the_socket_harms_nobody_else(files: Files) -> None:
    make(files)
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
    rules = files.folder / "rules"
    rules.write_text(rules.read_text().replace('"approvals":1', '"approvals":0'))

    made = run("init", *files.options(), "--rules", str(rules), stdin=SEED.hex())

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
