"""A house for trying out: what ``causeway up`` runs when no house file is named.

Everything lies in one folder of the state directory, a house for each development chain::

    trial/
      components/          the signer's and the local chain's logs
      31337/
        keys/ada.key …     the operators' private keys
        signer/            keystore, its key-encryption key, rules, what was signed
        bitcoin/           the blocks of the local chain of Bitcoin, where the books last as well
        founding.json  confirmations.json  house.toml (written last: it marks a complete house)

It is no house for value: every key lies on one machine, and one user can use them all. So it is
only made for chains of development.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.cli.operators import make_key, read_key, write_private
from kernel.clock import Clock
from kernel.errors import OutsideUnavailable, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.local.processes import Processes
    from kernel.settings import Settings
    from registry.model import Role

DEVELOPMENT_CHAINS: Final = frozenset({31_337, 1_337})
DEPTH: Final = 3
BLOCK_TIME_S: Final = "2"
BITCOIN_FEE_RATE: Final = 5_000
"""What the local node of Bitcoin estimates, in satoshi for 1,000 virtual bytes."""
SEED_BYTES: Final = 64
INIT_TIMEOUT_S: Final = 30


@dataclass(frozen=True, slots=True)
class Trial:
    """An opened house for trying out.

    Attributes:
        database: name of a new database for this run only, because its chain ends with it; None:
            the house goes on where it was.
        bitcoin_url: of the chain of Bitcoin; None: the house has none.
        notices: what an operator should know, one sentence each.
    """

    file: Path
    evm_url: str
    bitcoin_url: str | None
    database: str | None
    notices: list[str] = field(default_factory=list)


async def open_trial(settings: Settings, processes: Processes, clock: Clock) -> Trial:
    """Start the signer (and a chain, where none is named) and return the house.

    Raises:
        Refused: the chain is not one of development.
        OutsideUnavailable: a database that lasts is named, and no chain that does.
    """
    if settings.evm_url is None and settings.database_url is not None:
        raise OutsideUnavailable(
            "a database is named and no node",
            where="CAUSEWAY_EVM_URL",
            remedy="Set it: the local chain lives in memory, and the books would outlive it",
        )
    folder = settings.state_dir.absolute() / "trial"
    notices: list[str] = []
    database = None
    evm_url = settings.evm_url
    if evm_url is None:
        evm_url = await _start_chain(settings, processes)
        database = f"causeway_{clock.now():%Y%m%d_%H%M%S}"
        notices.append(f"The chain at {evm_url} ends with this run; its books are in {database}.")
    network_id, height = await _ask(evm_url)
    if network_id not in DEVELOPMENT_CHAINS:
        raise Refused(
            f"a house for trying out is not made for chain {network_id}",
            remedy="Write a house file for it, and name it with --house",
        )
    home = folder / str(network_id)
    socket = _socket(home)
    if not home.exists():
        await asyncio.to_thread(_make_keys, home, network_id)
        notices.append(f"A house for trying out was made; its operators' keys are in {home}/keys.")
    await _start_signer(home, socket, processes)
    bitcoin_url = await _bitcoin(settings, processes, home if database is None else None, notices)
    file = home / "house.toml"
    if not file.exists():
        await _write_house(home, socket, network_id, 0 if database else height)
    return Trial(file, evm_url, bitcoin_url, database, notices)


async def create_database(owner_url: str, name: str) -> str:
    """Make a database beside that of *owner_url* and return its URL."""
    import asyncpg
    from sqlalchemy import make_url

    url = make_url(owner_url)
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    return url.set(database=name).render_as_string(hide_password=False)


async def _start_chain(settings: Settings, processes: Processes) -> str:
    from app.local.processes import python_module

    arguments = ("--port", str(settings.evm_port), "--block-time", BLOCK_TIME_S)
    spec = python_module("evm", "chain.simulators.evm", *arguments)
    child = await asyncio.to_thread(processes.start, spec)
    return str(child.ready["url"])


async def _bitcoin(
    settings: Settings, processes: Processes, home: Path | None, notices: list[str]
) -> str | None:
    """Return the URL of the chain of Bitcoin that is named, or of a local one; None: there is none.

    Args:
        settings: may name a node; one of another network is refused when it is opened.
        processes: start what is local.
        home: where a local chain is kept, because the books last; None: it ends with this run.
        notices: are added to.
    """
    from app.local.processes import python_module
    from chain.bitcoin.kernel import INSTALL, is_available

    if settings.bitcoin_url is not None:
        return settings.bitcoin_url.reveal()
    if not is_available():
        notices.append(f"Bitcoin is left out: its consensus code is missing. {INSTALL}")
        return None
    kept = () if home is None else ("--data-dir", str(home / "bitcoin"))
    options = ("--port", "0", "--fee-rate", str(BITCOIN_FEE_RATE), *kept)
    spec = python_module("bitcoin", "chain.simulators.bitcoin", *options)
    child = await asyncio.to_thread(processes.start, spec)
    url = f"{child.ready['url']}#cookie={child.ready['cookie_file']}"
    notices.append(
        f"A chain of Bitcoin is at {url}; it has a block when somebody asks for one"
        " (`generatetoaddress`)."
    )
    return url


async def _ask(evm_url: str) -> tuple[int, int]:
    """Return the node's network id and height."""
    from chain.evm.quantities import as_int
    from chain.jsonrpc import Rpc

    rpc = Rpc(evm_url)
    try:
        network_id = as_int(await rpc.ask("eth_chainId"), "the chain id")
        height = as_int(await rpc.ask("eth_blockNumber"), "the height")
    finally:
        await rpc.close()
    return network_id, height


def _make_keys(home: Path, network_id: int) -> None:
    """Make the operators' keys and the signer's files; the folder appears when all are there."""
    new = home.with_suffix(".new")
    if new.exists():
        # An earlier run was killed here: nothing was ever done with these keys.
        shutil.rmtree(new)
    for folder in (new, new / "keys", new / "signer"):
        folder.mkdir(mode=0o700, parents=True)
    public = {code: make_key(new / "keys" / f"{code}.key") for code in _roles()}
    signer = new / "signer"
    write_private(signer / "kek", secrets.token_hex(32))
    write_private(signer / "rules.json", _rules(network_id, public))
    command = [sys.executable, "-m", "custody.signer", "init"]
    command += ["--keystore", str(signer / "keystore.json"), "--kek", str(signer / "kek")]
    command += ["--rules", str(signer / "rules.json")]
    seed = secrets.token_hex(SEED_BYTES).encode()
    try:
        subprocess.run(command, input=seed, check=True, capture_output=True, timeout=INIT_TIMEOUT_S)
    except (subprocess.SubprocessError, OSError) as error:
        raise OutsideUnavailable(f"the signer's keystore was not made: {error}") from error
    new.rename(home)


async def _start_signer(home: Path, socket: Path, processes: Processes) -> None:
    from app.local.processes import python_module

    folder = home / "signer"
    spec = python_module(
        "signer",
        "custody.signer",
        *("--socket", str(socket), "--keystore", str(folder / "keystore.json")),
        *("--kek", str(folder / "kek")),
    )
    await asyncio.to_thread(processes.start, spec)


async def _write_house(home: Path, socket: Path, network_id: int, height: int) -> None:
    """Write what the house is founded with, and last the house file."""
    from custody.bitcoin.testing import CHAIN, with_bitcoin
    from custody.signer.client import SignerClient
    from registry.model import Operator
    from registry.records import to_content
    from registry.testing import demo_founding

    signer = SignerClient(socket)
    xpubs = [await signer.account_xpub(f"m/44'/60'/{index}'") for index in range(3)]
    operators = [
        Operator(code, _public(home / "keys" / f"{code}.key"), roles)
        for code, roles in _roles().items()
    ]
    founding = demo_founding(network_id=network_id, xpubs=xpubs, operators=operators)
    # No token is deployed there yet; the coin itself always is.
    coin = tuple(item for item in founding.chain_assets if item.contract is None)
    paths = [f"m/84'/1'/{index}'" for index in range(3)]
    founding = with_bitcoin(
        replace(founding, chain_assets=coin),
        xpubs=[await signer.account_xpub(path) for path in paths],
    )
    lists = ("entities", "assets", "chains", "chain_assets", "parties", "operators", "wallets")
    contents = {name: [to_content(item) for item in getattr(founding, name)] for name in lists}
    (home / "founding.json").write_text(json.dumps(contents, indent=2))
    (home / "confirmations.json").write_text(
        json.dumps({"version": 1, "rules": [{"depth": DEPTH}]})
    )
    lines = {
        "chain": founding.chains[0].code,
        "book": founding.entities[0].book,
        "signer_socket": str(socket),
        "confirmations": "confirmations.json",
        "founding": "founding.json",
        "payout_depth": DEPTH,
        "start_height": height,
    }
    unfinished = home / "house.toml.new"
    # JSON's spelling of texts and whole numbers is TOML's as well.
    text = "".join(f"{key} = {json.dumps(lines[key])}\n" for key in lines)
    section = {"chain": CHAIN, "payout_depth": DEPTH, "start_height": 0}
    text += "\n[bitcoin]\n"
    text += "".join(f"{key} = {json.dumps(section[key])}\n" for key in section)
    unfinished.write_text(text)
    unfinished.rename(home / "house.toml")


def _roles() -> dict[str, frozenset[Role]]:
    from registry.testing import DEMO_OPERATORS

    return {item.code: item.roles for item in DEMO_OPERATORS}


def _rules(network_id: int, public: Mapping[str, bytes]) -> str:
    import msgspec

    from chain.bitcoin.networks import REGTEST
    from custody.bitcoin.testing import BTC, CHAIN
    from custody.control_messages import AssetRule
    from custody.signer.rules import Rules
    from registry.testing import ETH, EVM

    limit = str(ETH.parse("50"))
    coin = AssetRule(
        chain_id=network_id, asset=ETH.code, contract=None, amount_max=limit, approvals=1
    )
    bitcoin = AssetRule(
        chain_id=REGTEST.network_id,
        asset=BTC.code,
        contract=None,
        amount_max=str(BTC.parse("2")),
        approvals=1,
    )
    rules = Rules(
        version=1,
        chains={EVM: network_id, CHAIN: REGTEST.network_id},
        operators={code: key.hex() for code, key in public.items()},
        fee_cap_max=str(ETH.parse("0.1")),
        assets=[coin, bitcoin],
    )
    return msgspec.json.encode(rules).decode()


def _public(path: Path) -> bytes:
    return read_key(path).public_key().public_bytes_raw()


def _socket(home: Path) -> Path:
    """Return a short path in a private folder: that of a Unix socket has about 100 bytes."""
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"causeway-{os.geteuid()}" / digest
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / "signer.sock"
