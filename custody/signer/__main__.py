"""``python -m custody.signer``: start the signer, make what it starts with, or prove its store.

::

    python -m custody.signer init --keystore FILE --kek FILE [--rules FILE --store FILE]
                                  [--key-id NAME] < seed in hexadecimal
    python -m custody.signer --socket PATH --keystore FILE --kek FILE --store FILE
    python -m custody.signer verify --store FILE
    python -m custody.signer checkpoint --store FILE --checkpoint NEW_PLACE

``init`` seals the seed that standard input gives (never an argument, which other users could see)
and, with ``--rules``, makes the store, its checkpoint key and its first checkpoint. A signer whose
store is missing does not start: a lost store must never look like a new one. ``--init`` at the start
makes one from the rules where there is neither a store nor a checkpoint of one. When the signer
listens it prints one line of JSON: ``{"ready": true, "socket": …, "key_id": …, "pid": …}``.

``verify`` proves the whole store: log, tree, index and signatures. ``checkpoint`` writes its
checkpoint to a place that had none. Both need the signer to be stopped, or a copy of its store.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Final

import orjson

from custody.signer.backends.ring import TokenSource, open_keys
from custody.signer.checkpoints import CheckpointKey, Places, key_name, make_key, read_key
from custody.signer.errors import StoreUnusable
from custody.signer.hardening import harden
from custody.signer.hd_keys import SEED_BYTES_MAX, PrivateNode
from custody.signer.keystore import seal, write_keystore
from custody.signer.rules_file import read_rules
from custody.signer.service import Signer
from custody.signer.store import Genesis, Memory
from custody.signer.transport import CLIENT_NAME, TlsEndpoint, TlsFiles, listening, parse_endpoint
from custody.signer.verification import find_faults
from kernel.clock import SystemClock, to_unix_ms
from kernel.errors import BadInput, CausewayError
from kernel.parent import wait_for_parent_end
from kernel.private_files import read_kek
from kernel.telemetry import configure_logging

SEED_TEXT_MAX: Final = 2 * SEED_BYTES_MAX + 2
FAULTS_SHOWN_MAX: Final = 100


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)
    configure_logging("info", as_json=True)
    try:
        match options.command:
            case "init":
                initialise(options)
            case "verify":
                return prove(options)
            case "checkpoint":
                write_checkpoint(options)
            case _:
                asyncio.run(serve(options))
    except CausewayError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(prog="python -m custody.signer", description=__doc__)
    top.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = ["serve", "init", "verify", "checkpoint"]
    top.add_argument("command", nargs="?", choices=commands, default="serve")
    top.add_argument(
        "--keystore", type=Path, action="append", help="again for a second seed, while keys rotate"
    )
    top.add_argument(
        "--kek", type=Path, action="append", help="64 hexadecimal digits, mode 0600; one each"
    )
    top.add_argument("--key-id", default="hot", help="init: the name of the key")
    top.add_argument("--pkcs11-module", type=Path, help="a token in place of the keystore")
    top.add_argument("--pkcs11-token", help="the token's label")
    top.add_argument("--pkcs11-pin", type=Path, help="file of mode 0600 with the user's PIN")
    top.add_argument("--socket", help="serve: a path, or tls://HOST:PORT")
    top.add_argument("--tls-authority", type=Path, help="serve: PEM of the private authority")
    top.add_argument("--tls-certificate", type=Path, help="serve: PEM of our certificate")
    top.add_argument("--tls-key", type=Path, help="serve: PEM of its key, mode 0600")
    top.add_argument("--tls-peer", action="append", help="serve: a client name that is let in")
    top.add_argument("--rules", type=Path, help="what a new store begins with; read only then")
    top.add_argument("--store", type=Path, help="what was signed (default: KEYSTORE.signed)")
    top.add_argument("--store-key", type=Path, help="signs checkpoints (default: STORE.key)")
    top.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        help="where the checkpoint is kept; again for more places (default: STORE.checkpoint)",
    )
    top.add_argument("--init", action="store_true", help="serve: make a store if there never was")
    top.add_argument("--parent-pipe", action="store_true", help="end when standard input closes")
    return top


def initialise(options: argparse.Namespace) -> None:
    """Seal the seed that standard input gives; make the store if rules are named."""
    pairs = keystores(options)
    if len(pairs) != 1:
        raise BadInput("init needs one --keystore and its --kek")
    [(keystore, kek)] = pairs
    text = sys.stdin.read(SEED_TEXT_MAX).strip()
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        # The error's own text quotes what it read, which is most of a seed.
        raise BadInput("the seed is not hexadecimal") from None
    PrivateNode.from_seed(seed)
    sealed = seal(seed, read_kek(kek), key_id=options.key_id, random=secrets.token_bytes)
    write_keystore(keystore, sealed)
    if options.rules is not None:
        make_store(options, options.key_id)


def make_store(options: argparse.Namespace, key_id: str) -> None:
    """Make store, checkpoint key and first checkpoint of a signer that never signed anything.

    Raises:
        StoreUnusable: one of them is there, so this signer is not new.
    """
    if options.rules is None:
        raise BadInput("a new store begins with --rules")
    rules, store, places = read_rules(options.rules), store_path(options), place_paths(options)
    for path in (store, *places):
        if path.exists():
            raise StoreUnusable(
                "this signer is not new", where=str(path), remedy="Start it without --init"
            )
    key = make_key(store_key_path(options), key_name(key_id), secrets.token_bytes)
    genesis = Genesis(rules=rules, key_id=key_id, verifier_key=key.verifier_key)
    memory = Memory.create(store, genesis, at_ms=to_unix_ms(SystemClock().now()))
    try:
        Places(key, places).write(memory.log)
    finally:
        memory.close()


def prove(options: argparse.Namespace) -> int:
    """Print every fault of the store; 1 if there is one."""
    memory = Memory.open(store_path(options))
    try:
        faults = find_faults(memory)
        places = Places(store_key(options, memory), place_paths(options))
        try:
            places.check(memory.log)
        except StoreUnusable as error:
            faults.append(error.render())
        size, root = memory.log.size, memory.log.root.hex()
    finally:
        memory.close()
    line = {"records": size, "root": root, "faults": faults[:FAULTS_SHOWN_MAX]}
    sys.stdout.write(orjson.dumps(line).decode() + "\n")
    return 1 if faults else 0


def write_checkpoint(options: argparse.Namespace) -> None:
    """Write the store's checkpoint to places that have none, and refuse to replace another."""
    memory = Memory.open(store_path(options))
    try:
        key = store_key(options, memory)
        Places(key, [path for path in place_paths(options) if path.exists()]).check(memory.log)
        Places(key, place_paths(options)).write(memory.log)
    finally:
        memory.close()


async def serve(options: argparse.Namespace) -> None:
    """Answer until a signal comes or the parent is gone."""
    if options.socket is None:
        raise BadInput("the signer needs --socket")
    harden()
    endpoint = parse_endpoint(options.socket, tls_files(options))
    if isinstance(endpoint, TlsEndpoint):
        peers = frozenset(options.tls_peer or [CLIENT_NAME])
        endpoint = TlsEndpoint(endpoint.host, endpoint.port, endpoint.files, peers)
    with open_keys(keystores(options), token_source(options)) as keys:
        if options.init and not store_path(options).exists():
            make_store(options, keys.key_id)
        memory = Memory.open(store_path(options))
        try:
            places = Places(store_key(options, memory), place_paths(options))
            signer = Signer.open(keys, memory, places, SystemClock(), steady=count_ms)
            async with listening(signer.answer_frame, endpoint) as address:
                say_ready(address, keys.key_id)
                await wait_for_end(parent_pipe=options.parent_pipe)
        finally:
            memory.close()


def count_ms() -> int:
    """Return milliseconds since the machine was started, asleep or not: a clock that nobody sets."""
    # Where the system has no such clock (macOS), the one that stands still while it sleeps.
    steady = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(steady) // 1_000_000


def keystores(options: argparse.Namespace) -> list[tuple[Path, Path]]:
    """Return the keystore files, each with the file of its KEK."""
    paths, keks = options.keystore or [], options.kek or []
    if len(paths) != len(keks):
        raise BadInput("each --keystore has its --kek")
    return list(zip(paths, keks, strict=True))


def token_source(options: argparse.Namespace) -> TokenSource | None:
    """Return where the token is, if one is named."""
    if options.pkcs11_module is None:
        return None
    if options.pkcs11_token is None or options.pkcs11_pin is None:
        raise BadInput("a token needs --pkcs11-token and --pkcs11-pin")
    return TokenSource(options.pkcs11_module, options.pkcs11_token, options.pkcs11_pin)


def store_path(options: argparse.Namespace) -> Path:
    """Return where the store is."""
    if options.store is not None:
        return Path(options.store)
    if not options.keystore:
        raise BadInput("name the store with --store")
    keystore = Path(options.keystore[0])
    return keystore.with_name(f"{keystore.name}.signed")


def store_key_path(options: argparse.Namespace) -> Path:
    """Return where the key is that signs the store's checkpoints."""
    store = store_path(options)
    return Path(options.store_key) if options.store_key else store.with_name(f"{store.name}.key")


def store_key(options: argparse.Namespace, memory: Memory) -> CheckpointKey:
    """Return the key that signs the store's checkpoints, by the name that it was given."""
    return read_key(store_key_path(options), key_name(memory.genesis().key_id))


def place_paths(options: argparse.Namespace) -> list[Path]:
    """Return where checkpoints are kept."""
    store = store_path(options)
    return options.checkpoint or [store.with_name(f"{store.name}.checkpoint")]


def tls_files(options: argparse.Namespace) -> TlsFiles | None:
    """Return the TLS files, if all three are named."""
    paths = (options.tls_authority, options.tls_certificate, options.tls_key)
    return None if None in paths else TlsFiles(*paths)


def say_ready(address: str, key_id: str) -> None:
    """Tell whoever started us, in one line, that questions can be asked."""
    line = {"ready": True, "socket": address, "key_id": key_id, "pid": os.getpid()}
    sys.stdout.write(orjson.dumps(line).decode() + "\n")
    sys.stdout.flush()


async def wait_for_end(*, parent_pipe: bool) -> None:
    """Return at SIGTERM or SIGINT, and when standard input closes if *parent_pipe*."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    if not parent_pipe:
        await over.wait()
        return
    async with asyncio.TaskGroup() as tasks:
        parent = tasks.create_task(_set_after(wait_for_parent_end(), over))
        await over.wait()
        parent.cancel()


async def _set_after(ending: Awaitable[None], over: asyncio.Event) -> None:
    await ending
    over.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
